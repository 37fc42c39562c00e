//! What policies cost a packet.
//!
//! `cargo bench -p policy --bench packets`; needs root. One TCP stream from pod to pod, and new
//! connections one after the other and of four at once, on one node and between two: without any
//! policy beside 10,000 in the cluster, of which 60 are about both pods in both directions, and
//! beside 1,000 that are all about the one pod. What allows the connection is the last of their
//! rules. Each pair is taken in turns in one run; printed are medians, and the median of the
//! rounds' ratios, of what a second brings and of what a second of this process's time brings,
//! which other work on the machine changes less. `PACKETS_BENCH=quick` does it with few rounds.

#![allow(dead_code, reason = "the lab of the tests, of which this uses a part")]
#![expect(clippy::unwrap_used, reason = "a bench's failure is a panic")]

#[path = "../tests/it/lab.rs"]
mod lab;
#[path = "../tests/it/server.rs"]
mod server;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linux::{NetNs, run_in};
use model::policy::{Namespaces, Peer, PortMatch, PortNumbers, Rule};
use model::{Change, LabelSelector, Labels, Namespace, NetworkPolicy, Pod, Protocol};
use nix::sys::socket::{setsockopt, sockopt};

use lab::Lab;

/// Where the pods listen: the highest of all ports in the rules, which so is asked for last.
const PORT: u16 = 60_000;
const CLIENT: &str = "x/a";
/// The servers: on the client's node, and on the other.
const SERVERS: [(&str, &str); 2] = [("on one node", "x/c"), ("between two nodes", "x/b")];
const NAMESPACES: u16 = 500;
/// Policies in a namespace: 10,000 in all.
const POLICIES: u16 = 20;
/// Those about the client and the servers.
const CONCERNED: u16 = 60;
/// Those about one pod, of the worst kind.
const WORST: u16 = 1000;
const TARGET: f64 = 0.97;

struct Size {
    rounds: usize,
    round: Duration,
}

fn main() {
    if !testing::root("packets") {
        return;
    }
    let quick = std::env::var("PACKETS_BENCH").is_ok_and(|size| size == "quick");
    let (rounds, round) = if quick { (7, 100) } else { (31, 300) };
    let size = Size {
        rounds,
        round: Duration::from_millis(round),
    };
    println!("medians of {rounds} rounds in turns; target of ratios: at least {TARGET}");
    let open = Lab::new();
    for (words, policies) in [
        ("10,000 policies, 60 about both pods", many()),
        ("1,000 policies about the server", worst()),
    ] {
        let closed = closed(policies);
        println!("{words}:");
        for (place, server) in SERVERS {
            let labs = [&closed, &open];
            compare(&format!("a stream {place}, Gbit/s"), &size, labs, |lab| {
                stream(lab, server, size.round)
            });
            for threads in [1, 4] {
                let words = format!("connections {place}, {threads} at once, 1/s");
                compare(&words, &size, labs, |lab| {
                    connections(lab, server, threads, size.round)
                });
            }
        }
    }
}

/// A lab in which these are in force.
fn closed(news: Vec<Change>) -> Lab {
    let mut lab = Lab::new();
    for change in news {
        lab.take(change);
    }
    let start = Instant::now();
    lab.settle();
    let took = start.elapsed();
    let counts = lab.nodes[0].policies.counts();
    println!("{counts:?} on the first node, {took:.2?} for both");
    // What is measured would pass also if nothing were in force.
    for (_, server) in SERVERS {
        let other: SocketAddr = (lab.pod(server).ips[0], lab::PORTS[0]).into();
        let wait = Duration::from_millis(300);
        let tried = run_in(&lab.pod(CLIENT).station.netns, || {
            TcpStream::connect_timeout(&other, wait)
        });
        assert!(tried.unwrap().is_err(), "{server} is not closed");
    }
    lab
}

fn many() -> Vec<Change> {
    let mut news = Vec::new();
    for n in 0..NAMESPACES {
        let name = format!("ns{n}");
        let team = format!("t{}", n % 10);
        let labels = [("kubernetes.io/metadata.name", &*name), ("team", &*team)];
        news.push(Change::Namespace(Arc::new(Namespace {
            name: name.clone(),
            labels: labels.into_iter().collect(),
        })));
        news.extend((0..10).map(|at| pod(n, at)));
        news.extend((0..POLICIES).map(|i| policy(&name, i, true)));
    }
    news.extend((1..CONCERNED).map(|i| policy("x", i, true)));
    news.push(allowing(CONCERNED, true));
    news
}

fn worst() -> Vec<Change> {
    let mut news: Vec<Change> = (1..WORST).map(|i| policy("x", i, false)).collect();
    news.push(allowing(WORST, false));
    news
}

/// A pod of a node that is far.
fn pod(namespace: u16, at: u16) -> Change {
    let [b, a] = (namespace * 10 + at).to_be_bytes();
    let app = format!("a{at}");
    Change::Pod(Arc::new(Pod {
        namespace: format!("ns{namespace}"),
        name: format!("pod{at}"),
        uid: format!("ns{namespace}-{at}"),
        node: "node3".into(),
        ips: vec![
            IpAddr::from([10, 245, b, a]),
            IpAddr::from([0xfd00, 0x10, 0x245, 0, 0, 0, b.into(), a.into()]),
        ],
        host_network: false,
        labels: [("app", &*app)].into_iter().collect(),
        ports: Vec::new(),
        created: 1,
        leaving: false,
    }))
}

fn selector(key: &str, value: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Labels::from([(key, value)]),
        ..LabelSelector::default()
    }
}

/// An application of a namespace, a team, or a network.
fn peer(i: u16) -> Peer {
    match i % 3 {
        0 => Peer::Pods {
            namespaces: Namespaces::Selected(selector(
                "kubernetes.io/metadata.name",
                &format!("ns{}", i % NAMESPACES),
            )),
            pods: selector("app", &format!("a{}", i % 10)),
        },
        1 => Peer::Pods {
            namespaces: Namespaces::Selected(selector("team", &format!("t{}", i % 10))),
            pods: selector("app", &format!("a{}", i / 10)),
        },
        _ => Peer::Block {
            net: format!("10.{}.0.0/16", i % 200).parse().unwrap(),
            except: vec![format!("10.{}.{}.0/24", i % 200, i % 256).parse().unwrap()],
        },
    }
}

/// Of the pods of a namespace: each with its own peers and port.
fn policy(namespace: &str, i: u16, both: bool) -> Change {
    let name = format!("policy-{i}");
    let rules = vec![rule(peer(i), 8000 + i)];
    made(namespace, name, LabelSelector::default(), rules, both)
}

/// Lets the client to the servers.
fn allowing(i: u16, both: bool) -> Change {
    let own = Peer::Pods {
        namespaces: Namespaces::Own,
        pods: LabelSelector::default(),
    };
    let name = format!("policy-{i}");
    let rules = vec![rule(own, PORT)];
    made("x", name, LabelSelector::default(), rules, both)
}

fn rule(peer: Peer, port: u16) -> Rule {
    Rule {
        peers: Some(vec![peer]),
        ports: Some(vec![PortMatch {
            protocol: Some(Protocol::Tcp),
            port: PortNumbers::Range(port, port),
        }]),
    }
}

fn made(
    namespace: &str,
    name: String,
    pods: LabelSelector,
    rules: Vec<Rule>,
    both: bool,
) -> Change {
    Change::Policy(Arc::new(NetworkPolicy {
        namespace: namespace.into(),
        uid: format!("{namespace}-{name}"),
        name,
        pods,
        ingress: Some(rules.clone()),
        egress: both.then_some(rules),
    }))
}

/// What came of a round: so much in this time, and in this time of the process.
struct Round {
    count: f64,
    took: Duration,
    worked: Duration,
}

impl Round {
    fn of(start: Instant, worked: Duration, count: f64) -> Self {
        Self {
            count,
            took: start.elapsed(),
            worked: process_time() - worked,
        }
    }

    fn rate(&self) -> f64 {
        self.count / self.took.as_secs_f64()
    }

    fn per_work(&self) -> f64 {
        self.count / self.worked.as_secs_f64()
    }
}

/// How long this process has had a processor.
fn process_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes to `time`, which is valid for that, and keeps nothing of it.
    let got = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(got, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// With policies and without, in turns.
fn compare(words: &str, size: &Size, [closed, open]: [&Lab; 2], run: impl Fn(&Lab) -> Round) {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let (mut ratios, mut of_work) = (Vec::new(), Vec::new());
    for round in 0..size.rounds {
        // Whoever comes first changes, so that neither always follows a pause.
        let (there, none) = if round % 2 == 0 {
            let there = run(closed);
            (there, run(open))
        } else {
            let none = run(open);
            (run(closed), none)
        };
        with.push(there.rate());
        without.push(none.rate());
        ratios.push(there.rate() / none.rate());
        of_work.push(there.per_work() / none.per_work());
    }
    println!(
        "  {words}: {:.2} with policies, {:.2} without; ratio {:.3}, by the process's time {:.3}",
        median(with),
        median(without),
        median(ratios),
        median(of_work),
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn listen(lab: &Lab, server: &str) -> TcpListener {
    let pod = lab.pod(server);
    let at = (pod.ips[0], PORT);
    run_in(&pod.station.netns, || TcpListener::bind(at).unwrap()).unwrap()
}

/// Gigabits of one stream; the first tenth is not counted.
fn stream(lab: &Lab, server: &str, round: Duration) -> Round {
    let listener = listen(lab, server);
    let to = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 256 << 10];
            let warm = Instant::now() + round / 10;
            let mut read = 1;
            while read > 0 && Instant::now() < warm {
                read = stream.read(&mut buffer).unwrap();
            }
            let (start, worked, mut total) = (Instant::now(), process_time(), 0);
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                total += read;
            }
            Round::of(start, worked, total as f64 * 8.0 / 1e9)
        });
        let from = &lab.pod(CLIENT).station.netns;
        let mut stream = run_in(from, || TcpStream::connect(to)).unwrap().unwrap();
        let data = vec![0; 128 << 10];
        let end = Instant::now() + round;
        while Instant::now() < end {
            stream.write_all(&data).unwrap();
        }
        drop(stream);
        receiver.join().unwrap()
    })
}

/// Connections of so many threads, each with one byte.
fn connections(lab: &Lab, server: &str, threads: usize, round: Duration) -> Round {
    let listener = listen(lab, server);
    let to = listener.local_addr().unwrap();
    let over = AtomicBool::new(false);
    let from = &lab.pod(CLIENT).station.netns;
    let (start, worked) = (Instant::now(), process_time());
    std::thread::scope(|scope| {
        let servers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| serve(&listener, &over)))
            .collect();
        let clients: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| connect(from, to, start + round)))
            .collect();
        let count: usize = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum();
        let result = Round::of(start, worked, count as f64);
        over.store(true, Ordering::SeqCst);
        for _ in &servers {
            // Nobody may be left to answer it.
            run_in(from, || TcpStream::connect(to)).unwrap().unwrap();
        }
        result
    })
}

fn serve(listener: &TcpListener, over: &AtomicBool) {
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        if over.load(Ordering::SeqCst) {
            return;
        }
        let _ = stream.write_all(&[0]);
        // The client ends it.
        let _ = stream.read(&mut [0]);
    }
}

/// One connection after the other; how many there were.
fn connect(from: &NetNs, to: SocketAddr, end: Instant) -> usize {
    run_in(from, || {
        let mut count = 0;
        loop {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            // Nothing is left of it, neither here nor in the tables of the nodes.
            let at_once = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
            count += 1;
            if Instant::now() >= end {
                return count;
            }
        }
    })
    .unwrap()
}
