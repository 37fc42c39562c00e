//! CustomResourceDefinitions: their status, and the kinds they add to what is served.

use std::sync::Arc;

use objects::{Kind, Object, Status};
use serde_json::json;

use crate::context::{self, Ctx};
use crate::registry::Registry;
use crate::verbs::meta;

/// Holds a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Prefix of definitions in the store.
pub const PREFIX: &str = "apiextensions.k8s.io/customresourcedefinitions/";

/// Checks a definition and writes what it will be: names accepted, established.
pub fn admit(ctx: &Ctx, old: Option<&Object>, new: &mut Object) -> Result<(), Status> {
    // A schema that cannot be served is refused here.
    objects::crd::kinds(new)?;
    if old.is_none() {
        let mut finalizers: Vec<String> = meta::finalizers(new)
            .into_iter()
            .map(str::to_owned)
            .collect();
        finalizers.push(FINALIZER.into());
        meta::set(new, "finalizers", json!(finalizers));
    }
    let conflict = conflict(ctx, new);
    let now = context::now_text();
    let condition = |kind: &str, status: bool, reason: &str, message: &str| {
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
    let conditions = match &conflict {
        None => json!([
            condition("NamesAccepted", true, "NoConflicts", "no conflicts found"),
            condition(
                "Established",
                true,
                "InitialNamesAccepted",
                "the initial names have been accepted"
            ),
        ]),
        Some(cause) => json!([
            condition("NamesAccepted", false, "PluralConflict", cause),
            condition(
                "Established",
                false,
                "NotAccepted",
                "not all names are accepted"
            ),
        ]),
    };
    let mut names = new["spec"]["names"].clone();
    if let Some(map) = names.as_object_mut() {
        let kind = map
            .get("kind")
            .and_then(Object::as_str)
            .unwrap_or_default()
            .to_owned();
        map.entry("singular")
            .or_insert_with(|| kind.to_lowercase().into());
        map.entry("listKind")
            .or_insert_with(|| format!("{kind}List").into());
    }
    if names.is_object() {
        new["spec"]["names"] = names.clone();
    }
    let mut stored: Vec<Object> = old
        .and_then(|o| o["status"]["storedVersions"].as_array().cloned())
        .unwrap_or_default();
    let storage = new["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|v| v["storage"] == true);
    if let Some(name) = storage.map(|v| v["name"].clone())
        && !stored.contains(&name)
    {
        stored.push(name);
    }
    if conflict.is_some() {
        names = json!({"plural": "", "kind": ""});
    }
    new["status"] =
        json!({"conditions": conditions, "acceptedNames": names, "storedVersions": stored});
    Ok(())
}

/// The sentence of a clash with a kind that is served already.
fn conflict(ctx: &Ctx, new: &Object) -> Option<String> {
    let group = new["spec"]["group"].as_str().unwrap_or_default();
    let (plural, kind) = (
        &new["spec"]["names"]["plural"],
        &new["spec"]["names"]["kind"],
    );
    let name = meta::get(new, "name");
    let registry = ctx.registry.load();
    let other = registry.iter().find(|k| {
        k.group == group
            && (k.plural.as_str() == plural || k.kind.as_str() == kind)
            && (k.custom.is_none() || format!("{}.{}", k.plural, k.group) != name)
    })?;
    Some(if other.plural.as_str() == plural {
        format!("{plural} is already in use")
    } else {
        format!("{kind} is already in use")
    })
}

/// Publishes the table of served kinds anew.
pub fn refresh(ctx: &Ctx) {
    let mut kinds: Vec<Arc<Kind>> = objects::kind::builtin();
    for (_, entry) in ctx.store.list(PREFIX).items {
        let definition = entry.object();
        let established = definition["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|c| c["type"] == "Established" && c["status"] == "True");
        if !established {
            continue;
        }
        match objects::crd::kinds(&definition) {
            Ok(more) => kinds.extend(more),
            Err(status) => tracing::warn!(
                definition = meta::get(&definition, "name"),
                cause = status.message,
                "a stored definition cannot be served"
            ),
        }
    }
    ctx.registry.store(Arc::new(Registry::new(kinds)));
}
