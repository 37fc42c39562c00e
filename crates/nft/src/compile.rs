//! From the terms of the language to the kernel's expressions.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::expr::{
    CmpOp, Expr, FULLY_RANDOM, NETWORK, STATE_ESTABLISHED, STATUS_DNAT, TRANSPORT, ct, meta,
    register,
};
use crate::model::{
    Base, Family, Key, MapDatum, MapTarget, NatTo, Rule, Set, SetData, Statement, Table, Verdict,
};
use crate::value::{IpFamily, Type, Value};

const TCP: u8 = 6;
const UDP: u8 = 17;

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
        Compiled {
            family: self.family,
            name: self.name.clone(),
            sets: self
                .sets
                .iter()
                .map(|(name, set)| (name.clone(), compile_set(set)))
                .collect(),
            chains: self
                .chains
                .iter()
                .map(|(name, chain)| {
                    let rules = chain.rules.iter().map(|rule| self.compile_rule(rule));
                    let chain = CompiledChain {
                        base: chain.base,
                        rules: rules.collect(),
                    };
                    (name.clone(), chain)
                })
                .collect(),
        }
    }

    fn compile_rule(&self, rule: &Rule) -> CompiledRule {
        let mut compiler = Compiler {
            nfproto: match self.family {
                Family::Ip => Some(IpFamily::V4),
                Family::Ip6 => Some(IpFamily::V6),
                Family::Inet => None,
            },
            l4proto: None,
            exprs: Vec::new(),
        };
        for statement in &rule.statements {
            compiler.statement(statement);
        }
        CompiledRule {
            exprs: compiler.exprs,
            comment: rule.comment.clone(),
        }
    }
}

/// Compiles one rule; remembers what its earlier tests already made sure of.
struct Compiler {
    nfproto: Option<IpFamily>,
    l4proto: Option<u8>,
    exprs: Vec<Expr>,
}

impl Compiler {
    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Match { key, negate, value } => self.compare(*key, *negate, value),
            Statement::MatchBits { key, mask, value } => {
                self.load(*key, 0);
                self.bits(*mask, 0);
                self.cmp(CmpOp::Eq, value.to_ne_bytes().to_vec());
            }
            Statement::InSet { keys, negate, set } => self.lookup(keys, set, None, *negate),
            Statement::DaddrIsLocal => {
                self.exprs.push(Expr::FibDaddrType { dreg: register(0) });
                self.cmp(CmpOp::Eq, 2_u32.to_ne_bytes().to_vec());
            }
            Statement::CtDnat => self.ct_bits(ct::STATUS, STATUS_DNAT),
            Statement::CtEstablished => self.ct_bits(ct::STATE, STATE_ESTABLISHED),
            Statement::Counter => self.exprs.push(Expr::Counter),
            Statement::Verdict(verdict) => self.exprs.push(Expr::Verdict(verdict.clone())),
            Statement::VerdictMap { keys, map } => self.lookup(keys, map, Some(0), false),
            Statement::Masquerade { fully_random } => self.exprs.push(Expr::Masquerade {
                flags: if *fully_random { FULLY_RANDOM } else { 0 },
            }),
            Statement::Nat { kind, family, to } => {
                let (addr, port) = self.target(*family, to);
                self.exprs.push(Expr::Nat {
                    kind: *kind,
                    family: *family,
                    addr,
                    port,
                });
            }
            Statement::SetMarkBits(bits) => {
                self.load(Key::Mark, 0);
                self.bits(!bits, *bits);
                self.exprs.push(Expr::MetaSet {
                    key: meta::MARK,
                    sreg: register(0),
                });
            }
        }
    }

    fn compare(&mut self, key: Key, negate: bool, value: &Value) {
        self.require(key);
        self.load(key, 0);
        let op = if negate { CmpOp::Ne } else { CmpOp::Eq };
        match value {
            Value::Net(net) => {
                let mask = netmask(*net);
                let xor = vec![0; mask.len()];
                self.exprs.push(Expr::Bitwise {
                    sreg: register(0),
                    dreg: register(0),
                    mask,
                    xor,
                });
                self.cmp(op, value.bytes());
            }
            Value::Name(name) if name.ends_with('*') => {
                self.cmp(op, name.trim_end_matches('*').as_bytes().to_vec());
            }
            _ => self.cmp(op, value.bytes()),
        }
        match (key, value, negate) {
            (Key::NfProto, Value::Family(family), false) => self.nfproto = Some(*family),
            (Key::L4Proto, Value::Proto(number), false) => self.l4proto = Some(*number),
            _ => {}
        }
    }

    /// Tests what must hold before a key means anything, as `nft` does without being told.
    fn require(&mut self, key: Key) {
        if let (Some(family), true) = (key.family(), self.nfproto.is_none()) {
            self.load(Key::NfProto, 0);
            self.cmp(CmpOp::Eq, vec![family.number()]);
            self.nfproto = Some(family);
        }
        if let Some(number) = key.l4proto().filter(|number| self.l4proto != Some(*number)) {
            self.load(Key::L4Proto, 0);
            self.cmp(CmpOp::Eq, vec![number]);
            self.l4proto = Some(number);
        }
    }

    fn lookup(&mut self, keys: &[Key], set: &str, dreg: Option<u32>, invert: bool) {
        for key in keys {
            self.require(*key);
        }
        let mut word = 0;
        for key in keys {
            self.load(*key, word);
            word += key.kind().len().div_ceil(4);
        }
        self.exprs.push(Expr::Lookup {
            set: set.to_owned(),
            sreg: register(0),
            dreg,
            invert,
        });
    }

    /// Leaves address and port in registers.
    fn target(&mut self, family: IpFamily, to: &NatTo) -> (u32, Option<u32>) {
        let behind = match family {
            IpFamily::V4 => register(1),
            IpFamily::V6 => register(4),
        };
        match to {
            NatTo::Map(MapTarget {
                keys,
                map,
                with_port,
            }) => {
                self.lookup(keys, map, Some(register(0)), false);
                (register(0), with_port.then_some(behind))
            }
            NatTo::Fixed(ip, port) => {
                let mut immediate = |dreg, data| self.exprs.push(Expr::Immediate { dreg, data });
                immediate(register(0), Value::from(*ip).bytes());
                if let Some(port) = port {
                    immediate(behind, port.to_be_bytes().to_vec());
                }
                (register(0), port.map(|_| behind))
            }
        }
    }

    fn ct_bits(&mut self, key: u32, mask: u32) {
        self.exprs.push(Expr::Ct {
            key,
            dreg: register(0),
        });
        self.bits(mask, 0);
        self.cmp(CmpOp::Ne, vec![0; 4]);
    }

    fn bits(&mut self, mask: u32, xor: u32) {
        self.exprs.push(Expr::Bitwise {
            sreg: register(0),
            dreg: register(0),
            mask: mask.to_ne_bytes().to_vec(),
            xor: xor.to_ne_bytes().to_vec(),
        });
    }

    fn cmp(&mut self, op: CmpOp, data: Vec<u8>) {
        self.exprs.push(Expr::Cmp {
            sreg: register(0),
            op,
            data,
        });
    }

    fn load(&mut self, key: Key, word: usize) {
        let dreg = register(word);
        let meta = |key| Expr::Meta { key, dreg };
        let payload = |base, offset, len| Expr::Payload {
            base,
            offset,
            len,
            dreg,
        };
        self.exprs.push(match key {
            Key::Saddr(IpFamily::V4) => payload(NETWORK, 12, 4),
            Key::Daddr(IpFamily::V4) => payload(NETWORK, 16, 4),
            Key::Saddr(IpFamily::V6) => payload(NETWORK, 8, 16),
            Key::Daddr(IpFamily::V6) => payload(NETWORK, 24, 16),
            Key::ThSport => payload(TRANSPORT, 0, 2),
            Key::ThDport | Key::TcpDport | Key::UdpDport => payload(TRANSPORT, 2, 2),
            Key::NfProto => meta(meta::NFPROTO),
            Key::L4Proto => meta(meta::L4PROTO),
            Key::IifName => meta(meta::IIFNAME),
            Key::OifName => meta(meta::OIFNAME),
            Key::Mark => meta(meta::MARK),
            Key::CtMark => Expr::Ct {
                key: ct::MARK,
                dreg,
            },
        });
    }
}

impl Key {
    /// The type of its values.
    pub fn kind(self) -> Type {
        match self {
            Self::Saddr(IpFamily::V4) | Self::Daddr(IpFamily::V4) => Type::Ipv4,
            Self::Saddr(IpFamily::V6) | Self::Daddr(IpFamily::V6) => Type::Ipv6,
            Self::NfProto | Self::L4Proto => Type::Proto,
            Self::ThSport | Self::ThDport | Self::TcpDport | Self::UdpDport => Type::Port,
            Self::IifName | Self::OifName => Type::IfName,
            Self::Mark | Self::CtMark => Type::Mark,
        }
    }

    fn family(self) -> Option<IpFamily> {
        match self {
            Self::Saddr(family) | Self::Daddr(family) => Some(family),
            _ => None,
        }
    }

    fn l4proto(self) -> Option<u8> {
        match self {
            Self::TcpDport => Some(TCP),
            Self::UdpDport => Some(UDP),
            _ => None,
        }
    }
}

fn netmask(net: IpNet) -> Vec<u8> {
    Value::from(net.netmask()).bytes()
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
    match values {
        [one] => one.bytes(),
        many => many
            .iter()
            .flat_map(|value| {
                let mut bytes = value.bytes();
                bytes.resize(bytes.len().next_multiple_of(4), 0);
                bytes
            })
            .collect(),
    }
}

fn compile_set(set: &Set) -> CompiledSet {
    let (key_type, key_len) = concatenation(&set.key);
    let mut elements = BTreeMap::new();
    for (values, datum) in &set.elements {
        let datum = datum.as_ref().map(|datum| match datum {
            MapDatum::Values(values) => Datum::Bytes(joined(values)),
            MapDatum::Verdict(verdict) => Datum::Verdict(verdict.clone()),
        });
        let key = joined(values);
        if let (true, Some(behind)) = (set.interval, behind(values)) {
            let end = ElementKey {
                key: behind,
                starts: false,
            };
            elements.insert(end, None);
        }
        elements.insert(ElementKey { key, starts: true }, datum);
    }
    CompiledSet {
        key_type,
        key_len,
        interval: set.interval,
        data: set.data.as_ref().map(|data| match data {
            SetData::Verdict => (VERDICT_TYPE, 0),
            SetData::Values(types) => concatenation(types),
        }),
        elements,
    }
}

/// The first key behind a range; none where the range reaches the end of all keys.
fn behind(values: &[Value]) -> Option<Vec<u8>> {
    let mut bytes = match values {
        [Value::Net(net)] => Value::from(net.broadcast()).bytes(),
        [one] => one.bytes(),
        _ => return None,
    };
    for byte in bytes.iter_mut().rev() {
        let (sum, overflow) = byte.overflowing_add(1);
        *byte = sum;
        if !overflow {
            return Some(bytes);
        }
    }
    None
}
