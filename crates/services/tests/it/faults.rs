//! The process that drives Services is killed at random points of a long sequence of changes and
//! started again, under traffic: nobody who should not answer ever does, no connection is lost,
//! and in the end there is exactly what there would be had it been made at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use linux::{Host, run_in};
use model::config::ServicesMode;
use model::{Change, Changed, Cluster};
use services::Services;
use testing::{Driven, say_done};

use crate::cases::Place;
use crate::flows::Stream;
use crate::lab::{self, Lab, MODES};
use crate::left;
use crate::probe::{self, Outcome, PATIENCE, Probe};
use crate::station::Station;
use crate::world::{Random, SERVICES, State, World, history};

/// `SEED MODE STEPS` of the process that is killed.
const DRIVEN: &str = "FLATNET_TEST_DRIVEN";
/// How many changes; 10,000 for the whole figure.
const CHANGES: &str = "FLATNET_TEST_CHANGES";

/// What drives Services: takes the number of a change from its input, makes it, and says so.
#[test]
fn driven() {
    let Ok(words) = std::env::var(DRIVEN) else {
        return;
    };
    let numbers: Vec<usize> = words.split(' ').map(|word| word.parse().unwrap()).collect();
    let [seed, mode, steps] = numbers[..] else {
        panic!("{words}");
    };
    let worlds = history(seed as u64, steps);
    let config = lab::config(MODES[mode]);
    let mut host = Host::open().unwrap();
    let mut services = Services::new("node1");
    let mut cluster = nodes();
    let mut at = None;
    for line in std::io::stdin().lines() {
        let next: usize = line.unwrap().parse().unwrap();
        let mut changed = Changed::default();
        match at {
            None => {
                for change in worlds[next].changes() {
                    cluster.note(change, &mut changed);
                }
            }
            Some(at) => advance(&mut cluster, &worlds[at], &worlds[next], &mut changed),
        }
        at = Some(next);
        let report = services.reconcile(&mut host, &cluster, &changed, &config);
        assert_eq!((report.errors, report.problems), (vec![], vec![]));
        say_done(next);
    }
}

/// The cluster without Services.
fn nodes() -> Cluster {
    let mut cluster = Cluster::default();
    for number in [1, 2] {
        cluster.take(Change::Node(lab::node(number)));
    }
    cluster
}

/// Takes in what differs between two worlds.
fn advance(cluster: &mut Cluster, old: &World, new: &World, changed: &mut Changed) {
    for number in 1..=SERVICES {
        if old.0.get(&number) == new.0.get(&number) {
            continue;
        }
        let changes = match new.0.get(&number) {
            Some(state) => World([(number, state.clone())].into()).changes(),
            None => {
                let (namespace, name) = crate::spread::service(number).key();
                let slices = ["v4", "v6"].map(|family| format!("{name}-{family}"));
                let gone = |slice| Change::SliceGone(namespace.clone(), slice);
                let mut changes: Vec<Change> = slices.map(gone).into();
                changes.push(Change::ServiceGone(namespace.clone(), name));
                changes
            }
        };
        for change in changes {
            cluster.note(change, changed);
        }
    }
}

/// The process in node 1's namespace.
fn drive(lab: &Lab, words: &str) -> Driven {
    Driven::start(
        &lab.nodes[0].station.netns,
        "faults::driven",
        (DRIVEN, words),
    )
}

/// How far the changes are: made, and begun.
#[derive(Default)]
struct Clock {
    done: AtomicUsize,
    begun: AtomicUsize,
    over: AtomicBool,
    failed: AtomicBool,
}

/// What the traffic of one place came to.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    refused: usize,
    other: usize,
    wrong: Vec<String>,
}

/// New connections to any Service, and some that stay open, until the changes are over.
fn traffic(lab: &Lab, from: Place, worlds: &[World], clock: &Clock, seed: u64) -> Tally {
    let mut random = Random(seed);
    let mut tally = Tally::default();
    let mut streams: Vec<Stream> = Vec::new();
    while !clock.over.load(Ordering::SeqCst) && tally.wrong.is_empty() {
        let number = 1 + random.below(SERVICES.into()) as u8;
        let outside = from == Place::Client && random.chance(2);
        let before = clock.done.load(Ordering::SeqCst);
        let Some(state) = worlds[before].0.get(&number) else {
            continue;
        };
        let service = state.service(number);
        let v6 = random.chance(2);
        let (ip, port) = if outside {
            (lab.nodes[0].ip(v6), service.ports[0].node_port.unwrap())
        } else {
            (service.cluster_ips[usize::from(v6)], 80)
        };
        if streams.len() < 12 || random.chance(50) {
            if let Ok(stream) = Stream::open(lab, from, (ip, port).into()) {
                if streams.len() == 12 {
                    streams.remove(random.below(12) as usize);
                }
                streams.push(stream);
            }
        } else {
            let begun = Instant::now();
            let (outcome, kept) = probe::kept(
                from.netns(lab),
                Probe {
                    patience: PATIENCE * 3,
                    ..Probe::tcp(ip, port)
                },
            );
            let after = clock.begun.load(Ordering::SeqCst);
            let states: Vec<Option<&State>> = worlds[before..=after]
                .iter()
                .map(|world| world.0.get(&number))
                .collect();
            match &outcome {
                Outcome::Answer(_) => tally.answered += 1,
                Outcome::Refused => tally.refused += 1,
                _ => tally.other += 1,
            }
            let same_port =
                |state: &State| !outside || state.service(number).ports == service.ports;
            let may = |state: &Option<&State>| {
                state.is_none_or(|state| !same_port(state) || fits(state, outside, &outcome))
            };
            // iptables' tables change one after the other: what is translated, refused and
            // dropped is not decided at one moment.
            let kinds = states.iter().flatten().map(|state| {
                let who = if outside {
                    state.outside()
                } else {
                    state.ready.clone()
                };
                (state.ready.is_empty(), who.is_empty())
            });
            let between = lab.config.services.mode == ServicesMode::Iptables
                && kinds.collect::<BTreeSet<_>>().len() > 1
                && !matches!(outcome, Outcome::Answer(_));
            if !between && !states.iter().any(may) {
                tally.wrong.push(format!(
                    "{} port {port} from {}, changes {before} to {after}, after {:?}: {outcome}; {states:?}\n{}",
                    ip,
                    from.words(),
                    begun.elapsed(),
                    traces(lab, from, kept.port()),
                ));
            }
        }
        let count = streams.len() as u64;
        if count > 0
            && let Err(lost) = streams[random.below(count) as usize].echo()
        {
            tally.wrong.push(format!("lost at change {before}: {lost}"));
        }
    }
    for stream in &mut streams {
        if let Err(lost) = stream.echo() {
            tally.wrong.push(format!("lost in the end: {lost}"));
        }
    }
    clock
        .failed
        .fetch_or(!tally.wrong.is_empty(), Ordering::SeqCst);
    tally
}

/// What the kernels on the way know of connections from this port: connection tracking's entries
/// and sockets, as `/proc` has them; and how full connection tracking is.
fn traces(lab: &Lab, from: Place, port: u16) -> String {
    let nodes = lab
        .nodes
        .iter()
        .map(|node| (node.node.name.as_str(), &node.station.netns));
    let pods = lab
        .pods
        .iter()
        .map(|pod| (pod.name.as_str(), &pod.station.netns));
    let places = nodes.chain(pods).chain([
        ("client", &lab.client.netns),
        ("the sender", from.netns(lab)),
    ]);
    let (decimal, hex) = (format!("port={port} "), format!(":{port:04X} "));
    let mut found = format!("port {port}:");
    for (name, netns) in places {
        let read = |path: String| {
            let text = run_in(netns, || std::fs::read_to_string(path)).unwrap();
            text.unwrap_or_default()
        };
        let [count, max] = ["count", "max"]
            .map(|what| read(format!("/proc/sys/net/netfilter/nf_conntrack_{what}")));
        let (count, max) = (count.trim(), max.trim());
        found.push_str(&format!("\n  {name} tracks {count} connections of {max}"));
        for file in ["nf_conntrack", "tcp", "tcp6"] {
            let text = read(format!("/proc/thread-self/net/{file}"));
            let of_port = |line: &&str| line.contains(&decimal) || line.contains(&hex);
            for line in text.lines().filter(of_port) {
                found.push_str(&format!("\n  {name} {file}: {}", line.trim()));
            }
        }
    }
    found
}

/// Whether that may come of a connection in this state.
fn fits(state: &State, outside: bool, outcome: &Outcome) -> bool {
    let who = if outside {
        state.outside()
    } else {
        state.ready.clone()
    };
    match outcome {
        Outcome::Answer(greeting) => who.contains(&greeting.who.as_str()),
        Outcome::Refused => state.ready.is_empty(),
        Outcome::Silence => who.is_empty() && !state.ready.is_empty(),
        Outcome::Failed(_) => false,
    }
}

fn killed(mode: usize, default: usize) {
    let steps = std::env::var(CHANGES).map_or(default, |number| number.parse().unwrap());
    let seed = 20_261_120;
    let mut lab = Lab::new(MODES[mode]);
    let worlds = history(seed, steps);
    let clock = Clock::default();
    let words = format!("{seed} {mode} {steps}");
    let mut driver = drive(&lab, &words);
    driver.ask(0);
    driver.done(0);
    let (start, mut kills) = (Instant::now(), 0);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let places = [Place::Pod("1c"), Place::Node(0), Place::Client];
        let (lab, worlds, clock) = (&lab, &worlds, &clock);
        let traffic: Vec<_> = places
            .into_iter()
            .enumerate()
            .map(|(at, from)| scope.spawn(move || traffic(lab, from, worlds, clock, at as u64)))
            .collect();
        let over = Over(clock);
        let mut random = Random(seed + 1);
        for step in 1..=steps {
            clock.begun.store(step, Ordering::SeqCst);
            driver.ask(step);
            if random.chance(40) {
                std::thread::sleep(Duration::from_micros(random.below(6000)));
                driver = drive(lab, &words);
                driver.ask(step);
                kills += 1;
            }
            driver.done(step);
            clock.done.store(step, Ordering::SeqCst);
            if clock.failed.load(Ordering::SeqCst) {
                break;
            }
        }
        drop(over);
        traffic.into_iter().map(|one| one.join().unwrap()).collect()
    });
    println!(
        "{:?}: {steps} changes, killed {kills} times, {:?}",
        MODES[mode],
        start.elapsed()
    );
    for tally in &tallies {
        let Tally {
            answered,
            refused,
            other,
            wrong,
        } = tally;
        println!("  {answered} answered, {refused} refused, {other} neither");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    drop(driver);
    assert_nothing_left(&mut lab, MODES[mode], &worlds[steps]);
}

/// Tells the traffic to end, also when the changes end by a panic.
struct Over<'a>(&'a Clock);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

/// What is in the node's kernel is what a fresh one has for the same cluster.
fn assert_nothing_left(lab: &mut Lab, mode: ServicesMode, world: &World) {
    for change in world.changes() {
        lab.take(change);
    }
    let fresh = Station::new();
    let mut host = run_in(&fresh.netns, Host::open).unwrap().unwrap();
    let report = run_in(&fresh.netns, || {
        let all = Changed::default();
        Services::new("node1").reconcile(&mut host, &lab.cluster, &all, &lab.config)
    });
    assert_eq!(report.unwrap().errors, []);
    let here = left::read(&lab.nodes[0].station.netns, mode);
    assert_eq!(here, left::read(&fresh.netns, mode));
    let report = lab.turn(0);
    assert_eq!((report.errors, report.changes), (vec![], 0));
}

#[test]

fn a_killed_process_breaks_nothing_over_nftables() {
    if testing::root("a_killed_process_breaks_nothing_over_nftables") {
        killed(0, 1500);
    }
}

#[test]
fn a_killed_process_breaks_nothing_over_iptables() {
    if testing::root("a_killed_process_breaks_nothing_over_iptables") {
        killed(1, 120);
    }
}
