//! Keys of server blocks and names of zones: transports, ports, networks as reverse zones.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Scheme, Zone};

/// The transports by what stands before `://`, and whether they are supported.
const TRANSPORTS: [(&str, Option<Scheme>); 7] = [
    ("tls://", Some(Scheme::Tls)),
    ("dns://", Some(Scheme::Dns)),
    ("quic://", None),
    ("grpc://", None),
    ("https3://", None),
    ("https://", Some(Scheme::Https)),
    ("unix://", None),
];

/// A transport of `CoreDNS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Supported(Scheme),
    /// Its name.
    Unsupported(&'static str),
}

/// The transport a text starts with, plain DNS if it names none, and the rest.
pub(super) fn transport(text: &str) -> (Transport, &str) {
    for (prefix, scheme) in TRANSPORTS {
        if let Some(rest) = text.strip_prefix(prefix) {
            let unsupported = Transport::Unsupported(prefix.trim_end_matches("://"));
            return (scheme.map_or(unsupported, Transport::Supported), rest);
        }
    }
    (Transport::Supported(Scheme::Dns), text)
}

/// The zones that a name or a network stands for: one, but for a network that does not end at a
/// label of its reverse zone. A transport and a port are taken and left out.
pub(super) fn zones(text: &str) -> Result<Vec<Zone>, String> {
    let (_, rest) = transport(text);
    zones_and_port(rest).map(|(zones, _)| zones)
}

/// As [`zones`], without a transport, and the port if one is named. It is a number, but maybe
/// none a port can have.
pub(super) fn zones_and_port(text: &str) -> Result<(Vec<Zone>, Option<i64>), String> {
    let (name, port) = match text.rsplit_once(':') {
        Some((_, "")) => return Err(format!("{text:?} ends with a colon: the port is missing")),
        Some((name, port)) => match number(port) {
            Some(port) => (name, Some(port)),
            None => (text, None),
        },
        None => (text, None),
    };
    if name.len() > 255 {
        return Err(format!(
            "a zone of {} bytes; a name has at most 255",
            name.len()
        ));
    }
    if name.is_empty() {
        return Err(format!("{text:?} names no zone; the root is \".\""));
    }
    let zone: Zone = name
        .parse()
        .map_err(|error| format!("{name:?} is no name of a zone: {error}"))?;
    match name.parse::<IpNet>() {
        Ok(_) if name.starts_with(':') || (name.starts_with('0') && name.contains(':')) => {
            Err(format!("{name:?} is no network that a zone can stand for"))
        }
        Ok(network) => Ok((reverse_zones(network), port)),
        Err(_) => Ok((vec![zone.lower()], port)),
    }
}

/// A number as Go's `Atoi` reads it.
fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// The reverse zones of a network: more than one when it does not end at a label, 8 bits of an
/// IPv4 and 4 bits of an IPv6 address.
pub(super) fn reverse_zones(network: IpNet) -> Vec<Zone> {
    let step: u8 = match network {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 4,
    };
    let length = network.prefix_len().div_ceil(step) * step;
    let Ok(parts) = network.trunc().subnets(length) else {
        return Vec::new();
    };
    let bits = network.max_prefix_len();
    parts
        .filter_map(|part| reverse_zone(part.addr(), usize::from((bits - length) / step)))
        .collect()
}

/// The reverse name of an address, without its first labels.
fn reverse_zone(address: IpAddr, without: usize) -> Option<Zone> {
    let name = Zone::of_address(address);
    Zone::from_labels(name.labels().skip(without)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let zones = zones(text).unwrap();
        zones.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_and_networks() {
        for (text, expected) in [
            (".", "."),
            ("Example.ORG", "example.org."),
            ("example.org.:1053", "example.org."),
            ("dns://example.org:53", "example.org."),
            ("example.org:http", "example.org:http."),
            ("10.0.0.0/24", "0.0.10.in-addr.arpa."),
            ("10.0.0.0/24:1053", "0.0.10.in-addr.arpa."),
            ("10.0.0.7/32", "7.0.0.10.in-addr.arpa."),
            ("10.1.2.3/8", "10.in-addr.arpa."),
            ("0.0.0.0/0", "in-addr.arpa."),
            ("2001:db8::/32", "8.b.d.0.1.0.0.2.ip6.arpa."),
            ("fd00:10:244::/56", "0.0.4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa."),
            ("10.0.0.0", "10.0.0.0."),
            ("10.0.0.0/33", "10.0.0.0/33."),
        ] {
            assert_eq!(shown(text), [expected], "{text}");
        }
        let quarter = shown("10.0.0.0/10");
        assert_eq!(quarter.len(), 64);
        assert_eq!(quarter[0], "0.10.in-addr.arpa.");
        assert_eq!(quarter[63], "63.10.in-addr.arpa.");
        assert_eq!(shown("10.9.3.0/18").len(), 64);
        assert_eq!(shown("2001:db8::/31").len(), 2);
        for wrong in ["", ":53", "a..b", "example.org:", "::/0", &"a".repeat(300)] {
            assert!(zones(wrong).is_err(), "{wrong}");
        }
    }
}
