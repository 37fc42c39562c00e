//! Whether a connection is let through, by which policy, straight from the objects as they were
//! written: the oracle that rules are held against, and what `flatnet trace` and `flatnet policy`
//! print.

mod cure;
mod difference;
mod grid;
mod judge;
mod lint;
mod listing;
mod matrix;
mod names;
mod points;
mod portset;
pub mod words;

pub use cure::{Cure, Near, cure};
pub use difference::{Changed, Difference, difference};
pub use lint::{Finding, Severity, lint};
pub use listing::{Listed, Listing, list, subjects};
pub use matrix::{Declared, Flow, Group, Matrix, Port, Row, matrix};
pub use names::asking;
pub use portset::PortSet;

use std::net::IpAddr;

use model::policy::{Action, Tier};
use model::{Cluster, Direction, Key, Node, Protocol};
use serde::{Deserialize, Serialize};

#[cfg(test)]
pub(crate) mod tests;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its address: of the client the original one, of the server that after Service translation.
    pub ip: IpAddr,
    /// The pod that has the address for itself.
    pub pod: Option<Key>,
    /// The node whose own the address is, hostNetwork pods included; of a pod the node it is on.
    pub node: Option<String>,
}

impl End {
    /// Who has an address.
    pub fn at(cluster: &Cluster, ip: IpAddr) -> Self {
        let pod = cluster.pod_at(ip);
        let node = match pod {
            Some(pod) => Some(pod.node.clone()).filter(|node| !node.is_empty()),
            None => {
                let mut nodes = cluster.nodes.values();
                let node = nodes.find(|node| is_own(node, ip));
                node.map(|node| node.name.clone())
            }
        };
        let pod = pod.map(|pod| (pod.namespace.clone(), pod.name.clone()));
        Self { ip, pod, node }
    }
}

/// Whether an address is a node's: on the underlay, or one of the first two of its pods' range,
/// which are those of its tunnel and of its pods' gateway.
fn is_own(node: &Node, ip: IpAddr) -> bool {
    let first = |range: &ipnet::IpNet| [Some(range.network()), range.hosts().next()];
    let mut ranges = node.pod_cidrs.iter().flat_map(first).flatten();
    node.addresses.contains(&ip) || ranges.any(|own| own == ip)
}

/// A new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who connects.
    pub from: End,
    /// To whom.
    pub to: End,
    /// Protocol and destination port; none stands for what has no ports (ICMP).
    pub port: Option<(Protocol, u16)>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// At the client.
    pub egress: Side,
    /// At the server.
    pub ingress: Side,
}

impl Answer {
    /// Both sides let it through.
    pub fn allowed(&self) -> bool {
        self.egress.allowed && self.ingress.allowed
    }
}

/// What one side says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Whether it lets the connection through.
    pub allowed: bool,
    /// Why.
    pub reason: Reason,
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// This side is no pod with an address of its own: policies are not about it.
    NotAPod,
    /// From the node a pod is on to the pod.
    OwnNode,
    /// From a pod to itself.
    Itself,
    /// A rule of a ClusterNetworkPolicy.
    Cluster {
        /// Its tier.
        tier: Tier,
        /// `metadata.name`.
        policy: String,
        /// Index of the rule in `spec.ingress` or `spec.egress`.
        rule: usize,
        /// What it says.
        action: Action,
    },
    /// A rule of a NetworkPolicy allows it.
    Rule {
        /// Namespace and name.
        policy: Key,
        /// Index of the rule in `spec.ingress` or `spec.egress`.
        rule: usize,
    },
    /// These NetworkPolicies are about the pod, and none of their rules allows it.
    Isolated {
        /// Namespaces and names, sorted.
        by: Vec<Key>,
    },
    /// The pod's labels are not known yet, so each of these may be about it: NetworkPolicies by
    /// namespace and name, ClusterNetworkPolicies without namespace. Closed until they are known.
    NotKnown {
        /// Sorted.
        by: Vec<Key>,
    },
    /// No policy says anything: what nobody forbids is allowed.
    Nothing,
}

impl Side {
    /// By a reason, which says whether it is allowed.
    fn by(reason: Reason) -> Self {
        let allowed = match &reason {
            Reason::Isolated { .. } | Reason::NotKnown { .. } => false,
            Reason::Cluster { action, .. } => *action == Action::Accept,
            _ => true,
        };
        Self { allowed, reason }
    }
}

/// Answers a question: whether the client's policies let the connection out, and the server's in.
pub fn explain(cluster: &Cluster, question: &Question) -> Answer {
    Answer {
        egress: Side::by(judge::judge(cluster, question, Direction::Egress)),
        ingress: Side::by(judge::judge(cluster, question, Direction::Ingress)),
    }
}
