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

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use lab::paths::ClusterPaths;
use linux::{Event, Monitor, NetNs, Nftables, run_in};
use nft::{Family, Op, Transaction};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const FLATNET: &str = env!("CARGO_BIN_EXE_flatnet");
const NAME: &str = "bench-services";
const ENDPOINTS: usize = 5;
/// How many requests are under way while the API server is filled.
const AT_ONCE: usize = 16;
/// A process that has written nothing for so long is done.
const QUIET: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(600);

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
    let cluster = Cluster::up();
    let client = cluster.client(&runtime);
    let start = Instant::now();
    runtime.block_on(fill(&client, 0..size.services, ENDPOINTS));
    let took = start.elapsed().as_secs_f64();
    println!(
        "{} Services x {ENDPOINTS} endpoints made in {took:.1} s",
        size.services
    );

    let mut agent = Proxy::agent(&cluster);
    let mut peer = peer.map(|program| Proxy::kube_proxy(&cluster, &program));
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
    let took = agent.start((
        size.more,
        size.services * ENDPOINTS + size.more - size.services,
    ));
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

/// A cluster of two nodes whose own daemons are ended; it goes away with its owner.
struct Cluster {
    paths: ClusterPaths,
}

impl Cluster {
    fn up() -> Self {
        let cluster = Self {
            paths: ClusterPaths::new(NAME),
        };
        let up = Command::new(FLATNET)
            .args(["--name", NAME, "up", "--nodes", "2"])
            .stdin(Stdio::null())
            .output()
            .expect("flatnet starts");
        let words = String::from_utf8_lossy(&up.stderr);
        assert!(up.status.success(), "{words}");
        let cgroup = lab::cluster::cgroup::mount().unwrap();
        let nodes = ["node1", "node2"].map(|node| cluster.paths.node_cgroup(node));
        for folder in nodes
            .into_iter()
            .chain([cluster.paths.cgroup().join("controllers")])
        {
            end_all(&cgroup.join(folder));
        }
        cluster
    }

    fn client(&self, runtime: &Runtime) -> Client {
        let kubeconfig = self.paths.kubeconfig();
        let client = async { api::client(Some(&kubeconfig), "bench").await };
        runtime.block_on(client).expect("the kubeconfig works")
    }

    fn netns(&self, node: &str) -> NetNs {
        NetNs::named(&self.paths.netns(node)).expect("the node's namespace")
    }

    /// The administrator's kubeconfig for a process inside a node.
    fn kubeconfig_inside(&self) -> PathBuf {
        let text = std::fs::read_to_string(self.paths.kubeconfig()).unwrap();
        let mut kubeconfig: Value = serde_json::from_str(&text).unwrap();
        kubeconfig["clusters"][0]["cluster"]["server"] = json!("https://10.0.1.1:6443");
        let path = self.paths.state.join("inside.kubeconfig");
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        path
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new(FLATNET)
            .args(["--name", NAME, "down"])
            .stdout(Stdio::null())
            .status();
    }
}

/// Ends the processes of a control group and of those below it.
fn end_all(folder: &Path) {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in text.lines().filter_map(|line| line.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            end_all(&entry.path());
        }
    }
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

/// A program that brings Services into the kernel of a node's namespace.
struct Proxy {
    name: &'static str,
    netns: NetNs,
    monitor: Monitor,
    tables: &'static [(Family, &'static str)],
    command: Command,
    child: Option<Child>,
}

impl Proxy {
    fn agent(cluster: &Cluster) -> Self {
        let files = cluster.paths.node("node1");
        let mut command = Command::new(FLATNET);
        command
            .args(["agent", "--node", "node1", "--kubeconfig"])
            .arg(files.agent_kubeconfig())
            .arg("--socket")
            .arg(files.agent_socket())
            .arg("--state")
            .arg(files.agent_state())
            .arg("--cni-conf")
            .arg(files.cni_conf());
        let tables: &[(Family, &str)] = &[(Family::Inet, "flatnet")];
        Self::new("flatnet", cluster.netns("node1"), tables, command)
    }

    fn kube_proxy(cluster: &Cluster, program: &Path) -> Self {
        let mut command = Command::new(program);
        command
            .args(["--proxy-mode=nftables", "--hostname-override=node2"])
            .args(["--cluster-cidr=10.244.0.0/16", "--conntrack-min=0"])
            .args(["--conntrack-max-per-core=0"])
            .args(["--conntrack-tcp-timeout-established=0s"])
            .args(["--conntrack-tcp-timeout-close-wait=0s"])
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig_inside());
        let tables: &[(Family, &str)] = &[(Family::Ip, "kube-proxy"), (Family::Ip6, "kube-proxy")];
        Self::new("kube-proxy", cluster.netns("node2"), tables, command)
    }

    fn new(
        name: &'static str,
        netns: NetNs,
        tables: &'static [(Family, &'static str)],
        mut command: Command,
    ) -> Self {
        let log = std::env::temp_dir().join(format!("{NAME}-{name}.log"));
        let log = std::fs::File::create(log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self {
            name,
            monitor: Monitor::open_in(&netns).unwrap(),
            netns,
            tables,
            command,
            child: None,
        }
    }

    /// Takes away what an earlier one left.
    fn clear(&mut self) {
        let mut nftables = Nftables::open_in(&self.netns).unwrap();
        for (family, table) in self.tables {
            let delete = Transaction {
                family: *family,
                table: (*table).into(),
                ops: vec![Op::DeleteTable],
            };
            if let Err(error) = nftables.apply(&delete) {
                assert!(error.is_not_found(), "{error}");
            }
        }
        self.rest(Duration::from_millis(200));
    }

    /// Starts it; the time until it has written its last rule, with so many Services and endpoints
    /// there.
    fn start(&mut self, there: (usize, usize)) -> Duration {
        let start = Instant::now();
        let (netns, command) = (&self.netns, &mut self.command);
        let child = run_in(netns, || command.spawn()).unwrap();
        self.child = Some(child.unwrap_or_else(|error| panic!("start {}: {error}", self.name)));
        let mut last = None;
        loop {
            assert!(start.elapsed() < PATIENCE, "{} is never done", self.name);
            assert!(self.is_alive(), "{} ended, see its log", self.name);
            if self.hears(QUIET / 4, |_| true) {
                last = Some(Instant::now());
            } else if let Some(last) = last.filter(|last| last.elapsed() > QUIET) {
                // Not only between two writes.
                if self.has(there) {
                    return last - start;
                }
            }
        }
    }

    /// Whether its tables have so many Services and endpoints.
    fn has(&self, (services, endpoints): (usize, usize)) -> bool {
        let mut nftables = Nftables::open_in(&self.netns).unwrap();
        let (family, name) = self.tables[0];
        let Some(table) = nftables.read(family, name).unwrap() else {
            return false;
        };
        if self.name == "flatnet" {
            let sets = table.sets.iter();
            let sets = sets.filter(|(name, _)| name.contains("-endpoints"));
            return sets.map(|(_, set)| set.elements.len()).sum::<usize>() >= endpoints;
        }
        // One chain each; the endpoints are in its rule.
        let chains = table.chains.keys();
        let chains = chains.filter(|name| name.starts_with("service-") && name.contains('/'));
        chains.count() >= services
    }

    fn is_alive(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Waits for rules of its own whose chain or set is one of these.
    fn hears(&mut self, patience: Duration, is: impl Fn(Option<&str>) -> bool) -> bool {
        let events = self.monitor.wait(patience).unwrap();
        events.iter().any(|event| match event {
            Event::Nftables { table, name } => {
                self.tables.iter().any(|(_, own)| own == table) && is(name.as_deref())
            }
            Event::Lost => true,
            _ => false,
        })
    }

    /// Waits until nothing has been written for a while.
    fn rest(&mut self, quiet: Duration) {
        let start = Instant::now();
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            assert!(start.elapsed() < PATIENCE, "{} never rests", self.name);
            if self.hears(quiet, |_| true) {
                last = Instant::now();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        }
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Resident now and at most, in MB.
    fn resident(&self) -> (f64, f64) {
        let pid = self.child.as_ref().map_or(0, Child::id);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
            kib.unwrap_or_default() / 1024.0
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

/// From start to programmed, in turns; both run in the end.
fn cold(size: &Size, agent: &mut Proxy, mut peer: Option<&mut Proxy>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..size.cold_rounds {
        agent.end();
        agent.clear();
        ours.push(agent.start((size.services, size.services * ENDPOINTS)));
        if let Some(peer) = &mut peer {
            peer.end();
            peer.clear();
            theirs.push(peer.start((size.services, size.services * ENDPOINTS)));
            // The next round of ours has the machine to itself.
            peer.signal(Signal::SIGSTOP);
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
        peer.signal(Signal::SIGCONT);
    }
}

/// One endpoint changed until the kernel has it, in turns.
fn changes(
    runtime: &Runtime,
    client: &Client,
    size: &Size,
    agent: &mut Proxy,
    mut peer: Option<&mut Proxy>,
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
            peer.signal(Signal::SIGSTOP);
        }
        agent.rest(Duration::from_millis(200));
        for _ in 0..size.changes {
            number += 1;
            let took = change_one(runtime, client, size, number, agent);
            of_sent.push(took.0);
            of_answered.push(took.1);
        }
        if let Some(peer) = &peer {
            peer.signal(Signal::SIGCONT);
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
    proxy: &mut Proxy,
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

fn print_changes(name: &str, sent: &mut [Duration], answered: &mut [Duration]) {
    sent.sort();
    answered.sort();
    let ms = |times: &[Duration], hundredth: usize| {
        let at = (times.len() * hundredth / 100).min(times.len().saturating_sub(1));
        times.get(at).map_or(0.0, Duration::as_secs_f64) * 1e3
    };
    println!(
        "  {name:10} from its request: p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms; \
         from its answer: p50 {:.2} ms, p99 {:.2} ms ({} changes)",
        ms(sent, 50),
        ms(sent, 99),
        ms(sent, 100),
        ms(answered, 50),
        ms(answered, 99),
        sent.len()
    );
}

fn resident(agent: &Proxy, peer: Option<&Proxy>) {
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
