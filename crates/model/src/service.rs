//! Services and their endpoints.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::labels::Labels;

/// Namespace and name of an object.
pub type Key = (String, String);

/// A transport protocol that Services know.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP, also where none is written.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// As Kubernetes writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// An address inside the cluster.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// That, and a port of every node.
    NodePort,
    /// That, and an address outside.
    LoadBalancer,
    /// Only a name in DNS.
    ExternalName,
}

/// `spec.internalTrafficPolicy` and `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// To endpoints anywhere.
    #[default]
    Cluster,
    /// To endpoints of the node that got the packet.
    Local,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Name, empty where the Service has one port without a name.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the Service's addresses.
    pub port: u16,
    /// Port of every node.
    pub node_port: Option<u16>,
}

/// One entry of `status.loadBalancer.ingress` that has an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancerAddress {
    /// The address.
    pub ip: IpAddr,
    /// `ipMode: Proxy`: the balancer ends connections itself, nodes must not capture the address.
    pub proxied: bool,
}

/// A Service, as the network needs to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`, in seconds since 1970; of two that want the same address and
    /// port, the older has it.
    pub created: i64,
    /// `spec.type`.
    pub kind: ServiceType,
    /// `spec.clusterIPs`, primary first; empty for a headless Service and for an ExternalName.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress`, those with an address.
    pub load_balancer: Vec<LoadBalancerAddress>,
    /// `spec.loadBalancerSourceRanges`.
    pub source_ranges: Vec<IpNet>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// Timeout in seconds where `spec.sessionAffinity` is `ClientIP`.
    pub affinity: Option<u32>,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: TrafficPolicy,
    /// `spec.healthCheckNodePort`.
    pub health_check_port: Option<u16>,
    /// `spec.externalName`.
    pub external_name: Option<String>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// Label `service.kubernetes.io/service-proxy-name`: another proxy serves it, DNS still does.
    pub other_proxy: bool,
    /// Label `service.kubernetes.io/headless`: like a headless Service for proxies.
    pub marked_headless: bool,
    /// `status.loadBalancer.ingress`, the hostnames of those without an address.
    #[serde(default)]
    pub balancer_names: Box<[String]>,
    /// `metadata.labels`, by which DNS may be told to leave it out.
    #[serde(default)]
    pub labels: Labels,
}

impl Service {
    /// Namespace and name.
    pub fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    /// Whether nodes have addresses or ports of it to serve.
    pub fn is_proxied(&self) -> bool {
        !self.cluster_ips.is_empty()
            && self.kind != ServiceType::ExternalName
            && !self.other_proxy
            && !self.marked_headless
    }
}

/// One entry of a slice's `ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePort {
    /// Name: that of the Service's port.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the endpoints; absent means every port, which no proxy serves.
    pub port: Option<u16>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The first of `addresses`; the others mean the same (API reference, EndpointSlice).
    pub ip: IpAddr,
    /// The others, which only DNS tells.
    #[serde(default)]
    pub more: Box<[IpAddr]>,
    /// `conditions.ready`; unset means true. Set also where `publishNotReadyAddresses` is.
    pub ready: bool,
    /// `conditions.serving`; unset means true.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// `nodeName`.
    pub node: Option<String>,
    /// `zone`.
    pub zone: Option<String>,
    /// `hostname`, for DNS.
    pub hostname: Option<String>,
    /// `targetRef`, where it is a pod: its name.
    pub pod: Option<String>,
    /// `hints.forZones`.
    pub for_zones: Vec<String>,
    /// `hints.forNodes`.
    pub for_nodes: Vec<String>,
}

/// A slice of a Service's endpoints, all of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Label `kubernetes.io/service-name`.
    pub service: String,
    /// `addressType` is IPv6.
    pub v6: bool,
    /// `ports`.
    pub ports: Vec<SlicePort>,
    /// `endpoints`, those with an address of the slice's family.
    pub endpoints: Vec<Endpoint>,
    /// Annotation `endpoints.kubernetes.io/last-change-trigger-time` in milliseconds since
    /// 1970, for the metric of the time it took to reach the kernel.
    pub triggered: Option<i64>,
}

impl EndpointSlice {
    /// Whether both say the same, whenever they were written.
    pub fn same(&self, other: &Self) -> bool {
        self.service == other.service
            && self.v6 == other.v6
            && self.ports == other.ports
            && self.endpoints == other.endpoints
            && self.name == other.name
            && self.namespace == other.namespace
    }
}
