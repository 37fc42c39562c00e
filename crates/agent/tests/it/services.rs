//! Services follow the updates, and nothing is touched before the whole view is there.

use agent::Update;
use linux::{Nftables, iptables, run_in};
use model::config::ServicesMode;
use model::{Change, Config};
use nft::{Family, IpFamily};

use crate::node::{HEALTH, METRICS, Node, eventually, service, slice};

/// Whether the kernel has something of the Service with this address.
fn serves(node: &Node, mode: ServicesMode, ip: &str) -> bool {
    match mode {
        ServicesMode::Nftables => {
            let mut nftables = Nftables::open_in(&node.netns).unwrap();
            let table = nftables.read(Family::Inet, "flatnet").unwrap();
            table.is_some_and(|table| format!("{table:?}").contains(&format!("{ip:?}")))
        }
        ServicesMode::Iptables => {
            let rules = run_in(&node.netns, || iptables::save(IpFamily::V4)).unwrap();
            rules.unwrap().contains(&format!("-d {ip}/32"))
        }
    }
}

fn runs(test: &str) -> bool {
    testing::root(test) && testing::program(test, "iptables-restore").is_some()
}

fn config(mode: ServicesMode) -> Config {
    let mut config = Config::default();
    config.services.mode = mode;
    config
}

#[test]
fn services_follow_the_cluster_and_survive_a_restart() {
    if !runs("services_follow_the_cluster_and_survive_a_restart") {
        return;
    }
    let mode = ServicesMode::Iptables;
    let node = Node::new();
    let agent = node.start(&config(mode));
    agent.change(service("web", [10, 96, 0, 7], None));
    agent.change(slice("web", &[[10, 244, 1, 7]]));
    eventually("the agent answers", || node.get(HEALTH, "/livez").is_some());
    assert!(!serves(&node, mode, "10.96.0.7"), "before all is known");
    agent.say(Update::ServicesSynced);
    eventually("web is served", || serves(&node, mode, "10.96.0.7"));
    agent.change(service("other", [10, 96, 0, 8], None));
    eventually("other is served", || {
        serves(&node, mode, "10.96.0.8") && serves(&node, mode, "10.96.0.7")
    });
    let mode_word = node.get(METRICS, "/proxyMode").unwrap();
    assert!(mode_word.ends_with("\r\n\r\niptables"), "{mode_word}");
    drop(agent);

    // Another agent knows nothing yet: what it finds stays.
    let agent = node.start(&config(mode));
    eventually("the agent answers", || {
        node.get(HEALTH, "/healthz")
            .is_some_and(|told| told.starts_with("HTTP/1.1 200"))
    });
    agent.change(service("web", [10, 96, 0, 7], None));
    agent.change(slice("web", &[[10, 244, 1, 7]]));
    let waits = "kubeproxy_sync_proxy_rules_endpoint_changes_pending 1";
    eventually("the slice is known", || {
        let metrics = node.get(METRICS, "/metrics").unwrap_or_default();
        metrics.lines().any(|line| line == waits)
    });
    assert!(serves(&node, mode, "10.96.0.8"), "before all is known");
    agent.say(Update::ServicesSynced);
    eventually("other is gone, web is not", || {
        !serves(&node, mode, "10.96.0.8") && serves(&node, mode, "10.96.0.7")
    });
    agent.change(Change::ServiceGone("d".into(), "web".into()));
    eventually("web is gone", || !serves(&node, mode, "10.96.0.7"));
}

#[test]
fn balancers_are_told_of_local_endpoints() {
    let test = "balancers_are_told_of_local_endpoints";
    if !runs(test) {
        return;
    }
    let node = Node::new();
    let agent = node.start(&config(ServicesMode::Iptables));
    agent.change(service("web", [10, 96, 0, 7], Some(32_100)));
    agent.change(slice("web", &[[10, 244, 1, 7], [10, 244, 1, 8]]));
    agent.say(Update::ServicesSynced);
    let told = |text: &str| {
        node.get(32_100, "/")
            .is_some_and(|answer| answer.contains(text))
    };
    eventually("two endpoints", || told("\"localEndpoints\": 2"));
    assert!(told("HTTP/1.1 200") && told("x-load-balancing-endpoint-weight: 2"));
    agent.change(slice("web", &[]));
    eventually("none", || told("HTTP/1.1 503"));
    agent.change(service("web", [10, 96, 0, 7], None));
    eventually("the port is closed", || node.get(32_100, "/").is_none());
}

#[test]
fn a_node_that_leaves_is_not_healthy() {
    let test = "a_node_that_leaves_is_not_healthy";
    if !runs(test) {
        return;
    }
    let node = Node::new();
    let agent = node.start(&config(ServicesMode::Iptables));
    agent.say(Update::ServicesSynced);
    let status = |path: &str| node.get(HEALTH, path).unwrap_or_default();
    eventually("healthy", || status("/healthz").starts_with("HTTP/1.1 200"));
    agent.change(Change::NodeGone("node1".into()));
    eventually("leaving", || status("/healthz").starts_with("HTTP/1.1 503"));
    assert!(status("/healthz").contains("\"nodeEligible\": false"));
    assert!(status("/livez").starts_with("HTTP/1.1 200"));
}
