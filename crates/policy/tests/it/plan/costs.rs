//! A change costs by its size: as much in a large cluster as in a small one.

use std::sync::Arc;

use model::{Change, Changed};
use serde_json::json;

use super::small::{namespace, pod, policy, take, world};
use super::worlds::World;
use super::{HERE, Station};

/// As the small world, with so many more namespaces of 20 pods and 3 policies.
fn large(namespaces: u32) -> World {
    let mut world = world();
    let all = json!({"podSelector": {}, "ingress": [{"from": [
        {"namespaceSelector": {"matchLabels": {"team": "a"}},
         "podSelector": {"matchLabels": {"app": "api"}}},
        {"podSelector": {"matchLabels": {"app": "web"}}},
    ]}]});
    policy(&mut world, "shop", "all", &all);
    for n in 0..namespaces {
        let name = format!("n{n}");
        world.cluster.take(namespace(&name, "c"));
        for at in 0..20 {
            let number = n * 20 + at;
            let [_, _, b, a] = (number + 1).to_be_bytes();
            let ip = format!("10.245.{b}.{a}");
            let made = pod(&name, &format!("pod{at}"), "node2", &[&ip], "app=api");
            world.cluster.take(Change::Pod(Arc::new(made)));
        }
        for at in 0..3 {
            policy(&mut world, &name, &format!("policy{at}"), &all);
        }
    }
    world
}

/// Changes of the kernel for each of some changes of the cluster.
fn costs(mut world: World) -> Vec<usize> {
    let mut station = Station::new();
    station.follow(&world.cluster, &Changed::default(), &world.locals);
    let labelled = |marks| pod("shop", "api", "node2", &["10.244.2.5"], marks);
    let here = |marks| pod("shop", "web", HERE, &["10.244.1.5"], marks);
    let elsewhere = pod("n0", "pod0", "node2", &["10.245.0.1"], "app=web");
    let narrow = json!({"podSelector": {}, "ingress": [{"from": [
        {"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 80}]}]});
    let changes = [
        // A peer of several rules, and one of none.
        Change::Pod(Arc::new(labelled("app=none"))),
        Change::Pod(Arc::new(elsewhere)),
        Change::Pod(Arc::new(labelled("app=web"))),
        // A pod here.
        Change::Pod(Arc::new(here("app=api"))),
        namespace("data", "a"),
        namespace("n0", "a"),
        crate::objects::read(&crate::objects::policy("shop", "all", &narrow)).0,
        Change::PolicyGone("n0".into(), "policy0".into()),
        Change::PolicyGone("shop".into(), "all".into()),
    ];
    let costs = changes.into_iter().map(|change| {
        let changed = take(&mut world, change);
        station.fake.changes.clear();
        let report = station.follow(&world.cluster, &changed, &world.locals);
        report.changes
    });
    costs.collect()
}

#[test]
fn a_change_costs_by_its_size() {
    let (small, large) = (costs(large(5)), costs(large(500)));
    assert_eq!(small, large);
    // Four of each change are the generation.
    assert_eq!(small, [4 + 2, 0, 4 + 1, 4 + 4, 0, 4 + 19, 4 + 16, 0, 1]);
}
