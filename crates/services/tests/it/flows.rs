//! Flows that are under way while Services change: UDP follows at once, TCP stays.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use linux::{Monitor, Nftables, run_in};
use model::config::ServicesMode;
use model::{Change, Service};
use nft::{Family, Op, Transaction};
use testing::Figure;

use crate::cases::Place;
use crate::echo::Greeting;
use crate::lab::{Lab, MODES};
use crate::probe::{self, Outcome, PATIENCE, Probe};
use crate::spread::{put, service};

const PLACES: [Place; 4] = [
    Place::Pod("1a"),
    Place::Pod("1c"),
    Place::Node(0),
    Place::Client,
];

/// Where a Service of [`service`] answers.
fn addresses(lab: &Lab, service: &Service) -> Vec<SocketAddr> {
    let node_port = service.ports[0].node_port.unwrap();
    let cluster = service.cluster_ips.iter().map(|ip| (*ip, 80).into());
    let nodes = [false, true].map(|v6| (lab.nodes[0].ip(v6), node_port).into());
    cluster.chain(nodes).collect()
}

/// A UDP flow: always the same ports.
struct Flow {
    words: String,
    socket: UdpSocket,
}

impl Flow {
    fn new(lab: &Lab, from: Place, to: SocketAddr) -> Self {
        let socket = run_in(from.netns(lab), || {
            let any: IpAddr = if to.is_ipv4() {
                [0; 4].into()
            } else {
                [0_u16; 8].into()
            };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.connect(to).unwrap();
            socket
        })
        .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            words: format!("UDP from {} to {to}", from.words()),
            socket,
        }
    }

    /// Who answers the next datagram.
    fn ask(&self) -> Outcome {
        match self.socket.send(b"?\n") {
            Ok(_) => {}
            // Told at once what was to be told with the answer.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Outcome::Refused,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Outcome::Failed(error.kind()),
        }
        let mut buffer = [0; 256];
        match self.socket.recv(&mut buffer) {
            Ok(len) => Outcome::Answer(Greeting::parse(&buffer[..len]).unwrap()),
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused => Outcome::Refused,
                ErrorKind::WouldBlock => Outcome::Silence,
                kind => Outcome::Failed(kind),
            },
        }
    }

    fn assert_answers(&self, who: &str, when: &str) {
        match self.ask() {
            Outcome::Answer(greeting) if greeting.who == who => {}
            outcome => panic!("{}, {when}: expected {who}, got {outcome}", self.words),
        }
    }
}

fn udp_follows(mode: ServicesMode) {
    let mut lab = Lab::new(mode);
    let service = service(1);
    lab.settle();
    let mut flows = Vec::new();
    for from in PLACES {
        for to in addresses(&lab, &service) {
            flows.push(Flow::new(&lab, from, to));
        }
    }
    // Sent before there is a Service: what the kernel remembers of it must not stay.
    for flow in &flows {
        flow.socket.send(b"early\n").ok();
    }
    std::thread::sleep(Duration::from_millis(20));
    for flow in &flows {
        flow.socket.take_error().unwrap();
    }
    for (who, when) in [
        ("2a", "at first"),
        ("2b", "when the endpoint is another"),
        ("", "when there is none"),
        ("1b", "when there is one again"),
        ("2c", "when it moved to the other node"),
    ] {
        let pods: &[&str] = if who.is_empty() { &[] } else { &[who] };
        put(&mut lab, &service, pods);
        lab.settle();
        for flow in &flows {
            if who.is_empty() {
                assert_eq!(flow.ask(), Outcome::Refused, "{}, {when}", flow.words);
            } else {
                flow.assert_answers(who, when);
                flow.assert_answers(who, when);
            }
        }
    }
    // What an agent finds stale when it starts is put right too.
    lab.restart(0);
    put(&mut lab, &service, &["1c"]);
    lab.settle();
    for flow in &flows {
        flow.assert_answers("1c", "after a restart with another endpoint");
    }
    // A flow whose endpoint stays is not touched: it keeps its endpoint among several.
    put(&mut lab, &service, &["1c", "2a", "2b"]);
    lab.settle();
    for flow in &flows {
        flow.assert_answers("1c", "when others came");
    }
    lab.take(Change::ServiceGone(
        service.namespace.clone(),
        service.name.clone(),
    ));
    lab.settle();
    for flow in &flows {
        let outcome = flow.ask();
        assert!(
            !matches!(outcome, Outcome::Answer(_)),
            "{}, when the Service is gone: {outcome}",
            flow.words
        );
    }
}

/// An open connection that is echoed.
pub struct Stream {
    words: String,
    stream: TcpStream,
    number: u64,
}

impl Stream {
    pub fn new(lab: &Lab, from: Place, to: SocketAddr) -> Self {
        Self::open(lab, from, to).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn open(lab: &Lab, from: Place, to: SocketAddr) -> Result<Self, String> {
        let words = format!("TCP from {} to {to}", from.words());
        let connected = run_in(from.netns(lab), || {
            TcpStream::connect_timeout(&to, PATIENCE)
        });
        let mut stream = connected
            .unwrap()
            .map_err(|error| format!("{words}: {error}"))?;
        stream.set_read_timeout(Some(PATIENCE * 3)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut byte = [0];
        while byte != *b"\n" {
            stream
                .read_exact(&mut byte)
                .map_err(|error| format!("{words}: {error}"))?;
        }
        Ok(Self {
            words,
            stream,
            number: 0,
        })
    }

    /// Sends something, which must come back.
    pub fn echo(&mut self) -> Result<(), String> {
        self.number += 1;
        let sent = self.number.to_be_bytes();
        let mut back = [0; 8];
        let done = self.stream.write_all(&sent);
        done.and_then(|()| self.stream.read_exact(&mut back))
            .map_err(|error| format!("{}: {error}", self.words))?;
        if back == sent {
            Ok(())
        } else {
            Err(format!("{}: something else came back", self.words))
        }
    }
}

fn assert_echo(streams: &mut [Stream], when: &str) {
    let failed: Vec<String> = streams
        .iter_mut()
        .filter_map(|stream| stream.echo().err())
        .collect();
    assert!(failed.is_empty(), "{when}: {}", failed.join("\n"));
}

fn tcp_stays(first: ServicesMode, second: ServicesMode) {
    let mut lab = Lab::new(first);
    let service = service(1);
    put(&mut lab, &service, &["1a", "2a"]);
    lab.settle();
    let mut streams = Vec::new();
    for from in PLACES {
        for to in addresses(&lab, &service) {
            streams.push(Stream::new(&lab, from, to));
        }
    }
    assert_echo(&mut streams, "at first");
    put(&mut lab, &service, &["1a", "1b", "2a", "2b"]);
    lab.settle();
    assert_echo(&mut streams, "when endpoints came");
    for number in 2..6 {
        put(&mut lab, &crate::spread::service(number), &["1b", "2b"]);
        lab.settle();
    }
    let gone = crate::spread::service(3);
    lab.take(Change::ServiceGone(gone.namespace, gone.name));
    lab.settle();
    assert_echo(&mut streams, "when other Services changed");
    lab.restart(0);
    lab.restart(1);
    for at in 0..2 {
        let report = lab.turn(at);
        assert_eq!(
            (report.errors, report.changes),
            (vec![], 0),
            "adopted as it is"
        );
    }
    assert_echo(&mut streams, "after a restart of the agents");
    for mode in [second, first, second] {
        lab.config.services.mode = mode;
        lab.settle();
        assert_echo(&mut streams, &format!("after the switch to {mode:?}"));
        assert_answers(&lab, &service);
        assert_other_mode_gone(&mut lab, mode);
    }
    // Its endpoints are no longer ready: what is established ends by itself, not by us.
    put(&mut lab, &service, &["1b", "2b"]);
    lab.settle();
    assert_echo(&mut streams, "when their endpoints were no longer ready");
}

/// New connections work.
fn assert_answers(lab: &Lab, service: &Service) {
    for from in PLACES {
        for to in addresses(lab, service) {
            let outcome = probe::one(from.netns(lab), Probe::tcp(to.ip(), to.port()));
            assert!(
                matches!(outcome, Outcome::Answer(_)),
                "{to} from {}: {outcome}",
                from.words()
            );
        }
    }
}

/// Nothing of Services is left in the other mode's tables.
fn assert_other_mode_gone(lab: &mut Lab, mode: ServicesMode) {
    for node in &mut lab.nodes {
        match mode {
            ServicesMode::Iptables => {
                let table = node.host.nftables.read(Family::Inet, "flatnet").unwrap();
                let ours = |name: &&String| name.starts_with("services-");
                let left: Vec<String> = table.map_or_else(Vec::new, |table| {
                    let names = table.chains.keys().chain(table.sets.keys());
                    names.filter(ours).cloned().collect()
                });
                assert_eq!(left, [""; 0]);
            }
            ServicesMode::Nftables => {
                for program in ["iptables-save", "ip6tables-save"] {
                    let saved = run_in(&node.station.netns, || {
                        std::process::Command::new(program).output().unwrap()
                    });
                    let saved = String::from_utf8(saved.unwrap().stdout).unwrap();
                    assert!(!saved.contains("KUBE-"), "{saved}");
                }
            }
        }
    }
}

/// Somebody else's `nft flush ruleset`, under a loop like the agent's.
fn flush_heals(mode: ServicesMode) {
    let mut lab = Lab::new(mode);
    let service = service(1);
    put(&mut lab, &service, &["1a", "2a"]);
    lab.settle();
    let mut streams = vec![Stream::new(&lab, PLACES[1], addresses(&lab, &service)[0])];
    let mut monitor = Monitor::open_in(&lab.nodes[0].station.netns).unwrap();
    let figure = Figure {
        figure: Duration::from_secs(1),
        waits: Duration::ZERO,
        work: Duration::from_millis(100),
    };
    figure.hold("healed", || {
        while !monitor.wait(Duration::from_millis(50)).unwrap().is_empty() {}
        flush(&lab);
        let (start, mut changes) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(30) && changes == 0 {
            let events = monitor.wait(Duration::from_millis(50)).unwrap();
            let services = &mut lab.nodes[0].services;
            if events.iter().filter(|event| services.notice(event)).count() > 0 {
                let report = lab.turn(0);
                assert_eq!(report.errors, []);
                changes += report.changes;
            }
        }
        assert!(changes > 0, "nothing was done about it");
        start.elapsed()
    });
    assert_answers(&lab, &service);
    assert_echo(&mut streams, "after the flush");
    // Its own changes are not looked at for ever.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let events = monitor.wait(Duration::from_millis(100)).unwrap();
        if events.is_empty() {
            break;
        }
        let services = &mut lab.nodes[0].services;
        if events.iter().filter(|event| services.notice(event)).count() > 0 {
            assert_eq!(lab.turn(0).changes, 0);
        }
        assert!(Instant::now() < deadline, "it hears itself without end");
    }
}

fn flush(lab: &Lab) {
    let netns = &lab.nodes[0].station.netns;
    let mut nftables = Nftables::open_in(netns).unwrap();
    for (family, table) in [
        (Family::Inet, "flatnet"),
        (Family::Ip, "nat"),
        (Family::Ip6, "nat"),
        (Family::Ip, "filter"),
        (Family::Ip6, "filter"),
        (Family::Ip, "mangle"),
        (Family::Ip6, "mangle"),
    ] {
        if nftables.read(family, table).unwrap().is_some() {
            let delete = Transaction {
                family,
                table: table.into(),
                ops: vec![Op::DeleteTable],
            };
            nftables.apply(&delete).unwrap();
        }
    }
}

#[test]
fn udp_follows_its_endpoints_over_nftables() {
    if testing::root("udp_follows_its_endpoints_over_nftables") {
        udp_follows(MODES[0]);
    }
}

#[test]
fn udp_follows_its_endpoints_over_iptables() {
    if testing::root("udp_follows_its_endpoints_over_iptables") {
        udp_follows(MODES[1]);
    }
}

#[test]
fn tcp_stays_whatever_changes() {
    if testing::root("tcp_stays_whatever_changes") {
        tcp_stays(MODES[0], MODES[1]);
    }
}

#[test]
fn tcp_stays_whatever_changes_from_iptables_on() {
    if testing::root("tcp_stays_whatever_changes_from_iptables_on") {
        tcp_stays(MODES[1], MODES[0]);
    }
}

#[test]
fn a_flushed_ruleset_is_back_within_a_second_over_nftables() {
    if testing::root("a_flushed_ruleset_is_back_within_a_second_over_nftables") {
        flush_heals(MODES[0]);
    }
}

#[test]
fn a_flushed_ruleset_is_back_within_a_second_over_iptables() {
    if testing::root("a_flushed_ruleset_is_back_within_a_second_over_iptables") {
        flush_heals(MODES[1]);
    }
}
