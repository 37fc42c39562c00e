//! What rules depend on besides Services: the node and the configuration.

use std::net::IpAddr;

use ipnet::IpNet;
use model::config::{LocalDetection, NodePortAddresses};
use model::{Cluster, Config};

/// How a pod's packet is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// By its source address.
    Sources(Vec<IpNet>),
    /// By the link it comes by; a name that ends in `*` is every name that begins so.
    Link(String),
}

impl Local {
    /// How packets of one node's own pods are told, `own` being the ranges of its pods: by those,
    /// as far as they are pods' at all. Of a family in which that leaves nothing (the node has no
    /// range yet, or its pods' addresses are of others) every pod counts as its own.
    fn on_node(&self, own: &[IpNet]) -> Self {
        let Self::Sources(all) = self else {
            return self.clone();
        };
        let mut sources = Vec::new();
        for v6 in [false, true] {
            let all = all.iter().filter(|range| is_v6(range) == v6);
            let here = |range| own.iter().filter_map(move |own| common(range, own));
            let mut known: Vec<IpNet> = all.clone().flat_map(here).collect();
            if known.is_empty() {
                known.extend(all);
            }
            known.sort();
            known.dedup();
            sources.extend(known);
        }
        Self::Sources(sources)
    }
}

impl Default for Local {
    fn default() -> Self {
        Self::Sources(Vec::new())
    }
}

/// Where node ports are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePorts {
    /// At every address of this node's own.
    #[default]
    All,
    /// At those of its own that are in these ranges.
    Ranges(Vec<IpNet>),
}

/// The node and the configuration, as far as rules depend on them. Where they change, all rules
/// are made anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Name of this node.
    pub node: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Its addresses, primary first.
    pub node_ips: Vec<IpAddr>,
    /// Ranges of its own pods.
    pub pod_cidrs: Vec<IpNet>,
    /// How pods' packets are told.
    pub local: Local,
    /// How those of this node's own pods are told: external addresses with the policy Local lead
    /// only them past the policy.
    pub own_pods: Local,
    /// Service ranges.
    pub service_cidrs: Vec<IpNet>,
    /// Every connection to a Service's address is masqueraded.
    pub masquerade_all: bool,
    /// The mark that asks for masquerade.
    pub masquerade_mark: u32,
    /// Where node ports are served.
    pub node_ports: NodePorts,
    /// Node ports answer at 127.0.0.1 too.
    pub localhost_node_ports: bool,
}

impl Settings {
    /// For the node called `node`; none where the cluster does not know it.
    pub fn of(cluster: &Cluster, config: &Config, node: &str) -> Option<Self> {
        let own = cluster.nodes.get(node)?;
        let services = &config.services;
        let local = match &services.local_detection {
            LocalDetection::ClusterCidr => Local::Sources(config.cluster_cidrs.clone()),
            LocalDetection::Ranges(ranges) => Local::Sources(ranges.clone()),
            LocalDetection::NodeCidr => Local::Sources(own.pod_cidrs.clone()),
            LocalDetection::BridgeInterface(name) => Local::Link(name.clone()),
            LocalDetection::InterfaceNamePrefix(prefix) => Local::Link(format!("{prefix}*")),
        };
        let node_ports = match &services.node_port_addresses {
            NodePortAddresses::All => NodePorts::All,
            NodePortAddresses::Primary => {
                NodePorts::Ranges(own.addresses.iter().map(|ip| IpNet::from(*ip)).collect())
            }
            NodePortAddresses::Ranges(ranges) => NodePorts::Ranges(ranges.clone()),
        };
        Some(Self {
            node: node.to_owned(),
            zone: own.zone().map(str::to_owned),
            node_ips: own.addresses.clone(),
            pod_cidrs: own.pod_cidrs.clone(),
            own_pods: local.on_node(&own.pod_cidrs),
            local,
            service_cidrs: config.service_cidrs.clone(),
            masquerade_all: services.masquerade_all,
            masquerade_mark: 1_u32
                .checked_shl(services.masquerade_bit.into())
                .unwrap_or(0x4000),
            node_ports,
            localhost_node_ports: services.localhost_node_ports,
        })
    }
}

impl Settings {
    /// Whether pods of a family can be told at all; where not, no source is taken for a pod's,
    /// and no connection to a ClusterIP is masqueraded for coming from elsewhere.
    pub fn tells_pods(&self, v6: bool) -> bool {
        match &self.local {
            Local::Sources(ranges) => ranges.iter().any(|range| is_v6(range) == v6),
            Local::Link(_) => true,
        }
    }

    /// The ranges that node ports of a family are served in; none where at every address of the
    /// node's own: also where all ranges are of the other family, or one is everything.
    pub fn node_port_ranges(&self, v6: bool) -> Option<Vec<IpNet>> {
        let NodePorts::Ranges(ranges) = &self.node_ports else {
            return None;
        };
        let own: Vec<IpNet> = ranges
            .iter()
            .copied()
            .filter(|range| is_v6(range) == v6)
            .collect();
        let everything = own.is_empty() || own.iter().any(|range| range.prefix_len() == 0);
        (!everything).then_some(own)
    }

    /// Whether 127.0.0.0/8 has node ports for processes of this node. `[::1]` never has: the
    /// kernel routes no packet from it off the loopback link.
    pub fn node_ports_on_loopback(&self) -> bool {
        self.localhost_node_ports
            && self
                .node_port_ranges(false)
                .is_none_or(|ranges| ranges.iter().any(|range| range.addr().is_loopback()))
    }

    /// Whether node ports answer at an address of this node's own, for its processes or for
    /// others.
    pub fn serves_node_ports_at(&self, ip: IpAddr, to_own_processes: bool) -> bool {
        if ip.is_loopback() && !(ip.is_ipv4() && to_own_processes && self.localhost_node_ports) {
            return false;
        }
        self.node_port_ranges(ip.is_ipv6())
            .is_none_or(|ranges| ranges.iter().any(|range| range.contains(&ip)))
    }

    /// This node's first address of a family.
    pub fn node_ip(&self, v6: bool) -> Option<IpAddr> {
        self.node_ips.iter().copied().find(|ip| ip.is_ipv6() == v6)
    }
}

/// What two ranges have in common: one of them, or nothing.
fn common(one: &IpNet, other: &IpNet) -> Option<IpNet> {
    if one.contains(other) {
        Some(*other)
    } else {
        other.contains(one).then_some(*one)
    }
}

/// Whether a range is of IPv6.
pub(super) fn is_v6(range: &IpNet) -> bool {
    matches!(range, IpNet::V6(_))
}
