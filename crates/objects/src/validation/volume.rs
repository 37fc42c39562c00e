//! Volumes of a pod.

use serde_json::Value;

use super::common::{is_set, list, name, text};
use super::container::{FILE_FIELDS, field_ref};
use super::field::{Errors, Path};
use super::names;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Checks the volumes; the names of those that are sound come back.
pub(super) fn all<'v>(spec: &'v Value, path: &Path<'_>, errors: &mut Errors) -> Vec<&'v str> {
    let mut sound = Vec::new();
    for (i, volume) in list(&spec["volumes"]).iter().enumerate() {
        let at = path.index(i);
        let before = errors.len();
        source(volume, &at, errors);
        let this = text(&volume["name"]);
        if this.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            name(
                errors,
                &at.child("name"),
                &volume["name"],
                names::dns1123_label,
            );
        }
        if sound.contains(&this) {
            errors.duplicate(&at.child("name"), &volume["name"]);
        }
        if errors.len() == before {
            sound.push(this);
        }
    }
    sound
}

fn mode(source: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = source[field].as_i64()
        && !(0..=0o777).contains(&mode)
    {
        errors.invalid(&path.child(field), &source[field], MODE);
    }
}

/// A path below the volume, that does not climb out of it.
fn relative(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    let place = text(value);
    if place.is_empty() {
        errors.required(path, "");
        return;
    }
    if place.starts_with('/') {
        errors.invalid_text(path, place, "must be a relative path");
    }
    if place.split('/').any(|step| step == "..") {
        errors.invalid_text(path, place, "must not contain '..'");
    }
    if place.starts_with("..") && !place.starts_with("../") && place != ".." {
        errors.invalid_text(path, place, "must not start with '..'");
    }
}

fn key_paths(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let items = path.child("items");
    for (i, item) in list(&source["items"]).iter().enumerate() {
        let at = items.index(i);
        if text(&item["key"]).is_empty() {
            errors.required(&at.child("key"), "");
        }
        relative(&item["path"], &at.child("path"), errors);
        mode(item, "mode", &at, errors);
    }
}

fn downward_items(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let items = path.child("items");
    for (i, item) in list(&source["items"]).iter().enumerate() {
        let at = items.index(i);
        relative(&item["path"], &at.child("path"), errors);
        mode(item, "mode", &at, errors);
        match (is_set(&item["fieldRef"]), is_set(&item["resourceFieldRef"])) {
            (true, true) => errors.invalid_text(
                &at,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ),
            (true, false) => {
                // Upstream leaves the item out of this path.
                let at = path.child("fieldRef");
                field_ref(&item["fieldRef"], FILE_FIELDS, &at, errors);
            }
            (false, true) => {}
            (false, false) => errors.required(
                &at.child("fieldRef"),
                "one of fieldRef and resourceFieldRef is required",
            ),
        }
    }
}

fn source(volume: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut kinds: Vec<(&String, &Value)> = super::common::map(volume)
        .filter(|(k, v)| *k != "name" && is_set(v))
        .collect();
    // Upstream looks at emptyDir and hostPath first, so the later ones are the surplus.
    kinds.sort_by_key(|(k, _)| !["emptyDir", "hostPath"].contains(&k.as_str()));
    if kinds.is_empty() {
        errors.required(path, "must specify a volume type");
    }
    for (i, (kind, source)) in kinds.into_iter().enumerate() {
        let at = path.child(kind);
        if i > 0 {
            errors.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        match kind.as_str() {
            "hostPath" => {
                let place = text(&source["path"]);
                if place.is_empty() {
                    errors.required(&at.child("path"), "");
                    continue;
                }
                if place.split('/').any(|step| step == "..") {
                    errors.invalid_text(&at.child("path"), place, "must not contain '..'");
                }
                let known = [
                    "",
                    "BlockDevice",
                    "CharDevice",
                    "Directory",
                    "DirectoryOrCreate",
                    "File",
                    "FileOrCreate",
                    "Socket",
                ];
                let host_type = &source["type"];
                if is_set(host_type) && !known.contains(&text(host_type)) {
                    errors.not_supported(&at.child("type"), host_type, &known);
                }
            }
            "secret" => {
                if text(&source["secretName"]).is_empty() {
                    errors.required(&at.child("secretName"), "");
                }
                mode(source, "defaultMode", &at, errors);
                key_paths(source, &at, errors);
            }
            "configMap" => {
                if text(&source["name"]).is_empty() {
                    errors.required(&at.child("name"), "");
                }
                mode(source, "defaultMode", &at, errors);
                key_paths(source, &at, errors);
            }
            "downwardAPI" => {
                mode(source, "defaultMode", &at, errors);
                downward_items(source, &at, errors);
            }
            "projected" => projected(source, &at, errors),
            "persistentVolumeClaim" if text(&source["claimName"]).is_empty() => {
                errors.required(&at.child("claimName"), "");
            }
            _ => {}
        }
    }
}

fn projected(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    mode(source, "defaultMode", path, errors);
    let sources = path.child("sources");
    for (i, item) in list(&source["sources"]).iter().enumerate() {
        let at = sources.index(i);
        for (j, (kind, source)) in super::common::map(item)
            .filter(|(_, v)| is_set(v))
            .enumerate()
        {
            let at = at.child(kind);
            if j > 0 {
                errors.forbidden(&at, "may not specify more than 1 volume type");
            }
            match kind.as_str() {
                "secret" | "configMap" => {
                    if text(&source["name"]).is_empty() {
                        errors.required(&at.child("name"), "");
                    }
                    key_paths(source, &at, errors);
                }
                "downwardAPI" => downward_items(source, &at, errors),
                "serviceAccountToken" => {
                    // Upstream leaves the source out of this path.
                    relative(&source["path"], &path.child("path"), errors);
                    let seconds = source["expirationSeconds"].as_i64().unwrap_or(3600);
                    let place = at.child("expirationSeconds");
                    if seconds < 600 {
                        let why = "may not specify a duration less than 10 minutes";
                        errors.invalid(&place, &seconds.into(), why);
                    } else if seconds > 1 << 32 {
                        let why = "may not specify a duration larger than 2^32 seconds";
                        errors.invalid(&place, &seconds.into(), why);
                    }
                }
                _ => {}
            }
        }
    }
}
