//! What the server adds to or refuses in objects on their way in.

use std::sync::Arc;

use objects::{Kind, Object, Status};
use serde_json::json;
use tokio::sync::MutexGuard;

use crate::context::Ctx;
use crate::failure::Failure;
use crate::store::Change;
use crate::verbs::meta;
use crate::verbs::write::Options;

/// True for a kind of the core group.
pub fn core(kind: &Kind, plural: &str) -> bool {
    kind.group.is_empty() && kind.plural == plural
}

/// Services are written one after another, so that none gets the address of another.
pub async fn guard<'a>(ctx: &'a Ctx, kind: &Kind) -> Option<MutexGuard<'a, ()>> {
    if core(kind, "services") {
        Some(ctx.services.lock().await)
    } else {
        None
    }
}

/// Sets the status that a new object starts with.
pub fn reset_status(kind: &Kind, object: &mut Object) {
    if core(kind, "nodes") {
        return;
    }
    if kind.subresources.iter().any(|s| s == "status")
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
    if core(kind, "pods") {
        object["status"] = json!({"phase": "Pending"});
    } else if core(kind, "namespaces") {
        object["status"] = json!({"phase": "Active"});
        object["spec"] = json!({"finalizers": ["kubernetes"]});
    } else if core(kind, "services") {
        object["status"] = json!({"loadBalancer": {}});
    }
}

/// Keeps what an update of this subresource may not change.
pub fn keep(kind: &Kind, subresource: &str, old: &Object, new: &mut Object) {
    let keep = |new: &mut Object, field: &str| match old.get(field) {
        Some(value) => new[field] = value.clone(),
        None => {
            if let Some(map) = new.as_object_mut() {
                map.remove(field);
            }
        }
    };
    match subresource {
        "status" => {
            let status = new.get("status").cloned();
            let metadata = new["metadata"].clone();
            *new = old.clone();
            match status {
                Some(status) => new["status"] = status,
                None => {
                    if let Some(map) = new.as_object_mut() {
                        map.remove("status");
                    }
                }
            }
            new["metadata"]["managedFields"] = metadata["managedFields"].clone();
            meta::set(new, "resourceVersion", metadata["resourceVersion"].clone());
            if kind.group.is_empty() {
                // Pods and nodes take labels and annotations with their status.
                for field in ["labels", "annotations"] {
                    meta::set(new, field, metadata[field].clone());
                }
            }
        }
        "" if kind.subresources.iter().any(|s| s == "status") => keep(new, "status"),
        _ => {}
    }
    if core(kind, "namespaces") && subresource != "finalize" {
        keep(new, "spec");
    }
}

/// Admission of a new object. The changes returned are stored together with it.
pub fn create(
    ctx: &Ctx,
    kind: &Arc<Kind>,
    object: &mut Object,
    options: &Options,
) -> Result<Vec<Change>, Failure> {
    let _ = options;
    if kind.namespaced {
        namespace_exists(ctx, kind, object)?;
    }
    if core(kind, "namespaces") {
        let name = meta::get(object, "name").to_owned();
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
    }
    Ok(Vec::new())
}

/// Admission of a changed object.
pub fn update(
    ctx: &Ctx,
    kind: &Arc<Kind>,
    old: &Object,
    new: &mut Object,
    options: &Options,
) -> Result<Vec<Change>, Failure> {
    let _ = (ctx, old, options);
    if core(kind, "namespaces") {
        let name = meta::get(new, "name").to_owned();
        new["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
    }
    Ok(Vec::new())
}

/// What goes together with a deleted object.
pub fn delete(ctx: &Ctx, kind: &Arc<Kind>, object: &Object) -> Vec<Change> {
    let _ = (ctx, kind, object);
    Vec::new()
}

/// Refuses the deletion of what the cluster stands on.
pub fn may_delete(kind: &Kind, name: &str) -> Result<(), Status> {
    if core(kind, "namespaces") && matches!(name, "default" | "kube-system" | "kube-public") {
        return Err(Status::forbidden(
            "",
            "namespaces",
            name,
            "this namespace may not be deleted",
        ));
    }
    Ok(())
}

fn namespace_exists(ctx: &Ctx, kind: &Kind, object: &Object) -> Result<(), Status> {
    let namespace = meta::get(object, "namespace");
    let Some(entry) = ctx.store.get(&format!("/namespaces//{namespace}")) else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    if meta::deleting(entry.slim()) {
        let name = meta::get(object, "name");
        let mut status = Status::forbidden(
            &kind.group,
            &kind.plural,
            name,
            &format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            ),
        );
        status.details["causes"] = json!([{
            "reason": "NamespaceTerminating", "field": "metadata.namespace",
            "message": format!("namespace {namespace} is being terminated")}]);
        return Err(status);
    }
    Ok(())
}
