//! The same objects in any order, split and repeated, end as the same rules in a real kernel.

use linux::{Host, Kernel, NetNs, run_in};
use model::{Changed, Cluster};
use nft::Family;
use policy::Policies;
use policy::render::nftables::TABLE;

use crate::lab;
use crate::random::Random;
use crate::{cases, fake, left, objects};

/// Everything there is to know in a cluster with the policies of these cases.
fn news(random: &mut Random) -> Vec<model::Change> {
    let cluster = lab::beginning();
    let mut news: Vec<model::Change> = Vec::new();
    news.extend(cluster.nodes.values().cloned().map(model::Change::Node));
    let namespaces = cluster.namespaces.values().cloned();
    news.extend(namespaces.map(model::Change::Namespace));
    news.extend(cluster.pods.values().cloned().map(model::Change::Pod));
    let groups = cases::groups();
    for number in 0..8 {
        let (_, cases) = &groups[random.below(groups.len())];
        for object in &cases[random.below(cases.len())].objects {
            let mut object = object.clone();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            object["metadata"]["name"] = format!("{name}-{number}").into();
            news.push(objects::read(&object).0);
        }
    }
    news
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for at in (1..items.len()).rev() {
        items.swap(at, random.below(at + 1));
    }
}

#[test]
fn the_order_of_news_leaves_no_trace() {
    if !testing::root("the_order_of_news_leaves_no_trace") {
        return;
    }
    let mut random = Random(7);
    for round in 0..30 {
        let mut news = news(&mut random);
        let mut whole = Cluster::default();
        for change in &news {
            whole.take(change.clone());
        }
        let locals = fake::locals(&whole, "node1");
        let fresh = fake::rules("node1", &whole, &locals);
        let netns = NetNs::anonymous().unwrap();
        let mut host = run_in(&netns, Host::open).unwrap().unwrap();
        for order in 0..3 {
            shuffle(&mut news, &mut random);
            let (mut policies, mut cluster) = (Policies::new("node1"), Cluster::default());
            let mut rest = &news[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(1 + random.below(6)));
                let mut changed = Changed::default();
                for change in now {
                    cluster.note(change.clone(), &mut changed);
                }
                // Now and then the same is heard again.
                for _ in 0..1 + random.below(2) {
                    let report = policies.reconcile(&mut host, &cluster, &changed, &locals);
                    assert_eq!(report.errors, []);
                }
                if random.chance(8) {
                    policies = Policies::new("node1");
                }
                rest = later;
            }
            let here = host.nft_table(Family::Inet, TABLE).unwrap();
            let (here, fresh) = (left::lines(here.as_ref()), left::lines(fresh.as_ref()));
            assert_eq!(here, fresh, "round {round}, order {order}");
        }
    }
}
