//! The difference of two rulesets as a transaction that touches only what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::compile::{Compiled, CompiledChain, CompiledRule, CompiledSet, Datum, ElementKey};
use crate::model::{Base, Family};

/// Changes that the kernel makes all at once, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The table's family.
    pub family: Family,
    /// The table's name.
    pub table: String,
    /// Changes in order.
    pub ops: Vec<Op>,
}

impl Transaction {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The table is there.
    AddTable,
    /// The table is there, and lives as long as the socket that sends this: nobody else changes
    /// it, and the kernel removes it when the socket is closed, as it is when its process ends in
    /// whatever way. The first change of a transaction. Needs Linux 5.12.
    OwnTable,
    /// The table is gone with all that is in it.
    DeleteTable,
    /// A chain is there.
    AddChain(String, Option<Base>),
    /// A chain has no rules.
    FlushChain(String),
    /// A chain is gone.
    DeleteChain(String),
    /// A rule at the end of a chain.
    AddRule(String, CompiledRule),
    /// A set is there; its elements come in an operation of their own.
    AddSet(String, CompiledSet),
    /// A set is gone.
    DeleteSet(String),
    /// Elements are in a set.
    AddElements(String, Vec<(ElementKey, Option<Datum>)>),
    /// Elements are no longer in a set; refused where one was not there.
    DeleteElements(String, Vec<ElementKey>),
    /// Elements are not in a set, whether they were or not: what packets added may end at any
    /// time. Needs Linux 6.3.
    DestroyElements(String, Vec<ElementKey>),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable | Self::OwnTable => write!(f, "add table"),
            Self::DeleteTable => write!(f, "delete table"),
            Self::AddChain(name, _) => write!(f, "add chain {name}"),
            Self::FlushChain(name) => write!(f, "flush chain {name}"),
            Self::DeleteChain(name) => write!(f, "delete chain {name}"),
            Self::AddRule(
                chain,
                CompiledRule {
                    comment: Some(comment),
                    ..
                },
            ) => {
                write!(f, "add rule \"{comment}\" to chain {chain}")
            }
            Self::AddRule(chain, _) => write!(f, "add rule to chain {chain}"),
            Self::AddSet(name, _) => write!(f, "add set {name}"),
            Self::DeleteSet(name) => write!(f, "delete set {name}"),
            Self::AddElements(set, _) => write!(f, "add elements to set {set}"),
            Self::DeleteElements(set, _) | Self::DestroyElements(set, _) => {
                write!(f, "delete elements of set {set}")
            }
        }
    }
}

/// What makes `have` into `want`, for the chains and sets whose names `owns` accepts. `have` is
/// [`None`] where the table is not there. An unchanged chain keeps its rules and their counters;
/// of a set only the elements that differ are named.
pub fn diff(have: Option<&Compiled>, want: &Compiled, owns: impl Fn(&str) -> bool) -> Transaction {
    let nothing = Compiled {
        family: want.family,
        name: want.name.clone(),
        sets: Default::default(),
        chains: Default::default(),
    };
    let mut diff = Diff {
        have: have.unwrap_or(&nothing),
        want,
        owns: &owns,
        ops: Vec::new(),
    };
    if have.is_none() {
        diff.ops.push(Op::AddTable);
    }
    let redefined = diff.redefined_sets();
    let dirty = diff.dirty_chains(&redefined);
    // What refers to something goes before it, and comes after it.
    diff.flush(&dirty);
    diff.delete_elements(&redefined);
    diff.delete_sets(&redefined);
    diff.delete_chains();
    diff.add_sets(&redefined);
    diff.add_chains();
    diff.add_elements(&redefined);
    diff.add_rules(&dirty);
    Transaction {
        family: want.family,
        table: want.name.clone(),
        ops: diff.ops,
    }
}

type Elements = BTreeMap<ElementKey, Option<Datum>>;

/// The elements of `a` that `b` has not, or with other data: both are walked once, in order.
fn missing<'a>(
    a: &'a Elements,
    b: &'a Elements,
) -> impl Iterator<Item = (&'a ElementKey, &'a Option<Datum>)> {
    let mut there = b.iter().peekable();
    a.iter().filter(move |(key, datum)| {
        while there.next_if(|(other, _)| other < key).is_some() {}
        there
            .next_if(|(other, _)| other == key)
            .is_none_or(|(_, other)| other != *datum)
    })
}

struct Diff<'a> {
    have: &'a Compiled,
    want: &'a Compiled,
    owns: &'a dyn Fn(&str) -> bool,
    ops: Vec<Op>,
}

impl<'a> Diff<'a> {
    fn had_chains(&self) -> impl Iterator<Item = (&'a String, &'a CompiledChain)> + use<'a> {
        let owns = self.owns;
        self.have.chains.iter().filter(move |(name, _)| owns(name))
    }

    fn had_sets(&self) -> impl Iterator<Item = (&'a String, &'a CompiledSet)> + use<'a> {
        let owns = self.owns;
        self.have.sets.iter().filter(move |(name, _)| owns(name))
    }

    /// Sets whose key or data changes: they are made anew.
    fn redefined_sets(&self) -> BTreeSet<&'a str> {
        let shape = |set: &CompiledSet| {
            (
                set.key_type,
                set.key_len,
                set.interval,
                set.size,
                set.dynamic,
                set.data,
            )
        };
        self.had_sets()
            .filter(|(name, have)| {
                let want = self.want.sets.get(*name);
                want.is_some_and(|want| shape(want) != shape(have))
            })
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Chains of either side whose rules are written anew.
    fn dirty_chains(&self, redefined: &BTreeSet<&str>) -> BTreeSet<&'a str> {
        let uses_redefined = |chain: &CompiledChain| {
            let mut exprs = chain.rules.iter().flat_map(|rule| &rule.exprs);
            exprs.any(|expr| expr.set().is_some_and(|set| redefined.contains(set)))
        };
        let changed = self.had_chains().filter(|(name, have)| {
            self.want
                .chains
                .get(*name)
                .is_none_or(|want| want != *have || uses_redefined(want))
        });
        let new = self
            .want
            .chains
            .keys()
            .filter(|name| !self.have.chains.contains_key(*name));
        changed
            .map(|(name, _)| name.as_str())
            .chain(new.map(String::as_str))
            .collect()
    }

    fn flush(&mut self, dirty: &BTreeSet<&str>) {
        for (name, have) in self.had_chains() {
            if dirty.contains(name.as_str()) && !have.rules.is_empty() {
                self.ops.push(Op::FlushChain(name.clone()));
            }
        }
    }

    fn delete_elements(&mut self, redefined: &BTreeSet<&str>) {
        for (name, have) in self.had_sets() {
            let Some(want) = self.want.sets.get(name) else {
                continue;
            };
            if redefined.contains(name.as_str()) || want.dynamic {
                continue;
            }
            let gone: Vec<ElementKey> = missing(&have.elements, &want.elements)
                .map(|(key, _)| key.clone())
                .collect();
            if !gone.is_empty() {
                self.ops.push(Op::DeleteElements(name.clone(), gone));
            }
        }
    }

    fn delete_sets(&mut self, redefined: &BTreeSet<&str>) {
        for (name, _) in self.had_sets() {
            if !self.want.sets.contains_key(name) || redefined.contains(name.as_str()) {
                self.ops.push(Op::DeleteSet(name.clone()));
            }
        }
    }

    fn delete_chains(&mut self) {
        for (name, have) in self.had_chains() {
            let want = self.want.chains.get(name);
            if want.is_none_or(|want| want.base != have.base) {
                self.ops.push(Op::DeleteChain(name.clone()));
            }
        }
    }

    fn add_sets(&mut self, redefined: &BTreeSet<&str>) {
        for (name, want) in &self.want.sets {
            if !self.have.sets.contains_key(name) || redefined.contains(name.as_str()) {
                let mut definition = want.clone();
                definition.elements.clear();
                self.ops.push(Op::AddSet(name.clone(), definition));
            }
        }
    }

    fn add_chains(&mut self) {
        for (name, want) in &self.want.chains {
            let have = self.have.chains.get(name);
            if have.is_none_or(|have| want.base != have.base) {
                self.ops.push(Op::AddChain(name.clone(), want.base));
            }
        }
    }

    fn add_elements(&mut self, redefined: &BTreeSet<&str>) {
        for (name, want) in &self.want.sets {
            let have = self
                .have
                .sets
                .get(name)
                .filter(|_| !redefined.contains(name.as_str()));
            let nothing = Elements::new();
            let there = have.map_or(&nothing, |have| &have.elements);
            let new: Vec<_> = missing(&want.elements, there)
                .filter(|_| !want.dynamic)
                .map(|(key, datum)| (key.clone(), datum.clone()))
                .collect();
            if !new.is_empty() {
                self.ops.push(Op::AddElements(name.clone(), new));
            }
        }
    }

    fn add_rules(&mut self, dirty: &BTreeSet<&str>) {
        for (name, want) in &self.want.chains {
            if dirty.contains(name.as_str()) {
                for rule in &want.rules {
                    self.ops.push(Op::AddRule(name.clone(), rule.clone()));
                }
            }
        }
    }
}
