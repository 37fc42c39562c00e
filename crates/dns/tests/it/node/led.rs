//! While the node's server answers.

use std::time::{Duration, Instant};

use dns::render::nftables::{TABLE, table};
use linux::{Host, Monitor, Nftables, RouteFilter, run_in, sysctl};
use nft::{Family, Op, Transaction};
use testing::root;
use testing::station::ip;

use super::lab::{
    HERE, LOCAL, Lab, Local, SERVICE, THERE, all, ask_tcp, ask_udp, ask_udp_for, serve_on,
};

#[test]
fn pods_and_the_node_are_answered_by_the_node_and_nothing_is_tracked() {
    if !root("pods_and_the_node_are_answered_by_the_node_and_nothing_is_tracked") {
        return;
    }
    let lab = Lab::new();
    let here = serve_on(&lab.node, &all());
    let askers = [
        ("pod", &lab.pod),
        ("bridged pod", &lab.bridged),
        ("node", &lab.node),
    ];
    for (name, from) in askers {
        for server in [SERVICE[0], SERVICE[1], LOCAL] {
            assert_eq!(
                ask_udp(from, server).as_deref(),
                Ok(HERE),
                "{name} {server} UDP"
            );
            assert_eq!(
                ask_tcp(from, server).as_deref(),
                Ok(HERE),
                "{name} {server} TCP"
            );
        }
    }
    assert_eq!(lab.tracked(), 0);
    // Whoever comes from elsewhere takes the ordinary way, which is tracked.
    for server in SERVICE {
        let answer = ask_udp_for(&lab.router, server, Duration::from_millis(100));
        assert_ne!(answer.as_deref(), Ok(HERE), "{server} UDP");
    }
    assert_ne!(lab.tracked(), 0);
    drop(here);
    for (name, from) in askers {
        for server in SERVICE {
            assert_eq!(
                ask_udp(from, server).as_deref(),
                Ok(THERE),
                "{name} {server} UDP"
            );
            assert_eq!(
                ask_tcp(from, server).as_deref(),
                Ok(THERE),
                "{name} {server} TCP"
            );
        }
    }
}

/// What administrators and other programs set: each would lose packets of a transparent proxy that
/// delivers everything by its mark.
#[test]
fn settings_of_the_host_are_no_traps() {
    if !root("settings_of_the_host_are_no_traps") {
        return;
    }
    let lab = Lab::new();
    let _here = serve_on(&lab.node, &all());
    for (key, value) in [
        ("all/rp_filter", "1"),
        ("default/rp_filter", "1"),
        ("fn-0123456789a/rp_filter", "1"),
        ("cni0/rp_filter", "1"),
        ("lo/rp_filter", "1"),
        // The way back of a packet is looked up with its mark.
        ("all/src_valid_mark", "1"),
        ("all/accept_local", "0"),
        ("all/route_localnet", "0"),
    ] {
        let key = format!("net/ipv4/conf/{key}");
        run_in(&lab.node.netns, || sysctl::write(&key, value).unwrap()).unwrap();
    }
    // Answers bear the mark of what they answer.
    for key in [
        "net/ipv4/tcp_fwmark_accept",
        "net/ipv4/fwmark_reflect",
        "net/ipv6/fwmark_reflect",
    ] {
        run_in(&lab.node.netns, || sysctl::write(key, "1").unwrap()).unwrap();
    }
    for (name, from) in [
        ("pod", &lab.pod),
        ("bridged", &lab.bridged),
        ("node", &lab.node),
    ] {
        for server in [SERVICE[0], SERVICE[1], LOCAL] {
            assert_eq!(
                ask_udp(from, server).as_deref(),
                Ok(HERE),
                "{name} {server} UDP"
            );
            assert_eq!(
                ask_tcp(from, server).as_deref(),
                Ok(HERE),
                "{name} {server} TCP"
            );
        }
    }
    assert_eq!(lab.tracked(), 0);
}

#[test]
fn nobody_else_changes_the_table_and_the_rest_is_healed() {
    if !root("nobody_else_changes_the_table_and_the_rest_is_healed") {
        return;
    }
    let mut lab = Lab::new();
    let mut here = serve_on(&lab.node, &all());
    let mut others = Nftables::open_in(&lab.node.netns).unwrap();
    let want = table(&all(), dns::apply::mark(14));
    let found = others.read(Family::Inet, TABLE).unwrap();
    assert_eq!(found, Some(want.compile()));
    let own = |ops| Transaction {
        family: Family::Inet,
        table: TABLE.into(),
        ops,
    };
    for op in [
        Op::DeleteTable,
        Op::FlushChain("prerouting".into()),
        Op::OwnTable,
    ] {
        let refused = others.apply(&own(vec![op.clone()])).unwrap_err();
        assert!(refused.is(libc::EPERM), "{op}: {refused}");
    }
    if let Some(nft) = testing::program("flush ruleset", "nft") {
        let flush = || {
            std::process::Command::new(nft)
                .args(["flush", "ruleset"])
                .status()
                .unwrap()
        };
        assert!(run_in(&lab.node.netns, flush).unwrap().success());
    }
    assert_eq!(ask_udp(&lab.pod, SERVICE[0]).as_deref(), Ok(HERE));
    let mut monitor = Monitor::open_in(&lab.node.netns).unwrap();
    let rules = lab.node.netlink.mark_rules().unwrap();
    assert_eq!(rules.len(), 2, "{rules:?}");
    for rule in rules {
        lab.node.netlink.delete_mark_rule(&rule).unwrap();
    }
    let noticed = |monitor: &mut Monitor, here: &Local| {
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            let events = monitor.wait(Duration::from_millis(50)).unwrap();
            if events.iter().any(|event| here.interception.notice(event)) {
                return true;
            }
        }
        false
    };
    assert!(noticed(&mut monitor, &here));
    here.interception.heal(&mut here.netlink).unwrap();
    assert_eq!(ask_udp(&lab.pod, SERVICE[1]).as_deref(), Ok(HERE));
    assert_eq!(ask_udp(&lab.node, SERVICE[0]).as_deref(), Ok(HERE));
    monitor.read().unwrap();
    let filter = RouteFilter {
        table: Some(dns::apply::ROUTES),
        ..Default::default()
    };
    for route in lab.node.netlink.routes(filter).unwrap() {
        lab.node.netlink.delete_route(&route).unwrap();
    }
    assert!(noticed(&mut monitor, &here));
    here.interception.heal(&mut here.netlink).unwrap();
    for server in [SERVICE[0], SERVICE[1], LOCAL] {
        assert_eq!(ask_udp(&lab.node, server).as_deref(), Ok(HERE));
        assert_eq!(ask_tcp(&lab.pod, server).as_deref(), Ok(HERE));
    }
}

#[test]
fn without_rule_or_route_pods_are_answered_elsewhere() {
    if !root("without_rule_or_route_pods_are_answered_elsewhere") {
        return;
    }
    let mut lab = Lab::new();
    let mut here = serve_on(&lab.node, &all());
    for rule in lab.node.netlink.mark_rules().unwrap() {
        lab.node.netlink.delete_mark_rule(&rule).unwrap();
    }
    for from in [&lab.pod, &lab.bridged] {
        for server in SERVICE {
            assert_eq!(ask_udp(from, server).as_deref(), Ok(THERE), "{server} UDP");
            assert_eq!(ask_tcp(from, server).as_deref(), Ok(THERE), "{server} TCP");
        }
    }
    here.interception.heal(&mut here.netlink).unwrap();
    assert_eq!(ask_udp(&lab.pod, SERVICE[0]).as_deref(), Ok(HERE));
    // Only where it is to be.
    here.interception
        .lead(&mut here.netlink, &[ip(SERVICE[0])], dns::apply::mark(6))
        .unwrap();
    assert_eq!(ask_udp(&lab.pod, SERVICE[0]).as_deref(), Ok(HERE));
    assert_eq!(ask_udp(&lab.pod, SERVICE[1]).as_deref(), Ok(THERE));
    assert_eq!(lab.node.netlink.mark_rules().unwrap().len(), 1);
    drop(here);
    assert_eq!(dns::apply::remove_all(&mut lab.node.netlink), []);
    assert_eq!(lab.node.netlink.mark_rules().unwrap(), []);
    let _ = run_in(&lab.node.netns, || Host::open().unwrap());
}
