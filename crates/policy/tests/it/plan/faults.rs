//! What others do to the rules, what the kernel refuses, and restarts.

use std::sync::Arc;

use linux::Event;
use model::{Change, Changed};
use nft::{Compiled, CompiledChain, Set, Type, Value};
use policy::plan::{OPEN, Plan};
use policy::render::nftables::{TABLE, generation};
use policy::{Policies, inspect};
use serde_json::json;

use super::small::{cluster_policy, pod, policy, take, with_local, world};
use super::worlds::World;
use super::{HERE, Station, there};

const EINVAL: i32 = 22;

/// Nothing may come to pods of `data`, and of `shop` only `app=api`.
fn closed() -> World {
    let mut world = world();
    policy(&mut world, "data", "nobody", &json!({"podSelector": {}}));
    let spec = json!({
        "podSelector": {},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "api"}}}]}],
    });
    policy(&mut world, "shop", "api", &spec);
    world
}

/// A kernel that has it.
fn started(world: &World) -> Station {
    let mut station = Station::new();
    follow(&mut station, world, &Changed::default());
    station.fake.changes.clear();
    station
}

fn follow(station: &mut Station, world: &World, changed: &Changed) -> usize {
    let report = station.follow(&world.cluster, changed, &world.locals);
    report.changes
}

fn current(station: &Station) -> Option<u32> {
    station.fake.nft.get(TABLE).and_then(generation)
}

fn told(name: Option<&str>) -> Event {
    Event::Nftables {
        table: TABLE.to_owned(),
        name: name.map(str::to_owned),
    }
}

fn found(station: &mut Station) -> Vec<String> {
    inspect(&mut station.fake, station.policies.plan()).unwrap()
}

#[test]
fn what_others_flush_comes_back() {
    let world = closed();
    let mut station = started(&world);
    let before = current(&station);
    let others = Event::Nftables {
        table: "flatnet".into(),
        name: None,
    };
    assert!(!station.policies.notice(&others));
    assert_eq!(found(&mut station), Vec::<String>::new());
    station.fake.nft.clear();
    assert_eq!(
        found(&mut station),
        [
            "table flatnet-policy is missing: nothing is enforced for the 4 addresses of pods here \
          that policies are about"
        ]
    );
    assert!(station.policies.notice(&told(None)));
    // Once is enough.
    assert!(!station.policies.notice(&told(None)));
    assert!(follow(&mut station, &world, &Changed::default()) > 0);
    assert_eq!(found(&mut station), Vec::<String>::new());
    // Nobody can know who was let through meanwhile.
    assert_ne!(current(&station), before);
}

#[test]
fn what_others_change_is_told_and_put_right() {
    let world = closed();
    let mut station = started(&world);
    let whole = there(&mut station.fake);
    let table = station.fake.nft.get_mut(TABLE).unwrap();
    table.sets.get_mut("ingress4").unwrap().elements.pop_first();
    table.chains.get_mut("forward").unwrap().rules.remove(0);
    table
        .chains
        .insert("theirs".into(), CompiledChain::default());
    let mut theirs = Set::of([Type::Port]);
    theirs.add([Value::Port(80)]);
    table.sets.insert("their-set".into(), theirs.compile());
    assert_eq!(
        found(&mut station),
        [
            "chain forward has other rules",
            "set their-set is not planned",
            "chain theirs is not planned",
            "set ingress4 lacks 10.244.1.5 of pod shop/web",
        ]
    );
    assert!(station.policies.notice(&Event::Lost));
    follow(&mut station, &world, &Changed::default());
    let without_generation = |table: Option<Compiled>| {
        table.map(|mut table| {
            table.sets.remove("generation");
            table.chains.remove("judged");
            table
        })
    };
    let now = there(&mut station.fake);
    assert_eq!(without_generation(now), without_generation(whole));
}

#[test]
fn what_is_refused_is_told_and_tried_again() {
    let mut world = closed();
    let mut station = started(&world);
    let before = station.fake.nft.clone();
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    let changed = policy(&mut world, "shop", "more", &spec);
    station
        .fake
        .refuse
        .insert("add elements to set egress4".into(), EINVAL);
    let report =
        station
            .policies
            .reconcile(&mut station.fake, &world.cluster, &changed, &world.locals);
    assert_eq!(report.errors.len(), 1);
    assert!(report.errors[0].to_string().contains("set egress4"));
    assert_eq!(station.fake.nft, before);
    station.fake.refuse.clear();
    follow(&mut station, &world, &Changed::default());
    assert_ne!(station.fake.nft, before);
}

#[test]
fn what_is_not_as_thought_is_read_and_done() {
    let mut world = closed();
    let mut station = started(&world);
    // Behind its back, and nobody told.
    station.fake.nft.clear();
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    let changed = policy(&mut world, "shop", "more", &spec);
    follow(&mut station, &world, &changed);
}

#[test]
fn with_the_last_policy_the_table_goes() {
    let mut world = closed();
    let mut station = started(&world);
    let first = current(&station);
    let gone = |namespace: &str, name: &str| Change::PolicyGone(namespace.into(), name.into());
    let changed = take(&mut world, gone("shop", "api"));
    follow(&mut station, &world, &changed);
    let second = current(&station);
    assert_ne!(second, first);
    let changed = take(&mut world, gone("data", "nobody"));
    follow(&mut station, &world, &changed);
    assert_eq!(there(&mut station.fake), None);
    // Connections still bear the marks of then.
    let changed = policy(&mut world, "data", "nobody", &json!({"podSelector": {}}));
    follow(&mut station, &world, &changed);
    assert!(![None, first, second].contains(&current(&station)));
    // The last pod's leaving has it go, too.
    world.locals.clear();
    follow(&mut station, &world, &Changed::default());
    assert_eq!(there(&mut station.fake), None);
}

#[test]
fn a_new_start_changes_only_what_differs() {
    let mut world = closed();
    let mut station = started(&world);
    let before = current(&station).unwrap();
    let moved = pod("shop", "api", "node2", &["10.244.2.7"], "app=api");
    take(&mut world, Change::Pod(Arc::new(moved)));
    station.policies = Policies::new(HERE);
    // One address left each family's set and one came, and the generation.
    assert_eq!(follow(&mut station, &world, &Changed::default()), 3 + 4);
    assert_eq!(current(&station), Some(before + 1));
}

#[test]
fn nothing_is_there_without_policies() {
    let world = world();
    let mut station = Station::new();
    assert_eq!(follow(&mut station, &world, &Changed::default()), 0);
    assert_eq!(there(&mut station.fake), None);
    // Also what an agent of before left.
    station.fake.nft = started(&closed()).fake.nft;
    station.policies.resync();
    assert_eq!(found(&mut station).len(), 1);
    follow(&mut station, &world, &Changed::default());
    assert_eq!(there(&mut station.fake), None);
}

#[test]
fn a_pod_that_is_not_known_yet_is_closed_where_any_policy_may_be_about_it() {
    let mut world = world();
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    policy(&mut world, "shop", "some", &spec);
    let targets = |world: &World, namespace: &str| {
        let locals = with_local(&world.locals, namespace, "new", "10.244.1.9");
        let plan = Plan::of(HERE, &world.cluster, &locals);
        let ip = "10.244.1.9".parse().unwrap();
        let targets = plan.subjects().get(&ip).cloned().unwrap_or(OPEN);
        targets.map(|target| target == policy::plan::Target::Denied)
    };
    assert_eq!(targets(&world, "shop"), [false, true]);
    assert_eq!(targets(&world, "data"), [false, false]);
    let spec = json!({
        "tier": "Admin", "priority": 1,
        "subject": {"namespaces": {}},
        "egress": [{"action": "Accept", "to": [{"namespaces": {}}]}],
    });
    cluster_policy(&mut world, "any", &spec);
    assert_eq!(targets(&world, "data"), [true, false]);
    // Known, it is judged by its labels.
    let known = pod("shop", "new", HERE, &[], "app=other");
    take(&mut world, Change::Pod(Arc::new(known.clone())));
    assert_eq!(targets(&world, "shop"), [false, false]);
    // What is known is another pod that had the name before.
    let other = model::Pod {
        uid: "other".into(),
        ..known
    };
    take(&mut world, Change::Pod(Arc::new(other)));
    assert_eq!(targets(&world, "shop"), [true, true]);
}
