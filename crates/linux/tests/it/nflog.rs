//! Packets that rules tell of, with real ones.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use linux::nflog::{Layer4, Listener, Logged};
use linux::{NetNs, Nftables, run_in};
use nft::{
    Base, Chain, ChainKind, Family, Hook, IpFamily, Key, Limit, Log, NatKind, NatTo, Policy, Rule,
    Statement, Table, Value, Verdict, diff,
};

use crate::nftables::nat;
use crate::{namespace, root};

const GROUP: u16 = 11;

/// Drops what goes to these ports of this host and tells of it, at such a rate; TCP port 80 of
/// 127.0.0.2 is translated to port 8080 of 127.0.0.3.
fn deny(netns: &NetNs, ports: &[u16], limit: Limit) {
    let log = Log {
        prefix: "denied here".into(),
        group: GROUP,
        snaplen: 128,
    };
    let denied = Chain {
        base: None,
        rules: vec![
            Rule::new([Statement::Limit(limit), Statement::Log(log)]),
            Rule::new([Statement::Counter, Statement::Verdict(Verdict::Drop)]),
        ],
    };
    let mut input = Chain {
        base: Some(Base {
            kind: ChainKind::Filter,
            hook: Hook::Input,
            priority: 0,
            policy: Policy::Accept,
        }),
        rules: Vec::new(),
    };
    for port in ports {
        for key in [Key::TcpDport, Key::UdpDport] {
            input.rules.push(Rule::new([
                Statement::is(key, Value::Port(*port)),
                Statement::Verdict(Verdict::Goto("denied".into())),
            ]));
        }
    }
    let translate = Rule::new([
        Statement::is(Key::Daddr(IpFamily::V4), IpAddr::from([127, 0, 0, 2])),
        Statement::is(Key::TcpDport, Value::Port(80)),
        Statement::Nat {
            kind: NatKind::Dnat,
            family: IpFamily::V4,
            to: NatTo::Fixed([127, 0, 0, 3].into(), Some(8080)),
        },
    ]);
    let output = Chain {
        base: nat(Hook::Output, -100),
        rules: vec![translate],
    };
    let mut table = Table::new(Family::Inet, "t");
    for (name, chain) in [("denied", denied), ("input", input), ("output", output)] {
        table.chains.insert(name.into(), chain);
    }
    let mut nftables = Nftables::open_in(netns).unwrap();
    nftables
        .apply(&diff(None, &table.compile(), |_| true))
        .unwrap();
}

fn limit(rate: u64, burst: u32) -> Limit {
    Limit { rate, burst }
}

/// A host with only itself.
fn host() -> NetNs {
    let (netns, mut netlink) = namespace();
    netlink.set_up(1).unwrap();
    netns
}

/// The first packet that is told.
fn heard(listener: &mut Listener) -> Logged {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(logged) = listener.read().unwrap().packets.into_iter().next() {
            return logged;
        }
        assert!(Instant::now() < end, "nothing was told");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send(netns: &NetNs, to: SocketAddr, packets: usize) {
    run_in(netns, || {
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).unwrap();
        for _ in 0..packets {
            socket.send_to(b"x", to).unwrap();
        }
    })
    .unwrap();
}

fn connect(netns: &NetNs, to: &str) {
    let to: SocketAddr = to.parse().unwrap();
    let tried = run_in(netns, || {
        TcpStream::connect_timeout(&to, Duration::from_millis(50))
    });
    assert!(tried.unwrap().is_err());
}

#[test]
fn denied_packets_are_told_with_their_connection() {
    if !root("denied_packets_are_told_with_their_connection") {
        return;
    }
    let netns = host();
    deny(&netns, &[8080, 53], limit(100, 100));
    let mut listener = Listener::open_in(&netns, GROUP).unwrap();
    connect(&netns, "127.0.0.2:80");
    let logged = heard(&mut listener);
    assert_eq!((logged.prefix.as_str(), logged.hook), ("denied here", 1));
    assert_eq!((logged.in_dev, logged.out_dev), (Some(1), None));
    let packet = logged.packet.unwrap();
    assert_eq!(packet.dst, IpAddr::from([127, 0, 0, 3]));
    assert!(
        matches!(packet.layer4, Layer4::Ports { dst: 8080, .. }),
        "{packet:?}"
    );
    // What was asked for before translation only connection tracking knows, and not every kernel
    // tells it.
    if let Some(flow) = logged.connection {
        let ends = |ip: [u8; 4], port: u16| (IpAddr::from(ip), port);
        assert_eq!((flow.orig.dst, flow.orig.dport), ends([127, 0, 0, 2], 80));
        assert_eq!(
            (flow.reply.src, flow.reply.sport),
            ends([127, 0, 0, 3], 8080)
        );
    }

    send(&netns, "[::1]:53".parse().unwrap(), 1);
    let end = Instant::now() + Duration::from_secs(30);
    let packet = loop {
        let packet = heard(&mut listener).packet.unwrap();
        // The SYN may be tried again.
        if packet.protocol == 17 {
            break packet;
        }
        assert!(Instant::now() < end, "IPv6 was not told");
    };
    assert_eq!(packet.src, "::1".parse::<IpAddr>().unwrap());
    assert!(
        matches!(packet.layer4, Layer4::Ports { dst: 53, .. }),
        "{packet:?}"
    );
}

#[test]
fn a_group_has_one_listener() {
    if !root("a_group_has_one_listener") {
        return;
    }
    let netns = host();
    let first = Listener::open_in(&netns, GROUP).unwrap();
    let error = Listener::open_in(&netns, GROUP).unwrap_err().to_string();
    assert!(
        error.starts_with("packet log group 11: listen: ")
            && error.contains("another program listens on it"),
        "{error}"
    );
    drop(first);
    Listener::open_in(&netns, GROUP).unwrap();
    // Other groups and namespaces are others' business.
    Listener::open_in(&host(), GROUP).unwrap();
}

/// Whatever there was no room for is counted, to the packet.
#[test]
fn what_is_lost_is_counted() {
    if !root("what_is_lost_is_counted") {
        return;
    }
    const PACKETS: u64 = 20_000;
    let netns = host();
    deny(&netns, &[53], limit(1_000_000, 1_000_000));
    let mut listener = Listener::open_in(&netns, GROUP).unwrap();
    // More than there is room for, while nobody reads.
    send(
        &netns,
        "127.0.0.1:53".parse().unwrap(),
        PACKETS as usize - 1,
    );
    let mut told = 0;
    let mut lost = 0;
    let mut read = |listener: &mut Listener| loop {
        let heard = listener.read().unwrap();
        lost += heard.lost;
        told += heard.packets.len() as u64;
        if heard.packets.is_empty() {
            return (told, lost);
        }
    };
    read(&mut listener);
    // The next number tells how many are missing before it.
    send(&netns, "127.0.0.1:53".parse().unwrap(), 1);
    let end = Instant::now() + Duration::from_secs(30);
    let (told, lost) = loop {
        let (told, lost) = read(&mut listener);
        if told + lost == PACKETS {
            break (told, lost);
        }
        assert!(Instant::now() < end, "{told} told, {lost} lost");
    };
    assert!(told > 100 && lost > 100, "{told} told, {lost} lost");
}

#[test]
fn rules_count_what_is_not_told() {
    if !root("rules_count_what_is_not_told") {
        return;
    }
    let netns = host();
    let mut nftables = Nftables::open_in(&netns).unwrap();
    let mut counted = |chain: &str| nftables.counted(Family::Inet, "t", chain).unwrap();
    assert_eq!(counted("denied"), None);
    deny(&netns, &[53], limit(1, 5));
    assert_eq!((counted("denied"), counted("none")), (Some(0), None));
    assert_eq!(counted("input"), None);
    let mut listener = Listener::open_in(&netns, GROUP).unwrap();
    send(&netns, "127.0.0.1:53".parse().unwrap(), 1000);
    assert_eq!(counted("denied"), Some(1000));
    let told = listener.read().unwrap().packets.len();
    assert!((5..20).contains(&told), "{told} told");
}
