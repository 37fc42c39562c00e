//! Rules: what is compared and looked up goes into registers, and steps work on them.

use ipnet::IpNet;

use super::{CompiledRule, concatenation};
use crate::expr::{CmpOp, Expr, FULLY_RANDOM, NETWORK, STATUS_DNAT, TRANSPORT, ct, meta, register};
use crate::model::{CtField, Family, Key, Looked, MapTarget, NatTo, Rule, Statement, Update};
use crate::value::{IpFamily, Type, Value};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Where TCP has its flags.
const TCP_FLAGS: u32 = 13;
/// FIN, SYN, RST and ACK.
const TCP_FLAGS_OF_BEGIN: u8 = 0x17;
const TCP_SYN: u8 = 2;
/// `RTN_LOCAL`
const LOCAL: u32 = 2;

impl Rule {
    /// In the kernel's expressions, for a table of a family.
    pub fn compile(&self, family: Family) -> CompiledRule {
        let mut compiler = Compiler {
            nfproto: match family {
                Family::Ip => Some(IpFamily::V4),
                Family::Ip6 => Some(IpFamily::V6),
                Family::Inet => None,
            },
            l4proto: None,
            exprs: Vec::new(),
        };
        for statement in &self.statements {
            compiler.statement(statement);
        }
        CompiledRule {
            exprs: compiler.exprs,
            comment: self.comment.clone(),
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
            Statement::Match { key, negate, value } => self.compare(key, *negate, value),
            Statement::MatchBits { key, mask, value } => {
                self.load(key, 0);
                self.bits(0, *mask, 0);
                self.cmp(CmpOp::Eq, value.to_ne_bytes().to_vec());
            }
            Statement::InRange {
                key,
                negate,
                first,
                last,
            } => {
                self.require(key);
                self.load(key, 0);
                self.exprs.push(Expr::Range {
                    sreg: register(0),
                    op: if *negate { CmpOp::Ne } else { CmpOp::Eq },
                    first: first.bytes(),
                    last: last.bytes(),
                });
            }
            Statement::InSet { keys, negate, set } => self.lookup(keys, set, None, *negate),
            Statement::DaddrIsLocal => self.local(false),
            Statement::SaddrIsLocal => self.local(true),
            Statement::CtDnat => self.ct_bits(ct::STATUS, STATUS_DNAT),
            Statement::CtState(states) => {
                let bits = states.iter().fold(0, |bits, state| bits | state.bit());
                self.ct_bits(ct::STATE, bits);
            }
            Statement::NoWayBack => {
                self.exprs.push(Expr::FibWayBack { dreg: register(0) });
                self.cmp(CmpOp::Eq, vec![0; 4]);
            }
            Statement::NoWayOut => {
                self.exprs.push(Expr::FibWayOut { dreg: register(0) });
                self.cmp(CmpOp::Eq, vec![0; 4]);
            }
            Statement::NoTrack => self.exprs.push(Expr::NoTrack),
            Statement::TcpNotSyn => self.tcp_not_syn(),
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
            Statement::SetMarkBits(bits) => self.change_mark(!bits, *bits),
            Statement::ClearMarkBits(bits) => self.change_mark(!bits, 0),
            Statement::SetCtMark { keep, bits } => {
                self.load(&Key::CtMark, 0);
                self.bits(0, *keep, bits & !keep);
                self.exprs.push(Expr::CtSet {
                    key: ct::MARK,
                    sreg: register(0),
                });
            }
            Statement::Log(log) => self.exprs.push(Expr::Log(log.clone())),
            Statement::Limit(limit) => self.exprs.push(Expr::Limit(*limit)),
            Statement::Reject(how) => self.exprs.push(Expr::Reject(*how)),
            Statement::Update(update) => self.update(update),
        }
    }

    fn local(&mut self, source: bool) {
        let dreg = register(0);
        self.exprs.push(Expr::FibType { source, dreg });
        self.cmp(CmpOp::Eq, LOCAL.to_ne_bytes().to_vec());
    }

    fn tcp_not_syn(&mut self) {
        self.require_l4proto(TCP);
        self.exprs.extend([
            Expr::Payload {
                base: TRANSPORT,
                offset: TCP_FLAGS,
                len: 1,
                dreg: register(0),
            },
            Expr::Bitwise {
                sreg: register(0),
                dreg: register(0),
                mask: vec![TCP_FLAGS_OF_BEGIN],
                xor: vec![0],
            },
        ]);
        self.cmp(CmpOp::Ne, vec![TCP_SYN]);
    }

    fn change_mark(&mut self, mask: u32, xor: u32) {
        self.load(&Key::Mark, 0);
        self.bits(0, mask, xor);
        self.exprs.push(Expr::MetaSet {
            key: meta::MARK,
            sreg: register(0),
        });
    }

    /// The data stays in the first registers, the key follows: so the lookup that finds the data,
    /// whose own key is longer than the data, is over before the element's key is loaded. Two
    /// IPv6 addresses, protocol and port as the key, and an IPv6 address and port as the data,
    /// both looked up, fill all sixteen registers.
    fn update(&mut self, update: &Update) {
        for key in update.data.iter().chain(&update.key) {
            self.require(key);
        }
        let (data, behind) = self.load_all(&update.data, 0);
        let (key, _) = self.load_all(&update.key, behind);
        self.exprs.push(Expr::Update {
            set: update.set.clone(),
            key: register(key),
            data: (!update.data.is_empty()).then(|| register(data)),
            timeout: u64::try_from(update.timeout.as_millis()).unwrap_or(u64::MAX),
        });
    }

    fn compare(&mut self, key: &Key, negate: bool, value: &Value) {
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
    fn require(&mut self, key: &Key) {
        if let Key::Looked(Looked { keys, .. }) = key {
            keys.iter().for_each(|key| self.require(key));
        }
        if let (Some(family), true) = (key.family(), self.nfproto.is_none()) {
            self.load(&Key::NfProto, 0);
            self.cmp(CmpOp::Eq, vec![family.number()]);
            self.nfproto = Some(family);
        }
        if let Some(number) = key.l4proto() {
            self.require_l4proto(number);
        }
    }

    fn require_l4proto(&mut self, number: u8) {
        if self.l4proto != Some(number) {
            self.load(&Key::L4Proto, 0);
            self.cmp(CmpOp::Eq, vec![number]);
            self.l4proto = Some(number);
        }
    }

    fn lookup(&mut self, keys: &[Key], set: &str, dreg: Option<u32>, invert: bool) {
        for key in keys {
            self.require(key);
        }
        let (key, _) = self.load_all(keys, 0);
        self.exprs.push(Expr::Lookup {
            set: set.to_owned(),
            sreg: register(key),
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
            direction: None,
            dreg: register(0),
        });
        self.bits(0, mask, 0);
        self.cmp(CmpOp::Ne, vec![0; 4]);
    }

    fn bits(&mut self, word: usize, mask: u32, xor: u32) {
        self.exprs.push(Expr::Bitwise {
            sreg: register(word),
            dreg: register(word),
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

    /// Loads fields one behind the other; returns their first word and the first behind them.
    fn load_all(&mut self, keys: &[Key], from: usize) -> (usize, usize) {
        let start = match keys.first() {
            // The unused word before it.
            Some(Key::Looked(_)) => from + 1,
            _ => from,
        };
        let mut places = Vec::with_capacity(keys.len());
        let mut end = start;
        for key in keys {
            places.push((key, end));
            end += key.words();
        }
        // A lookup needs registers of its neighbours, so it goes first.
        places.sort_by_key(|(key, _)| !matches!(key, Key::Looked(_)));
        for (key, word) in places {
            self.load(key, word);
        }
        (start, end)
    }

    fn load(&mut self, key: &Key, word: usize) {
        let dreg = register(word);
        let meta = |key| Expr::Meta { key, dreg };
        let payload = |base, offset, len| Expr::Payload {
            base,
            offset,
            len,
            dreg,
        };
        let expr = match key {
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
            Key::Icmpv6Type => payload(TRANSPORT, 0, 1),
            Key::CtMark => Expr::Ct {
                key: ct::MARK,
                direction: None,
                dreg,
            },
            Key::CtMarkBits(mask) => {
                self.load(&Key::CtMark, word);
                return self.bits(word, *mask, 0);
            }
            Key::CtProtocol => Expr::Ct {
                key: ct::PROTOCOL,
                direction: None,
                dreg,
            },
            Key::Ct(direction, field) => Expr::Ct {
                key: field.number(),
                direction: Some(*direction),
                dreg,
            },
            Key::Random(modulus) => Expr::Random {
                modulus: *modulus,
                dreg,
            },
            Key::Looked(Looked { keys, map, .. }) => {
                // The result overwrites the key it was found by, and the word before that.
                self.load_all(keys, word);
                Expr::Lookup {
                    set: map.clone(),
                    sreg: dreg,
                    dreg: Some(register(word.saturating_sub(1))),
                    invert: false,
                }
            }
        };
        self.exprs.push(expr);
    }
}

impl Key {
    /// Registers that hold it.
    fn words(&self) -> usize {
        let len = match self {
            Self::Saddr(IpFamily::V4) | Self::Daddr(IpFamily::V4) => Type::Ipv4.len(),
            Self::Saddr(IpFamily::V6) | Self::Daddr(IpFamily::V6) => Type::Ipv6.len(),
            Self::NfProto | Self::L4Proto | Self::CtProtocol => Type::Proto.len(),
            Self::ThSport | Self::ThDport | Self::TcpDport | Self::UdpDport => Type::Port.len(),
            Self::Ct(_, field) => field.kind().len(),
            Self::Icmpv6Type => 1,
            Self::IifName | Self::OifName => Type::IfName.len(),
            Self::Mark | Self::CtMark | Self::CtMarkBits(_) | Self::Random(_) => Type::Mark.len(),
            Self::Looked(Looked { data, .. }) => concatenation(data).1 as usize,
        };
        len.div_ceil(4)
    }

    fn family(&self) -> Option<IpFamily> {
        match self {
            Self::Saddr(family) | Self::Daddr(family) => Some(*family),
            Self::Icmpv6Type => Some(IpFamily::V6),
            _ => None,
        }
    }

    fn l4proto(&self) -> Option<u8> {
        match self {
            Self::TcpDport => Some(TCP),
            Self::UdpDport => Some(UDP),
            Self::Icmpv6Type => Some(ICMPV6),
            _ => None,
        }
    }
}

impl CtField {
    /// `NFT_CT_*`
    fn number(self) -> u32 {
        match self {
            Self::Saddr(IpFamily::V4) => ct::SRC_IP,
            Self::Saddr(IpFamily::V6) => ct::SRC_IP6,
            Self::ProtoSrc => ct::PROTO_SRC,
            Self::ProtoDst => ct::PROTO_DST,
        }
    }

    fn kind(self) -> Type {
        match self {
            Self::Saddr(IpFamily::V4) => Type::Ipv4,
            Self::Saddr(IpFamily::V6) => Type::Ipv6,
            Self::ProtoSrc | Self::ProtoDst => Type::Port,
        }
    }
}

fn netmask(net: IpNet) -> Vec<u8> {
    Value::from(net.netmask()).bytes()
}
