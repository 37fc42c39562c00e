//! What would have to change for a denied connection: which rules came near, and what to add.

use model::policy::{Peer, Rule};
use model::{Cluster, Direction, Key, LabelSelector, Labels, Pod, Protocol};
use serde::{Deserialize, Serialize};

use super::{End, Question, Reason, Side, judge, words};

/// How a connection that one side denies could be let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cure {
    /// Rules that match it but for the peer, or but for the port.
    pub near: Vec<Near>,
    /// What to write, and where.
    pub add: String,
}

/// A rule that came near.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Near {
    /// The NetworkPolicy it is of.
    pub policy: Key,
    /// Its field, for example `spec.ingress[0].ports`.
    pub field: String,
    /// What is there, and what the connection has.
    pub message: String,
}

/// Labels that controllers write: they name one pod or one revision, nobody selects by them.
const GENERATED: &[&str] = &[
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "controller-uid",
];

/// Labels that say best what a pod is.
const TELLING: &[&str] = &["app", "app.kubernetes.io/name", "k8s-app", "name", "run"];

/// What would have to change; nothing where the side allows the connection.
pub fn cure(
    cluster: &Cluster,
    question: &Question,
    direction: Direction,
    side: &Side,
) -> Option<Cure> {
    if side.allowed {
        return None;
    }
    let word = direction.word();
    match &side.reason {
        Reason::Isolated { by } => {
            let near = near(cluster, question, direction, by);
            let add = add(cluster, question, direction, by, &near);
            Some(Cure { near, add })
        }
        Reason::Cluster {
            policy, rule, tier, ..
        } => {
            let priority = cluster
                .cluster_policies
                .get(policy)
                .map_or(0, |p| p.priority);
            let add = format!(
                "put a rule with action Accept or Pass before spec.{word}[{rule}] of ClusterNetworkPolicy {policy}, or into one of tier {} with a priority below {priority}",
                words::tier(*tier),
            );
            Some(Cure {
                near: Vec::new(),
                add,
            })
        }
        Reason::NotKnown { .. } => Some(Cure {
            near: Vec::new(),
            add: "wait until the API server has told the node of the pod".into(),
        }),
        _ => None,
    }
}

/// The rules of these policies that fail by one thing only.
fn near(cluster: &Cluster, question: &Question, direction: Direction, by: &[Key]) -> Vec<Near> {
    let other = other(question, direction);
    let mut near = Vec::new();
    for (key, index, rule) in rules(cluster, direction, by) {
        let fits = judge::peer_fits(cluster, rule, &key.0, other);
        let port = judge::port_fits(cluster, rule, question);
        let field = format!("spec.{}[{index}]", direction.word());
        let found = match (fits, port) {
            (true, false) => Some((
                format!("{field}.ports"),
                format!(
                    "is about {}, but only on {}, not on {}",
                    words::end(other),
                    words::ports(rule.ports.as_deref()),
                    words::asked(question.port),
                ),
            )),
            (false, true) => Some((
                format!("{field}.{}", list_field(direction)),
                format!(
                    "is about {}, but {}",
                    words::asked(question.port),
                    unlike(cluster, rule, &key.0, other)
                ),
            )),
            _ => None,
        };
        near.extend(found.map(|(field, message)| Near {
            policy: key.clone(),
            field,
            message,
        }));
    }
    near
}

fn rules<'a>(
    cluster: &'a Cluster,
    direction: Direction,
    by: &'a [Key],
) -> impl Iterator<Item = (&'a Key, usize, &'a Rule)> {
    by.iter().flat_map(move |key| {
        let policy = cluster.policies.get(key);
        let rules = policy.and_then(|policy| policy.rules(direction));
        let rules = rules.unwrap_or_default().iter().enumerate();
        rules.map(move |(index, rule)| (key, index, rule))
    })
}

fn other(question: &Question, direction: Direction) -> &End {
    match direction {
        Direction::Egress => &question.to,
        Direction::Ingress => &question.from,
    }
}

fn list_field(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "to",
        Direction::Ingress => "from",
    }
}

/// Why none of a rule's peers is this end.
fn unlike(cluster: &Cluster, rule: &Rule, namespace: &str, other: &End) -> String {
    let wanted = words::peers(rule.peers.as_deref(), namespace);
    let only = format!("only for {wanted}");
    let pod = other.pod.as_ref().and_then(|key| cluster.pods.get(key));
    let selects_pods = rule
        .peers
        .iter()
        .flatten()
        .any(|peer| matches!(peer, Peer::Pods { .. }));
    match (pod, &other.node) {
        (Some(pod), _) => format!("{only}; {}", has(cluster, pod, namespace)),
        (None, Some(_)) if selects_pods => format!(
            "{only}; {} is a node's address (its hostNetwork pods too), which selectors of pods never match: an ipBlock does",
            other.ip
        ),
        (None, None) if selects_pods => {
            format!("{only}; no pod has {}: an ipBlock matches it", other.ip)
        }
        _ => format!("{only}; it is {}", other.ip),
    }
}

/// What a pod, and its namespace where that is another, has to be selected by.
fn has(cluster: &Cluster, pod: &Pod, namespace: &str) -> String {
    let labels = |labels: &Labels| {
        let all: Vec<String> = telling(labels).map(|(k, v)| format!("{k}={v}")).collect();
        match all.is_empty() {
            true => "no labels".into(),
            false => all.join(","),
        }
    };
    let mut text = format!(
        "pod {}/{} has {}",
        pod.namespace,
        pod.name,
        labels(&pod.labels)
    );
    if pod.namespace != namespace {
        let own = cluster.namespaces.get(&pod.namespace);
        let own = own.map_or_else(|| "no labels".into(), |own| labels(&own.labels));
        text.push_str(&format!(", its namespace {own}"));
    }
    text
}

fn telling(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    labels.iter().filter(|(key, _)| !GENERATED.contains(key))
}

/// What to write, and where: a port into a rule that is about the peer already, else a rule of
/// its own.
fn add(
    cluster: &Cluster,
    question: &Question,
    direction: Direction,
    by: &[Key],
    near: &[Near],
) -> String {
    let port = question
        .port
        .map(|(protocol, number)| port_yaml(protocol, number));
    let nearly = near.iter().find(|near| near.field.ends_with(".ports"));
    if let (Some(near), Some(port)) = (nearly, &port) {
        let policy = words::key(&near.policy);
        return format!("add {port} to {} of NetworkPolicy {policy}", near.field);
    }
    let subject = match direction {
        Direction::Egress => &question.from,
        Direction::Ingress => &question.to,
    };
    let pod = subject.pod.as_ref().and_then(|key| cluster.pods.get(key));
    let namespace = pod.map_or("", |pod| pod.namespace.as_str());
    let peer = peer_yaml(cluster, other(question, direction), namespace);
    let ports = port
        .map(|port| format!(", ports: [{port}]"))
        .unwrap_or_default();
    let rule = format!("{{{}: [{peer}]{ports}}}", list_field(direction));
    let word = direction.word();
    // A policy about just this pod's kind takes another rule; one about more would open too much.
    let own = by.iter().find(|key| {
        let policy = cluster.policies.get(*key);
        policy.is_some_and(|policy| policy.pods != LabelSelector::default())
    });
    match (own, pod) {
        (Some(own), _) => format!(
            "add {rule} to spec.{word} of NetworkPolicy {}",
            words::key(own)
        ),
        (None, Some(pod)) => {
            let kind = if direction == Direction::Egress {
                "Egress"
            } else {
                "Ingress"
            };
            format!(
                "write a NetworkPolicy in namespace {namespace} with podSelector: {}, policyTypes: [{kind}] and {word}: [{rule}]",
                selector_yaml(&pod.labels)
            )
        }
        (None, None) => format!("add {rule} to spec.{word} of one of them"),
    }
}

fn port_yaml(protocol: Protocol, number: u16) -> String {
    format!("{{protocol: {protocol}, port: {number}}}")
}

/// A peer that is this end, as a manifest has it.
fn peer_yaml(cluster: &Cluster, end: &End, namespace: &str) -> String {
    let pod = end.pod.as_ref().and_then(|key| cluster.pods.get(key));
    let Some(pod) = pod else {
        let length = if end.ip.is_ipv6() { 128 } else { 32 };
        return format!("{{ipBlock: {{cidr: {}/{length}}}}}", end.ip);
    };
    let pods = format!("podSelector: {}", selector_yaml(&pod.labels));
    if pod.namespace == namespace {
        return format!("{{{pods}}}");
    }
    format!(
        "{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {}}}}}, {pods}}}",
        pod.namespace
    )
}

/// A selector of pods of this kind.
fn selector_yaml(labels: &Labels) -> String {
    let best = TELLING
        .iter()
        .find_map(|key| Some((*key, labels.get(key)?)));
    let all: Vec<(&str, &str)> = match best {
        Some(best) => vec![best],
        None => telling(labels).collect(),
    };
    if all.is_empty() {
        return "{}".into();
    }
    let all: Vec<String> = all
        .iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    format!("{{matchLabels: {{{}}}}}", all.join(", "))
}
