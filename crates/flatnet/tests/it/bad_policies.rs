//! Policies that cannot be understood: refused or told of, closed, and harmless to all others.

use crate::cluster::{eventually, root, text};
use crate::services::{PATIENCE, cluster_ip, curl, soon, with_examples};

/// A policy in one line of JSON.
fn policy(name: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {{"name": "{name}"}}, "spec": {spec}}}"#
    )
}

/// A policy of the cluster about the pods with `app: APP`.
fn cluster_policy(name: &str, app: &str, rules: &str) -> String {
    format!(
        r#"{{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {{"name": "{name}"}}, "spec": {{"tier": "Admin", "priority": 10,
        "subject": {{"pods": {{"podSelector": {{"matchLabels": {{"app": "{app}"}}}}}}}}, {rules}}}}}"#
    )
}

#[test]
fn a_policy_that_is_not_understood_closes_its_pods_and_no_others() {
    if !root("a_policy_that_is_not_understood_closes_its_pods_and_no_others") {
        return;
    }
    let cluster = with_examples("polbad", "nftables", "2");
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
            policy(
                "a",
                r#"{"podSelector": {}, "ingress": [{"from": [{"ipBlock":
                {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}"#,
            ),
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
        ),
        (
            policy(
                "a",
                r#"{"podSelector": {"matchExpressions": [{"key": "app", "operator": "Like"}]}}"#,
            ),
            "spec.podSelector.matchExpressions[0].operator: Invalid value: \"Like\": not a valid selector operator",
        ),
        (
            cluster_policy(
                "a",
                "backend",
                r#""ingress": [{"action": "Deny", "from": [{"nodes": {}}]}]"#,
            ),
            "unknown field \"spec.ingress[0].from[0].nodes\"",
        ),
    ] {
        let (applied, said) = apply(&object);
        assert!(!applied && said.contains(says), "{says}\n{said}");
    }
    let url = |service: &str, port: u16| {
        let ip = cluster_ip(&cluster, service);
        format!("http://{ip}:{port}/hostname")
    };
    let (backend, others) = (url("backend", 8080), url("my-app", 80));
    soon("the backend answers", || {
        curl(&cluster, "caller", &[&backend])
    });
    // The definition of ClusterNetworkPolicy lets any operator through.
    let unknown =
        r#"[{"namespaces": {"matchExpressions": [{"key": "team", "operator": "Like"}]}}]"#;
    let deny = format!(r#""ingress": [{{"action": "Deny", "from": {unknown}}}]"#);
    let (applied, said) = apply(&cluster_policy("typo", "backend", &deny));
    assert!(applied, "{said}");
    soon(
        "who is to be denied is not known: everybody is",
        || match curl(&cluster, "caller", &[&backend]) {
            Ok(said) => Err(said),
            Err(_) => Ok(()),
        },
    );
    soon("the others answer", || curl(&cluster, "caller", &[&others]));
    // Both nodes see it, and it is told once.
    let wanted = "spec.ingress[0].from[0].namespaces.matchExpressions[0].operator: \"Like\" is not known; choose In, NotIn, Exists or DoesNotExist";
    eventually("an Event on the policy", PATIENCE, || {
        let told = cluster.kube(&["describe", "cnp", "typo"]);
        (told.matches(wanted).count() == 1).then_some(())
    });
    // Of what is accepted nobody is left.
    let accept = format!(
        r#""ingress": [{{"action": "Accept", "from": {unknown}}}, {{"action": "Deny", "from": [{{"namespaces": {{}}}}]}}]"#
    );
    let (applied, said) = apply(&cluster_policy("typo", "backend", &accept));
    assert!(applied, "{said}");
    curl(&cluster, "caller", &[&backend]).unwrap_err();
    cluster.kube(&["delete", "cnp", "typo"]);
    soon("the backend answers again", || {
        curl(&cluster, "caller", &[&backend])
    });
    cluster.check_is_green();
    cluster.down();
}
