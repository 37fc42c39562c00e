//! From the terms of the language to the kernel's expressions.

mod rule;

use std::collections::BTreeMap;

use crate::expr::Expr;
use crate::model::{Base, Chain, Family, MapDatum, Set, SetData, Table, Verdict};
use crate::value::{Type, Value};

/// A table in the kernel's expressions: what is wanted, or what was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// What packets it sees.
    pub family: Family,
    /// Name.
    pub name: String,
    /// Sets by name.
    pub sets: BTreeMap<String, CompiledSet>,
    /// Chains by name.
    pub chains: BTreeMap<String, CompiledChain>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompiledChain {
    /// Where the kernel enters it.
    pub base: Option<Base>,
    /// Rules in order.
    pub rules: Vec<CompiledRule>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompiledRule {
    /// Steps.
    pub exprs: Vec<Expr>,
    /// Shown by `nft list`.
    pub comment: Option<String>,
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledSet {
    /// The key's type for `nft`: six bits a field.
    pub key_type: u32,
    /// Bytes of the key.
    pub key_len: u32,
    /// Whether keys are bounds of ranges.
    pub interval: bool,
    /// At most this many elements; see [`crate::Set::size`].
    pub size: Option<u32>,
    /// Packets add elements; see [`crate::Set::dynamic`].
    pub dynamic: bool,
    /// For a map: type and bytes of the data, [`VERDICT_TYPE`] and 0 for verdicts.
    pub data: Option<(u32, u32)>,
    /// Elements.
    pub elements: BTreeMap<ElementKey, Option<Datum>>,
}

/// `NFT_DATA_VERDICT`
pub const VERDICT_TYPE: u32 = 0xffff_ff00;

/// The key of an element.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ElementKey {
    /// The key's bytes.
    pub key: Vec<u8>,
    /// Whether it is the first value behind a range. Sorted before a range that starts there.
    pub starts: bool,
}

/// The data of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Datum {
    /// A value's bytes.
    Bytes(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

impl Table {
    /// In the kernel's expressions.
    pub fn compile(&self) -> Compiled {
        let sets = self.sets.iter();
        let chains = self.chains.iter();
        Compiled {
            family: self.family,
            name: self.name.clone(),
            sets: sets
                .map(|(name, set)| (name.clone(), set.compile()))
                .collect(),
            chains: chains
                .map(|(name, chain)| (name.clone(), chain.compile(self.family)))
                .collect(),
        }
    }
}

impl Chain {
    /// In the kernel's expressions, for a table of a family.
    pub fn compile(&self, family: Family) -> CompiledChain {
        CompiledChain {
            base: self.base,
            rules: self.rules.iter().map(|rule| rule.compile(family)).collect(),
        }
    }
}

impl Set {
    /// As the kernel has it, with its elements.
    pub fn compile(&self) -> CompiledSet {
        let (key_type, key_len) = concatenation(&self.key);
        let mut elements = BTreeMap::new();
        for (values, datum) in &self.elements {
            let key = ElementKey::of(values);
            let end = match (self.interval, values.as_slice()) {
                (true, [value]) => ElementKey::end(value),
                _ => None,
            };
            elements.extend(end.map(|end| (end, None)));
            elements.insert(key, datum.as_ref().map(Datum::from));
        }
        CompiledSet {
            key_type,
            key_len,
            interval: self.interval,
            size: self.size,
            dynamic: self.dynamic,
            data: self.data.as_ref().map(|data| match data {
                SetData::Verdict => (VERDICT_TYPE, 0),
                SetData::Values(types) => concatenation(types),
            }),
            elements,
        }
    }
}

impl ElementKey {
    /// The key of an element; in a set of intervals where the range begins.
    pub fn of(values: &[Value]) -> Self {
        Self {
            key: joined(values),
            starts: true,
        }
    }

    /// In a set of intervals the first key behind a range, which is an element too; none where
    /// the range reaches the end of all keys.
    pub fn end(value: &Value) -> Option<Self> {
        let key = match value {
            Value::Net(net) => behind(Value::from(net.broadcast()).bytes()),
            one => behind(one.bytes()),
        };
        key.map(|key| Self { key, starts: false })
    }
}

impl Datum {
    /// The data of a map of values.
    pub fn of(values: &[Value]) -> Self {
        Self::Bytes(joined(values))
    }
}

impl From<&MapDatum> for Datum {
    fn from(datum: &MapDatum) -> Self {
        match datum {
            MapDatum::Values(values) => Self::of(values),
            MapDatum::Verdict(verdict) => Self::Verdict(verdict.clone()),
        }
    }
}

/// The type of several fields for `nft`, and their bytes.
fn concatenation(types: &[Type]) -> (u32, u32) {
    let number = types
        .iter()
        .fold(0, |number, kind| number << 6 | kind.number());
    let len = match types {
        [one] => one.len(),
        many => many.iter().map(|kind| kind.len().next_multiple_of(4)).sum(),
    };
    (number, len as u32)
}

/// The bytes of several values: one as it is, more each padded to whole words.
fn joined(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * 4);
    for value in values {
        value.write(&mut bytes);
        if values.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

fn behind(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    for byte in bytes.iter_mut().rev() {
        let (sum, overflow) = byte.overflowing_add(1);
        *byte = sum;
        if !overflow {
            return Some(bytes);
        }
    }
    None
}
