//! Text for `iptables-restore --noflush`: sections, each of which is one transaction of one
//! table.

use std::fmt::Write as _;

use super::{Chain, Table};

/// The most chains of one transaction. iptables over `nf_tables` takes quadratic time in them:
/// 60,000 chains at once need three minutes, in hundreds three seconds. The legacy kind takes its
/// whole table out and in again for each transaction, and should have one.
const MOST_CHAINS: usize = 600;

/// Sections in the order they are written.
#[derive(Debug)]
pub(crate) struct Writer {
    done: String,
    open: Option<(Table, Section)>,
    most_chains: usize,
}

/// One transaction.
#[derive(Debug, Default)]
pub(crate) struct Section {
    chains: String,
    rules: String,
    count: usize,
}

impl Section {
    /// Makes the chain, or empties it, and fills it with these rules.
    pub(crate) fn chain(&mut self, name: &str, rules: &[String]) {
        self.declare(name);
        for rule in rules {
            let _ = writeln!(self.rules, "-A {name} {rule}");
        }
    }

    /// Any other line.
    pub(crate) fn line(&mut self, line: String) {
        self.rules.push_str(&line);
        self.rules.push('\n');
    }

    fn declare(&mut self, name: &str) {
        let _ = writeln!(self.chains, ":{name} - [0:0]");
        self.count += 1;
    }
}

impl Writer {
    pub(crate) fn new(legacy: bool) -> Self {
        Self {
            done: String::new(),
            open: None,
            most_chains: if legacy { usize::MAX } else { MOST_CHAINS },
        }
    }

    /// The section of this table that is open, or a new one.
    pub(crate) fn section(&mut self, table: Table) -> &mut Section {
        if self.open.as_ref().is_some_and(|(open, _)| *open != table) {
            self.close();
        }
        &mut self.open.get_or_insert((table, Section::default())).1
    }

    /// Chains of one port: they refer to each other, so they stand in one section.
    pub(crate) fn port<'a>(&mut self, chains: impl Iterator<Item = &'a Chain>) {
        let mut chains = chains.peekable();
        if chains.peek().is_none() {
            return;
        }
        if self.full() {
            self.close();
        }
        let section = self.section(Table::Nat);
        for (name, rules) in chains {
            section.chain(name, rules);
        }
    }

    /// Empties and deletes chains, given in an order in which each is no longer referred to.
    pub(crate) fn remove(&mut self, table: Table, chains: &[&str]) {
        for part in chains.chunks(self.most_chains) {
            if self.full() {
                self.close();
            }
            let section = self.section(table);
            for chain in part {
                section.declare(chain);
            }
            for chain in part {
                section.line(format!("-X {chain}"));
            }
        }
    }

    fn full(&self) -> bool {
        let count = self.open.as_ref().map(|(_, section)| section.count);
        count.unwrap_or_default() >= self.most_chains
    }

    /// Ends the section that is open.
    pub(crate) fn close(&mut self) {
        if let Some((table, section)) = self.open.take() {
            let _ = write!(
                self.done,
                "*{}\n{}{}COMMIT\n",
                table.word(),
                section.chains,
                section.rules
            );
        }
    }

    pub(crate) fn finish(mut self) -> String {
        self.close();
        self.done
    }
}
