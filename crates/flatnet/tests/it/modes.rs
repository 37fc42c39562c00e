//! Every way a cluster can be made: families, pod modes, subnets. All paths are tried in each.

use std::process::Stdio;
use std::time::Duration;

use crate::cluster::{Cluster, eventually, root};

#[test]
fn dual_stack_reaches_everybody_over_both_families() {
    if !root("dual_stack_reaches_everybody_over_both_families") {
        return;
    }
    let cluster = Cluster::up("dual", &["--dual-stack", "--nodes", "2"]);
    cluster.check_is_green();
    let paths = cluster.json(&["check"]);
    let v6 = paths
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["family"] == "IPv6")
        .count();
    assert!(v6 >= 10, "{paths}");
    cluster.run(&["up", "--fabric", "host-gw", "--services", "iptables"]);
    cluster.check_is_green();
    cluster.down();
}

#[test]
fn pods_on_a_bridge_reach_everybody() {
    if !root("pods_on_a_bridge_reach_everybody") {
        return;
    }
    let cluster = Cluster::up("bridge", &["--pod-mode", "bridge", "--nodes", "2"]);
    cluster.check_is_green();
    cluster.down();
}

#[test]
fn across_subnets_the_tunnel_is_used_and_inside_one_the_direct_way() {
    if !root("across_subnets_the_tunnel_is_used_and_inside_one_the_direct_way") {
        return;
    }
    let cluster = Cluster::up("cross", &["--subnets", "2", "--fabric", "cross-subnet"]);
    cluster.check_is_green();
    // node1 and node3 share a subnet, node2 is on the other.
    let rows = cluster.json(&["show", "routes", "node1"]);
    let route = |to: &str| {
        let all = rows.as_array().unwrap();
        let row = all
            .iter()
            .find(|row| row["kind"] == "route" && row["key"] == to)
            .unwrap();
        row["kernel"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(route("10.244.2.0/24"), "via 10.244.2.0 dev fn-vxlan onlink");
    assert_eq!(route("10.244.3.0/24"), "via 10.0.1.30 dev eth0");
    cluster.down();
}

#[test]
fn a_change_of_the_fabric_interrupts_no_connection() {
    if !root("a_change_of_the_fabric_interrupts_no_connection") {
        return;
    }
    let cluster = Cluster::up("live", &["--nodes", "2"]);
    for (name, node) in [("caller", "node1"), ("called", "node2")] {
        let patch =
            format!(r#"{{"spec":{{"nodeName":"{node}","terminationGracePeriodSeconds":0}}}}"#);
        let args = [
            "run",
            name,
            "--image=registry.k8s.io/e2e-test-images/agnhost:2.53",
            "--overrides",
            &patch,
        ];
        cluster.kube(&[&args[..], &["--", "netexec"]].concat());
    }
    cluster.kube(&[
        "wait",
        "--for=condition=Ready",
        "pod/caller",
        "pod/called",
        "--timeout=30s",
    ]);
    let ip = cluster.kube(&["get", "pod", "called", "-o", "jsonpath={.status.podIP}"]);
    // Ten answers a second over one connection after another, for the whole change.
    let script = format!("http://{ip}:8080/hostname?[1-80]");
    let mut command = cluster.kubectl(&[
        "exec",
        "caller",
        "--",
        "curl",
        "-sS",
        "--rate",
        "10/s",
        "--max-time",
        "2",
        &script,
    ]);
    let traffic = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    cluster.run(&["up", "--fabric", "host-gw"]);
    eventually("routes follow the fabric", Duration::from_secs(30), || {
        cluster
            .json(&["show", "routes"])
            .to_string()
            .contains("via 10.0.1.20 dev eth0")
            .then_some(())
    });
    cluster.run(&["up", "--fabric", "vxlan"]);
    let output = traffic.wait_with_output().unwrap();
    let answers = String::from_utf8_lossy(&output.stdout)
        .matches("called")
        .count();
    assert_eq!(answers, 80, "{}", String::from_utf8_lossy(&output.stderr));
    cluster.down();
}
