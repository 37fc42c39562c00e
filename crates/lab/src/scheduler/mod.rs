//! The scheduler: which node a pod goes to.

mod affinity;
mod filter;
pub mod resources;
mod schedule;
mod score;
pub mod selector;
pub mod snapshot;
mod spread;
pub mod taints;

use std::collections::BTreeMap;
use std::fmt;

pub use affinity::NamespaceLabels;
pub use filter::wants_node;
pub use schedule::Scheduler;
pub use snapshot::{PodInfo, Snapshot};

use affinity::Affinities;
use filter::{Filters, Refusal};
use spread::Spreading;

/// Why no node will do, as Kubernetes says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    nodes: usize,
    reasons: BTreeMap<String, usize>,
    unresolvable: usize,
}

impl Unschedulable {
    fn add(&mut self, refusal: &Refusal) {
        self.nodes += 1;
        self.unresolvable += usize::from(refusal.unresolvable);
        for reason in &refusal.reasons {
            *self.reasons.entry(reason.clone()).or_default() += 1;
        }
    }
}

fn counted(
    f: &mut fmt::Formatter<'_>,
    parts: impl Iterator<Item = (usize, String)>,
) -> fmt::Result {
    let mut parts: Vec<String> = parts
        .filter(|(count, _)| *count > 0)
        .map(|(count, reason)| format!("{count} {reason}"))
        .collect();
    parts.sort();
    write!(f, ": {}.", parts.join(", "))
}

impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available", self.nodes)?;
        counted(
            f,
            self.reasons
                .iter()
                .map(|(reason, count)| (*count, reason.clone())),
        )?;
        write!(f, " preemption: 0/{} nodes are available", self.nodes)?;
        let preemption = [
            (
                self.unresolvable,
                "Preemption is not helpful for scheduling",
            ),
            (
                self.nodes - self.unresolvable,
                "No preemption victims found for incoming pod",
            ),
        ];
        counted(
            f,
            preemption
                .into_iter()
                .map(|(count, reason)| (count, reason.to_owned())),
        )
    }
}

/// The node `pod` goes to.
pub fn choose(
    pod: &PodInfo,
    snapshot: &Snapshot,
    namespaces: &NamespaceLabels,
) -> Result<String, Unschedulable> {
    let filters = Filters {
        pod,
        affinities: Affinities::new(pod, snapshot, namespaces),
        spreading: Spreading::new(pod, snapshot),
    };
    let mut refused = Unschedulable::default();
    let mut candidates = Vec::new();
    for (node, info) in snapshot.nodes() {
        match filters.refuse(node, info) {
            None => candidates.push((node.as_ref(), info)),
            Some(refusal) => refused.add(&refusal),
        }
    }
    let best = score::best(&filters, &candidates);
    best.and_then(|node| node.metadata.name.clone())
        .ok_or(refused)
}

#[cfg(test)]
mod tests;
