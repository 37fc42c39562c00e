//! Every case, three times: what the oracle says of every connection, what the rendered rules
//! say, and what becomes of real connections between pods on two nodes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use linux::Kernel;
use model::Protocol;
use nft::Family;
use policy::render::nftables::TABLE;
use serde_json::Value as Json;

use crate::cases::{self, Case};
use crate::lab::Lab;
use crate::probe::Probe;
use crate::{fake, left, objects, oracle, probe};

/// Brings the lab from the objects it has to those of a case; the nodes do not act yet.
pub fn change(lab: &mut Lab, have: &mut Vec<Json>, case: &Case) {
    let mut told = false;
    for object in have.iter().filter(|object| !case.objects.contains(object)) {
        lab.take(objects::gone(object));
    }
    for object in &case.objects {
        let (change, problem) = objects::read(object);
        told |= problem.is_some();
        lab.take(change);
    }
    assert_eq!(told, case.broken, "{}: what is wrong is told", case.name);
    have.clone_from(&case.objects);
}

/// Questions by other protocols than those that are really sent.
const ONLY_FAKE: [Option<(Protocol, u16)>; 2] =
    [Some((Protocol::Sctp, 80)), Some((Protocol::Sctp, 81))];

/// What differs between the oracle and the rules, evaluated.
fn against_fake(
    lab: &Lab,
    probes: &[Probe],
    expected: &[bool],
    nodes: &fake::Fakes,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (probe, expected) in probes.iter().zip(expected) {
        if fake::allows(nodes, &oracle::question(lab, probe)) != *expected {
            let answer = oracle::answer(lab, &lab.cluster, probe);
            wrong.push(format!("rules: {probe}: oracle says {answer:?}"));
        }
        for port in ONLY_FAKE.into_iter().filter(|_| probe.port.is_none()) {
            let probe = Probe {
                port,
                ..probe.clone()
            };
            let allowed = oracle::answer(lab, &lab.cluster, &probe).allowed();
            if fake::allows(nodes, &oracle::question(lab, &probe)) != allowed {
                wrong.push(format!("rules: {probe}: oracle says {allowed}"));
            }
        }
    }
    wrong
}

/// What differs between a node's kernel and what a new node's would be.
fn against_fresh(lab: &mut Lab, nodes: &fake::Fakes) -> Vec<String> {
    let mut wrong = Vec::new();
    for node in &mut lab.nodes {
        let here = node.host.nft_table(Family::Inet, TABLE).unwrap();
        let fresh = nodes.get(&node.node.name);
        let (here, fresh) = (left::lines(here.as_ref()), left::lines(fresh));
        if here != fresh {
            let name = &node.node.name;
            wrong.push(format!("{name} has {here:#?}, a new one {fresh:#?}"));
        }
    }
    wrong
}

/// How long each part took.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Duration>);

impl Times {
    fn take<T>(&mut self, part: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        *self.0.entry(part).or_default() += start.elapsed();
        done
    }
}

/// Tries each case, one after the other on the same nodes.
fn tried(name: &str, group: usize) {
    if !testing::root(name) {
        return;
    }
    let (group, cases) = cases::groups().into_iter().nth(group).unwrap();
    let mut lab = Lab::new();
    let probes = probe::all(&lab);
    let (mut have, mut failed, mut times) = (Vec::new(), Vec::new(), Times::default());
    for case in &cases {
        change(&mut lab, &mut have, case);
        times.take("reconcile", || lab.settle());
        let expected = times.take("oracle", || oracle::expected(&lab, &lab.cluster, &probes));
        let nodes = times.take("render", || fake::of(&lab.cluster));
        let mut wrong = times.take("rules", || against_fake(&lab, &probes, &expected, &nodes));
        wrong.extend(times.take("read back", || against_fresh(&mut lab, &nodes)));
        wrong.extend(times.take("packets", || probe::differences(&lab, &probes, &expected)));
        if !wrong.is_empty() {
            let count = wrong.len();
            wrong.truncate(8);
            let lines = wrong.join("\n  ");
            failed.push(format!("{}: {count} wrong\n  {lines}", case.name));
            if failed.len() > 5 {
                break;
            }
        }
    }
    println!("{group}: {} cases, {:?}", cases.len(), times.0);
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn ingress_rules_hold() {
    tried("ingress_rules_hold", 0);
}

#[test]
fn egress_rules_hold() {
    tried("egress_rules_hold", 1);
}

#[test]
fn whole_policies_hold() {
    tried("whole_policies_hold", 2);
}

#[test]
fn cluster_policies_hold() {
    tried("cluster_policies_hold", 3);
}

#[test]
fn there_are_cases_of_everything() {
    let mut count = 0;
    let mut names = std::collections::BTreeSet::new();
    for (group, cases) in cases::groups() {
        println!("{group}: {}", cases.len());
        count += cases.len();
        for case in cases {
            assert!(names.insert(case.name.clone()), "{} twice", case.name);
            for object in &case.objects {
                objects::read(object);
            }
        }
    }
    assert!(count >= 250, "{count} cases");
}
