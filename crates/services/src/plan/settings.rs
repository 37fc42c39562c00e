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
    /// How pods' packets are told.
    pub local: Local,
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
