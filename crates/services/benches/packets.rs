//! What a Service costs a packet.
//!
//! `cargo bench -p services --bench packets`; needs root. The time of a new connection through the
//! last of 30,000 Services beside one through the first of 10, and one TCP stream through a
//! Service beside the direct path, each pair in turns in one run; printed are medians, and the
//! median of the rounds' ratios. `PACKETS_BENCH=quick` does it with few rounds and Services.

#![allow(dead_code, reason = "the lab of the tests, of which this uses a part")]
#![expect(clippy::unwrap_used, reason = "a bench's failure is a panic")]

#[path = "../tests/it/cases.rs"]
mod cases;
#[path = "../tests/it/echo.rs"]
mod echo;
#[path = "../tests/it/lab.rs"]
mod lab;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use linux::{NetNs, run_in};
use model::config::ServicesMode;
use model::{EndpointSlice, Protocol, Service, ServicePort};

use cases::slice;
use lab::{Lab, TARGET};
use testing::station;

/// The port of the throughput's Service.
const STREAM: u16 = 9000;

struct Size {
    services: u32,
    connections: usize,
    rounds: usize,
    round: Duration,
}

const WHOLE: Size = Size {
    services: 30_000,
    connections: 200,
    rounds: 31,
    round: Duration::from_millis(300),
};

const QUICK: Size = Size {
    services: 3_000,
    connections: 100,
    rounds: 7,
    round: Duration::from_millis(100),
};

fn main() {
    if !testing::root("packets") {
        return;
    }
    let quick = std::env::var("PACKETS_BENCH").is_ok_and(|size| size == "quick");
    let size = if quick { QUICK } else { WHOLE };
    println!("medians of {} rounds in turns", size.rounds);
    let few = filled(10, ServicesMode::Nftables);
    let many = filled(size.services, ServicesMode::Nftables);
    first_packets(&size, &few, &many);
    stream("nftables", &size, &few);
    stream(
        &format!("nftables, {} Services", size.services),
        &size,
        &many,
    );
    drop(many);
    stream("iptables", &size, &filled(10, ServicesMode::Iptables));
}

/// A lab of so many Services, each of one endpoint, pod `1a`; and one of the stream, to `2a`.
fn filled(services: u32, mode: ServicesMode) -> Lab {
    let mut lab = Lab::with_pods(mode, [2, 1]);
    for number in 0..services {
        let service = service(number, 80);
        let slice = slice(&service, &[("1a", true, true, false)], false);
        lab.put(service, [slice]);
    }
    let service = service(services, STREAM);
    let mut slice: EndpointSlice = slice(&service, &[("2a", true, true, false)], false);
    slice.ports[0].port = Some(STREAM);
    lab.put(service, [slice]);
    let start = Instant::now();
    let report = lab.turn(0);
    assert_eq!(report.errors, []);
    println!(
        "{services} Services into the kernel: {:.2?}",
        start.elapsed()
    );
    lab
}

fn service(number: u32, port: u16) -> Service {
    Service {
        namespace: "bench".into(),
        name: format!("service-{number:05}"),
        uid: number.to_string(),
        cluster_ips: vec![cluster_ip(number)],
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port,
            node_port: None,
        }],
        ..Service::default()
    }
}

fn cluster_ip(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + number).into()
}

/// New connections: what passes the rules is their first packet.
fn first_packets(size: &Size, few: &Lab, many: &Lab) {
    let connect = |lab: &Lab, to: SocketAddr| connect(&lab.pod("1b").station.netns, to, size);
    let last = cluster_ip(size.services - 1);
    let pod = lab::pod("1a").1[0];
    let (mut of_first, mut of_last, mut direct) = (Vec::new(), Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    for round in 0..size.rounds {
        let first = || connect(few, (cluster_ip(0), 80).into());
        let last = || connect(many, (last, 80).into());
        // Whoever comes first changes, so that neither always follows a pause.
        let (first, last) = if round % 2 == 0 {
            let first = first();
            (first, last())
        } else {
            let last = last();
            (first(), last)
        };
        direct.extend(connect(few, (pod, TARGET).into()));
        ratios.push(micros(&last, 50) / micros(&first, 50));
        of_first.extend(first);
        of_last.extend(last);
    }
    for times in [&mut of_first, &mut of_last, &mut direct] {
        times.sort();
    }
    ratios.sort_by(f64::total_cmp);
    let print = |words: &str, times: &[Duration]| {
        let (p50, p99) = (micros(times, 50), micros(times, 99));
        println!("  {words:26} p50 {p50:6.1} us, p99 {p99:6.1} us");
    };
    println!("a new connection, pod to pod of one node:");
    print("first of 10 Services", &of_first);
    print(&format!("last of {} Services", size.services), &of_last);
    print("direct", &direct);
    println!(
        "  ratio last to first {:.3} (target at most 1.05)",
        ratios[ratios.len() / 2]
    );
}

/// Of sorted times, in microseconds.
fn micros(sorted: &[Duration], hundredth: usize) -> f64 {
    let at = (sorted.len() * hundredth / 100).min(sorted.len() - 1);
    sorted[at].as_secs_f64() * 1e6
}

/// The times, sorted, in which connections are made one after the other.
fn connect(netns: &NetNs, to: SocketAddr, size: &Size) -> Vec<Duration> {
    let mut times = run_in(netns, || {
        let connections = 0..size.connections;
        let times = connections.map(|_| {
            let start = Instant::now();
            let mut stream = TcpStream::connect(to).unwrap();
            let took = start.elapsed();
            // The server is done with it before the next begins.
            stream.read_exact(&mut [0]).unwrap();
            took
        });
        times.collect::<Vec<Duration>>()
    })
    .unwrap();
    times.sort();
    times
}

/// One TCP stream from a pod to one of the other node, through a Service and directly.
fn stream(words: &str, size: &Size, lab: &Lab) {
    let [pod, _] = lab::pod("2a").1;
    let listener = run_in(&lab.pod("2a").station.netns, || {
        TcpListener::bind((pod, STREAM)).unwrap()
    })
    .unwrap();
    let at = lab.cluster.services.iter().next_back().unwrap();
    let service: SocketAddr = (at.1.cluster_ips[0], STREAM).into();
    let pump = |to| pump(&lab.pod("1b").station.netns, &listener, to, size.round);
    let (mut through, mut direct, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..size.rounds {
        let pair = if round % 2 == 0 {
            let through = pump(service);
            (through, pump((pod, STREAM).into()))
        } else {
            let direct = pump((pod, STREAM).into());
            (pump(service), direct)
        };
        through.push(pair.0);
        direct.push(pair.1);
        ratios.push(pair.0 / pair.1);
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "one TCP stream, {words}: through a Service {:.2} Gbit/s, directly {:.2}, ratio {:.3} \
         (target at least 0.97)",
        median(&mut through),
        median(&mut direct),
        median(&mut ratios)
    );
}

/// Gbit/s of one stream for a round; its first tenth is not counted.
fn pump(from: &NetNs, listener: &TcpListener, to: SocketAddr, round: Duration) -> f64 {
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 256 << 10];
            let warm = Instant::now() + round / 10;
            let mut read = 1;
            while read > 0 && Instant::now() < warm {
                read = stream.read(&mut buffer).unwrap();
            }
            let (start, mut total) = (Instant::now(), 0);
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                total += read;
            }
            total as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64()
        });
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
