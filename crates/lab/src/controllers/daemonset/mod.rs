//! DaemonSet: one pod on every node that will have it.

mod update;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::events::{Severity, reference};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::action::{Action, Plan, Step};
use super::driver::Controller;
use super::pods::{self, Availability};
use super::revision::{self, HASH, History};
use super::store::Key;
use super::world::{Changed, Kind, World, node_of};
use crate::scheduler::{taints, wants_node};

const GENERATION: &str = "pod-template-generation";

/// The DaemonSet controller.
pub struct DaemonSets;

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn affected(&mut self, world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        match changed {
            Changed::DaemonSet(change) => {
                if let Some(set) = change.any() {
                    mark(Key::of(set.as_ref()));
                }
            }
            Changed::ControllerRevision(change) => {
                for revision in change.both() {
                    if let Some(owner) = pods::controller_of(&revision.metadata)
                        && owner.kind == "DaemonSet"
                    {
                        mark(Key::new(
                            &revision.namespace().unwrap_or_default(),
                            &owner.name,
                        ));
                    }
                }
            }
            Changed::Pod(change) => pods::mark_owners(
                change,
                |namespace| world.daemon_sets.within(namespace).collect(),
                |set: &DaemonSet| set.spec.as_ref().map(|spec| &spec.selector),
                mark,
            ),
            Changed::Node(change) => {
                let matters = |node: &Node| {
                    let taints = node.spec.as_ref().and_then(|s| s.taints.clone());
                    (node.metadata.labels.clone(), taints)
                };
                let old = change.old.as_deref().map(matters);
                if old != change.new.as_deref().map(matters) {
                    for set in world.daemon_sets.iter() {
                        mark(Key::of(set.as_ref()));
                    }
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, world: &World, key: &Key, now: Timestamp) -> Plan {
        match world.daemon_sets.at(key) {
            Some(set) => plan(world, set, now),
            None => Plan::default(),
        }
    }
}

/// Whether the set wants a pod on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Yes.
    Run,
    /// One that is there may stay.
    Stay,
    /// No.
    Leave,
}

/// One node as the set sees it.
struct Place<'a> {
    node: &'a Arc<Node>,
    wish: Wish,
    pods: Vec<Arc<Pod>>,
}

/// What to do about one DaemonSet.
pub fn plan(world: &World, set: &DaemonSet, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let claimed = pods::claim(world, set, &spec.selector);
    if !claimed.actions.is_empty() {
        plan.steps.push(Step::Each(claimed.actions));
        return plan;
    }
    let collisions = set.status.as_ref().and_then(|s| s.collision_count);
    let mut history = revision::of(world, set, &spec.template, collisions);
    if let Some(action) = history.action.take() {
        plan.push(action);
    }
    let pattern = template_pod(set, &history);
    let places = places(world, &pattern, claimed.pods);
    let status = status(set, &places, &history, now, &mut plan);
    let write = Action::status(Kind::DaemonSet, &Key::of(set), set.status.as_ref(), &status);
    plan.push_some(write);
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let before = plan.steps.len();
    manage(set, &pattern, &places, &history, now, &mut plan);
    if plan.steps.len() == before {
        update::roll(set, &pattern, &places, &history, now, &mut plan);
    }
    let limit = spec.revision_history_limit.unwrap_or(10);
    let is_live = |revision: &k8s_openapi::api::apps::v1::ControllerRevision| {
        let hash = revision.labels().get(HASH);
        let mut pods = places.iter().flat_map(|place| &place.pods);
        pods.any(|pod| pod.labels().get(HASH) == hash)
    };
    for action in history.forget(limit, is_live) {
        plan.push(action);
    }
    plan
}

/// The pod of the template, for no node yet.
fn template_pod(set: &DaemonSet, history: &History) -> Pod {
    let template = set
        .spec
        .as_ref()
        .map(|s| s.template.clone())
        .unwrap_or_default();
    let mut pod = pods::from_template(&template, set);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), history.hash.clone());
    let generation = set.metadata.generation.unwrap_or(1);
    labels.insert(GENERATION.to_owned(), generation.to_string());
    let spec = pod.spec.get_or_insert_default();
    let host_network = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    let mut tolerate = |key: &str, effect: &str| {
        let toleration = Toleration {
            key: Some(format!("node.kubernetes.io/{key}")),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    };
    for key in ["not-ready", "unreachable"] {
        tolerate(key, "NoExecute");
    }
    for key in [
        "disk-pressure",
        "memory-pressure",
        "pid-pressure",
        "unschedulable",
    ] {
        tolerate(key, "NoSchedule");
    }
    if host_network {
        tolerate("network-unavailable", "NoSchedule");
    }
    pod
}

/// The pattern bound to a node by its name; the scheduler does the rest.
fn pod_for(pattern: &Pod, node: &Node) -> Pod {
    let mut pod = pattern.clone();
    let spec = pod.spec.get_or_insert_default();
    let affinity = spec.affinity.get_or_insert_default();
    let affinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.name_any()]),
            }]),
            match_expressions: None,
        }],
    });
    pod
}

/// The node a pod is on, or is meant for.
fn target(pod: &Pod) -> Option<String> {
    if !node_of(pod).is_empty() {
        return Some(node_of(pod).to_owned());
    }
    let affinity = pod
        .spec
        .as_ref()?
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let mut fields = required
        .node_selector_terms
        .iter()
        .flat_map(|term| term.match_fields.iter().flatten());
    fields
        .find(|f| f.key == "metadata.name")?
        .values
        .as_ref()?
        .first()
        .cloned()
}

fn places<'a>(world: &'a World, pattern: &Pod, pods: Vec<Arc<Pod>>) -> Vec<Place<'a>> {
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        by_node
            .entry(target(&pod).unwrap_or_default())
            .or_default()
            .push(pod);
    }
    let nodes = world.nodes.iter();
    nodes
        .map(|node| Place {
            node,
            wish: wish(pattern, node),
            pods: by_node.remove(&node.name_any()).unwrap_or_default(),
        })
        .collect()
}

fn wish(pattern: &Pod, node: &Node) -> Wish {
    if node.metadata.deletion_timestamp.is_some() || !wants_node(pattern, node) {
        return Wish::Leave;
    }
    let list = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.as_deref())
        .unwrap_or_default();
    let spec = pattern.spec.as_ref();
    let tolerations = spec
        .and_then(|s| s.tolerations.as_deref())
        .unwrap_or_default();
    if taints::untolerated(list, tolerations, &["NoExecute"]).is_some() {
        Wish::Leave
    } else if taints::untolerated(list, tolerations, &["NoSchedule"]).is_some() {
        Wish::Stay
    } else {
        Wish::Run
    }
}

/// Pods where they are missing, none where they should not be, one where there are two.
fn manage(
    set: &DaemonSet,
    pattern: &Pod,
    places: &[Place<'_>],
    history: &History,
    now: Timestamp,
    plan: &mut Plan,
) {
    let on = reference(set);
    let mut deletes = Vec::new();
    let mut creates = Vec::new();
    for place in places {
        let alive: Vec<&Arc<Pod>> = place
            .pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect();
        if place.wish == Wish::Leave {
            deletes.extend(alive.iter().map(|pod| pods::delete(pod, &on)));
            continue;
        }
        let (failed, running): (Vec<_>, Vec<_>) = alive
            .into_iter()
            .partition(|pod| api::convert::is_finished(pod));
        for pod in failed {
            let (reason, word) = match pods::phase(pod) {
                "Failed" => ("FailedDaemonPod", "failed"),
                _ => ("SucceededDaemonPod", "succeeded"),
            };
            let key = Key::of(pod.as_ref());
            plan.push(Action::Event {
                on: on.clone(),
                severity: Severity::Warning,
                reason,
                message: format!(
                    "Found {word} daemon pod {}/{} on node {}, will try to kill it",
                    key.namespace,
                    key.name,
                    place.node.name_any()
                ),
            });
            deletes.push(pods::delete(pod, &on));
        }
        deletes.extend(
            update::superfluous(set, &running, history, now).map(|pod| pods::delete(pod, &on)),
        );
        // Whoever is on its way out has to be gone first.
        if place.wish == Wish::Run && place.pods.is_empty() {
            creates.push(create(set, pattern, place.node));
        }
    }
    if !deletes.is_empty() {
        plan.steps.push(Step::Each(deletes));
    }
    if !creates.is_empty() {
        plan.steps.push(Step::SlowStart(creates));
    }
}

fn create(set: &DaemonSet, pattern: &Pod, node: &Node) -> Action {
    let namespace = set.namespace().unwrap_or_default();
    let pod = pod_for(pattern, node);
    Action::create(Kind::Pod, &namespace, &pod).noted(pods::creation(&reference(set)))
}

fn status(
    set: &DaemonSet,
    places: &[Place<'_>],
    history: &History,
    now: Timestamp,
    plan: &mut Plan,
) -> DaemonSetStatus {
    let min_ready = set
        .spec
        .as_ref()
        .and_then(|s| s.min_ready_seconds)
        .unwrap_or(0);
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: set.status.as_ref().and_then(|s| s.collision_count),
        conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for place in places {
        let pods = || place.pods.iter().filter(|pod| pods::is_active(pod));
        if place.wish != Wish::Run {
            status.number_misscheduled += i32::from(pods().next().is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        // The oldest speaks for the node, as long as it lives.
        let Some(pod) = pods().min_by_key(|pod| pod.creation_timestamp()) else {
            continue;
        };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(pods().any(|pod| pods::is_ready(pod)));
        for pod in pods() {
            if let Availability::From(when) = pods::availability(pod, min_ready, now) {
                plan.again_at(when);
            }
        }
        let yes = |pod: &Arc<Pod>| pods::availability(pod, min_ready, now) == Availability::Yes;
        available += i32::from(pods().any(yes));
        updated += i32::from(pod.labels().get(HASH) == Some(&history.hash));
    }
    status.number_available = Some(available);
    status.number_unavailable = Some(status.desired_number_scheduled - available);
    status.updated_number_scheduled = Some(updated);
    status
}

#[cfg(test)]
mod tests;
