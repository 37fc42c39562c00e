//! CustomResourceDefinitions: names, versions, structural schemas.

use serde_json::Value;

use super::common::{immutable, is_set, list, map, text, word};
use super::field::{Errors, Path};
use super::names;

pub(super) fn check(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = &object["spec"];
    let path = Path::root("spec");
    let group = text(&spec["group"]);
    let plural = text(&spec["names"]["plural"]);
    let this = text(&object["metadata"]["name"]);
    if old.is_none() && this != format!("{plural}.{group}") {
        let metadata = Path::root("metadata");
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.invalid_text(&metadata.child("name"), this, why);
    }
    let at = path.child("group");
    if group.is_empty() {
        errors.required(&at, "");
    } else {
        let wrong = names::dns1123_subdomain(group);
        if !wrong.is_empty() {
            errors.invalid_text(&at, group, &wrong.join(","));
        } else if !group.contains('.') {
            errors.invalid_text(&at, group, "should be a domain with at least one dot");
        }
    }
    word(
        errors,
        &path.child("scope"),
        &spec["scope"],
        &["Cluster", "Namespaced"],
    );
    versions(spec, &path, errors);
    names_of(&spec["names"], &path.child("names"), errors);
    if let Some(old) = old {
        let before = &old["spec"];
        let at = path.child("names");
        for field in ["kind", "plural"] {
            let (new, old) = (&spec["names"][field], &before["names"][field]);
            immutable(errors, &at.child(field), new, old);
        }
        for field in ["scope", "group"] {
            immutable(errors, &path.child(field), &spec[field], &before[field]);
        }
    }
}

fn label(errors: &mut Errors, path: &Path<'_>, shown: &str, value: &str, prefix: &str) {
    let wrong = names::dns1035_label(value);
    if !wrong.is_empty() {
        errors.invalid_text(path, shown, &format!("{prefix}{}", wrong.join(",")));
    }
}

fn names_of(given: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(&given[field]).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    for field in ["plural", "singular"] {
        let value = text(&given[field]);
        if !value.is_empty() {
            label(errors, &path.child(field), value, value, "");
        }
    }
    for field in ["kind", "listKind"] {
        let value = text(&given[field]);
        if !value.is_empty() {
            let prefix = "may have mixed case, but should otherwise match: ";
            label(
                errors,
                &path.child(field),
                value,
                &value.to_lowercase(),
                prefix,
            );
        }
    }
    for field in ["shortNames", "categories"] {
        let at = path.child(field);
        for (i, value) in list(&given[field]).iter().enumerate() {
            label(errors, &at.index(i), text(value), text(value), "");
        }
    }
    if !text(&given["kind"]).is_empty() && given["kind"] == given["listKind"] {
        let why = "kind and listKind may not be the same";
        errors.invalid(&path.child("listKind"), &given["listKind"], why);
    }
}

fn versions(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("versions");
    let versions = list(&spec["versions"]);
    let mut seen: Vec<&str> = Vec::new();
    let mut repeated = false;
    for (i, version) in versions.iter().enumerate() {
        let at = at.index(i);
        let this = text(&version["name"]);
        repeated |= seen.contains(&this);
        seen.push(this);
        label(errors, &at.child("name"), this, this, "");
        let schema_path = at.child("schema");
        let schema_path = schema_path.child("openAPIV3Schema");
        let schema = &version["schema"]["openAPIV3Schema"];
        if is_set(schema) {
            structural(schema, Place::Root, &schema_path, errors);
        } else {
            errors.required(&schema_path, "");
        }
        let columns = at.child("additionalPrinterColumns");
        for (j, column) in list(&version["additionalPrinterColumns"])
            .iter()
            .enumerate()
        {
            printer_column(column, &columns.index(j), errors);
        }
        scale(&version["subresources"]["scale"], &at, errors);
    }
    // The whole list would be shown, as upstream does; its size helps nobody.
    let shown = Value::from(seen);
    if repeated {
        errors.invalid(&at, &shown, "must contain unique version names");
    }
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.invalid(&at, &shown, why);
    }
}

fn printer_column(column: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["name", "jsonPath"] {
        if text(&column[field]).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    const TYPES: &[&str] = &["integer", "number", "string", "boolean", "date"];
    match text(&column["type"]) {
        "" => errors.required(
            &path.child("type"),
            &format!("must be one of {}", TYPES.join(",")),
        ),
        kind if !TYPES.contains(&kind) => {
            let why = format!("must be one of {}", TYPES.join(","));
            errors.invalid_text(&path.child("type"), kind, &why);
        }
        _ => {}
    }
}

fn scale(scale: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !is_set(scale) {
        return;
    }
    let path = path.child("subresources");
    let path = path.child("scale");
    for (field, root) in [
        ("specReplicasPath", ".spec."),
        ("statusReplicasPath", ".status."),
    ] {
        let value = text(&scale[field]);
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else if !value.starts_with(root) {
            let why = format!("should be a json path under {}", root.trim_end_matches('.'));
            errors.invalid_text(&path.child(field), value, &why);
        }
    }
}

/// Where in a schema a node stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Field,
    Item,
}

/// The rules of structural schemas: every node has a type, and lists and maps say what they hold.
fn structural(schema: &Value, place: Place, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(&schema["type"]);
    let free = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    let at = path.child("type");
    match (kind, place) {
        ("", Place::Root) => errors.required(&at, "must not be empty at the root"),
        ("", Place::Field) if !free => {
            errors.required(&at, "must not be empty for specified object fields");
        }
        ("", Place::Item) if !free => {
            errors.required(&at, "must not be empty for specified array items");
        }
        ("" | "object" | "array" | "string" | "integer" | "number" | "boolean", _) => {
            if place == Place::Root && !["", "object"].contains(&kind) {
                errors.invalid_text(&at, kind, "must be object at the root");
            }
        }
        _ => {
            let known = ["array", "boolean", "integer", "number", "object", "string"];
            errors.not_supported(&at, &schema["type"], &known);
        }
    }
    if is_set(&schema["$ref"]) {
        errors.forbidden(&path.child("$ref"), "$ref is not supported");
    }
    if schema["uniqueItems"] == true {
        let why =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.child("uniqueItems"), why);
    }
    let additional = &schema["additionalProperties"];
    if is_set(additional) && is_set(&schema["properties"]) {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.forbidden(&path.child("additionalProperties"), why);
    }
    if kind == "array" && !is_set(&schema["items"]) {
        errors.required(&path.child("items"), "must be specified");
    }
    list_type(schema, kind, path, errors);
    let properties = path.child("properties");
    for (key, property) in map(&schema["properties"]) {
        if place == Place::Root && ["apiVersion", "kind", "metadata"].contains(&key.as_str()) {
            continue;
        }
        structural(property, Place::Field, &properties.key(key), errors);
    }
    if additional.is_object() {
        let at = path.child("additionalProperties");
        structural(additional, Place::Field, &at, errors);
    }
    if schema["items"].is_object() {
        structural(&schema["items"], Place::Item, &path.child("items"), errors);
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && let Err(error) = regex::Regex::new(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.invalid_text(&path.child("pattern"), pattern, &why);
    }
}

fn list_type(schema: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let given = &schema["x-kubernetes-list-type"];
    let at = path.child("x-kubernetes-list-type");
    let keys = list(&schema["x-kubernetes-list-map-keys"]);
    let keys_path = path.child("x-kubernetes-list-map-keys");
    if is_set(given) && kind != "array" {
        let why = "must be array if x-kubernetes-list-type is specified";
        errors.invalid_text(&path.child("type"), kind, why);
    }
    match text(given) {
        "map" if keys.is_empty() => {
            errors.required(
                &keys_path,
                "must not be empty if x-kubernetes-list-type is map",
            );
        }
        "map" | "set" | "atomic" | "" => {}
        _ => errors.not_supported(&at, given, &["atomic", "set", "map"]),
    }
    if text(given) == "map" {
        for (i, key) in keys.iter().enumerate() {
            if !is_set(&schema["items"]["properties"][text(key)]) {
                let why = "entries must all be names of item properties";
                errors.invalid(&keys_path.index(i), key, why);
            }
        }
    } else if !keys.is_empty() {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.invalid_text(&at, text(given), why);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validation::tests::created;

    fn definition(schema: Value) -> Value {
        json!({"metadata": {"name": "tabs.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"kind": "Tab", "plural": "tabs"}, "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
    }

    fn wrong(object: Value) -> Vec<String> {
        created("apiextensions.k8s.io", "CustomResourceDefinition", object)
    }

    #[test]
    fn definitions() {
        let good =
            definition(json!({"type": "object", "properties": {"spec": {"type": "object"}}}));
        assert_eq!(wrong(good.clone()), Vec::<String>::new());
        let mut kept = good.clone();
        kept["metadata"]["finalizers"] = json!(["customresourcecleanup.apiextensions.k8s.io"]);
        assert_eq!(wrong(kept), Vec::<String>::new());
        let mut bad = good.clone();
        bad["metadata"]["name"] = "other.example.com".into();
        bad["spec"]["versions"][0]["storage"] = false.into();
        assert_eq!(
            wrong(bad),
            [
                "metadata.name: Invalid value: \"other.example.com\": must be spec.names.plural+\".\"+spec.group",
                "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version"
            ]
        );
        let bad = definition(
            json!({"type": "object", "properties": {"spec": {}, "l": {"type": "array"}}}),
        );
        let at = "spec.versions[0].schema.openAPIV3Schema.properties";
        assert_eq!(
            wrong(bad),
            [
                format!("{at}[l].items: Required value: must be specified"),
                format!(
                    "{at}[spec].type: Required value: must not be empty for specified object fields"
                ),
            ]
        );
    }
}
