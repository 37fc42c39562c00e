//! NetworkPolicies as people write them and see them work: stock kubectl, curl in pods.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, root, text};
use crate::services::soon;
use crate::{policies_documents, policies_living};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");

#[test]
fn policies_hold_as_people_write_them() {
    if !root("policies_hold_as_people_write_them") {
        return;
    }
    let cluster = Cluster::up("pol", &["--nodes", "2", "--dual-stack"]);
    the_exercise(&cluster);
    policies_documents::hold(&cluster);
    the_examples(&cluster);
    cluster_wide(&cluster);
    policies_living::hold(&cluster);
    check_tells(&cluster);
    cluster.down();
}

#[test]
fn policies_hold_on_a_bridge() {
    if !root("policies_hold_on_a_bridge") {
        return;
    }
    let cluster = Cluster::up("polbr", &["--nodes", "2", "--pod-mode", "bridge"]);
    // Both pods on one node: what a bridge passes on is no business of the router's.
    cluster.run(&["kubectl", "--", "cordon", "node2"]);
    the_exercise(&cluster);
    cluster.run(&["kubectl", "--", "uncordon", "node2"]);
    check_tells(&cluster);
    cluster.down();
}

/// Applies an object.
pub fn apply(cluster: &Cluster, object: &Value) {
    let (applied, said) = try_apply(cluster, &object.to_string());
    assert!(applied, "{said}");
}

/// Applies what is written, or says why not.
pub fn try_apply(cluster: &Cluster, written: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("object.yaml");
    std::fs::write(&file, written).unwrap();
    let output = cluster.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    let output = { output }.output().unwrap();
    (output.status.success(), text(&output))
}

/// One try from a pod, `pod/NAME` or `deploy/NAME`, or from the client outside (`client`).
pub fn ask(cluster: &Cluster, namespace: &str, from: &str, url: &str) -> Result<String, String> {
    let words = [
        "curl",
        "-sS",
        "--connect-timeout",
        "1",
        "--max-time",
        "4",
        url,
    ];
    let mut command: Command = match from {
        "client" => cluster.flatnet(&[&["client", "--"][..], &words].concat()),
        _ => cluster.kubectl(&[&["-n", namespace, "exec", from, "--"][..], &words].concat()),
    };
    let output = command.output().unwrap();
    if output.status.success() {
        Ok(text(&output))
    } else {
        Err(text(&output))
    }
}

/// The answer, once there is one.
pub fn passes(cluster: &Cluster, namespace: &str, from: &str, url: &str) -> String {
    let what = format!("{namespace} {from} reaches {url}");
    soon(&what, || ask(cluster, namespace, from, url))
}

/// Nobody answers, sooner or later: dropped, not refused.
pub fn denied(cluster: &Cluster, namespace: &str, from: &str, url: &str) {
    let what = format!("{namespace} {from} is kept from {url}");
    soon(&what, || match ask(cluster, namespace, from, url) {
        Err(why) if why.contains("(28)") => Ok(()),
        Err(other) => Err(other),
        Ok(_) => Err("it answers".into()),
    });
}

/// A pod that answers on ports, and can ask.
pub fn serving(namespace: &str, name: &str, node: &str, ports: &[u16]) -> Value {
    let envs: Vec<Value> = ports
        .iter()
        .map(|port| json!({ "name": format!("SERVE_PORT_{port}"), "value": name }))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": name } },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "serve",
                "image": "registry.k8s.io/e2e-test-images/agnhost:2.53",
                "args": ["porter"],
                "env": envs,
            }],
        },
    })
}

/// Makes pods, each in its namespace, and waits until they are ready.
pub fn pods(cluster: &Cluster, all: &[Value]) {
    apply(
        cluster,
        &json!({ "apiVersion": "v1", "kind": "List", "items": all }),
    );
    for pod in all {
        let (namespace, name) = (&pod["metadata"]["namespace"], &pod["metadata"]["name"]);
        let pod = format!("pod/{}", name.as_str().unwrap());
        let namespace = namespace.as_str().unwrap();
        let ready = ["wait", "--for=condition=Ready", "--timeout=60s", "-n"];
        cluster.kube(&[&ready[..], &[namespace, &pod]].concat());
    }
}

/// A namespace with labels.
pub fn namespace(cluster: &Cluster, name: &str, labels: &[&str]) {
    cluster.kube(&["create", "namespace", name]);
    if !labels.is_empty() {
        cluster.kube(&[&["label", "namespace", name][..], labels].concat());
    }
}

/// A pod's addresses, the family of the cluster first.
pub fn ips(cluster: &Cluster, namespace: &str, pod: &str) -> Vec<String> {
    let path = "jsonpath={.status.podIPs[*].ip}";
    let said = cluster.kube(&["-n", namespace, "get", pod, "-o", path]);
    said.split_whitespace().map(str::to_owned).collect()
}

/// The first pod of a Deployment.
fn of_deployment(cluster: &Cluster, app: &str) -> String {
    let label = format!("app={app}");
    let all = cluster.kube(&["get", "pods", "-l", &label, "-o", "name"]);
    all.lines().next().unwrap().to_owned()
}

/// "Diagnose Network Policy Issue", word for word; names are looked up by a later command.
fn the_exercise(cluster: &Cluster) {
    cluster.kube(&["create", "deployment", "frontend", "--image=nginx"]);
    cluster.kube(&["create", "deployment", "backend", "--image=nginx"]);
    cluster.kube(&["expose", "deployment", "backend", "--port=80"]);
    for name in ["frontend", "backend"] {
        let deployment = format!("deployment/{name}");
        cluster.kube(&["rollout", "status", &deployment, "--timeout=60s"]);
    }
    let path = "jsonpath={.spec.clusterIP}";
    let ip = cluster.kube(&["get", "service", "backend", "-o", path]);
    let service = format!("http://{ip}/");
    let (from, backend) = ("deploy/frontend", of_deployment(cluster, "backend"));
    let direct: Vec<String> = ips(cluster, "default", &backend)
        .iter()
        .map(|ip| {
            if ip.contains(':') {
                format!("http://[{ip}]/")
            } else {
                format!("http://{ip}/")
            }
        })
        .collect();
    assert!(passes(cluster, "default", from, &service).contains("Welcome to nginx"));

    let deny = format!("{EXAMPLES}/policies/deny-all.yaml");
    cluster.kube(&["apply", "-f", &deny]);
    denied(cluster, "default", from, &service);
    for url in &direct {
        denied(cluster, "default", from, url);
    }
    // Debug the issue.
    let list = cluster.kube(&["get", "networkpolicy"]);
    assert!(
        list.contains("NAME       POD-SELECTOR   AGE\ndeny-all   <none>"),
        "{list}"
    );
    assert_eq!(
        cluster
            .kube(&["get", "netpol", "-o", "name"])
            .lines()
            .count(),
        1
    );
    let described = cluster.kube(&["describe", "networkpolicy", "deny-all"]);
    let ends = "\
Spec:
  PodSelector:     <none> (Allowing the specific traffic to all pods in this namespace)
  Allowing ingress traffic:
    <none> (Selected pods are isolated for ingress connectivity)
  Allowing egress traffic:
    <none> (Selected pods are isolated for egress connectivity)
  Policy Types: Ingress, Egress
";
    assert!(described.ends_with(ends), "{described}");
    let frontend = of_deployment(cluster, "frontend");
    let (code, said) = cluster.fails(&["trace", &frontend, "svc/backend"]);
    assert_eq!(code, 1);
    let why = format!(
        "NetworkPolicy default/deny-all isolates {} for egress, and no rule of it allows it",
        frontend.replace("pod/", "pod default/")
    );
    assert!(said.contains(&why), "{said}");

    // Only frontend to backend.
    let rule = |side: &str, peer: &str| {
        json!([{ side: [{ "podSelector": { "matchLabels": { "app": peer } } }],
            "ports": [{ "protocol": "TCP", "port": 80 }] }])
    };
    let policy = |name: &str, app: &str, direction: &str, rules: Value| {
        let mut spec = json!({ "podSelector": { "matchLabels": { "app": app } },
            "policyTypes": [direction] });
        spec[direction.to_lowercase()] = rules;
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": name }, "spec": spec })
    };
    apply(
        cluster,
        &policy("in", "backend", "Ingress", rule("from", "frontend")),
    );
    denied(cluster, "default", from, &service);
    apply(
        cluster,
        &policy("out", "frontend", "Egress", rule("to", "backend")),
    );
    assert!(passes(cluster, "default", from, &service).contains("Welcome to nginx"));
    for url in &direct {
        passes(cluster, "default", from, url);
    }
    let back = format!("http://{}/", ips(cluster, "default", &frontend)[0]);
    denied(cluster, "default", "deploy/backend", &back);
    let said = cluster.run(&["trace", &frontend, "svc/backend"]);
    assert!(
        said.contains("NetworkPolicy default/in spec.ingress[0] allows it"),
        "{said}"
    );
    // Restore the default.
    cluster.kube(&["delete", "networkpolicy", "--all"]);
    passes(cluster, "default", "deploy/backend", &back);
    cluster.kube(&[
        "delete",
        "deployment,service",
        "-l",
        "app in (frontend,backend)",
    ]);
}

/// The manifests of examples/policies, each doing what its first lines say.
fn the_examples(cluster: &Cluster) {
    namespace(cluster, "shop", &[]);
    let run = |file: &str| {
        let file = format!("{EXAMPLES}/{file}");
        cluster.kube(&["-n", "shop", "apply", "-f", &file]);
    };
    run("services/two-tiers.yaml");
    run("services/my-app.yaml");
    run("services/local.yaml");
    for name in ["backend", "frontend", "my-app"] {
        let deployment = format!("deployment/{name}");
        let status = ["rollout", "status", &deployment, "--timeout=60s"];
        cluster.kube(&[&["-n", "shop"][..], &status].concat());
    }
    let path = "jsonpath={.spec.clusterIP}";
    let ip = cluster.kube(&["-n", "shop", "get", "service", "backend", "-o", path]);
    let backend = format!("http://{ip}:8080/hostname");
    run("policies/deny-all.yaml");
    denied(cluster, "shop", "deploy/frontend", &backend);
    run("policies/frontend-to-backend.yaml");
    passes(cluster, "shop", "deploy/frontend", &backend);
    denied(cluster, "shop", "deploy/my-app", &backend);
    denied(cluster, "monitoring", "pod/prom", &backend);
    run("policies/from-namespace.yaml");
    passes(cluster, "monitoring", "pod/prom", &backend);
    denied(cluster, "production", "pod/backend", &backend);
    // The client's own address, kept by a Service that stays on the node.
    let kept = "http://10.0.1.10:30081/clientip";
    denied(cluster, "", "client", kept);
    run("policies/from-addresses.yaml");
    let seen = passes(cluster, "", "client", kept);
    assert!(seen.starts_with("203.0.113.10"), "{seen}");
    let file = format!("{EXAMPLES}/policies/from-addresses.yaml");
    let narrowed = std::fs::read_to_string(file).unwrap();
    let narrowed = narrowed.replace("203.0.113.128/25", "203.0.113.0/28");
    let narrowed = narrowed.replace("metadata:", "metadata:\n  namespace: shop");
    assert!(try_apply(cluster, &narrowed).0);
    denied(cluster, "", "client", kept);
}

/// Tiers Admin and Baseline around the namespaces' own policies.
fn cluster_wide(cluster: &Cluster) {
    namespace(cluster, "guests", &["tenant=guest"]);
    let mut names = serving("kube-system", "names", "node2", &[53, 80]);
    names["metadata"]["labels"]["k8s-app"] = "kube-dns".into();
    pods(
        cluster,
        &[names, serving("guests", "guest", "node1", &[80])],
    );
    let url = |namespace: &str, pod: &str, port: u16| {
        let ip = &ips(cluster, namespace, pod)[0];
        format!("http://{ip}:{port}/")
    };
    let asked = url("kube-system", "pod/names", 53);
    let other = url("kube-system", "pod/names", 80);
    let guest = url("guests", "pod/guest", 80);
    let (from, caller) = ("pod/guest", "pod/caller");
    passes(cluster, "guests", from, &other);
    passes(cluster, "staging", caller, &guest);
    let folder = format!("{EXAMPLES}/policies");
    cluster.kube(&["apply", "-f", &format!("{folder}/cluster-wide.yaml")]);
    // Admin: denied whatever a namespace says, and passed on.
    denied(cluster, "guests", from, &other);
    passes(cluster, "guests", from, &asked);
    let run =
        |file: &str| cluster.kube(&["-n", "guests", "apply", "-f", &format!("{folder}/{file}")]);
    run("deny-all.yaml");
    denied(cluster, "guests", from, &asked);
    run("dns-egress.yaml");
    passes(cluster, "guests", from, &asked);
    denied(cluster, "guests", from, &other);
    // Baseline: only where no NetworkPolicy is about the pod.
    cluster.kube(&["-n", "guests", "delete", "networkpolicy", "--all"]);
    denied(cluster, "staging", caller, &guest);
    let open = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "open", "namespace": "guests" },
        "spec": { "podSelector": {}, "ingress": [{}] } });
    apply(cluster, &open);
    passes(cluster, "staging", caller, &guest);
    let list = cluster.kube(&["get", "cnp"]);
    let row = |name: &str| -> Vec<&str> {
        let line = list.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().collect()
    };
    assert_eq!(row("guests-stay-out")[1..3], ["Admin", "10"], "{list}");
    assert_eq!(row("guests-are-closed")[1..3], ["Baseline", "10"], "{list}");
    let described = cluster.kube(&["describe", "cnp", "guests-stay-out"]);
    assert!(described.contains("the-rest-is-not"), "{described}");
    cluster.kube(&["delete", "cnp", "--all"]);
    passes(cluster, "guests", from, &other);
    // It stood in for a server of names, and is an endpoint of that Service as long as it is there.
    cluster.kube(&["-n", "kube-system", "delete", "pod", "names", "--now"]);
}

/// `check` proves policies on a live cluster: what they deny must not pass, all else must.
fn check_tells(cluster: &Cluster) {
    let deny = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": { "name": "check-closed" },
        "spec": {
            "tier": "Admin", "priority": 1,
            "subject": { "pods": {
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "flatnet-check" } },
                "podSelector": { "matchLabels": { "flatnet.io/check-serves": "true" } },
            } },
            "ingress": [{ "action": "Deny", "from": [{ "namespaces": {} }],
                "protocols": [{ "tcp": { "destinationPort": { "range": {
                    "start": 1, "end": 65535 } } } }] }],
        },
    });
    apply(cluster, &deny);
    let output = cluster.flatnet(&["check", "-o", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let by = "TCP denied by ClusterNetworkPolicy check-closed, tier Admin (ingress)";
    for path in ["same-node", "other-node", "cluster-ip"] {
        let mut of_path = rows.iter().filter(|row| row["path"] == path);
        assert!(of_path.any(|row| row["denied"] == by), "{path}: {rows:?}");
    }
    let mut free = rows.iter().filter(|row| row["path"] == "from-node");
    assert!(free.all(|row| row["denied"].is_null()), "{rows:?}");
    cluster.kube(&["delete", "cnp", "check-closed"]);
    cluster.check_is_green();
}

/// How long something may take that is waited for by its event.
pub const LONG: Duration = Duration::from_secs(30);
