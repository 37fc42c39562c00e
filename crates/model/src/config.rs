//! The cluster's network configuration, and what can be wrong with it.
//!
//! Kept in the ConfigMap `kube-system/flatnet`, key `config.yaml`; agents watch it, so a
//! change takes effect on a running cluster.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

pub mod kubeproxy;
mod read;
mod validate;

pub use kubeproxy::{ConntrackConfig, ProxyConfig};
pub use read::Document;

/// `apiVersion` of [`Config`].
pub const API_VERSION: &str = "flatnet.io/v1alpha1";
/// `kind` of [`Config`].
pub const KIND: &str = "NetworkConfig";

/// How packets travel between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FabricMode {
    /// VXLAN to every node.
    #[default]
    Vxlan,
    /// Direct routes; every node must be on the same subnet.
    HostGw,
    /// Direct inside a subnet, VXLAN across.
    CrossSubnet,
}

/// How a pod hangs on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodMode {
    /// A routed veth of its own.
    #[default]
    Routed,
    /// A port of the bridge `cni0`.
    Bridge,
}

/// The fabric's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FabricConfig {
    /// Mode.
    pub mode: FabricMode,
    /// VXLAN network identifier, 1 to 16777215.
    pub vni: u32,
    /// VXLAN UDP port.
    pub port: u16,
    /// MTU of pods; computed from the underlay where absent.
    pub mtu: Option<u32>,
}

impl Default for FabricConfig {
    fn default() -> Self {
        Self {
            mode: FabricMode::default(),
            vni: 1,
            port: 8472,
            mtu: None,
        }
    }
}

/// How Services reach the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServicesMode {
    /// Maps of nftables: constant work per packet.
    #[default]
    Nftables,
    /// kube-proxy's iptables chains.
    Iptables,
}

/// How a node tells pods' packets from those that come from elsewhere. Written as `clusterCIDR`,
/// `nodeCIDR`, `{bridgeInterface: NAME}`, `{interfaceNamePrefix: PREFIX}` or `{ranges: [CIDR]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LocalDetection {
    /// The source is in a pod range of the cluster.
    #[default]
    #[serde(rename = "clusterCIDR")]
    ClusterCidr,
    /// The source is in a pod range of this node.
    #[serde(rename = "nodeCIDR")]
    NodeCidr,
    /// The packet comes from the bridge of this name.
    BridgeInterface(String),
    /// The packet comes by a link whose name begins so.
    InterfaceNamePrefix(String),
    /// The source is in one of these ranges.
    Ranges(Vec<IpNet>),
}

/// Which addresses of a node its node ports are served at. Written as `all`, `primary` or a list
/// of ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "WrittenAddresses", from = "WrittenAddresses")]
pub enum NodePortAddresses {
    /// All of its own.
    #[default]
    All,
    /// Those in the Node object.
    Primary,
    /// Those in these ranges.
    Ranges(Vec<IpNet>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum AddressesWord {
    All,
    Primary,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenAddresses {
    Word(AddressesWord),
    Ranges(Vec<IpNet>),
}

impl From<NodePortAddresses> for WrittenAddresses {
    fn from(addresses: NodePortAddresses) -> Self {
        match addresses {
            NodePortAddresses::All => Self::Word(AddressesWord::All),
            NodePortAddresses::Primary => Self::Word(AddressesWord::Primary),
            NodePortAddresses::Ranges(ranges) => Self::Ranges(ranges),
        }
    }
}

impl From<WrittenAddresses> for NodePortAddresses {
    fn from(written: WrittenAddresses) -> Self {
        match written {
            WrittenAddresses::Word(AddressesWord::All) => Self::All,
            WrittenAddresses::Word(AddressesWord::Primary) => Self::Primary,
            WrittenAddresses::Ranges(ranges) => Self::Ranges(ranges),
        }
    }
}

/// The settings of Services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServicesConfig {
    /// Mode.
    pub mode: ServicesMode,
    /// Every connection to a Service's address takes the node's address.
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for masquerade, 0 to 31.
    pub masquerade_bit: u8,
    /// How pods' packets are told.
    pub local_detection: LocalDetection,
    /// Where node ports are served.
    pub node_port_addresses: NodePortAddresses,
    /// Node ports answer at 127.0.0.1 too.
    pub localhost_node_ports: bool,
}

impl Default for ServicesConfig {
    fn default() -> Self {
        Self {
            mode: ServicesMode::default(),
            masquerade_all: false,
            masquerade_bit: 14,
            local_detection: LocalDetection::default(),
            node_port_addresses: NodePortAddresses::default(),
            localhost_node_ports: true,
        }
    }
}

/// The settings of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DnsConfig {
    /// Each node answers its pods' and its own questions to the DNS Service itself.
    pub node_local: bool,
    /// The nodes' servers answer at this address too, for example 169.254.20.10. No Service leads
    /// anywhere from it where a node's server does not answer.
    pub local_address: Option<IpAddr>,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            node_local: true,
            local_address: None,
        }
    }
}

/// The network of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Config {
    /// Always `flatnet.io/v1alpha1`.
    pub api_version: String,
    /// Always `NetworkConfig`.
    pub kind: String,
    /// Pod ranges, at most one a family.
    #[serde(rename = "clusterCIDRs")]
    pub cluster_cidrs: Vec<IpNet>,
    /// Service ranges, at most one a family.
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Vec<IpNet>,
    /// Address of the cluster's DNS Service.
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<IpAddr>,
    /// Cluster domain.
    pub cluster_domain: String,
    /// Prefix length of a node's IPv4 pod range.
    #[serde(rename = "nodeCIDRMaskSizeIPv4")]
    pub node_mask_v4: u8,
    /// Prefix length of a node's IPv6 pod range.
    #[serde(rename = "nodeCIDRMaskSizeIPv6")]
    pub node_mask_v6: u8,
    /// Between nodes.
    pub fabric: FabricConfig,
    /// On the node.
    pub pod_mode: PodMode,
    /// Virtual addresses.
    pub services: ServicesConfig,
    /// Names.
    pub dns: DnsConfig,
}

impl Default for Config {
    fn default() -> Self {
        let v4 = |a, b, len| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), len));
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            cluster_cidrs: vec![v4(10, 244, 16)],
            service_cidrs: vec![v4(10, 96, 12)],
            cluster_dns: vec![IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10))],
            cluster_domain: "cluster.local".to_owned(),
            node_mask_v4: 24,
            node_mask_v6: 64,
            fabric: FabricConfig::default(),
            pod_mode: PodMode::default(),
            services: ServicesConfig::default(),
            dns: DnsConfig::default(),
        }
    }
}

impl Config {
    /// The addresses at which a node answers questions for names itself; none where it does not.
    pub fn node_dns(&self) -> Vec<IpAddr> {
        if !self.dns.node_local {
            return Vec::new();
        }
        let mut all = self.cluster_dns.clone();
        all.extend(self.dns.local_address);
        all.sort();
        all.dedup();
        all
    }

    /// The DNS Service's address that a node's own server is asked in the place of, by the one
    /// that was asked; none where that is no address of nodes' servers.
    pub fn dns_service_of(&self, asked: IpAddr) -> Option<IpAddr> {
        if !self.node_dns().contains(&asked) {
            return None;
        }
        let mut all = self.cluster_dns.iter();
        let of_family = all.clone().find(|ip| ip.is_ipv6() == asked.is_ipv6());
        let own = all.find(|ip| **ip == asked);
        Some(*own.or(of_family).unwrap_or(&asked))
    }

    /// Prefix length of a node's pod range in the family of `cidr`.
    pub fn node_mask(&self, cidr: &IpNet) -> u8 {
        match cidr {
            IpNet::V4(_) => self.node_mask_v4,
            IpNet::V6(_) => self.node_mask_v6,
        }
    }
}

/// What is wrong with a configuration: field, cause, next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Path of the field, for example `clusterCIDRs[0]`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for ConfigError {}
