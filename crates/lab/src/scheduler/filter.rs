//! Which nodes a pod may go to, and why not to the others.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};

use super::affinity::Affinities;
use super::snapshot::{NodeInfo, PodInfo};
use super::spread::Spreading;
use super::{selector, taints};

/// Why a node will not do, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reasons.
    pub reasons: Vec<String>,
    /// True where nothing that runs there stands in the way.
    pub unresolvable: bool,
}

impl Refusal {
    /// Nothing that could be moved away helps.
    fn never(reason: impl Into<String>) -> Self {
        Self {
            reasons: vec![reason.into()],
            unresolvable: true,
        }
    }

    /// Other pods are in the way.
    pub fn now(reason: impl Into<String>) -> Self {
        Self {
            reasons: vec![reason.into()],
            unresolvable: false,
        }
    }
}

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What was worked out of the pod and the cluster once, for all nodes.
pub struct Filters<'a> {
    /// The pod.
    pub pod: &'a PodInfo,
    /// Pod affinity and anti-affinity.
    pub affinities: Affinities,
    /// Topology spread constraints.
    pub spreading: Spreading,
}

impl Filters<'_> {
    /// Why the node will not do; None where it will.
    pub fn refuse(&self, node: &Node, info: &NodeInfo) -> Option<Refusal> {
        self.cordoned(node)
            .or_else(|| self.tainted(node))
            .or_else(|| self.selected(node))
            .or_else(|| self.ports(info))
            .or_else(|| self.fits(info))
            .or_else(|| self.spreading.refuse(node))
            .or_else(|| self.affinities.refuse(node))
    }

    fn tolerations(&self) -> &[k8s_openapi::api::core::v1::Toleration] {
        let spec = self.pod.pod.spec.as_ref();
        spec.and_then(|s| s.tolerations.as_deref())
            .unwrap_or_default()
    }

    fn cordoned(&self, node: &Node) -> Option<Refusal> {
        let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
        let taint = Taint {
            key: UNSCHEDULABLE.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        let tolerated = self
            .tolerations()
            .iter()
            .any(|t| taints::tolerates(t, &taint));
        (cordoned && !tolerated).then(|| Refusal::never("node(s) were unschedulable"))
    }

    fn tainted(&self, node: &Node) -> Option<Refusal> {
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref());
        let effects = ["NoSchedule", "NoExecute"];
        let taint = taints::untolerated(taints.unwrap_or_default(), self.tolerations(), &effects)?;
        let value = taint.value.as_deref().unwrap_or("");
        Some(Refusal::never(format!(
            "node(s) had untolerated taint {{{}: {value}}}",
            taint.key
        )))
    }

    fn selected(&self, node: &Node) -> Option<Refusal> {
        (!wants_node(&self.pod.pod, node))
            .then(|| Refusal::never("node(s) didn't match Pod's node affinity/selector"))
    }

    fn ports(&self, info: &NodeInfo) -> Option<Refusal> {
        if self.pod.ports.is_empty() {
            return None;
        }
        let taken = info.pods.values().flat_map(|pod| &pod.ports);
        let mut taken = taken.filter(|taken| self.pod.ports.iter().any(|p| p.conflicts(taken)));
        taken
            .next()
            .map(|_| Refusal::now("node(s) didn't have free ports for the requested pod ports"))
    }

    fn fits(&self, info: &NodeInfo) -> Option<Refusal> {
        let mut reasons = Vec::new();
        let mut unresolvable = false;
        let allowed = info.allocatable.of("pods");
        if i64::try_from(info.pods.len()).unwrap_or(i64::MAX) >= allowed {
            reasons.push("Too many pods".to_owned());
            unresolvable |= allowed == 0;
        }
        for (name, amount) in self.pod.requests.iter() {
            let has = info.allocatable.of(name);
            if amount > 0 && info.requested.of(name).saturating_add(amount) > has {
                reasons.push(format!("Insufficient {name}"));
                unresolvable |= amount > has;
            }
        }
        (!reasons.is_empty()).then_some(Refusal {
            reasons,
            unresolvable,
        })
    }
}

/// True where `nodeSelector` and required node affinity mean the node.
pub fn wants_node(pod: &k8s_openapi::api::core::v1::Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    if let Some(wanted) = &spec.node_selector
        && !selector::contains(labels, wanted)
    {
        return false;
    }
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    required.is_none_or(|required| selector::selects_node(required, node))
}
