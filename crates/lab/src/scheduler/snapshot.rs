//! Nodes and what runs on them, kept up to date change by change: choosing a node costs
//! by the number of nodes, not of pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::resources::{Amounts, requests};
use crate::controllers::pods::controller_of;
use crate::controllers::store::Key;

/// A port taken on the node itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// Address; empty means all.
    pub ip: String,
    /// Number.
    pub port: i32,
}

impl HostPort {
    /// True where the two cannot be had together.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// A pod with what scheduling asks of it worked out once.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What it asks for.
    pub requests: Amounts,
    /// Ports it takes on the node.
    pub ports: Vec<HostPort>,
    /// UID of its controller.
    pub owner: Option<String>,
}

impl PodInfo {
    /// Works a pod out.
    pub fn new(pod: &Arc<Pod>) -> Self {
        Self {
            requests: requests(pod),
            ports: host_ports(pod),
            owner: controller_of(&pod.metadata).map(|owner| owner.uid.clone()),
            pod: pod.clone(),
        }
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                ip: port.host_ip.clone().unwrap_or_default(),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

/// CPU and memory a pod without requests counts for when nodes are compared, so that such
/// pods spread as well.
const DEFAULT_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// One node.
#[derive(Debug, Default)]
pub struct NodeInfo {
    /// The node; None while only pods bound to it are known.
    pub node: Option<Arc<Node>>,
    /// What it has.
    pub allocatable: Amounts,
    /// What its pods ask for.
    pub requested: Amounts,
    /// CPU and memory its pods count for in comparisons.
    pub load: (i64, i64),
    /// Its pods.
    pub pods: BTreeMap<Key, PodInfo>,
    /// How many pods each controller has here.
    pub owners: HashMap<String, usize>,
}

/// CPU and memory a pod counts for in comparisons.
pub fn load(pod: &PodInfo) -> (i64, i64) {
    let or = |amount: i64, default: i64| if amount == 0 { default } else { amount };
    (
        or(pod.requests.of("cpu"), DEFAULT_CPU),
        or(pod.requests.of("memory"), DEFAULT_MEMORY),
    )
}

impl NodeInfo {
    fn put(&mut self, key: Key, pod: PodInfo) {
        self.take(&key);
        self.requested.add(&pod.requests);
        let (cpu, memory) = load(&pod);
        self.load.0 += cpu;
        self.load.1 += memory;
        if let Some(owner) = &pod.owner {
            *self.owners.entry(owner.clone()).or_default() += 1;
        }
        self.pods.insert(key, pod);
    }

    fn take(&mut self, key: &Key) {
        let Some(pod) = self.pods.remove(key) else {
            return;
        };
        self.requested.subtract(&pod.requests);
        let (cpu, memory) = load(&pod);
        self.load.0 -= cpu;
        self.load.1 -= memory;
        if let Some(owner) = &pod.owner
            && let Some(count) = self.owners.get_mut(owner)
        {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(owner);
            }
        }
    }
}

/// All nodes with their pods.
#[derive(Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    placed: HashMap<Key, String>,
    /// Pods that keep others away by required anti-affinity.
    repelling: BTreeSet<Key>,
}

impl Snapshot {
    /// Takes in a node, new or changed.
    pub fn set_node(&mut self, node: &Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let info = self.nodes.entry(name).or_default();
        let status = node.status.as_ref();
        info.allocatable = Amounts::read(status.and_then(|s| s.allocatable.as_ref()));
        info.node = Some(node.clone());
    }

    /// Forgets a node; its pods stay known until they are gone.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Puts a pod on a node.
    pub fn place(&mut self, pod: &Arc<Pod>, node: &str) {
        let key = Key::of(pod.as_ref());
        self.remove(&key);
        if required_anti_affinity(pod).next().is_some() {
            self.repelling.insert(key.clone());
        }
        self.placed.insert(key.clone(), node.to_owned());
        let info = self.nodes.entry(node.to_owned()).or_default();
        info.put(key, PodInfo::new(pod));
    }

    /// Takes a pod off its node; true where it was on one.
    pub fn remove(&mut self, key: &Key) -> bool {
        let Some(node) = self.placed.remove(key) else {
            return false;
        };
        self.repelling.remove(key);
        if let Some(info) = self.nodes.get_mut(&node) {
            info.take(key);
            if info.node.is_none() && info.pods.is_empty() {
                self.nodes.remove(&node);
            }
        }
        true
    }

    /// Nodes that exist, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<Node>, &NodeInfo)> {
        let nodes = self.nodes.values();
        nodes.filter_map(|info| info.node.as_ref().map(|node| (node, info)))
    }

    /// Pods that keep others away, with their nodes.
    pub fn repelling(&self) -> impl Iterator<Item = (&Arc<Pod>, &Arc<Node>)> {
        self.repelling.iter().filter_map(|key| {
            let info = self.nodes.get(self.placed.get(key)?)?;
            Some((&info.pods.get(key)?.pod, info.node.as_ref()?))
        })
    }
}

/// The terms by which a pod keeps others away.
pub fn required_anti_affinity(
    pod: &Pod,
) -> impl Iterator<Item = &k8s_openapi::api::core::v1::PodAffinityTerm> {
    pod.spec
        .iter()
        .filter_map(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref())
        .flat_map(|anti| &anti.required_during_scheduling_ignored_during_execution)
        .flatten()
}
