//! Selectors that match nobody, or not those who were meant.

use model::policy::{Namespaces, Peer};
use model::{LabelSelector, Labels, NetworkPolicy, Pod};

use super::{Linter, Placed, Severity, nearest, some_pods};
use crate::explain::words;

/// The label that the API server gives every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl<'a> Linter<'a> {
    /// Whom the policy is about.
    pub(super) fn subjects(&mut self, policy: &NetworkPolicy, all: &[&Pod], chosen: &[&Pod]) {
        let namespace = &policy.namespace;
        if !self.cluster.namespaces.contains_key(namespace) {
            let near = nearest(namespace, self.cluster.namespaces.keys().cloned());
            return self.warn(
                "no-such-namespace",
                "metadata.namespace",
                format!("there is no namespace {namespace}"),
                format!("there are {}", words::list(&near)),
            );
        }
        if all.is_empty() {
            return self.find(
                Severity::Note,
                "namespace-without-pods",
                "metadata.namespace",
                format!("namespace {namespace} has no pods: the policy is about nobody yet"),
                "nothing, if they are still to come; a policy is only about pods of its own namespace",
            );
        }
        let wanted = words::selector(&policy.pods);
        if chosen.is_empty() {
            let near = near_labels(&policy.pods, all.iter().map(|pod| &pod.labels));
            return self.warn(
                "selects-no-pod",
                "spec.podSelector",
                format!("{wanted} matches none of the {} pods of namespace {namespace}: the policy isolates nothing", all.len()),
                near,
            );
        }
        let (host, own): (Vec<&Pod>, Vec<&Pod>) = chosen.iter().partition(|pod| pod.host_network);
        // `{}` means everybody who can be meant.
        if host.is_empty() || (wanted.is_empty() && !own.is_empty()) {
            return;
        }
        let severity = if own.is_empty() {
            Severity::Warning
        } else {
            Severity::Note
        };
        self.find(
            severity,
            "host-network",
            "spec.podSelector",
            format!(
                "{} share the network of their node (hostNetwork): no policy is about them",
                some_pods(&host)
            ),
            "close their ports on the node, or run them without hostNetwork",
        );
    }

    /// Peers that nobody is.
    pub(super) fn peers(&mut self, placed: &Placed<'_>) {
        let peers = placed.rule.peers.as_deref();
        if peers == Some(&[]) {
            self.find(
                Severity::Error,
                "nobody",
                placed.peers_field(),
                "none of its peers is understood, so it is about nobody",
                "see the Events of the policy, and correct it",
            );
        }
        for (index, peer) in peers.unwrap_or_default().iter().enumerate() {
            let field = format!("{}[{index}]", placed.peers_field());
            match peer {
                Peer::Pods { namespaces, pods } => self.pods_peer(&field, peer, namespaces, pods),
                Peer::Nodes(selector) => {
                    let mut nodes = self.cluster.nodes.values();
                    if !nodes.any(|node| selector.matches(&node.labels)) {
                        self.warn(
                            "matches-no-node",
                            format!("{field}.nodes"),
                            format!("{} matches no node", words::selector(selector)),
                            "compare it with: kubectl get nodes --show-labels",
                        );
                    }
                }
                Peer::Block { .. } => {}
            }
        }
    }

    fn pods_peer(
        &mut self,
        field: &str,
        peer: &Peer,
        namespaces: &Namespaces,
        pods: &LabelSelector,
    ) {
        if let Namespaces::Selected(selector) = namespaces {
            let mut all = self.cluster.namespaces.values();
            if !all.any(|namespace| selector.matches(&namespace.labels)) {
                let cure = self.namespace_cure(selector);
                return self.warn(
                    "matches-no-namespace",
                    format!("{field}.namespaceSelector"),
                    format!("{} matches no namespace", words::selector(selector)),
                    cure,
                );
            }
        }
        if !self.selected(peer).is_empty() {
            return;
        }
        let of: Vec<&Pod> = self.selected(&Peer::Pods {
            namespaces: namespaces.clone(),
            pods: LabelSelector::default(),
        });
        // What is told of the policy itself need not be told of each peer.
        let own = *namespaces == Namespaces::Own;
        if (own && of.is_empty()) || self.is_dns(namespaces, pods) {
            return;
        }
        let whose = match namespaces {
            Namespaces::Own => format!("namespace {}", self.object.0),
            Namespaces::Selected(all) if *all == LabelSelector::default() => "any namespace".into(),
            Namespaces::Selected(some) => format!("namespaces with {}", words::selector(some)),
        };
        let mut cure = near_labels(pods, of.iter().map(|pod| &pod.labels));
        // podSelector alone is about the policy's own namespace.
        if own {
            let everywhere = Peer::Pods {
                namespaces: Namespaces::Selected(LabelSelector::default()),
                pods: pods.clone(),
            };
            if let Some(pod) = self.selected(&everywhere).first() {
                cure = format!(
                    "podSelector alone means namespace {}; for {}/{} add to the same item: namespaceSelector: {{matchLabels: {{{NAME_LABEL}: {}}}}}",
                    self.object.0, pod.namespace, pod.name, pod.namespace
                );
            }
        }
        let what = match words::selector(pods) {
            labels if labels.is_empty() => "there is no pod".to_owned(),
            labels => format!("{labels} matches no pod"),
        };
        self.warn(
            "matches-no-pod",
            format!("{field}.podSelector"),
            format!("{what} of {whose}"),
            cure,
        );
    }

    /// The cluster's DNS is selected as it is everywhere, also where none runs.
    fn is_dns(&self, namespaces: &Namespaces, pods: &LabelSelector) -> bool {
        let Namespaces::Selected(selector) = namespaces else {
            return false;
        };
        let system = self.cluster.namespaces.get("kube-system");
        *pods != LabelSelector::default()
            && pods.matches(&Labels::from([("k8s-app", "kube-dns")]))
            && system.is_none_or(|system| selector.matches(&system.labels))
    }

    /// `name: monitoring` is written where namespaces have no such label: their names are in
    /// another one.
    fn namespace_cure(&self, selector: &LabelSelector) -> String {
        let named = selector.match_labels.iter().find_map(|(key, value)| {
            let exists = self.cluster.namespaces.contains_key(value);
            exists.then_some((key, value))
        });
        if let Some((key, name)) = named {
            return format!(
                "namespace {name} exists, without label {key}: write {NAME_LABEL}: {name}, which every namespace has, or kubectl label namespace {name} {key}={name}"
            );
        }
        let all = || self.cluster.namespaces.values().map(|one| &one.labels);
        let unknown = |key: &str| all().all(|labels| labels.get(key).is_none());
        let name = selector.match_labels.get("name");
        if let Some(name) = name.filter(|_| unknown("name")) {
            return format!(
                "no namespace has a label name: for the one called {name} write {NAME_LABEL}: {name}, which every namespace has"
            );
        }
        near_labels(selector, all())
    }

    /// namespaceSelector and podSelector as two items: either, where most often both is meant.
    pub(super) fn and_was_meant(&mut self, placed: &Placed<'_>) {
        let peers = placed.rule.peers.as_deref().unwrap_or_default();
        let nothing = LabelSelector::default();
        let bare_namespaces = peers.iter().find_map(|peer| match peer {
            Peer::Pods {
                namespaces: Namespaces::Selected(some),
                pods,
            } if *pods == nothing => Some(some),
            _ => None,
        });
        let bare_pods = peers.iter().enumerate().find_map(|(at, peer)| match peer {
            Peer::Pods {
                namespaces: Namespaces::Own,
                pods,
            } if *pods != nothing => Some((at, pods)),
            _ => None,
        });
        let (Some(namespaces), Some((at, pods))) = (bare_namespaces, bare_pods) else {
            return;
        };
        let all = match words::selector(namespaces) {
            labels if labels.is_empty() => "every pod of every namespace".to_owned(),
            labels => format!("every pod of namespaces with {labels}"),
        };
        let pods = words::selector(pods);
        self.warn(
            "and-was-meant",
            format!("{}[{at}]", placed.peers_field()),
            format!("two items mean either: {all}, and pods with {pods} of namespace {}", self.object.0),
            format!("for pods with {pods} of those namespaces leave out the `-` before podSelector: one item with both"),
        );
    }
}

/// Labels that are there with the keys a selector wants, the nearest first.
fn near_labels<'l>(selector: &LabelSelector, all: impl Iterator<Item = &'l Labels>) -> String {
    let all: Vec<&Labels> = all.collect();
    let wanted = selector.match_labels.iter();
    let further = selector.match_expressions.iter();
    let keys = wanted.chain(further.map(|one| {
        let value = one.values.first().map_or("", String::as_str);
        (one.key.as_str(), value)
    }));
    let mut parts = Vec::new();
    for (key, value) in keys {
        let values = all
            .iter()
            .filter_map(|labels| labels.get(key))
            .map(str::to_owned);
        let near = nearest(value, values);
        parts.push(if near.is_empty() {
            let keys = all
                .iter()
                .flat_map(|labels| labels.iter().map(|(key, _)| key.to_owned()));
            match nearest(key, keys).as_slice() {
                [] => "nothing, if they are still to come".into(),
                keys => format!("nobody has a label {key}; there are {}", words::list(keys)),
            }
        } else {
            let near: Vec<String> = near.iter().map(|value| format!("{key}={value}")).collect();
            format!("there are {}", words::list(&near))
        });
    }
    if parts.is_empty() {
        return "nothing, if they are still to come".into();
    }
    parts.join("; ")
}
