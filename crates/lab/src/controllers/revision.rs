//! ControllerRevisions: the templates a StatefulSet or DaemonSet has had, by which
//! `kubectl rollout history` and `undo` go.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::action::{Action, value};
use super::hash;
use super::pods::{controller_of, owned_by};
use super::store::Key;
use super::world::{Kind, World};

/// Label of a pod that names the revision it is of.
pub const HASH: &str = "controller-revision-hash";
const HASH_OF_REVISION: &str = "controller.kubernetes.io/hash";

/// An owner's revisions.
pub struct History {
    /// Name of the revision of the template as it is.
    pub name: String,
    /// Its hash.
    pub hash: String,
    /// All that are there, oldest first.
    pub all: Vec<Arc<ControllerRevision>>,
    /// What makes the current revision the newest.
    pub action: Option<Action>,
}

/// The patch a revision holds: it makes the owner's template what it was.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = value(template);
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template a revision holds.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0["spec"]["template"].clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The history of `owner`, whose template is `template`.
pub fn of<K: Resource<DynamicType = ()>>(
    world: &World,
    owner: &K,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
) -> History {
    let meta = owner.meta();
    let namespace = meta.namespace.clone().unwrap_or_default();
    let is_owned = |revision: &&Arc<ControllerRevision>| {
        controller_of(&revision.metadata).is_some_and(|o| Some(&o.uid) == meta.uid.as_ref())
    };
    let mut all: Vec<_> = world
        .revisions
        .within(&namespace)
        .filter(is_owned)
        .cloned()
        .collect();
    all.sort_by_key(|revision| (revision.revision, revision.metadata.name.clone()));
    let wanted = data(template);
    let next = all.last().map_or(0, |newest| newest.revision) + 1;
    let same = |revision: &&Arc<ControllerRevision>| {
        revision.data.as_ref().is_some_and(|have| have.0 == wanted)
    };
    if let Some(known) = all.iter().rfind(same) {
        let hash = known
            .labels()
            .get(HASH_OF_REVISION)
            .or_else(|| known.labels().get(HASH));
        let hash = hash.cloned().unwrap_or_default();
        let outdated = known.revision + 1 < next;
        let action = outdated.then(|| {
            let patch = json!({"revision": next});
            Action::patch(Kind::ControllerRevision, &Key::of(known.as_ref()), patch)
        });
        return History {
            name: known.name_any(),
            hash,
            all,
            action,
        };
    }
    let hash = hash::of(&wanted, collisions);
    let name = format!("{}-{hash}", meta.name.as_deref().unwrap_or(""));
    let labels = template.metadata.as_ref().and_then(|m| m.labels.clone());
    let mut labels = labels.unwrap_or_default();
    labels.insert(HASH.to_owned(), hash.clone());
    labels.insert(HASH_OF_REVISION.to_owned(), hash.clone());
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: annotations(meta),
            owner_references: Some(vec![owned_by(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(wanted)),
        revision: next,
    };
    let create = Action::create(Kind::ControllerRevision, &namespace, &revision);
    History {
        name,
        hash,
        all,
        action: Some(create),
    }
}

/// `kubernetes.io/change-cause` and its like go into the history.
fn annotations(meta: &ObjectMeta) -> Option<std::collections::BTreeMap<String, String>> {
    let mut annotations = meta.annotations.clone()?;
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    (!annotations.is_empty()).then_some(annotations)
}

impl History {
    /// Deletes the oldest revisions beyond `limit` that are not `live`.
    pub fn forget(&self, limit: i32, live: impl Fn(&ControllerRevision) -> bool) -> Vec<Action> {
        let dead: Vec<_> = self
            .all
            .iter()
            .filter(|revision| revision.name_any() != self.name && !live(revision))
            .collect();
        let limit = usize::try_from(limit).unwrap_or(0);
        let victims = dead.iter().take(dead.len().saturating_sub(limit));
        victims
            .map(|revision| {
                let uid = revision.uid().unwrap_or_default();
                Action::delete(Kind::ControllerRevision, &Key::of(revision.as_ref()), &uid)
            })
            .collect()
    }
}
