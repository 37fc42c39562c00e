//! What policies deny is told: to readers on the socket, and in the metrics. The rules that deny
//! are this test's own, of the same form.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::Update;
use flows::{Drop, Event, Line};
use linux::{Address, Netlink, Nftables, run_in};
use model::{Change, Config, NetworkPolicy, Pod};
use nft::{
    Base, Chain, ChainKind, Family, Hook, Key, Limit, Log, Policy, Rule, Statement, Table, Value,
    Verdict, diff,
};
use pods::wire::{Answer, Request};

use crate::node::{METRICS, Node, eventually};

const CLIENT: [u8; 4] = [10, 244, 1, 5];
const SERVER: [u8; 4] = [10, 244, 1, 6];

/// What the rules of policies tell.
const SOME: Limit = Limit {
    rate: 100,
    burst: 100,
};

/// Denies what goes to UDP port 53 of this host.
fn deny(node: &Node, limit: Limit) {
    let log = Log {
        prefix: "flatnet-policy ingress".into(),
        group: 11,
        snaplen: 128,
    };
    let denied = Chain {
        base: None,
        rules: vec![
            Rule::new([Statement::Limit(limit), Statement::Log(log)]),
            Rule::new([Statement::Counter, Statement::Verdict(Verdict::Drop)]),
        ],
    };
    let input = Chain {
        base: Some(Base {
            kind: ChainKind::Filter,
            hook: Hook::Input,
            priority: 0,
            policy: Policy::Accept,
        }),
        rules: vec![Rule::new([
            Statement::is(Key::UdpDport, Value::Port(53)),
            Statement::Verdict(Verdict::Goto("denied-ingress".into())),
        ])],
    };
    let mut table = Table::new(Family::Inet, "flatnet-policy");
    table.chains.insert("denied-ingress".into(), denied);
    table.chains.insert("input".into(), input);
    let mut nftables = Nftables::open_in(&node.netns).unwrap();
    nftables
        .apply(&diff(None, &table.compile(), |_| true))
        .unwrap();
}

fn pod(name: &str, ip: [u8; 4]) -> Change {
    Change::Pod(Arc::new(Pod {
        namespace: "shop".into(),
        name: name.into(),
        uid: name.into(),
        node: "node1".into(),
        ips: vec![ip.into()],
        host_network: false,
        labels: model::Labels::default(),
        ports: Vec::new(),
        created: 0,
        leaving: false,
    }))
}

fn closed() -> Change {
    Change::Policy(Arc::new(NetworkPolicy {
        namespace: "shop".into(),
        name: "closed".into(),
        ingress: Some(Vec::new()),
        ..NetworkPolicy::default()
    }))
}

/// A node that has the addresses of two pods itself.
fn with_pods() -> Node {
    let node = Node::new();
    let mut netlink = Netlink::open_in(&node.netns).unwrap();
    for ip in [CLIENT, SERVER] {
        let net = ipnet::IpNet::new(IpAddr::from(ip), 32).unwrap();
        netlink.add_address(&Address::new(1, net)).unwrap();
    }
    node
}

/// Sends a packet from each of these ports of the client to the server.
fn send(node: &Node, ports: Range<u16>) {
    run_in(&node.netns, || {
        for port in ports {
            let socket = UdpSocket::bind((IpAddr::from(CLIENT), port)).unwrap();
            let server = SocketAddr::new(SERVER.into(), 53);
            socket.send_to(b"x", server).unwrap();
        }
    })
    .unwrap();
}

struct Reader {
    lines: BufReader<UnixStream>,
    run: u64,
}

impl Reader {
    fn open(node: &Node, place: Option<(u64, u64)>, past: bool) -> Self {
        let (lines, answer) = Self::answer(node, place, past);
        assert_eq!(answer["node"], "node1");
        assert!(answer["problem"].is_null(), "{answer}");
        let run = answer["run"].as_u64().unwrap();
        Self { lines, run }
    }

    /// The stream, and what the agent says first.
    fn answer(
        node: &Node,
        place: Option<(u64, u64)>,
        past: bool,
    ) -> (BufReader<UnixStream>, serde_json::Value) {
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        let request = serde_json::to_vec(&Request::Drops { place, past }).unwrap();
        stream.write_all(&request).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let Answer::Ok(answer) = serde_json::from_str(&line).unwrap() else {
            panic!("{line}");
        };
        (lines, answer)
    }

    fn next(&mut self) -> Line {
        let end = Instant::now() + Duration::from_secs(20);
        let mut line = String::new();
        while line.trim().is_empty() {
            assert!(Instant::now() < end, "nothing is told");
            line.clear();
            assert_ne!(
                self.lines.read_line(&mut line).unwrap(),
                0,
                "it was cut off"
            );
        }
        serde_json::from_str(&line).unwrap()
    }

    fn drop(&mut self) -> Arc<Drop> {
        match self.next() {
            Line::Event {
                event: Event::Drop(drop),
                ..
            } => drop,
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until the agent listens.
fn listens(node: &Node) {
    let group = || {
        let file = "/proc/thread-self/net/netfilter/nfnetlink_log";
        std::fs::read_to_string(file).unwrap_or_default()
    };
    eventually("the agent listens", || {
        let groups = run_in(&node.netns, group).unwrap();
        groups.lines().any(|line| line.trim().starts_with("11 "))
    });
}

fn metric(node: &Node, name: &str) -> u64 {
    let metrics = node.get(METRICS, "/metrics").unwrap_or_default();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

const DENIED: &str = "flatnet_policy_denied_total{direction=\"ingress\"}";
const CONNECTIONS: &str =
    "flatnet_policy_denied_connections_total{direction=\"ingress\",namespace=\"shop\"}";
const LOST: &str = "flatnet_policy_denied_lost_total";

#[test]
fn denied_connections_are_told_by_name() {
    let test = "denied_connections_are_told_by_name";
    if !testing::root(test) {
        return;
    }
    let node = with_pods();
    deny(&node, SOME);
    let agent = node.start_unaware(&Config::default());
    for change in [pod("web-0", CLIENT), pod("db-0", SERVER), closed()] {
        agent.change(change);
    }
    listens(&node);
    let mut reader = Reader::open(&node, None, false);
    assert_eq!(reader.next(), Line::Live);
    send(&node, 1000..1001);
    let drop = reader.drop();
    assert_eq!(drop.direction.word(), "ingress");
    let names = (drop.from.to_string(), drop.to.to_string());
    assert_eq!(names, ("shop/web-0".into(), "shop/db-0".into()));
    assert_eq!((drop.protocol.as_str(), drop.port), ("UDP", Some(53)));
    assert_eq!(drop.by.policies[0].name, "closed");
    assert!(
        drop.by.words.contains("NetworkPolicy shop/closed"),
        "{drop:?}"
    );
    // Policies change; what is dropped by then is not theirs any more.
    agent.change(Change::PolicyGone("shop".into(), "closed".into()));
    let mut port = 2000;
    eventually("no policy denies it", || {
        port += 1;
        send(&node, port..port + 1);
        reader.drop().by.allowed_now
    });
    let told = || metric(&node, CONNECTIONS);
    eventually("it is counted", || {
        told() >= 2 && metric(&node, DENIED) == told()
    });
    assert_eq!(metric(&node, LOST), 0);

    // Who comes later sees what was, and who was cut off goes on where it was.
    let mut late = Reader::open(&node, None, true);
    assert_eq!(late.drop(), drop);
    let mut back = Reader::open(&node, Some((reader.run, 1)), false);
    assert!(back.drop().time > drop.time);
    std::mem::drop(agent);

    // Another agent tells its own.
    let agent = node.start_unaware(&Config::default());
    agent.say(Update::Synced);
    listens(&node);
    send(&node, 1000..1001);
    let mut back = Reader::open(&node, Some((reader.run, 99)), false);
    assert_ne!(back.run, reader.run);
    let drop = back.drop();
    assert_eq!(drop.from.to_string(), "10.244.1.5", "no pod is known yet");
}

#[test]
fn a_flood_is_counted_and_not_told() {
    let test = "a_flood_is_counted_and_not_told";
    if !testing::root(test) {
        return;
    }
    const PACKETS: u64 = 5_000;
    const PORTS: Range<u16> = 10_000..15_000;
    let node = with_pods();
    deny(&node, SOME);
    let agent = node.start_unaware(&Config::default());
    agent.change(pod("db-0", SERVER));
    listens(&node);
    let mut reader = Reader::open(&node, None, false);
    assert_eq!(reader.next(), Line::Live);
    send(&node, PORTS);
    let (mut told, mut unseen) = (0, 0);
    while told + unseen < PACKETS {
        match reader.next() {
            Line::Event { event, .. } => match event {
                Event::Drop(drop) => told += drop.packets,
                Event::Unseen(some) => unseen += some.packets,
            },
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told + unseen, PACKETS);
    assert!(told >= 100 && unseen > 100, "{told} told, {unseen} not");
    assert_eq!(
        (metric(&node, DENIED), metric(&node, LOST)),
        (PACKETS, unseen)
    );
}

/// Where another program listens, the agent says so and goes on, and listens when it can.
#[test]
fn another_listener_is_told_of() {
    let test = "another_listener_is_told_of";
    if !testing::root(test) {
        return;
    }
    let node = with_pods();
    deny(&node, SOME);
    let other = linux::nflog::Listener::open_in(&node.netns, 11).unwrap();
    let agent = node.start_unaware(&Config::default());
    let problem = || {
        // A reader that is gone has its place for a second.
        std::thread::sleep(Duration::from_millis(100));
        Reader::answer(&node, None, true).1["problem"].clone()
    };
    eventually("the agent says so", || {
        let problem = std::os::unix::net::UnixStream::connect(node.socket()).map(|_| problem());
        problem.is_ok_and(|problem| problem.as_str().is_some_and(|why| why.contains("group 11")))
    });
    drop(other);
    eventually("the agent listens", || problem().is_null());
    send(&node, 1000..1001);
    Reader::open(&node, None, true).drop();
    drop(agent);
}

/// A reader that does not read holds up nobody, and knows what it missed.
#[test]
fn a_slow_reader_misses_and_is_told_so() {
    let test = "a_slow_reader_misses_and_is_told_so";
    if !testing::root(test) {
        return;
    }
    const PORTS: Range<u16> = 10_000..22_000;
    let node = with_pods();
    let all = Limit {
        rate: 1_000_000,
        burst: 1_000_000,
    };
    deny(&node, all);
    let agent = node.start_unaware(&Config::default());
    agent.change(pod("db-0", SERVER));
    listens(&node);
    let mut slow = Reader::open(&node, None, false);
    assert_eq!(slow.next(), Line::Live);
    for port in PORTS.step_by(500) {
        send(&node, port..port + 500);
        let sent = u64::from(port + 500 - PORTS.start);
        eventually("the agent has taken them", || {
            metric(&node, CONNECTIONS) + metric(&node, LOST) >= sent
        });
    }
    // One that reads now gets what is kept.
    let mut late = Reader::open(&node, None, true);
    let mut last = None;
    while let Line::Event { number, .. } = late.next() {
        last = Some(number);
    }
    let (mut next, mut missed) = (0, 0);
    while last.is_some_and(|last| next <= last) {
        match slow.next() {
            Line::Event { number, .. } => {
                assert_eq!(number, next);
                next += 1;
            }
            Line::Missed(events) => {
                missed += events;
                next += events;
            }
            Line::Live => panic!("twice"),
        }
    }
    assert!(missed > 0, "all {next} were kept for it");
}
