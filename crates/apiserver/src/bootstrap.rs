//! What every cluster has from the start.

use objects::Object;
use serde_json::json;

use crate::context::Ctx;
use crate::failure::Failure;
use crate::registry;
use crate::verbs::write::{self, Options};

/// Creates the object if it is missing.
pub async fn ensure(ctx: &Ctx, object: Object) -> Result<(), Failure> {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let Some(kind) = ctx
        .registry
        .load()
        .of_object(&text("apiVersion"), &text("kind"))
        .cloned()
    else {
        return Ok(());
    };
    let metadata = |field: &str| {
        object["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    if ctx
        .store
        .get(&registry::key(
            &kind,
            &metadata("namespace"),
            &metadata("name"),
        ))
        .is_some()
    {
        return Ok(());
    }
    let options = Options {
        manager: "kube-apiserver".into(),
        ..Options::default()
    };
    match write::create_object(ctx, &kind, object, &options).await {
        Err(Failure(status)) if status.code != 409 => Err(Failure(status)),
        _ => Ok(()),
    }
}

/// Creates what is missing.
pub async fn run(ctx: &Ctx) -> Result<(), Failure> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(ctx, namespace).await?;
    }
    Ok(())
}
