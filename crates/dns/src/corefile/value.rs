//! Values as Go reads them: durations, numbers, addresses, words for types and codes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::plugins::Listen;
use crate::wire::{Class, Rcode, Type};

/// A duration that may be negative, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nanos(pub(super) i64);

impl Nanos {
    /// The duration; none when it is negative.
    pub(super) fn duration(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }

    /// The duration; zero when it is negative.
    pub(super) fn or_zero(self) -> Duration {
        self.duration().unwrap_or_default()
    }
}

/// A duration as Go's `time.ParseDuration` reads it: "30s", "1.5h", "1m30s", "0".
pub(super) fn duration(text: &str) -> Result<Nanos, String> {
    let wrong = || {
        let hint = match text.parse::<u64>() {
            Ok(_) => format!("; a unit is missing, as in \"{text}s\""),
            Err(_) => "; it is a number and one of h, m, s, ms, us, ns".to_owned(),
        };
        format!("{text:?} is no duration{hint}")
    };
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if digits == "0" {
        return Ok(Nanos(0));
    }
    let mut rest = digits;
    let mut total: u64 = 0;
    while !rest.is_empty() || digits.is_empty() {
        let (part, after) = duration_part(rest).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    let total = i64::try_from(total).map_err(|_| wrong())?;
    Ok(Nanos(if negative { -total } else { total }))
}

/// The first number with its unit, in nanoseconds, and the rest.
fn duration_part(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(end);
    let unit_end = rest
        .find(|c: char| c.is_ascii_digit() || c == '.')
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let scale: u64 = match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut nanos = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        nanos = nanos.checked_add(u64::from(digit - b'0') * place)?;
    }
    Some((nanos, rest))
}

/// A duration that is not negative.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    let nanos = duration(text)?;
    nanos
        .duration()
        .ok_or_else(|| format!("{text:?} is negative; a duration from 0 on is expected"))
}

/// A whole number within bounds.
pub(super) fn number<T>(text: &str, what: &str, min: T, max: T) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    let number = text.parse::<i64>().ok();
    match number.and_then(|number| T::try_from(number).ok()) {
        Some(number) if number >= min && number <= max => Ok(number),
        _ => {
            let bounds = bounds(&min.to_string(), &max.to_string());
            Err(format!(
                "{what} is {text:?}; a whole number{bounds} is expected"
            ))
        }
    }
}

/// Bounds in words; those of the type are none.
fn bounds(min: &str, max: &str) -> String {
    match (min == i64::MIN.to_string(), max == i64::MAX.to_string()) {
        (true, _) => String::new(),
        (false, true) => format!(" from {min} on"),
        (false, false) => format!(" from {min} to {max}"),
    }
}

/// A number that is not negative: one that is too large to count is the largest.
pub(super) fn count(text: &str, what: &str) -> Result<u32, String> {
    let number = number(text, what, 0, i64::MAX)?;
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

/// `HOST:PORT`, as Go's `net.SplitHostPort` takes it apart. Brackets around an IPv6 address are
/// left out.
pub(super) fn split_host_port(text: &str) -> Result<(&str, &str), String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("{text:?} has no port; HOST:PORT is expected"));
    };
    let host = match host.strip_prefix('[') {
        Some(inner) => match inner.strip_suffix(']') {
            Some(inner) if !inner.contains(['[', ']']) => inner,
            _ => return Err(format!("{text:?} has brackets that do not fit")),
        },
        None if host.contains(':') => {
            return Err(format!(
                "{text:?} has more than one colon; an IPv6 address stands in brackets, as in \
                 [::1]:53"
            ));
        }
        None if host.contains(['[', ']']) || port.contains(['[', ']']) => {
            return Err(format!("{text:?} has brackets that do not fit"));
        }
        None => host,
    };
    if port.contains(['[', ']']) {
        return Err(format!("{text:?} has brackets that do not fit"));
    }
    Ok((host, port))
}

/// An address to listen on: `HOST:PORT`, `:PORT`.
pub(super) fn listen(text: &str) -> Result<Listen, String> {
    let (host, port) = split_host_port(text)?;
    let port = match port {
        "" => 0,
        port => port
            .parse()
            .map_err(|_| format!("the port of {text:?} is no number from 0 to 65535"))?,
    };
    Ok(Listen {
        host: host.to_owned(),
        port,
    })
}

/// An address with a port, or without: then it is this one.
pub(super) fn socket_address(text: &str, port: u16) -> Result<SocketAddr, String> {
    let wrong = || format!("{text:?} is no IP address with or without a port");
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let (host, given) = split_host_port(text).map_err(|_| wrong())?;
    let ip: IpAddr = host.parse().map_err(|_| wrong())?;
    match given {
        "" => Ok(SocketAddr::new(ip, port)),
        given => {
            let port = given
                .parse()
                .map_err(|_| format!("the port of {text:?} is no number from 0 to 65535"))?;
            Ok(SocketAddr::new(ip, port))
        }
    }
}

/// Types that have a name only in `CoreDNS`.
const MORE_TYPES: [(&str, u16); 28] = [
    ("None", 0),
    ("NSAP-PTR", 23),
    ("GPOS", 27),
    ("EID", 31),
    ("NIMLOC", 32),
    ("ATMA", 34),
    ("NINFO", 56),
    ("RKEY", 57),
    ("TALINK", 58),
    ("UINFO", 100),
    ("UID", 101),
    ("GID", 102),
    ("UNSPEC", 103),
    ("NID", 104),
    ("L32", 105),
    ("L64", 106),
    ("LP", 107),
    ("EUI48", 108),
    ("EUI64", 109),
    ("NXNAME", 128),
    ("URI", 256),
    ("CAA", 257),
    ("AVC", 258),
    ("AMTRELAY", 260),
    ("RESINFO", 261),
    ("TA", 32768),
    ("DLV", 32769),
    ("Reserved", 65535),
];

/// A type by its word, which is in capitals.
pub(super) fn record_type(word: &str) -> Result<Type, String> {
    let more = MORE_TYPES.iter().find(|(name, _)| *name == word);
    let number = more.map(|(_, number)| Type(*number));
    let plain = || {
        let capitals = word.bytes().all(|byte| !byte.is_ascii_lowercase());
        let named = word != "*" && !word.starts_with("TYPE");
        Type::from_word(word).filter(|_| capitals && named)
    };
    number.or_else(plain).ok_or_else(|| {
        let upper = word.to_ascii_uppercase();
        match Type::from_word(&upper) {
            Some(_) if upper != word => {
                format!("{word:?} is no type of records; did you mean {upper:?}?")
            }
            _ => format!("{word:?} is no type of records; A, AAAA, SRV, ANY are some"),
        }
    })
}

/// A class by its word, which is in capitals.
pub(super) fn class(word: &str) -> Result<Class, String> {
    Ok(match word {
        "IN" => Class::IN,
        "CS" => Class(2),
        "CH" => Class::CH,
        "HS" => Class::HS,
        "NONE" => Class::NONE,
        "ANY" => Class::ANY,
        _ => {
            let known = ["IN", "CH", "HS", "CS", "NONE", "ANY"];
            let hint = super::problem::did_you_mean(word, &known);
            return Err(format!(
                "{word:?} is no class{hint} (known: IN, CH, HS, CS, NONE, ANY)"
            ));
        }
    })
}

/// The words of response codes.
pub(super) const RCODES: [(&str, u16); 21] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("NOTIMPL", 4),
    ("REFUSED", 5),
    ("YXDOMAIN", 6),
    ("YXRRSET", 7),
    ("NXRRSET", 8),
    ("NOTAUTH", 9),
    ("NOTZONE", 10),
    ("DSOTYPENI", 11),
    ("BADSIG", 16),
    ("BADKEY", 17),
    ("BADTIME", 18),
    ("BADMODE", 19),
    ("BADNAME", 20),
    ("BADALG", 21),
    ("BADTRUNC", 22),
    ("BADCOOKIE", 23),
];

/// A response code by its word, which is in capitals.
pub(super) fn rcode(word: &str) -> Result<Rcode, String> {
    let found = RCODES.iter().find(|(name, _)| *name == word);
    found.map(|(_, code)| Rcode(*code)).ok_or_else(|| {
        let known: Vec<&str> = RCODES.iter().map(|(name, _)| *name).collect();
        let hint = super::problem::did_you_mean(word, &known);
        format!("{word:?} is no response code{hint} (NOERROR, SERVFAIL, NXDOMAIN are some)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_reads_them() {
        let second = 1_000_000_000;
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("5s", 5 * second),
            ("1.5h", 5400 * second),
            ("1m30s", 90 * second),
            ("+2m", 120 * second),
            ("-1s", -second),
            (".5s", second / 2),
            ("1.s", second),
            ("500ms", second / 2),
            ("1us1ns", 1001),
            ("1\u{b5}s", 1000),
            ("0.1ns", 0),
        ] {
            assert_eq!(duration(text), Ok(Nanos(expected)), "{text}");
        }
        for wrong in [
            "",
            "5",
            "s",
            "-",
            "1.2.3s",
            "5x",
            "5 s",
            ".s",
            "9999999999h",
            "s5",
            "1d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_and_ports() {
        assert_eq!(split_host_port("[::1]:53"), Ok(("::1", "53")));
        assert_eq!(split_host_port(":8080"), Ok(("", "8080")));
        for wrong in [
            "8080",
            "::1:53",
            "[::1]",
            "[::1",
            "a]:1",
            "[a]b:1",
            "[::1]:[53",
        ] {
            assert!(split_host_port(wrong).is_err(), "{wrong}");
        }
        let address = |text| socket_address(text, 53).map(|address| address.to_string());
        assert_eq!(address("1.1.1.1"), Ok("1.1.1.1:53".to_owned()));
        assert_eq!(
            address("[2001:db8::1]:5353"),
            Ok("[2001:db8::1]:5353".to_owned())
        );
        assert_eq!(address("2001:db8::1"), Ok("[2001:db8::1]:53".to_owned()));
        assert!(address("example.org").is_err());
        assert!(address("1.1.1.1:70000").is_err());
    }

    #[test]
    fn words() {
        assert_eq!(record_type("AAAA"), Ok(Type::AAAA));
        assert_eq!(record_type("NSAP-PTR"), Ok(Type(23)));
        let lower = record_type("aaaa").unwrap_err();
        assert!(lower.contains("did you mean \"AAAA\"?"), "{lower}");
        assert!(record_type("TYPE1").is_err());
        assert_eq!(class("CH"), Ok(Class::CH));
        assert!(class("in").is_err());
        assert_eq!(rcode("NXDOMAIN"), Ok(Rcode::NXDOMAIN));
        assert!(rcode("NXDOMIAN").unwrap_err().contains("did you mean"));
    }
}
