//! `metadata`: names, labels, annotations, finalizers, owners.

use serde_json::Value;

use super::common::{is_set, labels, list, map, name, text};
use super::field::{Errors, Path};
use super::names;
use crate::Kind;

/// Most bytes all annotations of an object may have.
const ANNOTATIONS_MAX: usize = 256 * 1024;

fn name_check(kind: &Kind) -> fn(&str) -> Vec<String> {
    match (kind.group.as_str(), kind.kind.as_str()) {
        _ if kind.custom.is_some() => names::dns1123_subdomain,
        ("", "Namespace" | "Service") | ("apps", "StatefulSet") => names::dns1123_label,
        ("rbac.authorization.k8s.io", _) => names::path_segment,
        ("networking.k8s.io", "IPAddress") => |text| match text.parse::<std::net::IpAddr>() {
            Ok(_) => Vec::new(),
            Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
        },
        _ => names::dns1123_subdomain,
    }
}

/// A generated name gets letters after its dash, so the dash may end the prefix.
fn masked(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(start) if !start.is_empty() => format!("{start}a"),
        _ => prefix.to_owned(),
    }
}

pub(super) fn create(kind: &Kind, meta: &Value, errors: &mut Errors) {
    let path = Path::root("metadata");
    let check = name_check(kind);
    let prefix = text(&meta["generateName"]);
    if !prefix.is_empty() {
        for sentence in check(&masked(prefix)) {
            errors.invalid_text(&path.child("generateName"), prefix, &sentence);
        }
    }
    if text(&meta["name"]).is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
    } else {
        name(errors, &path.child("name"), &meta["name"], check);
    }
    let namespace = path.child("namespace");
    match (kind.namespaced, text(&meta["namespace"])) {
        (true, "") => errors.required(&namespace, ""),
        (true, _) => name(errors, &namespace, &meta["namespace"], names::dns1123_label),
        (false, "") => {}
        (false, _) => errors.forbidden(&namespace, "not allowed on this type"),
    }
    common(meta, errors);
    finalizers(kind, meta, errors);
}

pub(super) fn update(kind: &Kind, new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::root("metadata");
    if is_set(&old["deletionTimestamp"]) {
        let known = list(&old["finalizers"]);
        let added: Vec<&str> = list(&new["finalizers"])
            .iter()
            .filter(|f| !known.contains(f))
            .map(text)
            .collect();
        if !added.is_empty() {
            let added: Vec<String> = added.iter().map(|f| super::field::quote(f)).collect();
            let sentence = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden(&path.child("finalizers"), &sentence);
        }
    }
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        // What a client leaves out, the server fills in from what is stored.
        if is_set(&new[field]) && is_set(&old[field]) && new[field] != old[field] {
            errors.invalid(&path.child(field), &new[field], "field is immutable");
        }
    }
    common(new, errors);
    finalizers(kind, new, errors);
}

fn common(meta: &Value, errors: &mut Errors) {
    let path = Path::root("metadata");
    labels(errors, &path.child("labels"), &meta["labels"]);
    annotations(meta, errors);
    owners(meta, errors);
}

fn annotations(meta: &Value, errors: &mut Errors) {
    let path = Path::root("metadata");
    let path = path.child("annotations");
    let mut size = 0;
    for (key, value) in map(&meta["annotations"]) {
        size += key.len() + text(value).len();
        for sentence in names::qualified_name(&key.to_lowercase()) {
            errors.invalid_text(&path, key, &sentence);
        }
    }
    if size > ANNOTATIONS_MAX {
        errors.too_long(&path, ANNOTATIONS_MAX);
    }
}

fn owners(meta: &Value, errors: &mut Errors) {
    let path = Path::root("metadata");
    let path = path.child("ownerReferences");
    let mut controller: Option<String> = None;
    for owner in list(&meta["ownerReferences"]) {
        if text(&owner["apiVersion"]).is_empty() {
            let why = "version must not be empty";
            errors.invalid_text(&path.child("apiVersion"), "", why);
        }
        for field in ["kind", "name", "uid"] {
            if text(&owner[field]).is_empty() {
                errors.invalid_text(&path.child(field), "", "must not be empty");
            }
        }
        if owner["apiVersion"] == "v1" && owner["kind"] == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.invalid(&path, owner, why);
        }
        if owner["controller"] == true {
            let this = format!("{}/{}", text(&owner["kind"]), text(&owner["name"]));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    errors.invalid_shown(&path, shown_owners(list(&meta["ownerReferences"])), &why);
                }
            }
        }
    }
}

/// Owners as Go writes them.
fn shown_owners(owners: &[Value]) -> String {
    let shown = owners.iter().map(|owner| {
        let known = [
            "apiVersion",
            "kind",
            "name",
            "uid",
            "controller",
            "blockOwnerDeletion",
        ];
        let fields = known.iter().filter_map(|field| {
            let value = owner.get(field)?;
            Some(format!("\"{field}\":{value}"))
        });
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    });
    format!("[{}]", shown.collect::<Vec<_>>().join(","))
}

fn finalizers(kind: &Kind, meta: &Value, errors: &mut Errors) {
    let path = Path::root("metadata");
    let path = path.child("finalizers");
    let all = list(&meta["finalizers"]);
    for finalizer in all {
        name(errors, &path, finalizer, names::qualified_name);
    }
    // CustomResourceDefinitions and what they define are free in how they name theirs.
    let free = kind.custom.is_some() || kind.kind == "CustomResourceDefinition";
    for (i, finalizer) in all.iter().enumerate().filter(|_| !free) {
        let this = text(finalizer);
        let standard = ["kubernetes", "orphan", "foregroundDeletion"].contains(&this);
        if !this.contains('/') && !standard {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid_text(&path.index(i), this, why);
        }
    }
    let has = |word: &str| all.iter().any(|f| f == word);
    if has("orphan") && has("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(&path, &meta["finalizers"], why);
    }
}
