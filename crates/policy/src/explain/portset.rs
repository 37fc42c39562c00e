//! Sets of ports: what is open between two ends.

use std::fmt;

use model::Protocol;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

/// Ports of each protocol, and whether what has no ports (ICMP) belongs to it too.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet {
    /// Of TCP, UDP and SCTP: ranges, sorted, apart from each other.
    ranges: [Vec<(u16, u16)>; 3],
    portless: bool,
}

const ALL: (u16, u16) = (1, u16::MAX);

impl PortSet {
    /// Everything, also what has no ports.
    pub fn all() -> Self {
        Self {
            ranges: [vec![ALL], vec![ALL], vec![ALL]],
            portless: true,
        }
    }

    /// Some ports of a protocol.
    pub fn range(protocol: Protocol, first: u16, last: u16) -> Self {
        let mut set = Self::default();
        if first.max(1) <= last {
            set.ranges[protocol as usize].push((first.max(1), last));
        }
        set
    }

    /// Nothing but what has no ports.
    pub fn portless() -> Self {
        Self {
            portless: true,
            ..Self::default()
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether everything is in it.
    pub fn is_all(&self) -> bool {
        *self == Self::all()
    }

    /// Whether what has no ports is in it.
    pub fn has_portless(&self) -> bool {
        self.portless
    }

    /// Whether a port is in it.
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        let mut ranges = self.ranges[protocol as usize].iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// Its ranges of a protocol.
    pub fn of(&self, protocol: Protocol) -> &[(u16, u16)] {
        &self.ranges[protocol as usize]
    }

    /// How many ports it has.
    pub fn count(&self) -> u32 {
        let all = self.ranges.iter().flatten();
        all.map(|(first, last)| u32::from(*last) - u32::from(*first) + 1)
            .sum()
    }

    /// What is in either.
    pub fn or(&self, other: &Self) -> Self {
        self.with(other, |a, b| a || b)
    }

    /// What is in both.
    pub fn and(&self, other: &Self) -> Self {
        self.with(other, |a, b| a && b)
    }

    /// What is in it and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        self.with(other, |a, b| a && !b)
    }

    fn with(&self, other: &Self, keep: impl Fn(bool, bool) -> bool) -> Self {
        let mut set = Self {
            portless: keep(self.portless, other.portless),
            ..Self::default()
        };
        for (index, ranges) in set.ranges.iter_mut().enumerate() {
            *ranges = merged(&self.ranges[index], &other.ranges[index], &keep);
        }
        set
    }
}

/// Sweeps over the places where either list begins or ends.
fn merged(
    a: &[(u16, u16)],
    b: &[(u16, u16)],
    keep: &impl Fn(bool, bool) -> bool,
) -> Vec<(u16, u16)> {
    let ends = |all: &[(u16, u16)]| -> Vec<u32> {
        let each = |&(first, last): &(u16, u16)| [u32::from(first), u32::from(last) + 1];
        all.iter().flat_map(each).collect()
    };
    let mut cuts: Vec<u32> = ends(a).into_iter().chain(ends(b)).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let within = |all: &[(u16, u16)], at: u32| {
        let mut all = all.iter();
        all.any(|(first, last)| (u32::from(*first)..=u32::from(*last)).contains(&at))
    };
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for cut in cuts.windows(2) {
        if !keep(within(a, cut[0]), within(b, cut[0])) {
            continue;
        }
        let (Ok(first), Ok(last)) = (u16::try_from(cut[0]), u16::try_from(cut[1] - 1)) else {
            continue;
        };
        match ranges.last_mut() {
            Some(before) if u32::from(before.1) + 1 == cut[0] => before.1 = last,
            _ => ranges.push((first, last)),
        }
    }
    ranges
}

/// `80`, `8000-8100`.
fn range(&(first, last): &(u16, u16)) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        let mut parts = Vec::new();
        for protocol in Protocol::ALL {
            match self.of(protocol) {
                [] => {}
                [all] if *all == ALL => parts.push(format!("all {protocol}")),
                some => {
                    let some: Vec<String> = some.iter().map(range).collect();
                    parts.push(format!("{protocol} {}", some.join(",")));
                }
            }
        }
        if self.portless {
            parts.push("ICMP".into());
        }
        match parts.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}

impl Serialize for PortSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("all", &self.is_all())?;
        for protocol in Protocol::ALL {
            let ranges: Vec<String> = self.of(protocol).iter().map(range).collect();
            map.serialize_entry(protocol.word(), &ranges)?;
        }
        map.serialize_entry("ICMP", &self.portless)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_joined_cut_and_named() {
        let tcp = |first, last| PortSet::range(Protocol::Tcp, first, last);
        let set = tcp(80, 80).or(&tcp(81, 90)).or(&tcp(443, 443));
        assert_eq!(set.to_string(), "TCP 80-90,443");
        assert_eq!(set.without(&tcp(85, 443)).to_string(), "TCP 80-84");
        assert_eq!(set.and(&tcp(90, 500)).to_string(), "TCP 90,443");
        assert_eq!(set.count(), 12);
        let rest = PortSet::all().without(&tcp(1, 1024));
        assert_eq!(rest.to_string(), "TCP 1025-65535, all UDP, all SCTP, ICMP");
        assert!(rest.or(&tcp(1, 1024)).is_all());
        assert!(set.and(&PortSet::portless()).is_empty());
        assert!(rest.contains(Protocol::Tcp, u16::MAX) && !rest.contains(Protocol::Tcp, 1024));
        assert_eq!(PortSet::range(Protocol::Udp, 0, 5).to_string(), "UDP 1-5");
    }
}
