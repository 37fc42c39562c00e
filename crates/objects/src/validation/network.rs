//! Ingresses and IngressClasses.

use serde_json::Value;

use super::common::{immutable, is_set, list, name, port, text, word};
use super::field::{Errors, Path};
use super::names;

pub(super) fn ingress(object: &Value, new: bool, errors: &mut Errors) {
    let spec = &object["spec"];
    let path = Path::root("spec");
    let rules = list(&spec["rules"]);
    if rules.is_empty() && !is_set(&spec["defaultBackend"]) {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.invalid(&path, &spec["rules"], why);
    }
    if is_set(&spec["defaultBackend"]) {
        backend(
            &spec["defaultBackend"],
            &path.child("defaultBackend"),
            errors,
        );
    }
    let at = path.child("rules");
    for (i, rule) in rules.iter().enumerate() {
        ingress_rule(rule, &at.index(i), errors);
    }
    let at = path.child("tls");
    for (i, tls) in list(&spec["tls"]).iter().enumerate() {
        let at = at.index(i);
        let hosts = at.child("hosts");
        for (j, item) in list(&tls["hosts"]).iter().enumerate() {
            host(item, &hosts.index(j), errors);
        }
        if !text(&tls["secretName"]).is_empty() {
            name(
                errors,
                &at.child("secretName"),
                &tls["secretName"],
                names::dns1123_subdomain,
            );
        }
    }
    let class = &spec["ingressClassName"];
    if is_set(class) {
        name(
            errors,
            &path.child("ingressClassName"),
            class,
            names::dns1123_subdomain,
        );
    }
    let annotation = &object["metadata"]["annotations"]["kubernetes.io/ingress.class"];
    if new && is_set(annotation) && is_set(class) && annotation != class {
        let at = Path::root("annotations");
        let why = "must match `ingressClassName` when both are specified";
        errors.invalid(&at.child("kubernetes.io/ingress.class"), annotation, why);
    }
}

fn host(host: &Value, path: &Path<'_>, errors: &mut Errors) {
    if text(host).contains('*') {
        name(errors, path, host, names::wildcard_dns1123_subdomain);
    } else {
        name(errors, path, host, names::dns1123_subdomain);
    }
}

fn ingress_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !text(&rule["host"]).is_empty() {
        let at = path.child("host");
        if text(&rule["host"]).parse::<std::net::IpAddr>().is_ok() {
            errors.invalid(&at, &rule["host"], "must be a DNS name, not an IP address");
        }
        host(&rule["host"], &at, errors);
    }
    if !is_set(&rule["http"]) {
        return;
    }
    let http = path.child("http");
    let paths = http.child("paths");
    if list(&rule["http"]["paths"]).is_empty() {
        errors.required(&paths, "");
    }
    for (i, item) in list(&rule["http"]["paths"]).iter().enumerate() {
        http_path(item, &paths.index(i), errors);
    }
}

fn http_path(item: &Value, path: &Path<'_>, errors: &mut Errors) {
    const KINDS: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
    let at = path.child("path");
    let place = text(&item["path"]);
    if !is_set(&item["pathType"]) {
        errors.required(&path.child("pathType"), "pathType must be specified");
        return;
    }
    match text(&item["pathType"]) {
        "Exact" | "Prefix" => {
            if !place.starts_with('/') {
                errors.invalid_text(&at, place, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if place.contains(part) {
                    errors.invalid_text(&at, place, &format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if place.ends_with(end) {
                    errors.invalid_text(&at, place, &format!("cannot end with '{end}'"));
                }
            }
        }
        "ImplementationSpecific" if !place.is_empty() && !place.starts_with('/') => {
            errors.invalid_text(&at, place, "must be an absolute path");
        }
        "ImplementationSpecific" => {}
        _ => errors.not_supported(&path.child("pathType"), &item["pathType"], KINDS),
    }
    backend(&item["backend"], &path.child("backend"), errors);
}

fn backend(backend: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (resource, service) = (&backend["resource"], &backend["service"]);
    match (is_set(resource), is_set(service)) {
        (true, true) => {
            errors.invalid_text(path, "", "cannot set both resource and service backends");
        }
        (true, false) => {
            let at = path.child("resource");
            for field in ["kind", "name"] {
                if text(&resource[field]).is_empty() {
                    errors.required(&at.child(field), "");
                }
            }
        }
        (false, true) => {
            let at = path.child("service");
            if text(&service["name"]).is_empty() {
                errors.required(&at.child("name"), "");
            } else {
                name(
                    errors,
                    &at.child("name"),
                    &service["name"],
                    names::dns1123_label,
                );
            }
            let (word, number) = (&service["port"]["name"], &service["port"]["number"]);
            let number = number.as_i64().unwrap_or_default();
            let at = at.child("port");
            match (text(word).is_empty(), number == 0) {
                (false, false) => {
                    errors.invalid_text(path, "", "cannot set both port name & port number");
                }
                (false, true) => name(errors, &at.child("name"), word, names::port_name),
                (true, false) => port(errors, &at.child("number"), &number.into()),
                (true, true) => errors.required(path, "port name or number is required"),
            }
        }
        (false, false) => {
            errors.invalid_text(path, "", "resource or service backend is required");
        }
    }
}

pub(super) fn ingress_class(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let path = Path::root("spec");
    let at = path.child("controller");
    let controller = text(&object["spec"]["controller"]);
    if let Some(old) = old {
        immutable(
            errors,
            &at,
            &object["spec"]["controller"],
            &old["spec"]["controller"],
        );
    }
    if controller.len() > 250 {
        errors.too_long(&at, 250);
    }
    match controller.split_once('/') {
        _ if controller.is_empty() => errors.required(&at, ""),
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            for sentence in names::dns1123_subdomain(host) {
                errors.invalid_text(&at, host, &sentence);
            }
        }
        _ => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.invalid_text(&at, controller, why);
        }
    }
    let parameters = &object["spec"]["parameters"];
    if !is_set(parameters) {
        return;
    }
    let at = path.child("parameters");
    for field in ["kind", "name"] {
        if text(&parameters[field]).is_empty() {
            errors.required(&at.child(field), "");
        }
    }
    word(
        errors,
        &at.child("scope"),
        &parameters["scope"],
        &["Cluster", "Namespace"],
    );
    let namespace = &parameters["namespace"];
    match text(&parameters["scope"]) {
        "Namespace" if !is_set(namespace) => {
            let why = "`parameters.scope` is set to 'Namespace'";
            errors.required(&at.child("namespace"), why);
        }
        "Cluster" if is_set(namespace) => {
            let why = "`parameters.scope` is set to 'Cluster'";
            errors.forbidden(&at.child("namespace"), why);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validation::tests::created;

    fn wrong(group: &str, kind: &str, spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "a", "namespace": "default"}, "spec": spec});
        created(group, kind, object)
    }

    #[test]
    fn ingresses() {
        let ingress = |spec| wrong("networking.k8s.io", "Ingress", spec);
        assert_eq!(
            ingress(json!({})),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
        assert_eq!(
            ingress(
                json!({"rules": [{"host": "1.2.3.4", "http": {"paths": [{"path": "x", "pathType": "Prefix", "backend": {"service": {"name": "a"}}}, {"backend": {}}]}}]})
            ),
            [
                "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
                "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
                "spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified"
            ]
        );
    }
}
