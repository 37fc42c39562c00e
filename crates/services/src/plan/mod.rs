//! From Services and their endpoint slices to what this node does with new connections. Pure.

mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::{Cluster, Key, Protocol, TrafficPolicy};
use serde::Serialize;

use crate::apply::Problem;

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
/// | others, Local | a pod | `cluster` | never |
/// | others, Local | this node | `cluster` | always |
/// | others, Local | elsewhere | `local` | never |
///
/// With no endpoint anywhere the connection is rejected; where only the list it should go to is
/// empty, dropped. An endpoint that reaches itself is masqueraded in any case.
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
    /// Sources that are let in, where `spec.loadBalancerSourceRanges` says so: those of the
    /// frontend's family; others are dropped.
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
    /// Endpoints for the Cluster policy, sorted; filled whatever the frontends' policies, so that
    /// empty means: none anywhere.
    pub cluster: Vec<Backend>,
    /// Endpoints for the Local policy, sorted; empty where no policy asks for them.
    pub local: Vec<Backend>,
    /// Timeout of session affinity in seconds.
    pub affinity: Option<u32>,
    /// `spec.healthCheckNodePort`, where the Service has one in use: let in by the node's own
    /// firewall chains.
    pub health_check: Option<u16>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// The port of this node.
    pub port: u16,
    /// Ready endpoints on this node.
    pub local_endpoints: usize,
}

/// What this node does for all Services.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    settings: Settings,
    ports: BTreeMap<PortId, Arc<PortPlan>>,
    health: BTreeMap<Key, HealthCheck>,
    problems: BTreeMap<Key, Vec<Problem>>,
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
        let mut all: BTreeSet<Key> = cluster.services.keys().cloned().collect();
        all.extend(
            cluster
                .slices
                .values()
                .map(|slice| (slice.namespace.clone(), slice.service.clone())),
        );
        plan.update(cluster, &all);
        plan
    }

    /// Plans these Services anew, and those that they pass a frontend on to.
    pub fn update(&mut self, _cluster: &Cluster, _services: &BTreeSet<Key>) -> Delta {
        Delta::default()
    }

    /// What it was made under.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All ports.
    pub fn ports(&self) -> &BTreeMap<PortId, Arc<PortPlan>> {
        &self.ports
    }

    /// All health check ports, by Service.
    pub fn health(&self) -> &BTreeMap<Key, HealthCheck> {
        &self.health
    }

    /// What is wrong with Services, by Service.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }
}
