//! One side's judgement: the tiers in their order, read as they are written.

use model::policy::{
    Action, ClusterPolicy, ClusterRule, Namespaces, Peer, PortMatch, PortNumbers, Rule, Tier,
};
use model::{Cluster, Direction, Key, LabelSelector, NetworkPolicy, Pod};

use super::{End, Question, Reason};

/// What the policies of one end say about a connection: the client's about egress, the server's
/// about ingress.
pub(super) fn judge(cluster: &Cluster, question: &Question, direction: Direction) -> Reason {
    let (subject, other) = match direction {
        Direction::Egress => (&question.from, &question.to),
        Direction::Ingress => (&question.to, &question.from),
    };
    let Some(key) = &subject.pod else {
        return Reason::NotAPod;
    };
    if other.pod.as_ref() == Some(key) {
        return Reason::Itself;
    }
    if direction == Direction::Ingress && is_own_node(subject, other) {
        return Reason::OwnNode;
    }
    let Some(pod) = cluster.pods.get(key) else {
        return not_known(cluster, &key.0, direction);
    };
    if pod.host_network {
        return Reason::NotAPod;
    }
    let side = Sided {
        cluster,
        pod,
        other,
        question,
        direction,
    };
    side.of_tier(Tier::Admin)
        .or_else(|| side.of_network_policies())
        .or_else(|| side.of_tier(Tier::Baseline))
        .unwrap_or(Reason::Nothing)
}

/// From the node that a pod is on, and not from one of its pods.
fn is_own_node(pod: &End, other: &End) -> bool {
    other.pod.is_none() && other.node.is_some() && other.node == pod.node
}

/// Of a pod that no object describes: closed where any policy may turn out to be about it.
fn not_known(cluster: &Cluster, namespace: &str, direction: Direction) -> Reason {
    let own = cluster
        .policies
        .values()
        .filter(|policy| policy.namespace == namespace && policy.rules(direction).is_some());
    let everywhere = cluster
        .cluster_policies
        .values()
        .filter(|policy| !policy.rules(direction).is_empty())
        .map(|policy| (String::new(), policy.name.clone()));
    let mut by: Vec<Key> = everywhere.chain(own.map(|policy| policy.key())).collect();
    by.sort();
    if by.is_empty() {
        return Reason::Nothing;
    }
    Reason::NotKnown { by }
}

/// A connection as one of its ends sees it.
struct Sided<'a> {
    cluster: &'a Cluster,
    /// The end that is judged.
    pod: &'a Pod,
    /// The other end.
    other: &'a End,
    question: &'a Question,
    direction: Direction,
}

impl Sided<'_> {
    /// What the ClusterNetworkPolicies of a tier say; nothing where none of their rules matches,
    /// or the first that does passes.
    fn of_tier(&self, tier: Tier) -> Option<Reason> {
        for policy in in_order(self.cluster, tier) {
            if !is_subject(self.cluster, policy, self.pod) {
                continue;
            }
            let rules = policy.rules(self.direction).iter().enumerate();
            for (index, ClusterRule { action, rule, .. }) in rules {
                // A ClusterNetworkPolicy has no namespace of its own to speak of.
                if !self.matches(rule, "") {
                    continue;
                }
                if *action == Action::Pass {
                    return None;
                }
                return Some(Reason::Cluster {
                    tier,
                    policy: policy.name.clone(),
                    rule: index,
                    action: *action,
                });
            }
        }
        None
    }

    /// What the pod's NetworkPolicies say; nothing where none is about it in this direction.
    fn of_network_policies(&self) -> Option<Reason> {
        let mut by = Vec::new();
        for policy in selecting(self.cluster, self.pod) {
            let Some(rules) = policy.rules(self.direction) else {
                continue;
            };
            let rule = rules
                .iter()
                .position(|rule| self.matches(rule, &policy.namespace));
            if let Some(rule) = rule {
                let policy = policy.key();
                return Some(Reason::Rule { policy, rule });
            }
            by.push(policy.key());
        }
        (!by.is_empty()).then_some(Reason::Isolated { by })
    }

    /// Both the peer and the port.
    fn matches(&self, rule: &Rule, namespace: &str) -> bool {
        let question = self.question;
        peer_fits(self.cluster, rule, namespace, self.other)
            && port_fits(self.cluster, rule, question)
    }
}

/// The ClusterNetworkPolicies of a tier, in the order in which they are asked.
pub(super) fn in_order(cluster: &Cluster, tier: Tier) -> Vec<&ClusterPolicy> {
    let all = cluster.cluster_policies.values().map(|policy| &**policy);
    let mut all: Vec<&ClusterPolicy> = all.filter(|policy| policy.tier == tier).collect();
    all.sort_by_key(|policy| (policy.priority, &policy.name));
    all
}

/// The NetworkPolicies that select a pod, in the order of their names.
pub(super) fn selecting<'a>(
    cluster: &'a Cluster,
    pod: &'a Pod,
) -> impl Iterator<Item = &'a NetworkPolicy> {
    let from = (pod.namespace.clone(), String::new());
    let own = cluster.policies.range(from..).map(|(_, policy)| &**policy);
    own.take_while(|policy| policy.namespace == pod.namespace)
        .filter(|policy| policy.pods.matches(&pod.labels))
}

/// Whether a ClusterNetworkPolicy is about a pod.
pub(super) fn is_subject(cluster: &Cluster, policy: &ClusterPolicy, pod: &Pod) -> bool {
    !pod.host_network
        && in_namespace(cluster, &policy.namespaces, &pod.namespace)
        && policy.pods.matches(&pod.labels)
}

/// Whether a selector selects a namespace; one that is not known is selected by none.
pub(super) fn in_namespace(cluster: &Cluster, selector: &LabelSelector, name: &str) -> bool {
    let namespace = cluster.namespaces.get(name);
    namespace.is_some_and(|namespace| selector.matches(&namespace.labels))
}

/// Whether the other end is one of a rule's peers; `namespace` is that of the policy.
pub(super) fn peer_fits(cluster: &Cluster, rule: &Rule, namespace: &str, other: &End) -> bool {
    let Some(peers) = &rule.peers else {
        return true;
    };
    peers
        .iter()
        .any(|peer| is_peer(cluster, peer, namespace, other))
}

/// Whether an end is a peer.
pub(super) fn is_peer(cluster: &Cluster, peer: &Peer, namespace: &str, other: &End) -> bool {
    match peer {
        Peer::Pods { namespaces, pods } => {
            let Some(pod) = pod_of(cluster, other) else {
                return false;
            };
            let fits = match namespaces {
                Namespaces::Own => pod.namespace == namespace,
                Namespaces::Selected(selector) => in_namespace(cluster, selector, &pod.namespace),
            };
            fits && pods.matches(&pod.labels)
        }
        Peer::Block { net, except } => {
            net.contains(&other.ip) && !except.iter().any(|hole| hole.contains(&other.ip))
        }
        Peer::Nodes(selector) => {
            let node = other.node.as_ref().filter(|_| other.pod.is_none());
            let node = node.and_then(|name| cluster.nodes.get(name));
            node.is_some_and(|node| {
                node.addresses.contains(&other.ip) && selector.matches(&node.labels)
            })
        }
    }
}

/// Whether a rule is about what the connection is opened to.
pub(super) fn port_fits(cluster: &Cluster, rule: &Rule, question: &Question) -> bool {
    let Some(ports) = &rule.ports else {
        return true;
    };
    ports.iter().any(|port| is_port(cluster, port, question))
}

fn is_port(cluster: &Cluster, wanted: &PortMatch, question: &Question) -> bool {
    // What has no ports is matched by rules without ports only.
    let Some((protocol, number)) = question.port else {
        return false;
    };
    if wanted.protocol.is_some_and(|wanted| wanted != protocol) {
        return false;
    }
    match &wanted.port {
        PortNumbers::Any => true,
        PortNumbers::Range(first, last) => (*first..=*last).contains(&number),
        // Names are those of the pod connected to, whichever side is judged.
        PortNumbers::Named(name) => pod_of(cluster, &question.to).is_some_and(|pod| {
            let mut ports = pod.ports.iter();
            ports.any(|port| {
                *port.name == **name && port.protocol == protocol && port.port == number
            })
        }),
    }
}

/// The pod that an end is, where it has its address for itself.
fn pod_of<'a>(cluster: &'a Cluster, end: &End) -> Option<&'a Pod> {
    let pod = cluster.pods.get(end.pod.as_ref()?)?;
    Some(&**pod).filter(|pod| !pod.host_network)
}
