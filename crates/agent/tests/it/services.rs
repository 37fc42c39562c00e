//! Services follow the updates, and nothing is touched before the whole view is there.

use agent::Update;
use linux::{Nftables, iptables, run_in};
use model::config::ServicesMode;
use model::{Change, Config};
use nft::{Family, IpFamily};

use crate::node::{HEALTH, METRICS, Node, eventually, service, slice};

/// Whether the kernel has something of the Service with this address.
fn serves(node: &Node, mode: ServicesMode, ip: [u8; 4]) -> bool {
    match mode {
        ServicesMode::Nftables => {
            let mut nftables = Nftables::open_in(&node.netns).unwrap();
            let table = nftables.read(Family::Inet, "flatnet").unwrap();
            let sets = table
                .iter()
                .flat_map(|table| table.sets.get("services-ips"));
            sets.flat_map(|set| set.elements.keys())
                .any(|element| element.key.starts_with(&ip))
        }
        ServicesMode::Iptables => {
            let rules = run_in(&node.netns, || iptables::save(IpFamily::V4)).unwrap();
            let ip = std::net::Ipv4Addr::from(ip);
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

const WEB: [u8; 4] = [10, 96, 0, 7];
const OTHER: [u8; 4] = [10, 96, 0, 8];

#[test]
fn services_follow_the_cluster_and_survive_a_restart() {
    if runs("services_follow_the_cluster_and_survive_a_restart") {
        follow_and_survive(ServicesMode::Nftables);
        follow_and_survive(ServicesMode::Iptables);
    }
}

fn follow_and_survive(mode: ServicesMode) {
    let node = Node::new();
    let agent = node.start(&config(mode));
    agent.change(service("web", WEB, None));
    agent.change(slice("web", &[[10, 244, 1, 7]]));
    eventually("the agent answers", || node.get(HEALTH, "/livez").is_some());
    assert!(!serves(&node, mode, WEB), "before all is known");
    agent.say(Update::ServicesSynced);
    eventually("web is served", || serves(&node, mode, WEB));
    agent.change(service("other", OTHER, None));
    eventually("other is served", || {
        serves(&node, mode, OTHER) && serves(&node, mode, WEB)
    });
    let mode_word = node.get(METRICS, "/proxyMode").unwrap();
    assert!(mode_word.ends_with(mode.word()), "{mode_word}");
    drop(agent);

    // Another agent knows nothing yet: what it finds stays.
    let agent = node.start(&config(mode));
    eventually("the agent answers", || {
        node.get(HEALTH, "/healthz")
            .is_some_and(|told| told.starts_with("HTTP/1.1 200"))
    });
    agent.change(service("web", WEB, None));
    agent.change(slice("web", &[[10, 244, 1, 7]]));
    let waits = "kubeproxy_sync_proxy_rules_endpoint_changes_pending 1";
    eventually("the slice is known", || {
        let metrics = node.get(METRICS, "/metrics").unwrap_or_default();
        metrics.lines().any(|line| line == waits)
    });
    assert!(serves(&node, mode, OTHER), "before all is known");
    agent.say(Update::ServicesSynced);
    eventually("other is gone, web is not", || {
        !serves(&node, mode, OTHER) && serves(&node, mode, WEB)
    });
    agent.change(Change::ServiceGone("d".into(), "web".into()));
    eventually("web is gone", || !serves(&node, mode, WEB));
}

#[test]
fn balancers_are_told_of_local_endpoints() {
    let test = "balancers_are_told_of_local_endpoints";
    if !runs(test) {
        return;
    }
    let node = Node::new();
    let agent = node.start(&config(ServicesMode::Nftables));
    agent.change(service("web", WEB, Some(32_100)));
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
    agent.change(service("web", WEB, None));
    eventually("the port is closed", || node.get(32_100, "/").is_none());
}

#[test]
fn a_node_that_leaves_is_not_healthy() {
    let test = "a_node_that_leaves_is_not_healthy";
    if !runs(test) {
        return;
    }
    let node = Node::new();
    let agent = node.start(&config(ServicesMode::Nftables));
    agent.say(Update::ServicesSynced);
    let status = |path: &str| node.get(HEALTH, path).unwrap_or_default();
    eventually("healthy", || status("/healthz").starts_with("HTTP/1.1 200"));
    agent.change(Change::NodeGone("node1".into()));
    eventually("leaving", || status("/healthz").starts_with("HTTP/1.1 503"));
    assert!(status("/healthz").contains("\"nodeEligible\": false"));
    assert!(status("/livez").starts_with("HTTP/1.1 200"));
}

/// A mode is switched by the configuration: the other's rules are gone, and `--cleanup` leaves
/// nothing of either.
#[test]
fn a_mode_is_switched_and_cleaned_up() {
    let test = "a_mode_is_switched_and_cleaned_up";
    if !runs(test) {
        return;
    }
    let node = Node::new();
    let agent = node.start(&config(ServicesMode::Nftables));
    agent.change(service("web", WEB, None));
    agent.change(slice("web", &[[10, 244, 1, 7]]));
    agent.say(Update::ServicesSynced);
    let modes = [ServicesMode::Nftables, ServicesMode::Iptables];
    let served = || modes.map(|mode| serves(&node, mode, WEB));
    eventually("nftables", || served() == [true, false]);
    agent.say(Update::Config(Box::new(config(ServicesMode::Iptables))));
    eventually("iptables alone", || served() == [false, true]);
    agent.say(Update::Config(Box::new(config(ServicesMode::Nftables))));
    eventually("nftables alone", || served() == [true, false]);
    drop(agent);
    assert_eq!(served(), [true, false], "rules outlive the agent");
    run_in(&node.netns, agent::cleanup).unwrap().unwrap();
    assert_eq!(served(), [false, false]);
}
