//! Which node gets which pod range. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A cluster range, cut into equal node ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    net: IpNet,
    mask: u8,
}

/// At most this many bits between the cluster's and the nodes' mask, as in Kubernetes.
const MAX_BITS: u8 = 16;

impl Range {
    /// `net` cut into ranges of `/mask`; an error says what does not fit.
    pub fn new(net: IpNet, mask: u8) -> Result<Self, String> {
        if mask < net.prefix_len() || mask > net.max_prefix_len() {
            return Err(format!(
                "node mask /{mask} does not fit into the cluster range {net}; use /{} to /{}",
                net.prefix_len(),
                net.max_prefix_len()
            ));
        }
        if mask - net.prefix_len() > MAX_BITS {
            return Err(format!(
                "cluster range {net} would hold more than 65536 node ranges of /{mask}; use a node mask of at most /{}",
                net.prefix_len() + MAX_BITS
            ));
        }
        Ok(Self {
            net: net.trunc(),
            mask,
        })
    }

    fn count(&self) -> u32 {
        1 << (self.mask - self.net.prefix_len())
    }

    fn cut(&self, index: u32) -> IpNet {
        match self.net {
            IpNet::V4(net) => {
                let start = u32::from(net.network())
                    + index.checked_shl(32 - u32::from(self.mask)).unwrap_or(0);
                IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(start), self.mask))
            }
            IpNet::V6(net) => {
                let offset = u128::from(index).checked_shl(128 - u32::from(self.mask));
                let start = u128::from(net.network()) + offset.unwrap_or(0);
                IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(start), self.mask))
            }
        }
    }

    /// Indexes that `other` covers, first and last; None where it lies outside.
    fn covered(&self, other: &IpNet) -> Option<(u32, u32)> {
        if is_v4(other) != is_v4(&self.net) {
            return None;
        }
        if other.contains(&self.net) {
            return Some((0, self.count() - 1));
        }
        if !self.net.contains(other) {
            return None;
        }
        Some((self.index(other.network()), self.index(last_address(other))))
    }

    fn index(&self, ip: IpAddr) -> u32 {
        let bits = match (ip, self.net) {
            (IpAddr::V4(ip), IpNet::V4(net)) => {
                u128::from(u32::from(ip) - u32::from(net.network()))
                    .checked_shr(32 - u32::from(self.mask))
            }
            (IpAddr::V6(ip), IpNet::V6(net)) => {
                (u128::from(ip) - u128::from(net.network())).checked_shr(128 - u32::from(self.mask))
            }
            _ => None,
        };
        u32::try_from(bits.unwrap_or(0)).unwrap_or(0)
    }
}

fn is_v4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

fn last_address(net: &IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) => net.broadcast().into(),
        IpNet::V6(net) => net.broadcast().into(),
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give the node these ranges, one a family.
    Assign(String, Vec<IpNet>),
    /// No range is left for the node.
    Exhausted(String, IpNet),
    /// The node's range, given by somebody else, overlaps another node's.
    Overlap {
        /// The node, the later one by name.
        node: String,
        /// Its range.
        cidr: IpNet,
        /// The other node.
        other: String,
    },
}

/// Node ranges for every node of `nodes` (name and the ranges it has) that has none.
/// What nodes have is never changed. The answer depends only on what is given, not on its
/// order: a node whose name ends in a number gets the range of that number where it is
/// free; others the first free one, counting from 1, with 0 last.
pub fn plan(ranges: &[Range], nodes: &BTreeMap<String, Vec<IpNet>>) -> Vec<Action> {
    let mut actions = overlaps(nodes);
    let mut used: Vec<BTreeSet<u32>> = ranges
        .iter()
        .map(|range| {
            let held = nodes.values().flatten();
            held.filter_map(|cidr| range.covered(cidr))
                .flat_map(|(first, last)| first..=last)
                .collect()
        })
        .collect();
    if ranges.is_empty() {
        return actions;
    }
    let (numbered, others): (Vec<&String>, Vec<&String>) = nodes
        .iter()
        .filter(|(_, cidrs)| cidrs.is_empty())
        .map(|(name, _)| name)
        .partition(|name| trailing_number(name).is_some());
    for name in numbered.into_iter().chain(others) {
        actions.push(assign(name, ranges, &mut used));
    }
    actions
}

fn assign(name: &str, ranges: &[Range], used: &mut [BTreeSet<u32>]) -> Action {
    let mut picked = Vec::with_capacity(ranges.len());
    for (range, used) in ranges.iter().zip(used.iter()) {
        match pick(range, used, trailing_number(name)) {
            Some(index) => picked.push(index),
            None => return Action::Exhausted(name.to_owned(), range.net),
        }
    }
    let mut cidrs = Vec::with_capacity(ranges.len());
    for ((range, used), index) in ranges.iter().zip(used).zip(picked) {
        used.insert(index);
        cidrs.push(range.cut(index));
    }
    Action::Assign(name.to_owned(), cidrs)
}

fn pick(range: &Range, used: &BTreeSet<u32>, wished: Option<u32>) -> Option<u32> {
    let count = range.count();
    let wished = wished.filter(|index| *index > 0 && *index < count);
    wished
        .into_iter()
        .chain(1..count)
        .chain([0])
        .find(|index| !used.contains(index))
}

fn trailing_number(name: &str) -> Option<u32> {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[name.len() - digits..].parse().ok()
}

fn overlaps(nodes: &BTreeMap<String, Vec<IpNet>>) -> Vec<Action> {
    // Ranges by their first address: an overlap is then always with the one before that
    // reaches furthest.
    let mut held: Vec<(&IpNet, &String)> = nodes
        .iter()
        .flat_map(|(name, cidrs)| cidrs.iter().map(move |cidr| (cidr, name)))
        .collect();
    held.sort_by_key(|(cidr, name)| (cidr.network(), cidr.prefix_len(), *name));
    let mut found = Vec::new();
    let mut widest: Option<(&IpNet, &String)> = None;
    for (cidr, name) in held {
        match widest {
            Some((wide, other)) if wide.contains(&cidr.network()) => {
                let (node, other, cidr) = if name > other {
                    (name, other, cidr)
                } else {
                    (other, name, wide)
                };
                found.push(Action::Overlap {
                    node: node.clone(),
                    cidr: *cidr,
                    other: other.clone(),
                });
            }
            _ => widest = Some((cidr, name)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(net: &str, mask: u8) -> Range {
        Range::new(net.parse().unwrap(), mask).unwrap()
    }

    fn nodes(list: &[(&str, &[&str])]) -> BTreeMap<String, Vec<IpNet>> {
        list.iter()
            .map(|(name, cidrs)| {
                let cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
                ((*name).to_owned(), cidrs)
            })
            .collect()
    }

    fn text(actions: &[Action]) -> Vec<String> {
        actions
            .iter()
            .map(|action| match action {
                Action::Assign(node, cidrs) => {
                    let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
                    format!("{node} {}", cidrs.join(" "))
                }
                Action::Exhausted(node, net) => format!("{node} exhausted {net}"),
                Action::Overlap { node, cidr, other } => format!("{node} {cidr} overlaps {other}"),
            })
            .collect()
    }

    #[test]
    fn numbered_nodes_get_their_number_others_the_first_free_from_one() {
        let plan = plan(
            &[range("10.244.0.0/16", 24), range("fd00:10:244::/56", 64)],
            &nodes(&[
                ("node2", &[]),
                ("node1", &[]),
                ("alpha", &[]),
                ("old", &["10.244.4.0/24"]),
            ]),
        );
        assert_eq!(
            text(&plan),
            [
                "node1 10.244.1.0/24 fd00:10:244:1::/64",
                "node2 10.244.2.0/24 fd00:10:244:2::/64",
                "alpha 10.244.3.0/24 fd00:10:244:3::/64",
            ]
        );
    }

    #[test]
    fn index_zero_is_last_and_then_the_range_is_exhausted() {
        let have: &[(&str, &[&str])] = &[("a", &["10.0.1.0/24"]), ("b", &[]), ("c", &[])];
        let plan = plan(&[range("10.0.0.0/23", 24)], &nodes(have));
        assert_eq!(text(&plan), ["b 10.0.0.0/24", "c exhausted 10.0.0.0/23"]);
    }

    #[test]
    fn a_wider_foreign_range_occupies_all_it_covers_and_overlaps_are_reported() {
        let have: &[(&str, &[&str])] = &[
            ("a", &["10.244.0.0/22"]),
            ("b", &["10.244.2.0/24"]),
            ("x", &["192.168.0.0/24"]),
            ("z", &[]),
        ];
        let plan = plan(&[range("10.244.0.0/16", 24)], &nodes(have));
        assert_eq!(
            text(&plan),
            ["b 10.244.2.0/24 overlaps a", "z 10.244.4.0/24"]
        );
    }

    #[test]
    fn masks_that_do_not_fit_are_refused() {
        let new = |net: &str, mask| Range::new(net.parse().unwrap(), mask).unwrap_err();
        assert!(new("10.0.0.0/24", 16).contains("use /24 to /32"));
        assert!(new("fd00::/32", 64).contains("at most /48"));
        assert!(Range::new("10.0.0.0/24".parse().unwrap(), 24).is_ok());
    }

    proptest! {
        #[test]
        fn no_two_nodes_ever_share_a_range_however_they_join(
            steps in prop::collection::vec((0_u8..40, any::<bool>()), 1..80)
        ) {
            let ranges = [range("10.244.0.0/19", 24), range("fd00::/59", 64)];
            let mut nodes: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
            for (number, joins) in steps {
                let name = if number % 3 == 0 { format!("n{number}") } else { format!("n{number}x") };
                if joins { nodes.entry(name).or_default(); } else { nodes.remove(&name); }
                for action in plan(&ranges, &nodes) {
                    match action {
                        Action::Assign(node, cidrs) => { nodes.insert(node, cidrs); }
                        Action::Exhausted(..) => prop_assert!(nodes.len() > 32),
                        Action::Overlap { .. } => prop_assert!(false, "overlap"),
                    }
                }
                let mut seen = BTreeSet::new();
                for cidr in nodes.values().flatten() {
                    prop_assert!(seen.insert(*cidr), "{cidr} twice");
                }
            }
        }
    }
}
