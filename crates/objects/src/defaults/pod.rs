//! Defaults of Pods and pod templates.

use serde_json::{Value, json};

use super::{items, object_in, set, set_nonzero, unset};

/// A Pod: its spec, and what only Pods get.
pub(super) fn pod(object: &mut Value) {
    let spec = object_in(object, "spec");
    pod_spec(spec);
    if spec["enableServiceLinks"].is_null() {
        spec["enableServiceLinks"] = true.into();
    }
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers"] {
        for container in items(spec, list) {
            requests_from_limits(container);
            for port in items(container, "ports").filter(|_| host_network) {
                // On the node's network a port is the node's port.
                let number = port["containerPort"].as_i64().unwrap_or_default();
                set_nonzero(port, "hostPort", number);
            }
        }
    }
    set(object_in(object, "status"), "phase", "Pending");
}

fn requests_from_limits(container: &mut Value) {
    let limits = container["resources"]["limits"].as_object().cloned();
    let Some(limits) = limits.filter(|l| !l.is_empty()) else {
        return;
    };
    let requests = object_in(&mut container["resources"], "requests");
    for (name, limit) in limits {
        set(requests, &name, limit);
    }
}

/// A pod's spec, in a Pod or a template.
pub(super) fn pod_spec(spec: &mut Value) {
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "restartPolicy", "Always");
    set(spec, "schedulerName", "default-scheduler");
    object_in(spec, "securityContext");
    if spec["terminationGracePeriodSeconds"].is_null() {
        spec["terminationGracePeriodSeconds"] = 30.into();
    }
    // The old name of the field follows the new one, and the new one the old.
    let account = if unset(&spec["serviceAccountName"]) {
        spec["serviceAccount"].clone()
    } else {
        spec["serviceAccountName"].clone()
    };
    if !unset(&account) {
        spec["serviceAccountName"] = account.clone();
        spec["serviceAccount"] = account;
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for item in items(spec, list) {
            container(item);
        }
    }
    for item in items(spec, "volumes") {
        volume(item);
    }
}

/// `latest` where an image names no tag and no digest.
fn is_latest(image: &str) -> bool {
    // What is no image's name has no tag either.
    let foreign = |c: char| c.is_whitespace() || c.is_ascii_uppercase() && !image.contains(':');
    if image.is_empty() || image.contains('@') || image.chars().any(foreign) {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.split_once(':') {
        None => true,
        Some((_, tag)) => tag == "latest",
    }
}

fn container(container: &mut Value) {
    let latest = is_latest(container["image"].as_str().unwrap_or_default());
    let pull = if latest { "Always" } else { "IfNotPresent" };
    set(container, "imagePullPolicy", pull);
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    object_in(container, "resources");
    for port in items(container, "ports") {
        set(port, "protocol", "TCP");
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container[name].is_object() {
            probe(&mut container[name]);
        }
    }
    for hook in ["postStart", "preStop"] {
        if container["lifecycle"][hook]["httpGet"].is_object() {
            http_get(&mut container["lifecycle"][hook]["httpGet"]);
        }
    }
    for variable in items(container, "env") {
        if variable["valueFrom"]["fieldRef"].is_object() {
            set(&mut variable["valueFrom"]["fieldRef"], "apiVersion", "v1");
        }
        if variable["valueFrom"]["resourceFieldRef"].is_object() {
            set(
                &mut variable["valueFrom"]["resourceFieldRef"],
                "divisor",
                "0",
            );
        }
    }
}

fn http_get(action: &mut Value) {
    set(action, "path", "/");
    set(action, "scheme", "HTTP");
}

fn probe(probe: &mut Value) {
    set_nonzero(probe, "timeoutSeconds", 1);
    set_nonzero(probe, "periodSeconds", 10);
    set_nonzero(probe, "successThreshold", 1);
    set_nonzero(probe, "failureThreshold", 3);
    if probe["httpGet"].is_object() {
        http_get(&mut probe["httpGet"]);
    }
    if probe["grpc"].is_object() && probe["grpc"]["service"].is_null() {
        probe["grpc"]["service"] = "".into();
    }
}

fn volume(volume: &mut Value) {
    let sources = volume.as_object().map_or(0, |map| {
        map.iter()
            .filter(|(k, v)| *k != "name" && !v.is_null())
            .count()
    });
    if sources == 0 {
        volume["emptyDir"] = json!({});
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if volume[source].is_object() && volume[source]["defaultMode"].is_null() {
            volume[source]["defaultMode"] = 0o644.into();
        }
    }
    if volume["hostPath"].is_object() && volume["hostPath"]["type"].is_null() {
        volume["hostPath"]["type"] = "".into();
    }
    if volume["image"].is_object() {
        let latest = is_latest(volume["image"]["reference"].as_str().unwrap_or_default());
        let pull = if latest { "Always" } else { "IfNotPresent" };
        set(&mut volume["image"], "pullPolicy", pull);
    }
    if volume["downwardAPI"].is_object() {
        field_refs(&mut volume["downwardAPI"]);
    }
    if volume["projected"].is_object() {
        for source in items(&mut volume["projected"], "sources") {
            if source["serviceAccountToken"].is_object() {
                set(
                    &mut source["serviceAccountToken"],
                    "expirationSeconds",
                    json!(3600),
                );
            }
            if source["downwardAPI"].is_object() {
                field_refs(&mut source["downwardAPI"]);
            }
        }
    }
}

fn field_refs(source: &mut Value) {
    for file in items(source, "items") {
        if file["fieldRef"].is_object() {
            set(&mut file["fieldRef"], "apiVersion", "v1");
        }
        if file["resourceFieldRef"].is_object() {
            set(&mut file["resourceFieldRef"], "divisor", "0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::tests::filled;

    #[test]
    fn a_pod_is_completed_as_upstream_does() {
        let pod = filled(
            "",
            "Pod",
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "nginx:1.25",
                "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}},
                "readinessProbe": {"httpGet": {"port": 80}}, "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}],
                "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "x"}}], "serviceAccountName": "sa"}}),
        );
        insta::assert_json_snapshot!(pod);
    }

    #[test]
    fn images_without_a_tag_are_latest() {
        for (image, latest) in [
            ("nginx", true),
            ("", false),
            (" nginx", false),
            ("localhost:5000/nginx", true),
            ("nginx:latest", true),
            ("nginx:1.2", false),
            ("nginx@sha256:00", false),
            ("localhost:5000/a:1", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn host_network_ports_are_host_ports() {
        let pod = filled(
            "",
            "Pod",
            json!({"spec": {"hostNetwork": true, "containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}}),
        );
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
    }
}
