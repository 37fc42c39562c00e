//! `topologySpreadConstraints`: how evenly pods lie over zones, nodes, ...

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;

use super::filter::{Refusal, wants_node};
use super::snapshot::{PodInfo, Snapshot};
use super::{selector, taints};
use crate::controllers::pods::is_terminating;

struct Constraint {
    key: String,
    max_skew: i64,
    hard: bool,
    own: i64,
    /// Matching pods by value of the key.
    counts: BTreeMap<String, i64>,
    least: i64,
}

/// The pod's constraints, counted over the cluster.
pub struct Spreading {
    constraints: Vec<Constraint>,
}

impl Spreading {
    /// Counts for `pod`.
    pub fn new(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let spec = pod.pod.spec.as_ref();
        let stated = spec.and_then(|s| s.topology_spread_constraints.as_ref());
        let stated: Vec<_> = stated.into_iter().flatten().collect();
        let hard_keys: Vec<&str> = stated
            .iter()
            .filter(|c| c.when_unsatisfiable == "DoNotSchedule")
            .map(|c| c.topology_key.as_str())
            .collect();
        let constraints = stated
            .iter()
            .map(|constraint| count(constraint, &hard_keys, &pod.pod, snapshot))
            .collect();
        Self { constraints }
    }

    /// Why the node will not do.
    pub fn refuse(&self, node: &Node) -> Option<Refusal> {
        for constraint in self.constraints.iter().filter(|c| c.hard) {
            let Some(value) = node.labels().get(&constraint.key) else {
                return Some(Refusal {
                    unresolvable: true,
                    ..Refusal::now(
                        "node(s) didn't match pod topology spread constraints (missing required label)",
                    )
                });
            };
            let here = constraint.counts.get(value).copied().unwrap_or(0);
            if here + constraint.own - constraint.least > constraint.max_skew {
                return Some(Refusal::now(
                    "node(s) didn't match pod topology spread constraints",
                ));
            }
        }
        None
    }

    /// How crowded the node would be by the constraints that only wish; None where there
    /// are none.
    pub fn crowd(&self, node: &Node) -> Option<i64> {
        let mut soft = self.constraints.iter().filter(|c| !c.hard).peekable();
        soft.peek()?;
        let crowd = |c: &Constraint| {
            let value = node.labels().get(&c.key);
            // A node without the label lies outside: worse than the fullest.
            let fullest = || c.counts.values().max().copied().unwrap_or(0) + 1;
            value.map_or_else(fullest, |v| c.counts.get(v).copied().unwrap_or(0))
        };
        Some(soft.map(crowd).sum())
    }
}

fn count(
    constraint: &TopologySpreadConstraint,
    hard_keys: &[&str],
    pod: &Pod,
    snapshot: &Snapshot,
) -> Constraint {
    let hard = constraint.when_unsatisfiable == "DoNotSchedule";
    let wanted = with_label_keys(constraint, pod);
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for (node, info) in snapshot.nodes() {
        if !counts_node(constraint, hard_keys, pod, node) {
            continue;
        }
        let Some(value) = node.labels().get(&constraint.topology_key) else {
            continue;
        };
        let matching = info.pods.values().filter(|other| {
            other.pod.metadata.namespace == pod.metadata.namespace
                && !is_terminating(&other.pod)
                && wanted
                    .as_ref()
                    .is_some_and(|w| selector::matches(w, other.pod.labels()))
        });
        let matching = i64::try_from(matching.count()).unwrap_or(i64::MAX);
        *counts.entry(value.clone()).or_default() += matching;
    }
    let domains = i32::try_from(counts.len()).unwrap_or(i32::MAX);
    let too_few = domains < constraint.min_domains.unwrap_or(1);
    let least = if too_few {
        0
    } else {
        counts.values().min().copied().unwrap_or(0)
    };
    let own = wanted
        .as_ref()
        .is_some_and(|w| selector::matches(w, pod.labels()));
    Constraint {
        key: constraint.topology_key.clone(),
        max_skew: i64::from(constraint.max_skew),
        hard,
        own: i64::from(own),
        counts,
        least,
    }
}

fn counts_node(
    constraint: &TopologySpreadConstraint,
    hard_keys: &[&str],
    pod: &Pod,
    node: &Node,
) -> bool {
    let has_keys = hard_keys.iter().all(|key| node.labels().contains_key(*key));
    let affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let honors_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    let spec = pod.spec.as_ref();
    let tolerations = spec
        .and_then(|s| s.tolerations.as_deref())
        .unwrap_or_default();
    let node_taints = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.as_deref())
        .unwrap_or_default();
    has_keys
        && (!affinity || wants_node(pod, node))
        && (!honors_taints
            || taints::untolerated(node_taints, tolerations, &["NoSchedule", "NoExecute"])
                .is_none())
}

/// The selector with `matchLabelKeys` taken from the pod's own labels.
fn with_label_keys(constraint: &TopologySpreadConstraint, pod: &Pod) -> Option<LabelSelector> {
    let mut wanted = constraint.label_selector.clone()?;
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.labels().get(key) {
            let labels = wanted.match_labels.get_or_insert_default();
            labels.insert(key.clone(), value.clone());
        }
    }
    Some(wanted)
}
