//! A packet through a ruleset, as the kernel would take it.

mod packet;

use std::net::IpAddr;
use std::time::Duration;

use crate::compile::{Compiled, CompiledSet, Datum, ElementKey};
use crate::expr::{CmpOp, Expr, NETWORK, STATUS_DNAT, ct, meta, word};
use crate::model::{ChainKind, CtState, Direction, Family, Log, NatKind, Policy, Reject, Verdict};
use crate::value::{IpFamily, Type};

pub use packet::{Connection, Fate, Nat, Outcome, Packet, Tuple, Updated};

/// Jumps deeper than this are refused by the kernel.
const DEPTH: usize = 16;
/// Bytes of all registers.
const REGISTERS: usize = 16 * 4;

impl Compiled {
    /// What the base chain called `chain` does with a packet; [`None`] where there is no such
    /// base chain.
    pub fn eval(&self, chain: &str, packet: &Packet) -> Option<Outcome> {
        let base = self.chains.get(chain)?.base?;
        let seen = match self.family {
            Family::Inet => true,
            Family::Ip => packet.src.is_ipv4(),
            Family::Ip6 => packet.src.is_ipv6(),
        };
        let mut machine = Machine {
            table: self,
            packet,
            registers: [0; REGISTERS],
            mark: packet.mark,
            ct_mark: packet.ct_mark,
            nat: None,
            untracked: packet.state == CtState::Untracked,
            updates: Vec::new(),
            logs: Vec::new(),
        };
        // Of a connection that is known, translation was decided by its first packet; what belongs
        // to none is not translated.
        let decided = base.kind == ChainKind::Nat && packet.state != CtState::New;
        let end = if seen && !decided {
            machine.chain(chain, 0)
        } else {
            End::Continue
        };
        Some(Outcome {
            fate: match (end, base.policy) {
                _ if decided => Fate::Accepted,
                (End::Accept, _) | (End::Continue, Policy::Accept) => Fate::Accepted,
                (End::Drop, _) | (End::Continue, Policy::Drop) => Fate::Dropped,
                (End::Reject(how), _) => Fate::Rejected(how),
            },
            nat: machine.nat,
            mark: machine.mark,
            ct_mark: machine.ct_mark,
            untracked: machine.untracked,
            updates: machine.updates,
            logs: machine.logs,
        })
    }
}

/// How a chain or a rule ended.
enum End {
    Accept,
    Drop,
    Reject(Reject),
    Continue,
}

/// What a rule came to.
enum Step {
    Verdict(Verdict),
    Reject(Reject),
}

/// What follows an expression.
enum Next {
    Expr,
    Step(Step),
}

/// What a set has for a key.
enum Found {
    Nothing,
    Key,
    Datum(Datum),
}

struct Machine<'a> {
    table: &'a Compiled,
    packet: &'a Packet,
    registers: [u8; REGISTERS],
    mark: u32,
    ct_mark: u32,
    nat: Option<Nat>,
    untracked: bool,
    updates: Vec<Updated>,
    logs: Vec<Log>,
}

impl Machine<'_> {
    fn chain(&mut self, name: &str, depth: usize) -> End {
        let table = self.table;
        let Some(chain) = table.chains.get(name).filter(|_| depth <= DEPTH) else {
            return End::Drop;
        };
        for rule in &chain.rules {
            match self.rule(&rule.exprs) {
                None => {}
                Some(Step::Reject(how)) => return End::Reject(how),
                Some(Step::Verdict(Verdict::Accept)) => return End::Accept,
                Some(Step::Verdict(Verdict::Drop)) => return End::Drop,
                Some(Step::Verdict(Verdict::Return)) => return End::Continue,
                Some(Step::Verdict(Verdict::Goto(to))) => return self.chain(&to, depth + 1),
                Some(Step::Verdict(Verdict::Jump(to))) => match self.chain(&to, depth + 1) {
                    End::Continue => {}
                    end => return end,
                },
            }
        }
        End::Continue
    }

    /// What the rule decides, where it comes to that.
    fn rule(&mut self, exprs: &[Expr]) -> Option<Step> {
        for expr in exprs {
            match self.step(expr)? {
                Next::Expr => {}
                Next::Step(step) => return Some(step),
            }
        }
        None
    }

    /// One expression; [`None`] ends the rule.
    fn step(&mut self, expr: &Expr) -> Option<Next> {
        match expr {
            Expr::MetaSet { key, sreg } if *key == meta::MARK => {
                let bytes = self.load(*sreg, 4);
                self.mark = u32::from_ne_bytes(bytes.try_into().ok()?);
            }
            Expr::CtSet { key, sreg } if *key == ct::MARK => {
                let bytes = self.load(*sreg, 4);
                let mark = u32::from_ne_bytes(bytes.try_into().ok()?);
                // What belongs to no connection has none; the rule goes on.
                if self.packet.tracked() {
                    self.ct_mark = mark;
                }
            }
            Expr::Log(log) => self.logs.push(log.clone()),
            Expr::Limit(_) => {
                if self.packet.beyond_limit {
                    return None;
                }
            }
            Expr::Range {
                sreg,
                op,
                first,
                last,
            } => {
                let value = self.load(*sreg, first.len());
                let within = *first <= value && value <= *last;
                if within != (*op == CmpOp::Eq) {
                    return None;
                }
            }
            Expr::Cmp { sreg, op, data } => {
                let equal = self.load(*sreg, data.len()) == *data;
                if equal != (*op == CmpOp::Eq) {
                    return None;
                }
            }
            Expr::Lookup {
                set,
                sreg,
                dreg,
                invert,
            } => {
                let found = self.find(set, *sreg)?;
                if matches!(found, Found::Nothing) != *invert {
                    return None;
                }
                match (dreg, found) {
                    (Some(_), Found::Datum(Datum::Verdict(verdict))) => {
                        return Some(Next::Step(Step::Verdict(verdict)));
                    }
                    (Some(dreg), Found::Datum(Datum::Bytes(bytes))) => self.store(*dreg, &bytes),
                    _ => {}
                }
            }
            Expr::Update {
                set,
                key,
                data,
                timeout,
            } => self.update(set, *key, *data, *timeout)?,
            Expr::Verdict(verdict) => return Some(Next::Step(Step::Verdict(verdict.clone()))),
            Expr::Reject(how) => return Some(Next::Step(Step::Reject(*how))),
            Expr::Masquerade { .. } => {
                self.nat = Some(Nat::Masquerade);
                return Some(Next::Step(Step::Verdict(Verdict::Accept)));
            }
            Expr::Nat {
                kind,
                family,
                addr,
                port,
            } if *family == IpFamily::of(self.packet.src) => {
                self.nat = Some(self.translate(*kind, *family, *addr, *port)?);
                return Some(Next::Step(Step::Verdict(Verdict::Accept)));
            }
            Expr::NoTrack => self.untracked = true,
            Expr::Nat { .. } | Expr::Counter => {}
            Expr::MetaSet { .. } | Expr::CtSet { .. } | Expr::Unknown(_) => return None,
            loads => self.fill(loads)?,
        }
        Some(Next::Expr)
    }

    /// An expression that only fills registers.
    fn fill(&mut self, expr: &Expr) -> Option<()> {
        let (dreg, value) = match expr {
            Expr::Meta { key, dreg } => (dreg, self.meta(*key)?),
            Expr::Ct {
                key,
                direction,
                dreg,
            } => (dreg, self.ct(*key, *direction)?),
            Expr::Payload {
                base,
                offset,
                len,
                dreg,
            } => {
                let (start, len) = (*offset as usize, *len as usize);
                let header = if *base == NETWORK {
                    self.packet.network_header()
                } else {
                    self.packet.transport_header()
                };
                (dreg, header.get(start..start + len)?.to_vec())
            }
            Expr::FibType { source, dreg } => {
                let local = if *source {
                    self.packet.from_local
                } else {
                    self.packet.to_local
                };
                // RTN_LOCAL, RTN_UNICAST
                let kind: u32 = if local { 2 } else { 1 };
                (dreg, kind.to_ne_bytes().to_vec())
            }
            Expr::FibWayBack { dreg } => (dreg, vec![u8::from(self.packet.way_back)]),
            Expr::FibWayOut { dreg } => (dreg, vec![u8::from(self.packet.way_out)]),
            Expr::Random { modulus, dreg } => {
                let index = (u64::from(self.packet.random) * u64::from(*modulus)) >> 32;
                (dreg, (index as u32).to_ne_bytes().to_vec())
            }
            Expr::Bitwise {
                sreg,
                dreg,
                mask,
                xor,
            } => {
                let value = self.load(*sreg, mask.len());
                let masked = value.iter().zip(mask).map(|(value, mask)| value & mask);
                (
                    dreg,
                    masked.zip(xor).map(|(value, xor)| value ^ xor).collect(),
                )
            }
            Expr::Immediate { dreg, data } => (dreg, data.clone()),
            _ => return None,
        };
        self.store(*dreg, &value);
        Some(())
    }

    /// What a set has for the key that starts at a register; [`None`] where there is no such set.
    fn find(&self, set: &str, sreg: u32) -> Option<Found> {
        let there = self.table.sets.get(set)?;
        let key = self.load(sreg, there.key_len as usize);
        let found = find(there, &key).map(|datum| datum.cloned());
        let found = found.or_else(|| {
            let mut updates = self.updates.iter();
            let added = updates.find(|added| added.set == set && added.key.key == key);
            added.map(|added| added.data.clone())
        });
        Some(match found {
            None => Found::Nothing,
            Some(None) => Found::Key,
            Some(Some(datum)) => Found::Datum(datum),
        })
    }

    fn update(&mut self, set: &str, key: u32, data: Option<u32>, timeout: u64) -> Option<()> {
        let there = self.table.sets.get(set)?;
        let data = match self.find(set, key)? {
            Found::Datum(datum) => Some(datum),
            Found::Key => None,
            Found::Nothing => {
                let added = self.updates.iter().filter(|added| added.set == set).count();
                let room = there.size.filter(|_| there.dynamic)?;
                if there.elements.len() + added >= room as usize {
                    return None;
                }
                data.zip(there.data)
                    .map(|(data, (_, len))| Datum::Bytes(self.load(data, len as usize)))
            }
        };
        self.updates.push(Updated {
            set: set.to_owned(),
            key: ElementKey {
                key: self.load(key, there.key_len as usize),
                starts: true,
            },
            data,
            timeout: Duration::from_millis(timeout),
        });
        Some(())
    }

    fn translate(
        &self,
        kind: NatKind,
        family: IpFamily,
        addr: u32,
        port: Option<u32>,
    ) -> Option<Nat> {
        let ip: IpAddr = match family {
            IpFamily::V4 => <[u8; 4]>::try_from(self.load(addr, 4)).ok()?.into(),
            IpFamily::V6 => <[u8; 16]>::try_from(self.load(addr, 16)).ok()?.into(),
        };
        let port = match port {
            Some(port) => Some(u16::from_be_bytes(self.load(port, 2).try_into().ok()?)),
            None => None,
        };
        Some(match kind {
            NatKind::Snat => Nat::Source(ip, port),
            NatKind::Dnat => Nat::Destination(ip, port),
        })
    }

    fn meta(&self, key: u32) -> Option<Vec<u8>> {
        let name = |name: &str| {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(Type::IfName.len(), 0);
            bytes
        };
        Some(match key {
            meta::MARK => self.mark.to_ne_bytes().to_vec(),
            meta::NFPROTO => vec![IpFamily::of(self.packet.src).number()],
            meta::L4PROTO => vec![self.packet.proto],
            meta::IIFNAME => name(&self.packet.iif),
            meta::OIFNAME => name(&self.packet.oif),
            _ => return None,
        })
    }

    /// [`None`] ends the rule.
    fn ct(&self, key: u32, direction: Option<Direction>) -> Option<Vec<u8>> {
        let packet = self.packet;
        if key == ct::STATE {
            return Some(packet.state.bit().to_ne_bytes().to_vec());
        }
        if !packet.tracked() {
            return None;
        }
        let connection = packet.connection();
        let tuple = direction.map(|direction| match direction {
            Direction::Original => connection.original,
            Direction::Reply => connection.reply,
        });
        let number = |number: u32| number.to_ne_bytes().to_vec();
        Some(match (key, tuple) {
            (ct::MARK, None) => number(self.ct_mark),
            (ct::STATUS, None) => number(if packet.dnat { STATUS_DNAT } else { 0 }),
            (ct::PROTOCOL, None) => vec![connection.proto],
            (ct::PROTO_SRC, Some(tuple)) => tuple.sport.to_be_bytes().to_vec(),
            (ct::PROTO_DST, Some(tuple)) => tuple.dport.to_be_bytes().to_vec(),
            (ct::SRC_IP, Some(tuple)) => match tuple.src {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(_) => return None,
            },
            (ct::SRC_IP6, Some(tuple)) => match tuple.src {
                IpAddr::V6(ip) => ip.octets().to_vec(),
                IpAddr::V4(_) => return None,
            },
            _ => return None,
        })
    }

    /// Fills whole words, as the kernel does: what a shorter value leaves of the last is zero.
    fn store(&mut self, register: u32, value: &[u8]) {
        let start = word(register) * 4;
        let end = start + value.len().next_multiple_of(4);
        if let Some(target) = self.registers.get_mut(start..end) {
            target.fill(0);
            target[..value.len()].copy_from_slice(value);
        }
    }

    fn load(&self, register: u32, len: usize) -> Vec<u8> {
        let start = word(register) * 4;
        self.registers
            .get(start..start + len)
            .unwrap_or_default()
            .to_vec()
    }
}

/// The element that holds a key, and its data.
fn find<'a>(set: &'a CompiledSet, key: &[u8]) -> Option<Option<&'a Datum>> {
    let wanted = ElementKey {
        key: key.to_vec(),
        starts: true,
    };
    if set.interval {
        let (found, datum) = set.elements.range(..=wanted).next_back()?;
        return found.starts.then_some(datum.as_ref());
    }
    set.elements.get(&wanted).map(Option::as_ref)
}
