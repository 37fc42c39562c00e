//! The ReplicaSets of a Deployment: which is the new one, what they are called, and the
//! annotations in which `kubectl rollout` finds history.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::controllers::action::{Action, value};
use crate::controllers::hash;
use crate::controllers::pods::owned_by;
use crate::controllers::store::Key;
use crate::controllers::world::Kind;

pub const HASH: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a Deployment that its ReplicaSets do not get.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// The size an object asks for.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// The revision in an object's annotations.
pub fn revision(meta: &ObjectMeta) -> i64 {
    let annotations = meta.annotations.as_ref();
    let text = annotations.and_then(|a| a.get(REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The sets of a Deployment, oldest first.
pub struct Sets {
    /// The one with the Deployment's own template.
    pub new: Option<Arc<ReplicaSet>>,
    /// All others.
    pub old: Vec<Arc<ReplicaSet>>,
}

impl Sets {
    /// Sorts `owned` by what they are to the Deployment.
    pub fn sort(deployment: &Deployment, mut owned: Vec<Arc<ReplicaSet>>) -> Self {
        owned.sort_by_key(|set| (set.creation_timestamp(), set.metadata.name.clone()));
        let template = deployment.spec.as_ref().map(|spec| plain(&spec.template));
        let is_new = |set: &Arc<ReplicaSet>| {
            let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            own.map(plain) == template
        };
        let new = owned.iter().find(|set| is_new(set)).cloned();
        let uid = new.as_ref().and_then(|set| set.metadata.uid.clone());
        owned.retain(|set| new.is_none() || set.metadata.uid != uid);
        Self { new, old: owned }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    /// The revision the new set has to have.
    pub fn next_revision(&self) -> i64 {
        let highest = self.old.iter().map(|set| revision(&set.metadata)).max();
        highest.unwrap_or(0) + 1
    }
}

/// A template without the label that names it.
fn plain(template: &PodTemplateSpec) -> Value {
    let mut value = value(template);
    if let Some(labels) = value["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    if let Some(meta) = value["metadata"].as_object_mut() {
        meta.remove("creationTimestamp");
    }
    value
}

/// The name of the set for the Deployment's template.
pub fn hash_of(deployment: &Deployment) -> String {
    let template = deployment.spec.as_ref().map(|spec| plain(&spec.template));
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    hash::of(&template, collisions)
}

/// The set to make for the Deployment's template.
pub fn make(deployment: &Deployment, replicas: i32, surge: i32, revision: i64) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = hash_of(deployment);
    let mut template = spec.template;
    let meta = template.metadata.get_or_insert_default();
    let labels = meta.labels.get_or_insert_default();
    labels.insert(HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    let match_labels = selector.match_labels.get_or_insert_default();
    match_labels.insert(HASH.to_owned(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.name_any())),
            namespace: deployment.namespace(),
            labels: Some(labels),
            annotations: Some(annotations(deployment, surge, revision)),
            owner_references: Some(vec![owned_by(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

fn annotations(deployment: &Deployment, surge: i32, revision: i64) -> BTreeMap<String, String> {
    let mut all = copied(deployment);
    all.insert(REVISION.to_owned(), revision.to_string());
    all.extend(sizes(deployment, surge));
    all
}

fn copied(deployment: &Deployment) -> BTreeMap<String, String> {
    let own = deployment.annotations().iter();
    own.filter(|(key, _)| !OWN.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn sizes(deployment: &Deployment, surge: i32) -> [(String, String); 2] {
    let replicas = replicas(deployment);
    [
        (DESIRED.to_owned(), replicas.to_string()),
        (MAX.to_owned(), (replicas + surge).to_string()),
    ]
}

/// The size the Deployment asks for.
pub fn replicas(deployment: &Deployment) -> i32 {
    let spec = deployment.spec.as_ref();
    spec.and_then(|s| s.replicas).unwrap_or(1)
}

/// Brings the new set's annotations and `minReadySeconds` up to date: a set that was
/// rolled back to becomes the latest revision.
pub fn refresh(deployment: &Deployment, set: &ReplicaSet, next: i64) -> Option<Action> {
    let have = set.annotations();
    let mut want = copied(deployment);
    let now = revision(&set.metadata);
    if now < next {
        want.insert(REVISION.to_owned(), next.to_string());
        if now > 0 {
            let history = have.get(HISTORY).filter(|history| !history.is_empty());
            let history = history.map_or_else(|| now.to_string(), |h| format!("{h},{now}"));
            want.insert(HISTORY.to_owned(), history);
        }
    }
    want.retain(|key, value| have.get(key) != Some(value));
    let min_ready = deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
    let own = set.spec.as_ref().and_then(|s| s.min_ready_seconds);
    let mut patch = json!({"metadata": {"resourceVersion": set.metadata.resource_version}});
    if !want.is_empty() {
        patch["metadata"]["annotations"] = json!(want);
    }
    if min_ready.unwrap_or(0) != own.unwrap_or(0) {
        patch["spec"] = json!({"minReadySeconds": min_ready});
    }
    let changes = !want.is_empty() || patch.get("spec").is_some();
    changes.then(|| Action::patch(Kind::ReplicaSet, &Key::of(set), patch))
}

/// Sets the size of a set; None where it has it.
pub fn resize(deployment: &Deployment, set: &ReplicaSet, to: i32, surge: i32) -> Option<Action> {
    let sizes: BTreeMap<String, String> = sizes(deployment, surge).into();
    let known = sizes
        .iter()
        .all(|(key, value)| set.annotations().get(key) == Some(value));
    if size(set) == to && known {
        return None;
    }
    let patch = json!({
        "metadata": {"resourceVersion": set.metadata.resource_version, "annotations": sizes},
        "spec": {"replicas": to},
    });
    Some(Action::patch(Kind::ReplicaSet, &Key::of(set), patch))
}
