//! Defaults of the built-in kinds, as upstream's `SetDefaults_*` functions fill them.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{Kind, Object};

mod pod;
mod service;
mod workload;

/// Sets a field that is missing, null or empty text.
pub(crate) fn set(object: &mut Value, field: &str, default: impl Into<Value>) {
    if unset(&object[field]) {
        object[field] = default.into();
    }
}

/// Sets a field that is missing, null, empty text or zero: Go's zero value of a plain number.
fn set_nonzero(object: &mut Value, field: &str, default: i64) {
    if unset(&object[field]) || object[field] == 0 {
        object[field] = default.into();
    }
}

fn unset(value: &Value) -> bool {
    value.is_null() || value == ""
}

/// The field as an object, made if it is missing.
fn object_in<'a>(object: &'a mut Value, field: &str) -> &'a mut Value {
    if !object[field].is_object() {
        object[field] = Value::Object(Map::new());
    }
    &mut object[field]
}

fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter(|item| item.is_object())
}

/// Fills what the object leaves open.
pub(crate) fn fill(kind: &Kind, object: &mut Object) {
    kind.schema.fill(object);
    if kind.custom.is_some() || !object.is_object() {
        return;
    }
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => pod::pod(object),
        ("", "Service") => service::service(object),
        ("", "Endpoints") => {
            for subset in items(object, "subsets") {
                for port in items(subset, "ports") {
                    set(port, "protocol", "TCP");
                }
            }
        }
        ("", "Secret") => secret(object),
        ("", "Namespace") => namespace(object),
        ("", "Node") => node(object),
        ("", "LimitRange") => limit_range(object),
        ("apps", "Deployment") => workload::deployment(object),
        ("apps", "ReplicaSet") => workload::replica_set(object),
        ("apps", "StatefulSet") => workload::stateful_set(object),
        ("apps", "DaemonSet") => workload::daemon_set(object),
        ("discovery.k8s.io", "EndpointSlice") => {
            for port in items(object, "ports") {
                if port["name"].is_null() {
                    port["name"] = "".into();
                }
                set(port, "protocol", "TCP");
            }
        }
        ("networking.k8s.io", "NetworkPolicy") => service::network_policy(object),
        ("networking.k8s.io", "Ingress") => {
            object_in(object_in(object, "status"), "loadBalancer");
        }
        ("networking.k8s.io", "IngressClass") if object["spec"]["parameters"].is_object() => {
            set(&mut object["spec"]["parameters"], "scope", "Cluster");
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => binding(object),
        ("scheduling.k8s.io", "PriorityClass") => {
            set(object, "preemptionPolicy", "PreemptLowerPriority");
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        _ => {}
    }
}

/// `stringData` is write-only: it goes over `data`, encoded, and is never stored or shown.
fn secret(object: &mut Object) {
    set(object, "type", "Opaque");
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|o| o.remove("stringData"))
    else {
        return;
    };
    for (key, text) in plain {
        let text = text.as_str().unwrap_or_default();
        object_in(object, "data")[&key] = STANDARD.encode(text).into();
    }
}

fn namespace(object: &mut Object) {
    if let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned)
        && !name.is_empty()
    {
        let labels = object_in(object_in(object, "metadata"), "labels");
        labels["kubernetes.io/metadata.name"] = name.into();
    }
    set(object_in(object, "status"), "phase", "Active");
}

fn node(object: &mut Object) {
    let status = object_in(object, "status");
    if status["allocatable"].is_null() && status["capacity"].is_object() {
        status["allocatable"] = status["capacity"].clone();
    }
}

fn limit_range(object: &mut Object) {
    for limit in items(object_in(object, "spec"), "limits") {
        if limit["type"] != "Container" {
            continue;
        }
        // What is not said falls back: max to default, default to request, min to request.
        for (from, to) in [
            ("max", "default"),
            ("default", "defaultRequest"),
            ("min", "defaultRequest"),
        ] {
            let source = limit[from].as_object().cloned().unwrap_or_default();
            for (name, value) in source {
                set(object_in(limit, to), &name, value);
            }
        }
    }
}

fn binding(object: &mut Object) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    if object["roleRef"].is_object() {
        set(&mut object["roleRef"], "apiGroup", GROUP);
    }
    for subject in items(object, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set(subject, "apiGroup", GROUP);
        }
    }
}

fn definition(object: &mut Object) {
    let spec = object_in(object, "spec");
    let names = object_in(spec, "names");
    if let Some(kind) = names["kind"].as_str().map(str::to_owned) {
        set(names, "singular", kind.to_lowercase());
        set(names, "listKind", format!("{kind}List"));
    }
    let conversion = object_in(spec, "conversion");
    set(conversion, "strategy", "None");
    if conversion["strategy"] == "Webhook"
        && conversion["webhook"]["clientConfig"]["service"].is_object()
    {
        set(
            &mut conversion["webhook"]["clientConfig"]["service"],
            "port",
            json!(443),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn filled(group: &str, name: &str, mut object: Value) -> Value {
        let kinds = crate::kind::builtin();
        let kind = kinds.iter().find(|k| k.group == group && k.kind == name);
        crate::kind::default_object(kind.unwrap(), &mut object);
        object
    }

    #[test]
    fn filling_twice_changes_nothing() {
        for kind in crate::kind::builtin() {
            let mut once = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": "a"},
                "spec": {"template": {"spec": {"containers": [{"name": "a"}]}}, "containers": [{"name": "a"}], "ports": [{"port": 80}]}});
            crate::kind::default_object(&kind, &mut once);
            let mut twice = once.clone();
            crate::kind::default_object(&kind, &mut twice);
            assert_eq!(once, twice, "{}", kind.kind);
        }
    }

    #[test]
    fn string_data_of_a_secret_goes_over_its_data() {
        let secret = filled(
            "",
            "Secret",
            json!({"data": {"a": "b2xk", "b": "a2VwdA=="}, "stringData": {"a": "new", "c": ""}}),
        );
        assert_eq!(
            secret["data"],
            json!({"a": "bmV3", "b": "a2VwdA==", "c": ""})
        );
        assert!(secret.get("stringData").is_none());
    }

    #[test]
    fn small_kinds() {
        let namespace = filled("", "Namespace", json!({"metadata": {"name": "a"}}));
        assert_eq!(
            namespace["metadata"]["labels"],
            json!({"kubernetes.io/metadata.name": "a"})
        );
        let binding = filled(
            "rbac.authorization.k8s.io",
            "RoleBinding",
            json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "User", "name": "a"}, {"kind": "ServiceAccount", "name": "b"}]}),
        );
        assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
        assert_eq!(
            binding["subjects"][1],
            json!({"kind": "ServiceAccount", "name": "b"})
        );
    }
}
