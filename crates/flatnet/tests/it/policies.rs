//! Policies in a whole cluster, whose pods hang on a bridge: judged from the first packet of the
//! first init container on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, eventually, root};

const IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.53";
const PATIENCE: Duration = Duration::from_secs(60);

/// A pod whose init container connects first, and whose container does it again.
fn caller(role: &str, mute: bool, node: &str, to: &str) -> Value {
    let container = |name: &str| {
        json!({
            "name": name, "image": IMAGE,
            "command": ["/agnhost", "connect", to, "--timeout=8s"],
        })
    };
    let name = format!("{role}-{mute}-{node}");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"role": role, "mute": mute.to_string()}},
        "spec": {
            "nodeName": node, "restartPolicy": "Never",
            "initContainers": [container("first")], "containers": [container("second")],
        },
    })
}

fn policies() -> [Value; 2] {
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name}, "spec": spec,
        })
    };
    [
        policy(
            "mute",
            json!({
                "podSelector": {"matchLabels": {"mute": "true"}}, "policyTypes": ["Egress"],
            }),
        ),
        policy(
            "server",
            json!({
                "podSelector": {"matchLabels": {"role": "server"}},
                "ingress": [{
                    "from": [{"podSelector": {"matchLabels": {"role": "friend"}}}],
                    "ports": [{"port": 8080}],
                }],
            }),
        ),
    ]
}

fn apply(cluster: &Cluster, objects: &[Value]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    std::fs::write(&file, list.to_string()).unwrap();
    cluster.kube(&["apply", "-f", file.to_str().unwrap()]);
}

fn ended(cluster: &Cluster, pod: &str) -> (String, i64) {
    eventually(&format!("{pod} has ended"), PATIENCE, || {
        let pod: Value =
            serde_json::from_str(&cluster.kube(&["get", "pod", pod, "-o", "json"])).unwrap();
        let phase = pod["status"]["phase"].as_str()?.to_owned();
        let first = &pod["status"]["initContainerStatuses"][0]["state"]["terminated"];
        let ended = ["Succeeded", "Failed"].contains(&phase.as_str());
        ended.then(|| (phase, first["exitCode"].as_i64().unwrap_or(-1)))
    })
}

#[test]
fn the_first_packet_of_an_init_container_is_judged() {
    if !root("the_first_packet_of_an_init_container_is_judged") {
        return;
    }
    let cluster = Cluster::up("policies", &["--pod-mode", "bridge", "--nodes", "2"]);
    let server = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "server", "labels": {"role": "server"}},
        "spec": {
            "nodeName": "node1", "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "server", "image": IMAGE, "command": ["/agnhost", "netexec"],
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
            }],
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"},
        "spec": {
            "selector": {"role": "server"}, "ports": [{"port": 80, "targetPort": 8080}],
        },
    });
    apply(&cluster, &policies());
    apply(&cluster, &[server, service]);
    // The kubelet's probes are its node's own traffic.
    cluster.kube(&[
        "wait",
        "--for=condition=Ready",
        "pod/server",
        "--timeout=60s",
    ]);
    let ip = cluster.kube(&[
        "get",
        "service",
        "server",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ]);
    let to = format!("{ip}:80");
    let mut callers = Vec::new();
    for node in ["node1", "node2"] {
        for (role, mute) in [("friend", false), ("friend", true), ("foe", false)] {
            callers.push(caller(role, mute, node, &to));
        }
    }
    apply(&cluster, &callers);
    for node in ["node1", "node2"] {
        let friend = ended(&cluster, &format!("friend-false-{node}"));
        assert_eq!(friend, ("Succeeded".to_owned(), 0), "on {node}");
        for denied in ["friend-true", "foe-false"] {
            let (phase, first) = ended(&cluster, &format!("{denied}-{node}"));
            assert!(
                phase == "Failed" && first > 0,
                "{denied} on {node}: {first}"
            );
        }
    }

    let shown = cluster.json(&["show", "policies"]);
    let rows = shown["pods"].as_array().unwrap();
    let row = rows.iter().find(|row| row["pod"] == "default/server");
    let row = row.unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(
        (&row["node"], &row["ingress"], &row["egress"]),
        (&"node1".into(), &"1 rule".into(), &"open".into())
    );
    assert_eq!(shown["others"], json!({}));
    let netns = cluster.paths.name.clone();
    let node = format!("fn-{netns}-node1");
    let delete = [
        "netns",
        "exec",
        &node,
        "nft",
        "delete",
        "table",
        "inet",
        "flatnet-policy",
    ];
    let removed = std::process::Command::new("ip").args(delete).status();
    assert!(removed.unwrap().success());
    eventually("the agent heals it", PATIENCE, || {
        let output = cluster
            .flatnet(&["show", "policies", "pod/server"])
            .output();
        output.unwrap().status.success().then_some(())
    });
    assert_eq!(cluster.json(&["status"])["policies"]["networkPolicies"], 2);
    cluster.check_is_green();
    cluster.down();
}
