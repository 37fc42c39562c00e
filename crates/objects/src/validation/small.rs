//! Nodes, ConfigMaps, Secrets and role bindings.

use serde_json::Value;

use super::common::{cidr, immutable, is_set, list, map, name, same, text};
use super::field::{Errors, Path};
use super::{names, pod};

/// Most bytes a ConfigMap or Secret may hold.
const DATA_MAX: usize = 1024 * 1024;

fn keys(object: &Value, field: &str, errors: &mut Errors) -> usize {
    let path = Path::root(field);
    let mut size = 0;
    for (key, value) in map(&object[field]) {
        for sentence in names::config_map_key(key) {
            errors.invalid_text(&path.key(key), key, &sentence);
        }
        size += text(value).len();
    }
    size
}

fn frozen(new: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        errors.forbidden(&Path::root("immutable"), WHY);
    }
    for field in fields {
        if !same(&new[*field], &old[*field]) {
            errors.forbidden(&Path::root(field), WHY);
        }
    }
}

pub(super) fn config_map(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    if let Some(old) = old {
        frozen(object, old, &["data", "binaryData"], errors);
    }
    let path = Path::root("data");
    for (key, _) in map(&object["data"]) {
        if is_set(&object["binaryData"][key]) {
            errors.invalid_text(
                &path.key(key),
                key,
                "duplicate of key present in binaryData",
            );
        }
    }
    // base64 takes four bytes for three.
    let size = keys(object, "data", errors) + keys(object, "binaryData", errors) / 4 * 3;
    if size > DATA_MAX {
        errors.too_long(&Path::root(""), DATA_MAX);
    }
}

pub(super) fn secret(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    if let Some(old) = old {
        immutable(errors, &Path::root("type"), &object["type"], &old["type"]);
        frozen(object, old, &["data"], errors);
    }
    let path = Path::root("data");
    if keys(object, "data", errors) / 4 * 3 > DATA_MAX {
        errors.too_long(&path, DATA_MAX);
    }
    let data = &object["data"];
    let mut needs = |keys: &[&str]| {
        for key in keys {
            if !is_set(&data[*key]) {
                errors.required(&path.key(key), "");
            }
        }
    };
    match text(&object["type"]) {
        "kubernetes.io/tls" => needs(&["tls.crt", "tls.key"]),
        "kubernetes.io/dockerconfigjson" => needs(&[".dockerconfigjson"]),
        "kubernetes.io/dockercfg" => needs(&[".dockercfg"]),
        "kubernetes.io/ssh-auth" => needs(&["ssh-privatekey"]),
        "kubernetes.io/basic-auth" if !is_set(&data["username"]) && !is_set(&data["password"]) => {
            needs(&["username", "password"]);
        }
        "kubernetes.io/service-account-token" => {
            const KEY: &str = "kubernetes.io/service-account.name";
            if text(&object["metadata"]["annotations"][KEY]).is_empty() {
                let metadata = Path::root("metadata");
                let annotations = metadata.child("annotations");
                errors.required(&annotations.key(KEY), "");
            }
        }
        _ => {}
    }
}

pub(super) fn node(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    pod::taints(object, errors);
    let path = Path::root("spec");
    let at = path.child("podCIDRs");
    let cidrs = list(&object["spec"]["podCIDRs"]);
    let mut parsed = Vec::new();
    for (i, range) in cidrs.iter().enumerate() {
        parsed.extend(cidr(errors, &at.index(i), range));
    }
    let dual = matches!(parsed.as_slice(), [a, b] if a.addr().is_ipv4() != b.addr().is_ipv4());
    if cidrs.len() > 1 && parsed.len() == cidrs.len() && !dual {
        let why = "may specify no more than one CIDR for each IP family";
        errors.invalid(&at, &object["spec"]["podCIDRs"], why);
    }
    let Some(old) = old else {
        return;
    };
    let before = list(&old["spec"]["podCIDRs"]);
    if !before.is_empty() && before != cidrs {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(&at, why);
    }
    let provider = text(&old["spec"]["providerID"]);
    if !provider.is_empty() && object["spec"]["providerID"] != provider {
        let why = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(&path.child("providerID"), why);
    }
}

/// RoleBindings and ClusterRoleBindings.
pub(super) fn binding(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let role = &object["roleRef"];
    let path = Path::root("roleRef");
    if let Some(old) = old
        && !same(role, &old["roleRef"])
    {
        errors.invalid(&path, role, "cannot change roleRef");
    }
    if role["apiGroup"] != GROUP {
        errors.not_supported(&path.child("apiGroup"), &role["apiGroup"], &[GROUP]);
    }
    let known: &[&str] = if text(&object["metadata"]["namespace"]).is_empty() {
        &["ClusterRole"]
    } else {
        &["Role", "ClusterRole"]
    };
    if !known.contains(&text(&role["kind"])) {
        errors.not_supported(&path.child("kind"), &role["kind"], known);
    }
    if text(&role["name"]).is_empty() {
        errors.required(&path.child("name"), "");
    }
    let path = Path::root("subjects");
    for (i, subject) in list(&object["subjects"]).iter().enumerate() {
        let at = path.index(i);
        if text(&subject["name"]).is_empty() {
            errors.required(&at.child("name"), "");
        }
        let group = text(&subject["apiGroup"]);
        match text(&subject["kind"]) {
            "ServiceAccount" => {
                if !text(&subject["name"]).is_empty() {
                    name(
                        errors,
                        &at.child("name"),
                        &subject["name"],
                        names::dns1123_subdomain,
                    );
                }
                if !group.is_empty() {
                    errors.not_supported(&at.child("apiGroup"), &subject["apiGroup"], &[""]);
                }
                if text(&subject["namespace"]).is_empty() {
                    errors.required(&at.child("namespace"), "");
                }
            }
            "User" | "Group" if group != GROUP => {
                errors.not_supported(&at.child("apiGroup"), &subject["apiGroup"], &[GROUP]);
            }
            "User" | "Group" => {}
            _ => {
                let known = ["ServiceAccount", "User", "Group"];
                errors.not_supported(&at.child("kind"), &subject["kind"], &known);
            }
        }
    }
}
