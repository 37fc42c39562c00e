//! Mode `bridge`, and the change from one mode to the other under living pods.

use std::net::{IpAddr, SocketAddr};

use linux::{Kind, LinkChange};
use model::config::PodMode;

use super::lab::{Node, Pod, can_run, connect, ip_of};

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

fn node(mode: PodMode) -> Node {
    let mut node = Node::without_agent(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
    node.config.pod_mode = mode;
    node.start_agent();
    node
}

#[test]
fn pods_hang_on_the_bridge() {
    if !can_run("pods_hang_on_the_bridge") {
        return;
    }
    let mut node = node(PodMode::Bridge);
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    let (result_a, result_b) = (node.add(&a), node.add(&b));
    assert_eq!(result_a["interfaces"][0]["name"], "cni0");
    let mut netlink = node.netlink();
    let bridge = netlink.expect_link("cni0").unwrap();
    assert_eq!(
        (bridge.kind, bridge.mtu, bridge.up),
        (Kind::Bridge, 1450, true)
    );
    let addresses = netlink.addresses(Some(bridge.index)).unwrap();
    for gateway in ["10.244.1.1/24", "fd00:10:244:1::1/64"] {
        assert!(
            addresses
                .iter()
                .any(|address| address.net.to_string() == gateway),
            "{gateway}"
        );
    }
    for family in 0..2 {
        let (ip_a, ip_b) = (ip_of(&result_a, family), ip_of(&result_b, family));
        assert_eq!(
            connect(&a.netns, &b.netns, at(ip_b, 80), at(ip_b, 80))
                .unwrap()
                .ip(),
            ip_a
        );
        connect(&node.netns, &a.netns, at(ip_a, 81), at(ip_a, 81)).unwrap();
        let gateway: IpAddr = result_a["ips"][family]["gateway"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(
            connect(&a.netns, &node.netns, at(gateway, 82), at(gateway, 82))
                .unwrap()
                .ip(),
            ip_a
        );
    }
    let mut conf = node.conf("1.1.0");
    conf["prevResult"] = result_a.clone();
    let check = || node.call("CHECK", &a.id, &a.path(), &conf);
    assert!(check().ok, "{:?}", check());
    // A port that lost hairpin mode, or has it from no agent before this one.
    let port = result_a["interfaces"][1]["name"].as_str().unwrap();
    let link = netlink.expect_link(port).unwrap();
    assert!(link.hairpin);
    let change = LinkChange {
        hairpin: Some(false),
        ..LinkChange::default()
    };
    netlink.change_link(link.index, &change).unwrap();
    let told = check();
    assert!(
        !told.ok && told.json.to_string().contains("hairpin"),
        "{told:?}"
    );
    node.kill_agent();
    node.start_agent();
    assert!(netlink.expect_link(port).unwrap().hairpin);
    node.del(&a);
    assert!(a.netlink().link("eth0").unwrap().is_none());
}

#[test]
fn pods_of_both_modes_reach_each_other() {
    if !can_run("pods_of_both_modes_reach_each_other") {
        return;
    }
    for (first, second) in [
        (PodMode::Bridge, PodMode::Routed),
        (PodMode::Routed, PodMode::Bridge),
    ] {
        let mut node = node(first);
        let old = Pod::new("old");
        let result_old = node.add(&old);
        node.kill_agent();
        node.config.pod_mode = second;
        node.start_agent();
        let new = Pod::new("new");
        let result_new = node.add(&new);
        for family in 0..2 {
            let (ip_old, ip_new) = (ip_of(&result_old, family), ip_of(&result_new, family));
            let there = connect(&old.netns, &new.netns, at(ip_new, 80), at(ip_new, 80));
            assert_eq!(there.unwrap().ip(), ip_old, "{first:?} to {second:?}");
            let back = connect(&new.netns, &old.netns, at(ip_old, 80), at(ip_old, 80));
            assert_eq!(back.unwrap().ip(), ip_new, "{second:?} to {first:?}");
        }
    }
}
