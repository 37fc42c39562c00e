//! The process that drives a node's policies is killed at random points of a long sequence of
//! changes and started again, under traffic: nothing is ever open that should not be, nothing that
//! should be is closed, and in the end there is exactly what a new agent would have made at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use linux::{Host, Kernel, run_in};
use model::{Change, Changed, Cluster, Labels, Protocol};
use nft::Family;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrStorage, connect};
use policy::render::nftables::TABLE;
use policy::{Locals, Policies, explain};
use serde_json::{Value as Json, json};
use testing::{Driven, say_done};

use crate::lab::{self, Lab};
use crate::probe::{self, LONG, Outcome, Place, Probe};
use crate::random::Random;
use crate::{fake, left, objects, oracle};

/// `SEED STEPS` of the process that is killed.
const DRIVEN: &str = "FLATNET_TEST_DRIVEN";
/// How many changes.
const CHANGES: &str = "FLATNET_TEST_CHANGES";

/// Objects by what they are.
type World = BTreeMap<String, Object>;

#[derive(Clone, PartialEq)]
enum Object {
    Policy(Arc<Json>),
    Labels(Labels),
}

/// The worlds of a sequence of changes, each a step from the one before.
fn history(seed: u64, steps: usize) -> Vec<World> {
    let mut random = Random(seed);
    let mut world = World::new();
    let mut worlds = vec![world.clone()];
    for _ in 0..steps {
        match random.below(4) {
            0 => {
                let pods: Vec<_> = lab::keys().collect();
                let (namespace, name) = &pods[random.below(pods.len())];
                let tier = ["front", "back", "none"][random.below(3)];
                let labels = Labels::from([("pod", name.as_str()), ("tier", tier)]);
                world.insert(format!("pod {namespace}/{name}"), Object::Labels(labels));
            }
            _ => {
                let namespace = lab::NAMESPACES[random.below(3)];
                let name = format!("p{}", random.below(3));
                let key = format!("policy {namespace}/{name}");
                if random.chance(3) {
                    world.remove(&key);
                } else {
                    let object = objects::policy(namespace, &name, &spec(&mut random));
                    world.insert(key, Object::Policy(Arc::new(object)));
                }
            }
        }
        worlds.push(world.clone());
    }
    worlds
}

fn spec(random: &mut Random) -> Json {
    let pods = |random: &mut Random| match random.below(4) {
        0 => json!({}),
        1 => json!({"matchLabels": {"pod": (lab::PODS[random.below(3)])}}),
        _ => json!({"matchLabels": {"tier": (["front", "back"][random.below(2)])}}),
    };
    let mut spec = json!({"podSelector": pods(random)});
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        if random.chance(2) {
            continue;
        }
        let rules = (0..random.below(3)).map(|_| {
            let mut rule = json!({});
            rule[peers] = match random.below(5) {
                0 => json!([{"namespaceSelector": {}, "podSelector": pods(random)}]),
                1 => json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}}, {"podSelector": pods(random)}]),
                2 if random.chance(4) => many_blocks(),
                _ => json!([{"podSelector": pods(random)}]),
            };
            if random.chance(2) {
                rule["ports"] = json!([{"port": 80}, {"protocol": "UDP", "port": 81}]);
            }
            rule
        });
        spec[direction] = rules.collect();
    }
    spec
}

/// More than the kernel takes in one message: the set is filled in several transactions.
fn many_blocks() -> Json {
    let ours = json!({"ipBlock": {"cidr": "10.244.2.0/24"}});
    let others = (0..5000).map(|number| {
        let cidr = format!("198.18.{}.{}/32", number / 100, 2 * (number % 100));
        json!({"ipBlock": {"cidr": cidr}})
    });
    std::iter::once(ours).chain(others).collect()
}

/// What leads from one world to the next.
fn changes(old: &World, new: &World) -> Vec<Change> {
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    let gone = gone.filter_map(|(_, object)| match object {
        Object::Policy(object) => Some(objects::gone(object)),
        Object::Labels(_) => None,
    });
    let there = new
        .iter()
        .filter(|(key, object)| old.get(*key) != Some(object));
    let there = there.map(|(key, object)| match object {
        Object::Policy(object) => objects::read(object).0,
        Object::Labels(labels) => {
            let name = key.trim_start_matches("pod ");
            let number = lab::keys().position(|key| key == lab::key(name));
            let mut pod = lab::pod(number.unwrap(), &lab::key(name));
            pod.labels = labels.clone();
            Change::Pod(Arc::new(pod))
        }
    });
    gone.chain(there).collect()
}

/// The cluster that all begins with, and the first node's pods.
fn beginning() -> (Cluster, Locals) {
    let cluster = lab::beginning();
    let locals = fake::locals(&cluster, "node1");
    (cluster, locals)
}

/// What drives policies: takes the number of a world from its input, makes it, and says so.
#[test]
fn driven() {
    let Ok(words) = std::env::var(DRIVEN) else {
        return;
    };
    let (seed, steps) = words.split_once(' ').unwrap();
    let worlds = history(seed.parse().unwrap(), steps.parse().unwrap());
    let (mut cluster, locals) = beginning();
    let mut host = Host::open().unwrap();
    let mut policies = Policies::new("node1");
    let mut at = None;
    for line in std::io::stdin().lines() {
        let next: usize = line.unwrap().parse().unwrap();
        let mut changed = Changed::default();
        let before = at.map_or_else(World::new, |at: usize| worlds[at].clone());
        for change in changes(&before, &worlds[next]) {
            cluster.note(change, &mut changed);
        }
        at = Some(next);
        let report = policies.reconcile(&mut host, &cluster, &changed, &locals);
        assert_eq!(report.errors, []);
        say_done(next);
    }
}

/// The process in node 1's namespace.
fn drive(lab: &Lab, words: &str) -> Driven {
    Driven::start(&lab.nodes[0].station.netns, "kill::driven", (DRIVEN, words))
}

/// How far the changes are: made, and begun; and the clusters they make.
struct Clock {
    clusters: Vec<Cluster>,
    done: AtomicUsize,
    begun: AtomicUsize,
    over: AtomicBool,
}

impl Clock {
    /// What the states since one say of a connection; only node 1 has rules.
    fn verdicts(&self, lab: &Lab, since: usize, probe: &Probe) -> Vec<bool> {
        let begun = self.begun.load(Ordering::SeqCst);
        let question = oracle::question(lab, probe);
        let here = |place: &Place| matches!(place, Place::Pod(key) if lab.pods[key].node == 0);
        let (out, into) = (here(&probe.from), here(&probe.to));
        let verdict = |cluster| {
            let answer = explain(cluster, &question);
            (answer.egress.allowed || !out) && (answer.ingress.allowed || !into)
        };
        self.clusters[since..=begun].iter().map(verdict).collect()
    }
}

/// Ends the traffic, also when the changes end by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// New connections between any pods until the changes are over: how many were let through, and
/// how many there were.
fn traffic(lab: &Lab, clock: &Clock, seed: u64) -> (usize, usize) {
    let _over = Over(&clock.over);
    let mut random = Random(seed);
    let pods: Vec<Place> = lab.pods.keys().cloned().map(Place::Pod).collect();
    let (mut through, mut all) = (0, 0);
    while !clock.over.load(Ordering::SeqCst) {
        let probe = Probe {
            from: pods[random.below(9)].clone(),
            to: pods[random.below(9)].clone(),
            v6: random.chance(2),
            port: Some((Protocol::Tcp, lab::PORTS[random.below(2)])),
        };
        if probe.from == probe.to {
            continue;
        }
        let since = clock.done.load(Ordering::SeqCst);
        let open = connects(lab, clock, &probe, since);
        let verdicts = clock.verdicts(lab, since, &probe);
        assert!(
            verdicts.contains(&open),
            "{probe}, change {since} and on: open is {open}"
        );
        through += usize::from(open);
        all += 1;
    }
    (through, all)
}

/// Whether a connection is made, waited for as long as every state allows it.
fn connects(lab: &Lab, clock: &Clock, probe: &Probe, since: usize) -> bool {
    let (_, port) = probe.port.unwrap();
    let to = SocketAddr::from((probe.to.ip(lab, probe.v6), port));
    let fd = run_in(probe.from.netns(lab), || probe::tcp(probe.v6)).unwrap();
    let _ = connect(fd.as_raw_fd(), &SockaddrStorage::from(to));
    let start = Instant::now();
    loop {
        let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
        if matches!(poll(&mut fds, PollTimeout::from(4_u8)), Ok(1)) {
            assert_eq!(probe::connected(fd.as_fd()), Outcome::Answered, "{probe}");
            return true;
        }
        let denied = clock.verdicts(lab, since, probe).contains(&false);
        if denied || start.elapsed() > LONG {
            return false;
        }
    }
}

#[test]
fn a_killed_process_opens_and_closes_nothing() {
    if !testing::root("a_killed_process_opens_and_closes_nothing") {
        return;
    }
    let steps = std::env::var(CHANGES).map_or(250, |number| number.parse().unwrap());
    let seed = 20_261_120;
    let mut lab = Lab::new();
    let worlds = history(seed, steps);
    let (mut cluster, locals) = beginning();
    let mut clusters = Vec::new();
    let mut before = &World::new();
    for world in &worlds {
        for change in changes(before, world) {
            cluster.take(change);
        }
        before = world;
        clusters.push(cluster.clone());
    }
    let clock = Clock {
        clusters,
        done: AtomicUsize::new(0),
        begun: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    };
    let words = format!("{seed} {steps}");
    let mut driver = drive(&lab, &words);
    driver.ask(0);
    driver.done(0);
    let (start, mut kills) = (Instant::now(), 0);
    let tallies: Vec<(usize, usize)> = std::thread::scope(|scope| {
        let (lab, clock) = (&lab, &clock);
        let traffic: Vec<_> = (0..3)
            .map(|seed| scope.spawn(move || traffic(lab, clock, seed)))
            .collect();
        let over = Over(&clock.over);
        let mut random = Random(seed + 1);
        for step in 1..=steps {
            clock.begun.store(step, Ordering::SeqCst);
            driver.ask(step);
            if random.chance(6) {
                std::thread::sleep(Duration::from_micros(random.below(6000) as u64));
                driver = drive(lab, &words);
                driver.ask(step);
                kills += 1;
            }
            driver.done(step);
            clock.done.store(step, Ordering::SeqCst);
            if clock.over.load(Ordering::SeqCst) {
                break;
            }
        }
        drop(over);
        traffic.into_iter().map(|one| one.join().unwrap()).collect()
    });
    println!(
        "{steps} changes, killed {kills} times, {:?}: {tallies:?}",
        start.elapsed()
    );
    drop(driver);
    let host = &mut lab.nodes[0].host;
    let here = host.nft_table(Family::Inet, TABLE).unwrap();
    let fresh = fake::rules("node1", &cluster, &locals);
    assert_eq!(left::lines(here.as_ref()), left::lines(fresh.as_ref()));
    let report = Policies::new("node1").reconcile(host, &cluster, &Changed::default(), &locals);
    assert_eq!((report.errors, report.changes), (vec![], 0));
}
