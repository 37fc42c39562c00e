//! From Services and their endpoint slices to what this node does with new connections. Pure.
//!
//! | file | holds |
//! |---|---|
//! | `endpoints` | which endpoints a port leads to |
//! | `ports` | what one Service asks for, and what is wrong with it |
//! | `claims` | who has an address and port that several ask for |
//! | `update` | the plan after a change, and what the change did |

mod claims;
mod endpoints;
mod ports;
mod settings;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::{Cluster, Key, Protocol, TrafficPolicy};
use serde::Serialize;

use crate::apply::Problem;

use claims::{Claims, Place};
use ports::Wanted;

pub use settings::{Local, NodePorts, Settings};

/// A port of a Service, named as kube-proxy names it: `namespace/name:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PortName {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Name of the port, empty where it has none.
    pub port: String,
    /// Protocol.
    pub protocol: Protocol,
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        if self.port.is_empty() {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

/// One endpoint that connections may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Backend {
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// On this node.
    pub local: bool,
}

/// An endpoint of a port's slices, chosen or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// The endpoint.
    pub backend: Backend,
    /// Chosen for the Cluster policy.
    pub cluster: bool,
    /// Chosen for the Local policy.
    pub local: bool,
    /// Its state, and why it is not chosen for the Cluster policy where that is so.
    pub why: &'static str,
}

/// What a connection is made to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum FrontendKind {
    /// One of `spec.clusterIPs`.
    ClusterIp,
    /// One of `spec.externalIPs`.
    ExternalIp,
    /// An address of `status.loadBalancer`.
    LoadBalancer,
    /// A port of this node.
    NodePort,
}

/// Where a Service's port is served on this node.
///
/// | kind and policy | source | endpoints | masquerade |
/// |---|---|---|---|
/// | ClusterIp, Cluster | any | `cluster` | where the source is no pod |
/// | ClusterIp, Local | any | `local` | where the source is no pod |
/// | others, Cluster | any | `cluster` | always |
/// | others, Local | a pod of this node | `cluster` | never |
/// | others, Local | this node | `cluster` | always |
/// | others, Local | elsewhere, other nodes' pods too | `local` | never |
///
/// In this order: a source that `sources` does not let in is dropped; with no endpoint anywhere
/// (`cluster` is empty) the connection is rejected; where only the list it should go to is empty,
/// dropped. An endpoint that reaches itself is masqueraded in any case. Where pods cannot be told
/// ([`Settings::tells_pods`]), no source is known to be a pod and none to be no pod.
///
/// A pod that reaches another node's external address is not led past the policy there, unlike
/// with kube-proxy, which takes every pod for its own where it tells them by the cluster's range:
/// an endpoint on a third node would answer the pod directly, and the pod expects the answer from
/// the address it called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Frontend {
    /// What it is.
    pub kind: FrontendKind,
    /// The address; absent for a port of this node.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// Which endpoints it leads to.
    pub policy: TrafficPolicy,
    /// Sources that are let in, where `spec.loadBalancerSourceRanges` says so: the ranges of the
    /// frontend's family, and the balancer's own addresses where a range holds this node (a node
    /// that has the address itself comes from it). Absent where the ranges let everybody in.
    pub sources: Option<Vec<IpNet>>,
}

/// One port of one Service in one family, as this node serves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortPlan {
    /// Whose it is.
    pub name: PortName,
    /// Family.
    pub v6: bool,
    /// `spec.clusterIPs` of the family, also the identity of session affinity.
    pub cluster_ip: IpAddr,
    /// `spec.ports[].port`.
    pub port: u16,
    /// Where it is served; without those that an older Service has.
    pub frontends: Vec<Frontend>,
    /// Endpoints for the Cluster policy, sorted. Also there where no policy asks for them: empty
    /// means that no endpoint is usable anywhere ([`PortPlan::uses_cluster`]).
    pub cluster: Vec<Backend>,
    /// Endpoints for the Local policy, sorted; empty where no policy asks for them.
    pub local: Vec<Backend>,
    /// Timeout of session affinity in seconds.
    pub affinity: Option<u32>,
    /// `spec.healthCheckNodePort`, where the Service has one in use: let in by the node's own
    /// firewall chains.
    pub health_check: Option<u16>,
}

impl PortPlan {
    /// Whether connections of any kind go to `cluster`: with the Local policy for frontends other
    /// than the ClusterIP those of this node and its pods still do.
    pub fn uses_cluster(&self) -> bool {
        self.frontends.iter().any(|frontend| {
            frontend.kind != FrontendKind::ClusterIp || frontend.policy == TrafficPolicy::Cluster
        })
    }

    /// Whether connections of any kind go to `local`.
    pub fn uses_local(&self) -> bool {
        self.frontends
            .iter()
            .any(|frontend| frontend.policy == TrafficPolicy::Local)
    }

    /// Name and family.
    pub fn id(&self) -> PortId {
        (self.name.clone(), self.v6)
    }
}

/// Identity of a [`PortPlan`]: name and family.
pub type PortId = (PortName, bool);

/// One port as it was and as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortChange {
    /// Absent where it is new.
    pub was: Option<Arc<PortPlan>>,
    /// Absent where it is gone.
    pub is: Option<Arc<PortPlan>>,
}

/// What an update changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Ports that differ; of two changes that pass a frontend on, in any order.
    pub ports: Vec<PortChange>,
}

/// What the health check port of a Service answers from (`spec.healthCheckNodePort`).
///
/// The families are served apart, as kube-proxy does: the answer over IPv4 counts the Service's
/// IPv4 endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// The port of this node, TCP.
    pub port: u16,
    /// Ready endpoints on this node; absent where the Service has no IPv4.
    pub local_endpoints: Option<usize>,
    /// The same for IPv6.
    pub local_endpoints_v6: Option<usize>,
}

/// What this node does for all Services.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    settings: Settings,
    ports: BTreeMap<PortId, Arc<PortPlan>>,
    health: BTreeMap<Key, HealthCheck>,
    problems: BTreeMap<Key, Vec<Problem>>,
    /// What each Service would have if it were alone.
    wanted: BTreeMap<Key, Wanted>,
    claims: Claims,
}

/// Two plans are the same where they serve and report the same.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
            && self.ports == other.ports
            && self.health == other.health
            && self.problems == other.problems
    }
}

impl Plan {
    /// An empty plan under these settings.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }

    /// The plan for a whole cluster.
    pub fn of(settings: Settings, cluster: &Cluster) -> Self {
        let mut plan = Self::new(settings);
        let all: BTreeSet<Key> = cluster.services.keys().cloned().collect();
        plan.update(cluster, &all);
        plan
    }

    /// What it was made under.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All ports.
    pub fn ports(&self) -> &BTreeMap<PortId, Arc<PortPlan>> {
        &self.ports
    }

    /// The ports of one Service.
    pub fn ports_of(&self, service: &Key) -> impl Iterator<Item = &Arc<PortPlan>> {
        let first = PortName {
            namespace: service.0.clone(),
            name: service.1.clone(),
            port: String::new(),
            protocol: Protocol::default(),
        };
        self.ports
            .range((first, false)..)
            .take_while(|((name, _), _)| {
                name.namespace == service.0.as_str() && name.name == service.1.as_str()
            })
            .map(|(_, port)| port)
    }

    /// The port that has this address and port, and the frontend by which it does; ports of this
    /// node are not among them.
    pub fn at(
        &self,
        ip: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Option<(&Arc<PortPlan>, &Frontend)> {
        self.holder(&Place::of_address(ip, protocol, port))
    }

    /// The port that has this port of the node.
    pub fn at_node_port(
        &self,
        v6: bool,
        protocol: Protocol,
        port: u16,
    ) -> Option<(&Arc<PortPlan>, &Frontend)> {
        self.holder(&Place::of_node(v6, protocol, port))
    }

    /// All endpoints of a port in the cluster that it was planned from, and why connections go
    /// there or not.
    pub fn considered(&self, cluster: &Cluster, port: &PortPlan) -> Vec<Considered> {
        let service = (port.name.namespace.clone(), port.name.name.clone());
        let slices = cluster.slices_of(&service);
        let name = (port.name.port.as_str(), port.name.protocol);
        let candidates = endpoints::merge(&self.settings, slices, name, port.v6);
        endpoints::consider(&self.settings, &candidates, port)
    }

    /// The endpoints of a port that serve in the cluster that it was planned from, whether new
    /// connections go to them or not.
    pub fn serving(&self, cluster: &Cluster, port: &PortPlan) -> Vec<Backend> {
        let service = (port.name.namespace.clone(), port.name.name.clone());
        let slices = cluster.slices_of(&service);
        let name = (port.name.port.as_str(), port.name.protocol);
        endpoints::serving(&endpoints::merge(&self.settings, slices, name, port.v6))
    }

    /// Whether a Service has this ClusterIP.
    pub fn is_cluster_ip(&self, ip: IpAddr) -> bool {
        self.claims.is_cluster_ip(ip)
    }

    /// All health check ports, by Service.
    pub fn health(&self) -> &BTreeMap<Key, HealthCheck> {
        &self.health
    }

    /// What is wrong with Services, by Service.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// What is wrong with one Service and its slices.
    pub fn problems_of(&self, service: &Key) -> &[Problem] {
        self.problems.get(service).map_or(&[], Vec::as_slice)
    }

    fn holder(&self, place: &Place) -> Option<(&Arc<PortPlan>, &Frontend)> {
        let winner = self.claims.winner(place)?;
        let port = self.ports.get(&winner.owner.id)?;
        let frontend = port
            .frontends
            .iter()
            .find(|frontend| Place::of(port, frontend) == *place)?;
        Some((port, frontend))
    }
}
