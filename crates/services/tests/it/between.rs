//! Packets that pass while a change is being made.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use linux::conntrack::{Conntrack, Flow, FlowFilter};
use linux::{NetNs, run_in};
use model::Protocol;
use model::config::ServicesMode;

use crate::cases::Place;
use crate::lab::Lab;
use crate::probe;
use crate::spread::{put, service};

const FROM: [Place; 1] = [Place::Pod("1c")];
const LAST: Duration = Duration::from_secs(4);

/// A connection that gets past the rules untranslated stays so for as long as connection tracking
/// knows it, however often its first packet comes again: nobody answers there, and nobody
/// refuses. There must be no moment in which one can.
#[test]
fn nothing_gets_past_the_rules_while_they_change() {
    if !testing::root("nothing_gets_past_the_rules_while_they_change") {
        return;
    }
    let mut lab = Lab::new(ServicesMode::Nftables);
    let mut service = service(1);
    service.ports.retain(|port| port.protocol == Protocol::Tcp);
    let to = (service.cluster_ips[0], 80).into();
    put(&mut lab, &service, &[]);
    lab.settle();
    let (over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut changes = 0;
    // The lab changes meanwhile: handles of their own.
    let places = FROM.map(|from| {
        let handle = from.netns(&lab).as_raw_fd();
        NetNs::open(format!("/proc/self/fd/{handle}")).unwrap()
    });
    std::thread::scope(|scope| {
        for netns in &places {
            scope.spawn(|| {
                run_in(netns, || {
                    while !over.load(Ordering::Relaxed) {
                        probe::knock(to);
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
        }
        let begun = Instant::now();
        while begun.elapsed() < LAST {
            // Every time a chain that was not there is what the Service leads to.
            for pods in [&["2a"][..], &["2a", "2b"], &[]] {
                put(&mut lab, &service, pods);
                assert_eq!(lab.turn(0).errors, []);
                changes += 1;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    let mut past = Vec::new();
    let mut take = |flow: Flow| {
        if flow.orig.dst == to.ip() && flow.reply.src == to.ip() {
            past.push(flow);
        }
    };
    let conntrack = Conntrack::open_in(&lab.nodes[0].station.netns);
    conntrack
        .unwrap()
        .flows(&FlowFilter::default(), &mut take)
        .unwrap();
    println!("{changes} changes, {sent:?} connections");
    assert!(
        past.is_empty(),
        "{} of {sent:?} connections got past the rules in {changes} changes, for example {}",
        past.len(),
        past[0]
    );
}
