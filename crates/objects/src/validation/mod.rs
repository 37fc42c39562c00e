//! Validation of the built-in kinds, with Kubernetes' field paths and sentences.

pub mod field;
pub mod names;

pub(crate) mod address;
mod common;
mod container;
mod definition;
mod endpoints;
mod meta;
mod network;
mod pod;
mod policy;
mod service;
mod small;
mod volume;
mod workload;

use crate::{Kind, Object, Status};
use field::Errors;

pub(crate) fn create(kind: &Kind, object: &Object) -> Result<(), Status> {
    let mut errors = Errors::new();
    if kind.stored() {
        meta::create(kind, &object["metadata"], &mut errors);
    }
    check(kind, object, None, &mut errors);
    finish(kind, object, errors)
}

pub(crate) fn update(kind: &Kind, new: &Object, old: &Object) -> Result<(), Status> {
    let mut errors = Errors::new();
    meta::update(kind, &new["metadata"], &old["metadata"], &mut errors);
    check(kind, new, Some(old), &mut errors);
    finish(kind, new, errors)
}

/// What is unusual about an object that is taken all the same, or is not done although it asks
/// for it; for the `Warning` headers of the answer.
pub fn warnings(kind: &Kind, object: &Object) -> Vec<String> {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("networking.k8s.io", "NetworkPolicy") => policy::warnings(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::crd::warnings(object),
        _ => Vec::new(),
    }
}

/// The addresses and families of a Service alone, which must fit each other before any is given.
pub fn service_addresses(kind: &Kind, object: &Object) -> Result<(), Status> {
    let mut errors = Errors::new();
    service::cluster_ips(&object["spec"], &field::Path::root("spec"), &mut errors);
    finish(kind, object, errors)
}

/// The status of a Service, which its own subresource writes.
pub fn service_status(kind: &Kind, object: &Object) -> Result<(), Status> {
    let mut errors = Errors::new();
    service::status(object, &mut errors);
    finish(kind, object, errors)
}

fn check(kind: &Kind, object: &Object, old: Option<&Object>, errors: &mut Errors) {
    if kind.custom.is_some() {
        kind.schema.check(object, errors);
        return;
    }
    match (kind.group.as_str(), kind.kind.as_str(), old) {
        ("", "Pod", None) => pod::create(object, errors),
        ("", "Pod", Some(old)) => pod::update(object, old, errors),
        ("", "Service", None) => service::check(object, errors),
        ("", "Service", Some(old)) => service::update(object, old, errors),
        ("", "Endpoints", _) => endpoints::endpoints(object, errors),
        ("", "ConfigMap", old) => small::config_map(object, old, errors),
        ("", "Secret", old) => small::secret(object, old, errors),
        ("", "Node", old) => small::node(object, old, errors),
        ("apps", "ControllerRevision", _) => {}
        ("apps", name, None) => workload::check(name, object, errors),
        ("apps", name, Some(old)) => workload::update(name, object, old, errors),
        ("networking.k8s.io", "NetworkPolicy", old) => policy::check(object, old, errors),
        ("networking.k8s.io", "Ingress", old) => network::ingress(object, old.is_none(), errors),
        ("networking.k8s.io", "IngressClass", old) => network::ingress_class(object, old, errors),
        ("discovery.k8s.io", _, old) => endpoints::endpoint_slice(object, old, errors),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding", old) => {
            small::binding(object, old, errors);
        }
        ("apiextensions.k8s.io", _, old) => definition::check(object, old, errors),
        _ => {}
    }
}

fn finish(kind: &Kind, object: &Object, errors: Errors) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let errors = errors.into_vec();
    Err(Status::invalid(&kind.group, &kind.kind, name, &errors))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn kind(group: &str, name: &str) -> std::sync::Arc<Kind> {
        let kinds = crate::kind::builtin();
        let found = kinds.iter().find(|k| k.group == group && k.kind == name);
        found.unwrap().clone()
    }

    fn sentences(result: Result<(), Status>) -> Vec<String> {
        let Err(status) = result else {
            return Vec::new();
        };
        let causes = status.details["causes"].as_array().cloned().unwrap();
        let text = |c: &Value| {
            let field = c["field"].as_str().unwrap_or_default();
            format!("{field}: {}", c["message"].as_str().unwrap())
        };
        causes.iter().map(text).collect()
    }

    /// What is wrong with a new object, after its defaults.
    pub(super) fn created(group: &str, name: &str, mut object: Value) -> Vec<String> {
        let kind = kind(group, name);
        crate::kind::default_object(&kind, &mut object);
        sentences(crate::kind::validate_create(&kind, &object))
    }

    /// What is wrong with a change, after the defaults of both.
    pub(super) fn updated(group: &str, name: &str, mut new: Value, mut old: Value) -> Vec<String> {
        let kind = kind(group, name);
        crate::kind::default_object(&kind, &mut new);
        crate::kind::default_object(&kind, &mut old);
        sentences(crate::kind::validate_update(&kind, &new, &old))
    }

    #[test]
    fn metadata() {
        let wrong = |meta: Value| created("", "ConfigMap", json!({ "metadata": meta }));
        assert!(wrong(json!({"name": "a", "namespace": "default"})).is_empty());
        assert_eq!(
            wrong(json!({"namespace": "default"})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        assert!(
            wrong(json!({"name": "A_b", "namespace": "default"}))[0].starts_with(
                "metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist"
            )
        );
        assert!(
            wrong(json!({"name": "a", "namespace": "default", "labels": {"a": "b c"}}))[0]
                .starts_with("metadata.labels: Invalid value: \"b c\": a valid label must be")
        );
        assert_eq!(
            created(
                "",
                "Namespace",
                json!({"metadata": {"name": "a", "namespace": "b"}})
            ),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
    }

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"name": "a", "namespace": "default"}, "spec": spec})
    }

    #[test]
    fn pods() {
        let wrong = |spec| created("", "Pod", pod(spec));
        assert!(wrong(json!({"containers": [{"name": "a", "image": "b"}]})).is_empty());
        assert_eq!(wrong(json!({})), ["spec.containers: Required value"]);
        assert_eq!(
            wrong(
                json!({"restartPolicy": "x", "dnsPolicy": "None", "containers": [{"name": "a"}, {"name": "a", "image": "b",
                "ports": [{"containerPort": 70000}, {"containerPort": 80, "name": "a--b"}], "volumeMounts": [{"name": "v", "mountPath": "/x"}],
                "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}, "readinessProbe": {}}]})
            ),
            [
                "spec.containers[0].image: Required value",
                "spec.containers[1].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.containers[1].ports[1].name: Invalid value: \"a--b\": must not contain consecutive hyphens",
                "spec.containers[1].volumeMounts[0].name: Not found: \"v\"",
                "spec.containers[1].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                "spec.containers[1].name: Duplicate value: \"a\"",
                "spec.containers[1].readinessProbe: Required value: must specify a handler type",
                "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"
            ]
        );
    }

    #[test]
    fn a_pods_spec_hardly_changes() {
        let old = pod(json!({"containers": [{"name": "a", "image": "b"}]}));
        let new = pod(
            json!({"containers": [{"name": "a", "image": "c"}], "tolerations": [{"operator": "Exists"}]}),
        );
        assert!(updated("", "Pod", new, old.clone()).is_empty());
        let new = pod(json!({"containers": [{"name": "a", "image": "b"}], "hostname": "x"}));
        let wrong = updated("", "Pod", new, old);
        assert!(wrong[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"), "{wrong:?}");
    }
}
