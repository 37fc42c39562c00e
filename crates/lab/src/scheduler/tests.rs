//! What a user sees of the scheduler's choices.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;

fn cluster(nodes: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        let node: Node = serde_json::from_value(node.clone()).unwrap();
        snapshot.set_node(&Arc::new(node));
    }
    snapshot
}

fn node(name: &str, zone: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": zone}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}})
}

fn three() -> Snapshot {
    cluster(&[node("n1", "a"), node("n2", "a"), node("n3", "b")])
}

fn pod(name: &str, labels: Value, spec: Value) -> Arc<Pod> {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    let value = json!({"metadata": {"namespace": "default", "name": name, "uid": name, "labels": labels,
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true}]},
        "spec": spec});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn go(snapshot: &mut Snapshot, pod: &Arc<Pod>) -> String {
    match choose(&PodInfo::new(pod), snapshot, &NamespaceLabels::new()) {
        Ok(node) => {
            snapshot.place(pod, &node);
            node
        }
        Err(why) => why.to_string(),
    }
}

fn plain(name: &str) -> Arc<Pod> {
    pod(name, json!({"app": "web"}), json!({}))
}

#[test]
fn pods_of_one_owner_are_spread_evenly() {
    let mut snapshot = three();
    let mut counts = std::collections::BTreeMap::new();
    for i in 0..9 {
        *counts
            .entry(go(&mut snapshot, &plain(&format!("p{i}"))))
            .or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [3, 3, 3]);
}

#[test]
fn selectors_and_affinity_by_name_are_followed() {
    let mut snapshot = three();
    let by_label = pod("a", json!({}), json!({"nodeSelector": {"zone": "b"}}));
    assert_eq!(go(&mut snapshot, &by_label), "n3");
    let by_name = pod(
        "b",
        json!({}),
        json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields":
            [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]}}}}),
    );
    assert_eq!(go(&mut snapshot, &by_name), "n2");
    let wish = pod(
        "c",
        json!({}),
        json!({"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference":
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}}]}}}),
    );
    assert_eq!(go(&mut three(), &wish), "n3");
}

#[test]
fn reasons_are_counted_in_kubernetes_words() {
    let mut tainted = node("n1", "a");
    tainted["spec"] = json!({"taints": [{"key": "x", "value": "y", "effect": "NoSchedule"}]});
    let mut cordoned = node("n2", "a");
    cordoned["spec"] = json!({"unschedulable": true});
    let mut small = node("n3", "b");
    small["status"]["allocatable"]["cpu"] = json!("100m");
    let mut snapshot = cluster(&[tainted, cordoned, small]);
    let hungry = pod(
        "p",
        json!({}),
        json!({"containers": [{"name": "c",
        "resources": {"requests": {"cpu": "1", "memory": "1Ti"}}}]}),
    );
    assert_eq!(
        go(&mut snapshot, &hungry),
        "0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) had untolerated taint {x: y}, \
         1 node(s) were unschedulable. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
    assert_eq!(
        go(&mut cluster(&[]), &plain("p")),
        "no nodes available to schedule pods"
    );
}

#[test]
fn taints_are_tolerated_or_avoided() {
    let mut no = node("n1", "a");
    no["spec"] = json!({"taints": [{"key": "gpu", "effect": "NoExecute"}]});
    let mut rather_not = node("n2", "a");
    rather_not["spec"] = json!({"taints": [{"key": "busy", "effect": "PreferNoSchedule"}]});
    let mut snapshot = cluster(&[no, rather_not, node("n3", "b")]);
    assert_eq!(go(&mut snapshot, &pod("a", json!({}), json!({}))), "n3");
    let tolerant = pod(
        "b",
        json!({}),
        json!({"nodeSelector": {"kubernetes.io/hostname": "n1"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}]}),
    );
    assert_eq!(go(&mut snapshot, &tolerant), "n1");
}

#[test]
fn host_ports_are_taken_once_a_node() {
    let mut snapshot = three();
    let on_host = |name: &str| {
        pod(
            name,
            json!({}),
            json!({"containers": [{"name": "c",
            "ports": [{"containerPort": 80, "hostPort": 8080}]}]}),
        )
    };
    let mut nodes: Vec<String> = (0..3)
        .map(|i| go(&mut snapshot, &on_host(&format!("p{i}"))))
        .collect();
    nodes.sort();
    assert_eq!(nodes, ["n1", "n2", "n3"]);
    let fourth = go(&mut snapshot, &on_host("p4"));
    assert!(
        fourth.contains("3 node(s) didn't have free ports for the requested pod ports"),
        "{fourth}"
    );
    assert!(
        fourth.ends_with("3 No preemption victims found for incoming pod."),
        "{fourth}"
    );
}

#[test]
fn a_full_node_takes_no_more_and_a_freed_one_does() {
    let mut tiny = node("n1", "a");
    tiny["status"]["allocatable"]["pods"] = json!("1");
    let mut snapshot = cluster(&[tiny]);
    assert_eq!(go(&mut snapshot, &plain("a")), "n1");
    assert!(go(&mut snapshot, &plain("b")).contains("1 Too many pods"));
    snapshot.remove(&crate::controllers::store::Key::new("default", "a"));
    assert_eq!(go(&mut snapshot, &plain("b")), "n1");
}

#[test]
fn anti_affinity_works_both_ways_and_affinity_starts_a_group() {
    let mut snapshot = three();
    let term = |app: &str, key: &str| json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key});
    let loner = |name: &str| {
        pod(
            name,
            json!({"app": "db"}),
            json!({"affinity": {"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [term("db", "zone")]}}}),
        )
    };
    let first = go(&mut snapshot, &loner("db0"));
    let second = go(&mut snapshot, &loner("db1"));
    assert_ne!(first == "n3", second == "n3", "{first} {second}");
    assert!(
        go(&mut snapshot, &loner("db2")).contains("3 node(s) didn't match pod anti-affinity rules")
    );
    let innocent = pod("x", json!({"app": "db"}), json!({}));
    assert!(
        go(&mut snapshot, &innocent)
            .contains("3 node(s) didn't satisfy existing pods anti-affinity rules")
    );
    let together = |name: &str| {
        pod(
            name,
            json!({"app": "cache"}),
            json!({"affinity": {"podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [term("cache", "kubernetes.io/hostname")]}}}),
        )
    };
    let home = go(&mut snapshot, &together("c0"));
    assert!(home.starts_with('n'), "{home}");
    for i in 1..4 {
        assert_eq!(go(&mut snapshot, &together(&format!("c{i}"))), home);
    }
}

#[test]
fn hard_spread_constraints_bound_the_skew() {
    let mut snapshot = three();
    let spread = |name: &str| {
        pod(
            name,
            json!({"app": "w"}),
            json!({"topologySpreadConstraints": [{"maxSkew": 1,
            "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "w"}}}]}),
        )
    };
    let zones: Vec<bool> = (0..6)
        .map(|i| go(&mut snapshot, &spread(&format!("p{i}"))) == "n3")
        .collect();
    assert_eq!(zones.iter().filter(|in_b| **in_b).count(), 3);
    let nowhere =
        cluster(&[json!({"metadata": {"name": "bare"}, "status": {"allocatable": {"pods": "9"}}})]);
    let mut nowhere = nowhere;
    assert!(go(&mut nowhere, &spread("q")).contains("(missing required label)"));
}

#[test]
fn a_thousand_pods_on_fifty_nodes_are_placed_quickly() {
    let nodes: Vec<Value> = (1..=50)
        .map(|i| {
            let mut node = node(&format!("n{i:02}"), "a");
            node["status"]["allocatable"]["pods"] = json!("20");
            node
        })
        .collect();
    let mut snapshot = cluster(&nodes);
    let start = std::time::Instant::now();
    for i in 0..1000 {
        assert!(go(&mut snapshot, &plain(&format!("p{i}"))).starts_with('n'));
    }
    assert!(go(&mut snapshot, &plain("one-more")).contains("50 Too many pods"));
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}
