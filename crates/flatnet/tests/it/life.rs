//! A cluster's life: made, completed, changed, hurt, healed, ended.

use std::time::Duration;

use crate::cluster::{Cluster, eventually, root};

/// Nodes as `status` sees them: name and readiness.
fn ready(cluster: &Cluster) -> Vec<(String, bool)> {
    let status = cluster.json(&["status"]);
    let rows = status["nodes"].as_array().cloned().unwrap_or_default();
    rows.iter()
        .map(|row| {
            (
                row["name"].as_str().unwrap_or("").to_owned(),
                row["ready"] == true,
            )
        })
        .collect()
}

#[test]
fn a_cluster_comes_is_changed_is_hurt_and_goes() {
    if !root("a_cluster_comes_is_changed_is_hurt_and_goes") {
        return;
    }
    let machine = machines_own();
    let cluster = Cluster::up("life", &[]);
    let nodes = cluster.kube(&["get", "nodes", "-o", "name"]);
    assert_eq!(nodes, "node/node1\nnode/node2\nnode/node3\n");
    assert!(ready(&cluster).iter().all(|(_, ready)| *ready));
    cluster.check_is_green();

    // A second up is no error, and a conflicting one is refused by name.
    cluster.run(&["up"]);
    let (code, text) = cluster.fails(&["up", "--cluster-cidr", "10.99.0.0/16"]);
    assert_eq!(code, 2);
    assert!(
        text.contains("--cluster-cidr") && text.contains("10.244.0.0/16"),
        "{text}"
    );

    // So is a manifest with a wrong field, by its path.
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("pod.yaml");
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: a, porst: []}]}}";
    std::fs::write(&manifest, pod).unwrap();
    let (_, text) = cluster.fails(&["up", "-f", manifest.to_str().unwrap()]);
    assert!(text.contains("spec.containers[0].porst"), "{text}");

    // The fabric changes on the live cluster.
    cluster.run(&["up", "--fabric", "host-gw"]);
    assert_eq!(cluster.json(&["status"])["fabric"], "host-gw");
    cluster.check_is_green();

    // The API server dies; what it acknowledged is still there.
    cluster.kube(&["create", "configmap", "kept", "--from-literal=a=1"]);
    kill(&cluster, "apiserver");
    cluster.run(&["up"]);
    assert!(
        cluster
            .kube(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"])
            .contains('1')
    );

    // An agent alone dies: its node's kubelet runs on, and up starts what is missing.
    kill(&cluster, "nodes/node1/agent");
    cluster.run(&["up"]);
    a_wrong_configuration_changes_nothing(&cluster);

    power_and_cables(&cluster);
    cluster.check_is_green();
    assert_eq!(
        machines_own(),
        machine,
        "the machine's own network was touched"
    );
    cluster.down();
    assert_eq!(
        machines_own(),
        machine,
        "the machine's own network was touched"
    );
}

/// Links, addresses, routes and forwarding of the machine itself.
fn machines_own() -> Vec<String> {
    let mut kernel = linux::Netlink::open().unwrap();
    let links = kernel
        .links()
        .unwrap()
        .into_iter()
        .map(|link| format!("{} {}", link.name, link.up));
    let mut all: Vec<String> = links.collect();
    let addresses = kernel.addresses(None).unwrap();
    all.extend(
        addresses
            .iter()
            .map(|address| format!("{} {}", address.dev, address.net)),
    );
    let routes = kernel.routes(linux::RouteFilter::main()).unwrap();
    all.extend(routes.iter().map(ToString::to_string));
    all.extend(linux::sysctl::read("net/ipv4/ip_forward").unwrap());
    all
}

pub fn kill(cluster: &Cluster, part: &str) {
    let mount = lab::cluster::cgroup::mount().unwrap();
    let folder = mount.join(cluster.paths.cgroup()).join(part);
    let all = lab::cluster::cgroup::processes(&folder);
    assert_eq!(all.len(), 1, "{all:?}");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(all[0]),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    eventually("the process ends", Duration::from_secs(30), || {
        (!lab::cluster::cgroup::populated(&folder)).then_some(())
    });
}

/// The last good configuration stays in force, and the nodes stay ready.
fn a_wrong_configuration_changes_nothing(cluster: &Cluster) {
    let wrong = r#"{"data":{"config.yaml":"apiVersion: flatnet.io/v1alpha1\nkind: NetworkConfig\nclusterCIDRs: [10.244.0.0/16]\nfabric: {mode: vxlna}\n"}}"#;
    let map = ["-n", "kube-system", "patch", "configmap", "flatnet"];
    cluster.kube(&[&map[..], &["--type", "merge", "-p", wrong]].concat());
    let events = ["-n", "kube-system", "get", "events", "-o"];
    eventually("the agents say so", Duration::from_secs(30), || {
        cluster
            .kube(&[&events[..], &["jsonpath={.items[*].message}"]].concat())
            .contains("vxlna")
            .then_some(())
    });
    let health = [
        "client",
        "--",
        "curl",
        "-s",
        "http://10.0.1.10:10256/healthz",
    ];
    let told = cluster.run(&health);
    assert!(told.contains("\"nodeEligible\": true}"), "{told}");
    cluster.check_is_green();
    assert!(ready(cluster).iter().all(|(_, ready)| *ready));
    cluster.run(&["up", "--fabric", "host-gw"]);
}

fn power_and_cables(cluster: &Cluster) {
    cluster.run(&["node", "stop", "node2"]);
    let (_, text) = cluster.fails(&["node", "cut", "node2"]);
    assert!(text.contains("flatnet node start node2"), "{text}");
    let list = cluster.json(&["node", "list"]);
    assert_eq!(list[1]["kubelet"], false, "{list}");
    cluster.run(&["node", "start", "node2"]);
    assert!(ready(cluster).contains(&("node2".to_owned(), true)));

    cluster.run(&["node", "cut", "node3"]);
    assert_eq!(cluster.json(&["node", "list"])[2]["cable"], false);
    cluster.run(&["node", "join", "node3"]);

    assert_eq!(cluster.run(&["node", "add"]), "node4 joined\n");
    cluster.check_is_green();
    cluster.run(&["node", "remove", "node4"]);
    assert!(
        !cluster
            .kube(&["get", "nodes", "-o", "name"])
            .contains("node4")
    );
}

#[test]
fn two_clusters_live_side_by_side() {
    if !root("two_clusters_live_side_by_side") {
        return;
    }
    let a = Cluster::up("side-a", &["--nodes", "1"]);
    let b = Cluster::up("side-b", &["--nodes", "1", "--fabric", "host-gw"]);
    a.kube(&["create", "configmap", "only-in-a"]);
    assert!(
        !b.kube(&["get", "configmaps", "-o", "name"])
            .contains("only-in-a")
    );
    a.down();
    assert!(ready(&b).iter().all(|(_, ready)| *ready));
    b.down();
}

#[test]
fn a_half_made_cluster_goes_away_too() {
    if !root("a_half_made_cluster_goes_away_too") {
        return;
    }
    let cluster = Cluster::named("half");
    std::fs::create_dir_all(cluster.paths.state.join("nodes/node1")).unwrap();
    std::fs::write(cluster.paths.state.join("cluster.json"), "{").unwrap();
    linux::NetNs::create(&cluster.paths.netns("node1")).unwrap();
    let (_, text) = cluster.fails(&["up"]);
    assert!(text.contains("flatnet down --name"), "{text}");
    cluster.down();
}
