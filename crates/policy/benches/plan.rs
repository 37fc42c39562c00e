//! The policies of a large cluster: all of them, and one change.
//!
//! `cargo bench -p policy --bench plan`; the part with a kernel needs root. Times are those that
//! passed, and those that a processor worked: others may be at work on this machine.

#![expect(clippy::unwrap_used, reason = "a bench's failure is a panic")]

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::{Host, NetNs, run_in};
use model::policy::{Namespaces, Peer, PortMatch, PortNumbers, Rule};
use model::{
    Change, Changed, Cluster, Key, LabelSelector, Labels, Namespace, NetworkPolicy, Pod, Protocol,
};
use policy::plan::Plan;
use policy::{Local, Locals, Policies};

const NAMESPACES: u32 = 500;
const PODS: u32 = 20;
const POLICIES: u32 = 60;
const APPS: u32 = 10;
const HERE: &str = "node1";
const CHANGES: u32 = 400;

fn main() {
    let cluster = cluster();
    println!(
        "{} pods in {NAMESPACES} namespaces, {} policies",
        cluster.pods.len(),
        cluster.policies.len()
    );
    // As many as a node commonly has, then all; or so many as are asked for.
    let asked = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let shares = asked.map_or_else(|| vec![90, 1], |every: usize| vec![every]);
    for every in shares {
        let locals = locals(&cluster, every);
        pure(&cluster, &locals);
        if testing::root("the kernel's part of the bench") {
            let netns = NetNs::anonymous().unwrap();
            run_in(&netns, || in_kernel(&cluster, &locals)).unwrap();
        }
    }
}

fn labels(app: u32, version: u32) -> Labels {
    let (app, version) = (format!("a{app}"), format!("v{version}"));
    Labels::from([("app", app.as_str()), ("version", version.as_str())])
}

fn of_app(app: u32) -> LabelSelector {
    LabelSelector {
        match_labels: Labels::from([("app", format!("a{}", app % APPS).as_str())]),
        ..LabelSelector::default()
    }
}

fn of_name(namespace: u32) -> LabelSelector {
    let name = format!("ns{}", namespace % NAMESPACES);
    LabelSelector {
        match_labels: Labels::from([("kubernetes.io/metadata.name", name.as_str())]),
        ..LabelSelector::default()
    }
}

fn namespace(n: u32, team: u32) -> Change {
    let name = format!("ns{n}");
    let team = format!("t{team}");
    let labels = Labels::from([
        ("kubernetes.io/metadata.name", name.as_str()),
        ("team", team.as_str()),
    ]);
    Change::Namespace(Arc::new(Namespace { name, labels }))
}

fn pod(n: u32, at: u32, app: u32, version: u32) -> Change {
    let number = n * PODS + at;
    let [_, _, b, a] = (number + 1).to_be_bytes();
    Change::Pod(Arc::new(Pod {
        namespace: format!("ns{n}"),
        name: format!("deployment-7d9c6b5f-{at:05}"),
        uid: format!("00000000-0000-0000-0000-{number:012}"),
        node: HERE.to_owned(),
        ips: vec![
            IpAddr::from([10, 244, b, a]),
            IpAddr::from([0xfd00, 0x10, 0x244, 0, 0, 0, 0, number as u16 + 1]),
        ],
        host_network: false,
        labels: labels(app, version),
        ports: Vec::new(),
        created: i64::from(number),
        leaving: false,
    }))
}

fn peer(n: u32, i: u32) -> Peer {
    let pods = |namespaces, pods| Peer::Pods { namespaces, pods };
    match i % 6 {
        0 => pods(Namespaces::Selected(of_name(n + i)), of_app(i / 6)),
        1 => {
            let team = LabelSelector {
                match_labels: Labels::from([("team", format!("t{}", i / 6).as_str())]),
                ..LabelSelector::default()
            };
            pods(Namespaces::Selected(team), of_app(i))
        }
        2 => Peer::Block {
            net: format!("10.{}.0.0/16", i % 100).parse().unwrap(),
            except: vec![format!("10.{}.{}.0/24", i % 100, i).parse().unwrap()],
        },
        _ => pods(Namespaces::Own, of_app(i / APPS)),
    }
}

fn policy(n: u32, i: u32, port: u16) -> Change {
    let rule = |more| Rule {
        peers: Some(vec![peer(n, i + more)]),
        ports: Some(vec![PortMatch {
            protocol: Some(Protocol::Tcp),
            port: PortNumbers::Range(port, port),
        }]),
    };
    Change::Policy(Arc::new(NetworkPolicy {
        namespace: format!("ns{n}"),
        name: format!("policy-{i}"),
        uid: String::new(),
        pods: of_app(i),
        ingress: Some(vec![rule(0), rule(1)]),
        egress: i.is_multiple_of(3).then(|| vec![rule(2)]),
    }))
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for n in 0..NAMESPACES {
        cluster.take(namespace(n, n % 10));
        for at in 0..PODS {
            cluster.take(pod(n, at, at % APPS, 1));
        }
        for i in 0..POLICIES {
            cluster.take(policy(n, i, 8000 + i as u16));
        }
    }
    cluster
}

/// Every so many of all pods are here.
fn locals(cluster: &Cluster, every: usize) -> Locals {
    let pods = cluster.pods.values().step_by(every);
    let locals = pods.map(|pod| {
        let local = Local {
            pod: (pod.namespace.clone(), pod.name.clone()),
            uid: pod.uid.clone(),
            ips: pod.ips.clone(),
        };
        ((pod.uid.clone(), "eth0".to_owned()), local)
    });
    locals.collect()
}

/// The changes that are measured, by their name: all are about pods here or their peers.
fn changes(locals: &Locals) -> Vec<(&'static str, Vec<Change>)> {
    let here: Vec<(u32, u32)> = locals.values().map(|local| place(&local.pod)).collect();
    let all = || {
        let rounds = 0..CHANGES;
        rounds.map(|round| (round, here[(round as usize * 37) % here.len()]))
    };
    let relabelled = all().map(|(round, (n, at))| {
        let (other, version) = ((at + 1) % PODS, 2 + round);
        pod(n, other, (round + 3) % APPS, version)
    });
    // One that selects the pod that is here.
    let rewritten = all().map(|(round, (n, at))| {
        let one = at % APPS + APPS * (round % (POLICIES / APPS));
        policy(n, one, 9000 + round as u16)
    });
    let moved = all().map(|(round, (n, _))| namespace(n, (round + n) % 11));
    vec![
        ("one pod's labels", relabelled.collect()),
        ("one policy", rewritten.collect()),
        ("one namespace's labels", moved.collect()),
    ]
}

/// Number of a pod's namespace, and its own.
fn place((namespace, name): &Key) -> (u32, u32) {
    let number = name.rsplit('-').next().unwrap();
    (namespace[2..].parse().unwrap(), number.parse().unwrap())
}

fn pure(cluster: &Cluster, locals: &Locals) {
    let mut cluster = cluster.clone();
    let before = resident();
    let begun = Instant::now();
    let mut plan = Plan::of(HERE, &cluster, locals);
    let took = begun.elapsed();
    println!(
        "{} pods here: plan {:.1} ms, about {} KiB: {} lists, {} sets, {} elements",
        locals.len(),
        ms(took),
        resident().saturating_sub(before) / 1024,
        plan.lists().len(),
        plan.sets().len(),
        plan.elements(),
    );
    for (name, changes) in changes(locals) {
        let mut times = Times::default();
        for change in changes {
            let mut changed = Changed::default();
            cluster.note(change, &mut changed);
            times.add(|| drop(plan.update(&cluster, &changed, locals)));
        }
        println!("  {name}: {}", times);
    }
}

fn in_kernel(cluster: &Cluster, locals: &Locals) {
    let mut cluster = cluster.clone();
    let mut host = Host::open().unwrap();
    let mut policies = Policies::new(HERE);
    let begun = Instant::now();
    let report = policies.reconcile(&mut host, &cluster, &Changed::default(), locals);
    assert_eq!(report.errors, vec![]);
    println!(
        "  in the kernel: {:.1} ms for {} changes, process {} MiB, at most {} MiB",
        ms(begun.elapsed()),
        report.changes,
        resident() >> 20,
        most_resident() >> 20,
    );
    for (name, changes) in changes(locals) {
        let mut times = Times::default();
        let mut made = 0;
        for change in changes {
            let mut changed = Changed::default();
            cluster.note(change, &mut changed);
            let mut done = None;
            times.add(|| done = Some(policies.reconcile(&mut host, &cluster, &changed, locals)));
            let report = done.unwrap();
            assert_eq!(report.errors, vec![]);
            made += report.changes;
        }
        let each = made as f64 / f64::from(CHANGES);
        println!("  {name}, in the kernel ({each:.1} changes): {}", times);
    }
    let begun = Instant::now();
    let report = Policies::new(HERE).reconcile(&mut host, &cluster, &Changed::default(), locals);
    assert_eq!((report.errors, report.changes), (vec![], 0));
    println!("  adopted by a new start: {:.1} ms", ms(begun.elapsed()));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// How long each of some changes took.
#[derive(Default)]
struct Times {
    passed: Vec<Duration>,
    worked: Vec<Duration>,
}

impl Times {
    fn add(&mut self, work: impl FnOnce()) {
        let (begun, worked) = (Instant::now(), processor());
        work();
        self.passed.push(begun.elapsed());
        self.worked.push(processor() - worked);
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |times: &[Duration], percent: usize| {
            let mut times = times.to_vec();
            times.sort();
            ms(times[(times.len() - 1) * percent / 100])
        };
        let (median, p99) = (at(&self.passed, 50), at(&self.passed, 99));
        let worked = at(&self.worked, 99);
        write!(
            f,
            "p50 {median:.3} ms, p99 {p99:.3} ms (worked: p99 {worked:.3} ms)"
        )
    }
}

/// What this thread has had of a processor, which is counted by ticks.
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn most_resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}
