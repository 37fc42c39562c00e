//! Which of the nodes that will do is best, weighted as Kubernetes does by default.

use k8s_openapi::api::core::v1::{Node, Toleration};

use super::filter::Filters;
use super::snapshot::{NodeInfo, PodInfo, load};
use super::{selector, taints};

const BEST: i64 = 100;

/// A node that will do.
pub type Candidate<'a> = (&'a Node, &'a NodeInfo);

/// The best candidate; among equals the emptiest, then the first by name.
pub fn best<'a>(filters: &Filters<'_>, candidates: &[Candidate<'a>]) -> Option<&'a Node> {
    let pod = filters.pod;
    let mut scores: Vec<i64> = candidates.iter().map(|(_, info)| fit(pod, info)).collect();
    let mut weigh = |weight: i64, values: Vec<Option<i64>>, reversed: bool| {
        for (score, value) in scores.iter_mut().zip(normalized(&values, reversed)) {
            *score += weight * value;
        }
    };
    let each = |f: &dyn Fn(&Candidate<'_>) -> Option<i64>| candidates.iter().map(f).collect();
    weigh(3, each(&|(node, _)| Some(untolerated(pod, node))), true);
    weigh(2, each(&|(node, _)| preference(pod, node)), false);
    weigh(
        2,
        each(&|(node, info)| {
            filters
                .spreading
                .crowd(node)
                .or_else(|| siblings(pod, info))
        }),
        true,
    );
    weigh(2, each(&|(node, _)| filters.affinities.wish(node)), false);
    let ranked = candidates.iter().zip(&scores);
    ranked
        .rev()
        .max_by_key(|((_, info), score)| (**score, std::cmp::Reverse(info.pods.len())))
        .map(|((node, _), _)| *node)
}

/// Values from 0 to 100; nothing where there is nothing to tell them apart.
fn normalized(values: &[Option<i64>], reversed: bool) -> Vec<i64> {
    let known = values.iter().flatten();
    let (low, high) = (
        known.clone().min().copied().unwrap_or(0),
        known.max().copied().unwrap_or(0),
    );
    let scale = |value: i64| {
        let part = (value - low) * BEST / (high - low);
        if reversed { BEST - part } else { part }
    };
    values
        .iter()
        .map(|value| match value {
            Some(value) if high > low => scale(*value),
            _ => 0,
        })
        .collect()
}

/// Least used first, and CPU and memory used alike.
fn fit(pod: &PodInfo, info: &NodeInfo) -> i64 {
    let (cpu, memory) = load(pod);
    let free = |used: i64, wanted: i64, has: i64| {
        let rest = has.saturating_sub(used).saturating_sub(wanted).max(0);
        if has > 0 {
            i128::from(rest) * i128::from(BEST) / i128::from(has)
        } else {
            0
        }
    };
    let cpu = free(info.load.0, cpu, info.allocatable.of("cpu"));
    let memory = free(info.load.1, memory, info.allocatable.of("memory"));
    let least = (cpu + memory) / 2;
    let balance = i128::from(BEST) - (cpu - memory).abs() / 2;
    i64::try_from(least + balance).unwrap_or(0)
}

fn untolerated(pod: &PodInfo, node: &Node) -> i64 {
    let spec = pod.pod.spec.as_ref();
    let tolerations: &[Toleration] = spec
        .and_then(|s| s.tolerations.as_deref())
        .unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    let avoided = taints
        .into_iter()
        .flatten()
        .filter(|taint| taint.effect == "PreferNoSchedule")
        .filter(|taint| !tolerations.iter().any(|t| taints::tolerates(t, taint)));
    i64::try_from(avoided.count()).unwrap_or(i64::MAX)
}

fn preference(pod: &PodInfo, node: &Node) -> Option<i64> {
    let affinity = pod
        .pod
        .spec
        .as_ref()?
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?;
    let preferred = affinity
        .preferred_during_scheduling_ignored_during_execution
        .as_ref()?;
    let met = preferred
        .iter()
        .filter(|term| selector::term_selects_node(&term.preference, node));
    Some(met.map(|term| i64::from(term.weight)).sum())
}

/// Pods of the same controller on the node: without constraints of its own, a workload is
/// spread by this.
fn siblings(pod: &PodInfo, info: &NodeInfo) -> Option<i64> {
    let owner = pod.owner.as_ref()?;
    let count = info.owners.get(owner).copied().unwrap_or(0);
    Some(i64::try_from(count).unwrap_or(i64::MAX))
}
