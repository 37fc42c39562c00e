//! Pools of addresses for Services of type LoadBalancer.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use crate::cluster::Node;
use crate::config::Config;
use crate::selector::LabelSelector;

/// Addresses from first to last, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct AddressRange {
    /// The first.
    pub first: IpAddr,
    /// The last.
    pub last: IpAddr,
}

impl AddressRange {
    /// All addresses of a network, its first and last included.
    pub fn of(net: IpNet) -> Self {
        Self {
            first: net.network(),
            last: net.broadcast(),
        }
    }

    /// Whether it is of IPv6.
    pub fn is_v6(&self) -> bool {
        self.first.is_ipv6()
    }

    /// Whether the address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv6() == self.is_v6() && self.first <= ip && ip <= self.last
    }

    /// Whether some address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.is_v6() == other.is_v6() && self.first <= other.last && other.first <= self.last
    }

    /// How many addresses it has; no more than fit.
    pub fn size(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// What is left of it without `other`.
    fn without(&self, other: &Self) -> Vec<Self> {
        if !self.overlaps(other) {
            return vec![*self];
        }
        let before = (self.first < other.first)
            .then(|| previous(other.first))
            .flatten();
        let after = (other.last < self.last).then(|| next(other.last)).flatten();
        let before = before.map(|last| Self {
            first: self.first,
            last,
        });
        let after = after.map(|first| Self {
            first,
            last: self.last,
        });
        before.into_iter().chain(after).collect()
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// The address after this one, of the same family.
pub fn next(ip: IpAddr) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).checked_add(1)?).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).checked_add(1)?).into(),
    })
}

fn previous(ip: IpAddr) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).checked_sub(1)?).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).checked_sub(1)?).into(),
    })
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for AddressRange {
    type Err = String;

    /// A CIDR, or the first and the last address with a dash between them.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((first, last)) = text.split_once('-') {
            let ip = |part: &str| {
                let part = part.trim();
                part.parse::<IpAddr>()
                    .map_err(|_| format!("{part:?} is not an IP address"))
            };
            let (first, last) = (ip(first)?, ip(last)?);
            if first.is_ipv6() != last.is_ipv6() {
                return Err(format!("{first} and {last} are of different families"));
            }
            if first > last {
                return Err(format!("{first} comes after {last}; write {last}-{first}"));
            }
            return Ok(Self { first, last });
        }
        if let Ok(ip) = text.trim().parse::<IpAddr>() {
            return Err(format!("{ip} is one address; write {}", IpNet::from(ip)));
        }
        let net: IpNet = text.trim().parse().map_err(|_| {
            format!("{text:?} is neither a CIDR such as 10.0.1.192/27 nor a range such as 10.0.1.200-10.0.1.250")
        })?;
        if net.trunc() != net {
            return Err(format!(
                "{net} has host bits set; did you mean {}?",
                net.trunc()
            ));
        }
        Ok(Self::of(net))
    }
}

/// A LoadBalancerPool as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.creationTimestamp`, in seconds since 1970.
    pub created: i64,
    /// `spec.addresses`, with the index of each.
    pub addresses: Vec<AddressRange>,
    /// `spec.avoidBuggyIPs`: no address that ends in .0 or .255.
    pub avoid_buggy: bool,
    /// `spec.serviceSelector`: Services that may have an address of it.
    pub service_selector: Option<LabelSelector>,
    /// `spec.namespaceSelector`: namespaces whose Services may.
    pub namespace_selector: Option<LabelSelector>,
    /// `spec.nodeSelector`: nodes that may announce its addresses.
    pub node_selector: Option<LabelSelector>,
    /// `spec.autoAssign`: also to Services that do not ask for this pool.
    pub auto_assign: bool,
}

/// A pool, with what of it can be used beside all else there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The pool.
    pub pool: Arc<Pool>,
    /// Its addresses that belong to nothing else.
    pub usable: Vec<AddressRange>,
    /// What it conflicts with: field and cause. While there is any, no new address is given
    /// from it.
    pub conflicts: Vec<String>,
    /// Node addresses inside it, which are left out.
    pub left_out: Vec<(IpAddr, String)>,
}

impl Judged {
    /// Whether the address may be a Service's.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.usable.iter().any(|range| range.contains(ip))
            && !(self.pool.avoid_buggy && is_buggy(ip))
    }

    /// The entry of `spec.addresses` that the address is in.
    pub fn entry(&self, ip: IpAddr) -> Option<&AddressRange> {
        self.pool.addresses.iter().find(|range| range.contains(ip))
    }

    /// How many addresses Services may have of it; no more than fit.
    pub fn capacity(&self) -> u128 {
        let sizes = self.usable.iter().map(|range| {
            let buggy = if self.pool.avoid_buggy {
                buggy_in(range)
            } else {
                0
            };
            range.size() - buggy
        });
        sizes.fold(0, u128::saturating_add)
    }
}

/// Whether some old devices take the address for a network's or a broadcast.
pub fn is_buggy(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => matches!(ip.octets()[3], 0 | 255),
        IpAddr::V6(_) => false,
    }
}

fn buggy_in(range: &AddressRange) -> u128 {
    if range.is_v6() {
        return 0;
    }
    // Up to and with n: how many end in .0, and how many in .255.
    let upto = |n: u128| n / 256 + 1 + (n + 1) / 256;
    let before = number(range.first).checked_sub(1).map_or(0, upto);
    upto(number(range.last)) - before
}

/// What the pools are worth beside each other and the rest of the cluster's addresses: where two
/// overlap, the older one keeps the addresses. The answer does not depend on the order given.
pub fn judge<'n>(
    pools: impl IntoIterator<Item = Arc<Pool>>,
    config: Option<&Config>,
    nodes: impl IntoIterator<Item = &'n Node>,
) -> Vec<Judged> {
    let mut pools: Vec<Arc<Pool>> = pools.into_iter().collect();
    pools.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    let (ranges, addresses) = taken(config, nodes);
    let mut judged: Vec<Judged> = Vec::with_capacity(pools.len());
    for pool in pools {
        let next = judge_one(pool, &ranges, &addresses, &judged);
        judged.push(next);
    }
    judged
}

type Ranges = BTreeSet<(AddressRange, String)>;

/// What belongs to pods and Services, and the nodes' own addresses.
fn taken<'n>(
    config: Option<&Config>,
    nodes: impl IntoIterator<Item = &'n Node>,
) -> (Ranges, BTreeSet<(IpAddr, String)>) {
    let mut ranges = Ranges::new();
    let mut cluster = Vec::new();
    if let Some(config) = config {
        for net in &config.cluster_cidrs {
            cluster.push(*net);
            ranges.insert((AddressRange::of(*net), format!("the pod range {net}")));
        }
        for net in &config.service_cidrs {
            ranges.insert((AddressRange::of(*net), format!("the Service range {net}")));
        }
    }
    let mut addresses = BTreeSet::new();
    for node in nodes {
        for net in &node.pod_cidrs {
            if !cluster.iter().any(|wide| wide.contains(net)) {
                let whose = format!("the pod range {net} of Node {}", node.name);
                ranges.insert((AddressRange::of(*net), whose));
            }
        }
        addresses.extend(node.addresses.iter().map(|ip| (*ip, node.name.clone())));
    }
    (ranges, addresses)
}

fn judge_one(
    pool: Arc<Pool>,
    ranges: &Ranges,
    nodes: &BTreeSet<(IpAddr, String)>,
    older: &[Judged],
) -> Judged {
    let mut conflicts = Vec::new();
    let mut usable: Vec<AddressRange> = Vec::new();
    for (index, entry) in pool.addresses.iter().enumerate() {
        let mut left = vec![*entry];
        let mut clash = |with: &AddressRange, whose: &str, keeps: &str| {
            if entry.overlaps(with) {
                conflicts.push(format!(
                    "spec.addresses[{index}]: {entry} overlaps {whose}{keeps}; choose other addresses"
                ));
                left = left.iter().flat_map(|part| part.without(with)).collect();
            }
        };
        for (range, whose) in ranges {
            clash(range, whose, "");
        }
        for other in older {
            for range in &other.pool.addresses {
                let whose = format!("{range} of LoadBalancerPool {}", other.pool.name);
                clash(range, &whose, ", which is older and keeps them");
            }
        }
        for range in &pool.addresses[..index] {
            clash(range, &format!("{range} of the same pool"), "");
        }
        usable.extend(left);
    }
    let mut left_out = Vec::new();
    for (ip, node) in nodes {
        let own = AddressRange {
            first: *ip,
            last: *ip,
        };
        if usable.iter().any(|part| part.contains(*ip)) {
            usable = usable.iter().flat_map(|part| part.without(&own)).collect();
            left_out.push((*ip, node.clone()));
        }
    }
    Judged {
        pool,
        usable,
        conflicts,
        left_out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, created: i64, addresses: &[&str]) -> Arc<Pool> {
        Arc::new(Pool {
            name: name.into(),
            created,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            avoid_buggy: false,
            service_selector: None,
            namespace_selector: None,
            node_selector: None,
            auto_assign: true,
        })
    }

    fn shown(ranges: &[AddressRange]) -> Vec<String> {
        ranges.iter().map(ToString::to_string).collect()
    }

    fn refused(text: &str) -> String {
        text.parse::<AddressRange>().unwrap_err()
    }

    #[test]
    fn ranges_are_read_or_refused_with_what_was_meant() {
        let range: AddressRange = "10.0.1.200-10.0.1.220".parse().unwrap();
        assert_eq!(range.size(), 21);
        let net: AddressRange = "fd00::/120".parse().unwrap();
        assert_eq!(net.to_string(), "fd00::-fd00::ff");
        assert!(refused("10.0.1.20-10.0.1.10").contains("write 10.0.1.10-10.0.1.20"));
        assert!(refused("10.0.1.20").contains("write 10.0.1.20/32"));
        assert!(refused("10.0.1.20/24").contains("did you mean 10.0.1.0/24"));
        assert!(refused("10.0.1.20-fd00::1").contains("different families"));
        assert!(refused("all").contains("neither a CIDR"));
    }

    #[test]
    fn the_older_pool_keeps_what_two_claim_in_any_order() {
        let old = pool("z", 1, &["10.0.1.200-10.0.1.210"]);
        let young = pool("a", 2, &["10.0.1.205-10.0.1.220", "10.0.2.0/28"]);
        for pools in [[old.clone(), young.clone()], [young, old]] {
            let judged = judge(pools, None, []);
            assert_eq!(shown(&judged[0].usable), ["10.0.1.200-10.0.1.210"]);
            assert!(judged[0].conflicts.is_empty());
            assert_eq!(
                shown(&judged[1].usable),
                ["10.0.1.211-10.0.1.220", "10.0.2.0-10.0.2.15"]
            );
            assert_eq!(
                judged[1].conflicts,
                [
                    "spec.addresses[0]: 10.0.1.205-10.0.1.220 overlaps 10.0.1.200-10.0.1.210 of LoadBalancerPool z, which is older and keeps them; choose other addresses"
                ]
            );
        }
    }

    #[test]
    fn pods_and_services_ranges_are_conflicts_and_node_addresses_left_out() {
        let config = Config {
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
            ..Config::default()
        };
        let node = Node {
            name: "node20".into(),
            addresses: vec!["10.0.1.200".parse().unwrap()],
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            vtep_mac: None,
            vtep_mac_v6: None,
            labels: Default::default(),
            leaving: false,
        };
        let pools = [
            pool("lan", 1, &["10.0.1.199-10.0.1.201"]),
            pool("pods", 2, &["10.244.9.0/24"]),
            pool("services", 3, &["10.100.0.0-10.113.0.0"]),
        ];
        let judged = judge(pools, Some(&config), [&node]);
        assert_eq!(shown(&judged[0].usable), ["10.0.1.199", "10.0.1.201"]);
        assert_eq!(judged[0].left_out[0].1, "node20");
        assert!(judged[0].conflicts.is_empty());
        assert!(judged[1].usable.is_empty());
        assert!(judged[1].conflicts[0].contains("the pod range 10.244.0.0/16"));
        assert_eq!(shown(&judged[2].usable), ["10.112.0.0-10.113.0.0"]);
    }

    #[test]
    fn buggy_addresses_are_neither_given_nor_counted() {
        let mut buggy = (*pool("a", 1, &["10.0.0.250-10.0.2.5", "10.1.0.0/24"])).clone();
        buggy.avoid_buggy = true;
        let judged = judge([Arc::new(buggy)], None, []);
        let all: usize = judged[0]
            .usable
            .iter()
            .map(|range| {
                let mut count = 0;
                let mut ip = Some(range.first);
                while let Some(one) = ip.filter(|ip| range.contains(*ip)) {
                    count += usize::from(judged[0].has(one));
                    ip = next(one);
                }
                count
            })
            .sum();
        assert_eq!(judged[0].capacity(), all as u128);
        assert!(!judged[0].has("10.0.1.0".parse().unwrap()));
        assert!(!judged[0].has("10.0.1.255".parse().unwrap()));
        assert!(judged[0].has("10.0.1.1".parse().unwrap()));
    }
}
