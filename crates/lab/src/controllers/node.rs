//! Node life cycle: who is alive, taints that say so, and pods that have to leave.
//!
//! A node is alive while its Lease is renewed (or its status says something new), seen by
//! our own clock. How long silence is borne is the Lease's own duration: a kubelet that
//! renews often is missed soon.

use std::collections::HashMap;
use std::sync::Arc;

use api::events::{Severity, reference};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::action::{Action, Plan, Step};
use super::driver::Controller;
use super::pods::{is_active, is_ready};
use super::store::Key;
use super::world::{Changed, Kind, World, node_of};
use crate::scheduler::taints::tolerates;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that taint a node when they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];
/// Silence borne of a node without a Lease, in seconds.
const GRACE: i64 = 40;
/// How long a node that pods name may be missing before they are collected, in seconds.
const MISSING: i64 = 20;

/// The last sign of life, and when it was seen.
struct Pulse {
    sign: (Option<Timestamp>, Option<Timestamp>),
    seen: Timestamp,
}

/// The node life-cycle controller.
#[derive(Default)]
pub struct Nodes {
    pulses: HashMap<String, Pulse>,
    missing: HashMap<String, Timestamp>,
}

impl Controller for Nodes {
    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn width(&self) -> usize {
        8
    }

    fn affected(&mut self, _world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        let name = match changed {
            Changed::Node(change) => change.any().map(|node| node.name_any()),
            Changed::Lease(change) => change.new.as_ref().map(|lease| lease.name_any()),
            Changed::Pod(change) => change.new.as_ref().map(|pod| node_of(pod).to_owned()),
            _ => None,
        };
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            mark(Key::new("", &name));
        }
    }

    fn plan(&mut self, world: &World, key: &Key, now: Timestamp) -> Plan {
        let Some(node) = world.nodes.at(key) else {
            self.pulses.remove(&key.name);
            return self.collect(world, &key.name, now);
        };
        self.missing.remove(&key.name);
        let seen = self.pulse(world, node, now);
        plan(
            node,
            world.pods_on(&key.name),
            deadline(world, node, seen),
            now,
        )
    }
}

impl Nodes {
    /// When the node last gave a sign of life.
    fn pulse(&mut self, world: &World, node: &Node, now: Timestamp) -> Timestamp {
        let name = node.name_any();
        let lease = world.leases.get("kube-node-lease", &name);
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|t| t.0));
        let posted = condition(node, "Ready")
            .filter(|ready| ready.status != "Unknown")
            .and_then(|ready| ready.last_heartbeat_time.as_ref().map(|t| t.0));
        let sign = (renewed, posted);
        let pulse = self.pulses.entry(name).or_insert(Pulse { sign, seen: now });
        // What we write ourselves (the heartbeat goes to nothing) is no sign of life.
        if pulse.sign.0 != sign.0 || (posted.is_some() && pulse.sign.1 != posted) {
            *pulse = Pulse { sign, seen: now };
        }
        pulse.seen
    }

    /// Pods of a node that does not exist: after a while nobody will ever end them.
    fn collect(&mut self, world: &World, node: &str, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let pods: Vec<&Arc<Pod>> = world.pods_on(node).collect();
        if pods.is_empty() {
            self.missing.remove(node);
            return plan;
        }
        let since = *self.missing.entry(node.to_owned()).or_insert(now);
        let due = after(since, MISSING);
        if now < due {
            plan.again_at(due);
            return plan;
        }
        for pod in pods {
            if is_active(pod) || pod.metadata.deletion_timestamp.is_some() {
                plan.push(disrupted(
                    pod,
                    json!("Failed"),
                    "DeletionByPodGC",
                    "PodGC: node no longer exists",
                    now,
                ));
            }
            plan.push(Action::Delete {
                kind: Kind::Pod,
                key: Key::of(pod.as_ref()),
                uid: pod.uid().unwrap_or_default(),
                grace: Some(0),
                note: None,
            });
        }
        plan
    }
}

fn after(time: Timestamp, seconds: i64) -> Timestamp {
    let second = time.as_second().saturating_add(seconds);
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

/// Until when the node's silence is borne.
fn deadline(world: &World, node: &Node, seen: Timestamp) -> Timestamp {
    let lease = world.leases.get("kube-node-lease", &node.name_any());
    let duration = lease.and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds);
    let grace = duration.map_or(GRACE, i64::from).max(1);
    let millis = seen.as_millisecond().saturating_add(grace * 1000);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// What to do about one node, silent after `deadline`, and its pods.
pub fn plan<'a>(
    node: &Node,
    pods: impl Iterator<Item = &'a Arc<Pod>>,
    deadline: Timestamp,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let silent = now >= deadline;
    if !silent {
        plan.again_at(deadline);
    }
    let mut ready = condition(node, "Ready").map_or("", |c| c.status.as_str());
    if silent && ready != "Unknown" {
        plan.push(silence(node, now));
        ready = "Unknown";
    }
    let (want, timed) = taints(node, ready, now);
    let have = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.clone())
        .unwrap_or_default();
    if !same(&want, &have) {
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": want},
        });
        // The condition above changed the node: its taints wait for the next plan.
        if plan.steps.is_empty() {
            plan.push(Action::patch(Kind::Node, &Key::of(node), patch));
        }
    }
    let pods: Vec<&Arc<Pod>> = pods.collect();
    // While the kubelet speaks it says itself how its pods are.
    if silent {
        doubt(node, &pods, now, &mut plan);
    }
    evict(&pods, &timed, now, &mut plan);
    plan
}

/// Of the pods on a silent node nobody knows whether they are ready: they count as not.
fn doubt(node: &Node, pods: &[&Arc<Pod>], now: Timestamp, plan: &mut Plan) {
    if condition(node, "Ready").is_some_and(|c| c.status == "True") {
        plan.push(Action::Event {
            on: named_reference(node),
            severity: Severity::Normal,
            reason: "NodeNotReady",
            message: format!("Node {} status is now: NodeNotReady", node.name_any()),
        });
    }
    let doubted = || pods.iter().filter(|pod| is_ready(pod));
    let patches: Vec<Action> = doubted().map(|pod| not_ready(pod, now)).collect();
    if !patches.is_empty() {
        plan.steps.push(Step::Each(patches));
    }
    for pod in doubted() {
        plan.push(Action::Event {
            on: reference(pod.as_ref()),
            severity: Severity::Warning,
            reason: "NodeNotReady",
            message: "Node is not ready".to_owned(),
        });
    }
}

/// `kubectl describe node` finds Events by the node's name in place of its uid.
fn named_reference(node: &Node) -> k8s_openapi::api::core::v1::ObjectReference {
    let mut on = reference(node);
    on.uid = node.metadata.name.clone();
    on
}

/// All conditions a kubelet keeps become Unknown, if none has said anything since: one that is
/// back writes its status once, and must not be contradicted after that.
fn silence(node: &Node, now: Timestamp) -> Action {
    let conditions: Vec<Value> = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
        .iter()
        .map(|kind| {
            let known = condition(node, kind);
            let (reason, message) = match known {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => (
                    "NodeStatusNeverUpdated",
                    "Kubelet never posted node status.",
                ),
            };
            let heartbeat = known.and_then(|c| c.last_heartbeat_time.clone());
            json!({
                "type": kind,
                "status": "Unknown",
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": heartbeat.or_else(|| node.metadata.creation_timestamp.clone()),
                "lastTransitionTime": Time(now),
            })
        })
        .collect();
    Action::Patch {
        kind: Kind::Node,
        key: Key::of(node),
        sub: "status",
        strategic: true,
        body: json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"conditions": conditions},
        }),
    }
}

/// The taints the node should have, and among them those that make pods leave.
fn taints(node: &Node, ready: &str, now: Timestamp) -> (Vec<Taint>, Vec<Taint>) {
    let have = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.clone())
        .unwrap_or_default();
    let life = match ready {
        "True" => None,
        "Unknown" => Some(UNREACHABLE),
        _ => Some(NOT_READY),
    };
    let mut marks: Vec<&str> = life.into_iter().collect();
    marks.extend(PRESSURES.iter().filter_map(|(kind, taint)| {
        let on = condition(node, kind).is_some_and(|c| c.status == "True");
        on.then_some(*taint)
    }));
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        marks.push(UNSCHEDULABLE);
    }
    let ours = |taint: &Taint| {
        let known = [NOT_READY, UNREACHABLE, UNSCHEDULABLE];
        let key = taint.key.as_str();
        known.contains(&key) || PRESSURES.iter().any(|(_, pressure)| *pressure == key)
    };
    let mut want: Vec<Taint> = have.iter().filter(|taint| !ours(taint)).cloned().collect();
    let mut add = |key: &str, effect: &str, time: Option<Time>| {
        let known = have
            .iter()
            .find(|taint| taint.key == key && taint.effect == effect);
        want.push(known.cloned().unwrap_or_else(|| Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            time_added: time,
            value: None,
        }));
    };
    for mark in &marks {
        add(mark, "NoSchedule", Some(Time(now)));
    }
    // A node that has not said anything yet has no pods to drive out.
    if let Some(life) = life.filter(|_| !ready.is_empty()) {
        add(life, "NoExecute", Some(Time(now)));
    }
    let timed = want
        .iter()
        .filter(|taint| taint.effect == "NoExecute")
        .cloned()
        .collect();
    (want, timed)
}

fn same(a: &[Taint], b: &[Taint]) -> bool {
    let key = |taint: &Taint| (taint.key.clone(), taint.effect.clone(), taint.value.clone());
    let keys = |list: &[Taint]| {
        let mut keys: Vec<_> = list.iter().map(key).collect();
        keys.sort();
        keys
    };
    keys(a) == keys(b)
}

fn not_ready(pod: &Pod, now: Timestamp) -> Action {
    Action::Patch {
        kind: Kind::Pod,
        key: Key::of(pod),
        sub: "status",
        strategic: true,
        body: json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{
            "type": "Ready",
            "status": "False",
            "lastTransitionTime": Time(now),
        }]}}),
    }
}

/// Pods that do not bear the taints leave; those that bear them for a time, after it.
fn evict(pods: &[&Arc<Pod>], taints: &[Taint], now: Timestamp, plan: &mut Plan) {
    if taints.is_empty() {
        return;
    }
    for pod in pods.iter().filter(|pod| is_active(pod)) {
        let Some(when) = leaves(pod, taints, now) else {
            continue;
        };
        if when > now {
            plan.again_at(when);
            continue;
        }
        plan.push(disrupted(
            pod,
            Value::Null,
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
            now,
        ));
        let key = Key::of(pod.as_ref());
        plan.push(Action::Event {
            on: reference(pod.as_ref()),
            severity: Severity::Normal,
            reason: "TaintManagerEviction",
            message: format!("Marking for deletion Pod {}/{}", key.namespace, key.name),
        });
        plan.push(Action::delete(
            Kind::Pod,
            &key,
            &pod.uid().unwrap_or_default(),
        ));
    }
}

/// When the pod has to leave; None where it may stay.
fn leaves(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Timestamp> {
    let spec = pod.spec.as_ref();
    let tolerations = spec
        .and_then(|s| s.tolerations.as_deref())
        .unwrap_or_default();
    let mut soonest: Option<Timestamp> = None;
    for taint in taints {
        let mut used = tolerations
            .iter()
            .filter(|t| tolerates(t, taint))
            .peekable();
        if used.peek().is_none() {
            return Some(now);
        }
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let shortest = used.filter_map(|t| t.toleration_seconds).min();
        if let Some(seconds) = shortest {
            let when = after(since, seconds.max(0));
            soonest = Some(soonest.map_or(when, |other| other.min(when)));
        }
    }
    soonest
}

/// Says on the pod why it is taken away.
fn disrupted(pod: &Pod, phase: Value, reason: &str, message: &str, now: Timestamp) -> Action {
    let mut status = json!({"conditions": [{
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": Time(now),
    }]});
    if !phase.is_null() {
        status["phase"] = phase;
    }
    Action::Patch {
        kind: Kind::Pod,
        key: Key::of(pod),
        sub: "status",
        strategic: true,
        body: json!({"metadata": {"uid": pod.uid()}, "status": status}),
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
