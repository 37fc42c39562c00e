//! What the cluster's names cost.
//!
//! `cargo bench -p dns --bench names`: a look-up with its answer and the message, the memory of the
//! names of 5,000 Services with 50,000 endpoints, the time of an update, and 100,000 Services.

#![expect(clippy::unwrap_used, reason = "a bench's failure is a panic")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use dns::corefile::plugins as options;
use dns::plan::{Names, View};
use dns::plugins::kubernetes::Kubernetes;
use dns::wire::{Class, Header, Message, Name, Question, Type};
use model::{
    Change, Changed, Cluster, Endpoint, EndpointSlice, Labels, Namespace, Protocol, Service,
    ServicePort, SlicePort,
};

const NAMESPACES: usize = 50;
const ROUNDS: usize = 50_000;

/// The system's allocator, with what is held counted.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    for (services, endpoints) in [(5_000, 10), (10_000, 5), (100_000, 1)] {
        println!("{services} Services with {endpoints} endpoints each");
        size(services, endpoints);
    }
}

fn size(services: usize, endpoints: usize) {
    let before = HELD.load(Ordering::Relaxed);
    let mut cluster = cluster(services, endpoints);
    let filled = HELD.load(Ordering::Relaxed);
    let start = spent();
    let names = Names::of(&cluster, UNIX_EPOCH);
    let took = spent() - start;
    let held = HELD.load(Ordering::Relaxed) - filled;
    println!(
        "  names: {:.1} MiB beside {:.1} MiB of the cluster's objects, made in {took:.0?}",
        mib(held),
        mib(filled - before)
    );
    let view = View {
        names,
        cluster: cluster.clone(),
    };
    look_ups(&view, services);
    let mut names = view.names.clone();
    let mut times = Vec::new();
    for round in 0..1_000 {
        let mut changed = Changed::default();
        let change = Change::Slice(Arc::new(slice(round * 7 % services, endpoints, 1)));
        cluster.note(change, &mut changed);
        let start = spent();
        names.update(&cluster, &changed, UNIX_EPOCH);
        times.push(spent() - start);
    }
    times.sort();
    println!(
        "  one endpoint of a Service changed, readers have the old names: p50 {:.1?}, p99 {:.1?}",
        times[500], times[990]
    );
}

fn look_ups(view: &View, services: usize) {
    let zones = ["cluster.local", "in-addr.arpa"].map(|zone| zone.parse::<Name>().unwrap());
    let options = options::Kubernetes {
        zones: zones.into(),
        ..options::Kubernetes::default()
    };
    let plugin = Kubernetes::new(&options, &[]).unwrap();
    let ask = |what: &str, kind: Type, name: &dyn Fn(usize) -> String| {
        let questions: Vec<Question> = (0..1_000)
            .map(|n| Question {
                name: name(n * 31 % services).parse().unwrap(),
                kind,
                class: Class::IN,
            })
            .collect();
        let calls = CALLS.load(Ordering::Relaxed);
        let answer = per(&questions, |question| {
            black_box(plugin.answer(Some(view), question));
        });
        let calls = (CALLS.load(Ordering::Relaxed) - calls) as f64 / (4 * ROUNDS) as f64;
        let mut out = Vec::with_capacity(512);
        let whole = per(&questions, |question| {
            let answer = plugin.answer(Some(view), question).unwrap().answer;
            let message = Message {
                header: Header::default(),
                question: Some(question.clone()),
                answers: answer.answers,
                authorities: answer.authorities,
                additionals: answer.additionals,
                edns: None,
            };
            out.clear();
            message.write(1232, &mut out);
            black_box(&out);
        });
        println!("  {what}: {answer} ns ({calls:.1} allocations), with its message {whole} ns");
    };
    ask("A of a Service", Type::A, &|n| {
        format!("{}.svc.cluster.local", key(n))
    });
    ask("AAAA of it", Type::AAAA, &|n| {
        format!("{}.svc.cluster.local", key(n))
    });
    ask("no such Service", Type::A, &|n| {
        format!("no{}.svc.cluster.local", key(n))
    });
    ask("a name outside, searched for", Type::A, &|n| {
        format!("google.com.ns{}.svc.cluster.local", n % NAMESPACES)
    });
    ask("SRV of a port", Type::SRV, &|n| {
        format!("_http._tcp.{}.svc.cluster.local", key(n))
    });
    ask("PTR of a Service", Type::PTR, &|n| {
        Name::of_address(cluster_ip(n)).to_string()
    });
    ask("A of an endpoint", Type::A, &|n| {
        let ip = pod_ip(n * 1_000).to_string().replace('.', "-");
        format!("{ip}.{}.svc.cluster.local", key(n))
    });
}

/// Nanoseconds of processor time for one: the least of four.
fn per(questions: &[Question], mut work: impl FnMut(&Question)) -> u128 {
    let mut best = Duration::MAX;
    for _ in 0..4 {
        let start = spent();
        for question in questions.iter().cycle().take(ROUNDS) {
            work(question);
        }
        best = best.min(spent() - start);
    }
    best.as_nanos() / ROUNDS as u128
}

/// The processor time this thread has had: others may be at work on the machine.
fn spent() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec that lives during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn key(n: usize) -> String {
    format!("service{n}.ns{}", n % NAMESPACES)
}

fn cluster_ip(n: usize) -> IpAddr {
    Ipv4Addr::from(0x0a60_0000 + n as u32).into()
}

/// So many apart that a Service's endpoints have room.
fn pod_ip(n: usize) -> IpAddr {
    Ipv4Addr::from(0x2000_0000 + n as u32).into()
}

fn cluster(services: usize, endpoints: usize) -> Cluster {
    let mut cluster = Cluster::default();
    for n in 0..NAMESPACES {
        let name = format!("ns{n}");
        let labels = Labels::from([("kubernetes.io/metadata.name", name.as_str())]);
        cluster.take(Change::Namespace(Arc::new(Namespace { name, labels })));
    }
    for n in 0..services {
        cluster.take(Change::Service(Arc::new(service(n))));
        cluster.take(Change::Slice(Arc::new(slice(n, endpoints, 0))));
    }
    cluster
}

fn service(n: usize) -> Service {
    let name = format!("service{n}");
    let labels = [
        ("app.kubernetes.io/name", name.as_str()),
        ("app.kubernetes.io/part-of", "shop"),
    ];
    Service {
        namespace: format!("ns{}", n % NAMESPACES),
        uid: format!("00000000-0000-0000-0000-{n:012}"),
        labels: Labels::from(labels),
        // One of ten is headless.
        cluster_ips: (!n.is_multiple_of(10))
            .then(|| cluster_ip(n))
            .into_iter()
            .collect(),
        ports: vec![ServicePort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        name,
        ..Service::default()
    }
}

/// The endpoints of a Service; the last one moves.
fn slice(n: usize, endpoints: usize, moved: usize) -> EndpointSlice {
    let endpoint = |at: usize| Endpoint {
        ip: pod_ip(n * 1_000 + at + if at + 1 == endpoints { moved * 100 } else { 0 }),
        more: Box::default(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(format!("node{}", at % 100)),
        zone: None,
        hostname: None,
        pod: Some(format!("service{n}-5d4f8c7b9-{at:05}")),
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    };
    EndpointSlice {
        namespace: format!("ns{}", n % NAMESPACES),
        name: format!("service{n}-abcde"),
        service: format!("service{n}"),
        v6: false,
        ports: vec![SlicePort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: Some(8080),
        }],
        endpoints: (0..endpoints).map(endpoint).collect(),
        triggered: None,
    }
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}
