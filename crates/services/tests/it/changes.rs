//! The plan of generated clusters: however changes come, the same; a Delta says what they did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Change, Cluster, Key};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use services::explain::{Verdict, explain};
use services::plan::{Delta, Frontend, FrontendKind, Plan, PortId, PortPlan};

use crate::worlds::{World, changes, empty_world, names, note, questions, world};

type Ports = BTreeMap<PortId, Arc<PortPlan>>;

/// Applies a Delta as a backend does, and sees that it fits.
fn apply(ports: &mut Ports, delta: Delta) {
    let mut seen = BTreeSet::new();
    for change in delta.ports {
        assert_ne!(change.was, change.is, "a change that changes nothing");
        let id = change.is.as_ref().or(change.was.as_ref()).unwrap().id();
        assert!(seen.insert(id.clone()), "{} changes twice", id.0);
        assert_eq!(ports.get(&id), change.was.as_ref(), "was of {}", id.0);
        match change.is {
            Some(is) => ports.insert(id, is),
            None => ports.remove(&id),
        };
    }
}

/// What an object is, for the order of its versions.
fn object(change: &Change) -> (u8, Key) {
    match change {
        Change::Service(service) => (0, service.key()),
        Change::ServiceGone(namespace, name) => (0, (namespace.clone(), name.clone())),
        Change::Slice(slice) => (1, (slice.namespace.clone(), slice.name.clone())),
        Change::SliceGone(namespace, name) => (1, (namespace.clone(), name.clone())),
        _ => (2, (String::new(), String::new())),
    }
}

/// Changes, and the same ones in another order that keeps the order of each object's versions.
fn reordered() -> impl Strategy<Value = (Vec<Change>, Vec<Change>)> {
    changes(1..24)
        .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
        .prop_map(|(all, shuffled)| {
            let mut versions: BTreeMap<_, Vec<&Change>> = BTreeMap::new();
            for change in all.iter().rev() {
                versions.entry(object(change)).or_default().push(change);
            }
            let next = |change| versions.get_mut(&object(change))?.pop().cloned();
            let again = shuffled.iter().filter_map(next).collect();
            (all, again)
        })
}

/// Plans changes in chunks of these sizes, one Delta after the other.
fn in_chunks(world: &World, changes: &[Change], sizes: &[usize]) -> (Cluster, Plan) {
    let mut cluster = world.cluster.clone();
    let mut plan = Plan::new(world.settings());
    let mut ports = Ports::new();
    let mut rest = changes;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(*sizes.next().unwrap_or(&1).min(&rest.len()));
        rest = later;
        let touched = note(&mut cluster, now);
        apply(&mut ports, plan.update(&cluster, &touched));
        assert_eq!(&ports, plan.ports());
        // Asked again, nothing is different.
        assert_eq!(plan.update(&cluster, &touched), Delta::default());
    }
    assert_eq!(
        plan.update(&cluster, &names().into_iter().collect()),
        Delta::default()
    );
    (cluster, plan)
}

/// What a Service would have if it were alone.
fn alone(world: &World, key: &Key) -> Plan {
    let mut cluster = world.cluster.clone();
    for other in world.cluster.services.keys().filter(|other| *other != key) {
        cluster.services.remove(other);
    }
    Plan::of(world.settings(), &cluster)
}

/// The generated worlds show everything that backends must get right: each reason of an answer,
/// each kind of frontend, lost frontends, lists that differ, hints that hold.
#[test]
fn worlds_show_everything() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..250 {
        let world = world().new_tree(&mut runner).unwrap().current();
        let plan = world.plan();
        let mut facts: BTreeSet<String> = BTreeSet::new();
        for problem in plan.problems() {
            let field = problem.field.replace(|c: char| c.is_ascii_digit(), "");
            facts.insert(format!("problem {field}"));
        }
        for port in plan.ports().values() {
            let family = if port.v6 { "v6" } else { "v4" };
            facts.insert(format!("{} {family}", port.name.protocol));
            if !port.local.is_empty() && port.local != port.cluster {
                facts.insert("local and cluster differ".to_owned());
            }
            if port.local.iter().any(|one| !port.cluster.contains(one)) {
                facts.insert("local is not in cluster".to_owned());
            }
            if port.cluster.len() > 3 {
                facts.insert("many endpoints".to_owned());
            }
        }
        for question in questions(&world.cluster) {
            let answer = explain(&plan, &question);
            let kind = answer
                .frontend
                .as_ref()
                .map(|(_, frontend)| format!("{:?} {:?}", frontend.kind, frontend.policy));
            let kind = kind.unwrap_or_default();
            let what = match &answer.verdict {
                Verdict::NotAService => "pass".to_owned(),
                Verdict::Reject(why) => format!("reject: {why}"),
                Verdict::Drop(why) => format!("drop: {why}"),
                Verdict::Forward { to, masquerade } => {
                    let hairpin = to.iter().any(|(one, _)| question.is_hairpin(one));
                    let affinity = answer.affinity.is_some();
                    facts.insert(format!("hairpin {hairpin}, affinity {affinity}"));
                    format!("forward, masquerade: {masquerade:?}")
                }
            };
            facts.insert(format!("{kind} from {:?}: {what}", question.origin));
        }
        for fact in facts {
            *seen.entry(fact).or_default() += 1;
        }
    }
    let often = |fact: &str| seen.get(fact).is_some_and(|count| *count >= 3);
    for kind in ["ClusterIp", "ExternalIp", "LoadBalancer", "NodePort"] {
        for policy in ["Cluster", "Local"] {
            for origin in ["Node", "Pod", "Elsewhere"] {
                let begin = format!("{kind} {policy} from {origin}: ");
                let shown = |what: &str| {
                    let begin = format!("{begin}{what}");
                    let all = seen.iter().filter(|(fact, _)| fact.starts_with(&begin));
                    all.map(|(_, count)| count).sum::<usize>() >= 10
                };
                assert!(shown("forward") && shown("reject"), "{begin}{seen:#?}");
            }
            let dropped = format!("{kind} {policy} from Elsewhere: drop");
            let any = seen.keys().any(|fact| fact.starts_with(&dropped));
            assert_eq!(
                any,
                policy == "Local" || kind == "LoadBalancer",
                "{dropped}"
            );
        }
    }
    for fact in [
        " from Pod: drop: the address is in a service range, and no Service has it",
        " from Pod: reject: the ClusterIP's Service has no such port",
        " from Node: pass",
        "hairpin true, affinity true",
        "local and cluster differ",
        "local is not in cluster",
        "many endpoints",
        "SCTP v6",
        "problem spec.clusterIPs[]",
        "problem spec.externalIPs[]",
        "problem spec.healthCheckNodePort",
        "problem spec.ports[].nodePort",
        "problem status.loadBalancer.ingress[].ip",
    ] {
        assert!(often(fact), "{fact} is rare: {seen:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn however_changes_come_the_plan_is_that_of_the_cluster(
        world in empty_world(),
        (all, again) in reordered(),
        sizes in prop::collection::vec(1_usize..6, 1..6),
    ) {
        let (cluster, plan) = in_chunks(&world, &all, &sizes);
        let whole = Plan::of(world.settings(), &cluster);
        prop_assert_eq!(&plan, &whole);
        let (other, permuted) = in_chunks(&world, &again, &[1]);
        prop_assert_eq!(&other, &cluster);
        prop_assert_eq!(&permuted, &whole);
    }

    #[test]
    fn each_address_and_port_has_the_service_with_the_best_claim(world in world()) {
        let plan = world.plan();
        let mut asked: BTreeMap<_, Vec<(bool, i64, Key, usize)>> = BTreeMap::new();
        let mut cluster_ips = BTreeSet::new();
        for (key, service) in &world.cluster.services {
            for id in alone(&world, key).ports().keys() {
                // Without the Service's other ports, which it may clash with itself.
                let mut one = (**service).clone();
                let index = one.ports.iter().rposition(|port| {
                    port.name == id.0.port && port.protocol == id.0.protocol
                }).unwrap();
                one.ports = vec![one.ports[index].clone()];
                let mut cluster = world.cluster.clone();
                cluster.take(Change::Service(Arc::new(one)));
                let alone = alone(&World { cluster, ..world.clone() }, key);
                let port = &alone.ports()[id];
                cluster_ips.insert(port.cluster_ip);
                for frontend in &port.frontends {
                    let external = frontend.kind != FrontendKind::ClusterIp;
                    asked.entry(place(port, frontend)).or_default().push((
                        external, service.created, key.clone(), index,
                    ));
                }
            }
        }
        for (place, mut claims) in asked {
            claims.sort();
            let (external, _, key, index) = &claims[0];
            let taken = *external && place.0.is_some_and(|ip| cluster_ips.contains(&ip));
            let best = (!taken).then(|| {
                (key.clone(), world.cluster.services[key].ports[*index].name.clone())
            });
            let has: Vec<_> = plan
                .ports()
                .values()
                .filter(|port| port.frontends.iter().any(|f| self::place(port, f) == place))
                .map(|port| {
                    let key = (port.name.namespace.clone(), port.name.name.clone());
                    (key, port.name.port.clone())
                })
                .collect();
            prop_assert_eq!(&has, &best.clone().into_iter().collect::<Vec<_>>(), "{:?}", place);
            // Whoever asked in vain is told.
            for (_, _, loser, index) in claims {
                let name = &world.cluster.services[&loser].ports[index].name;
                if best != Some((loser.clone(), name.clone())) {
                    prop_assert!(!plan.problems_of(&loser).is_empty(), "{:?} {:?}", loser, place);
                }
            }
        }
    }

    #[test]
    fn every_question_has_an_answer_that_its_frontend_allows(world in world()) {
        let plan = world.plan();
        for question in questions(&world.cluster) {
            let answer = explain(&plan, &question);
            let (protocol, number) = (question.protocol, question.port);
            // The index says what a look at every port says.
            let holder = plan.ports().values().find_map(|port| {
                let own = port.name.protocol == protocol;
                let mut frontends = port.frontends.iter().filter(|_| own);
                let at = frontends.find(|frontend| {
                    frontend.ip == Some(question.destination) && frontend.port == number
                })?;
                Some((port.name.clone(), at.clone()))
            });
            if let Some(holder) = holder {
                prop_assert_eq!(answer.frontend.as_ref(), Some(&holder));
            } else if let Some((_, frontend)) = &answer.frontend {
                prop_assert_eq!(frontend.kind, FrontendKind::NodePort);
                prop_assert!(question.to_this_node);
            }
            let Verdict::Forward { to, .. } = &answer.verdict else {
                prop_assert_eq!(answer.affinity, None);
                continue;
            };
            let (name, frontend) = answer.frontend.as_ref().unwrap();
            let port = &plan.ports()[&(name.clone(), question.destination.is_ipv6())];
            let sum: f64 = to.iter().map(|(_, probability)| probability).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9);
            prop_assert_eq!(answer.affinity, port.affinity);
            for (endpoint, _) in to {
                prop_assert!(port.cluster.contains(endpoint) || port.local.contains(endpoint));
                prop_assert_eq!(endpoint.ip.is_ipv6(), port.v6);
                if !port.cluster.contains(endpoint) {
                    prop_assert!(endpoint.local);
                    prop_assert_eq!(frontend.policy, model::TrafficPolicy::Local);
                }
            }
        }
    }

    #[test]
    fn the_lists_of_a_port_are_what_backends_rely_on(world in world()) {
        for port in world.plan().ports().values() {
            prop_assert!(port.cluster.is_sorted() && port.local.is_sorted());
            for list in [&port.cluster, &port.local] {
                let unique: BTreeSet<_> = list.iter().map(|one| (one.ip, one.port)).collect();
                prop_assert_eq!(unique.len(), list.len());
            }
            prop_assert!(port.local.iter().all(|one| one.local));
            // None anywhere means none here.
            prop_assert!(!port.cluster.is_empty() || port.local.is_empty());
            prop_assert!(port.uses_local() || port.local.is_empty());
            prop_assert!(port.port != 0 && port.affinity != Some(0));
            let places: BTreeSet<_> = port.frontends.iter().map(|f| place(port, f)).collect();
            prop_assert_eq!(places.len(), port.frontends.len());
        }
    }
}

type PlaceOf = (Option<std::net::IpAddr>, bool, model::Protocol, u16);

fn place(port: &PortPlan, frontend: &Frontend) -> PlaceOf {
    (frontend.ip, port.v6, port.name.protocol, frontend.port)
}
