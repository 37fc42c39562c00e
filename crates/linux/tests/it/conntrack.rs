use std::net::{IpAddr, SocketAddr, UdpSocket};

use linux::conntrack::{DST_NAT, Tuple};
use linux::{Conntrack, Flow, FlowFilter, NetNs, Nftables, run_in};
use nft::{
    Chain, Family, Hook, IpFamily, Key, NatKind, NatTo, Rule, Statement, Table, Value, diff,
};

use crate::nftables::nat;
use crate::services::lonely_host;
use crate::{namespace, root};

const UDP: u8 = 17;
/// Of each family a client, a Service and its pod.
const PLACES: [[&str; 3]; 2] = [
    ["10.9.9.9", "10.96.0.1", "10.244.1.1"],
    ["fd00:9::9", "fd00:10:96::1", "fd00:10:244:1::1"],
];

/// Translates both Services on this host.
fn translate(nftables: &mut Nftables) {
    let rules = PLACES.map(|[_, service, pod]| {
        let [service, pod]: [IpAddr; 2] = [service, pod].map(|ip| ip.parse().unwrap());
        let family = IpFamily::of(pod);
        Rule::new([
            Statement::is(Key::Daddr(family), service),
            Statement::is(Key::UdpDport, Value::Port(53)),
            Statement::Nat {
                kind: NatKind::Dnat,
                family,
                to: NatTo::Fixed(pod, Some(5353)),
            },
        ])
    });
    let chain = Chain {
        base: nat(Hook::Output, -100),
        rules: rules.into(),
    };
    let mut table = Table::new(Family::Inet, "flatnet");
    table.chains.insert("output".into(), chain);
    nftables
        .apply(&diff(None, &table.compile(), |_| true))
        .unwrap();
}

/// One packet to a Service, from a port.
fn send(netns: &NetNs, from: &str, port: u16, to: SocketAddr) {
    let from: IpAddr = from.parse().unwrap();
    run_in(netns, || {
        let socket = UdpSocket::bind((from, port)).unwrap();
        // Nobody may listen there.
        socket.send_to(b"x", to).unwrap();
    })
    .unwrap();
}

fn flows(conntrack: &mut Conntrack, filter: FlowFilter) -> Vec<Flow> {
    let mut flows = Vec::new();
    conntrack
        .flows(&filter, &mut |flow| flows.push(flow))
        .unwrap();
    flows.sort();
    flows.dedup();
    flows
}

#[test]
fn flows_are_found_and_forgotten() {
    if !root("conntrack") {
        return;
    }
    let (netns, mut netlink) = namespace();
    lonely_host(&mut netlink);
    translate(&mut Nftables::open_in(&netns).unwrap());
    let mut conntrack = Conntrack::open_in(&netns).unwrap();
    assert_eq!(flows(&mut conntrack, FlowFilter::default()), []);
    for [client, service, pod] in PLACES {
        let [client_ip, service, pod]: [IpAddr; 3] =
            [client, service, pod].map(|ip| ip.parse().unwrap());
        for (port, dport) in [(4001, 53), (4002, 53), (4003, 54)] {
            send(&netns, client, port, (service, dport).into());
        }
        let at_service = FlowFilter {
            proto: Some(UDP),
            dst: Some(service),
            dport: Some(53),
            ..FlowFilter::default()
        };
        let found = flows(&mut conntrack, at_service);
        let [first, second] = found.as_slice() else {
            let all = flows(&mut conntrack, FlowFilter::default());
            panic!("two flows to {service}, not {found:?} of {all:?}");
        };
        let orig = Tuple {
            src: client_ip,
            dst: service,
            sport: 4001,
            dport: 53,
        };
        let reply = Tuple {
            src: pod,
            dst: client_ip,
            sport: 5353,
            dport: 4001,
        };
        assert_eq!((first.orig, first.reply), (orig, reply));
        assert_eq!((first.proto, first.mark, first.zone), (UDP, 0, 0));
        assert_ne!(first.status & DST_NAT, 0, "{first:?}");
        let elsewhere = FlowFilter {
            dport: Some(54),
            ..at_service
        };
        assert_eq!(flows(&mut conntrack, elsewhere).len(), 1);
        let tcp = FlowFilter {
            proto: Some(6),
            ..at_service
        };
        assert_eq!(flows(&mut conntrack, tcp), []);
        let family = FlowFilter {
            family: Some(IpFamily::of(service)),
            ..FlowFilter::default()
        };
        let of_family = flows(&mut conntrack, family);
        assert!(of_family.contains(first) && of_family.contains(second));

        assert!(conntrack.delete_flow(first).unwrap());
        assert!(!conntrack.delete_flow(first).unwrap(), "gone already");
        assert_eq!(flows(&mut conntrack, at_service), [*second]);
        let other = Flow {
            id: second.id ^ 1,
            ..*second
        };
        assert!(!conntrack.delete_flow(&other).unwrap(), "not the one meant");
        send(&netns, client, 4001, (service, 53).into());
        assert_eq!(flows(&mut conntrack, at_service).len(), 2);
    }
    let all = flows(&mut conntrack, FlowFilter::default());
    let ends = |ip: &str| {
        let ip: IpAddr = ip.parse().unwrap();
        all.iter().filter(|flow| flow.orig.dst == ip).count()
    };
    assert_eq!(PLACES.map(|[_, service, _]| ends(service)), [3, 3]);
    for flow in &all {
        assert!(conntrack.delete_flow(flow).unwrap(), "{flow}");
    }
}

/// Flows that stay are all told while others come and go.
#[test]
fn a_dump_under_change_is_complete() {
    if !root("conntrack under change") {
        return;
    }
    let (netns, mut netlink) = namespace();
    lonely_host(&mut netlink);
    translate(&mut Nftables::open_in(&netns).unwrap());
    let [client, service, _] = PLACES[0];
    let to = |port| SocketAddr::new(service.parse().unwrap(), port);
    for port in 0..2000 {
        send(&netns, client, 10_000 + port, to(53));
    }
    let still = FlowFilter {
        proto: Some(UDP),
        dport: Some(53),
        ..FlowFilter::default()
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut conntrack = Conntrack::open_in(&netns).unwrap();
            let passing = FlowFilter {
                dport: Some(54),
                ..still
            };
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for port in 0..100 {
                    send(&netns, client, 20_000 + port, to(54));
                }
                for flow in flows(&mut conntrack, passing) {
                    conntrack.delete_flow(&flow).unwrap();
                }
            }
        });
        let mut conntrack = Conntrack::open_in(&netns).unwrap();
        for _ in 0..20 {
            assert_eq!(flows(&mut conntrack, still).len(), 2000);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// A packet's flow is found by the packet as it is on its way: before and after translation, and
/// by its answer.
#[test]
fn a_packet_finds_its_flow() {
    if !root("a_packet_finds_its_flow") {
        return;
    }
    let (netns, mut netlink) = namespace();
    lonely_host(&mut netlink);
    translate(&mut Nftables::open_in(&netns).unwrap());
    let mut conntrack = Conntrack::open_in(&netns).unwrap();
    for [client, service, pod] in PLACES {
        let [client_ip, service, pod]: [IpAddr; 3] =
            [client, service, pod].map(|ip| ip.parse().unwrap());
        send(&netns, client, 4001, SocketAddr::new(service, 53));
        let tuple = |dst, dport| Tuple {
            src: client_ip,
            dst,
            sport: 4001,
            dport,
        };
        let (asked, translated) = (tuple(service, 53), tuple(pod, 5353));
        let mut find = |packet| conntrack.find(UDP, &packet).unwrap();
        let flow = find(asked).unwrap();
        assert_eq!((flow.orig, flow.reply), (asked, translated.answer()));
        assert_eq!(find(translated), Some(flow));
        assert_eq!(find(translated.answer()), Some(flow));
        assert_eq!(find(tuple(pod, 5354)), None);
    }
}
