//! The words of `nft list table`.

use std::fmt::{self, Display, Formatter, Write};
use std::time::Duration;

use crate::model::{
    Base, Chain, CtField, CtState, Direction, Hook, Key, Limit, Log, Looked, MapDatum, NatKind,
    NatTo, Policy, Reject, Rule, Set, SetData, Statement, Table, Update, Verdict,
};
use crate::value::{IpFamily, Type, Value};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family.word(), self.name)?;
        let mut first = true;
        let mut gap = |f: &mut Formatter<'_>| {
            if std::mem::take(&mut first) {
                Ok(())
            } else {
                writeln!(f)
            }
        };
        for (name, set) in &self.sets {
            gap(f)?;
            write_set(f, name, set)?;
        }
        for (name, chain) in &self.chains {
            gap(f)?;
            write_chain(f, name, chain)?;
        }
        writeln!(f, "}}")
    }
}

fn write_set(f: &mut Formatter<'_>, name: &str, set: &Set) -> fmt::Result {
    let word = if set.data.is_some() { "map" } else { "set" };
    writeln!(f, "\t{word} {name} {{")?;
    write!(
        f,
        "\t\ttype {}",
        joined(set.key.iter().map(|kind| kind.name()), " . ")
    )?;
    match &set.data {
        None => {}
        Some(SetData::Verdict) => write!(f, " : verdict")?,
        Some(SetData::Values(types)) => {
            write!(
                f,
                " : {}",
                joined(types.iter().map(|kind| kind.name()), " . ")
            )?;
        }
    }
    writeln!(f)?;
    if let Some(size) = set.size {
        writeln!(f, "\t\tsize {size}")?;
    }
    if set.dynamic {
        writeln!(f, "\t\tflags dynamic,timeout")?;
    }
    if set.interval {
        writeln!(f, "\t\tflags interval")?;
    }
    if !set.elements.is_empty() {
        let per_line = per_line(&set.key);
        write!(f, "\t\telements = {{ ")?;
        for (at, (key, datum)) in set.elements.iter().enumerate() {
            match at {
                0 => {}
                at if at % per_line == 0 => write!(f, ",\n\t\t\t     ")?,
                _ => write!(f, ", ")?,
            }
            write!(f, "{}", joined(key, " . "))?;
            match datum {
                None => {}
                Some(MapDatum::Values(values)) => write!(f, " : {}", joined(values, " . "))?,
                Some(MapDatum::Verdict(verdict)) => write!(f, " : {verdict}")?,
            }
        }
        writeln!(f, " }}")?;
    }
    writeln!(f, "\t}}")
}

/// How many elements `nft` puts on a line.
fn per_line(key: &[Type]) -> usize {
    match key {
        [Type::Proto | Type::Port] => 5,
        [Type::Ipv4 | Type::Mark] => 2,
        _ => 1,
    }
}

fn write_chain(f: &mut Formatter<'_>, name: &str, chain: &Chain) -> fmt::Result {
    writeln!(f, "\tchain {name} {{")?;
    if let Some(base) = chain.base {
        writeln!(
            f,
            "\t\ttype {} hook {} priority {}; policy {};",
            base.kind.word(),
            hook(base.hook),
            priority(base),
            match base.policy {
                Policy::Accept => "accept",
                Policy::Drop => "drop",
            }
        )?;
    }
    for rule in &chain.rules {
        writeln!(f, "\t\t{rule}")?;
    }
    writeln!(f, "\t}}")
}

fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

/// A priority's name, with a distance of at most ten, or its number.
fn priority(base: Base) -> String {
    let mut names = vec![
        ("raw", -300),
        ("mangle", -150),
        ("filter", 0),
        ("security", 50),
    ];
    match base.hook {
        Hook::Prerouting => names.push(("dstnat", -100)),
        Hook::Postrouting => names.push(("srcnat", 100)),
        _ => {}
    }
    for (name, at) in names {
        match base.priority - at {
            0 => return name.to_owned(),
            more @ 1..=10 => return format!("{name} + {more}"),
            less @ -10..=-1 => return format!("{name} - {}", -less),
            _ => {}
        }
    }
    base.priority.to_string()
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", joined(&self.statements, " "))?;
        match &self.comment {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Match { key, negate, value } => write!(f, "{key} {}{value}", not(*negate)),
            Self::MatchBits { key, mask, value } => {
                write!(
                    f,
                    "{key} & {} == {}",
                    Value::Mark(*mask),
                    Value::Mark(*value)
                )
            }
            Self::InRange {
                key,
                negate,
                first,
                last,
            } => {
                let end = |value: &Value| match value {
                    // Its name could not be told from a hyphen.
                    Value::Icmpv6Type(number) => number.to_string(),
                    other => other.to_string(),
                };
                write!(f, "{key} {}{}-{}", not(*negate), end(first), end(last))
            }
            Self::InSet { keys, negate, set } => {
                let not = match (keys.as_slice(), negate) {
                    ([Key::CtMarkBits(_)], false) => "== ",
                    _ => not(*negate),
                };
                write!(f, "{} {not}@{set}", joined(keys, " . "))
            }
            Self::DaddrIsLocal => write!(f, "fib daddr type local"),
            Self::SaddrIsLocal => write!(f, "fib saddr type local"),
            Self::CtDnat => write!(f, "ct status dnat"),
            Self::CtState(states) => {
                let mut states = states.clone();
                states.sort();
                states.dedup();
                write!(f, "ct state {}", joined(states, ","))
            }
            Self::NoWayBack => write!(f, "fib saddr . iif oif missing"),
            Self::NoWayOut => write!(f, "fib daddr . mark oif missing"),
            Self::NoTrack => write!(f, "notrack"),
            Self::TcpNotSyn => write!(f, "tcp flags != syn / fin,syn,rst,ack"),
            Self::Counter => write!(f, "counter packets 0 bytes 0"),
            Self::Verdict(verdict) => write!(f, "{verdict}"),
            Self::VerdictMap { keys, map } => write!(f, "{} vmap @{map}", joined(keys, " . ")),
            Self::Masquerade { fully_random: true } => write!(f, "masquerade fully-random"),
            Self::Masquerade {
                fully_random: false,
            } => write!(f, "masquerade"),
            Self::Nat { kind, family, to } => {
                let word = match kind {
                    NatKind::Snat => "snat",
                    NatKind::Dnat => "dnat",
                };
                write!(f, "{word} {} to {to}", family.word())
            }
            Self::SetMarkBits(bits) => {
                write!(f, "meta mark set meta mark | {}", Value::Mark(*bits))
            }
            Self::ClearMarkBits(bits) => {
                write!(f, "meta mark set meta mark & {}", Value::Mark(!bits))
            }
            Self::SetCtMark { keep, bits } => {
                write!(f, "ct mark set ct mark")?;
                // The program takes an exclusive or of bits that were cleared for an or.
                if keep | bits != u32::MAX {
                    write!(f, " & {}", Value::Mark(keep | bits))?;
                }
                if bits & !keep != 0 {
                    write!(f, " | {}", Value::Mark(bits & !keep))?;
                }
                Ok(())
            }
            Self::Log(Log {
                prefix,
                group,
                snaplen,
            }) => write!(f, "log prefix \"{prefix}\" group {group} snaplen {snaplen}"),
            Self::Limit(Limit { rate, burst }) => {
                write!(f, "limit rate {rate}/second")?;
                match burst {
                    5 => Ok(()),
                    burst => write!(f, " burst {burst} packets"),
                }
            }
            Self::Reject(Reject::TcpReset) => write!(f, "reject with tcp reset"),
            // Of all ways to reject the one that needs no words.
            Self::Reject(Reject::PortUnreachable) => write!(f, "reject"),
            Self::Update(update) => write!(f, "{update}"),
        }
    }
}

impl Display for Update {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let key = joined(&self.key, " . ");
        write!(
            f,
            "update @{} {{ {key} timeout {}",
            self.set,
            time(self.timeout)
        )?;
        if !self.data.is_empty() {
            write!(f, " : {}", joined(&self.data, " . "))?;
        }
        write!(f, " }}")
    }
}

/// Days, hours, minutes, seconds, milliseconds, each where there are some.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts = [
        (seconds / 86400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (time.subsec_millis().into(), "ms"),
    ];
    let parts = parts.into_iter().filter(|(number, _)| *number > 0);
    joined(parts.map(|(number, unit)| format!("{number}{unit}")), "")
}

impl Display for NatTo {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(target) => {
                write!(f, "{} map @{}", joined(&target.keys, " . "), target.map)
            }
            Self::Fixed(ip, None) => write!(f, "{ip}"),
            Self::Fixed(ip, Some(port)) => write!(f, "{}", std::net::SocketAddr::new(*ip, *port)),
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random(modulus) => return write!(f, "numgen random mod {modulus}"),
            Self::Looked(Looked { keys, map, .. }) => {
                return write!(f, "{} map @{map}", joined(keys, " . "));
            }
            Self::CtMarkBits(mask) => return write!(f, "ct mark & {}", Value::Mark(*mask)),
            Self::Ct(direction, field) => return write!(f, "ct {direction} {field}"),
            Self::CtProtocol => "ct protocol",
            Self::Icmpv6Type => "icmpv6 type",
            Self::Saddr(IpFamily::V4) => "ip saddr",
            Self::Saddr(IpFamily::V6) => "ip6 saddr",
            Self::Daddr(IpFamily::V4) => "ip daddr",
            Self::Daddr(IpFamily::V6) => "ip6 daddr",
            Self::NfProto => "meta nfproto",
            Self::L4Proto => "meta l4proto",
            Self::ThSport => "th sport",
            Self::ThDport => "th dport",
            Self::TcpDport => "tcp dport",
            Self::UdpDport => "udp dport",
            Self::IifName => "iifname",
            Self::OifName => "oifname",
            Self::Mark => "meta mark",
            Self::CtMark => "ct mark",
        })
    }
}

impl Display for Direction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Original => "original",
            Self::Reply => "reply",
        })
    }
}

impl Display for CtField {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saddr(family) => write!(f, "{} saddr", family.word()),
            Self::ProtoSrc => f.write_str("proto-src"),
            Self::ProtoDst => f.write_str("proto-dst"),
        }
    }
}

impl Display for CtState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid",
            Self::New => "new",
            Self::Established => "established",
            Self::Related => "related",
            Self::Untracked => "untracked",
        })
    }
}

fn not(negate: bool) -> &'static str {
    if negate { "!= " } else { "" }
}

fn joined<T: Display>(items: impl IntoIterator<Item = T>, between: &str) -> String {
    let mut text = String::new();
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            text.push_str(between);
        }
        let _ = write!(text, "{item}");
    }
    text
}
