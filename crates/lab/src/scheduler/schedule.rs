//! The scheduler as a controller: unscheduled pods in, bindings out.

use std::collections::{BTreeMap, BTreeSet};

use api::Error;
use api::events::{Severity, reference};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use super::{NamespaceLabels, PodInfo, Snapshot, choose};
use crate::controllers::action::{Action, Plan};
use crate::controllers::driver::Controller;
use crate::controllers::pods::phase;
use crate::controllers::store::{Change, Key};
use crate::controllers::world::{Changed, Kind, World, node_of};

/// The scheduler.
#[derive(Default)]
pub struct Scheduler {
    snapshot: Snapshot,
    namespaces: NamespaceLabels,
    /// Pods on their way to a node: bound by us, the watch has not told yet.
    assumed: BTreeMap<Key, String>,
    /// Pods no node will do for now.
    waiting: BTreeSet<Key>,
}

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "default-scheduler"
    }

    fn width(&self) -> usize {
        16
    }

    fn affected(&mut self, world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        match changed {
            Changed::Pod(change) => self.pod(world, change, mark),
            Changed::Node(change) => self.node(change, mark),
            Changed::Namespace(change) => {
                if let Some(namespace) = change.any() {
                    self.namespaces.remove(&namespace.name_any());
                }
                if let Some(namespace) = &change.new {
                    let labels = namespace.labels().clone();
                    self.namespaces.insert(namespace.name_any(), labels);
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, world: &World, key: &Key, now: Timestamp) -> Plan {
        self.waiting.remove(key);
        let Some(pod) = world.pods.at(key) else {
            return Plan::default();
        };
        if !is_ours(pod) || self.assumed.contains_key(key) {
            return Plan::default();
        }
        match choose(&PodInfo::new(pod), &self.snapshot, &self.namespaces) {
            Ok(node) => {
                self.snapshot.place(pod, &node);
                self.assumed.insert(key.clone(), node.clone());
                bind(key, pod, node)
            }
            Err(why) => {
                self.waiting.insert(key.clone());
                unschedulable(key, pod, &why.to_string(), now)
            }
        }
    }

    fn finished(&mut self, key: &Key, failure: Option<&Error>) {
        if failure.is_some() && self.assumed.remove(key).is_some() {
            self.snapshot.remove(key);
        }
    }
}

impl Scheduler {
    fn pod(&mut self, world: &World, change: &Change<Pod>, mark: &mut dyn FnMut(Key)) {
        let Some(any) = change.any() else { return };
        let key = Key::of(any.as_ref());
        let running = change
            .new
            .as_ref()
            .filter(|pod| !api::convert::is_finished(pod));
        match running {
            Some(pod) if !node_of(pod).is_empty() => {
                let is_new = self.assumed.remove(&key).is_none()
                    && change
                        .old
                        .as_ref()
                        .is_none_or(|old| node_of(old).is_empty());
                self.snapshot.place(pod, node_of(pod));
                if is_new {
                    self.wake(mark);
                } else {
                    self.wake_who_look_at_pods(world, mark);
                }
            }
            Some(pod) => {
                let same = change.old.as_ref().is_some_and(|old| {
                    old.spec == pod.spec && old.metadata.labels == pod.metadata.labels
                });
                if is_ours(pod) && !same {
                    mark(key);
                }
            }
            None => {
                self.waiting.remove(&key);
                self.assumed.remove(&key);
                if self.snapshot.remove(&key) {
                    self.wake(mark);
                }
            }
        }
    }

    fn node(&mut self, change: &Change<Node>, mark: &mut dyn FnMut(Key)) {
        match (&change.old, &change.new) {
            (old, Some(new)) => {
                let matters = |node: &Node| {
                    let spec = node.spec.clone().unwrap_or_default();
                    let status = node.status.clone().unwrap_or_default();
                    (
                        spec.taints,
                        spec.unschedulable,
                        status.allocatable,
                        node.metadata.labels.clone(),
                    )
                };
                let changed = old.as_ref().is_none_or(|old| matters(old) != matters(new));
                self.snapshot.set_node(new);
                if changed {
                    self.wake(mark);
                }
            }
            (Some(old), None) => {
                self.snapshot.remove_node(&old.name_any());
                self.wake(mark);
            }
            (None, None) => {}
        }
    }

    /// Tries every waiting pod again.
    fn wake(&mut self, mark: &mut dyn FnMut(Key)) {
        for key in std::mem::take(&mut self.waiting) {
            mark(key);
        }
    }

    /// A pod that started somewhere helps only those that want to be near others, or are
    /// spread by where others are.
    fn wake_who_look_at_pods(&mut self, world: &World, mark: &mut dyn FnMut(Key)) {
        self.waiting.retain(|key| {
            let spec = world.pods.at(key).and_then(|pod| pod.spec.as_ref());
            let looks = spec.is_none_or(|spec| {
                let affinity = spec.affinity.as_ref();
                affinity.is_some_and(|a| a.pod_affinity.is_some())
                    || spec.topology_spread_constraints.is_some()
            });
            if looks {
                mark(key.clone());
            }
            !looks
        });
    }
}

/// True for a pod this scheduler has to find a node for.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    node_of(pod).is_empty()
        && pod.metadata.deletion_timestamp.is_none()
        && !matches!(phase(pod), "Succeeded" | "Failed")
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        && matches!(
            spec.scheduler_name.as_deref(),
            None | Some("" | "default-scheduler")
        )
}

fn bind(key: &Key, pod: &Pod, node: String) -> Plan {
    let mut plan = Plan::default();
    let message = format!(
        "Successfully assigned {}/{} to {node}",
        key.namespace, key.name
    );
    plan.push(Action::Bind {
        key: key.clone(),
        uid: pod.uid().unwrap_or_default(),
        node,
    });
    plan.push(Action::Event {
        on: reference(pod),
        severity: Severity::Normal,
        reason: "Scheduled",
        message,
    });
    plan
}

/// Says on the pod why it waits, once.
fn unschedulable(key: &Key, pod: &Pod, why: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let conditions = pod.status.iter().flat_map(|s| &s.conditions).flatten();
    let known = conditions.into_iter().find(|c| c.type_ == "PodScheduled");
    let known = known.filter(|c| c.status == "False");
    if known.is_some_and(|c| c.message.as_deref() == Some(why)) {
        return plan;
    }
    let since = known.and_then(|c| c.last_transition_time.clone());
    plan.push(Action::Event {
        on: reference(pod),
        severity: Severity::Warning,
        reason: "FailedScheduling",
        message: why.to_owned(),
    });
    plan.push(Action::Patch {
        kind: Kind::Pod,
        key: key.clone(),
        sub: "status",
        strategic: true,
        body: json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": why,
            "lastProbeTime": null,
            "lastTransitionTime": since.unwrap_or(Time(now)),
        }]}}),
    });
    plan
}
