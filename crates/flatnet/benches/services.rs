//! Services at scale, as a user has them: our API server filled with 10,000 Services of five
//! endpoints, `flatnet agent` in one node's namespace and kube-proxy in another one's, in turns.
//!
//! `KUBE_PROXY=/path/to/kube-proxy cargo bench -p flatnet --bench services`, as root. What is
//! measured is what the kernel tells of its own tables: the time from a process's start until its
//! last rule is there, and from an endpoint's change, as its request leaves, until the new
//! endpoint is. `SERVICES_BENCH=quick` does all of it with few Services.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench's failure is a panic"
)]

mod daemon;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use linux::Nftables;
use nft::Family;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use daemon::{Cluster, Daemon, PATIENCE, QUIET, print_changes};

const NAME: &str = "bench-services";
const ENDPOINTS: usize = 5;
/// How many requests are under way while the API server is filled.
const AT_ONCE: usize = 16;

/// How much of everything.
struct Size {
    services: usize,
    /// The larger figure, ours alone; one endpoint for each that comes.
    more: usize,
    cold_rounds: usize,
    /// Rounds of changes, and changes of each.
    rounds: usize,
    changes: usize,
}

const WHOLE: Size = Size {
    services: 10_000,
    more: 44_000,
    cold_rounds: 3,
    rounds: 3,
    changes: 150,
};

const QUICK: Size = Size {
    services: 500,
    more: 1_000,
    cold_rounds: 1,
    rounds: 2,
    changes: 20,
};

fn main() {
    if !testing::root("services bench") {
        return;
    }
    let quick = std::env::var("SERVICES_BENCH").is_ok_and(|size| size == "quick");
    let size = if quick { QUICK } else { WHOLE };
    let peer = std::env::var_os("KUBE_PROXY").map(PathBuf::from);
    if peer.is_none() {
        testing::skip("kube-proxy beside us", "KUBE_PROXY names no kube-proxy");
    }
    let runtime = Runtime::new().unwrap();
    let cluster = Cluster::up(NAME);
    let client = cluster.client(&runtime);
    let start = Instant::now();
    runtime.block_on(fill(&client, 0..size.services, ENDPOINTS));
    let took = start.elapsed().as_secs_f64();
    println!(
        "{} Services x {ENDPOINTS} endpoints made in {took:.1} s",
        size.services
    );

    let mut agent = cluster.agent(&[(Family::Inet, "flatnet")]);
    let mut peer = peer.map(|program| kube_proxy(&cluster, &program));
    cold(&size, &mut agent, peer.as_mut());
    resident(&agent, peer.as_ref());
    changes(&runtime, &client, &size, &mut agent, peer.as_mut());
    resident(&agent, peer.as_ref());
    if let Some(peer) = &mut peer {
        peer.end();
    }
    agent.end();

    let start = Instant::now();
    runtime.block_on(fill(&client, size.services..size.more, 1));
    let took = start.elapsed().as_secs_f64();
    println!("{} Services in all, made in {took:.1} s", size.more);
    agent.clear();
    let all = size.services * ENDPOINTS + size.more - size.services;
    let took = agent.start(|daemon| has(daemon, (size.more, all)));
    println!(
        "  from start to programmed: flatnet {:.2} s",
        took.as_secs_f64()
    );
    let (mut of_sent, mut of_answered) = (Vec::new(), Vec::new());
    for change in 0..size.changes {
        let took = change_one(&runtime, &client, &size, change + 100_000, &mut agent);
        of_sent.push(took.0);
        of_answered.push(took.1);
    }
    print_changes("flatnet", &mut of_sent, &mut of_answered);
    resident(&agent, None);
}

async fn fill(client: &Client, numbers: std::ops::Range<usize>, endpoints: usize) {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    stream::iter(numbers)
        .map(|number| {
            let (services, slices) = (services.clone(), slices.clone());
            async move {
                let params = PostParams::default();
                services
                    .create(&params, &of(service(number)))
                    .await
                    .unwrap();
                let slice = slice(number, endpoints);
                slices.create(&params, &of(slice)).await.unwrap();
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
}

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn name(number: usize) -> String {
    format!("service-{number:05}")
}

fn service(number: usize) -> Value {
    json!({"metadata": {"name": name(number)},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}})
}

fn slice(number: usize, endpoints: usize) -> Value {
    let endpoints = (0..endpoints).map(|at| address(number * ENDPOINTS + at));
    json!({"metadata": {"name": name(number),
            "labels": {"kubernetes.io/service-name": name(number)}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints.map(|ip| endpoint(&ip)).collect::<Vec<Value>>()})
}

fn endpoint(ip: &str) -> Value {
    json!({"addresses": [ip], "conditions": {"ready": true}})
}

/// Beyond the pods' range there are enough of them.
fn address(number: usize) -> String {
    format!(
        "10.{}.{}.{}",
        160 + number / 60_000,
        number % 60_000 / 250,
        1 + number % 250
    )
}

fn kube_proxy(cluster: &Cluster, program: &Path) -> Daemon {
    let mut command = Command::new(program);
    command
        .args(["--proxy-mode=nftables", "--hostname-override=node2"])
        .args(["--cluster-cidr=10.244.0.0/16", "--conntrack-min=0"])
        .args(["--conntrack-max-per-core=0"])
        .args(["--conntrack-tcp-timeout-established=0s"])
        .args(["--conntrack-tcp-timeout-close-wait=0s"])
        .arg("--kubeconfig")
        .arg(kubeconfig_inside(cluster));
    let tables: &[(Family, &str)] = &[(Family::Ip, "kube-proxy"), (Family::Ip6, "kube-proxy")];
    Daemon::new(cluster, "kube-proxy", "node2", tables, command)
}

/// The administrator's kubeconfig for a process inside a node.
fn kubeconfig_inside(cluster: &Cluster) -> PathBuf {
    let text = std::fs::read_to_string(cluster.paths.kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&text).unwrap();
    kubeconfig["clusters"][0]["cluster"]["server"] = json!("https://10.0.1.1:6443");
    let path = cluster.paths.state.join("inside.kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    path
}

fn signal(daemon: &Daemon, signal: Signal) {
    kill(Pid::from_raw(daemon.pid() as i32), signal).unwrap();
}

/// Whether its tables have so many Services and endpoints.
fn has(daemon: &Daemon, (services, endpoints): (usize, usize)) -> bool {
    let mut nftables = Nftables::open_in(&daemon.netns).unwrap();
    let (family, name) = daemon.tables[0];
    let Some(table) = nftables.read(family, name).unwrap() else {
        return false;
    };
    if daemon.name == "flatnet" {
        let sets = table.sets.iter();
        let sets = sets.filter(|(name, _)| name.contains("-endpoints"));
        return sets.map(|(_, set)| set.elements.len()).sum::<usize>() >= endpoints;
    }
    // One chain each; the endpoints are in its rule.
    let chains = table.chains.keys();
    let chains = chains.filter(|name| name.starts_with("service-") && name.contains('/'));
    chains.count() >= services
}

/// From start to programmed, in turns; both run in the end.
fn cold(size: &Size, agent: &mut Daemon, mut peer: Option<&mut Daemon>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let there = (size.services, size.services * ENDPOINTS);
    for _ in 0..size.cold_rounds {
        agent.end();
        agent.clear();
        ours.push(agent.start(|daemon| has(daemon, there)));
        if let Some(peer) = &mut peer {
            peer.end();
            peer.clear();
            theirs.push(peer.start(|daemon| has(daemon, there)));
            // The next round of ours has the machine to itself.
            signal(peer, Signal::SIGSTOP);
        }
    }
    let ours = median(&mut ours).as_secs_f64();
    println!(
        "from start to programmed, median of {}: flatnet {ours:.2} s (target 1 s)",
        size.cold_rounds
    );
    if let Some(peer) = peer {
        let theirs = median(&mut theirs).as_secs_f64();
        println!("  kube-proxy {theirs:.2} s, ratio {:.1}", theirs / ours);
        signal(peer, Signal::SIGCONT);
    }
}

/// One endpoint changed until the kernel has it, in turns.
fn changes(
    runtime: &Runtime,
    client: &Client,
    size: &Size,
    agent: &mut Daemon,
    mut peer: Option<&mut Daemon>,
) {
    let (mut of_sent, mut of_answered) = (Vec::new(), Vec::new());
    let (mut peer_sent, mut peer_answered) = (Vec::new(), Vec::new());
    let mut number = 0;
    for _ in 0..size.rounds {
        if let Some(peer) = &mut peer {
            peer.rest(QUIET);
            number += 1;
            let took = change_one(runtime, client, size, number, peer);
            peer_sent.push(took.0);
            peer_answered.push(took.1);
            peer.rest(QUIET);
            signal(peer, Signal::SIGSTOP);
        }
        agent.rest(Duration::from_millis(200));
        for _ in 0..size.changes {
            number += 1;
            let took = change_one(runtime, client, size, number, agent);
            of_sent.push(took.0);
            of_answered.push(took.1);
        }
        if let Some(peer) = &peer {
            signal(peer, Signal::SIGCONT);
        }
    }
    println!("one endpoint changed until the kernel has it (target p50 2 ms, p99 10 ms):");
    print_changes("flatnet", &mut of_sent, &mut of_answered);
    if peer.is_some() {
        print_changes("kube-proxy", &mut peer_sent, &mut peer_answered);
        let ratio = median(&mut peer_sent).as_secs_f64() / median(&mut of_sent).as_secs_f64();
        println!("  ratio of the medians {ratio:.0}");
    }
}

/// The first endpoint of some Service becomes another one: the time until the kernel tells of it,
/// from when the request left and from when it was answered.
fn change_one(
    runtime: &Runtime,
    client: &Client,
    size: &Size,
    number: usize,
    proxy: &mut Daemon,
) -> (Duration, Duration) {
    let chosen = number * 7919 % size.services;
    let mut slice = slice(chosen, ENDPOINTS);
    let new = format!("10.200.{}.{}", number / 250 % 250, 1 + number % 250);
    slice["endpoints"][0] = endpoint(&new);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let patch = json!({"endpoints": slice["endpoints"]});
    let sent = Instant::now();
    let request = runtime.spawn(async move {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        slices.patch(&name(chosen), &params, &patch).await.unwrap();
        Instant::now()
    });
    // Ours writes elements, kube-proxy the Service's chain.
    let ours = proxy.name == "flatnet";
    let chain = format!("/{}/", name(chosen));
    let is = |name: Option<&str>| {
        name.is_some_and(|name| (ours && name.contains("-endpoints")) || name.contains(&chain))
    };
    while !proxy.hears(Duration::from_secs(1), is) {
        assert!(sent.elapsed() < PATIENCE, "{} has no {new}", proxy.name);
    }
    let seen = Instant::now();
    let answered = runtime.block_on(request).unwrap();
    // The next change does not come right behind.
    proxy.rest(Duration::from_millis(20));
    (seen - sent, seen.saturating_duration_since(answered))
}

fn resident(agent: &Daemon, peer: Option<&Daemon>) {
    let (now, most) = agent.resident();
    println!("resident: flatnet {now:.0} MB, at most {most:.0} MB (target 80 MB)");
    if let Some(peer) = peer {
        let (now, most) = peer.resident();
        println!("  kube-proxy {now:.0} MB, at most {most:.0} MB");
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
