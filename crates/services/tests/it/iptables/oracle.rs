//! The rules, read as the kernel reads them, against `explain`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use linux::fake::Fake;
use model::config::LocalDetection;
use proptest::prelude::*;
use services::explain::{Origin, Question, Verdict, explain};
use services::plan::Plan;

use super::eval::{Fate, Rules};
use super::{follow, whole, write};
use crate::build::ip;
use crate::worlds::{World, changes, empty_world, link, note, questions, world};

const OWN: [&str; 4] = ["10.0.1.10", "127.0.0.1", "fd00:10:0:1::10", "::1"];

/// What `explain` says, as fates.
fn expected(plan: &Plan, question: &Question) -> BTreeMap<Fate, f64> {
    let answer = explain(plan, question);
    let one = |fate| BTreeMap::from([(fate, 1.0)]);
    match answer.verdict {
        Verdict::Forward { to, masquerade } => {
            let each = to.into_iter().map(|(backend, probability)| {
                let masquerade = masquerade.is_some() || question.is_hairpin(&backend);
                let to = SocketAddr::new(backend.ip, backend.port);
                (Fate::To(to, masquerade), probability)
            });
            each.collect()
        }
        // kube-proxy's iptables mode knows neither ports that a ClusterIP has not nor addresses
        // that nobody has.
        _ if answer.frontend.is_none() => one(Fate::Untouched),
        Verdict::NotAService => one(Fate::Untouched),
        Verdict::Reject(_) => one(Fate::Rejected),
        Verdict::Drop(_) => one(Fate::Dropped),
    }
}

/// Clashes that only bad objects make, in which kube-proxy's filter chains and nat chains mean
/// different Services: an endpoint that is itself a Service's address, and a health check port
/// that is a node port too.
fn clash(plan: &Plan, question: &Question, expected: &BTreeMap<Fate, f64>) -> bool {
    let protocol = question.protocol;
    let is_frontend = |to: &SocketAddr| {
        let own = OWN.map(ip).contains(&to.ip());
        plan.at(to.ip(), protocol, to.port()).is_some()
            || (own
                && plan
                    .at_node_port(to.is_ipv6(), protocol, to.port())
                    .is_some())
    };
    let mut ports = plan.ports().values();
    expected
        .keys()
        .any(|fate| matches!(fate, Fate::To(to, _) if is_frontend(to)))
        || ports.any(|port| port.health_check == Some(question.port))
}

/// Where kube-proxy's iptables mode is known to differ from its nftables mode, which `explain`
/// follows: in how a connection that nobody serves ends.
fn known_difference(plan: &Plan, question: &Question, fate: Fate) -> bool {
    let answer = explain(plan, question);
    let v6 = question.destination.is_ipv6();
    let Some((name, frontend)) = answer.frontend else {
        // A port of the node that no endpoint serves is refused at all of the node's addresses,
        // whatever addresses node ports are served at.
        let port = plan.at_node_port(v6, question.protocol, question.port);
        let unserved = port.is_some_and(|(port, frontend)| {
            port.cluster.is_empty()
                || (frontend.policy == model::TrafficPolicy::Local && port.local.is_empty())
        });
        return unserved && question.to_this_node && matches!(fate, Fate::Rejected | Fate::Dropped);
    };
    // The node's own connections to addresses that are not the node's pass no chain that refuses.
    let passes = question.origin == Origin::Node
        && !question.to_this_node
        && frontend.kind != services::FrontendKind::ClusterIp
        && fate == Fate::Untouched;
    let empty = plan.ports()[&(name, v6)].cluster.is_empty();
    // Without endpoints, sources are not looked at.
    let rejected = frontend.sources.is_some() && fate == Fate::Rejected;
    empty && (passes || rejected)
}

fn same(a: &BTreeMap<Fate, f64>, b: &BTreeMap<Fate, f64>) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|((fate, p), (other, q))| fate == other && (p - q).abs() < 1e-6)
}

fn check(world: &World, fake: &Fake) -> Result<(), TestCaseError> {
    let plan = world.plan();
    let own = OWN.map(ip);
    let mut rules = [false, true].map(|v6| Rules::of(fake, v6, &own));
    for question in questions(&world.cluster) {
        let link = link(world, &question);
        let family = usize::from(question.destination.is_ipv6());
        let fates = rules[family].fates(&question, &link);
        let expected = expected(&plan, &question);
        let single = (fates.len() == 1).then(|| *fates.keys().next().unwrap());
        let known = || {
            single.is_some_and(|fate| known_difference(&plan, &question, fate))
                || clash(&plan, &question, &expected)
        };
        prop_assert!(
            same(&fates, &expected) || known(),
            "{question:?}\nrules:    {fates:?}\nexpected: {expected:?}\n{:?}",
            explain(&plan, &question),
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Every connection that can be asked about in a generated cluster.
    #[test]
    fn rules_do_what_explain_says(world in world()) {
        let mut fake = Fake::default();
        write(&mut fake, &world.plan());
        check(&world, &fake)?;
    }

    /// Following changes one by one ends where writing everything does: nothing is left to do,
    /// and no chain is left over.
    #[test]
    fn changes_end_where_a_whole_write_does(
        mut world in empty_world(),
        changes in changes(4..24),
        at_once in 1_usize..6,
    ) {
        let mut fake = Fake::default();
        let mut plan = world.plan();
        write(&mut fake, &plan);
        for some in changes.chunks(at_once) {
            let touched = note(&mut world.cluster, some);
            let delta = plan.update(&world.cluster, &touched);
            follow(&mut fake, &plan, &delta);
            for v6 in [false, true] {
                prop_assert_eq!(whole(&mut fake, &plan, v6), "");
            }
        }
        check(&world, &fake)?;
    }
}

/// Pods told by several ranges of a family: kube-proxy knows one.
#[test]
fn pods_of_several_ranges() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..8 {
        let mut world = world().new_tree(&mut runner).unwrap().current();
        let ranges = ["10.244.1.0/24", "fd00:10:244::/56", "10.244.2.0/24"];
        let ranges = ranges.map(|range| range.parse().unwrap());
        world.config.services.local_detection = LocalDetection::Ranges(ranges.into());
        world.config.services.masquerade_all = false;
        let mut fake = Fake::default();
        write(&mut fake, &world.plan());
        check(&world, &fake).unwrap();
    }
}

/// Whoever was sent to an endpoint goes there again, whatever the numbers drawn; others do not.
#[test]
fn affinity_remembers_a_source() {
    use crate::build::{Put, cluster, endpoint, plan, question, service, slice};
    let mut cluster = cluster();
    model::Service {
        affinity: Some(300),
        ..service("sticky", 1)
    }
    .put(&mut cluster);
    let endpoints = ["10.244.1.1", "10.244.1.2", "10.244.2.1"].map(endpoint);
    slice("sticky", "x", endpoints.to_vec()).put(&mut cluster);
    let mut fake = Fake::default();
    write(&mut fake, &plan(&cluster));
    let mut rules = Rules::of(&fake, false, &OWN.map(ip));
    let pod = question(Origin::Pod, "10.96.0.1:80");
    let second = rules.connect(&pod, "fn-x", &[false, true]);
    assert_eq!(second, Fate::To("10.244.1.2:8080".parse().unwrap(), false));
    for script in [[true, true], [false, false], [false, true]] {
        assert_eq!(rules.connect(&pod, "fn-x", &script), second);
    }
    let other = Question {
        source: ip("10.244.1.98"),
        ..pod
    };
    let first = Fate::To("10.244.1.1:8080".parse().unwrap(), false);
    assert_eq!(rules.connect(&other, "fn-x", &[true]), first);
}
