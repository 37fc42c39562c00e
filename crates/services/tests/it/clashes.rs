//! Two Services want the same: one has it, the other is told, and gets it when it is free.

use std::collections::BTreeSet;

use model::{Change, Cluster, Protocol, Service, ServiceType, TrafficPolicy};
use services::explain::Origin::{Elsewhere, Pod};
use services::plan::{Delta, Plan};

use crate::build::{
    Put as _, ask, balanced, cluster, endpoint, ip, key, plan, port, service, slice,
};

/// Both, each with an endpoint: that of `a` is 10.244.1.1, that of `b` 10.244.1.2.
fn two(a: Service, b: Service) -> Cluster {
    let mut cluster = cluster();
    for (n, service) in [(1, a), (2, b)] {
        let address = format!("10.244.1.{n}");
        slice(&service.name, "1", vec![endpoint(&address)]).put(&mut cluster);
        service.put(&mut cluster);
    }
    cluster
}

/// Who answers there: `a`, `b` or nobody.
fn who(plan: &Plan, to: &str) -> Option<String> {
    let (name, _) = ask(plan, Elsewhere, to).frontend?;
    Some(name.name)
}

fn problems(plan: &Plan) -> Vec<String> {
    plan.problems().map(ToString::to_string).collect()
}

fn changed(delta: &Delta) -> BTreeSet<String> {
    let name = |change: &services::plan::PortChange| {
        let port = change.is.as_ref().or(change.was.as_ref()).unwrap();
        port.name.name.clone()
    };
    delta.ports.iter().map(name).collect()
}

fn update(plan: &mut Plan, cluster: &Cluster, names: &[&str]) -> Delta {
    plan.update(cluster, &names.iter().copied().map(key).collect())
}

#[test]
fn the_older_service_has_the_address_and_the_other_is_told_where_and_by_whom() {
    let mut cluster = two(
        balanced("a", 1, "192.0.2.1", 30080),
        balanced("b", 2, "192.0.2.1", 30080),
    );
    let mut plan = plan(&cluster);
    assert_eq!(who(&plan, "192.0.2.1:80").as_deref(), Some("a"));
    assert_eq!(who(&plan, "10.0.1.10:30080").as_deref(), Some("a"));
    assert_eq!(who(&plan, "10.96.0.2:80").as_deref(), Some("b"));
    assert_eq!(
        problems(&plan),
        [
            "Service ns/b: spec.ports[0].nodePort: node port 30080/TCP belongs to Service ns/a, \
             which is older; not served here until that one gives it up: take another",
            "Service ns/b: status.loadBalancer.ingress[0].ip: 192.0.2.1 port 80/TCP belongs to \
             Service ns/a, which is older; not served here until that one gives it up: take another",
        ]
    );
    // The older goes: the other has it in the same Delta.
    cluster.take(Change::ServiceGone("ns".into(), "a".into()));
    let delta = update(&mut plan, &cluster, &["a"]);
    assert_eq!(changed(&delta), ["a".to_owned(), "b".to_owned()].into());
    assert_eq!(who(&plan, "192.0.2.1:80").as_deref(), Some("b"));
    assert_eq!(who(&plan, "10.0.1.10:30080").as_deref(), Some("b"));
    assert!(problems(&plan).is_empty());
    // And loses it again to an older one.
    balanced("a", 1, "192.0.2.1", 30081).put(&mut cluster);
    update(&mut plan, &cluster, &["a"]);
    assert_eq!(who(&plan, "192.0.2.1:80").as_deref(), Some("a"));
    assert_eq!(who(&plan, "10.0.1.10:30080").as_deref(), Some("b"));
}

#[test]
fn of_two_of_the_same_age_the_first_by_name() {
    let mut younger = balanced("a", 1, "192.0.2.1", 30080);
    younger.created = 2;
    let plan = plan(&two(younger, balanced("b", 2, "192.0.2.1", 30080)));
    assert_eq!(who(&plan, "192.0.2.1:80").as_deref(), Some("a"));
}

#[test]
fn the_same_address_with_other_ports_or_protocols_is_shared() {
    let mut b = balanced("b", 2, "192.0.2.1", 30080);
    b.ports[0].protocol = Protocol::Udp;
    let shared = plan(&two(balanced("a", 1, "192.0.2.1", 30080), b.clone()));
    assert!(problems(&shared).is_empty());
    b.ports[0].protocol = Protocol::Tcp;
    b.ports[0].port = 81;
    b.ports[0].node_port = Some(30081);
    let shared = plan(&two(balanced("a", 1, "192.0.2.1", 30080), b));
    assert!(problems(&shared).is_empty());
    assert_eq!(who(&shared, "192.0.2.1:80").as_deref(), Some("a"));
    assert_eq!(who(&shared, "192.0.2.1:81").as_deref(), Some("b"));
}

#[test]
fn nobody_captures_a_cluster_ip_however_old() {
    let mut thief = service("a", 1);
    thief.external_ips = vec![ip("10.96.0.2")];
    thief.ports.push(port("other", Protocol::Tcp, 443));
    let mut cluster = two(thief, service("b", 2));
    let mut plan = plan(&cluster);
    assert_eq!(who(&plan, "10.96.0.2:80").as_deref(), Some("b"));
    // Not even a port that its owner does not have.
    assert_eq!(who(&plan, "10.96.0.2:443"), None);
    let told = problems(&plan);
    assert_eq!(told.len(), 2);
    assert!(told[0].contains("Service ns/a: spec.externalIPs[0]: 10.96.0.2 port 443/TCP"));
    assert!(told[0].contains("Service ns/b, whose ClusterIP it is"));
    // It is an address as any other where nobody has it as ClusterIP.
    cluster.take(Change::ServiceGone("ns".into(), "b".into()));
    update(&mut plan, &cluster, &["b"]);
    assert_eq!(who(&plan, "10.96.0.2:443").as_deref(), Some("a"));
    service("b", 2).put(&mut cluster);
    let delta = update(&mut plan, &cluster, &["b"]);
    assert_eq!(changed(&delta), ["a".to_owned(), "b".to_owned()].into());
    assert_eq!(who(&plan, "10.96.0.2:80").as_deref(), Some("b"));
    assert_eq!(who(&plan, "10.96.0.2:443"), None);
}

#[test]
fn a_cluster_ip_ends_the_capture_of_ports_it_does_not_have() {
    let mut other = service("a", 1);
    other.external_ips = vec![ip("10.96.0.2")];
    other.ports = vec![port("", Protocol::Udp, 53)];
    let mut cluster = two(other, service("c", 3));
    let mut plan = plan(&cluster);
    let holder = |plan: &Plan| {
        let (port, _) = plan.at(ip("10.96.0.2"), Protocol::Udp, 53)?;
        Some(port.name.name.clone())
    };
    assert_eq!(holder(&plan).as_deref(), Some("a"));
    service("b", 2).put(&mut cluster);
    let delta = update(&mut plan, &cluster, &["b"]);
    assert_eq!(changed(&delta), ["a".to_owned(), "b".to_owned()].into());
    assert_eq!(
        (holder(&plan), plan.problems_of(&key("a")).len()),
        (None, 1)
    );
    // Another asks for the same and gives up: that is nothing to those who still ask.
    let mut third = service("c", 3);
    third.external_ips = vec![ip("10.96.0.2")];
    third.ports = vec![port("", Protocol::Udp, 53)];
    for again in [third, service("c", 3)] {
        again.put(&mut cluster);
        update(&mut plan, &cluster, &["c"]);
    }
    cluster.take(Change::ServiceGone("ns".into(), "b".into()));
    update(&mut plan, &cluster, &["b"]);
    assert_eq!(holder(&plan).as_deref(), Some("a"));
}

#[test]
fn an_external_address_that_is_also_the_balancers_keeps_its_source_ranges() {
    let mut service = balanced("a", 1, "192.0.2.1", 30080);
    service.external_ips = vec![
        ip("192.0.2.1"),
        ip("10.96.0.1"),
        ip("192.0.2.5"),
        ip("192.0.2.5"),
    ];
    service.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
    let mut cluster = cluster();
    service.put(&mut cluster);
    let plan = plan(&cluster);
    let (_, frontend) = plan.at(ip("192.0.2.1"), Protocol::Tcp, 80).unwrap();
    assert!(frontend.sources.is_some());
    assert_eq!(plan.ports_of(&key("a")).next().unwrap().frontends.len(), 4);
    assert!(problems(&plan).is_empty());
}

#[test]
fn two_ports_of_one_service_do_not_share_a_place_either() {
    let mut service = service("a", 1);
    service.ports = vec![
        port("one", Protocol::Tcp, 80),
        port("two", Protocol::Tcp, 80),
    ];
    let mut cluster = cluster();
    service.put(&mut cluster);
    let plan = plan(&cluster);
    let (winner, _) = plan.at(ip("10.96.0.1"), Protocol::Tcp, 80).unwrap();
    assert_eq!(winner.name.port, "one");
    assert_eq!(
        problems(&plan),
        [
            "Service ns/a: spec.clusterIPs[0]: 10.96.0.1 port 80/TCP is that of spec.ports[0] \
             already; give this port another"
        ]
    );
}

fn checked(name: &str, n: u8, address: &str, node_port: u16, check: u16) -> Service {
    let mut made = balanced(name, n, address, node_port);
    made.external_policy = TrafficPolicy::Local;
    made.health_check_port = Some(check);
    made
}

#[test]
fn a_health_check_port_counts_ready_addresses_on_the_node_by_family() {
    let mut service = checked("a", 1, "192.0.2.1", 30080, 30099);
    service.cluster_ips.push(ip("fd00:10:96::1"));
    service.ports.push(port("second", Protocol::Tcp, 81));
    let mut cluster = cluster();
    service.clone().put(&mut cluster);
    let endpoints = ["10.244.1.1", "10.244.1.2", "10.244.2.1"].map(endpoint);
    let mut first = slice("a", "1", endpoints.to_vec());
    let mut second = first.ports[0].clone();
    second.name = "second".to_owned();
    second.port = Some(9090);
    first.ports.push(second);
    first.put(&mut cluster);
    let own = |cluster: &Cluster| {
        let plan = plan(cluster);
        plan.health()
            .get(&key("a"))
            .map(|check| (check.port, check.local_endpoints, check.local_endpoints_v6))
    };
    // Two addresses, though two ports of each.
    assert_eq!(own(&cluster), Some((30099, Some(2), Some(0))));
    // Those that leave take connections, but balancers shall not send more.
    let leaving = crate::build::leaving(endpoint("10.244.1.1"));
    slice("a", "1", vec![leaving]).put(&mut cluster);
    assert_eq!(own(&cluster), Some((30099, Some(0), Some(0))));
    for change in [
        (|service| service.external_policy = TrafficPolicy::Cluster) as fn(&mut Service),
        |service| service.kind = ServiceType::NodePort,
        |service| service.health_check_port = None,
        |service| service.ports.clear(),
    ] {
        let mut changed = service.clone();
        change(&mut changed);
        changed.put(&mut cluster);
        assert_eq!(own(&cluster), None);
    }
}

#[test]
fn of_two_health_checks_on_a_port_the_older_answers() {
    let mut cluster = two(
        checked("a", 1, "192.0.2.1", 30080, 30099),
        checked("b", 2, "192.0.2.2", 30081, 30099),
    );
    let mut plan = plan(&cluster);
    assert!(plan.health().contains_key(&key("a")) && !plan.health().contains_key(&key("b")));
    assert_eq!(
        problems(&plan),
        [
            "Service ns/b: spec.healthCheckNodePort: port 30099 answers for Service ns/a, which is \
             older; take another"
        ]
    );
    cluster.take(Change::ServiceGone("ns".into(), "a".into()));
    update(&mut plan, &cluster, &["a"]);
    assert!(plan.health().contains_key(&key("b")));
    assert!(problems(&plan).is_empty());
}

#[test]
fn a_node_port_hides_a_health_check_on_it() {
    let mut cluster = two(
        checked("a", 1, "192.0.2.1", 30080, 30099),
        balanced("b", 2, "192.0.2.2", 30099),
    );
    let mut plan = plan(&cluster);
    assert_eq!(who(&plan, "10.0.1.10:30099").as_deref(), Some("b"));
    assert_eq!(
        problems(&plan),
        [
            "Service ns/a: spec.healthCheckNodePort: port 30099 is a node port of Service ns/b, \
             which gets its connections; take another"
        ]
    );
    balanced("b", 2, "192.0.2.2", 30081).put(&mut cluster);
    update(&mut plan, &cluster, &["b"]);
    assert!(problems(&plan).is_empty());
    assert_eq!(ask(&plan, Pod, "10.0.1.10:30099").frontend, None);
}
