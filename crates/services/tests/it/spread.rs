//! How connections are dealt out to endpoints, and how one client keeps to one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use model::config::ServicesMode;
use model::{Protocol, Service, ServicePort, ServiceType};

use crate::cases::{Member, Place, slice};
use crate::lab::{Lab, MODES};
use crate::probe::{self, Outcome, Probe};
use crate::station::ip;

/// A Service of TCP and UDP port 80 and a node port.
pub fn service(number: u8) -> Service {
    let port = |protocol: Protocol| ServicePort {
        name: protocol.word().to_lowercase(),
        protocol,
        port: 80,
        node_port: Some(31000 + u16::from(number)),
    };
    Service {
        namespace: "spread".into(),
        name: format!("service{number}"),
        uid: format!("uid{number}"),
        kind: ServiceType::NodePort,
        cluster_ips: vec![
            ip(&format!("10.96.2.{number}")),
            ip(&format!("fd00:10:96::2{number:02x}")),
        ],
        ports: [Protocol::Tcp, Protocol::Udp].map(port).into(),
        ..Service::default()
    }
}

/// Makes the Service and its endpoints part of the cluster.
pub fn put(lab: &mut Lab, service: &Service, pods: &[&'static str]) {
    let members: Vec<Member> = pods.iter().map(|pod| (*pod, true, true, false)).collect();
    let slices = [false, true].map(|v6| slice(service, &members, v6));
    lab.put(service.clone(), slices);
}

/// Who answers each probe; every one must be answered.
fn who(lab: &Lab, from: Place, probes: &[Probe]) -> Vec<String> {
    let outcomes = probe::all(from.netns(lab), probes);
    let who = outcomes.into_iter().zip(probes).map(|(outcome, probe)| {
        // Late on a busy machine.
        let outcome = match outcome {
            Outcome::Silence => probe::one(from.netns(lab), *probe),
            outcome => outcome,
        };
        match outcome {
            Outcome::Answer(greeting) => greeting.who,
            outcome => panic!("{} from {}: {outcome}", probe.to, from.words()),
        }
    });
    who.collect()
}

/// What chi-square of `n` classes does not exceed but once in a thousand million times
/// (Wilson and Hilferty's approximation).
fn bound(n: usize) -> f64 {
    const DEVIATIONS: f64 = 6.0;
    let freedom = (n - 1) as f64;
    let part = 2.0 / (9.0 * freedom);
    freedom * (1.0 - part + DEVIATIONS * part.sqrt()).powi(3)
}

const PODS: [&str; 17] = [
    "1a", "2a", "1b", "2b", "1c", "2c", "1d", "2d", "1e", "2e", "1f", "2f", "1g", "2g", "1h", "2h",
    "1i",
];

fn uniform(mode: ServicesMode) {
    const CONNECTIONS: usize = 1500;
    let mut lab = Lab::with_pods(mode, [9, 9]);
    let counts = [2, 3, 5, 17];
    for (number, count) in (1..).zip(counts) {
        put(&mut lab, &service(number), &PODS[..count]);
    }
    lab.settle();
    for (number, count) in (1..).zip(counts) {
        let service = service(number);
        let node_port = service.ports[0].node_port.unwrap();
        for (from, ip, port) in [
            (Place::Pod("1i"), service.cluster_ips[0], 80),
            (Place::Node(0), service.cluster_ips[1], 80),
            (Place::Client, lab.nodes[0].ip(false), node_port),
        ] {
            let mut times = BTreeMap::<String, usize>::new();
            for who in who(&lab, from, &vec![Probe::tcp(ip, port); CONNECTIONS]) {
                *times.entry(who).or_default() += 1;
            }
            let mean = CONNECTIONS as f64 / count as f64;
            let times_of = |pod: &&str| times.get(*pod).copied().unwrap_or(0) as f64;
            let endpoints = PODS[..count].iter();
            let chi: f64 = endpoints
                .map(|pod| (times_of(pod) - mean).powi(2) / mean)
                .sum();
            assert!(
                times.len() == count && chi < bound(count),
                "{ip} from {}: chi-square {chi:.1} of at most {:.1}: {times:?}",
                from.words(),
                bound(count)
            );
        }
    }
}

#[test]
fn connections_are_dealt_out_evenly_over_nftables() {
    if testing::root("connections_are_dealt_out_evenly_over_nftables") {
        uniform(MODES[0]);
    }
}

#[test]
fn connections_are_dealt_out_evenly_over_iptables() {
    if testing::root("connections_are_dealt_out_evenly_over_iptables") {
        uniform(MODES[1]);
    }
}

/// So many clients outside, with an address each.
const CLIENTS: u16 = 40;

/// The outside clients of a family, and where the Service is for them.
struct Crowd {
    v6: bool,
    sources: Vec<IpAddr>,
    cluster_ip: IpAddr,
    node_port: (IpAddr, u16),
}

impl Crowd {
    fn new(lab: &mut Lab, service: &Service, v6: bool) -> Self {
        let sources = (100..100 + CLIENTS).map(|host| {
            let (source, length) = if v6 {
                (format!("2001:db8:113::{host}"), 64)
            } else {
                (format!("203.0.113.{host}"), 24)
            };
            lab.client.address("eth0", &format!("{source}/{length}"));
            ip(&source)
        });
        Self {
            v6,
            sources: sources.collect(),
            cluster_ip: service.cluster_ips[usize::from(v6)],
            node_port: (lab.nodes[0].ip(v6), service.ports[0].node_port.unwrap()),
        }
    }

    /// Who answers each client at the cluster address.
    fn ask(&self, lab: &Lab) -> Vec<String> {
        self.ask_at(lab, (self.cluster_ip, 80))
    }

    fn ask_at(&self, lab: &Lab, (ip, port): (IpAddr, u16)) -> Vec<String> {
        let sources = self.sources.iter();
        let probes: Vec<Probe> = sources
            .map(|source| Probe::tcp(ip, port).from(*source))
            .collect();
        who(lab, Place::Client, &probes)
    }
}

/// A lab, a Service of affinity with four endpoints, and who asks it.
fn sticky(mode: ServicesMode, timeout: Duration) -> (Lab, Service, [Crowd; 2]) {
    let mut lab = Lab::new(mode);
    let sticky = Service {
        affinity: Some(timeout.as_secs() as u32),
        ..service(1)
    };
    put(&mut lab, &sticky, &STICKY);
    lab.settle();
    let crowds = [false, true].map(|v6| Crowd::new(&mut lab, &sticky, v6));
    (lab, sticky, crowds)
}

const STICKY: [&str; 4] = ["1a", "1b", "2a", "2b"];

fn keeps(mode: ServicesMode) {
    let (mut lab, sticky, crowds) = sticky(mode, Duration::from_secs(600));
    for crowd in &crowds {
        let first = crowd.ask(&lab);
        let answered: BTreeSet<&str> = first.iter().map(String::as_str).collect();
        assert_eq!(answered, STICKY.into(), "clients are spread");
        for _ in 0..2 {
            assert_eq!(crowd.ask(&lab), first, "IPv6: {}", crowd.v6);
            // The node port of the same port is the same choice.
            assert_eq!(crowd.ask_at(&lab, crowd.node_port), first);
        }
        // An endpoint that stops being ready loses its clients, and only it.
        put(&mut lab, &sticky, &STICKY[1..]);
        lab.settle();
        let now = crowd.ask(&lab);
        for (now, first) in now.iter().zip(&first) {
            assert!(
                now != "1a" && (first == "1a" || now == first),
                "{first} {now}"
            );
        }
        // They keep to what they have then, also when it is back.
        put(&mut lab, &sticky, &STICKY);
        lab.settle();
        assert_eq!(crowd.ask(&lab), now, "IPv6: {}", crowd.v6);
        // Whoever finds rules and choices made by another process keeps them.
        lab.restart(0);
        lab.settle();
        assert_eq!(crowd.ask(&lab), now, "IPv6: {}", crowd.v6);
    }
    // Without affinity nobody is kept.
    put(&mut lab, &service(1), &STICKY);
    lab.settle();
    for crowd in &crowds {
        assert_ne!(crowd.ask(&lab), crowd.ask(&lab));
    }
}

fn expires(mode: ServicesMode) {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let (lab, _, [crowd, _]) = sticky(mode, TIMEOUT);
    // Each connection begins the time anew: three times a part of it is more than it. On a busy
    // machine a part may become more than the whole, which says nothing.
    let keeps = || {
        let first = crowd.ask(&lab);
        let mut last = Instant::now();
        for _ in 0..3 {
            sleep(TIMEOUT * 4 / 10);
            let now = crowd.ask(&lab);
            let late = last.elapsed() > TIMEOUT * 9 / 10;
            if now != first {
                assert!(late, "{now:?} is not {first:?}");
                return None;
            }
            last = Instant::now();
        }
        Some(first)
    };
    let before = (0..5).find_map(|_| keeps()).unwrap();
    // After its time each is dealt out anew: that all come to the same is not to be feared.
    sleep(TIMEOUT + TIMEOUT / 4);
    assert_ne!(crowd.ask(&lab), before);
}

#[test]

fn a_client_keeps_its_endpoint_over_nftables() {
    if testing::root("a_client_keeps_its_endpoint_over_nftables") {
        keeps(MODES[0]);
    }
}

#[test]
fn a_client_keeps_its_endpoint_over_iptables() {
    if testing::root("a_client_keeps_its_endpoint_over_iptables") {
        keeps(MODES[1]);
    }
}

#[test]
fn affinity_ends_after_its_time_over_nftables() {
    if testing::root("affinity_ends_after_its_time_over_nftables") {
        expires(MODES[0]);
    }
}

#[test]
fn affinity_ends_after_its_time_over_iptables() {
    if testing::root("affinity_ends_after_its_time_over_iptables") {
        expires(MODES[1]);
    }
}
