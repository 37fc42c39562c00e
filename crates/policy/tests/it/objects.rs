//! Objects as users write them, read as the agent reads them.

use std::sync::Arc;

use api::convert::{Slim, Value};
use model::{Change, ClusterPolicy, NetworkPolicy};
use serde_json::{Value as Json, json};

/// A NetworkPolicy.
pub fn policy(namespace: &str, name: &str, spec: &Json) -> Json {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}-{name}")},
        "spec": spec,
    })
}

/// A ClusterNetworkPolicy.
pub fn cluster_policy(name: &str, spec: &Json) -> Json {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name, "uid": name},
        "spec": spec,
    })
}

/// What is taken in of an object, and what is wrong with it.
pub fn read(object: &Json) -> (Change, Option<String>) {
    let text = object.to_string();
    match object["kind"].as_str() {
        Some("NetworkPolicy") => {
            let slim: Slim<NetworkPolicy> = serde_json::from_str(&text).unwrap();
            let problem = slim.problem().map(|error| error.to_string());
            (Change::Policy(value(slim.converted.value)), problem)
        }
        Some("ClusterNetworkPolicy") => {
            let slim: Slim<ClusterPolicy> = serde_json::from_str(&text).unwrap();
            let problem = slim.problem().map(|error| error.to_string());
            (Change::ClusterPolicy(value(slim.converted.value)), problem)
        }
        kind => panic!("{kind:?} is no policy"),
    }
}

fn value<T: std::fmt::Debug>(value: Value<T>) -> Arc<T> {
    match value {
        Value::Is(value) => value,
        other => panic!("{other:?}"),
    }
}

/// What takes an object out again.
pub fn gone(object: &Json) -> Change {
    let text = |field: &str| {
        let text = object["metadata"][field].as_str().unwrap_or_default();
        text.to_owned()
    };
    match object["kind"].as_str() {
        Some("NetworkPolicy") => Change::PolicyGone(text("namespace"), text("name")),
        _ => Change::ClusterPolicyGone(text("name")),
    }
}

/// The policies of a manifest; those without a namespace are made in `namespace`.
pub fn manifest(text: &str, namespace: &str) -> Vec<Json> {
    let objects = api::manifest::parse("a manifest", text).unwrap();
    let object = objects.into_iter().map(|object| {
        let mut object = serde_json::to_value(object).unwrap();
        let metadata = &mut object["metadata"];
        if metadata["namespace"].is_null() {
            metadata["namespace"] = namespace.into();
        }
        object
    });
    object.collect()
}
