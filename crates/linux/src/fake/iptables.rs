//! Tables of iptables in memory: the language of `iptables-restore`, as far as this project
//! writes it.

use std::collections::BTreeMap;
use std::fmt;

/// One table: rules by chain, without `-A CHAIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iptables {
    /// Chains, the built-in ones too.
    pub chains: BTreeMap<String, Vec<String>>,
}

/// Targets that are no chains.
const TARGETS: [&str; 11] = [
    "ACCEPT",
    "CT",
    "DNAT",
    "DROP",
    "LOG",
    "MARK",
    "MASQUERADE",
    "NOTRACK",
    "REJECT",
    "RETURN",
    "SNAT",
];

fn built_in(table: &str) -> &'static [&'static str] {
    match table {
        "nat" => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
        "filter" => &["INPUT", "FORWARD", "OUTPUT"],
        "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        "raw" => &["PREROUTING", "OUTPUT"],
        _ => &[],
    }
}

impl Iptables {
    /// A table as the kernel makes it; [`None`] where there is none of that name.
    pub fn new(table: &str) -> Option<Self> {
        let chains = built_in(table);
        (!chains.is_empty()).then(|| Self {
            chains: chains
                .iter()
                .map(|name| ((*name).to_owned(), Vec::new()))
                .collect(),
        })
    }

    /// One line of a text between the table's name and `COMMIT`; the error is the cause.
    fn line(&mut self, table: &str, line: &str) -> Result<(), String> {
        if let Some(declared) = line.strip_prefix(':') {
            let name = declared.split(' ').next().unwrap_or_default();
            let rules = self.chains.entry(name.to_owned()).or_default();
            if !built_in(table).contains(&name) {
                rules.clear();
            }
            return Ok(());
        }
        let (command, rest) = line.split_once(' ').ok_or("unknown command")?;
        let (name, rule) = rest.split_once(' ').unwrap_or((rest, ""));
        let rules = self.chains.get_mut(name).ok_or("no such chain")?;
        match command {
            "-A" => rules.push(rule.to_owned()),
            "-I" => {
                let (number, numbered) = rule.split_once(' ').unwrap_or_default();
                let (at, rule) = match number.parse::<usize>() {
                    Ok(number) => (number.saturating_sub(1), numbered),
                    Err(_) => (0, rule),
                };
                if at > rules.len() {
                    return Err("index of insertion too big".into());
                }
                rules.insert(at, rule.to_owned());
            }
            "-D" => {
                let at = rules.iter().position(|there| there == rule);
                rules.remove(at.ok_or("does a matching rule exist in that chain?")?);
            }
            "-F" => rules.clear(),
            "-X" if built_in(table).contains(&name) => return Err("a built-in chain".into()),
            "-X" if !rules.is_empty() || self.referred(name) => {
                return Err("chain has rules, or rules that lead to it".into());
            }
            "-X" => {
                self.chains.remove(name);
            }
            _ => return Err("unknown command".into()),
        }
        Ok(())
    }

    fn referred(&self, chain: &str) -> bool {
        let mut rules = self.chains.values().flatten();
        rules.any(|rule| target(rule) == Some(chain))
    }

    /// Whether all targets are there.
    fn check(&self) -> Result<(), String> {
        let targets = self
            .chains
            .values()
            .flatten()
            .filter_map(|rule| target(rule));
        for target in targets {
            if !TARGETS.contains(&target) && !self.chains.contains_key(target) {
                return Err(format!("chain '{target}' does not exist"));
            }
        }
        Ok(())
    }
}

/// Where a rule leads; a comment may hold anything.
fn target(rule: &str) -> Option<&str> {
    let mut outside = rule.split('"').step_by(2);
    outside.find_map(|part| {
        let mut words = part.split(' ');
        words.find(|word| matches!(*word, "-j" | "-g"))?;
        words.next()
    })
}

/// As `iptables-save` prints it; the table's own lines only.
impl fmt::Display for Iptables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in self.chains.keys() {
            let built_in = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
            let policy = if built_in.contains(&name.as_str()) {
                "ACCEPT"
            } else {
                "-"
            };
            writeln!(f, ":{name} {policy} [0:0]")?;
        }
        for (name, rules) in &self.chains {
            for rule in rules {
                writeln!(f, "-A {name} {rule}")?;
            }
        }
        Ok(())
    }
}

/// What a text makes of tables by name, each at once at its `COMMIT`. The error is the line and
/// the cause.
pub(super) fn restore(
    tables: &mut BTreeMap<String, Iptables>,
    text: &str,
    lacks: Option<&str>,
) -> Result<(), (String, String)> {
    let mut open: Option<(&str, Iptables)> = None;
    for line in text.lines().map(str::trim) {
        let refused = |cause: String| (line.to_owned(), cause);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if lacks.is_some_and(|lacks| line.contains(lacks)) {
            return Err(refused("extension is not supported".into()));
        }
        match (line.strip_prefix('*'), &mut open) {
            (Some(name), None) => {
                let table = tables.get(name).cloned().or_else(|| Iptables::new(name));
                let table = table.ok_or_else(|| refused("no such table".into()))?;
                open = Some((name, table));
            }
            (None, Some((name, table))) if line == "COMMIT" => {
                table.check().map_err(refused)?;
                tables.insert((*name).to_owned(), table.clone());
                open = None;
            }
            (None, Some((name, table))) => table.line(name, line).map_err(refused)?,
            _ => return Err(refused("outside or inside a table".into())),
        }
    }
    match open {
        Some((name, _)) => Err((format!("*{name}"), "COMMIT expected".into())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::restore;

    #[test]
    fn the_language_of_restore() {
        let mut tables = BTreeMap::new();
        let base = "# a comment\n*nat\n:A - [0:0]\n:B - [0:0]\n-A A -m comment --comment \"x -j y\" -j B\n-A A -j ACCEPT\n-I A -j DROP\n-I A 2 -j RETURN\n-A PREROUTING -j A\nCOMMIT\n";
        restore(&mut tables, base, None).unwrap();
        let rules = |tables: &BTreeMap<String, super::Iptables>, chain: &str| {
            tables["nat"].chains[chain].join("|")
        };
        assert_eq!(
            rules(&tables, "A"),
            "-j DROP|-j RETURN|-m comment --comment \"x -j y\" -j B|-j ACCEPT"
        );
        let refused = |text: &str, line: &str| {
            let mut after = tables.clone();
            let (at, cause) = restore(&mut after, text, None).unwrap_err();
            assert_eq!((at.as_str(), &after), (line, &tables), "{cause}");
        };
        refused("*nat\n-A C -j DROP\nCOMMIT\n", "-A C -j DROP");
        refused("*nat\n-A A -j C\nCOMMIT\n", "COMMIT");
        refused("*nat\n-X B\nCOMMIT\n", "-X B");
        refused("*nat\n-D A -j LOG\nCOMMIT\n", "-D A -j LOG");
        refused("*nat\n:A - [0:0]\n", "*nat");
        refused("*none\nCOMMIT\n", "*none");
        // A chain's declaration empties it, but not a built-in one.
        restore(
            &mut tables,
            "*nat\n:A - [0:0]\n:PREROUTING ACCEPT [0:0]\n-X B\nCOMMIT\n",
            None,
        )
        .unwrap();
        assert_eq!(
            tables["nat"].to_string(),
            ":A - [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j A\n"
        );
    }
}
