//! Questions for names to the node's own server: the rules, evaluated, against what `explain` says
//! of them, whatever changes before.

use std::net::IpAddr;
use std::sync::Arc;

use model::{
    Change, Changed, Cluster, Config, Endpoint, EndpointSlice, Namespace, Protocol, Service,
    ServicePort, SlicePort,
};
use nft::eval::{Fate, Packet};
use nft::{Compiled, CtState};
use policy::explain::asking;
use policy::{End, NodeDns, Policies};
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::worlds::{NAMESPACES, World, change};
use super::{HERE, Station, reconcile, there};

const SERVICE: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
const LOCAL: &str = "169.254.20.10";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn config() -> Config {
    let mut config = Config {
        cluster_dns: SERVICE.map(ip).into(),
        ..Config::default()
    };
    config.dns.local_address = Some(ip(LOCAL));
    config
}

fn service() -> Service {
    let port = |name: &str, protocol| ServicePort {
        name: name.into(),
        protocol,
        port: 53,
        node_port: None,
    };
    Service {
        namespace: "kube-system".into(),
        name: "kube-dns".into(),
        cluster_ips: SERVICE.map(ip).into(),
        ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
        ..Service::default()
    }
}

fn slice(endpoints: &[(&str, bool)], v6: bool, number: u16) -> EndpointSlice {
    let port = |name: &str, protocol, port| SlicePort {
        name: name.into(),
        protocol,
        port: Some(port),
    };
    let ips = endpoints.iter().map(|(at, ready)| (ip(at), *ready));
    EndpointSlice {
        namespace: "kube-system".into(),
        name: format!("kube-dns-{v6}"),
        service: "kube-dns".into(),
        v6,
        ports: vec![
            port("dns", Protocol::Udp, 53),
            port("dns-tcp", Protocol::Tcp, number),
        ],
        endpoints: ips
            .filter(|(ip, _)| ip.is_ipv6() == v6)
            .map(|(ip, ready)| Endpoint {
                ip,
                more: Box::default(),
                ready,
                serving: ready,
                terminating: false,
                node: None,
                zone: None,
                hostname: None,
                pod: None,
                for_zones: Vec::new(),
                for_nodes: Vec::new(),
            })
            .collect(),
        triggered: None,
    }
}

/// The DNS Service comes, changes its endpoints, or goes.
fn dns() -> impl Strategy<Value = Vec<Change>> {
    let all = vec![
        ("10.244.1.1", true),
        ("10.244.1.3", false),
        ("10.244.2.2", true),
        ("10.244.2.4", true),
        ("10.0.1.20", true),
        ("fd00:10:244:1::2", true),
        ("fd00:10:244:2::1", true),
    ];
    let some = (subsequence(all, 0..5), prop_oneof![Just(53), Just(80)]);
    let there = some.prop_map(|(endpoints, number)| {
        let slices = [false, true].map(|v6| slice(&endpoints, v6, number));
        let slices = slices.map(|slice| Change::Slice(Arc::new(slice)));
        [vec![Change::Service(Arc::new(service()))], slices.into()].concat()
    });
    let gone = Just(vec![Change::ServiceGone(
        "kube-system".into(),
        "kube-dns".into(),
    )]);
    prop_oneof![6 => there, 1 => gone]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop_oneof![4 => change().prop_map(|change| vec![change]), 1 => dns()]
}

/// Whether the rules let a question pass.
fn passes(table: Option<&Compiled>, from: IpAddr, to: &str, protocol: Protocol) -> bool {
    let Some(table) = table else {
        return true;
    };
    let packet = Packet {
        iif: "fn-0123456789a".into(),
        state: CtState::Untracked,
        ..Packet::new(from, ip(to), protocol.number(), 40_000, 53)
    };
    table.eval("input", &packet).unwrap().fate == Fate::Accepted
}

fn differences(cluster: &Cluster, table: Option<&Compiled>, world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let locals = world.locals_of(HERE);
    for from in locals.values().flat_map(|local| &local.ips) {
        let servers = [SERVICE[0], SERVICE[1], LOCAL];
        for to in servers
            .iter()
            .filter(|to| ip(to).is_ipv6() == from.is_ipv6())
        {
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                let at = End::at(cluster, *from);
                let service = config().dns_service_of(ip(to)).unwrap();
                let (question, side) = asking(cluster, &at, service, protocol);
                let found = passes(table, *from, to, protocol);
                if found != side.allowed {
                    wrong.push(format!(
                        "{from} {to} {protocol}: {found}, {question:?} {side:?}"
                    ));
                }
            }
        }
    }
    wrong
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn who_may_ask_is_what_explain_says(
        steps in prop::collection::vec(changes(), 10..60),
        at_once in 1_usize..6,
    ) {
        let mut world = World::default();
        let mut station = Station::new();
        station.policies.set_resolver(NodeDns::of(&config()));
        // Namespaces of pods are known.
        for name in NAMESPACES {
            let namespace = Namespace { name: name.into(), ..Namespace::default() };
            world.cluster.take(Change::Namespace(Arc::new(namespace)));
        }
        for some in steps.chunks(at_once) {
            let mut changed = Changed::default();
            let known = |change: &&Change| !matches!(change, Change::NamespaceGone(_));
            for change in some.iter().flatten().filter(known) {
                world.cluster.note(change.clone(), &mut changed);
            }
            let locals = world.locals_of(HERE);
            station.follow(&world.cluster, &changed, &locals);
            let have = there(&mut station.fake);
            let wrong = differences(&world.cluster, have.as_ref(), &world);
            prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        }
        // A new agent makes the same of it.
        let mut other = Policies::new(HERE);
        other.set_resolver(NodeDns::of(&config()));
        let nothing = Changed::default();
        let locals = world.locals_of(HERE);
        let report = reconcile(&mut other, &mut station.fake, &world.cluster, &nothing, &locals);
        prop_assert_eq!(report.changes, 0);
        // Without an own server nobody is asked about it.
        prop_assert!(other.set_resolver(NodeDns::default()));
        prop_assert!(!other.set_resolver(NodeDns::default()));
        reconcile(&mut other, &mut station.fake, &world.cluster, &nothing, &locals);
        prop_assert!(other.plan().mute().is_empty());
        let have = there(&mut station.fake);
        if let Some(set) = have.as_ref().and_then(|have| have.sets.get("mute4")) {
            prop_assert!(set.elements.is_empty());
        }
    }
}
