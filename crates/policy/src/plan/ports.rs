//! Ports that a rule matches: disjoint ranges in order.

use model::Protocol;

/// Consecutive ports of one protocol, from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The protocol.
    pub protocol: Protocol,
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

impl PortRange {
    /// Whether it is a single port.
    pub fn is_single(&self) -> bool {
        self.from == self.to
    }

    /// Whether it is all ports of its protocol.
    pub fn is_all(&self) -> bool {
        (self.from, self.to) == (0, u16::MAX)
    }
}

/// Some ports: neither do two ranges overlap nor touch, and they are sorted, so that the same
/// ports are the same value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports(Vec<PortRange>);

impl FromIterator<PortRange> for Ports {
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        let mut all: Vec<PortRange> = ranges
            .into_iter()
            .filter(|range| range.from <= range.to)
            .collect();
        all.sort();
        let mut merged: Vec<PortRange> = Vec::with_capacity(all.len());
        for range in all {
            match merged.last_mut() {
                Some(last)
                    if last.protocol == range.protocol
                        && u32::from(range.from) <= u32::from(last.to) + 1 =>
                {
                    last.to = last.to.max(range.to);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl Ports {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges in order.
    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    /// These and those.
    pub fn union(&self, others: &Self) -> Self {
        self.0.iter().chain(&others.0).copied().collect()
    }

    /// Whether all of those are among these.
    pub fn covers(&self, others: &Self) -> bool {
        others.0.iter().all(|other| {
            let mut own = self.0.iter();
            own.any(|own| {
                own.protocol == other.protocol && own.from <= other.from && other.to <= own.to
            })
        })
    }

    /// The single ports, where there are several: looked up all at once.
    pub fn singles(&self) -> Option<Vec<(Protocol, u16)>> {
        let singles = self.0.iter().filter(|range| range.is_single());
        let singles: Vec<_> = singles.map(|range| (range.protocol, range.from)).collect();
        (singles.len() > 1).then_some(singles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(ranges: &[(Protocol, u16, u16)]) -> Ports {
        let ranges = ranges.iter();
        ranges
            .map(|&(protocol, from, to)| PortRange { protocol, from, to })
            .collect()
    }

    #[test]
    fn ranges_that_overlap_or_touch_are_one() {
        use Protocol::{Tcp, Udp};
        let all = ports(&[
            (Tcp, 90, 100),
            (Tcp, 80, 89),
            (Udp, 80, 80),
            (Tcp, 95, 99),
            (Tcp, 102, 102),
            (Tcp, 200, 100),
        ]);
        assert_eq!(
            all,
            ports(&[(Tcp, 80, 100), (Tcp, 102, 102), (Udp, 80, 80)])
        );
        assert_eq!(all.singles(), Some(vec![(Tcp, 102), (Udp, 80)]));
        assert!(all.covers(&ports(&[(Tcp, 81, 99), (Udp, 80, 80)])));
        assert!(!all.covers(&ports(&[(Tcp, 81, 101)])));
        assert!(!all.covers(&ports(&[(Udp, 81, 81)])));
        assert_eq!(
            ports(&[(Tcp, 0, 65535), (Tcp, 65535, 65535)])
                .ranges()
                .len(),
            1
        );
    }
}
