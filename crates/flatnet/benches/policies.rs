//! NetworkPolicies at scale, as a user has them: our API server with 10,000 pods in 500
//! namespaces and 30,000 policies, and `flatnet agent` in the namespace of a node that runs 110 of
//! the pods.
//!
//! `cargo bench -p flatnet --bench policies`, as root. What is measured is what the kernel tells
//! of its own tables: the time from the agent's start until its last rule is there, and from a
//! change of one pod's labels or of one policy, as its request leaves, until the rules follow.
//! `POLICIES_BENCH=quick` does all of it with few pods.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench's failure is a panic"
)]

mod daemon;

use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use linux::{NetNs, Nftables};
use nft::Family;
use pods::cni::{Call, Command};
use pods::wire::{Answer, Request, ask};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use daemon::{Cluster, Daemon, PATIENCE, print_changes};

const NAME: &str = "bench-policies";
const TABLE: &str = "flatnet-policy";
const PODS: usize = 20;
const POLICIES: usize = 60;
const APPS: usize = 5;
/// How many requests are under way while the API server is filled.
const AT_ONCE: usize = 16;

/// How much of everything.
struct Size {
    /// Each of [`PODS`] pods and [`POLICIES`] policies.
    namespaces: usize,
    /// The first pods of so many namespaces are on the node.
    local: usize,
    cold_rounds: usize,
    changes: usize,
}

const WHOLE: Size = Size {
    namespaces: 500,
    local: 110,
    cold_rounds: 3,
    changes: 300,
};

const QUICK: Size = Size {
    namespaces: 20,
    local: 10,
    cold_rounds: 1,
    changes: 20,
};

fn main() {
    if !testing::root("policies bench") {
        return;
    }
    let quick = std::env::var("POLICIES_BENCH").is_ok_and(|size| size == "quick");
    let size: &'static Size = if quick { &QUICK } else { &WHOLE };
    let runtime = Runtime::new().unwrap();
    let cluster = Cluster::up(NAME);
    let client = cluster.client(&runtime);
    let start = Instant::now();
    runtime.block_on(fill(&client, size));
    println!(
        "{} pods in {} namespaces and {} policies made in {:.1} s",
        size.namespaces * PODS,
        size.namespaces,
        size.namespaces * POLICIES,
        start.elapsed().as_secs_f64()
    );
    let mut agent = cluster.agent(&[(Family::Inet, TABLE)]);
    agent.spawn();
    let attached = attach(&runtime, &client, &cluster, size);
    agent.rest(Duration::from_secs(2));
    resident(&agent);

    let mut cold: Vec<Duration> = (0..size.cold_rounds)
        .map(|_| {
            agent.end();
            agent.clear();
            agent.start(|agent| subjects(agent) >= attached.len())
        })
        .collect();
    cold.sort();
    println!(
        "from start to enforced, median of {}: {:.2} s",
        size.cold_rounds,
        cold[cold.len() / 2].as_secs_f64()
    );
    resident(&agent);

    println!("one change until the kernel enforces it (target p50 9 ms, p99 50 ms):");
    let labels = |number| relabel(client.clone(), number, size);
    measure("label", &runtime, size, &mut agent, labels);
    let policies = |number| rewrite(client.clone(), number, size);
    measure("policy", &runtime, size, &mut agent, policies);
    resident(&agent);
}

fn namespace(number: usize) -> String {
    format!("team-{number:03}")
}

async fn fill(client: &Client, size: &Size) {
    let all: Api<Namespace> = Api::all(client.clone());
    each(0..size.namespaces, |number| {
        let all = all.clone();
        async move {
            let labels = json!({"team": namespace(number), "stage": format!("s{}", number % 2)});
            let object = json!({"metadata": {"name": namespace(number), "labels": labels}});
            all.create(&PostParams::default(), &of(object))
                .await
                .unwrap();
        }
    })
    .await;
    each(0..size.namespaces * PODS, |number| {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace(number / PODS));
        async move {
            let params = PostParams::default();
            pods.create(&params, &of(pod(number))).await.unwrap();
            if !is_local(number) {
                report(&pods, number, &address(number)).await;
            }
        }
    })
    .await;
    each(0..size.namespaces * POLICIES, |number| {
        let all: Api<NetworkPolicy> =
            Api::namespaced(client.clone(), &namespace(number / POLICIES));
        async move {
            let object = of(policy(number % POLICIES, 0));
            all.create(&PostParams::default(), &object).await.unwrap();
        }
    })
    .await;
}

async fn each<F: Future<Output = ()>>(
    numbers: std::ops::Range<usize>,
    make: impl FnMut(usize) -> F,
) {
    let made = stream::iter(numbers).map(make).buffer_unordered(AT_ONCE);
    made.collect::<()>().await;
}

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// The first pod of a namespace is on the node, as far as there is room.
fn is_local(pod: usize) -> bool {
    pod.is_multiple_of(PODS) && pod / PODS < WHOLE.local
}

fn pod_name(number: usize) -> String {
    let at = number % PODS;
    format!("app-{}-7d9c5b{at:02}", at % APPS)
}

fn pod(number: usize) -> Value {
    let node = if is_local(number) { "node1" } else { "node2" };
    let app = format!("app-{}", number % PODS % APPS);
    json!({"metadata": {"name": pod_name(number), "labels": {"app": app,
            "pod-template-hash": "7d9c5b", "team": namespace(number / PODS),
            "version": "v1", "role": "none"}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "nginx",
            "ports": [{"name": "http", "containerPort": 80}]}]}})
}

/// Outside of the nodes' own ranges.
fn address(number: usize) -> String {
    format!("10.100.{}.{}", number / 250, 1 + number % 250)
}

/// What a kubelet says of a pod that runs.
async fn report(pods: &Api<Pod>, number: usize, ip: &str) {
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(status));
    pods.patch_status(&pod_name(number), &params, &patch)
        .await
        .unwrap();
}

/// Twelve policies for each app of a namespace, of the kinds that people have.
fn policy(at: usize, port: u16) -> Value {
    let (app, kind) = (at % APPS, at / APPS);
    let from = format!("app-{}", (at + 1) % APPS);
    let pods = json!({"matchLabels": {"app": from}});
    let ports = json!([{"port": 8000 + u16::try_from(at).unwrap() + 100 * port}]);
    let rules = match kind {
        0 => json!({"policyTypes": ["Ingress", "Egress"]}),
        1..4 => json!({"ingress": [{"from": [{"podSelector": pods}], "ports": ports}]}),
        4..7 => json!({"egress": [{"to": [{"podSelector": pods}], "ports": ports}]}),
        7 | 8 => json!({"ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "client"}},
            "namespaceSelector": {"matchLabels": {"stage": format!("s{}", kind % 2)}}}]}]}),
        9 => json!({"ingress": [{"from": [{"ipBlock":
            {"cidr": "172.16.0.0/12", "except": ["172.20.0.0/16"]}}], "ports": ports}]}),
        10 => json!({"egress": [{"to": [{"podSelector": pods}], "ports": [{"port": "http"}]}]}),
        _ => json!({"egress": [{"to": [{"namespaceSelector": {"matchLabels":
            {"kubernetes.io/metadata.name": "kube-system"}}}],
            "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}]}),
    };
    let mut spec = rules;
    spec["podSelector"] = json!({"matchLabels": {"app": format!("app-{app}")}});
    json!({"metadata": {"name": policy_name(at)}, "spec": spec})
}

fn policy_name(at: usize) -> String {
    format!("allow-{at:02}")
}

/// The pods of the node, attached by the agent as a runtime has it done.
fn attach(runtime: &Runtime, client: &Client, cluster: &Cluster, size: &Size) -> Vec<NetNs> {
    let files = cluster.paths.node("node1");
    let config = json!({"cniVersion": "1.0.0", "name": "flatnet", "type": "flatnet-cni"});
    let config = serde_json::value::to_raw_value(&config).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let own = (0..size.namespaces * PODS).filter(|number| is_local(*number));
    own.map(|number| {
        let netns = NetNs::anonymous().unwrap();
        let name = pod_name(number);
        let namespace = namespace(number / PODS);
        let call = Call {
            command: Command::Add,
            container_id: format!("bench{number}"),
            netns: format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd()),
            ifname: "eth0".into(),
            args: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}"),
        };
        let request = Request::Cni {
            call,
            config: config.clone(),
        };
        let result = loop {
            match ask(&files.agent_socket(), &request, Duration::from_secs(10)) {
                Ok(Answer::Ok(result)) => break result,
                // It has just been started.
                other if Instant::now() > deadline => panic!("ADD: {other:?}"),
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let address = result["ips"][0]["address"].as_str().unwrap();
        let ip = address.split('/').next().unwrap();
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        runtime.block_on(report(&pods, number, ip));
        netns
    })
    .collect()
}

/// How many addresses have rules for what comes in.
fn subjects(agent: &Daemon) -> usize {
    let mut nftables = Nftables::open_in(&agent.netns).unwrap();
    let table = nftables.read(Family::Inet, TABLE).unwrap();
    let sets = table.into_iter().flat_map(|table| table.sets);
    let ingress = sets.filter(|(name, _)| matches!(&**name, "ingress4" | "ingress6"));
    ingress.map(|(_, set)| set.elements.len()).sum()
}

/// A pod becomes a client that policies of other namespaces let in, or no longer is one.
async fn relabel(client: Client, number: usize, size: &Size) {
    let pod = (number / 2 * 7919) % (size.namespaces * PODS);
    let role = if number.is_multiple_of(2) {
        "client"
    } else {
        "none"
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace(pod / PODS));
    let patch = Patch::Merge(json!({"metadata": {"labels": {"role": role}}}));
    pods.patch(&pod_name(pod), &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// A policy about a pod of the node gets another port.
async fn rewrite(client: Client, number: usize, size: &Size) {
    let namespace = namespace(number * 31 % size.local);
    // Of the first app, with one peer and one port.
    let at = APPS * (1 + number % 6);
    let round = u16::try_from(1 + number % 300).unwrap();
    let all: Api<NetworkPolicy> = Api::namespaced(client.clone(), &namespace);
    let spec = policy(at, round)["spec"].clone();
    let patch = Patch::Merge(json!({"spec": spec}));
    all.patch(&policy_name(at), &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Changes one after the other; the time of each until the kernel tells of it.
fn measure<F: Future<Output = ()> + Send + 'static>(
    what: &str,
    runtime: &Runtime,
    size: &Size,
    agent: &mut Daemon,
    change: impl Fn(usize) -> F,
) {
    let (mut of_sent, mut of_answered) = (Vec::new(), Vec::new());
    agent.rest(Duration::from_millis(200));
    for number in 0..size.changes {
        let change = change(number);
        let sent = Instant::now();
        let request = runtime.spawn(async move {
            change.await;
            Instant::now()
        });
        while !agent.hears(Duration::from_secs(1), |_| true) {
            assert!(sent.elapsed() < PATIENCE, "{what} {number} changes nothing");
        }
        let seen = Instant::now();
        let answered = runtime.block_on(request).unwrap();
        of_sent.push(seen - sent);
        of_answered.push(seen.saturating_duration_since(answered));
        // The next change does not come right behind.
        agent.rest(Duration::from_millis(20));
    }
    print_changes(what, &mut of_sent, &mut of_answered);
}

fn resident(agent: &Daemon) {
    let (now, most) = agent.resident();
    println!("resident: {now:.0} MB, at most {most:.0} MB (target 150 MB)");
}
