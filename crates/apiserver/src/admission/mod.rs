//! What the server adds to or refuses in objects on their way in.

mod accounts;
pub mod crds;
mod escalation;
mod pods;
mod services;

use std::sync::Arc;

use objects::{Kind, Object, Status};
use serde_json::json;
use tokio::sync::MutexGuard;

use crate::context::{self, Ctx};
use crate::failure::Failure;
use crate::store::{Change, Expect};
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
    if kind.namespaced {
        namespace_exists(ctx, kind, object)?;
    }
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "namespaces") => {
            named_by_label(object);
            return Ok(first_objects(ctx, meta::get(object, "name")));
        }
        ("", "services") => return Ok(services::admit(ctx, kind, None, object)?),
        ("", "pods") => pods::admit(&ctx.store, object)?,
        ("", "secrets") => accounts::fill(ctx, object)?,
        ("networking.k8s.io", "ingresses") => default_ingress_class(ctx, object),
        ("apiextensions.k8s.io", "customresourcedefinitions") => crds::admit(ctx, None, object)?,
        ("rbac.authorization.k8s.io", _) => escalation::check(ctx, kind, object, options)?,
        _ => {}
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
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "namespaces") => named_by_label(new),
        ("", "services") if options.subresource.is_empty() => {
            return Ok(services::admit(ctx, kind, Some(old), new)?);
        }
        ("", "services") if options.subresource == "status" => {
            objects::validation::service_status(kind, new)?;
        }
        ("", "secrets") => accounts::fill(ctx, new)?,
        ("", "pods") => {
            // What the kubelet writes never changes the class a pod was given.
            if let Some(class) = old["status"]["qosClass"].as_str() {
                new["status"]["qosClass"] = class.into();
            }
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") if options.subresource.is_empty() => {
            crds::admit(ctx, Some(old), new)?;
        }
        ("rbac.authorization.k8s.io", _) => escalation::check(ctx, kind, new, options)?,
        _ => {}
    }
    Ok(Vec::new())
}

/// What goes together with a deleted object.
pub fn delete(ctx: &Ctx, kind: &Arc<Kind>, object: &Object) -> Vec<Change> {
    if core(kind, "services") {
        services::release(ctx, object)
    } else {
        Vec::new()
    }
}

/// What must follow a stored change before it is answered.
pub fn after(ctx: &Ctx, kind: &Kind) {
    if kind.group == "apiextensions.k8s.io" {
        crds::refresh(ctx);
    }
}

fn named_by_label(namespace: &mut Object) {
    let name = meta::get(namespace, "name").to_owned();
    namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
}

/// The objects every namespace has: its default account and the authority's certificate.
pub fn first_objects(ctx: &Ctx, namespace: &str) -> Vec<Change> {
    let mut changes = Vec::new();
    let metadata = |name: &str| {
        json!({"name": name, "namespace": namespace, "uid": context::uid(),
            "creationTimestamp": context::now_text()})
    };
    let key = format!("/serviceaccounts/{namespace}/default");
    if ctx.store.get(&key).is_none() {
        let mut account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("default")});
        changes.push(Change::put(&key, Expect::Absent, &mut account));
    }
    let key = format!("/configmaps/{namespace}/kube-root-ca.crt");
    if ctx.store.get(&key).is_none() {
        let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("kube-root-ca.crt"),
            "data": {"ca.crt": ctx.settings.ca}});
        map["metadata"]["annotations"]["kubernetes.io/description"] =
            "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.".into();
        changes.push(Change::put(&key, Expect::Absent, &mut map));
    }
    changes
}

fn default_ingress_class(ctx: &Ctx, ingress: &mut Object) {
    let set = ingress["spec"]["ingressClassName"].is_string()
        || ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_string();
    if set {
        return;
    }
    let classes = ctx.store.list("networking.k8s.io/ingressclasses/");
    let mut defaults: Vec<Object> = classes
        .items
        .iter()
        .map(|(_, entry)| entry.object())
        .filter(|c| {
            c["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"] == "true"
        })
        .collect();
    // The newest wins, then the first by name.
    defaults.sort_by_key(|c| {
        (
            std::cmp::Reverse(meta::get(c, "creationTimestamp").to_owned()),
            meta::get(c, "name").to_owned(),
        )
    });
    if let Some(class) = defaults.first() {
        ingress["spec"]["ingressClassName"] = meta::get(class, "name").into();
    }
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
