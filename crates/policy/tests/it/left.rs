//! What of policies is in a kernel, in words that do not depend on how it came there.

use std::collections::BTreeMap;

use nft::Compiled;

/// Lines by chain or set.
pub type Left = BTreeMap<String, Vec<String>>;

/// What a table holds but the number of the rules in force, which counts the changes.
pub fn lines(table: Option<&Compiled>) -> Left {
    let mut left = Left::new();
    let Some(table) = table else {
        return left;
    };
    for (name, chain) in &table.chains {
        let rules = chain.rules.iter().map(|rule| format!("{rule:?}"));
        let counts = name == "judged";
        left.insert(name.clone(), rules.filter(|_| !counts).collect());
    }
    for (name, set) in &table.sets {
        let elements = set.elements.iter();
        let elements = elements.map(|(key, data)| format!("{key:?} {data:?}"));
        let counts = name == "generation";
        left.insert(name.clone(), elements.filter(|_| !counts).collect());
    }
    left
}
