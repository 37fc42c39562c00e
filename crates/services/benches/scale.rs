//! What many Services cost with nftables: from the cluster's values to the kernel, in a network
//! namespace of its own. `cargo bench -p services --bench scale [SERVICES [ENDPOINTS]]`; needs root.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::{Host, NetNs, run_in};
use model::{
    Change, Changed, Cluster, Config, Endpoint, EndpointSlice, Node, Protocol, Service,
    ServicePort, SlicePort,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use services::Services;

const CHANGES: usize = 500;

fn main() {
    let numbers: Vec<u32> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let services = numbers.first().copied().unwrap_or(10_000);
    let endpoints = numbers.get(1).copied().unwrap_or(5);
    let netns = NetNs::anonymous().expect("a network namespace; are you root?");
    run_in(&netns, || bench(services, endpoints)).expect("the namespace");
}

fn bench(services: u32, endpoints: u32) {
    let mut cluster = cluster();
    let before = resident();
    for n in 0..services {
        cluster.take(Change::Service(Arc::new(service(n))));
        cluster.take(Change::Slice(Arc::new(slice(n, endpoints, 0))));
    }
    let held = resident();
    println!("{services} services x {endpoints} endpoints");
    println!("  cluster:           {:>8.1} MiB", held - before);
    let mut kernel = Host::open().expect("netlink");
    let mut state = Services::new("node1");
    let mut reconcile = |state: &mut Services, cluster: &Cluster, changed: &Changed, what| {
        let (begun, cpu) = (Instant::now(), cpu());
        let report = state.reconcile(&mut kernel, cluster, changed, &Config::default());
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let (took, cpu) = (begun.elapsed(), self::cpu() - cpu);
        if let Some(what) = what {
            let changes = report.changes;
            println!("  {what}: {took:>9.1?} ({cpu:.1?} CPU, {changes} changes)");
        }
        took
    };
    let nothing = Changed::default();
    reconcile(&mut state, &cluster, &nothing, Some("first list to kernel"));
    println!(
        "  plan and state:    {:>8.1} MiB resident more",
        resident() - held
    );
    reconcile(&mut state, &cluster, &nothing, Some("nothing changed     "));
    state.resync();
    reconcile(&mut state, &cluster, &nothing, Some("read back and heal  "));
    // One moves; one comes or goes, so that there is another number of them.
    for (what, counts, moved) in [
        ("moved        ", [endpoints, endpoints], 1),
        ("more and less", [endpoints + 1, endpoints], 0),
    ] {
        let mut times: Vec<Duration> = (0..CHANGES)
            .map(|at| {
                let mut changed = Changed::default();
                let n = at as u32 / 2 * 7 % services;
                let slice = slice(n, counts[at % 2], (at % 2) as u32 * moved);
                cluster.note(Change::Slice(Arc::new(slice)), &mut changed);
                reconcile(&mut state, &cluster, &changed, None)
            })
            .collect();
        times.sort();
        println!(
            "  one endpoint {what}: p50 {:.1?}, p99 {:.1?}",
            times[CHANGES / 2],
            times[CHANGES * 99 / 100]
        );
    }
    let mut adopter = Services::new("node1");
    reconcile(
        &mut adopter,
        &cluster,
        &nothing,
        Some("adopted by another  "),
    );
    println!("  in all:            {:>8.1} MiB resident", resident());
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.take(Change::Node(Node {
        name: "node1".into(),
        addresses: vec![IpAddr::from([10, 0, 1, 10])],
        pod_cidrs: Vec::new(),
        vtep_mac: None,
        vtep_mac_v6: None,
        labels: Default::default(),
        leaving: false,
    }));
    cluster
}

fn service(n: u32) -> Service {
    Service {
        namespace: "default".into(),
        name: format!("service-{n}"),
        cluster_ips: vec![Ipv4Addr::from(0x0a60_0000 + 1 + n).into()],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        ..Service::default()
    }
}

fn slice(n: u32, endpoints: u32, moved: u32) -> EndpointSlice {
    let first = 0x0af4_0000 + n * endpoints;
    let endpoint = |at| Endpoint {
        more: Box::default(),
        // The last one moves.
        ip: Ipv4Addr::from(
            first
                + at
                + if at + 1 == endpoints {
                    moved * 7_000_000
                } else {
                    0
                },
        )
        .into(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(format!("node{}", 2 + at)),
        zone: None,
        hostname: None,
        pod: None,
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    };
    EndpointSlice {
        namespace: "default".into(),
        name: format!("service-{n}-a"),
        service: format!("service-{n}"),
        v6: false,
        ports: vec![SlicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: Some(8080),
        }],
        endpoints: (0..endpoints).map(endpoint).collect(),
        triggered: None,
    }
}

/// Resident memory of this process in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

/// Time this thread spent on a processor, its own and the kernel's for it.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("getrusage");
    let spent = usage.user_time() + usage.system_time();
    Duration::from_micros(spent.num_microseconds().unsigned_abs())
}
