//! A small cluster, policies as users write them.

use std::net::IpAddr;
use std::sync::Arc;

use model::{Change, Changed, ContainerPort, Labels, Namespace, Pod, Protocol};
use policy::{Local, Locals};
use serde_json::Value as Json;

use super::HERE;
use super::worlds::World;
use crate::objects;

/// Labels as in `app=web,tier=front`.
pub fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.collect()
}

/// A namespace with a label `team`.
pub fn namespace(name: &str, team: &str) -> Change {
    let labels = Labels::from([("kubernetes.io/metadata.name", name), ("team", team)]);
    let name = name.to_owned();
    Change::Namespace(Arc::new(Namespace { name, labels }))
}

/// A pod; its port 8080 is called `http`.
pub fn pod(namespace: &str, name: &str, node: &str, ips: &[&str], marks: &str) -> Pod {
    Pod {
        namespace: namespace.into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        node: node.into(),
        ips: ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect(),
        host_network: false,
        labels: labels(marks),
        ports: vec![ContainerPort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        created: 0,
        leaving: false,
    }
}

/// `shop` with `web` (here) and `api`, `data` with `db` (here) and `job`; both families.
pub fn world() -> World {
    let mut world = World::default();
    for (name, team) in [("shop", "a"), ("data", "b")] {
        world.cluster.take(namespace(name, team));
    }
    for (at, name, node, ips, marks) in [
        (
            "shop",
            "web",
            HERE,
            ["10.244.1.5", "fd00:10:244:1::5"],
            "app=web",
        ),
        (
            "shop",
            "api",
            "node2",
            ["10.244.2.5", "fd00:10:244:2::5"],
            "app=api",
        ),
        (
            "data",
            "db",
            HERE,
            ["10.244.1.6", "fd00:10:244:1::6"],
            "app=db",
        ),
        (
            "data",
            "job",
            "node2",
            ["10.244.2.6", "fd00:10:244:2::6"],
            "app=job",
        ),
    ] {
        let pod = pod(at, name, node, &ips, marks);
        world.cluster.take(Change::Pod(Arc::new(pod)));
    }
    world.locals = world.locals_of(HERE);
    world
}

/// A world's pods here, with one more that is attached and not known yet.
pub fn with_local(locals: &Locals, namespace: &str, name: &str, ip: &str) -> Locals {
    let mut locals = locals.clone();
    let local = Local {
        pod: (namespace.to_owned(), name.to_owned()),
        uid: format!("uid-{name}"),
        ips: vec![ip.parse().unwrap()],
    };
    locals.insert((format!("container-{name}"), "eth0".to_owned()), local);
    locals
}

/// Takes a policy of a namespace, by its specification.
pub fn policy(world: &mut World, namespace: &str, name: &str, spec: &Json) -> Changed {
    take(
        world,
        objects::read(&objects::policy(namespace, name, spec)).0,
    )
}

/// Takes a ClusterNetworkPolicy, by its specification.
pub fn cluster_policy(world: &mut World, name: &str, spec: &Json) -> Changed {
    take(world, objects::read(&objects::cluster_policy(name, spec)).0)
}

/// Takes a change; what it touched.
pub fn take(world: &mut World, change: Change) -> Changed {
    let mut changed = Changed::default();
    world.cluster.note(change, &mut changed);
    changed
}
