//! Nodes come, go and move, and the mode changes, while packets travel.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use linux::{Address, Monitor};
use model::config::FabricMode;

use crate::cluster::{config, net, node};
use crate::lab::{Lab, LabNode, reached, root};

fn lab(mode: FabricMode, dual: bool) -> Lab {
    let mut lab = Lab::new(
        (1..=3).map(|number| node(number, dual)).collect(),
        config(mode),
    );
    lab.settle();
    lab
}

#[test]
fn a_node_leaves_and_returns() {
    if !root("node leaves") {
        return;
    }
    let mut lab = lab(FabricMode::Vxlan, false);
    let gone = lab.cluster.nodes.remove("node2").unwrap();
    lab.settle();
    assert!(lab.nodes[0].fabric.plan().unwrap().paths.len() == 1);
    lab.cluster.nodes.insert(gone.name.clone(), gone);
    for report in lab.settle() {
        assert_eq!(report.errors, []);
    }
    lab.assert_flat(false);
}

#[test]
fn a_node_changes_its_address() {
    if !root("node moves") {
        return;
    }
    for mode in [FabricMode::Vxlan, FabricMode::HostGw] {
        let mut lab = lab(mode, false);
        let LabNode {
            station, fabric, ..
        } = &mut lab.nodes[1];
        let mut monitor = Monitor::open_in(&station.netns).unwrap();
        let dev = station.index("eth0");
        let old = Address::new(dev, net("10.0.1.20/24"));
        station.netlink.delete_address(&old).unwrap();
        station.address("eth0", "10.0.1.99/24");
        let events = monitor.wait(Duration::from_secs(1)).unwrap();
        assert!(
            events.iter().any(|event| fabric.notice(event)),
            "{events:?}"
        );
        lab.cluster.nodes.get_mut("node2").unwrap().addresses = vec![[10, 0, 1, 99].into()];
        for report in lab.settle() {
            assert_eq!(
                (&report.errors[..], &report.problems[..]),
                (&[][..], &[][..])
            );
        }
        lab.assert_flat(false);
    }
}

/// One packet a millisecond in both directions between the pods of nodes 1 and 2, while the
/// nodes change their mode one after the other, with time between them.
fn the_mode_changes(v6: bool) {
    if !root("mode change") {
        return;
    }
    let mut lab = lab(FabricMode::Vxlan, v6);
    let sockets = [0, 1].map(|at| lab.nodes[at].pod.udp(lab.pod_ip(at, v6)));
    assert!(reached(&sockets[0], &sockets[1]).is_some());
    assert!(reached(&sockets[1], &sockets[0]).is_some());
    let (sent, received) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (own, other) in [(0, 1), (1, 0)] {
            let (sockets, sent, received, done) = (&sockets, &sent, &received, &done);
            scope.spawn(move || {
                let to = sockets[other].local_addr().unwrap();
                while !done.load(Ordering::Relaxed) {
                    sockets[own].send_to(b"hello", to).unwrap();
                    sent.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            scope.spawn(move || {
                while sockets[own].recv_from(&mut [0; 16]).is_ok() {
                    received.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        use FabricMode::{CrossSubnet, HostGw, Vxlan};
        for mode in [HostGw, Vxlan, CrossSubnet, Vxlan, HostGw] {
            lab.config = config(mode);
            // Each node hears of the mode, and later of what the others published.
            for _ in 0..2 {
                for at in 0..3 {
                    let report = lab.turn(at);
                    assert_eq!(report.errors, []);
                    lab.publish(at, &report);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let (sent, received) = (sent.into_inner(), received.into_inner());
    println!(
        "mode changes: {sent} packets sent, {} lost",
        sent - received
    );
    assert!(sent > 500, "{sent}");
    // Ten milliseconds of traffic; none is lost on a machine that is not busy.
    assert!(sent - received <= 10, "{} of {sent} lost", sent - received);
    lab.assert_flat(v6);
}

#[test]
fn the_mode_changes_under_traffic() {
    the_mode_changes(false);
}

#[test]
fn the_mode_changes_under_ipv6_traffic() {
    the_mode_changes(true);
}
