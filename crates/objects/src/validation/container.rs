//! Containers of a pod: names, images, ports, environment, probes, mounts, resources.

use serde_json::Value;

use super::common::{is_set, list, map, name, non_negative, port, port_or_name, text, word};
use super::field::{Errors, Path};
use super::names;
use crate::quantity::Quantity;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Checks the three lists of containers. `volumes` are the names of the pod's sound volumes.
pub(super) fn all(spec: &Value, volumes: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let containers = path.child("containers");
    let list_of = list(&spec["containers"]);
    if list_of.is_empty() {
        errors.required(&containers, "");
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, container) in list_of.iter().enumerate() {
        let at = containers.index(i);
        common(container, volumes, &at, errors);
        unique(container, &mut seen, &at, errors);
        lifecycle(container, &at, errors);
    }
    host_ports(list_of, &containers, errors);

    let containers = path.child("initContainers");
    for (i, container) in list(&spec["initContainers"]).iter().enumerate() {
        let at = containers.index(i);
        common(container, volumes, &at, errors);
        unique(container, &mut seen, &at, errors);
        // Each alone: one ends before the next begins.
        host_ports(std::slice::from_ref(container), &containers, errors);
        let policy = &container["restartPolicy"];
        if is_set(policy) && policy != "Always" {
            errors.not_supported(&at.child("restartPolicy"), policy, &["Always"]);
        }
        if policy == "Always" {
            lifecycle(container, &at, errors);
            continue;
        }
        for field in [
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
        ] {
            if is_set(&container[field]) {
                let why = "may not be set for init containers without restartPolicy=Always";
                errors.forbidden(&at.child(field), why);
            }
        }
    }
}

fn unique<'v>(container: &'v Value, seen: &mut Vec<&'v str>, at: &Path<'_>, errors: &mut Errors) {
    let this = text(&container["name"]);
    if seen.contains(&this) {
        errors.duplicate(&at.child("name"), &container["name"]);
    } else if !this.is_empty() {
        seen.push(this);
    }
}

fn common(container: &Value, volumes: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if text(&container["name"]).is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        name(
            errors,
            &path.child("name"),
            &container["name"],
            names::dns1123_label,
        );
    }
    let image = text(&container["image"]);
    if image.is_empty() {
        errors.required(&path.child("image"), "");
    }
    word(
        errors,
        &path.child("terminationMessagePolicy"),
        &container["terminationMessagePolicy"],
        &["File", "FallbackToLogsOnError"],
    );
    ports(container, &path.child("ports"), errors);
    environment(container, path, errors);
    mounts(container, volumes, &path.child("volumeMounts"), errors);
    word(
        errors,
        &path.child("imagePullPolicy"),
        &container["imagePullPolicy"],
        &["Always", "IfNotPresent", "Never"],
    );
    resources(&container["resources"], &path.child("resources"), errors);
    security(
        &container["securityContext"],
        &path.child("securityContext"),
        errors,
    );
}

fn ports(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, item) in list(&container["ports"]).iter().enumerate() {
        let at = path.index(i);
        let this = text(&item["name"]);
        if !this.is_empty() {
            if !names::port_name(this).is_empty() {
                name(errors, &at.child("name"), &item["name"], names::port_name);
            } else if seen.contains(&this) {
                errors.duplicate(&at.child("name"), &item["name"]);
            } else {
                seen.push(this);
            }
        }
        match item["containerPort"].as_i64() {
            None | Some(0) => errors.required(&at.child("containerPort"), ""),
            _ => port(errors, &at.child("containerPort"), &item["containerPort"]),
        }
        if item["hostPort"].as_i64().is_some_and(|p| p != 0) {
            port(errors, &at.child("hostPort"), &item["hostPort"]);
        }
        word(errors, &at.child("protocol"), &item["protocol"], PROTOCOLS);
    }
}

fn host_ports(containers: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        let at = path.index(i);
        let at = at.child("ports");
        for (j, item) in list(&container["ports"]).iter().enumerate() {
            let number = item["hostPort"].as_i64().unwrap_or_default();
            if number == 0 {
                continue;
            }
            let this = format!(
                "{}/{}/{number}",
                text(&item["protocol"]),
                text(&item["hostIP"])
            );
            if seen.contains(&this) {
                errors.duplicate(&at.index(j).child("hostPort"), &this.into());
            } else {
                seen.push(this);
            }
        }
    }
}

/// What `fieldRef` may name in an environment variable.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What it may name in a downward API file.
pub(super) const FILE_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

pub(super) fn field_ref(reference: &Value, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let at = text(&reference["fieldPath"]);
    if at.is_empty() {
        errors.required(&path.child("fieldPath"), "");
        return;
    }
    let subscript = at.strip_suffix("']").and_then(|a| a.split_once("['"));
    match subscript {
        Some(("metadata.labels" | "metadata.annotations", key)) => {
            for sentence in names::qualified_name(&key.to_lowercase()) {
                errors.invalid_text(path, key, &sentence);
            }
        }
        Some((field, _)) => {
            let why =
                format!("error converting fieldPath: field label does not support subscript: {at}");
            let _ = field;
            errors.invalid_text(&path.child("fieldPath"), at, &why);
        }
        None if known.contains(&at) => {}
        None if ENV_FIELDS.contains(&at) || FILE_FIELDS.contains(&at) => {
            errors.not_supported(&path.child("fieldPath"), &reference["fieldPath"], known);
        }
        None => {
            let why = format!("error converting fieldPath: field label not supported: {at}");
            errors.invalid_text(&path.child("fieldPath"), at, &why);
        }
    }
}

fn key_ref(reference: &Value, path: &Path<'_>, errors: &mut Errors) {
    name(
        errors,
        &path.child("name"),
        &reference["name"],
        names::dns1123_subdomain,
    );
    if text(&reference["key"]).is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        name(
            errors,
            &path.child("key"),
            &reference["key"],
            names::config_map_key,
        );
    }
}

fn environment(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let env = path.child("env");
    for (i, variable) in list(&container["env"]).iter().enumerate() {
        let at = env.index(i);
        if text(&variable["name"]).is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            name(
                errors,
                &at.child("name"),
                &variable["name"],
                names::env_var_name,
            );
        }
        if is_set(&variable["valueFrom"]) {
            value_from(variable, &at.child("valueFrom"), errors);
        }
    }
    let from = path.child("envFrom");
    for (i, source) in list(&container["envFrom"]).iter().enumerate() {
        let at = from.index(i);
        if !text(&source["prefix"]).is_empty() {
            name(
                errors,
                &at.child("prefix"),
                &source["prefix"],
                names::env_var_name,
            );
        }
        let mut sources = 0;
        for field in ["configMapRef", "secretRef"] {
            if is_set(&source[field]) {
                sources += 1;
                let at = at.child(field);
                let at = at.child("name");
                if text(&source[field]["name"]).is_empty() {
                    errors.required(&at, "");
                } else {
                    let check = names::dns1123_subdomain;
                    name(errors, &at, &source[field]["name"], check);
                }
            }
        }
        match sources {
            0 => errors.invalid_text(
                &from,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            ),
            1 => {}
            _ => errors.invalid_text(
                &from,
                "",
                "may not have more than one field specified at a time",
            ),
        }
    }
}

fn value_from(variable: &Value, path: &Path<'_>, errors: &mut Errors) {
    let from = &variable["valueFrom"];
    let mut sources = 0;
    for field in [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ] {
        let reference = &from[field];
        if !is_set(reference) {
            continue;
        }
        sources += 1;
        let at = path.child(field);
        match field {
            "fieldRef" => field_ref(reference, ENV_FIELDS, &at, errors),
            "resourceFieldRef" if text(&reference["resource"]).is_empty() => {
                errors.required(&at.child("resource"), "");
            }
            "configMapKeyRef" | "secretKeyRef" => key_ref(reference, &at, errors),
            _ => {}
        }
    }
    if sources == 0 {
        let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid_text(path, "", why);
    } else if !text(&variable["value"]).is_empty() {
        errors.invalid_text(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid_text(
            path,
            "",
            "may not have more than one field specified at a time",
        );
    }
}

fn mounts(container: &Value, volumes: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, mount) in list(&container["volumeMounts"]).iter().enumerate() {
        let at = path.index(i);
        let (volume, place) = (text(&mount["name"]), text(&mount["mountPath"]));
        if volume.is_empty() {
            errors.required(&at.child("name"), "");
        }
        if !volumes.contains(&volume) {
            errors.not_found(&at.child("name"), &volume.into());
        }
        if place.is_empty() {
            errors.required(&at.child("mountPath"), "");
        }
        if seen.contains(&place) {
            errors.invalid_text(&at.child("mountPath"), place, "must be unique");
        }
        seen.push(place);
        for field in ["subPath", "subPathExpr"] {
            let sub = text(&mount[field]);
            if sub.starts_with('/') {
                errors.invalid_text(&path.child(field), sub, "must be a relative path");
            }
            if sub.split('/').any(|step| step == "..") {
                errors.invalid_text(&path.child(field), sub, "must not contain '..'");
            }
        }
        if is_set(&mount["mountPropagation"]) {
            let known = ["Bidirectional", "HostToContainer", "None"];
            let at = at.child("mountPropagation");
            word(errors, &at, &mount["mountPropagation"], &known);
        }
    }
}

/// Requests and limits: quantities that are not negative, requests within limits.
pub(super) fn resources(resources: &Value, path: &Path<'_>, errors: &mut Errors) {
    for kind in ["limits", "requests"] {
        let at = path.child(kind);
        for (resource, value) in map(&resources[kind]) {
            let place = at.key(resource);
            for sentence in names::qualified_name(resource) {
                errors.invalid_text(&place, resource, &sentence);
            }
            let standard = ["cpu", "memory", "ephemeral-storage"].contains(&resource.as_str())
                || resource.starts_with("hugepages-");
            if !resource.contains('/') && !standard {
                let why = "must be a standard resource type or fully qualified";
                errors.invalid_text(&place, resource, why);
                errors.invalid_text(
                    &place,
                    resource,
                    "must be a standard resource for containers",
                );
            }
            let Some(quantity) = Quantity::from_value(value) else {
                continue;
            };
            if quantity.nanos() < 0 {
                errors.invalid(&place, value, "must be greater than or equal to 0");
            }
            if resource.contains('/') && quantity.nanos() % 1_000_000_000 != 0 {
                // Extended resources are things, and things are counted.
                errors.invalid(&place, value, "must be an integer");
            }
            let limit = Quantity::from_value(&resources["limits"][resource]);
            if kind == "requests" && limit.is_some_and(|l| quantity.nanos() > l.nanos()) {
                let limit = text(&resources["limits"][resource]);
                let why = format!("must be less than or equal to {resource} limit of {limit}");
                errors.invalid(&at, value, &why);
            }
        }
    }
}

fn security(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup"] {
        if let Some(id) = context[field].as_i64()
            && !(0..=i64::from(i32::MAX)).contains(&id)
        {
            let why = "must be between 0 and 2147483647, inclusive";
            errors.invalid(&path.child(field), &context[field], why);
        }
    }
    if context["allowPrivilegeEscalation"] == false && context["privileged"] == true {
        let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.invalid(path, context, why);
    }
}

fn lifecycle(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let hooks = path.child("lifecycle");
    for hook in ["postStart", "preStop"] {
        if is_set(&container["lifecycle"][hook]) {
            handler(&container["lifecycle"][hook], &hooks.child(hook), errors);
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if is_set(&container[kind]) {
            probe(&container[kind], kind, &path.child(kind), errors);
        }
    }
}

fn probe(probe: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    handler(probe, path, errors);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        non_negative(errors, &path.child(field), &probe[field]);
    }
    let grace = &probe["terminationGracePeriodSeconds"];
    let at = path.child("terminationGracePeriodSeconds");
    if grace.as_i64().is_some_and(|g| g <= 0) {
        errors.invalid(&at, grace, "must be greater than 0");
    }
    if kind == "readinessProbe" {
        if is_set(grace) {
            errors.invalid(&at, grace, "must not be set for readinessProbes");
        }
        return;
    }
    if probe["successThreshold"].as_i64().is_some_and(|n| n != 1) {
        errors.invalid(
            &path.child("successThreshold"),
            &probe["successThreshold"],
            "must be 1",
        );
    }
}

fn handler(handler: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut found = false;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = &handler[kind];
        if !is_set(action) {
            continue;
        }
        let at = path.child(kind);
        if found {
            errors.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match kind {
            "exec" if list(&action["command"]).is_empty() => {
                errors.required(&at.child("command"), "");
            }
            "httpGet" => {
                if text(&action["path"]).is_empty() {
                    errors.required(&at.child("path"), "");
                }
                port_or_name(errors, &at.child("port"), &action["port"]);
                let scheme = &action["scheme"];
                if !["HTTP", "HTTPS"].contains(&text(scheme)) {
                    errors.not_supported(&at.child("scheme"), scheme, &["HTTP", "HTTPS"]);
                }
            }
            "tcpSocket" | "grpc" => port_or_name(errors, &at.child("port"), &action["port"]),
            _ => {}
        }
    }
    if !found {
        errors.required(path, "must specify a handler type");
    }
}
