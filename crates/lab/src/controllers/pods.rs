//! What the workload controllers know about pods in common.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::action::{Action, Note};
use super::store::{Change, Key};
use super::world::{Kind, World};
use crate::scheduler::selector;

/// True where the pod has not ended and is not about to.
pub fn is_active(pod: &Pod) -> bool {
    !api::convert::is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// True where the pod is on its way out.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && !api::convert::is_finished(pod)
}

/// `status.phase`.
pub fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status.and_then(|s| s.phase.as_deref()).unwrap_or("")
}

/// Since when the pod is ready; None where it is not.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
    (ready.status == "True").then(|| {
        let since = ready.last_transition_time.as_ref();
        since.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    })
}

/// True where the pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Whether a pod counts as available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Not ready.
    No,
    /// Ready, but not for long enough before this time.
    From(Timestamp),
    /// Ready for `minReadySeconds`.
    Yes,
}

/// Whether the pod has been ready for `min_ready` seconds.
pub fn availability(pod: &Pod, min_ready: i32, now: Timestamp) -> Availability {
    let Some(since) = ready_since(pod) else {
        return Availability::No;
    };
    let from = since.as_second().saturating_add(i64::from(min_ready));
    if min_ready <= 0 || from <= now.as_second() {
        return Availability::Yes;
    }
    Timestamp::from_second(from).map_or(Availability::Yes, Availability::From)
}

/// The owner that controls an object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = meta.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// The reference that makes `owner` the controller of what carries it.
pub fn owned_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A pod from a template, controlled by `owner`.
pub fn from_template<K: Resource<DynamicType = ()>>(template: &PodTemplateSpec, owner: &K) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: owner.meta().namespace.clone(),
            generate_name: Some(generate_name(owner.meta().name.as_deref().unwrap_or(""))),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owned_by(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The prefix of a pod's generated name. One that leaves no room for the suffix goes
/// without its dash, as in Kubernetes.
fn generate_name(owner: &str) -> String {
    if owner.len() < 253 {
        format!("{owner}-")
    } else {
        owner.to_owned()
    }
}

/// The Events about making a pod.
pub fn creation(on: &ObjectReference) -> Note {
    Note {
        on: on.clone(),
        done: Some(("SuccessfulCreate", "Created pod: ".to_owned())),
        failed: ("FailedCreate", "Error creating: ".to_owned()),
    }
}

/// The Events about deleting a pod.
pub fn deletion(on: &ObjectReference) -> Note {
    Note {
        on: on.clone(),
        done: Some(("SuccessfulDelete", "Deleted pod: ".to_owned())),
        failed: ("FailedDelete", "Error deleting: ".to_owned()),
    }
}

/// Deletes a pod with Events on `on`.
pub fn delete(pod: &Pod, on: &ObjectReference) -> Action {
    let uid = pod.uid().unwrap_or_default();
    Action::delete(Kind::Pod, &Key::of(pod), &uid).noted(deletion(on))
}

/// The pods an object controls, and what to do so that these are those its selector means.
pub struct Claimed {
    /// Pods controlled, whose labels match.
    pub pods: Vec<Arc<Pod>>,
    /// Adoptions and releases.
    pub actions: Vec<Action>,
}

/// Which pods `owner` has, adopts and lets go.
pub fn claim<K: Resource<DynamicType = ()>>(
    world: &World,
    owner: &K,
    wanted: &LabelSelector,
) -> Claimed {
    let meta = owner.meta();
    let uid = meta.uid.as_deref().unwrap_or("");
    let mut claimed = Claimed {
        pods: Vec::new(),
        actions: Vec::new(),
    };
    let alive = meta.deletion_timestamp.is_none();
    for pod in world.pods_of(uid) {
        if selector::matches(wanted, pod.labels()) {
            claimed.pods.push(pod.clone());
        } else if alive {
            claimed.actions.push(release(Kind::Pod, pod.as_ref(), uid));
        }
    }
    // An empty selector would adopt the whole namespace.
    let selects = wanted.match_labels.is_some() || wanted.match_expressions.is_some();
    if alive && selects {
        let orphans = world.orphans(meta.namespace.as_deref().unwrap_or(""));
        for pod in orphans.filter(|pod| is_active(pod)) {
            if selector::matches(wanted, pod.labels()) {
                claimed.actions.push(adopt(Kind::Pod, pod.as_ref(), owner));
            }
        }
    }
    claimed
}

/// Makes `owner` the controller of an orphan.
pub fn adopt<K, O>(kind: Kind, object: &K, owner: &O) -> Action
where
    K: Resource<DynamicType = ()>,
    O: Resource<DynamicType = ()>,
{
    Action::Patch {
        kind,
        key: Key::of(object),
        sub: "",
        strategic: true,
        body: json!({"metadata": {
            "uid": object.meta().uid,
            "ownerReferences": [owned_by(owner)],
        }}),
    }
}

/// Takes the owner of that UID off an object.
pub fn release<K: Resource<DynamicType = ()>>(kind: Kind, object: &K, owner: &str) -> Action {
    Action::Patch {
        kind,
        key: Key::of(object),
        sub: "",
        strategic: true,
        body: json!({"metadata": {
            "uid": object.meta().uid,
            "ownerReferences": [{"$patch": "delete", "uid": owner}],
        }}),
    }
}

/// Marks the objects a pod change concerns: its controllers of that kind before and
/// after, and those that might adopt it.
pub fn mark_owners<'a, K: Resource<DynamicType = ()> + 'a>(
    change: &Change<Pod>,
    candidates: impl Fn(&str) -> Vec<&'a Arc<K>>,
    selector_of: impl Fn(&K) -> Option<&LabelSelector>,
    mark: &mut dyn FnMut(Key),
) {
    for pod in change.both() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        match controller_of(&pod.metadata) {
            Some(owner) if owner.kind == K::kind(&()) => mark(Key::new(namespace, &owner.name)),
            Some(_) => {}
            None => {
                for candidate in candidates(namespace) {
                    if selector_of(candidate).is_some_and(|s| selector::matches(s, pod.labels())) {
                        mark(Key::of(candidate.as_ref()));
                    }
                }
            }
        }
    }
}

/// Sorts pods by how little is lost with each: those to delete come first. `crowd` says
/// how many pods of the same kind share the pod's node.
pub fn sort_for_deletion(pods: &mut [Arc<Pod>], crowd: &BTreeMap<String, usize>, now: Timestamp) {
    pods.sort_by_cached_key(|pod| {
        let node = super::world::node_of(pod);
        let order = match phase(pod) {
            "Pending" | "" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        (
            (!node.is_empty(), order, is_ready(pod)),
            deletion_cost(pod),
            Reverse(crowd.get(node).copied().unwrap_or(0)),
            ready_since(pod).map(|since| age(since, now)),
            Reverse(restarts(pod)),
            pod.metadata
                .creation_timestamp
                .as_ref()
                .map(|time| age(time.0, now)),
            pod.uid(),
        )
    });
}

/// Ages compare by their logarithm, so that scaling down and up again spreads over
/// generations of pods.
fn age(since: Timestamp, now: Timestamp) -> u32 {
    let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
    u64::BITS - seconds.unsigned_abs().leading_zeros()
}

fn deletion_cost(pod: &Pod) -> i32 {
    let text = pod
        .annotations()
        .get("controller.kubernetes.io/pod-deletion-cost");
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|s| &s.container_statuses);
    statuses
        .flatten()
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0)
}
