//! The plan of large clusters: all of it, and one change of it.
//!
//! `cargo bench -p services --bench plan`; needs nothing.

#![allow(
    dead_code,
    reason = "the objects of the tests, of which this uses a part"
)]
#![expect(clippy::unwrap_used, reason = "a bench's failure is a panic")]

#[path = "../tests/it/build.rs"]
mod build;

use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use model::{Cluster, Key};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use services::explain::{Origin, Question, explain};
use services::plan::Plan;

use build::{Put as _, balanced, cluster, endpoint, ip, key, service, settings, slice, unready};

const ENDPOINTS: u32 = 5;

fn main() {
    for count in [1_000, 10_000, 44_000] {
        measure(count);
    }
    clash(10_000);
}

/// Services with an address of a balancer and a node port each, as long as there are any.
fn large(count: u32) -> Cluster {
    let mut cluster = cluster();
    for n in 0..count {
        let name = format!("service-{n}");
        let node_port = u16::try_from(n).ok().filter(|n| *n < 30_000);
        let mut made = match node_port {
            Some(n) if n % 10 == 0 => balanced(&name, 1, &address([192, 168], u32::from(n)), 1 + n),
            _ => service(&name, 1),
        };
        made.created = i64::from(n);
        made.cluster_ips = vec![ip(&address([10, 100], n))];
        made.put(&mut cluster);
        slice(&name, "x", endpoints(n)).put(&mut cluster);
    }
    cluster
}

fn endpoints(n: u32) -> Vec<model::Endpoint> {
    (0..ENDPOINTS)
        .map(|e| endpoint(&address([10, 244], n * ENDPOINTS + e)))
        .collect()
}

fn address(prefix: [u8; 2], n: u32) -> String {
    let [_, c, b, a] = (n + 1).to_be_bytes();
    format!("{}.{}.{b}.{a}", prefix[0], prefix[1].wrapping_add(c))
}

fn measure(count: u32) {
    let mut cluster = large(count);
    let settings = settings(&cluster);
    // First, while nothing is free that could be taken again.
    let before = resident();
    let mut plan = Plan::of(settings.clone(), &cluster);
    let held = resident().saturating_sub(before);
    let whole: Vec<Duration> = (0..9)
        .map(|_| {
            let settings = settings.clone();
            // What it costs to throw it away is not part of it.
            let mut made = None;
            let time = spent(|| made = Some(black_box(Plan::of(settings, &cluster))));
            drop(made);
            time
        })
        .collect();
    println!(
        "plan of {count} services x {ENDPOINTS} endpoints: {}, about {} KiB",
        quantiles(whole),
        held / 1024
    );
    let mut changes = Vec::new();
    for round in 0..2_000 {
        let n = (round * 37) % count;
        let name = format!("service-{n}");
        let mut all = endpoints(n);
        if round % 2 == 0 {
            all[0] = unready(all[0].clone());
        }
        slice(&name, "x", all).put(&mut cluster);
        let touched: BTreeSet<Key> = [key(&name)].into();
        changes.push(timed(|| drop(black_box(plan.update(&cluster, &touched)))));
    }
    println!("  one endpoint changed: {}", quantiles(changes));
    let source: IpAddr = ip("10.244.1.99");
    let questions: Vec<Duration> = (0..2_000)
        .map(|round| {
            let question = Question {
                source,
                origin: Origin::Pod,
                destination: ip(&address([10, 100], (round * 37) % count)),
                to_this_node: false,
                protocol: model::Protocol::Tcp,
                port: 80,
            };
            timed(|| drop(black_box(explain(&plan, &question))))
        })
        .collect();
    println!("  one question answered: {}", quantiles(questions));
}

/// All want the same address, each another port of it: no change may look at all of them.
fn clash(count: u16) {
    let mut cluster = cluster();
    for n in 0..count {
        let name = format!("service-{n}");
        let mut made = balanced(&name, 1, "192.0.2.1", 1 + n);
        made.created = i64::from(n);
        made.cluster_ips = vec![ip(&address([10, 100], n.into()))];
        made.ports[0].port = 1 + n;
        made.put(&mut cluster);
    }
    let settings = settings(&cluster);
    let mut plan = Plan::new(settings);
    let all: BTreeSet<Key> = cluster.services.keys().cloned().collect();
    let whole = timed(|| drop(plan.update(&cluster, &all)));
    println!(
        "plan of {count} services at one address: {:.1} ms",
        ms(whole)
    );
    let changes = (0..500)
        .map(|round| {
            let name = format!("service-{}", round * 7);
            let mut made = (*cluster.services[&key(&name)]).clone();
            made.created -= 1;
            made.put(&mut cluster);
            let touched: BTreeSet<Key> = [key(&name)].into();
            timed(|| drop(black_box(plan.update(&cluster, &touched))))
        })
        .collect();
    println!("  one service changed: {}", quantiles(changes));
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// What it took of a processor: others may be at work on this machine.
fn spent(work: impl FnOnce()) -> Duration {
    let now = || -> i64 {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
    };
    let start = now();
    work();
    Duration::from_micros((now() - start).unsigned_abs())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn quantiles(mut all: Vec<Duration>) -> String {
    all.sort();
    let at = |percent: usize| all[(all.len() - 1) * percent / 100];
    let (median, p99) = (at(50), at(99));
    if median > Duration::from_millis(1) {
        format!("least {:.1} ms, median {:.1} ms", ms(at(0)), ms(median))
    } else {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        format!("median {:.1} us, p99 {:.1} us", us(median), us(p99))
    }
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
