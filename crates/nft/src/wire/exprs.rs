//! Expressions: each a name and its attributes.

use super::attr::{Reader, Writer};
use super::{DATA_VALUE, DATA_VERDICT, LIST_ELEMENT};
use crate::expr::{CmpOp, Expr};
use crate::model::{Direction, Limit, Log, NatKind, Reject, Verdict};
use crate::value::IpFamily;

const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`
const FIB_ADDRTYPE: u32 = 3;
/// `NFT_FIB_RESULT_OIF`
const FIB_OIF: u32 = 1;
/// `NFTA_FIB_F_SADDR`
const FIB_SADDR: u32 = 1;
/// `NFTA_FIB_F_DADDR`
const FIB_DADDR: u32 = 2;
/// `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_IIF` and `NFTA_FIB_F_PRESENT`
const FIB_WAY_BACK: u32 = 1 | 8 | 32;
/// `NFTA_FIB_F_DADDR`, `NFTA_FIB_F_MARK` and `NFTA_FIB_F_PRESENT`
const FIB_WAY_OUT: u32 = 2 | 4 | 32;
/// `NFT_NG_RANDOM`
const NUMGEN_RANDOM: u32 = 1;
/// `NFT_DYNSET_OP_UPDATE`
const DYNSET_UPDATE: u32 = 1;
/// `NFT_REJECT_TCP_RST`
const TCP_RESET: u32 = 1;
/// `NFT_REJECT_ICMPX_UNREACH`
const ICMPX: u32 = 2;
/// `NFT_REJECT_ICMPX_PORT_UNREACH`
const PORT_UNREACHABLE: u8 = 1;

pub(super) fn write(list: &mut Writer, expr: &Expr) {
    list.nest(LIST_ELEMENT, |item| {
        item.text(NAME, name(expr));
        item.nest(DATA, |data| write_data(data, expr));
    });
}

fn name(expr: &Expr) -> &str {
    match expr {
        Expr::Meta { .. } | Expr::MetaSet { .. } => "meta",
        Expr::Ct { .. } | Expr::CtSet { .. } => "ct",
        Expr::Payload { .. } => "payload",
        Expr::FibType { .. } | Expr::FibWayBack { .. } | Expr::FibWayOut { .. } => "fib",
        Expr::NoTrack => "notrack",
        Expr::Random { .. } => "numgen",
        Expr::Reject(_) => "reject",
        Expr::Update { .. } => "dynset",
        Expr::Bitwise { .. } => "bitwise",
        Expr::Cmp { .. } => "cmp",
        Expr::Range { .. } => "range",
        Expr::Log(_) => "log",
        Expr::Limit(_) => "limit",
        Expr::Lookup { .. } => "lookup",
        Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
        Expr::Nat { .. } => "nat",
        Expr::Masquerade { .. } => "masq",
        Expr::Counter => "counter",
        Expr::Unknown(name) => name,
    }
}

fn write_data(data: &mut Writer, expr: &Expr) {
    match expr {
        Expr::Meta { key, dreg } => {
            data.u32(1, *dreg);
            data.u32(2, *key);
        }
        Expr::MetaSet { key, sreg } => {
            data.u32(2, *key);
            data.u32(3, *sreg);
        }
        Expr::Ct {
            key,
            direction,
            dreg,
        } => {
            data.u32(1, *dreg);
            data.u32(2, *key);
            if let Some(direction) = direction {
                data.put(3, &[direction_number(*direction)]);
            }
        }
        Expr::CtSet { key, sreg } => {
            data.u32(2, *key);
            data.u32(4, *sreg);
        }
        Expr::Payload {
            base,
            offset,
            len,
            dreg,
        } => {
            data.u32(1, *dreg);
            data.u32(2, *base);
            data.u32(3, *offset);
            data.u32(4, *len);
        }
        Expr::FibType { source, dreg } => {
            data.u32(1, *dreg);
            data.u32(2, FIB_ADDRTYPE);
            data.u32(3, if *source { FIB_SADDR } else { FIB_DADDR });
        }
        Expr::FibWayBack { dreg } => {
            data.u32(1, *dreg);
            data.u32(2, FIB_OIF);
            data.u32(3, FIB_WAY_BACK);
        }
        Expr::FibWayOut { dreg } => {
            data.u32(1, *dreg);
            data.u32(2, FIB_OIF);
            data.u32(3, FIB_WAY_OUT);
        }
        Expr::Random { modulus, dreg } => {
            data.u32(1, *dreg);
            data.u32(2, *modulus);
            data.u32(3, NUMGEN_RANDOM);
        }
        Expr::Reject(Reject::TcpReset) => data.u32(1, TCP_RESET),
        Expr::Reject(Reject::PortUnreachable) => {
            data.u32(1, ICMPX);
            data.put(2, &[PORT_UNREACHABLE]);
        }
        Expr::Update {
            set,
            key,
            data: value,
            timeout,
        } => {
            data.text(1, set);
            data.u32(3, DYNSET_UPDATE);
            data.u32(4, *key);
            if let Some(value) = value {
                data.u32(5, *value);
            }
            data.put(6, &timeout.to_be_bytes());
        }
        Expr::Bitwise {
            sreg,
            dreg,
            mask,
            xor,
        } => {
            data.u32(1, *sreg);
            data.u32(2, *dreg);
            data.u32(3, mask.len() as u32);
            data.nest(4, |value| value.put(DATA_VALUE, mask));
            data.nest(5, |value| value.put(DATA_VALUE, xor));
        }
        Expr::Cmp {
            sreg,
            op,
            data: bytes,
        } => {
            data.u32(1, *sreg);
            data.u32(2, if *op == CmpOp::Eq { 0 } else { 1 });
            data.nest(3, |value| value.put(DATA_VALUE, bytes));
        }
        Expr::Range {
            sreg,
            op,
            first,
            last,
        } => {
            data.u32(1, *sreg);
            data.u32(2, if *op == CmpOp::Eq { 0 } else { 1 });
            data.nest(3, |value| value.put(DATA_VALUE, first));
            data.nest(4, |value| value.put(DATA_VALUE, last));
        }
        Expr::Log(log) => {
            data.put(1, &log.group.to_be_bytes());
            data.text(2, &log.prefix);
            data.u32(3, log.snaplen);
        }
        Expr::Limit(limit) => {
            data.put(1, &limit.rate.to_be_bytes());
            // A second.
            data.put(2, &1_u64.to_be_bytes());
            data.u32(3, limit.burst);
        }
        Expr::Lookup {
            set,
            sreg,
            dreg,
            invert,
        } => {
            data.text(1, set);
            data.u32(2, *sreg);
            if let Some(dreg) = dreg {
                data.u32(3, *dreg);
            }
            data.u32(5, u32::from(*invert));
        }
        Expr::Immediate { dreg, data: bytes } => {
            data.u32(1, *dreg);
            data.nest(2, |value| value.put(DATA_VALUE, bytes));
        }
        Expr::Verdict(verdict) => {
            data.u32(1, 0);
            data.nest(2, |value| write_verdict(value, verdict));
        }
        Expr::Nat {
            kind,
            family,
            addr,
            port,
        } => {
            data.u32(1, if *kind == NatKind::Snat { 0 } else { 1 });
            data.u32(2, family.number().into());
            data.u32(3, *addr);
            if let Some(port) = port {
                data.u32(5, *port);
            }
        }
        Expr::Masquerade { flags } => {
            if *flags != 0 {
                data.u32(1, *flags);
            }
        }
        Expr::NoTrack | Expr::Counter | Expr::Unknown(_) => {}
    }
}

pub(super) fn read(item: Reader<'_>) -> Expr {
    let name = item.text(NAME).unwrap_or_default();
    read_data(&name, item.nest(DATA)).unwrap_or(Expr::Unknown(name))
}

fn read_data(name: &str, data: Reader<'_>) -> Option<Expr> {
    let value = |kind| data.nest(kind).get(DATA_VALUE).map(<[u8]>::to_vec);
    Some(match name {
        "meta" => match (data.u32(1), data.u32(3)) {
            (Some(dreg), None) => Expr::Meta {
                key: data.u32(2)?,
                dreg,
            },
            (None, Some(sreg)) => Expr::MetaSet {
                key: data.u32(2)?,
                sreg,
            },
            _ => return None,
        },
        "ct" => read_ct(data)?,
        "payload" => Expr::Payload {
            base: data.u32(2)?,
            offset: data.u32(3)?,
            len: data.u32(4)?,
            dreg: data.u32(1)?,
        },
        "fib" if data.u32(2) == Some(FIB_ADDRTYPE) => Expr::FibType {
            source: match data.u32(3)? {
                FIB_SADDR => true,
                FIB_DADDR => false,
                _ => return None,
            },
            dreg: data.u32(1)?,
        },
        "fib" if data.u32(2) == Some(FIB_OIF) && data.u32(3) == Some(FIB_WAY_BACK) => {
            Expr::FibWayBack { dreg: data.u32(1)? }
        }
        "fib" if data.u32(2) == Some(FIB_OIF) && data.u32(3) == Some(FIB_WAY_OUT) => {
            Expr::FibWayOut { dreg: data.u32(1)? }
        }
        "notrack" => Expr::NoTrack,
        "numgen" if data.u32(3) == Some(NUMGEN_RANDOM) && data.u32(4).unwrap_or(0) == 0 => {
            Expr::Random {
                modulus: data.u32(2)?,
                dreg: data.u32(1)?,
            }
        }
        "reject" => Expr::Reject(match (data.u32(1)?, data.get(2)) {
            (TCP_RESET, _) => Reject::TcpReset,
            (ICMPX, Some([PORT_UNREACHABLE])) => Reject::PortUnreachable,
            _ => return None,
        }),
        "dynset" => read_update(data)?,
        "bitwise" if data.u32(6).unwrap_or(0) == 0 => Expr::Bitwise {
            sreg: data.u32(1)?,
            dreg: data.u32(2)?,
            mask: value(4)?,
            xor: value(5)?,
        },
        "cmp" => Expr::Cmp {
            sreg: data.u32(1)?,
            op: match data.u32(2)? {
                0 => CmpOp::Eq,
                1 => CmpOp::Ne,
                _ => return None,
            },
            data: value(3)?,
        },
        "range" => Expr::Range {
            sreg: data.u32(1)?,
            op: match data.u32(2)? {
                0 => CmpOp::Eq,
                1 => CmpOp::Ne,
                _ => return None,
            },
            first: value(3)?,
            last: value(4)?,
        },
        "log" => read_log(data)?,
        "limit" => read_limit(data)?,
        "lookup" => Expr::Lookup {
            set: data.text(1)?,
            sreg: data.u32(2)?,
            dreg: data.u32(3),
            invert: data.u32(5).unwrap_or(0) & 1 == 1,
        },
        "immediate" => match data.u32(1)? {
            0 => Expr::Verdict(read_verdict(data.nest(2).nest(DATA_VERDICT))?),
            dreg => Expr::Immediate {
                dreg,
                data: value(2)?,
            },
        },
        "nat" => read_nat(data)?,
        "masq" if data.get(2).is_none() => Expr::Masquerade {
            flags: data.u32(1).unwrap_or(0),
        },
        "counter" => Expr::Counter,
        _ => return None,
    })
}

fn direction_number(direction: Direction) -> u8 {
    match direction {
        Direction::Original => 0,
        Direction::Reply => 1,
    }
}

fn read_ct(data: Reader<'_>) -> Option<Expr> {
    let key = data.u32(2)?;
    Some(match (data.u32(1), data.get(3), data.u32(4)) {
        (Some(dreg), direction, None) => Expr::Ct {
            key,
            direction: match direction {
                None => None,
                Some([0]) => Some(Direction::Original),
                Some([1]) => Some(Direction::Reply),
                _ => return None,
            },
            dreg,
        },
        (None, None, Some(sreg)) => Expr::CtSet { key, sreg },
        _ => return None,
    })
}

/// With a threshold, to the kernel's own log or with flags, it is nothing this crate writes.
fn read_log(data: Reader<'_>) -> Option<Expr> {
    if [4, 5, 6].into_iter().any(|kind| data.get(kind).is_some()) {
        return None;
    }
    Some(Expr::Log(Log {
        prefix: data.text(2)?,
        group: u16::from_be_bytes(data.get(1)?.try_into().ok()?),
        snaplen: data.u32(3)?,
    }))
}

/// Of another time than a second, of bytes, or inverted, it is nothing this crate writes.
fn read_limit(data: Reader<'_>) -> Option<Expr> {
    let plain = data.u32(4).unwrap_or(0) == 0 && data.u32(5).unwrap_or(0) == 0;
    if data.u64(2) != Some(1) || !plain {
        return None;
    }
    Some(Expr::Limit(Limit {
        rate: data.u64(1)?,
        burst: data.u32(3)?,
    }))
}

/// Inverted, or with expressions of its own, it is nothing this crate writes.
fn read_update(data: Reader<'_>) -> Option<Expr> {
    let plain = data.u32(9).unwrap_or(0) == 0 && data.get(7).is_none() && data.get(10).is_none();
    if data.u32(3) != Some(DYNSET_UPDATE) || !plain {
        return None;
    }
    Some(Expr::Update {
        set: data.text(1)?,
        key: data.u32(4)?,
        data: data.u32(5),
        timeout: data.u64(6).unwrap_or(0),
    })
}

/// The kernel adds upper ends of the ranges, equal to the lower ones, and flags that say which
/// attributes are there; any other range or flag is nothing this crate writes.
fn read_nat(data: Reader<'_>) -> Option<Expr> {
    const IMPLIED: u32 = 1 | 2;
    let same = |low: u16, high: u16| {
        data.u32(high)
            .is_none_or(|high| Some(high) == data.u32(low))
    };
    if data.u32(7).unwrap_or(0) & !IMPLIED != 0 || !same(3, 4) || !same(5, 6) {
        return None;
    }
    Some(Expr::Nat {
        kind: match data.u32(1)? {
            0 => NatKind::Snat,
            1 => NatKind::Dnat,
            _ => return None,
        },
        family: match data.u32(2)? {
            2 => IpFamily::V4,
            10 => IpFamily::V6,
            _ => return None,
        },
        addr: data.u32(3)?,
        port: data.u32(5),
    })
}

const CODE: u16 = 1;
const CHAIN: u16 = 2;

/// Writes `NFTA_DATA_VERDICT`.
pub(super) fn write_verdict(value: &mut Writer, verdict: &Verdict) {
    let (code, chain): (i32, _) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    value.nest(DATA_VERDICT, |verdict| {
        verdict.u32(CODE, code as u32);
        if let Some(chain) = chain {
            verdict.text(CHAIN, chain);
        }
    });
}

pub(super) fn read_verdict(verdict: Reader<'_>) -> Option<Verdict> {
    let chain = || verdict.text(CHAIN);
    Some(match verdict.u32(CODE)? as i32 {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        _ => return None,
    })
}
