//! CustomResourceDefinitions: from the applied object to served kinds.
//!
//! Structure, value validation, defaults, list types, printer columns and the status and
//! scale subresources of a CRD take effect. Rules written in CEL (`x-kubernetes-validations`)
//! are kept and shown by `kubectl explain`, but only a few are evaluated: [`warnings`] says so to
//! whoever applies the CRD. There is no conversion by webhook either; versions share one stored
//! form.

use std::sync::Arc;

use serde_json::Value;

use crate::{Kind, Object, Schema, Status};

/// What a served version of a CRD adds to its kind.
#[derive(Clone, Debug, Default)]
pub struct CustomVersion {
    /// The list's kind.
    pub list_kind: String,
    /// apiVersion objects are stored as, whatever version they were sent in.
    pub storage_api_version: String,
    /// `subresources.scale`.
    pub scale: Option<ScalePaths>,
    /// `selectableFields`, without the leading dot.
    pub selectable_fields: Vec<String>,
    /// `additionalPrinterColumns`, as written.
    pub columns: Vec<Value>,
    /// Sentence of the `deprecationWarning` header, where the version is deprecated.
    pub deprecation: Option<String>,
}

/// Where a custom resource keeps its counts.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    /// For example `.spec.replicas`.
    pub spec_replicas: String,
    /// For example `.status.replicas`.
    pub status_replicas: String,
    /// For example `.status.selector`.
    pub selector: Option<String>,
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The value at a path of names, for example `.spec.replicas`.
pub fn at_path<'a>(object: &'a Object, path: &str) -> Option<&'a Value> {
    path.split('.')
        .filter(|step| !step.is_empty())
        .try_fold(object, |value, step| value.get(step))
}

/// Writes a value at a path of names, making the objects on the way.
pub fn set_path(object: &mut Object, path: &str, value: Value) {
    let mut place = object;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        place = &mut place[step];
    }
    *place = value;
}

/// What a CRD asks for that is not done, for the `Warning` headers of the answer.
pub fn warnings(definition: &Object) -> Vec<String> {
    let spec = &definition["spec"];
    let mut warnings = Vec::new();
    for version in spec["versions"].as_array().into_iter().flatten() {
        if has_rules(&version["schema"]) {
            warnings.push(format!(
                "version {}: x-kubernetes-validations rules are stored but not evaluated",
                text(&version["name"])
            ));
        }
    }
    if spec["conversion"]["strategy"] == "Webhook" {
        warnings
            .push("spec.conversion: webhooks are not called; all versions share one form".into());
    }
    warnings
}

/// Whether it has rules that are not evaluated.
fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.iter().any(|(key, value)| {
            let unknown = |rules: &Vec<Value>| !rules.iter().all(crate::schema::is_known);
            let rules = value
                .as_array()
                .filter(|_| key == "x-kubernetes-validations");
            rules.map_or_else(|| has_rules(value), unknown)
        }),
        Value::Array(list) => list.iter().any(has_rules),
        _ => false,
    }
}

/// The kinds a CRD serves (one a served version).
pub fn kinds(definition: &Object) -> Result<Vec<Arc<Kind>>, Status> {
    let spec = &definition["spec"];
    let group = text(&spec["group"]);
    let versions = spec["versions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let storage = versions
        .iter()
        .find(|v| v["storage"] == true)
        .map(|v| format!("{group}/{}", text(&v["name"])))
        .unwrap_or_default();
    let served = versions.iter().filter(|v| v["served"] == true);
    Ok(served
        .map(|version| Arc::new(kind(spec, &group, &storage, version)))
        .collect())
}

fn kind(spec: &Value, group: &str, storage: &str, version: &Value) -> Kind {
    let names = &spec["names"];
    let kind = text(&names["kind"]);
    let mut singular = text(&names["singular"]);
    if singular.is_empty() {
        singular = kind.to_lowercase();
    }
    let sub = &version["subresources"];
    let subresources = ["scale", "status"]
        .into_iter()
        .filter(|s| sub.get(s).is_some_and(|v| !v.is_null()))
        .map(str::to_owned)
        .collect();
    let scale = sub
        .get("scale")
        .filter(|s| s.is_object())
        .map(|s| ScalePaths {
            spec_replicas: text(&s["specReplicasPath"]),
            status_replicas: text(&s["statusReplicasPath"]),
            selector: s["labelSelectorPath"].as_str().map(str::to_owned),
        });
    let fields = version["selectableFields"].as_array().into_iter().flatten();
    let deprecation = (version["deprecated"] == true).then(|| {
        version["deprecationWarning"].as_str().map_or_else(
            || format!("{group}/{} {kind} is deprecated", text(&version["name"])),
            str::to_owned,
        )
    });
    let custom = CustomVersion {
        list_kind: text(&names["listKind"]),
        storage_api_version: storage.to_owned(),
        scale,
        selectable_fields: fields
            .map(|f| text(&f["jsonPath"]).trim_start_matches('.').to_owned())
            .collect(),
        columns: version["additionalPrinterColumns"]
            .as_array()
            .cloned()
            .unwrap_or_default(),
        deprecation,
    };
    Kind {
        group: group.to_owned(),
        version: text(&version["name"]),
        plural: text(&names["plural"]),
        singular,
        short_names: strings(&names["shortNames"]),
        categories: strings(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        verbs: crate::kind::ALL_VERBS,
        subresources,
        schema: Arc::new(Schema::custom(
            &version["schema"]["openAPIV3Schema"],
            sub["status"].is_object(),
        )),
        custom: Some(Arc::new(custom)),
        kind,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition() -> Value {
        json!({"spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Tab", "plural": "tabs", "listKind": "TabList", "shortNames": ["tb"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "x-kubernetes-validations": [{"rule": "true"}], "properties": {
                        "size": {"type": "integer", "default": 1, "minimum": 1},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "default": "d"}}}}}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}},
                {"name": "v2", "served": false, "storage": false}]}})
    }

    #[test]
    fn a_custom_kind_is_pruned_defaulted_and_checked() {
        let kinds = kinds(&definition()).unwrap();
        assert_eq!(kinds.len(), 1);
        let kind = &kinds[0];
        assert_eq!(kind.subresources, ["scale", "status"]);
        let mut object = json!({"apiVersion": "example.com/v1", "kind": "Tab", "metadata": {"name": "a", "namespace": "b", "x": 1},
            "spec": {"free": {"any": [1]}, "list": [{"k": "a", "q": 1}, {"k": "a"}], "wrong": 1}});
        let decoded = kind.schema.decode(&mut object);
        assert_eq!(
            decoded.unknown,
            ["metadata.x", "spec.list[0].q", "spec.wrong"]
        );
        crate::kind::default_object(kind, &mut object);
        assert_eq!(
            object["spec"],
            json!({"size": 1, "free": {"any": [1]}, "list": [{"k": "a", "v": "d"}, {"k": "a", "v": "d"}]})
        );
        let error = crate::kind::validate_create(kind, &object).unwrap_err();
        assert_eq!(
            error.message,
            "Tab.example.com \"a\" is invalid: spec.list[1]: Duplicate value: {\"k\":\"a\"}"
        );
    }

    #[test]
    fn a_custom_kind_scales() {
        let kind = &kinds(&definition()).unwrap()[0];
        let mut object =
            json!({"metadata": {"name": "a"}, "spec": {"size": 2}, "status": {"size": 1}});
        let scale = crate::scale::of(kind, &object);
        assert_eq!(scale["spec"]["replicas"], 2);
        assert_eq!(scale["status"]["replicas"], 1);
        crate::scale::set(kind, &mut object, &json!({"spec": {"replicas": 5}}));
        assert_eq!(object["spec"]["size"], 5);
    }

    #[test]
    fn what_is_not_done_is_said() {
        assert_eq!(
            warnings(&definition()),
            ["version v1: x-kubernetes-validations rules are stored but not evaluated"]
        );
    }
}
