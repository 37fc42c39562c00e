//! Every mode carries packets between real namespaces.

use model::config::FabricMode;

use crate::cluster::{config, far_node, net, node};
use crate::lab::{Lab, reached, root};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use fabric::Via;
use linux::{run_in, sysctl};

fn carried(test: &str, mode: FabricMode, dual: bool) {
    if !root(test) {
        return;
    }
    let mut lab = Lab::new(
        (1..=3).map(|number| node(number, dual)).collect(),
        config(mode),
    );
    for report in lab.settle() {
        assert_eq!(
            (&report.errors[..], &report.problems[..]),
            (&[][..], &[][..])
        );
    }
    lab.assert_flat(false);
    if dual {
        lab.assert_flat(true);
    }
    for report in lab.settle() {
        assert_eq!(report.changes, 0, "nothing left to do");
    }
    for node in &mut lab.nodes {
        node.fabric.resync();
    }
    for report in lab.settle() {
        assert_eq!(report.changes, 0, "the kernel lists what was made");
    }
}

#[test]
fn vxlan() {
    carried("vxlan", FabricMode::Vxlan, false);
    carried("vxlan", FabricMode::Vxlan, true);
}

#[test]
fn host_gw() {
    carried("host-gw", FabricMode::HostGw, false);
    carried("host-gw", FabricMode::HostGw, true);
}

/// Leaving the cluster a pod has its node's address; inside it has its own, towards nodes too
/// where the underlay carries it.
#[test]
fn masquerade() {
    for mode in [FabricMode::Vxlan, FabricMode::HostGw] {
        if !root("masquerade") {
            return;
        }
        let nodes = (1..=3).map(|number| node(number, true)).collect();
        let mut lab = Lab::new(nodes, config(mode));
        lab.settle();
        for v6 in [false, true] {
            let pod = lab.nodes[0].pod.udp(lab.pod_ip(0, v6));
            let of = |at: usize| lab.nodes[at].node.addresses[usize::from(v6)];
            let outside: std::net::IpAddr = match v6 {
                false => [10, 0, 1, 1].into(),
                true => "fd00:10:0:1::ffff".parse().unwrap(),
            };
            assert_eq!(
                reached(&pod, &lab.underlay.udp(outside)),
                Some(of(0)),
                "outside"
            );
            let own = reached(&pod, &lab.nodes[0].station.udp(of(0)));
            assert_eq!(own, Some(lab.pod_ip(0, v6)), "own node");
            let other = reached(&pod, &lab.nodes[1].station.udp(of(1)));
            let seen = match mode {
                FabricMode::HostGw => lab.pod_ip(0, v6),
                _ => of(0),
            };
            assert_eq!(other, Some(seen), "other node, {mode:?}");
        }
    }
}

/// Two nodes on one segment, one behind a router: direct inside, tunnelled across.
#[test]
fn cross_subnet() {
    if !root("cross-subnet") {
        return;
    }
    let nodes = vec![node(1, true), node(2, true), far_node(3, true)];
    let mut lab = Lab::new(nodes, config(FabricMode::CrossSubnet));
    for report in lab.settle() {
        assert_eq!(
            (&report.errors[..], &report.problems[..]),
            (&[][..], &[][..])
        );
    }
    let plan = lab.nodes[0].fabric.plan().unwrap();
    let via = |range: &str| plan.paths[&net(range)].via.clone();
    for (near, far) in [
        ("10.244.2.0/24", "10.244.3.0/24"),
        ("fd00:10:244:2::/64", "fd00:10:244:3::/64"),
    ] {
        assert_eq!(
            via(near),
            Via::Direct {
                until_published: false
            }
        );
        assert!(matches!(via(far), Via::Vxlan { .. }));
    }
    lab.assert_flat(false);
    lab.assert_flat(true);
}

/// The node that cannot be reached is named, and the others work.
#[test]
fn host_gw_across_subnets_is_that_nodes_problem() {
    if !root("host-gw across subnets") {
        return;
    }
    let nodes = vec![node(1, false), node(2, false), far_node(3, false)];
    let mut lab = Lab::new(nodes, config(FabricMode::HostGw));
    let reports = lab.settle();
    assert_eq!(reports[0].errors, []);
    let said: Vec<String> = reports[0]
        .problems
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        said,
        [
            "node node3: status.addresses: 10.0.2.30 is on no subnet of node node1 (10.0.1.0/24), which fabric mode host-gw needs; use cross-subnet or vxlan"
        ]
    );
    assert_eq!(lab.seen(0, 1, false), Some(lab.pod_ip(0, false)));
}

/// A node run by Flannel, with the objects it makes and a hardware address of its own choice.
#[test]
fn a_flannel_node_and_ours_reach_each_other() {
    if !root("flannel") {
        return;
    }
    let mut theirs = node(2, false);
    theirs.vtep_mac = Some([0x4a, 0x10, 0x20, 0x30, 0x40, 0x50]);
    let mut lab = Lab::new(vec![node(1, false), theirs], config(FabricMode::Vxlan));
    assert_eq!(lab.turn(0).errors, []);
    lab.by_hand(1, 0, true);
    lab.assert_flat(false);

    // On one host both want the same VNI and port: said by name.
    lab.config.fabric.mode = FabricMode::Vxlan;
    let report = lab.turn(1);
    assert_eq!(report.published.v4, None);
    assert!(
        report.errors[0]
            .to_string()
            .contains("link flannel.1 has VNI 1 on port 8472 already"),
        "{:?}",
        report.errors
    );
    lab.nodes[1]
        .station
        .netlink
        .delete_link("flannel.1")
        .unwrap();
    let report = lab.turn(1);
    assert_eq!(report.errors, []);
    lab.publish(1, &report);
    lab.settle();
    lab.assert_flat(false);
}

/// A node whose filters are strict, as some distributions set them.
#[test]
fn strict_reverse_path_filters_are_loosened() {
    if !root("rp_filter") {
        return;
    }
    let mut lab = Lab::new(
        vec![node(1, false), node(2, false)],
        config(FabricMode::Vxlan),
    );
    let read = |lab: &Lab, key: &'static str| {
        let value = run_in(&lab.nodes[0].station.netns, || sysctl::read(key).unwrap());
        value.unwrap().unwrap_or_default()
    };
    run_in(&lab.nodes[0].station.netns, || {
        sysctl::write("net/ipv4/conf/all/rp_filter", "1").unwrap();
    })
    .unwrap();
    lab.settle();
    assert_eq!(read(&lab, "net/ipv4/conf/eth0/rp_filter"), "2");
    assert_eq!(read(&lab, "net/ipv4/conf/fn-vxlan/rp_filter"), "2");
    assert_eq!(read(&lab, "net/ipv4/conf/all/rp_filter"), "1");
    assert_eq!(lab.settle()[0].changes, 0);
    lab.assert_flat(false);
}

/// A node, as its kubelet's probes do, connects to pods of its own and of other nodes.
#[test]
fn nodes_connect_to_pods() {
    if !root("node to pod") {
        return;
    }
    for mode in [FabricMode::Vxlan, FabricMode::HostGw] {
        let nodes = (1..=2).map(|number| node(number, true)).collect();
        let mut lab = Lab::new(nodes, config(mode));
        lab.settle();
        for v6 in [false, true] {
            for to in [0, 1] {
                let ip = lab.pod_ip(to, v6);
                let bound = run_in(&lab.nodes[to].pod.netns, || TcpListener::bind((ip, 0)));
                let listener = bound.unwrap().unwrap();
                let target = listener.local_addr().unwrap();
                let wait = Duration::from_secs(30);
                run_in(&lab.nodes[0].station.netns, || {
                    TcpStream::connect_timeout(&target, wait).unwrap();
                })
                .unwrap();
                let (_, peer) = listener.accept().unwrap();
                let node = &lab.nodes[0].node;
                let own = node.addresses.contains(&peer.ip())
                    || node
                        .pod_cidrs
                        .iter()
                        .any(|range| range.contains(&peer.ip()));
                assert!(own, "{mode:?}: {peer} is none of node1's addresses");
            }
        }
    }
}

/// Nodes and pods without any IPv4.
#[test]
fn ipv6_alone() {
    if !root("ipv6 alone") {
        return;
    }
    for mode in [FabricMode::Vxlan, FabricMode::HostGw] {
        let nodes = (1..=3).map(|number| {
            let mut node = node(number, true);
            node.addresses.remove(0);
            node.pod_cidrs.remove(0);
            node
        });
        let mut lab = Lab::new(nodes.collect(), config(mode));
        lab.config.cluster_cidrs.remove(0);
        for report in lab.settle() {
            assert_eq!(
                (&report.errors[..], &report.problems[..]),
                (&[][..], &[][..])
            );
            assert_eq!(report.published.v4, None);
        }
        lab.assert_flat(true);
        let links = lab.nodes[0].station.netlink.links().unwrap();
        assert!(links.iter().all(|link| link.name != "fn-vxlan"));
    }
}
