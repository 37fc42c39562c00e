//! Pod affinity and anti-affinity: near which pods, far from which.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm};
use kube::ResourceExt;

use super::filter::Refusal;
use super::selector;
use super::snapshot::{PodInfo, Snapshot, required_anti_affinity};

/// Labels of namespaces by name, for `namespaceSelector`.
pub type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

type Domain = (String, String);

/// What the pod's terms, and those of others about it, say of each place.
#[derive(Default)]
pub struct Affinities {
    /// Places every one of which has a pod the term wants.
    near: Vec<(String, BTreeSet<String>)>,
    /// True where no pod anywhere matches the terms, and the pod itself does: the first
    /// of a group that wants to be together may go anywhere.
    first_of_group: bool,
    /// Places with a pod that this one avoids.
    avoided: BTreeSet<Domain>,
    /// Places where a pod avoids this one.
    forbidden: BTreeSet<Domain>,
    /// Wishes: weight by place.
    wishes: BTreeMap<Domain, i64>,
}

impl Affinities {
    /// Works out what `pod` wants of the cluster.
    pub fn new(pod: &PodInfo, snapshot: &Snapshot, namespaces: &NamespaceLabels) -> Self {
        let mut result = Self::default();
        let pod = pod.pod.as_ref();
        for (other, node) in snapshot.repelling() {
            for term in required_anti_affinity(other) {
                if means(term, other, pod, namespaces)
                    && let Some(value) = node.labels().get(&term.topology_key)
                {
                    result
                        .forbidden
                        .insert((term.topology_key.clone(), value.clone()));
                }
            }
        }
        let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        let Some(affinity) = affinity else {
            return result;
        };
        let near = affinity.pod_affinity.as_ref();
        let required = near.and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let terms: Vec<&PodAffinityTerm> = required.into_iter().flatten().collect();
        for term in &terms {
            let places = places(term, pod, snapshot, namespaces);
            result
                .near
                .push((term.topology_key.clone(), places.into_keys().collect()));
        }
        result.first_of_group = result.near.iter().all(|(_, places)| places.is_empty())
            && terms.iter().all(|term| means(term, pod, pod, namespaces));
        for term in required_anti_affinity(pod) {
            let places = places(term, pod, snapshot, namespaces);
            let key = &term.topology_key;
            result
                .avoided
                .extend(places.into_keys().map(|value| (key.clone(), value)));
        }
        let wished = near.and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let unwished = affinity.pod_anti_affinity.as_ref().and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
        for (terms, sign) in [(wished, 1), (unwished, -1)] {
            for weighted in terms.into_iter().flatten() {
                let term = &weighted.pod_affinity_term;
                for (value, count) in places(term, pod, snapshot, namespaces) {
                    let wish = result.wishes.entry((term.topology_key.clone(), value));
                    *wish.or_default() += sign * i64::from(weighted.weight) * count;
                }
            }
        }
        result
    }

    /// Why the node will not do.
    pub fn refuse(&self, node: &Node) -> Option<Refusal> {
        let labels = node.labels();
        let is_in = |places: &BTreeSet<Domain>| {
            let mut domains = places.iter();
            domains.any(|(key, value)| labels.get(key) == Some(value))
        };
        let near = self.near.iter().all(|(key, places)| {
            let value = labels.get(key);
            value.is_some_and(|value| self.first_of_group || places.contains(value))
        });
        if !near {
            return Some(Refusal {
                unresolvable: true,
                ..Refusal::now("node(s) didn't match pod affinity rules")
            });
        }
        if is_in(&self.avoided) {
            return Some(Refusal::now("node(s) didn't match pod anti-affinity rules"));
        }
        is_in(&self.forbidden)
            .then(|| Refusal::now("node(s) didn't satisfy existing pods anti-affinity rules"))
    }

    /// How much the pod would like the node; None where it has no wishes.
    pub fn wish(&self, node: &Node) -> Option<i64> {
        if self.wishes.is_empty() {
            return None;
        }
        let met = self
            .wishes
            .iter()
            .filter(|((key, value), _)| node.labels().get(key) == Some(value));
        Some(met.map(|(_, weight)| weight).sum())
    }
}

/// Values of the term's key where pods that it means run, with how many.
fn places(
    term: &PodAffinityTerm,
    pod: &Pod,
    snapshot: &Snapshot,
    namespaces: &NamespaceLabels,
) -> BTreeMap<String, i64> {
    let mut places = BTreeMap::new();
    for (node, info) in snapshot.nodes() {
        let Some(value) = node.labels().get(&term.topology_key) else {
            continue;
        };
        let meant = info.pods.values();
        let meant = meant
            .filter(|other| means(term, pod, &other.pod, namespaces))
            .count();
        if meant > 0 {
            *places.entry(value.clone()).or_default() += i64::try_from(meant).unwrap_or(i64::MAX);
        }
    }
    places
}

/// True where the term of `owner` means `other`.
fn means(term: &PodAffinityTerm, owner: &Pod, other: &Pod, namespaces: &NamespaceLabels) -> bool {
    let Some(wanted) = &term.label_selector else {
        return false;
    };
    let namespace = other.metadata.namespace.as_deref().unwrap_or("");
    let named = term.namespaces.as_deref().unwrap_or_default();
    let listed = named.iter().any(|name| name == namespace);
    let selected = term.namespace_selector.as_ref().is_some_and(|wanted| {
        let none = BTreeMap::new();
        selector::matches(wanted, namespaces.get(namespace).unwrap_or(&none))
    });
    let own = named.is_empty()
        && term.namespace_selector.is_none()
        && owner.metadata.namespace == other.metadata.namespace;
    let same = |keys: &Option<Vec<String>>, equal: bool| {
        keys.iter().flatten().all(|key| {
            let value = owner.labels().get(key);
            value.is_none() || (value == other.labels().get(key)) == equal
        })
    };
    (listed || selected || own)
        && selector::matches(wanted, other.labels())
        && same(&term.match_label_keys, true)
        && same(&term.mismatch_label_keys, false)
}
