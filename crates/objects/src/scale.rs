//! The scale subresource: a workload seen as `autoscaling/v1 Scale`.

use serde_json::{Value, json};

use crate::{Kind, Object};

fn selector_text(selector: &Value) -> String {
    crate::selector::LabelSelector::from_object(selector)
        .map(|s| s.to_string())
        .unwrap_or_default()
}

/// The Scale of a workload or of a custom resource that has one.
pub fn of(kind: &Kind, object: &Object) -> Object {
    let meta = &object["metadata"];
    let mut metadata = serde_json::Map::new();
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = meta.get(key) {
            metadata.insert(key.into(), value.clone());
        }
    }
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {},
        "status": { "replicas": 0 },
    });
    let (spec, status, selector) = match kind.custom.as_ref().and_then(|c| c.scale.as_ref()) {
        Some(paths) => {
            let at = |path: &str| {
                crate::crd::at_path(object, path)
                    .cloned()
                    .unwrap_or(Value::Null)
            };
            (
                at(&paths.spec_replicas),
                at(&paths.status_replicas),
                paths.selector.as_deref().map_or(Value::Null, at),
            )
        }
        None => (
            object["spec"]["replicas"].clone(),
            object["status"]["replicas"].clone(),
            selector_text(&object["spec"]["selector"]).into(),
        ),
    };
    // Go omits a zero desired count, and always writes the observed one.
    if spec.as_i64().is_some_and(|n| n != 0) {
        scale["spec"]["replicas"] = spec;
    }
    if status.is_i64() {
        scale["status"]["replicas"] = status;
    }
    if selector.as_str().is_some_and(|s| !s.is_empty()) {
        scale["status"]["selector"] = selector;
    }
    scale
}

/// Writes the Scale's desired count into the workload.
pub fn set(kind: &Kind, object: &mut Object, scale: &Object) {
    let replicas = scale["spec"].get("replicas").cloned().unwrap_or(json!(0));
    match kind.custom.as_ref().and_then(|c| c.scale.as_ref()) {
        Some(paths) => crate::crd::set_path(object, &paths.spec_replicas, replicas),
        None => object["spec"]["replicas"] = replicas,
    }
}
