//! Sets that rules look things up in, each named by what it holds: whoever means the same shares
//! one.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::selector::{LabelSelector, Operator, Requirement};
use model::{Labels, Pod, Protocol};

use super::digest::digest;

/// The name of a set, made of what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u64);

/// A set, without its elements: what it holds does not change, its elements may.
#[derive(Clone, Debug)]
pub struct Set {
    id: SetId,
    /// Whether its addresses are of IPv6; they never are of both families.
    pub v6: bool,
    /// What it holds.
    pub what: What,
}

/// What a set holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Addresses of pods.
    Pods(Pods),
    /// Addresses of pods with protocol and number of their ports of a name.
    Named {
        /// Whose.
        pods: Pods,
        /// The name.
        name: String,
        /// Only those of this protocol.
        protocol: Option<Protocol>,
    },
    /// Addresses of the nodes that a selector selects.
    Nodes(LabelSelector),
    /// Addresses whoever has them: disjoint networks in order.
    Blocks(Vec<IpNet>),
    /// Protocols and port numbers.
    Ports(Vec<(Protocol, u16)>),
}

/// Pods that have addresses of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pods {
    /// Of which namespaces.
    pub scope: Scope,
    /// Which of theirs.
    pub selector: LabelSelector,
}

/// Namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All, also those that are not known.
    All,
    /// One.
    Namespace(String),
    /// Those that are known and have such labels.
    Selected(LabelSelector),
}

/// An element of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// An address.
    Ip(IpAddr),
    /// A port of an address.
    IpPort(IpAddr, Protocol, u16),
    /// All addresses of a network.
    Net(IpNet),
    /// A port of any address.
    Port(Protocol, u16),
}

impl Set {
    /// A set that holds `what` of a family.
    pub fn new(v6: bool, what: What) -> Arc<Self> {
        let id = SetId(digest(&(v6, &what)));
        Arc::new(Self { id, v6, what })
    }

    /// The set of some ports, which have no family.
    pub fn ports(ports: Vec<(Protocol, u16)>) -> Arc<Self> {
        Self::new(false, What::Ports(ports))
    }

    /// Its name.
    pub fn id(&self) -> SetId {
        self.id
    }

    /// The network that is all it holds: that is compared, and needs no set.
    pub fn single(&self) -> Option<IpNet> {
        match &self.what {
            What::Blocks(nets) => match nets.as_slice() {
                [net] => Some(*net),
                _ => None,
            },
            _ => None,
        }
    }

    /// The pods it is about.
    pub fn pods(&self) -> Option<&Pods> {
        match &self.what {
            What::Pods(pods) | What::Named { pods, .. } => Some(pods),
            What::Nodes(_) | What::Blocks(_) | What::Ports(_) => None,
        }
    }

    /// What of a pod is in it, by one of its addresses; its namespace is one of the set's.
    pub(super) fn of_pod(&self, pod: &Pod, ip: IpAddr) -> Vec<Element> {
        match &self.what {
            _ if ip.is_ipv6() != self.v6 => Vec::new(),
            What::Pods(pods) if pods.selector.matches(&pod.labels) => vec![Element::Ip(ip)],
            What::Named {
                pods,
                name,
                protocol,
            } if pods.selector.matches(&pod.labels) => {
                let ports = pod.ports.iter().filter(|port| {
                    *port.name == **name
                        && protocol.is_none_or(|protocol| protocol == port.protocol)
                });
                let mut ports: Vec<Element> = ports
                    .map(|port| Element::IpPort(ip, port.protocol, port.port))
                    .collect();
                ports.sort();
                ports.dedup();
                ports
            }
            _ => Vec::new(),
        }
    }

    /// The elements of a set that depends on nothing, in order.
    pub(super) fn fixed(&self) -> Option<Vec<Element>> {
        match &self.what {
            What::Blocks(nets) => Some(nets.iter().copied().map(Element::Net).collect()),
            What::Ports(ports) => {
                let ports = ports.iter();
                Some(ports.map(|&(of, port)| Element::Port(of, port)).collect())
            }
            What::Pods(_) | What::Named { .. } | What::Nodes(_) => None,
        }
    }
}

// What is named alike is alike.
impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Set {}

impl PartialOrd for Set {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Set {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}

impl Hash for Set {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl Scope {
    /// Whether a namespace is one of them, by its name and by its labels where they are known.
    pub fn holds(&self, name: &str, labels: Option<&Labels>) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(own) => own == name,
            Self::Selected(selector) => labels.is_some_and(|labels| selector.matches(labels)),
        }
    }
}

impl Element {
    /// The address it is about.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) | Self::IpPort(ip, ..) => Some(*ip),
            Self::Net(_) | Self::Port(..) => None,
        }
    }
}

/// A selector written in one way, of the many that mean the same.
pub(super) fn canonical(selector: &LabelSelector) -> LabelSelector {
    let mut expressions: Vec<Requirement> = selector.match_expressions.clone();
    for expression in &mut expressions {
        match expression.operator {
            Operator::In | Operator::NotIn => {
                expression.values.sort();
                expression.values.dedup();
            }
            Operator::Exists | Operator::DoesNotExist => expression.values.clear(),
        }
    }
    expressions.sort();
    expressions.dedup();
    LabelSelector {
        match_labels: selector.match_labels.clone(),
        match_expressions: expressions,
    }
}
