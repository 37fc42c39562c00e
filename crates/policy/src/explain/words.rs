//! Policies in a user's words: selectors as kubectl writes them, peers, ports, and what decided.

use std::fmt::Write as _;

use model::policy::{Action, Namespaces, Peer, PortMatch, PortNumbers, Tier};
use model::selector::{Operator, Requirement};
use model::{Cluster, Direction, Key, LabelSelector, Protocol};

use super::{End, Question, Reason, Side};

/// `app=web,tier in (a,b),!old`, as kubectl writes selectors; empty for one that selects all.
pub fn selector(selector: &LabelSelector) -> String {
    let equal = selector.match_labels.iter();
    let equal = equal.map(|(key, value)| format!("{key}={value}"));
    let further = selector.match_expressions.iter().map(requirement);
    equal.chain(further).collect::<Vec<_>>().join(",")
}

fn requirement(one: &Requirement) -> String {
    let (key, values) = (&one.key, one.values.join(","));
    match one.operator {
        Operator::In => format!("{key} in ({values})"),
        Operator::NotIn => format!("{key} notin ({values})"),
        Operator::Exists => key.clone(),
        Operator::DoesNotExist => format!("!{key}"),
    }
}

/// A peer in a few words; `namespace` is that of the policy.
pub fn peer(peer: &Peer, namespace: &str) -> String {
    let with = |wanted: &LabelSelector| match selector(wanted) {
        labels if labels.is_empty() => String::new(),
        labels => format!(" with {labels}"),
    };
    match peer {
        Peer::Pods { namespaces, pods } => {
            let whose = match namespaces {
                Namespaces::Own => format!("namespace {namespace}"),
                Namespaces::Selected(all) if with(all).is_empty() => "every namespace".into(),
                Namespaces::Selected(some) => format!("namespaces{}", with(some)),
            };
            format!("pods{} of {whose}", with(pods))
        }
        Peer::Block { net, except } if except.is_empty() => format!("addresses in {net}"),
        Peer::Block { net, except } => {
            let holes: Vec<String> = except.iter().map(ToString::to_string).collect();
            format!("addresses in {net} without {}", holes.join(", "))
        }
        Peer::Nodes(nodes) => format!("nodes{}", with(nodes)),
    }
}

/// Whom a rule is about.
pub fn peers(peers: Option<&[Peer]>, namespace: &str) -> String {
    match peers {
        None => "everybody".into(),
        Some([]) => "nobody".into(),
        Some(all) => {
            let all: Vec<String> = all.iter().map(|one| peer(one, namespace)).collect();
            all.join("; ")
        }
    }
}

/// `TCP 80`, `UDP 1-1023`, `all TCP`, `TCP http`.
pub fn port(port: &PortMatch) -> String {
    let protocol = port.protocol.map_or("port", Protocol::word);
    match &port.port {
        PortNumbers::Any => format!("all {protocol}"),
        PortNumbers::Range(first, last) if first == last => format!("{protocol} {first}"),
        PortNumbers::Range(first, last) => format!("{protocol} {first}-{last}"),
        PortNumbers::Named(name) => format!("{protocol} {name}"),
    }
}

/// Which ports a rule is about.
pub fn ports(ports: Option<&[PortMatch]>) -> String {
    match ports {
        None => "all ports".into(),
        Some([]) => "no port".into(),
        Some(all) => all.iter().map(port).collect::<Vec<_>>().join(", "),
    }
}

/// `pod shop/web`, `node node1`, or the address.
pub fn end(end: &End) -> String {
    match (&end.pod, &end.node) {
        (Some(pod), _) => format!("pod {}", key(pod)),
        (None, Some(node)) => format!("node {node} ({})", end.ip),
        (None, None) => end.ip.to_string(),
    }
}

/// `TCP 5432`, or what has no ports.
pub fn asked(port: Option<(Protocol, u16)>) -> String {
    port.map_or_else(
        || "what has no port (ping)".into(),
        |(protocol, number)| format!("{protocol} {number}"),
    )
}

/// `shop/allow`, or the name of what has no namespace.
pub fn key((namespace, name): &Key) -> String {
    if namespace.is_empty() {
        name.clone()
    } else {
        format!("{namespace}/{name}")
    }
}

/// `a`, `a and b`, `a, b and c`; of more than five how many more.
pub fn list(all: &[String]) -> String {
    match all {
        [] => "nothing".into(),
        [one] => one.clone(),
        [first @ .., last] if all.len() <= 5 => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", all[..4].join(", "), all.len() - 4),
    }
}

/// `Admin` or `Baseline`, as `spec.tier` says it.
pub fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Admin => "Admin",
        Tier::Baseline => "Baseline",
    }
}

/// Why one side lets a connection through or not, in one sentence.
pub fn why(cluster: &Cluster, question: &Question, direction: Direction, side: &Side) -> String {
    let word = direction.word();
    let subject = match direction {
        Direction::Egress => end(&question.from),
        Direction::Ingress => end(&question.to),
    };
    match &side.reason {
        Reason::NotAPod => {
            format!("{subject} is no pod with an address of its own: policies are not about it")
        }
        Reason::OwnNode => {
            format!("{subject} is on that node, and a pod's own node is always let in")
        }
        Reason::Itself => format!("{subject} talks to itself"),
        Reason::Nothing => format!("no policy says anything about {word} of {subject}"),
        Reason::Rule { policy, rule } => {
            format!(
                "NetworkPolicy {} spec.{word}[{rule}] allows it",
                key(policy)
            )
        }
        Reason::Isolated { by } => {
            let by: Vec<String> = by.iter().map(key).collect();
            let (plural, isolate, none) = match by.len() {
                1 => ("y", "isolates", "no rule of it"),
                _ => ("ies", "isolate", "no rule of them"),
            };
            format!(
                "NetworkPolic{plural} {} {isolate} {subject} for {word}, and {none} allows it",
                list(&by)
            )
        }
        Reason::NotKnown { by } => {
            let by: Vec<String> = by.iter().map(key).collect();
            format!(
                "the labels of {subject} are not known yet, and {} may be about it",
                list(&by)
            )
        }
        Reason::Cluster {
            tier: of,
            policy,
            rule,
            action,
        } => {
            let does = match action {
                Action::Accept => "accepts",
                Action::Deny => "denies",
                Action::Pass => "passes",
            };
            let mut text = format!(
                "ClusterNetworkPolicy {policy} (tier {}) spec.{word}[{rule}]",
                tier(*of)
            );
            let named = cluster.cluster_policies.get(policy);
            let named = named.and_then(|policy| policy.rules(direction).get(*rule));
            if let Some(named) = named.filter(|rule| !rule.name.is_empty()) {
                let _ = write!(text, " {:?}", named.name);
            }
            format!("{text} {does} it")
        }
    }
}
