//! The node's server ends, in whatever way.

use std::time::{Duration, Instant};

use dns::apply::Interception;
use linux::{Nftables, run_in};
use nft::Family;
use testing::{Driven, Pace, root, say_done};

use super::lab::{
    HERE, Lab, SERVICE, THERE, all, ask_tcp, ask_udp, ask_udp_for, serve_here, serve_on,
};

/// Tells a process of this program to be a server.
const DRIVEN: &str = "FLATNET_TEST_DNS_SERVER";

/// The process that is killed: serves from its first number on.
#[test]
fn driven() {
    if std::env::var(DRIVEN).is_err() {
        return;
    }
    let mut kept = Vec::new();
    for line in std::io::stdin().lines() {
        kept.push(serve_here(&all()));
        say_done(line.unwrap().parse().unwrap());
    }
}

fn start(lab: &Lab) -> Driven {
    let mut driven = Driven::start(&lab.node.netns, "node::fall::driven", (DRIVEN, "1"));
    driven.ask(1);
    driven.done(1);
    driven
}

#[test]
fn a_killed_server_leaves_nothing_in_the_way() {
    if !root("a_killed_server_leaves_nothing_in_the_way") {
        return;
    }
    let lab = Lab::new();
    for round in 0..5 {
        let driven = start(&lab);
        assert_eq!(
            ask_udp(&lab.pod, SERVICE[0]).as_deref(),
            Ok(HERE),
            "round {round}"
        );
        // `kill -9`, and it is waited for.
        drop(driven);
        let mut nftables = Nftables::open_in(&lab.node.netns).unwrap();
        let left = nftables
            .read(Family::Inet, dns::render::nftables::TABLE)
            .unwrap();
        assert_eq!(left, None);
        for from in [&lab.pod, &lab.bridged, &lab.node] {
            for server in SERVICE {
                assert_eq!(ask_udp(from, server).as_deref(), Ok(THERE), "round {round}");
                assert_eq!(ask_tcp(from, server).as_deref(), Ok(THERE), "round {round}");
            }
        }
    }
}

/// Of clients that ask all the time, at most those are without an answer whose query was with the
/// server when it was killed, or came within the moment that the kernel takes to clean up.
#[test]
fn the_gap_at_a_kill_is_short() {
    if !root("the_gap_at_a_kill_is_short") {
        return;
    }
    let lab = Lab::new();
    let mut gaps = Vec::new();
    let pace = Pace::measure();
    for _ in 0..5 {
        let driven = start(&lab);
        let pod = &lab.pod;
        let (gap, lost) = std::thread::scope(|scope| {
            let asking = scope.spawn(move || {
                let (mut last, mut gap, mut lost) = (Instant::now(), Duration::ZERO, 0);
                let mut there = 0;
                while there < 50 {
                    match ask_udp_for(pod, SERVICE[0], Duration::from_millis(20)) {
                        Ok(who) => {
                            there += usize::from(who == THERE);
                            gap = gap.max(last.elapsed());
                            last = Instant::now();
                        }
                        Err(_) => lost += 1,
                    }
                }
                (gap, lost)
            });
            std::thread::sleep(Duration::from_millis(50));
            drop(driven);
            asking.join().unwrap()
        });
        gaps.push((gap, lost));
    }
    let measured = pace.end();
    println!("{gaps:?}; {measured}");
    let most = measured.allows(
        Duration::from_millis(200),
        Duration::from_millis(100),
        Duration::from_millis(10),
    );
    assert!(
        gaps.iter().all(|(gap, _)| *gap <= most),
        "{gaps:?}; {measured}"
    );
}

#[test]
fn two_agents_never_share_a_node() {
    if !root("two_agents_never_share_a_node") {
        return;
    }
    let lab = Lab::new();
    let first = serve_on(&lab.node, &all());
    let claim = || run_in(&lab.node.netns, || Interception::claim().unwrap()).unwrap();
    assert!(claim().is_none());
    assert_eq!(ask_udp(&lab.pod, SERVICE[0]).as_deref(), Ok(HERE));
    drop(first);
    assert!(claim().is_some());
}
