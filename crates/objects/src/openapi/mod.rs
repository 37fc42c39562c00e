//! OpenAPI v3 documents per group and version, for `kubectl explain`, `kubectl apply`'s
//! validation and its strategic merges.
//!
//! A document is made when asked for and not kept: the descriptions in it are large.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::Kind;
use crate::schema::{DEFINITIONS, definitions};

mod paths;
mod schemas;

/// Types any document may refer to: the definitions that bring them along.
const COMMON: &[&str] = &["DeleteOptions", "Status"];

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}

/// The name OpenAPI gives a kind's type: `io.k8s.api.core.v1.Pod`, `com.example.v1.Tab`.
fn type_name(kind: &Kind) -> String {
    let found = DEFINITIONS
        .iter()
        .find(|d| d.group == kind.group && d.version == kind.version && d.kind == kind.kind);
    match found {
        Some(definition) if kind.custom.is_none() => definition.name.to_owned(),
        _ => {
            let group: Vec<&str> = kind.group.rsplit('.').collect();
            format!("{}.{}.{}", group.join("."), kind.version, kind.kind)
        }
    }
}

/// The name of the list's type.
fn list_name(kind: &Kind) -> String {
    let name = type_name(kind);
    let prefix = name.strip_suffix(&kind.kind).unwrap_or_default();
    format!("{prefix}{}", kind.list_kind())
}

/// The document of one group and version that serves `kinds`, as JSON text.
pub fn document(kinds: &[Arc<Kind>]) -> String {
    let mut all = schemas::Schemas::new();
    let mut add = |kind: &str| {
        for definition in DEFINITIONS.iter().filter(|d| d.kind == kind) {
            schemas::add(&mut all, definition.name, definitions(definition));
        }
    };
    COMMON.iter().for_each(|kind| add(kind));
    for kind in kinds {
        for name in &kind.subresources {
            if let Some(kind @ ("Scale" | "Eviction" | "TokenRequest" | "Binding")) =
                kind.subresource(name).map(|s| s.kind)
            {
                add(kind);
            }
        }
    }
    if kinds.iter().any(|k| k.custom.is_some()) {
        // Custom resources have the same metadata as the others.
        add("ConfigMap");
        all.remove("io.k8s.api.core.v1.ConfigMap");
    }
    schemas::add_patch(&mut all);
    for kind in kinds {
        schemas::add_kind(&mut all, kind);
        if kind.stored() {
            all.insert(list_name(kind), schemas::list(kind).to_string());
        }
    }
    let mut routes = Map::new();
    for kind in kinds {
        paths::add(&mut routes, kind);
    }
    let security = json!({
        "BearerToken": {
            "description": "Bearer Token authentication",
            "in": "header",
            "name": "authorization",
            "type": "apiKey",
        },
    });
    let mut text = String::from(
        r#"{"openapi":"3.0.0","info":{"title":"Kubernetes","version":"unversioned"},"components":{"schemas":{"#,
    );
    for (i, (name, schema)) in all.into_iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        text.push_str(&format!("{comma}{}:{schema}", Value::from(name)));
    }
    text.push_str(&format!(
        r#"}},"securitySchemes":{security}}},"paths":{}}}"#,
        Value::Object(routes)
    ));
    text
}

/// An OpenAPI v2 document without paths, as protobuf. Clients that read v3 fall back to v2 for
/// kinds they do not find, and take its silence for an answer.
pub fn empty_version_two() -> Vec<u8> {
    /// A length-delimited field; everything here is shorter than 128 bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        let mut out = vec![number << 3 | 2, length];
        out.extend_from_slice(bytes);
        out
    }
    let info = [field(1, b"Kubernetes"), field(2, b"unversioned")].concat();
    [field(1, b"2.0"), field(2, &info), field(8, b"")].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(group: &str, version: &str) -> Vec<Arc<Kind>> {
        let kinds = crate::kind::builtin().into_iter();
        kinds
            .filter(|k| k.group == group && k.version == version)
            .collect()
    }

    fn parsed(kinds: &[Arc<Kind>]) -> Value {
        serde_json::from_str(&document(kinds)).unwrap()
    }

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value {
                        Value::String(text) if key == "$ref" => found.push(text),
                        value => references(value, found),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for kind in crate::kind::builtin() {
            let document = parsed(&group(&kind.group, &kind.version));
            let mut found = Vec::new();
            references(&document, &mut found);
            for reference in found {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
        }
    }

    #[test]
    fn kubectl_finds_what_it_looks_for() {
        let document = parsed(&group("apps", "v1"));
        let patch =
            &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        let parameters = patch["parameters"].as_array().unwrap();
        assert!(
            parameters
                .iter()
                .any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
        );
        let schemas = &document["components"]["schemas"];
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-type"], "map");
        assert_eq!(
            containers["items"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.api.core.v1.Container"
        );
        assert_eq!(
            schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
            json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
        );
        assert!(schemas["io.k8s.api.apps.v1.DeploymentList"].is_object());
    }

    #[test]
    fn custom_resources_have_documents_too() {
        let definition = json!({"spec": {"group": "stable.example.com", "scope": "Namespaced", "names": {"kind": "Tab", "plural": "tabs"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "description": "what"}}}}}]}});
        let kinds = crate::crd::kinds(&definition).unwrap();
        let document = parsed(&kinds);
        let schema = &document["components"]["schemas"]["com.example.stable.v1.Tab"];
        assert_eq!(schema["properties"]["spec"]["description"], "what");
        assert!(schema["properties"]["metadata"]["allOf"].is_array());
        assert!(
            document["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/tabs"]["get"]
                .is_object()
        );
    }
}
