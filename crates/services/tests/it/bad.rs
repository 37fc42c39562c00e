//! Bad input: served as Kubernetes does or refused by itself, and never to another's harm.

use std::time::Instant;

use model::{Cluster, Protocol, Service, SlicePort};
use services::explain::Origin::Pod;
use services::explain::Verdict;
use services::plan::Plan;

use crate::build::{
    Put as _, ask, cluster, endpoint, ip, key, plan, port, service, settings, slice,
};

/// With a Service beside it that nothing may disturb.
fn beside(service: Service) -> Cluster {
    let mut cluster = cluster();
    service.put(&mut cluster);
    crate::build::service("good", 9).put(&mut cluster);
    slice("good", "1", vec![endpoint("10.244.1.9")]).put(&mut cluster);
    cluster
}

fn good(plan: &Plan) {
    let answer = ask(plan, Pod, "10.96.0.9:80");
    assert!(matches!(answer.verdict, Verdict::Forward { .. }));
    assert!(plan.problems_of(&key("good")).is_empty());
}

fn problems(plan: &Plan) -> Vec<String> {
    plan.problems().map(ToString::to_string).collect()
}

#[test]
fn port_zero_is_refused_by_itself() {
    let mut made = service("a", 1);
    made.ports = vec![
        port("zero", Protocol::Tcp, 0),
        port("web", Protocol::Tcp, 80),
    ];
    made.ports[1].node_port = Some(0);
    let plan = plan(&beside(made));
    assert_eq!(
        problems(&plan),
        ["Service ns/a: spec.ports[0].port: 0 is no port, not served; ports are 1 to 65535"]
    );
    assert_eq!(plan.ports_of(&key("a")).count(), 1);
    good(&plan);
}

#[test]
fn addresses_that_no_service_can_have_are_refused() {
    let mut made = service("a", 1);
    made.external_ips = ["0.0.0.0", "127.0.0.1", "224.0.0.1", "192.0.2.1"]
        .map(ip)
        .to_vec();
    let plan = plan(&beside(made));
    let told = problems(&plan);
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(
        told[1],
        "Service ns/a: spec.externalIPs[1]: 127.0.0.1 is a loopback address, not served; take it \
         off the list"
    );
    assert!(plan.at(ip("192.0.2.1"), Protocol::Tcp, 80).is_some());
    assert!(plan.at(ip("127.0.0.1"), Protocol::Tcp, 80).is_none());
    good(&plan);
}

#[test]
fn a_cluster_ip_out_of_range_is_served_and_told() {
    let mut made = service("a", 1);
    made.cluster_ips = vec![ip("172.30.0.1")];
    let mut cluster = beside(made);
    slice("a", "1", vec![endpoint("10.244.1.1")]).put(&mut cluster);
    let plan = plan(&cluster);
    let answer = ask(&plan, Pod, "172.30.0.1:80");
    assert!(matches!(answer.verdict, Verdict::Forward { .. }));
    assert!(
        problems(&plan)[0].starts_with(
            "Service ns/a: spec.clusterIPs[0]: 172.30.0.1 is outside the service ranges"
        )
    );
    good(&plan);
}

#[test]
fn endpoints_of_the_wrong_family_and_ports_without_number_are_told_once_a_slice() {
    let mut cluster = beside(service("a", 1));
    let mut wrong = slice(
        "a",
        "1",
        ["10.244.1.1", "fd00:10:244:1::1", "fd00:10:244:1::2"]
            .map(endpoint)
            .to_vec(),
    );
    wrong.ports.push(SlicePort {
        port: None,
        ..wrong.ports[0].clone()
    });
    wrong.ports.push(SlicePort {
        port: Some(0),
        ..wrong.ports[0].clone()
    });
    wrong.put(&mut cluster);
    let plan = plan(&cluster);
    let ports: Vec<_> = plan.ports_of(&key("a")).collect();
    assert_eq!(ports[0].cluster.len(), 1);
    assert_eq!(
        problems(&plan),
        [
            "EndpointSlice ns/a-1: endpoints[1].addresses: fd00:10:244:1::1 is not of addressType \
             IPv4, and 1 more of it; not served: each family has its own slices",
            "EndpointSlice ns/a-1: ports[1].port: no port number, so its endpoints are not served; \
             a Service's port needs one of 1 to 65535",
            "EndpointSlice ns/a-1: ports[2].port: no port number, so its endpoints are not served; \
             a Service's port needs one of 1 to 65535",
        ]
    );
    good(&plan);
}

#[test]
fn a_slice_may_come_before_its_service() {
    let mut cluster = cluster();
    slice("a", "1", vec![endpoint("10.244.1.1")]).put(&mut cluster);
    let mut plan = Plan::new(settings(&cluster));
    let update = |plan: &mut Plan, cluster: &Cluster| plan.update(cluster, &[key("a")].into());
    assert!(update(&mut plan, &cluster).ports.is_empty());
    assert!(problems(&plan).is_empty());
    service("a", 1).put(&mut cluster);
    assert_eq!(update(&mut plan, &cluster).ports.len(), 1);
    assert_eq!(plan.ports_of(&key("a")).next().unwrap().cluster.len(), 1);
}

#[test]
fn a_port_name_twice_in_a_slice_is_both_numbers_and_twice_in_a_service_is_told() {
    let mut made = service("a", 1);
    made.ports = vec![
        port("web", Protocol::Tcp, 80),
        port("web", Protocol::Tcp, 81),
    ];
    let mut cluster = beside(made);
    let mut twice = slice("a", "1", vec![endpoint("10.244.1.1")]);
    twice.ports[0].name = "web".to_owned();
    twice.ports.push(SlicePort {
        port: Some(9090),
        ..twice.ports[0].clone()
    });
    twice.put(&mut cluster);
    let plan = plan(&cluster);
    let ports: Vec<_> = plan.ports_of(&key("a")).collect();
    assert_eq!((ports.len(), ports[0].port), (1, 81));
    let numbers: Vec<u16> = ports[0].cluster.iter().map(|one| one.port).collect();
    assert_eq!(numbers, [8080, 9090]);
    assert_eq!(
        problems(&plan),
        [
            "Service ns/a: spec.ports[0].name: a later TCP port is named \"web\" too, and that one \
             is served; give each its own name"
        ]
    );
    good(&plan);
}

#[test]
fn affinity_of_no_time_is_none() {
    let mut made = service("a", 1);
    made.affinity = Some(0);
    let plan = plan(&beside(made));
    assert_eq!(plan.ports_of(&key("a")).next().unwrap().affinity, None);
    assert_eq!(
        problems(&plan),
        [
            "Service ns/a: spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 seconds of \
             affinity is none; at least 1 is needed"
        ]
    );
}

#[test]
fn long_names_many_ports_and_full_slices_are_planned() {
    let name = "n".repeat(63);
    let mut made = service(&name, 1);
    made.ports = (1..=150_u16)
        .map(|n| port(&format!("p{n}"), Protocol::Tcp, n))
        .collect();
    let mut cluster = beside(made);
    for s in 0..3_u8 {
        let endpoints = (0..1000_u16)
            .map(|n| endpoint(&format!("10.244.{}.{}", 1 + n / 250, n % 250 + 1)))
            .collect();
        let mut full = slice(&name, &s.to_string(), endpoints);
        full.ports = (1..=150_u16)
            .map(|n| SlicePort {
                name: format!("p{n}"),
                protocol: Protocol::Tcp,
                port: Some(8000 + n),
            })
            .collect();
        full.put(&mut cluster);
    }
    let start = Instant::now();
    let plan = plan(&cluster);
    assert_eq!(plan.ports_of(&key(&name)).count(), 150);
    // The same thousand in all three slices.
    assert!(
        plan.ports_of(&key(&name))
            .all(|port| port.cluster.len() == 1000)
    );
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    good(&plan);
}
