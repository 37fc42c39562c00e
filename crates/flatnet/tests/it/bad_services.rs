//! Objects that cannot be served: refused or told of, and harmless to all others.

use crate::cluster::{eventually, root, text};
use crate::services::{PATIENCE, cluster_ip, curl, field, soon, with_examples};

/// A Service in one line of JSON.
fn manifest(name: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "{name}"}}, "spec": {spec}}}"#
    )
}

/// A slice of `service` with these addresses.
fn slice(service: &str, family: &str, addresses: impl Iterator<Item = String>) -> String {
    let endpoints: Vec<String> = addresses
        .map(|address| format!(r#"{{"addresses": ["{address}"]}}"#))
        .collect();
    format!(
        r#"{{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {{"name": "{service}-x", "labels": {{"kubernetes.io/service-name": "{service}"}}}},
        "addressType": "{family}", "ports": [{{"port": 8080}}], "endpoints": [{}]}}"#,
        endpoints.join(",")
    )
}

#[test]
fn what_cannot_be_served_is_told_and_hurts_nobody_else() {
    if !root("what_cannot_be_served_is_told_and_hurts_nobody_else") {
        return;
    }
    let cluster = with_examples("svcbad", "nftables", "2");
    let folder = tempfile::tempdir().unwrap();
    let apply = |object: &str| {
        let file = folder.path().join("object.json");
        std::fs::write(&file, object).unwrap();
        let output = cluster
            .kubectl(&["apply", "-f", file.to_str().unwrap()])
            .output()
            .unwrap();
        (output.status.success(), text(&output))
    };
    // What Kubernetes refuses is refused, in its words.
    for (object, says) in [
        (
            manifest("a", r#"{"ports": [{"port": 70000}]}"#),
            "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            manifest(
                "a",
                r#"{"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}"#,
            ),
            "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
        ),
        (
            manifest(
                "a",
                r#"{"clusterIP": "10.244.0.9", "ports": [{"port": 80}]}"#,
            ),
            "failed to allocate IP 10.244.0.9",
        ),
        (
            slice("big", "IPv6", std::iter::once("10.0.0.1".to_owned())),
            "must be an IPv6 address",
        ),
        (
            slice(
                "big",
                "IPv4",
                (0..1001).map(|n| format!("10.7.{}.{}", n / 250, n % 250 + 1)),
            ),
            "Too many: 1001: must have at most 1000 items",
        ),
    ] {
        let (applied, said) = apply(&object);
        assert!(!applied && said.contains(says), "{says}\n{said}");
    }
    // What it takes is served, or told of.
    let longest = "a".repeat(63);
    let shared = r#"{"externalIPs": ["198.51.100.7"], "ports": [{"port": 80}]}"#;
    for object in [
        manifest(&longest, r#"{"ports": [{"port": 80}]}"#),
        manifest("big", r#"{"ports": [{"port": 80}]}"#),
        slice(
            "big",
            "IPv4",
            (0..1000).map(|n| format!("10.7.{}.{}", n / 250, n % 250 + 1)),
        ),
        manifest("first", shared),
    ] {
        let (applied, said) = apply(&object);
        assert!(applied, "{said}");
    }
    // The older has the address: creation times are whole seconds.
    let created = field(&cluster, "first", ".metadata.creationTimestamp");
    eventually("another second", PATIENCE, || {
        let (applied, said) = apply(&manifest("second", shared));
        assert!(applied, "{said}");
        let later = field(&cluster, "second", ".metadata.creationTimestamp") > created;
        if !later {
            cluster.kube(&["delete", "service", "second"]);
        }
        later.then_some(())
    });
    for mode in ["nftables", "iptables"] {
        cluster.run(&["up", "--services", mode]);
        soon("every kernel is as planned", || {
            let shown = cluster.json(&["show", "services"]);
            let rows = shown["frontends"].as_array().cloned().unwrap_or_default();
            let bad: Vec<_> = rows.iter().filter(|row| row["state"] != "ok").collect();
            let big = rows.iter().find(|row| row["service"] == "default/big");
            let count = big
                .and_then(|row| row["endpoints"].as_array())
                .map(Vec::len);
            let good = bad.is_empty() && shown["others"] == serde_json::json!({});
            let whole = good && count == Some(1000);
            whole
                .then_some(())
                .ok_or_else(|| format!("{mode}: {count:?} {bad:?} {}", shown["others"]))
        });
        let problems = cluster.json(&["status"])["services"]["problems"].clone();
        let told = problems[0].as_str().unwrap_or_default();
        assert!(
            told.starts_with("Service default/second: spec.externalIPs[0]: 198.51.100.7"),
            "{problems}"
        );
        assert_eq!(problems.as_array().map(Vec::len), Some(1), "{problems}");
        let url = format!("http://{}/hostname", cluster_ip(&cluster, "my-app"));
        soon("the others answer", || curl(&cluster, "caller", &[&url]));
    }
    // Both nodes see it, and it is told once.
    eventually("an Event on the one that lost", PATIENCE, || {
        let told = cluster.kube(&["describe", "service", "second"]);
        let count = told.matches("belongs to Service default/first").count();
        (count == 1).then_some(())
    });
    // A configuration that cannot be read is told where one looks, and the last one stays.
    let configure = |from: &str, to: &str| {
        let map = ["get", "configmap", "flatnet", "-n", "kube-system", "-o"];
        let text = cluster.kube(&[&map[..], &["json"]].concat());
        let (applied, said) = apply(&text.replace(from, to));
        assert!(applied, "{said}");
    };
    let configuration = || cluster.json(&["status"])["configuration"].clone();
    configure("mode: iptables", "mode: iptabels");
    let told = configuration();
    let wanted = r#"services.mode: "iptabels" is not known; did you mean "iptables"?"#;
    assert!(told.as_str().unwrap_or_default().contains(wanted), "{told}");
    eventually("an Event on the ConfigMap", PATIENCE, || {
        let map = ["describe", "configmap", "flatnet", "-n", "kube-system"];
        let told = cluster.kube(&map);
        (told.matches(wanted).count() == 1).then_some(())
    });
    configure("mode: iptabels", "mode: iptables");
    assert_eq!(configuration(), serde_json::Value::Null);
    cluster.check_is_green();
    cluster.down();
}
