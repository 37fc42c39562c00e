//! What is in the tables, read from the output of `iptables-save`.

use std::collections::{HashMap, HashSet};

use super::base::Jump;
use super::{Chain, Table};

/// Chains and rules by table, as borrowed text.
#[derive(Clone, Debug, Default)]
pub struct Present<'a> {
    tables: HashMap<&'a str, HashMap<&'a str, Vec<&'a str>>>,
}

impl<'a> Present<'a> {
    /// Reads what `iptables-save` printed, of one table or of several.
    pub fn parse(saved: &'a str) -> Self {
        let mut present = Self::default();
        let mut table = "";
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.trim();
                present.tables.entry(table).or_default();
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or_default();
                present.chain(table, name);
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let (name, rule) = rule.split_once(' ').unwrap_or((rule, ""));
                present.chain(table, name).push(rule.trim_end());
            }
        }
        present
    }

    fn chain(&mut self, table: &'a str, name: &'a str) -> &mut Vec<&'a str> {
        let chains = self.tables.entry(table).or_default();
        chains.entry(name).or_default()
    }

    /// Rules of a chain; none where there is no such chain.
    pub fn rules(&self, table: Table, chain: &str) -> Option<&[&'a str]> {
        let chains = self.tables.get(table.word())?;
        chains.get(chain).map(Vec::as_slice)
    }

    /// Names of all chains.
    pub fn chains(&self, table: Table) -> impl Iterator<Item = &'a str> {
        let chains = self.tables.get(table.word());
        chains.into_iter().flat_map(|chains| chains.keys().copied())
    }

    pub(crate) fn has(&self, table: Table, chain: &str) -> bool {
        self.rules(table, chain).is_some()
    }

    /// True where the chain is there with exactly these rules.
    pub(crate) fn is(&self, table: Table, (name, rules): &Chain) -> bool {
        self.rules(table, name)
            .is_some_and(|found| found.iter().eq(rules.iter()))
    }

    /// True where the chain is there with these rules, the last `tail` of them in their order:
    /// that of the others among each other means nothing.
    pub(crate) fn holds(&self, table: Table, (name, rules): &Chain, tail: usize) -> bool {
        let Some(found) = self.rules(table, name) else {
            return false;
        };
        if found.len() != rules.len() {
            return false;
        }
        let (any, last) = rules.split_at(rules.len() - tail);
        let (found, found_last) = found.split_at(any.len());
        let found: HashSet<&str> = found.iter().copied().collect();
        found.len() == any.len()
            && any.iter().all(|rule| found.contains(rule.as_str()))
            && found_last.iter().eq(last.iter())
    }

    /// True where a rule of the jump's chain is the jump.
    pub(crate) fn jumps(&self, jump: &Jump) -> bool {
        !self.jump_lines(jump).is_empty()
    }

    /// The rules that are this jump, with their chain; matches in any order.
    pub(crate) fn jump_lines(&self, jump: &Jump) -> Vec<(&'static str, &'a str)> {
        let rule = jump.rule();
        let wanted = words(&rule);
        let rules = self.rules(jump.table, jump.from).unwrap_or_default();
        rules
            .iter()
            .filter(|rule| words(rule) == wanted)
            .map(|rule| (jump.from, *rule))
            .collect()
    }
}

fn words(rule: &str) -> Vec<&str> {
    let mut words: Vec<&str> = rule.split_whitespace().collect();
    words.sort_unstable();
    words
}
