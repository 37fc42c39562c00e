//! What must hold of addresses, whatever comes in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use model::{Judged, Key, LabelSelector, Pool, Protocol};
use proptest::prelude::*;

use super::ask::{Ask, Families};
use super::plan::{Balancer, Outcome};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pool(name: &str, created: i64, addresses: &[&str]) -> Pool {
    Pool {
        name: name.into(),
        created,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        avoid_buggy: false,
        service_selector: None,
        namespace_selector: None,
        node_selector: None,
        auto_assign: true,
    }
}

fn judged(pools: &[Pool]) -> Vec<Judged> {
    model::pool::judge(pools.iter().cloned().map(Arc::new), None, [])
}

fn ask(name: &str, created: i64) -> Ask {
    Ask {
        key: ("default".into(), name.into()),
        created,
        labels: BTreeMap::new(),
        families: vec![false],
        policy: Families::One,
        wished: Ok(Vec::new()),
        pool: None,
        sharing: None,
        backend: String::new(),
        ports: BTreeSet::from([(Protocol::Tcp, 80)]),
        had: Vec::new(),
    }
}

fn balancer(pools: &[Pool], asks: impl IntoIterator<Item = Ask>) -> Balancer {
    let mut balancer = Balancer::default();
    balancer.set_pools(judged(pools), false);
    for ask in asks {
        balancer.put(ask);
    }
    balancer
}

/// `name: addresses` or the problem, of each outcome.
fn told(outcomes: &[Outcome]) -> Vec<String> {
    outcomes
        .iter()
        .map(|outcome| {
            let ips: Vec<String> = outcome
                .addresses
                .iter()
                .map(|(ip, pool)| format!("{ip} of {pool}"))
                .collect();
            let problem = outcome.problem.as_deref().unwrap_or("");
            let sep = if problem.is_empty() { "" } else { " ! " };
            format!("{}: {}{sep}{problem}", outcome.key.1, ips.join(" "))
        })
        .collect()
}

#[test]
fn the_oldest_gets_the_lowest_and_who_comes_too_late_gets_what_is_freed() {
    let mut all = balancer(
        &[pool("lan", 1, &["10.0.1.200/31"])],
        [ask("c", 3), ask("b", 2), ask("a", 1)],
    );
    assert_eq!(
        told(&all.settle()),
        [
            "a: 10.0.1.200 of lan",
            "b: 10.0.1.201 of lan",
            "c:  ! no IPv4 address is free in LoadBalancerPool lan (2 assigned); widen spec.addresses, delete a Service of type LoadBalancer, or let Services share one with the annotation flatnet.io/allow-shared-ip",
        ]
    );
    assert!(all.is_settled());
    all.remove(&("default".into(), "a".into()));
    assert!(!all.is_settled());
    assert_eq!(told(&all.settle()), ["c: 10.0.1.200 of lan"]);
}

#[test]
fn wishes_are_granted_or_refused_with_the_cause() {
    let wish = |name: &str, created, wished: &str| Ask {
        wished: Ok(vec![ip(wished)]),
        ..ask(name, created)
    };
    let mut quiet = pool("quiet", 2, &["10.0.2.0/30"]);
    quiet.auto_assign = false;
    let mut all = balancer(
        &[pool("lan", 1, &["10.0.1.200/30"]), quiet],
        [
            wish("a", 1, "10.0.1.202"),
            wish("b", 2, "10.0.1.202"),
            wish("c", 3, "10.9.9.9"),
            wish("d", 4, "10.0.2.2"),
            wish("e", 5, "fd00::1"),
            Ask {
                pool: Some("quiet".into()),
                ..ask("f", 6)
            },
            Ask {
                pool: Some("none".into()),
                ..ask("g", 7)
            },
        ],
    );
    assert_eq!(
        told(&all.settle()),
        [
            "a: 10.0.1.202 of lan",
            "b:  ! 10.0.1.202 is held by Service default/a: to share it, both need the annotation flatnet.io/allow-shared-ip with the same value",
            "c:  ! 10.9.9.9 is in no LoadBalancerPool",
            "d: 10.0.2.2 of quiet",
            "e:  ! the Service asks for fd00::1, and spec.ipFamilies is IPv4",
            "f: 10.0.2.0 of quiet",
            "g:  ! the Service asks for LoadBalancerPool none, which does not exist; create it or remove the annotation",
        ]
    );
    // A new wish that cannot be granted leaves what there is.
    all.put(wish("d", 4, "10.0.1.202"));
    let after = told(&all.settle());
    assert!(
        after[0].starts_with("d: 10.0.2.2 of quiet ! 10.0.1.202 is held by"),
        "{after:?}"
    );
    all.remove(&("default".into(), "a".into()));
    assert_eq!(told(&all.settle()), ["b: 10.0.1.202 of lan"]);
}

#[test]
fn an_address_is_shared_by_key_unless_ports_or_endpoints_clash() {
    let share = |name: &str, created, port, backend: &str| Ask {
        sharing: Some("k".into()),
        ports: BTreeSet::from([(Protocol::Udp, port)]),
        backend: backend.into(),
        ..ask(name, created)
    };
    let mut all = balancer(
        &[pool("lan", 1, &["10.0.1.200/29"])],
        [
            share("a", 1, 53, ""),
            share("b", 2, 54, ""),
            share("c", 3, 53, ""),
            share("d", 4, 55, "default/app=x"),
        ],
    );
    assert_eq!(
        told(&all.settle()),
        [
            "a: 10.0.1.200 of lan",
            "b: 10.0.1.200 of lan",
            "c: 10.0.1.201 of lan",
            "d: 10.0.1.202 of lan",
        ]
    );
    // A port that clashes now: the one that changed moves.
    all.put(share("b", 2, 53, ""));
    let outcome = all.settle().remove(0);
    assert_eq!(outcome.addresses, [(ip("10.0.1.203"), "lan".into())]);
    assert_eq!(outcome.lost[0].0, ip("10.0.1.200"));
    assert!(outcome.lost[0].1.ends_with("both have port 53/UDP"));
}

#[test]
fn both_families_where_asked_for() {
    let dual = |name: &str, created, policy| Ask {
        families: vec![true, false],
        policy,
        ..ask(name, created)
    };
    let v4 = pool("four", 1, &["10.0.1.200/30"]);
    let mut all = balancer(
        std::slice::from_ref(&v4),
        [
            dual("prefer", 1, Families::Prefer),
            dual("require", 2, Families::Require),
        ],
    );
    assert_eq!(
        told(&all.settle()),
        [
            "prefer: 10.0.1.200 of four",
            "require:  ! no LoadBalancerPool offers the Service an IPv6 address: four: it has no IPv6 addresses",
        ]
    );
    all.set_pools(judged(&[v4, pool("six", 2, &["fd00::/120"])]), false);
    assert_eq!(
        told(&all.settle()),
        [
            "prefer: fd00:: of six 10.0.1.200 of four",
            "require: fd00::1 of six 10.0.1.201 of four",
        ]
    );
}

#[test]
fn an_address_that_its_pool_loses_is_replaced_and_kept_while_a_pool_is_unreadable() {
    let mut all = balancer(&[pool("a", 1, &["10.0.1.200/30"])], [ask("web", 1)]);
    all.settle();
    all.set_pools(Vec::new(), true);
    assert_eq!(all.settle()[0].addresses[0].0, ip("10.0.1.200"));
    all.set_pools(judged(&[pool("b", 2, &["10.0.2.0/30"])]), false);
    let outcome = all.settle().remove(0);
    assert_eq!(outcome.addresses, [(ip("10.0.2.0"), "b".into())]);
    assert_eq!(
        outcome.lost,
        [(
            ip("10.0.1.200"),
            "10.0.1.200 is in no LoadBalancerPool".into()
        )]
    );
    all.set_pools(Vec::new(), false);
    let outcome = all.settle().remove(0);
    assert!(outcome.addresses.is_empty());
    assert!(
        outcome
            .problem
            .unwrap()
            .starts_with("there is no LoadBalancerPool")
    );
}

#[test]
fn selectors_say_whose_addresses_they_are() {
    let labels = |key: &str| BTreeMap::from([(key.to_owned(), "yes".to_owned())]);
    let selector = |key: &str| {
        Some(LabelSelector {
            match_labels: labels(key).into(),
            ..LabelSelector::default()
        })
    };
    let mut services = pool("services", 1, &["10.0.1.0/30"]);
    services.service_selector = selector("edge");
    let mut team = pool("team", 2, &["10.0.2.0/30"]);
    team.namespace_selector = selector("team");
    let everybody = pool("all", 3, &["10.0.3.0/30"]);
    let mut edge = ask("edge", 1);
    edge.labels = labels("edge");
    let mut all = balancer(&[services, team, everybody], [edge, ask("web", 2)]);
    assert_eq!(
        told(&all.settle()),
        ["edge: 10.0.1.0 of services", "web: 10.0.3.0 of all"]
    );
    // A namespace's new label opens its pool to Services to come; what they have stays.
    all.set_namespace("default", Some(labels("team")));
    all.put(ask("new", 3));
    assert_eq!(
        told(&all.settle()),
        [
            "edge: 10.0.1.0 of services",
            "web: 10.0.3.0 of all",
            "new: 10.0.2.0 of team"
        ]
    );
    // One that goes takes the address along.
    all.set_namespace("default", Some(BTreeMap::new()));
    assert_eq!(told(&all.settle())[2], "new: 10.0.3.1 of all");
}

#[test]
fn one_more_of_ten_thousand_costs_as_much_as_one_of_ten() {
    let many = (0..10_000).map(|n| ask(&format!("s{n:05}"), n));
    let mut all = balancer(&[pool("wide", 1, &["10.64.0.0/17"])], many);
    let begun = Instant::now();
    assert_eq!(all.settle().len(), 10_000);
    let whole = begun.elapsed();
    let begun = Instant::now();
    for n in 0..100 {
        all.remove(&("default".into(), format!("s{n:05}")));
        all.put(ask(&format!("t{n:05}"), 20_000 + n));
        let outcomes = all.settle();
        assert_eq!(outcomes.len(), 1);
        // The one just freed is the lowest.
        assert_eq!(outcomes[0].addresses[0].0, ip(&format!("10.64.0.{n}")));
    }
    // A hundred changes, each of which would cost as much as all if it looked at all.
    assert!(begun.elapsed() < whole, "{:?} {whole:?}", begun.elapsed());
}

#[derive(Clone, Debug)]
enum Step {
    Put(Box<Ask>),
    Remove(u8),
    Pools(u8),
    Settle,
}

fn an_ask() -> impl Strategy<Value = Ask> {
    let families = prop_oneof![
        Just((vec![false], Families::One)),
        Just((vec![true], Families::One)),
        Just((vec![false, true], Families::Prefer)),
        Just((vec![true, false], Families::Require)),
    ];
    let wish = prop_oneof![
        4 => Just(None),
        1 => (0_u8..6).prop_map(|n| Some(ip(&format!("10.0.1.{n}")))),
    ];
    let sharing = prop_oneof![Just(None), Just(Some("k")), Just(Some("l"))];
    (0_u8..12, families, wish, sharing, 80_u16..83).prop_map(
        |(n, (families, policy), wish, sharing, port)| Ask {
            families,
            policy,
            wished: Ok(wish.into_iter().collect()),
            sharing: sharing.map(str::to_owned),
            ports: BTreeSet::from([(Protocol::Tcp, port)]),
            ..ask(&format!("s{n}"), i64::from(n % 5))
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => an_ask().prop_map(|ask| Step::Put(Box::new(ask))),
        3 => (0_u8..12).prop_map(Step::Remove),
        1 => (0_u8..4).prop_map(Step::Pools),
        3 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..60)
}

fn pools(kind: u8) -> Vec<Pool> {
    let lan = pool("lan", 1, &["10.0.1.0/30", "fd00::/126"]);
    match kind {
        0 => vec![lan],
        1 => vec![lan, pool("more", 2, &["10.0.1.4/30"])],
        2 => vec![pool("six", 3, &["fd00::2/127"])],
        _ => Vec::new(),
    }
}

/// What everybody has, as told so far.
type World = BTreeMap<Key, (Ask, Vec<IpAddr>)>;

fn hear(world: &mut World, outcomes: Vec<Outcome>) {
    for outcome in outcomes {
        if let Some((_, has)) = world.get_mut(&outcome.key) {
            *has = outcome.addresses.into_iter().map(|(ip, _)| ip).collect();
        }
    }
}

fn check(world: &World, pools: &[Pool]) -> Result<(), TestCaseError> {
    let judged = judged(pools);
    let mut holders: BTreeMap<IpAddr, Vec<&Ask>> = BTreeMap::new();
    for (ask, has) in world.values() {
        let families: BTreeSet<bool> = has.iter().map(IpAddr::is_ipv6).collect();
        prop_assert_eq!(families.len(), has.len(), "two of a family: {:?}", has);
        prop_assert!(ask.policy != Families::Require || has.len() != 1);
        for ip in has {
            prop_assert!(judged.iter().any(|pool| pool.has(*ip)), "{ip} of no pool");
            holders.entry(*ip).or_default().push(ask);
        }
    }
    for (ip, asks) in holders {
        let mut ports = BTreeSet::new();
        for ask in &asks {
            prop_assert!(asks.len() == 1 || ask.sharing.is_some(), "{ip} not shared");
            prop_assert_eq!(&ask.sharing, &asks[0].sharing);
            for port in &ask.ports {
                prop_assert!(ports.insert(*port), "{ip}: {port:?} twice");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_address_is_given_twice_and_a_restart_changes_nothing(steps in steps()) {
        let mut world = World::new();
        let mut kind = 0;
        let mut all = balancer(&pools(kind), []);
        for step in steps.into_iter().chain([Step::Settle]) {
            match step {
                Step::Put(ask) => {
                    let has = world.get(&ask.key).map(|(_, has)| has.clone());
                    world.insert(ask.key.clone(), ((*ask).clone(), has.unwrap_or_default()));
                    all.put(*ask);
                }
                Step::Remove(n) => {
                    let key = ("default".to_owned(), format!("s{n}"));
                    world.remove(&key);
                    all.remove(&key);
                }
                Step::Pools(other) => {
                    kind = other;
                    all.set_pools(judged(&pools(kind)), false);
                }
                Step::Settle => {
                    hear(&mut world, all.settle());
                    check(&world, &pools(kind))?;
                    prop_assert!(all.settle().is_empty(), "not settled");
                }
            }
        }
        let assigned: u128 = all.counts().map(|(_, count)| count.assigned).sum();
        let distinct: BTreeSet<IpAddr> = world.values().flat_map(|(_, has)| has.clone()).collect();
        prop_assert_eq!(assigned, distinct.len() as u128);

        // A new controller, which knows only what statuses show, in another order.
        let had = world.values().rev().map(|(ask, has)| Ask { had: has.clone(), ..ask.clone() });
        let mut anew = balancer(&pools(kind), had);
        let mut after = world.clone();
        hear(&mut after, anew.settle());
        prop_assert_eq!(after, world);
    }

    #[test]
    fn the_order_in_which_services_are_seen_first_changes_nothing(
        asks in prop::collection::vec(an_ask(), 1..12), turn in 0_usize..12
    ) {
        let unique: BTreeMap<Key, Ask> = asks.into_iter().map(|ask| (ask.key.clone(), ask)).collect();
        let mut asks: Vec<Ask> = unique.into_values().collect();
        let first = balancer(&pools(1), asks.clone()).settle();
        let turn = turn % asks.len();
        asks.rotate_left(turn);
        prop_assert_eq!(balancer(&pools(1), asks).settle(), first);
    }
}
