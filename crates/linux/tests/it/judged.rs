//! Packets through a router: the evaluator says of each what the kernel does.
//!
//! Every statement about a packet is a rule of its own that sets a bit of the packet's mark; the
//! last rule puts the mark into a dynamic set, which is read back.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use linux::link::NewKind;
use linux::{Address, NetNs, Netlink, NewLink, Nftables, Route, VethEnd, run_in, sysctl};
use nft::eval::{Connection, Packet, Tuple};
use nft::{
    Base, Chain, ChainKind, Compiled, CtField, CtState, Direction, Family, Hook, IpFamily, Key,
    Limit, Log, NatKind, NatTo, Op, Policy, Rule, Set, Statement, Table, Transaction, Type, Update,
    Value, diff,
};

use crate::{namespace, root};

use IpFamily::{V4, V6};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

const CLIENT: [&str; 2] = ["10.1.0.2", "fd00:1::2"];
const SERVER: [&str; 2] = ["10.2.0.2", "fd00:2::2"];
/// Led to the server, port 80 to 8080.
const SERVICE: [&str; 2] = ["10.96.0.1", "fd00:96::1"];
/// The client has them, but the way there is over the server's link.
/// (IPv6: not what the client would choose as a source by itself.)
const BORROWED: [&str; 2] = ["10.3.0.2", "fd01:3::2"];
/// Packets to it are not tracked.
const UNTRACKED: u16 = 9999;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A client, a router and a server.
struct Lab {
    client: NetNs,
    router: NetNs,
    server: NetNs,
}

fn lab() -> Lab {
    let (client, mut on_client) = namespace();
    let (router, mut on_router) = namespace();
    let (server, mut on_server) = namespace();
    run_in(&router, || {
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            sysctl::write(key, "1").unwrap();
        }
        sysctl::write("net/ipv4/conf/all/rp_filter", "0").unwrap();
        sysctl::write("net/ipv4/conf/default/rp_filter", "0").unwrap();
        sysctl::write("net/netfilter/nf_conntrack_tcp_loose", "1").unwrap();
    })
    .unwrap();
    for netns in [&client, &router, &server] {
        run_in(netns, || sysctl::without_dad().unwrap()).unwrap();
    }
    let mut cable = |name: &str, netns: &NetNs, far: &mut Netlink, third: u8, last: &[&str]| {
        let end = VethEnd {
            name: "eth0",
            netns: Some(netns),
            ..VethEnd::default()
        };
        on_router
            .create_link(&NewLink::new(name, NewKind::Veth(end)))
            .unwrap();
        let near = on_router.expect_link(name).unwrap().index;
        on_router.set_up(near).unwrap();
        let eth0 = far.expect_link("eth0").unwrap().index;
        far.set_up(eth0).unwrap();
        let net = |text: String| text.parse::<ipnet::IpNet>().unwrap();
        for at in [format!("10.{third}.0.1/24"), format!("fd00:{third}::1/64")] {
            on_router.add_address(&Address::new(near, net(at))).unwrap();
        }
        for at in [format!("10.{third}.0.2/24"), format!("fd00:{third}::2/64")] {
            far.add_address(&Address::new(eth0, net(at))).unwrap();
        }
        for at in last {
            let at = net((*at).to_owned());
            far.add_address(&Address::new(eth0, at)).unwrap();
        }
        for (all, via) in [
            ("0.0.0.0/0", format!("10.{third}.0.1")),
            ("::/0", format!("fd00:{third}::1")),
        ] {
            let route = Route::new(net(all.into()), eth0).via(ip(&via));
            far.add_route(&route).unwrap();
        }
        near
    };
    cable(
        "fn-client",
        &client,
        &mut on_client,
        1,
        &["10.3.0.2/32", "fd01:3::2/128"],
    );
    let near = cable("fn-server", &server, &mut on_server, 2, &[]);
    for (net, via) in [("10.3.0.0/24", SERVER[0]), ("fd01:3::/64", SERVER[1])] {
        let net: ipnet::IpNet = net.parse().unwrap();
        on_router
            .add_route(&Route::new(net, near).via(ip(via)))
            .unwrap();
    }
    Lab {
        client,
        router,
        server,
    }
}

/// What is asked of each packet; its place is the bit of the mark.
fn questions() -> Vec<Statement> {
    let original = |field| Key::Ct(Direction::Original, field);
    let reply = |field| Key::Ct(Direction::Reply, field);
    let saddr = CtField::Saddr;
    let in_set = |keys: &[Key], set: &str| Statement::InSet {
        keys: keys.to_vec(),
        negate: false,
        set: set.into(),
    };
    let range = |key, negate, first, last| Statement::InRange {
        key,
        negate,
        first,
        last,
    };
    let port = Value::Port;
    vec![
        Statement::CtState(vec![CtState::Invalid]),
        Statement::CtState(vec![CtState::Untracked]),
        Statement::CtState(vec![CtState::New]),
        Statement::CtState(vec![CtState::Established]),
        Statement::CtState(vec![CtState::Related]),
        Statement::CtState(vec![CtState::Invalid, CtState::Untracked]),
        Statement::TcpNotSyn,
        Statement::NoWayBack,
        Statement::is(Key::IifName, Value::Name("fn-*".into())),
        Statement::is_not(Key::IifName, Value::Name("fn-cl*".into())),
        in_set(&[original(saddr(V4)), reply(saddr(V4))], "pairs"),
        in_set(&[original(saddr(V6)), reply(saddr(V6))], "pairs6"),
        Statement::is(original(saddr(V4)), ip(CLIENT[0])),
        Statement::is_not(reply(saddr(V6)), ip(SERVER[1])),
        in_set(&[Key::CtProtocol, reply(CtField::ProtoSrc)], "ports"),
        Statement::is(Key::CtProtocol, Value::Proto(TCP)),
        range(reply(CtField::ProtoSrc), false, port(8080), port(8081)),
        range(original(CtField::ProtoDst), true, port(80), port(81)),
        range(Key::ThDport, false, port(8000), port(8080)),
        range(
            Key::Icmpv6Type,
            false,
            Value::Icmpv6Type(128),
            Value::Icmpv6Type(129),
        ),
        in_set(&[Key::CtMarkBits(0xffff_ff00)], "marks"),
        Statement::CtDnat,
    ]
}

fn table() -> Table {
    let mut table = Table::new(Family::Inet, "judged");
    let mut pairs = Set::of([Type::Ipv4, Type::Ipv4]);
    pairs.add([ip(CLIENT[0]).into(), ip(SERVER[0]).into()]);
    let mut pairs6 = Set::of([Type::Ipv6, Type::Ipv6]);
    pairs6.add([ip(CLIENT[1]).into(), ip(SERVER[1]).into()]);
    let mut ports = Set::of([Type::Proto, Type::Port]);
    ports.add([Value::Proto(UDP), Value::Port(8080)]);
    let mut marks = Set::of([Type::Mark]);
    marks.add([Value::Mark(0x1200)]);
    let seen = Set {
        size: Some(64),
        dynamic: true,
        ..Set::of([Type::Mark])
    };
    let sets = [
        ("pairs", pairs),
        ("pairs6", pairs6),
        ("ports", ports),
        ("marks", marks),
        ("seen", seen),
    ];
    table
        .sets
        .extend(sets.map(|(name, set)| (name.to_owned(), set)));
    let mut rules: Vec<Rule> = questions()
        .into_iter()
        .enumerate()
        .map(|(bit, question)| Rule::new([question, Statement::SetMarkBits(1 << bit)]))
        .collect();
    rules.push(Rule::new([Statement::Update(Update {
        set: "seen".into(),
        key: vec![Key::Mark],
        data: vec![],
        timeout: Duration::from_secs(60),
    })]));
    rules.push(Rule::new([
        Statement::Limit(Limit { rate: 3, burst: 5 }),
        Statement::Log(Log {
            prefix: "judged".into(),
            group: 11,
            snaplen: 128,
        }),
    ]));
    rules.push(Rule::new([Statement::SetCtMark {
        keep: 0xff,
        bits: 0x1200,
    }]));
    let base = |kind, hook, priority| {
        Some(Base {
            kind,
            hook,
            priority,
            policy: Policy::Accept,
        })
    };
    let forward = Chain {
        base: base(ChainKind::Filter, Hook::Forward, 0),
        rules,
    };
    let translate = [0, 1].map(|at| {
        let family = [V4, V6][at];
        Rule::new([
            Statement::is(Key::Daddr(family), ip(SERVICE[at])),
            Statement::is(Key::ThDport, Value::Port(80)),
            Statement::Nat {
                kind: NatKind::Dnat,
                family,
                to: NatTo::Fixed(ip(SERVER[at]), Some(8080)),
            },
        ])
    });
    let prerouting = Chain {
        base: base(ChainKind::Nat, Hook::Prerouting, -100),
        rules: translate.into(),
    };
    table.chains.insert("forward".into(), forward);
    table.chains.insert("prerouting".into(), prerouting);
    table
}

/// What is asked, and of which packets.
struct Judge<'a> {
    lab: &'a Lab,
    nftables: Nftables,
    rules: Compiled,
}

impl Judge<'_> {
    /// Marks with which packets have passed since the last look; waits for so many.
    fn seen(&mut self, count: usize) -> BTreeSet<u32> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let elements = self.nftables.dynamic(Family::Inet, "judged", "seen");
            let marks: BTreeSet<u32> = elements
                .unwrap()
                .into_iter()
                .map(|element| u32::from_ne_bytes(element.key.key.try_into().unwrap()))
                .collect();
            if marks.len() >= count || Instant::now() > end {
                return marks;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Does something, and finds exactly such packets.
    fn check(&mut self, what: &str, packets: &[Packet], act: impl FnOnce(&Lab)) {
        let all = diff(None, &self.rules, |_| true);
        let nothing = Transaction {
            ops: vec![Op::DeleteTable],
            ..all.clone()
        };
        self.nftables.apply(&nothing).unwrap();
        self.nftables.apply(&all).unwrap();
        act(self.lab);
        let expected: BTreeSet<u32> = packets
            .iter()
            .map(|packet| {
                let outcome = self.rules.eval("forward", packet).unwrap();
                assert_eq!(outcome.updates.len(), 1, "{what}");
                outcome.mark
            })
            .collect();
        let names = |marks: &BTreeSet<u32>| -> Vec<String> {
            let questions = questions();
            let of = |mark: &u32| {
                let set = questions
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| mark >> bit & 1 == 1)
                    .map(|(_, question)| question.to_string());
                set.collect::<Vec<_>>().join("; ")
            };
            marks.iter().map(of).collect()
        };
        let seen = self.seen(expected.len());
        assert_eq!(names(&seen), names(&expected), "{what}");
    }
}

/// The first packet of a connection from the client, as the chain sees it: translated.
fn first(family: usize, proto: u8, sport: u16, dport: u16) -> Packet {
    let (src, dst) = (ip(CLIENT[family]), ip(SERVER[family]));
    Packet {
        iif: "fn-client".into(),
        oif: "fn-server".into(),
        ..Packet::new(src, dst, proto, sport, dport)
    }
}

/// The same through the service.
fn translated(family: usize, proto: u8, sport: u16) -> Packet {
    let packet = first(family, proto, sport, 8080);
    let mut connection = Connection::new(
        proto,
        Tuple {
            src: packet.src,
            dst: ip(SERVICE[family]),
            sport,
            dport: 80,
        },
    );
    connection.reply.src = packet.dst;
    connection.reply.sport = 8080;
    Packet {
        dnat: true,
        connection: Some(connection),
        ..packet
    }
}

/// A packet of the same connection the other way.
fn answer(to: &Packet) -> Packet {
    Packet {
        src: to.dst,
        dst: to.src,
        sport: to.dport,
        dport: to.sport,
        iif: to.oif.clone(),
        oif: to.iif.clone(),
        connection: Some(to.connection()),
        state: CtState::Established,
        ct_mark: 0x1200,
        ..to.clone()
    }
}

/// One packet, which arrives.
fn arrives(lab: &Lab, from: &str, sport: u16, server: &UdpSocket) {
    one_way(lab, from, sport, server.local_addr().unwrap());
    server.recv(&mut [0; 8]).unwrap();
}

fn one_way(lab: &Lab, from: &str, sport: u16, to: SocketAddr) {
    run_in(&lab.client, || {
        let socket = UdpSocket::bind((ip(from), sport)).unwrap();
        socket.send_to(b"x", to).unwrap();
    })
    .unwrap();
}

/// A TCP segment without a connection, from port 4100.
fn segment(lab: &Lab, dport: u16, flags: u8) {
    let addresses = [ip(CLIENT[0]), ip(SERVER[0])].map(|ip| match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => unreachable!(),
    });
    let mut tcp = [4100_u16.to_be_bytes(), dport.to_be_bytes()].concat();
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    let pseudo = [addresses.concat(), vec![0, TCP, 0, 20], tcp.clone()].concat();
    let sum: u32 = pseudo
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    raw(lab, libc::AF_INET, TCP, SERVER[0], &tcp);
}

fn raw(lab: &Lab, domain: i32, proto: u8, to: &str, payload: &[u8]) {
    use nix::sys::socket::{MsgFlags, SockFlag, SockaddrStorage, sendto};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    run_in(&lab.client, || {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::socket(domain, libc::SOCK_RAW, proto.into()) };
        assert!(fd >= 0);
        // SAFETY: the descriptor is new and owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let to = SockaddrStorage::from(SocketAddr::new(ip(to), 0));
        let _ = SockFlag::empty();
        sendto(socket.as_raw_fd(), payload, &to, MsgFlags::empty()).unwrap();
    })
    .unwrap();
}

#[test]
fn the_evaluator_says_what_the_kernel_does() {
    if !root("the_evaluator_says_what_the_kernel_does") {
        return;
    }
    let lab = lab();
    let mut judge = Judge {
        nftables: Nftables::open_in(&lab.router).unwrap(),
        rules: table().compile(),
        lab: &lab,
    };
    for family in [0, 1] {
        datagrams(&mut judge, family);
    }
    streams(&mut judge);
    odd_ones(&mut judge);
    let after = judge.nftables.read(Family::Inet, "judged").unwrap();
    assert!(
        diff(after.as_ref(), &judge.rules, |_| true).is_empty(),
        "what packets did to limits is no difference"
    );
}

/// A server's socket, so that nothing is answered by an error.
fn listen(lab: &Lab, family: usize, port: u16) -> UdpSocket {
    let at = SocketAddr::new(ip(SERVER[family]), port);
    let socket = run_in(&lab.server, || UdpSocket::bind(at).unwrap()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    socket
}

fn datagrams(judge: &mut Judge<'_>, family: usize) {
    let at = |host: [&str; 2], port| SocketAddr::new(ip(host[family]), port);
    let quiet = listen(judge.lab, family, 7000);
    judge.check("UDP", &[first(family, UDP, 4001, 7000)], |lab| {
        arrives(lab, CLIENT[family], 4001, &quiet);
    });
    let borrowed = Packet {
        src: ip(BORROWED[family]),
        way_back: false,
        ..first(family, UDP, 4020, 7000)
    };
    judge.check("from a borrowed address", &[borrowed], |lab| {
        arrives(lab, BORROWED[family], 4020, &quiet);
    });
    drop(quiet);

    let server = listen(judge.lab, family, 8080);
    let there = translated(family, UDP, 4002);
    let back = answer(&there);
    judge.check("UDP through a service, and back", &[there, back], |lab| {
        run_in(&lab.client, || {
            let socket = UdpSocket::bind(at(CLIENT, 4002)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(30)))
                .unwrap();
            socket.send_to(b"x", at(SERVICE, 80)).unwrap();
            let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
            server.send_to(b"y", from).unwrap();
            socket.recv(&mut [0; 8]).unwrap();
        })
        .unwrap();
    });
    drop(server);

    let there = translated(family, UDP, 4003);
    let error = Packet {
        proto: [ICMP, ICMPV6][family],
        icmp_type: [3, 1][family],
        state: CtState::Related,
        ..answer(&there)
    };
    judge.check("an error about a service", &[there, error], |lab| {
        one_way(lab, CLIENT[family], 4003, at(SERVICE, 80));
    });
}

fn streams(judge: &mut Judge<'_>) {
    let at = SocketAddr::new(ip(SERVER[1]), 8080);
    let server = run_in(&judge.lab.server, || TcpListener::bind(at).unwrap()).unwrap();
    let there = translated(1, TCP, 4010);
    let later = |packet: Packet, tcp_flags| Packet {
        tcp_flags,
        state: CtState::Established,
        ct_mark: 0x1200,
        ..packet
    };
    let packets = [
        there.clone(),
        later(answer(&there), SYN | ACK),
        later(there.clone(), ACK),
        later(answer(&there), ACK),
    ];
    judge.check("TCP", &packets, |lab| {
        run_in(&lab.client, || {
            use std::io::{Read, Write};
            let to = SocketAddr::new(ip(SERVICE[1]), 80);
            let mut client = TcpStream::connect_timeout(&to, Duration::from_secs(30)).unwrap();
            // Only the source port differs from what is said above, and nobody asks for it.
            let (mut accepted, _) = server.accept().unwrap();
            client.write_all(b"x").unwrap();
            accepted.read_exact(&mut [0; 1]).unwrap();
            accepted.write_all(b"y").unwrap();
            client.read_exact(&mut [0; 1]).unwrap();
        })
        .unwrap();
    });
}

fn odd_ones(judge: &mut Judge<'_>) {
    let untracked = listen(judge.lab, 0, UNTRACKED);
    let middle = Packet {
        tcp_flags: ACK,
        ..first(0, TCP, 4100, 8081)
    };
    // Nobody knows it at the server.
    let reset = Packet {
        tcp_flags: RST,
        ..answer(&middle)
    };
    judge.check("TCP from the middle", &[middle, reset], |lab| {
        segment(lab, 8081, ACK)
    });
    let invalid = Packet {
        tcp_flags: SYN | RST,
        state: CtState::Invalid,
        ..first(0, TCP, 4100, 8082)
    };
    judge.check("impossible flags", &[invalid], |lab| {
        segment(lab, 8082, SYN | RST)
    });

    let echo = Packet {
        icmp_type: 128,
        ..first(1, ICMPV6, 7, 0)
    };
    let echoed = Packet {
        icmp_type: 129,
        sport: 7,
        ..answer(&echo)
    };
    judge.check("ping", &[echo, echoed], |lab| {
        raw(
            lab,
            libc::AF_INET6,
            ICMPV6,
            SERVER[1],
            &[128, 0, 0, 0, 0, 7, 0, 1],
        );
    });

    if let Some(nft) = testing::program("untracked packets", "nft") {
        let text = format!(
            "table inet raw {{ chain first {{ type filter hook prerouting priority raw; \
             udp dport {UNTRACKED} notrack; }}; }}"
        );
        let made = run_in(&judge.lab.router, || {
            std::process::Command::new(nft).arg(text).status()
        });
        assert!(made.unwrap().unwrap().success());
        let packet = Packet {
            state: CtState::Untracked,
            ..first(0, UDP, 4030, UNTRACKED)
        };
        judge.check("untracked", &[packet], |lab| {
            arrives(lab, CLIENT[0], 4030, &untracked);
        });
    }
}
