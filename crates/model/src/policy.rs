//! NetworkPolicy and ClusterNetworkPolicy: who may talk to whom, as it was written.
//!
//! What of a policy cannot be understood is left out where that closes, and stands for everybody
//! where only that closes: a value here never lets in more than was asked for.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::selector::LabelSelector;
use crate::service::{Key, Protocol};

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`; the API server adds `kubernetes.io/metadata.name`.
    pub labels: Labels,
}

/// A NetworkPolicy (`networking.k8s.io/v1`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.podSelector`: whose traffic it is about.
    pub pods: LabelSelector,
    /// What may come in; none where the policy is not about that (`spec.policyTypes`). An empty
    /// list lets nothing in.
    pub ingress: Option<Vec<Rule>>,
    /// What may go out, likewise.
    pub egress: Option<Vec<Rule>>,
}

impl NetworkPolicy {
    /// Namespace and name.
    pub fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    /// Its rules of one direction; none where it is not about that direction.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// Into a pod, or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into it.
    Ingress,
    /// Out of it.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// `ingress` or `egress`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Matches connections with one of the peers, on one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// With whom; none stands for everybody, an empty list for nobody.
    pub peers: Option<Vec<Peer>>,
    /// On which ports of whoever is connected to; none stands for everything, also what has no
    /// ports, an empty list for nothing.
    pub ports: Option<Vec<PortMatch>>,
}

/// With whom a rule lets, or does not let, a pod talk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// Pods with addresses of their own (not of `hostNetwork`).
    Pods {
        /// Of which namespaces.
        namespaces: Namespaces,
        /// Which of theirs.
        pods: LabelSelector,
    },
    /// Addresses, whoever has them.
    Block {
        /// These,
        net: IpNet,
        /// but not these; each within `net`.
        except: Vec<IpNet>,
    },
    /// Nodes by their addresses (only ClusterNetworkPolicy, only egress).
    Nodes(LabelSelector),
}

/// Namespaces of peers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Namespaces {
    /// That of the policy.
    Own,
    /// Those with such labels.
    Selected(LabelSelector),
}

/// Ports that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMatch {
    /// The protocol; none for a name that means whatever protocol the pod's port has (only
    /// ClusterNetworkPolicy).
    pub protocol: Option<Protocol>,
    /// Which of its ports.
    pub port: PortNumbers,
}

/// Port numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PortNumbers {
    /// All.
    Any,
    /// From one to another, both included.
    Range(u16, u16),
    /// Those that the pod connected to calls so.
    Named(String),
}

/// A ClusterNetworkPolicy (`policy.networking.k8s.io/v1alpha2`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPolicy {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.tier`.
    pub tier: Tier,
    /// `spec.priority`: the lowest decides first; of the same, the first by name.
    pub priority: u16,
    /// Whose namespaces.
    pub namespaces: LabelSelector,
    /// Which of their pods; of those of `hostNetwork` none.
    pub pods: LabelSelector,
    /// What comes in, in order.
    pub ingress: Vec<ClusterRule>,
    /// What goes out, in order.
    pub egress: Vec<ClusterRule>,
}

impl ClusterPolicy {
    /// Its rules of one direction.
    pub fn rules(&self, direction: Direction) -> &[ClusterRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// When a ClusterNetworkPolicy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// Where no NetworkPolicy is about the pod.
    Baseline,
}

/// A rule that decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRule {
    /// `name`, empty where it has none.
    pub name: String,
    /// What becomes of the connections it matches.
    pub action: Action,
    /// Which those are.
    pub rule: Rule,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// It is let through.
    Accept,
    /// It is dropped.
    Deny,
    /// The rest of this tier is not asked.
    Pass,
}
