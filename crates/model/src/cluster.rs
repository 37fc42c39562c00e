//! Nodes and pods, and the one place where changes become a cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A node, as its neighbours need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// Internal addresses, at most one a family, primary first.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Hardware address of the node's VXLAN end for IPv4 underlays, as the node published it.
    pub vtep_mac: Option<[u8; 6]>,
    /// The same for IPv6 underlays.
    pub vtep_mac_v6: Option<[u8; 6]>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

/// A pod, as the network needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.nodeName`, empty while unscheduled.
    pub node: String,
    /// `status.podIPs`.
    pub ips: Vec<IpAddr>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

/// What is known of the cluster. One owner changes it; readers get clones or snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Pods by (namespace, name).
    pub pods: BTreeMap<(String, String), Pod>,
}

/// One change, as it comes from a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node is there, new or different.
    Node(Node),
    /// A node is gone.
    NodeGone(String),
    /// A pod is there, new or different.
    Pod(Pod),
    /// A pod is gone: namespace and name.
    PodGone(String, String),
}

impl Cluster {
    /// Takes one change in; true where it changed anything.
    pub fn take(&mut self, change: Change) -> bool {
        match change {
            Change::Node(node) => {
                let old = self.nodes.get(&node.name);
                if old == Some(&node) {
                    return false;
                }
                self.nodes.insert(node.name.clone(), node);
                true
            }
            Change::NodeGone(name) => self.nodes.remove(&name).is_some(),
            Change::Pod(pod) => {
                let key = (pod.namespace.clone(), pod.name.clone());
                if self.pods.get(&key) == Some(&pod) {
                    return false;
                }
                self.pods.insert(key, pod);
                true
            }
            Change::PodGone(namespace, name) => self.pods.remove(&(namespace, name)).is_some(),
        }
    }
}
