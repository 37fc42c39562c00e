//! What others delete or change is put right, within a second, by what the kernel tells.

use std::time::{Duration, Instant};

use linux::{LinkChange, Mac, Monitor, Nftables, Route};
use model::config::FabricMode;
use nft::{Family, Op, Transaction};
use testing::Figure;

use crate::cluster::{config, net, node};
use crate::lab::{Lab, LabNode, root};

/// Runs one node's part of the agent until nothing has happened for a moment; the number of
/// changes it made.
fn heal(lab: &mut Lab, at: usize, monitor: &mut Monitor) -> usize {
    let end = Instant::now() + Duration::from_secs(30);
    let mut changes = 0;
    while Instant::now() < end {
        let events = monitor.wait(Duration::from_millis(50)).unwrap();
        if events.is_empty() && changes > 0 {
            break;
        }
        let fabric = &mut lab.nodes[at].fabric;
        let due = events.iter().filter(|event| fabric.notice(event)).count();
        if due > 0 {
            let report = lab.turn(at);
            assert_eq!(report.errors, []);
            changes += report.changes;
        }
    }
    changes
}

type Break = (&'static str, fn(&mut LabNode));

fn vxlan(node: &mut LabNode) -> u32 {
    node.station.index("fn-vxlan")
}

fn mac_of(name: &str) -> Mac {
    fabric::plan::vtep_mac(name, "fn-vxlan")
}

const BREAKS: [Break; 9] = [
    ("route deleted", |node| {
        let route =
            Route::new(net("10.244.2.0/24"), vxlan(node)).via_onlink([10, 244, 2, 0].into());
        node.station
            .netlink
            .delete_route(&Route {
                protocol: 0,
                ..route
            })
            .unwrap();
    }),
    ("route changed", |node| {
        let eth0 = node.station.index("eth0");
        let route = Route::new(net("10.244.2.0/24"), eth0).via([10, 0, 1, 1].into());
        node.station.netlink.replace_route(&route).unwrap();
    }),
    ("forwarding entry deleted", |node| {
        let dev = vxlan(node);
        node.station
            .netlink
            .delete_fdb(dev, mac_of("node2"), None)
            .unwrap();
    }),
    ("forwarding entry changed", |node| {
        let dev = vxlan(node);
        node.station
            .netlink
            .replace_fdb(dev, mac_of("node2"), [10, 0, 1, 99].into())
            .unwrap();
    }),
    ("neighbour deleted", |node| {
        let dev = vxlan(node);
        node.station
            .netlink
            .delete_neighbour(dev, [10, 244, 2, 0].into())
            .unwrap();
    }),
    ("link deleted", |node| {
        node.station.netlink.delete_link("fn-vxlan").unwrap();
    }),
    ("link down", |node| {
        let dev = vxlan(node);
        let down = LinkChange {
            up: Some(false),
            ..LinkChange::default()
        };
        node.station.netlink.change_link(dev, &down).unwrap();
    }),
    ("link's hardware address changed", |node| {
        let dev = vxlan(node);
        let mac = LinkChange {
            mac: Some(Mac::local([9; 6])),
            ..LinkChange::default()
        };
        node.station.netlink.change_link(dev, &mac).unwrap();
    }),
    ("rules deleted", |node| {
        let delete = Transaction {
            family: Family::Inet,
            table: "flatnet".into(),
            ops: vec![Op::DeleteTable],
        };
        Nftables::open_in(&node.station.netns)
            .unwrap()
            .apply(&delete)
            .unwrap();
    }),
];

#[test]
fn what_others_break_is_healed_within_a_second() {
    if !root("heal") {
        return;
    }
    let nodes = (1..=3).map(|number| node(number, false)).collect();
    let mut lab = Lab::new(nodes, config(FabricMode::Vxlan));
    lab.settle();
    let mut monitor = Monitor::open_in(&lab.nodes[0].station.netns).unwrap();
    // The last 50 ms are spent waiting for what does not come.
    let figure = Figure {
        figure: Duration::from_secs(1),
        waits: Duration::from_millis(50),
        work: Duration::from_millis(100),
    };
    for (what, broken) in BREAKS {
        figure.hold(what, || {
            broken(&mut lab.nodes[0]);
            let start = Instant::now();
            let changes = heal(&mut lab, 0, &mut monitor);
            let took = start.elapsed();
            assert!(changes > 0, "{what}: nothing was done");
            assert_eq!(lab.seen(0, 1, false), Some(lab.pod_ip(0, false)), "{what}");
            // As it was: a fresh look finds nothing to do.
            lab.nodes[0].fabric.resync();
            assert_eq!(lab.turn(0).changes, 0, "{what}");
            while !monitor.wait(Duration::from_millis(10)).unwrap().is_empty() {}
            took
        });
    }
}

#[test]
fn own_changes_and_pods_are_not_looked_at_twice() {
    if !root("own changes") {
        return;
    }
    let nodes = (1..=3).map(|number| node(number, true)).collect();
    let mut lab = Lab::new(nodes, config(FabricMode::Vxlan));
    let mut monitor = Monitor::open_in(&lab.nodes[0].station.netns).unwrap();
    lab.settle();
    // The rules' own notification is answered by one look, nothing else.
    while has_noticed(&mut lab, &mut monitor) {
        assert_eq!(lab.turn(0).changes, 0);
    }
    let gone = lab.cluster.nodes.remove("node3").unwrap();
    assert!(lab.turn(0).changes > 0);
    assert!(!has_noticed(&mut lab, &mut monitor));
    lab.cluster.nodes.insert(gone.name.clone(), gone);
    assert!(lab.turn(0).changes > 0);
    assert!(!has_noticed(&mut lab, &mut monitor));
    // A pod comes, in the way the CNI plugin makes it.
    let mut pod = crate::lab::Station::new();
    lab.nodes[0]
        .station
        .cable("fn-abcdef01234", &mut pod, "eth0", 1450);
    let dev = lab.nodes[0].station.index("fn-abcdef01234");
    let route = Route::new(net("10.244.1.77/32"), dev).protocol(103);
    lab.nodes[0].station.netlink.add_route(&route).unwrap();
    let events = monitor.wait(Duration::from_millis(200)).unwrap();
    assert!(!events.is_empty());
    for event in events {
        assert!(!lab.nodes[0].fabric.notice(&event), "{event:?}");
    }
}

/// Whether what has happened on the first node since the last call concerns its fabric.
fn has_noticed(lab: &mut Lab, monitor: &mut Monitor) -> bool {
    let events = monitor.wait(Duration::from_millis(50)).unwrap();
    let fabric = &mut lab.nodes[0].fabric;
    events.iter().filter(|event| fabric.notice(event)).count() > 0
}
