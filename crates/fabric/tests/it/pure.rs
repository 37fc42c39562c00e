//! Properties of the pure rooms.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use fabric::plan::plan;
use fabric::render::render;
use fabric::{Fabric, Path, Step, Underlay, Uplink, Via, explain};
use linux::fake::Fake;
use model::config::FabricMode;
use model::{Change, Cluster, Config, Node};
use nft::eval::{Nat, Packet};
use proptest::prelude::*;

use crate::cluster::{cluster, config, net, node};

fn underlay() -> Underlay {
    let uplink = |address: &str, subnet: &str| {
        Some(Uplink {
            address: address.parse().unwrap(),
            link: "eth0".into(),
            mtu: 1500,
            subnets: vec![net(subnet)],
        })
    };
    Underlay {
        v4: uplink("10.0.1.10", "10.0.1.0/24"),
        v6: uplink("fd00:10:0:1::1", "fd00:10:0:1::/64"),
    }
}

fn problems(cluster: &Cluster, config: &Config) -> Vec<String> {
    let plan = plan(cluster, config, "node1", &underlay()).unwrap();
    plan.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn mtu_is_what_fits() {
    let nodes = cluster([node(1, false), node(2, false)]);
    let mtu = |config: &Config, cluster: &Cluster| {
        plan(cluster, config, "node1", &underlay()).unwrap().mtu
    };
    assert_eq!(mtu(&config(FabricMode::Vxlan), &nodes), 1450);
    assert_eq!(mtu(&config(FabricMode::HostGw), &nodes), 1500);
    let dual = cluster([node(1, true)]);
    assert_eq!(mtu(&config(FabricMode::CrossSubnet), &dual), 1430);
    let mut asked = config(FabricMode::Vxlan);
    asked.fabric.mtu = Some(1400);
    assert_eq!(
        (mtu(&asked, &nodes), problems(&nodes, &asked)),
        (1400, vec![])
    );
    asked.fabric.mtu = Some(9000);
    assert_eq!(
        problems(&nodes, &asked),
        ["node node1: fabric.mtu: 9000 does not fit the underlay: the greatest that does is 1450"]
    );
    let tunnels = plan(&nodes, &asked, "node1", &underlay()).unwrap().tunnels;
    assert_eq!(tunnels[0].mtu, 1450, "more the kernel would refuse");
}

#[test]
fn odd_ranges_are_reported_on_their_node_and_the_others_work() {
    let mut same = node(4, false);
    same.pod_cidrs = vec![net("10.244.2.0/24")];
    let mut wide = node(5, false);
    wide.pod_cidrs = vec![net("10.244.0.0/20")];
    let mut mine = node(6, false);
    mine.pod_cidrs = vec![net("10.244.1.128/25")];
    let mut outside = node(7, false);
    outside.pod_cidrs = vec![net("192.168.0.0/24")];
    let mut twin = node(8, false);
    twin.addresses = vec![[10, 0, 1, 20].into()];
    let mut bare = node(9, false);
    bare.addresses.clear();
    let nodes = cluster([
        node(1, false),
        node(2, false),
        node(3, false),
        same,
        wide,
        mine,
        outside,
        twin,
        bare,
    ]);
    let config = config(FabricMode::Vxlan);
    assert_eq!(
        problems(&nodes, &config),
        [
            "node node4: spec.podCIDRs: 10.244.2.0/24 overlaps 10.244.2.0/24 of node node2, so no pod of it is routed; give the node another range",
            "node node5: spec.podCIDRs: 10.244.0.0/20 overlaps 10.244.9.0/24 of node node9, so no pod of it is routed; give the node another range",
            "node node6: spec.podCIDRs: 10.244.1.128/25 overlaps 10.244.1.0/24 of node node1, so no pod of it is routed; give the node another range",
            "node node7: spec.podCIDRs: 192.168.0.0/24 is outside the cluster's ranges (clusterCIDRs: 10.244.0.0/16, fd00:10:244::/56)",
            "node node8: status.addresses: 10.0.1.20 is node node2's address too; give one of them another",
            "node node9: status.addresses: has no IPv4 InternalIP, so pods in 10.244.9.0/24 cannot be reached",
        ]
    );
    let plan = plan(&nodes, &config, "node1", &underlay()).unwrap();
    let ranges: Vec<String> = plan.paths.keys().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.244.2.0/24", "10.244.3.0/24"]);
}

#[test]
fn a_node_that_has_not_published_its_end_is_reached_directly_if_near() {
    let (mut near, mut far) = (node(2, false), node(3, false));
    (near.vtep_mac, far.vtep_mac) = (None, None);
    far.addresses = vec![[10, 0, 2, 30].into()];
    let nodes = cluster([node(1, false), near, far]);
    let plan = plan(&nodes, &config(FabricMode::Vxlan), "node1", &underlay()).unwrap();
    assert_eq!(
        plan.paths[&net("10.244.2.0/24")],
        Path {
            node: "node2".into(),
            address: [10, 0, 1, 20].into(),
            via: Via::Direct {
                until_published: true
            },
        }
    );
    assert_eq!(plan.problems.len(), 1);
    assert!(
        plan.problems[0].message.contains("is its agent running?"),
        "{:?}",
        plan.problems
    );
}

#[test]
fn the_steps_of_a_packet() {
    let nodes = cluster([node(1, false), node(2, false)]);
    let said = |mode, dst: &str| -> Vec<String> {
        let plan = plan(&nodes, &config(mode), "node1", &underlay()).unwrap();
        let steps = explain(&plan, [10, 244, 1, 5].into(), dst.parse().unwrap());
        steps.iter().map(Step::to_string).collect()
    };
    assert_eq!(
        said(FabricMode::Vxlan, "10.244.2.7"),
        [
            "route 10.244.2.0/24 via 10.244.2.0 dev fn-vxlan onlink (node node2)",
            "neighbour 10.244.2.0 dev fn-vxlan lladdr 86:30:af:75:ca:94 PERMANENT",
            "fdb 86:30:af:75:ca:94 dev fn-vxlan dst 10.0.1.20 self permanent",
            "VXLAN 1 from 10.0.1.10 to 10.0.1.20:8472 (mtu 1450, 50 bytes around)",
            "sent to 10.0.1.20 dev eth0",
        ]
    );
    assert_eq!(
        said(FabricMode::HostGw, "10.244.2.7"),
        [
            "route 10.244.2.0/24 via 10.0.1.20 dev eth0 (node node2)",
            "sent to 10.0.1.20 dev eth0",
        ]
    );
    assert_eq!(
        said(FabricMode::Vxlan, "10.244.1.9"),
        ["pod of this node (range 10.244.1.0/24)"]
    );
    assert_eq!(said(FabricMode::Vxlan, "10.0.1.10"), ["node node1 itself"]);
    assert_eq!(
        said(FabricMode::Vxlan, "203.0.113.10"),
        [
            "masquerade: source becomes 10.0.1.10",
            "sent by the node's own routes, usually dev eth0"
        ]
    );
    assert!(
        said(FabricMode::Vxlan, "10.244.9.9")[0]
            .starts_with("no way: 10.244.9.9 is in the cluster's range")
    );
}

#[test]
fn the_rules_as_nft_lists_them() {
    let nodes = cluster([node(1, true), node(2, true)]);
    let plan = plan(&nodes, &config(FabricMode::HostGw), "node1", &underlay()).unwrap();
    insta::assert_snapshot!(render(&plan).nft.to_string(), @r#"
    table inet flatnet {
    	set fabric-nodes {
    		type ipv4_addr
    		elements = { 10.0.1.10, 10.0.1.20 }
    	}

    	set fabric-nodes6 {
    		type ipv6_addr
    		elements = { fd00:10:0:1::1,
    			     fd00:10:0:1::2 }
    	}

    	chain fabric-postrouting {
    		type nat hook postrouting priority srcnat; policy accept;
    		ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 ip daddr != 224.0.0.0/4 ip daddr != @fabric-nodes masquerade fully-random comment "leaves the cluster"
    		ip6 saddr fd00:10:244::/56 ip6 daddr != fd00:10:244::/56 ip6 daddr != ff00::/8 ip6 daddr != @fabric-nodes6 masquerade fully-random comment "leaves the cluster"
    	}
    }
    "#);
}

/// A node of a small cluster, in one of a few shapes.
fn any_node() -> impl Strategy<Value = Node> {
    (2_u8..8, 0_u8..4, any::<bool>(), any::<bool>()).prop_map(|(number, shape, published, dual)| {
        let mut node = node(number, dual);
        match shape {
            0 => node.addresses[0] = Ipv4Addr::new(10, 0, 2, number).into(),
            1 => node.pod_cidrs[0] = net("10.244.3.0/24"),
            _ => {}
        }
        if !published {
            node.vtep_mac = None;
        }
        node
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => any_node().prop_map(Change::Node),
        1 => (2_u8..8).prop_map(|number| Change::NodeGone(format!("node{number}"))),
    ]
}

fn any_mode() -> impl Strategy<Value = FabricMode> {
    prop_oneof![
        Just(FabricMode::Vxlan),
        Just(FabricMode::HostGw),
        Just(FabricMode::CrossSubnet)
    ]
}

fn host() -> Fake {
    Fake::host(&["10.0.1.10/24", "fd00:10:0:1::1/64"])
}

/// The kernel's tables without what depends on the way there.
fn tables(mut kernel: Fake) -> (Vec<String>, Vec<String>, Vec<String>, Option<nft::Compiled>) {
    let lines = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let names: Vec<(u32, String)> = kernel
        .links
        .iter()
        .map(|link| (link.index, link.name.clone()))
        .collect();
    let name = |dev: u32| {
        names
            .iter()
            .find(|(index, _)| *index == dev)
            .unwrap()
            .1
            .clone()
    };
    let routes = kernel.routes.drain(..).map(|route| {
        format!(
            "{} {:?} {} {}",
            route.dst,
            route.gateway,
            name(route.dev.unwrap()),
            route.onlink
        )
    });
    let routes = lines(routes.collect());
    let neighbours = kernel
        .neighbours
        .drain(..)
        .map(|n| format!("{} {:?} {}", n.ip, n.mac, name(n.dev)));
    let neighbours = lines(neighbours.collect());
    let fdb = lines(
        kernel
            .fdb
            .drain(..)
            .map(|e| format!("{} {:?} {}", e.mac, e.dst, name(e.dev)))
            .collect(),
    );
    (routes, neighbours, fdb, kernel.nft.remove("flatnet"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// However the changes come (each by itself, all at once, repeated, with the mode changed
    /// in between), what is there at the end is what the end needs.
    #[test]
    fn any_way_to_a_state_leads_to_it(
        changes in prop::collection::vec(any_change(), 0..24),
        modes in prop::collection::vec(any_mode(), 1..4),
    ) {
        let now = Instant::now();
        let mut cluster = cluster([node(1, true)]);
        let (mut kernel, mut fabric) = (host(), Fabric::new("node1"));
        let step = changes.len() / modes.len() + 1;
        let mut at_end = config(modes[0]);
        for (at, change) in changes.iter().enumerate() {
            at_end = config(modes[at / step]);
            cluster.take(change.clone());
            cluster.take(change.clone());
            let report = fabric.reconcile(&mut kernel, &cluster, &at_end, now);
            prop_assert_eq!(&report.errors, &[]);
        }
        // Long after, the links that lingered are gone too.
        let later = now + std::time::Duration::from_secs(60);
        fabric.reconcile(&mut kernel, &cluster, &at_end, later);
        kernel.take_changes();
        prop_assert_eq!(fabric.reconcile(&mut kernel, &cluster, &at_end, later).changes, 0);

        let mut fresh = host();
        Fabric::new("node1").reconcile(&mut fresh, &cluster, &at_end, now);
        prop_assert_eq!(tables(kernel.clone()), tables(fresh));
        // And a new agent on the old kernel finds nothing to do.
        let adopted = Fabric::new("node1").reconcile(&mut kernel, &cluster, &at_end, now);
        prop_assert_eq!(adopted.changes, 0);
    }

    /// One node's change costs at most what that node has: a route, a neighbour and a
    /// forwarding entry a family, made and unmade, and the rules.
    #[test]
    fn a_change_costs_by_its_size(others in 8_u8..24, changed in any_node(), mode in any_mode()) {
        let now = Instant::now();
        let mut nodes = cluster((1..=others).map(|number| node(number, true)));
        let (mut kernel, mut fabric) = (host(), Fabric::new("node1"));
        fabric.reconcile(&mut kernel, &nodes, &config(mode), now);
        kernel.take_changes();
        nodes.nodes.insert(changed.name.clone(), changed);
        let report = fabric.reconcile(&mut kernel, &nodes, &config(mode), now);
        prop_assert!(report.changes <= 13, "{:?}", kernel.changes);
    }

    /// The rules masquerade exactly what the plan says they should.
    #[test]
    fn rules_agree_with_the_plan(
        src in any_ip(), dst in any_ip(), mode in any_mode(), nodes in prop::collection::vec(any_node(), 0..5),
    ) {
        prop_assume!(src.is_ipv4() == dst.is_ipv4());
        let cluster = cluster(nodes.into_iter().chain([node(1, true)]));
        let plan = plan(&cluster, &config(mode), "node1", &underlay()).unwrap();
        let packet = Packet { oif: "eth0".into(), ..Packet::new(src, dst, 17, 1, 2) };
        let outcome = render(&plan).nft.compile().eval("fabric-postrouting", &packet).unwrap();
        let expected = plan.masquerade.applies(src, dst).then_some(Nat::Masquerade);
        prop_assert_eq!(outcome.nat, expected);
    }
}

/// Addresses of pods, nodes, outside, and multicast.
fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0_u8..9, 0_u8..9).prop_map(|(a, b)| IpAddr::from([10, 244, a, b])),
        (1_u8..3, 0_u8..9).prop_map(|(a, b)| IpAddr::from([10, 0, a, 10 * b])),
        (0_u16..9).prop_map(|a| IpAddr::from([0xfd00, 0x10, 0x244, a, 0, 0, 0, 5])),
        (0_u16..9).prop_map(|a| IpAddr::from([0xfd00, 0x10, 0, 1, 0, 0, 0, a])),
        Just(IpAddr::from([224, 0, 0, 251])),
        Just(IpAddr::from([0xff02, 0, 0, 0, 0, 0, 0, 0xfb])),
        any::<[u8; 4]>().prop_map(IpAddr::from),
    ]
}
