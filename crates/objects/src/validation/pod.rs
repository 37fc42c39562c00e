//! Pods and pod templates.

use serde_json::Value;

use super::common::{ip, is_set, labels, list, map, name, same, text, word};
use super::field::{Errors, Path};
use super::{container, names, volume};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A new Pod.
pub(super) fn create(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let pod = &object["spec"];
    spec(pod, true, &path, errors);
    only_in_pods(pod, &path, errors);
    if !list(&pod["ephemeralContainers"]).is_empty() {
        errors.forbidden(
            &path.child("ephemeralContainers"),
            "cannot be set on create",
        );
    }
    if !text(&pod["nodeName"]).is_empty() && !list(&pod["schedulingGates"]).is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden(&path.child("nodeName"), why);
    }
}

/// What is asked of Pods and not of templates.
fn only_in_pods(pod: &Value, path: &Path<'_>, errors: &mut Errors) {
    if text(&pod["serviceAccountName"]).is_empty() {
        let volumes = path.child("volumes");
        for (i, volume) in list(&pod["volumes"]).iter().enumerate() {
            let at = volumes.index(i);
            let at = at.child("projected");
            let at = at.child("sources");
            for (j, source) in list(&volume["projected"]["sources"]).iter().enumerate() {
                if is_set(&source["serviceAccountToken"]) {
                    let why = "must not be specified when serviceAccountName is not set";
                    errors.forbidden(&at.index(j).child("serviceAccountToken"), why);
                }
            }
        }
    }
    for field in ["containers", "initContainers"] {
        let at = path.child(field);
        for (i, container) in list(&pod[field]).iter().enumerate() {
            let image = text(&container["image"]);
            if image != image.trim() {
                let why = "must not have leading or trailing whitespace";
                errors.invalid_text(&at.index(i).child("image"), image, why);
            }
        }
    }
}

/// A template: its labels and spec.
pub(super) fn template(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    // Upstream leaves the metadata out of these paths.
    labels(
        errors,
        &path.child("labels"),
        &template["metadata"]["labels"],
    );
    for (key, _) in map(&template["metadata"]["annotations"]) {
        for sentence in names::qualified_name(&key.to_lowercase()) {
            errors.invalid_text(&path.child("annotations"), key, &sentence);
        }
    }
    spec(&template["spec"], false, &path.child("spec"), errors);
    if !list(&template["spec"]["ephemeralContainers"]).is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        let path = path.child("spec");
        errors.forbidden(&path.child("ephemeralContainers"), why);
    }
}

fn spec(spec: &Value, is_pod: bool, path: &Path<'_>, errors: &mut Errors) {
    let volumes = volume::all(spec, &path.child("volumes"), errors);
    container::all(spec, &volumes, path, errors);
    host_network(spec, is_pod, path, errors);
    word(
        errors,
        &path.child("restartPolicy"),
        &spec["restartPolicy"],
        &["Always", "OnFailure", "Never"],
    );
    word(
        errors,
        &path.child("dnsPolicy"),
        &spec["dnsPolicy"],
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    labels(errors, &path.child("nodeSelector"), &spec["nodeSelector"]);
    dns_config(spec, path, errors);
    for (field, check) in [
        (
            "serviceAccountName",
            names::dns1123_subdomain as fn(&str) -> Vec<String>,
        ),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
    ] {
        if !text(&spec[field]).is_empty() {
            name(errors, &path.child(field), &spec[field], check);
        }
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let why = "must be between 1 and 2147483647, inclusive";
        errors.invalid(&path.child("activeDeadlineSeconds"), &seconds.into(), why);
    }
    if spec["terminationGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|s| s < 0)
    {
        let at = path.child("terminationGracePeriodSeconds");
        errors.invalid(
            &at,
            &spec["terminationGracePeriodSeconds"],
            "must be greater than or equal to 0",
        );
    }
    tolerations(spec, &path.child("tolerations"), errors);
    let aliases = path.child("hostAliases");
    for (i, alias) in list(&spec["hostAliases"]).iter().enumerate() {
        let at = aliases.index(i);
        ip(errors, &at.child("ip"), &alias["ip"]);
        let hosts = at.child("hostnames");
        for (j, host) in list(&alias["hostnames"]).iter().enumerate() {
            name(errors, &hosts.index(j), host, names::dns1123_subdomain);
        }
    }
    topology(spec, &path.child("topologySpreadConstraints"), errors);
}

fn host_network(spec: &Value, is_pod: bool, path: &Path<'_>, errors: &mut Errors) {
    if spec["hostNetwork"] != true {
        return;
    }
    let containers = path.child("containers");
    for (i, container) in list(&spec["containers"]).iter().enumerate() {
        let at = containers.index(i);
        let at = at.child("ports");
        for (j, port) in list(&container["ports"]).iter().enumerate() {
            let host = port["hostPort"].as_i64().unwrap_or_default();
            let number = port["containerPort"].as_i64().unwrap_or_default();
            if (is_pod || host != 0) && host != number {
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&at.index(j).child("hostPort"), &host.into(), why);
            }
        }
    }
}

fn dns_config(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("dnsConfig");
    let config = &spec["dnsConfig"];
    let servers = list(&config["nameservers"]);
    let at = path.child("nameservers");
    if spec["dnsPolicy"] == "None" {
        if !is_set(config) {
            errors.required(&path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.required(&at, why);
            return;
        }
    }
    if servers.len() > 3 {
        errors.invalid(
            &at,
            &config["nameservers"],
            "must not have more than 3 nameservers",
        );
    }
    for (i, server) in servers.iter().enumerate() {
        ip(errors, &at.index(i), server);
    }
    let searches = list(&config["searches"]);
    let at = path.child("searches");
    if searches.len() > 32 {
        errors.invalid(
            &at,
            &config["searches"],
            "must not have more than 32 search paths",
        );
    }
    let length: usize = searches.iter().map(|s| text(s).len() + 1).sum();
    if length > 2049 {
        let why = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(&at, &config["searches"], why);
    }
    for (i, search) in searches.iter().enumerate() {
        let domain = text(search);
        if domain != "." {
            let domain = domain.strip_suffix('.').unwrap_or(domain);
            for sentence in names::dns1123_subdomain_with_underscore(domain) {
                errors.invalid_text(&at.index(i), domain, &sentence);
            }
        }
    }
    let at = path.child("options");
    for (i, option) in list(&config["options"]).iter().enumerate() {
        if text(&option["name"]).is_empty() {
            errors.required(&at.index(i), "must not be empty");
        }
    }
}

fn tolerations(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (i, toleration) in list(&spec["tolerations"]).iter().enumerate() {
        let at = path.index(i);
        let operator = text(&toleration["operator"]);
        let value = text(&toleration["value"]);
        let place = at.child("operator");
        if !text(&toleration["key"]).is_empty() {
            name(
                errors,
                &at.child("key"),
                &toleration["key"],
                names::qualified_name,
            );
        } else if operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid_text(&place, operator, why);
        }
        if is_set(&toleration["tolerationSeconds"]) && toleration["effect"] != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid_text(&at.child("effect"), text(&toleration["effect"]), why);
        }
        match operator {
            "Equal" | "" => {
                let wrong = names::label_value(value);
                if !wrong.is_empty() {
                    errors.invalid_text(&place, value, &wrong.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid_text(
                    &place,
                    value,
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" | "Lt" | "Gt" => {}
            _ => errors.not_supported(&place, &toleration["operator"], &["Equal", "Exists"]),
        }
        if !text(&toleration["effect"]).is_empty() {
            word(errors, &at.child("effect"), &toleration["effect"], EFFECTS);
        }
    }
}

fn topology(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (i, constraint) in list(&spec["topologySpreadConstraints"]).iter().enumerate() {
        let at = path.index(i);
        if constraint["maxSkew"].as_i64().unwrap_or_default() <= 0 {
            let skew = &constraint["maxSkew"];
            errors.invalid(&at.child("maxSkew"), skew, "must be greater than zero");
        }
        if text(&constraint["topologyKey"]).is_empty() {
            errors.required(&at.child("topologyKey"), "can not be empty");
        }
        let known = ["DoNotSchedule", "ScheduleAnyway"];
        let when = &constraint["whenUnsatisfiable"];
        if !known.contains(&text(when)) {
            errors.not_supported(&at.child("whenUnsatisfiable"), when, &known);
        }
        if is_set(&constraint["labelSelector"]) {
            let at = at.child("labelSelector");
            super::common::label_selector(errors, &at, &constraint["labelSelector"]);
        }
    }
}

/// What may change in a Pod's spec: images, a shorter deadline, more tolerations.
pub(super) fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let (new, old) = (&new["spec"], &old["spec"]);
    spec(new, true, &path, errors);
    for field in ["containers", "initContainers"] {
        let at = path.child(field);
        if list(&new[field]).len() != list(&old[field]).len() {
            errors.forbidden(&at, "pod updates may not add or remove containers");
            return;
        }
    }
    only_in_pods(new, &path, errors);
    let deadline = path.child("activeDeadlineSeconds");
    match (
        new["activeDeadlineSeconds"].as_i64(),
        old["activeDeadlineSeconds"].as_i64(),
    ) {
        (Some(now), Some(before)) if now > before => {
            errors.invalid(
                &deadline,
                &now.into(),
                "must be less than or equal to previous value",
            );
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.invalid(&deadline, &Value::Null, why);
        }
        _ => {}
    }
    only_added_tolerations(new, old, &path.child("tolerations"), errors);
    let mut munged = new.clone();
    for field in ["containers", "initContainers"] {
        for (i, container) in list(&old[field]).iter().enumerate() {
            if is_set(&munged[field][i]) {
                munged[field][i]["image"] = container["image"].clone();
            }
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        munged[field] = old[field].clone();
    }
    if !list(&old["schedulingGates"]).is_empty() {
        // A gated pod may still be steered.
        for field in ["nodeSelector", "affinity"] {
            munged[field] = old[field].clone();
        }
    }
    let grace = old["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or_default();
    if grace < 0 && munged["terminationGracePeriodSeconds"] == 1 {
        munged["terminationGracePeriodSeconds"] = grace.into();
    }
    if !same(&munged, old) {
        let changed: Vec<String> = super::common::map(&munged)
            .map(|(key, _)| key)
            .chain(super::common::map(old).map(|(key, _)| key))
            .filter(|key| !same(&munged[key.as_str()], &old[key.as_str()]))
            .map(|key| {
                format!(
                    "  - {key}: {}\n  + {key}: {}\n",
                    old[key.as_str()],
                    munged[key.as_str()]
                )
            })
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        let why = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            changed.concat()
        );
        errors.forbidden(&path, &why);
    }
}

fn only_added_tolerations(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    for kept in list(&old["tolerations"]) {
        let found = list(&new["tolerations"]).iter().any(|toleration| {
            let plain = |t: &Value| {
                let mut t = t.clone();
                t["tolerationSeconds"] = Value::Null;
                t
            };
            same(&plain(toleration), &plain(kept))
        });
        if !found {
            let why = "existing toleration can not be modified except its tolerationSeconds";
            errors.forbidden(path, why);
            return;
        }
    }
}

/// Taints of a Node.
pub(super) fn taints(node: &Value, errors: &mut Errors) {
    let path = Path::root("metadata");
    let path = path.child("taints");
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, taint) in list(&node["spec"]["taints"]).iter().enumerate() {
        let at = path.index(i);
        name(
            errors,
            &at.child("key"),
            &taint["key"],
            names::qualified_name,
        );
        let wrong = names::label_value(text(&taint["value"]));
        if !wrong.is_empty() {
            errors.invalid_text(&at.child("value"), text(&taint["value"]), &wrong.join(";"));
        }
        word(errors, &at.child("effect"), &taint["effect"], EFFECTS);
        let this = (text(&taint["key"]), text(&taint["effect"]));
        if seen.contains(&this) {
            errors.duplicate(&at, taint);
        }
        seen.push(this);
    }
}
