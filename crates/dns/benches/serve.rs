//! Processor time of the server a question, asked by dnsperf over loopback: with one worker and
//! with two, with questions one at a time and as many as it takes.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns::metrics::Metrics;
use dns::query::Transport;
use dns::query::{Answer, Outcome, Query};
use dns::serve::{Answers, At, Limits, Listener, Respond, Scheme, Server, Site, sockets};
use dns::wire::{Data, Name, Record};
use futures::FutureExt;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// One address for any name: what is measured is what surrounds it.
struct One;

impl Answers for One {
    fn sites(&self) -> Vec<Site> {
        vec![Site {
            zone: Name::root(),
            view: String::new(),
            plugins: vec!["prometheus"],
        }]
    }

    fn route(&self, _query: &Query) -> Option<usize> {
        Some(0)
    }

    async fn answer(self: &Arc<Self>, _site: usize, query: &mut Query) -> Outcome {
        let data = Data::A(Ipv4Addr::new(10, 0, 0, 1));
        Outcome::Answer(Answer {
            authoritative: true,
            answers: vec![Record::new(query.question.name.clone(), 5, data)],
            by: "one",
            ..Answer::default()
        })
    }
}

/// User and system time of this process, which is the server alone.
fn spent() -> (Duration, Duration) {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("getrusage");
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_micros(u64::try_from(value.num_microseconds()).unwrap_or_default())
    };
    (time(usage.user_time()), time(usage.system_time()))
}

struct Round {
    rate: f64,
    user: f64,
    system: f64,
    latency: f64,
}

fn round(address: SocketAddr, names: &str, seconds: u32, arguments: &[&str]) -> Round {
    let (user, system) = spent();
    let start = Instant::now();
    let output = Command::new("dnsperf")
        .args(["-s", &address.ip().to_string()])
        .args(["-p", &address.port().to_string(), "-d", names])
        .args(["-l", &seconds.to_string()])
        .args(arguments)
        .output()
        .expect("dnsperf");
    let took = start.elapsed();
    let (after_user, after_system) = spent();
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |label: &str| -> f64 {
        let line = text.lines().find(|line| line.contains(label));
        let rest = line.and_then(|line| line.split_once(':'));
        let word = rest.and_then(|(_, rest)| rest.split_whitespace().next());
        word.and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
    };
    let done = number("Queries completed");
    let each = |after: Duration, before: Duration| (after - before).as_secs_f64() / done * 1e6;
    Round {
        rate: done / took.as_secs_f64(),
        user: each(after_user, user),
        system: each(after_system, system),
        latency: number("Average Latency") * 1e6,
    }
}

/// Bytes in, bytes out, without sockets.
fn alone() {
    const ROUNDS: u32 = 2_000_000;
    let server = Respond::new(Arc::new(One));
    let question =
        b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x04svc1\x03ns1\x03svc\x07cluster\x05local\0\0\x01\0\x01";
    let peers: [SocketAddr; 2] = [([10, 0, 0, 1], 1234).into(), ([10, 0, 0, 2], 53).into()];
    let mut out = Vec::new();
    let (user, _) = spent();
    for _ in 0..ROUNDS {
        out.clear();
        let answer = server.respond(question, peers[0], peers[1], Transport::Udp, &mut out);
        answer.now_or_never().expect("nothing is waited for");
    }
    let each = (spent().0 - user).as_secs_f64() / f64::from(ROUNDS) * 1e9;
    println!("without sockets, with reading the clock: {each:.0} ns a question");
}

fn main() {
    alone();
    if Command::new("dnsperf").arg("-h").output().is_err() {
        println!("skipped: serve: needs dnsperf");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let names = folder.path().join("names");
    let lines: String = (0..1000)
        .map(|n| format!("svc{n}.ns{}.svc.cluster.local A\n", n % 10))
        .collect();
    std::fs::write(&names, lines).expect("names");
    let names = names.to_str().expect("a path").to_owned();
    println!("workers  load          queries/s  user us  system us  total us  latency us");
    for workers in [1, 2] {
        let bound = sockets(Scheme::Dns, (Ipv4Addr::LOCALHOST, 0).into(), workers);
        let sockets = bound.expect("sockets");
        let address = sockets[0].tcp.local_addr().expect("an address");
        let at = At {
            scheme: Scheme::Dns,
            ip: Some(address.ip()),
            port: address.port(),
        };
        let listener = Listener {
            at,
            answers: Arc::new(One),
            sockets,
            tls: None,
            limits: Limits::default(),
        };
        let metrics = Arc::new(Metrics::default());
        let server = Server::start(workers, metrics, vec![listener]).expect("a server");
        for (load, arguments) in [
            ("full", &["-c", "4", "-T", "1"][..]),
            ("20,000/s", &["-c", "4", "-Q", "20000"]),
            ("tcp", &["-c", "4", "-m", "tcp"]),
        ] {
            let round = round(address, &names, 5, arguments);
            println!(
                "{workers:7}  {load:12}  {:9.0}  {:7.2}  {:9.2}  {:8.2}  {:10.0}",
                round.rate,
                round.user,
                round.system,
                round.user + round.system,
                round.latency
            );
        }
        drop(server);
    }
}
