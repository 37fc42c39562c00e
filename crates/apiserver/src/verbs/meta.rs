//! Helpers on untyped metadata.

use objects::{Kind, Object};

/// A string of `metadata`, or empty.
pub fn get<'a>(object: &'a Object, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata` as a map; made where it is missing or is no map.
pub fn map(object: &mut Object) -> &mut serde_json::Map<String, Object> {
    if !object.is_object() {
        *object = Object::Object(serde_json::Map::new());
    }
    if !object["metadata"].is_object() {
        object["metadata"] = Object::Object(serde_json::Map::new());
    }
    match &mut object["metadata"] {
        Object::Object(map) => map,
        _ => unreachable!("set to a map above"),
    }
}

/// Sets `metadata.field`, or removes it where `value` is null.
pub fn set(object: &mut Object, field: &str, value: Object) {
    if value.is_null() {
        map(object).remove(field);
    } else {
        map(object).insert(field.to_owned(), value);
    }
}

/// The list at a path, which is not made where it is missing.
pub fn array_mut<'a>(object: &'a mut Object, path: &[&str]) -> Option<&'a mut Vec<Object>> {
    path.iter()
        .try_fold(object, |at, step| at.get_mut(step))?
        .as_array_mut()
}

/// The finalizers.
pub fn finalizers(object: &Object) -> Vec<&str> {
    object["metadata"]["finalizers"]
        .as_array()
        .map(|list| list.iter().filter_map(Object::as_str).collect())
        .unwrap_or_default()
}

/// True where deletion has begun.
pub fn deleting(object: &Object) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// True for kinds whose `metadata.generation` counts changes of what is wanted.
pub fn counts_generation(kind: &Kind) -> bool {
    kind.custom.is_some()
        || matches!(
            kind.group.as_str(),
            "apps"
                | "batch"
                | "networking.k8s.io"
                | "apiextensions.k8s.io"
                | "discovery.k8s.io"
                | "policy"
        )
        || (kind.group.is_empty() && kind.plural == "pods")
}

/// True where the two differ in what is wanted: anything but metadata and status.
pub fn wants_differ(old: &Object, new: &Object) -> bool {
    let rest = |object: &Object| {
        let mut copy = object.clone();
        if let Some(map) = copy.as_object_mut() {
            for name in ["metadata", "status", "apiVersion", "kind"] {
                map.remove(name);
            }
        }
        copy
    };
    rest(old) != rest(new)
}

/// True where nothing but the bookkeeping of managers' times differs.
pub fn same(old: &Object, new: &Object) -> bool {
    let plain = |object: &Object| {
        let mut copy = object.clone();
        if let Some(list) = array_mut(&mut copy, &["metadata", "managedFields"]) {
            for line in list {
                if let Some(map) = line.as_object_mut() {
                    map.remove("time");
                }
            }
        }
        if let Some(map) = copy.get_mut("metadata").and_then(Object::as_object_mut) {
            map.remove("resourceVersion");
        }
        copy
    };
    plain(old) == plain(new)
}
