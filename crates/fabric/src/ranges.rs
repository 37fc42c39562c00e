//! Which pod range is whose, and which are not usable.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use model::{Cluster, Config, Node};

use crate::plan::Problem;

const FIELD: &str = "spec.podCIDRs";

/// The usable ranges of each node, and what is wrong with the others.
#[derive(Debug, Default)]
pub(crate) struct Ranges<'a> {
    pub of_nodes: BTreeMap<&'a str, Vec<IpNet>>,
    pub problems: Vec<Problem>,
}

/// Of two ranges that overlap one is used: this node's own, else the narrower, else that of the
/// node whose name comes first. The others are reported on their node.
pub(crate) fn ranges<'a>(cluster: &'a Cluster, config: &Config, own: &'a Node) -> Ranges<'a> {
    let mut found = Ranges::default();
    let mut candidates: Vec<(&Node, IpNet)> = Vec::new();
    let addresses: BTreeSet<IpAddr> = cluster
        .nodes
        .values()
        .flat_map(|node| node.addresses.iter().copied())
        .collect();
    for node in cluster.nodes.values() {
        let mut families = [false; 2];
        for range in node.pod_cidrs.iter().map(IpNet::trunc) {
            let taken = &mut families[usize::from(range.addr().is_ipv6())];
            match unusable(&addresses, config, &range, *taken) {
                Some(message) => found
                    .problems
                    .push(Problem::new(&node.name, FIELD, message)),
                None => {
                    *taken = true;
                    candidates.push((node, range));
                }
            }
        }
    }
    candidates.sort_by_key(|(node, range)| {
        let narrow_first = range.max_prefix_len() - range.prefix_len();
        (node.name != own.name, narrow_first, &node.name)
    });
    // First address of each used range, with its last and its owner: they do not overlap.
    let mut used: BTreeMap<IpAddr, (IpNet, &str)> = BTreeMap::new();
    for (node, range) in candidates {
        let before = used.range(..=range.broadcast()).next_back();
        match before.filter(|(_, (other, _))| other.broadcast() >= range.network()) {
            Some((_, (other, owner))) => found.problems.push(Problem::new(
                &node.name,
                FIELD,
                format!(
                    "{range} overlaps {other} of node {owner}, so no pod of it is routed; give the node another range"
                ),
            )),
            None => {
                used.insert(range.network(), (range, &node.name));
                found.of_nodes.entry(&node.name).or_default().push(range);
            }
        }
    }
    found
}

/// Why a range cannot be used, whatever the other nodes' are.
fn unusable(
    addresses: &BTreeSet<IpAddr>,
    config: &Config,
    range: &IpNet,
    second: bool,
) -> Option<String> {
    if second {
        return Some(format!(
            "{range} is a second range of its family; one is used"
        ));
    }
    if !config.cluster_cidrs.iter().any(|cidr| cidr.contains(range)) {
        let cidrs: Vec<String> = config.cluster_cidrs.iter().map(IpNet::to_string).collect();
        return Some(format!(
            "{range} is outside the cluster's ranges (clusterCIDRs: {})",
            cidrs.join(", ")
        ));
    }
    if range.prefix_len() == range.max_prefix_len() {
        return Some(format!("{range} has no room for pods"));
    }
    // A route to it would cut that node off.
    let held = addresses
        .range(range.network()..=range.broadcast())
        .next()?;
    Some(format!("{range} holds a node's address, {held}"))
}
