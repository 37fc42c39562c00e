//! `components.schemas`: k8s-openapi's schemas in the form upstream's documents have.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{gvk, list_name, reference, type_name};
use crate::Kind;
use crate::schema::{
    DEFINITIONS, ListType, definitions, field_fact, is_atomic_map, is_atomic_type, short_name,
};

/// Schemas by name, as text: values of all the types of a document would take ten times the room.
pub(super) type Schemas = BTreeMap<String, String>;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// Adds one definition's types.
pub(super) fn add(all: &mut Schemas, owner: &str, found: Map<String, Value>) {
    for (name, mut schema) in found {
        if all.contains_key(&name) {
            continue;
        }
        complete(&name, &mut schema);
        if name == owner
            && let Some(definition) = DEFINITIONS.iter().find(|d| d.name == owner)
        {
            let (group, version) = (definition.group, definition.version);
            schema["x-kubernetes-group-version-kind"] =
                json!([gvk(group, version, definition.kind)]);
        }
        all.insert(name, schema.to_string());
    }
}

/// Adds what k8s-openapi leaves out: list types, merge keys, and the form of references.
fn complete(name: &str, schema: &mut Value) {
    let owner = short_name(name);
    if is_atomic_type(owner) {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    if owner == "io.k8s.apimachinery.pkg.util.intstr.IntOrString" {
        schema["format"] = "int-or-string".into();
        schema["oneOf"] = json!([{ "type": "integer" }, { "type": "string" }]);
    }
    if owner == "io.k8s.apimachinery.pkg.api.resource.Quantity" {
        schema["oneOf"] = json!([{ "type": "string" }, { "type": "number" }]);
    }
    if let Some(map) = schema.as_object_mut() {
        map.remove("x-kubernetes-int-or-string");
    }
    for (field, property) in schema
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        mark(owner, field, property);
        wrap(property);
    }
}

fn mark(owner: &str, field: &str, property: &mut Value) {
    if property["type"] == "array" {
        property["x-kubernetes-list-type"] = "atomic".into();
    }
    if is_atomic_map(owner, field) {
        property["x-kubernetes-map-type"] = "atomic".into();
    }
    let Some(fact) = field_fact(owner, field) else {
        return;
    };
    match &fact.list {
        Some(ListType::Map(keys)) => {
            property["x-kubernetes-list-type"] = "map".into();
            property["x-kubernetes-list-map-keys"] = json!(keys);
        }
        Some(ListType::Set) => property["x-kubernetes-list-type"] = "set".into(),
        _ => {}
    }
    if let Some(key) = fact.merge_key {
        property["x-kubernetes-patch-merge-key"] = key.into();
    }
    if !fact.words.is_empty() {
        property["x-kubernetes-patch-strategy"] = fact.words.into();
    }
}

/// OpenAPI 3.0 allows nothing beside `$ref`, so references stand in an `allOf`.
fn wrap(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    if let Some(target) = map.remove("$ref") {
        map.insert("allOf".into(), json!([{ "$ref": target }]));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            wrap(inner);
        }
    }
}

/// The body of a patch.
pub(super) fn add_patch(all: &mut Schemas) {
    let patch = json!({
        "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.",
        "type": "object",
    });
    all.insert(format!("{META}.Patch"), patch.to_string());
}

/// Adds a kind's own type.
pub(super) fn add_kind(all: &mut Schemas, kind: &Kind) {
    let name = type_name(kind);
    let Some(mut schema) = kind.schema.openapi() else {
        if let Some(definition) = DEFINITIONS.iter().find(|d| d.name == name) {
            add(all, definition.name, definitions(definition));
        }
        return;
    };
    if !schema.is_object() {
        schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    }
    let mut metadata = json!({
        "description": "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
    });
    metadata["allOf"] = json!([reference(&format!("{META}.ObjectMeta"))]);
    let properties = &mut schema["properties"];
    if !properties.is_object() {
        *properties = json!({});
    }
    properties["apiVersion"] = json!({ "description": API_VERSION, "type": "string" });
    properties["kind"] = json!({ "description": KIND, "type": "string" });
    properties["metadata"] = metadata;
    schema["x-kubernetes-group-version-kind"] =
        json!([gvk(&kind.group, &kind.version, &kind.kind)]);
    all.insert(name, schema.to_string());
}

/// The type of a kind's list.
pub(super) fn list(kind: &Kind) -> Value {
    let list = list_name(kind);
    let list_kind = list.rsplit('.').next().unwrap_or_default();
    json!({
        "description": format!("{list_kind} is a list of {}", kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "description": API_VERSION, "type": "string" },
            "kind": { "description": KIND, "type": "string" },
            "metadata": {
                "description": "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
                "allOf": [reference(&format!("{META}.ListMeta"))],
            },
            "items": {
                "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", kind.plural),
                "type": "array",
                "items": { "allOf": [reference(&type_name(kind))] },
            },
        },
        "x-kubernetes-group-version-kind": [gvk(&kind.group, &kind.version, list_kind)],
    })
}
