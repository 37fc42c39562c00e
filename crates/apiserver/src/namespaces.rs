//! What empties before it goes: namespaces and the objects of CustomResourceDefinitions.
//! Also puts back what every namespace must have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use objects::{Kind, Object};
use serde_json::json;

use crate::admission::{self, crds};
use crate::context::{self, Ctx};
use crate::failure::Failure;
use crate::gc;
use crate::registry;
use crate::verbs::delete::{self, delete_object};
use crate::verbs::meta;
use crate::verbs::write::{self, Options};

/// The way to this server, which comes back when deleted.
const WAY: [&str; 3] = [
    "/services/default/kubernetes",
    "/endpoints/default/kubernetes",
    "discovery.k8s.io/endpointslices/default/kubernetes",
];
/// Deletions on their way at once.
const AT_ONCE: usize = 64;
/// Changes are gathered this long before a namespace is looked at again.
const GATHER: Duration = Duration::from_millis(20);
/// What could not be done is tried again after this long.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows the store until the server ends.
pub async fn run(ctx: Ctx) {
    let mut changed = ctx.store.subscribe("");
    let mut cursor = 0;
    loop {
        changed.mark_unchanged();
        let mut restore: BTreeSet<String> = BTreeSet::new();
        let mut busy = BTreeSet::new();
        let mut gone: Vec<Arc<str>> = Vec::new();
        match ctx.store.events("", cursor) {
            Ok((rev, events)) => {
                gone.extend(events.iter().filter(|e| e.deleted).map(|e| e.key.clone()));
                for event in &events {
                    note(&event.key, event.deleted, &mut busy, &mut restore);
                }
                cursor = rev;
            }
            Err(_) => {
                cursor = ctx.store.rev();
                for prefix in ["/namespaces//", crds::PREFIX] {
                    busy.extend(
                        ctx.store
                            .list(prefix)
                            .items
                            .into_iter()
                            .map(|(key, _)| key.to_string()),
                    );
                }
            }
        }
        if gone.iter().any(|key| WAY.contains(&key.as_ref()))
            && let Err(Failure(status)) = crate::bootstrap::kubernetes(&ctx).await
        {
            tracing::warn!(
                cause = status.message,
                "putting back the Service kubernetes"
            );
        }
        for namespace in restore {
            put_back(&ctx, &namespace).await;
        }
        let mut failed = false;
        for key in busy {
            failed |= look(&ctx, &key).await;
        }
        if failed {
            tokio::time::sleep(AGAIN).await;
            cursor = 0;
        } else {
            if changed.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Which namespaces and definitions a change concerns.
fn note(key: &str, deleted: bool, busy: &mut BTreeSet<String>, restore: &mut BTreeSet<String>) {
    let mut parts = key.splitn(4, '/');
    let (group, plural) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let (namespace, name) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    if key.starts_with("/namespaces//") || key.starts_with(crds::PREFIX) {
        busy.insert(key.to_owned());
    }
    if !deleted {
        return;
    }
    busy.insert(format!("/namespaces//{namespace}"));
    busy.insert(format!("{}/{plural}.{group}", crds::PREFIX));
    let first = [
        ("serviceaccounts", "default"),
        ("configmaps", "kube-root-ca.crt"),
    ];
    if group.is_empty() && first.contains(&(plural, name)) {
        restore.insert(namespace.to_owned());
    }
}

async fn put_back(ctx: &Ctx, namespace: &str) {
    let active = ctx
        .store
        .get(&format!("/namespaces//{namespace}"))
        .is_some_and(|entry| !meta::deleting(&entry.object()));
    let changes = if active {
        admission::first_objects(ctx, namespace)
    } else {
        Vec::new()
    };
    if !changes.is_empty()
        && let Err(error) = ctx.store.commit(changes).await
    {
        tracing::warn!(namespace, %error, "putting back the default account and the authority");
    }
}

/// Looks at a namespace or definition; true where it must be looked at again.
async fn look(ctx: &Ctx, key: &str) -> bool {
    let Some(entry) = ctx.store.get(key) else {
        return false;
    };
    let object = entry.object();
    if !meta::deleting(&object) {
        return false;
    }
    let result = if key.starts_with("/namespaces//") {
        empty_namespace(ctx, meta::get(&object, "name")).await
    } else {
        empty_definition(ctx, &object).await
    };
    match result {
        Ok(()) => false,
        Err(Failure(status)) if status.code == 404 => false,
        Err(Failure(status)) => {
            tracing::warn!(key, cause = status.message, "emptying");
            true
        }
    }
}

/// Deletes everything below `prefix`; what is left after that, with its finalizers.
async fn empty(ctx: &Ctx, kind: &Arc<Kind>, prefix: &str) -> Result<Vec<Object>, Failure> {
    let items = ctx.store.list(prefix).items;
    let options = delete::Options::default();
    let results = futures::stream::iter(items)
        .map(|(key, _)| {
            let options = &options;
            async move {
                let mut parts = key.splitn(4, '/').skip(2);
                let (namespace, name) = (
                    parts.next().unwrap_or_default(),
                    parts.next().unwrap_or_default(),
                );
                match delete_object(ctx, kind, namespace, name, options).await {
                    Err(Failure(status)) if status.code == 404 => Ok(()),
                    other => other.map(|_| ()),
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    results.into_iter().collect::<Result<Vec<()>, Failure>>()?;
    Ok(ctx
        .store
        .list(prefix)
        .items
        .iter()
        .map(|(_, entry)| entry.object())
        .collect())
}

async fn empty_namespace(ctx: &Ctx, name: &str) -> Result<(), Failure> {
    let registry = ctx.registry.load_full();
    let mut remaining: BTreeMap<String, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
    for kind in registry.stored().filter(|k| k.namespaced && k.stored()) {
        for object in empty(ctx, kind, &registry::prefix(kind, name)).await? {
            *remaining.entry(kind.resource()).or_default() += 1;
            for finalizer in meta::finalizers(&object) {
                *finalizers.entry(finalizer.to_owned()).or_default() += 1;
            }
        }
    }
    let kind = registry
        .find("", "v1", "namespaces")
        .cloned()
        .ok_or_else(objects::Status::no_such_path)?;
    let empty = remaining.is_empty();
    let mut options = Options {
        manager: "kube-controller-manager".into(),
        ..Options::default()
    };
    options.subresource = if empty {
        "finalize".into()
    } else {
        "status".into()
    };
    write::replace(ctx, &kind, "", name, &options, |old| {
        let mut new = old
            .cloned()
            .ok_or_else(|| objects::Status::not_found("", "namespaces", name))?;
        if empty {
            if let Some(list) = meta::array_mut(&mut new, &["spec", "finalizers"]) {
                list.retain(|f| f != "kubernetes");
            }
        } else {
            new["status"]["conditions"] = conditions(old, &remaining, &finalizers);
        }
        Ok(new)
    })
    .await?;
    Ok(())
}

fn listed(counts: &BTreeMap<String, usize>, middle: &str) -> String {
    counts
        .iter()
        .map(|(name, count)| format!("{name} {middle} {count} resource instances"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn conditions(
    old: Option<&Object>,
    remaining: &BTreeMap<String, usize>,
    finalizers: &BTreeMap<String, usize>,
) -> Object {
    let now = context::now_text();
    let condition = |kind: &str, status: bool, reason: &str, message: String| {
        let status = if status { "True" } else { "False" };
        let since = old
            .and_then(|o| o["status"]["conditions"].as_array())
            .and_then(|list| {
                list.iter()
                    .find(|c| c["type"] == kind && c["status"] == status)
            })
            .map_or_else(|| json!(now), |c| c["lastTransitionTime"].clone());
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since})
    };
    json!([
        condition(
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".into()
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".into()
        ),
        condition(
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".into()
        ),
        condition(
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", listed(remaining, "has"))
        ),
        if finalizers.is_empty() {
            condition(
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".into(),
            )
        } else {
            condition(
                "NamespaceFinalizersRemaining",
                true,
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    listed(finalizers, "in")
                ),
            )
        },
    ])
}

async fn empty_definition(ctx: &Ctx, definition: &Object) -> Result<(), Failure> {
    if !meta::finalizers(definition).contains(&crds::FINALIZER) {
        return Ok(());
    }
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let plural = definition["spec"]["names"]["plural"]
        .as_str()
        .unwrap_or_default();
    let registry = ctx.registry.load_full();
    if let Some(kind) = registry
        .iter()
        .find(|k| k.group == group && k.plural == plural && k.custom.is_some())
        && !empty(ctx, kind, &registry::prefix(kind, ""))
            .await?
            .is_empty()
    {
        return Ok(());
    }
    let kind = registry
        .find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        .cloned()
        .ok_or_else(objects::Status::no_such_path)?;
    let name = meta::get(definition, "name");
    let options = Options {
        manager: "kube-apiserver".into(),
        ..Options::default()
    };
    write::replace(ctx, &kind, "", name, &options, |old| {
        let mut new = old
            .cloned()
            .ok_or_else(|| objects::Status::not_found(&kind.group, &kind.plural, name))?;
        gc::drop_finalizer(&mut new, crds::FINALIZER);
        Ok(new)
    })
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_concerns_its_namespace_and_its_definition() {
        let (mut busy, mut restore) = (BTreeSet::new(), BTreeSet::new());
        note("/pods/a/b", false, &mut busy, &mut restore);
        assert!(busy.is_empty());
        note("example.com/widgets/a/b", true, &mut busy, &mut restore);
        assert!(busy.contains("/namespaces//a"));
        assert!(
            busy.contains("apiextensions.k8s.io/customresourcedefinitions//widgets.example.com")
        );
        note("/serviceaccounts/a/default", true, &mut busy, &mut restore);
        assert!(restore.contains("a"));
    }
}
