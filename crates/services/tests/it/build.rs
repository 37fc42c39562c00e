//! Objects for tests, with what every one of them has; a test writes what is special.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::{
    Change, Cluster, Config, Endpoint, EndpointSlice, Key, LoadBalancerAddress, Node, Protocol,
    Service, ServicePort, ServiceType, SlicePort,
};
use services::explain::{Answer, Origin, Question, explain};
use services::plan::{Plan, Settings};

/// The address, which the test has right.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The key of a Service in namespace `ns`.
pub fn key(name: &str) -> Key {
    ("ns".to_owned(), name.to_owned())
}

/// Node `nodeN` in a zone, as the one-machine cluster numbers them.
pub fn node(n: u8, zone: Option<&str>) -> Node {
    let zone = zone.map(|zone| ("topology.kubernetes.io/zone".to_owned(), zone.to_owned()));
    Node {
        name: format!("node{n}"),
        addresses: vec![
            ip(&format!("10.0.1.{}", 10 * n)),
            ip(&format!("fd00:10:0:1::{:x}", 16 * u16::from(n))),
        ],
        pod_cidrs: vec![
            format!("10.244.{n}.0/24").parse().unwrap(),
            format!("fd00:10:244:{n}::/64").parse().unwrap(),
        ],
        vtep_mac: None,
        vtep_mac_v6: None,
        labels: zone.into_iter().collect::<BTreeMap<_, _>>(),
        leaving: false,
    }
}

/// Dual stack, otherwise as it comes.
pub fn config() -> Config {
    Config {
        cluster_cidrs: vec![
            "10.244.0.0/16".parse().unwrap(),
            "fd00:10:244::/56".parse().unwrap(),
        ],
        service_cidrs: vec![
            "10.96.0.0/12".parse().unwrap(),
            "fd00:10:96::/112".parse().unwrap(),
        ],
        ..Config::default()
    }
}

/// An empty cluster of two nodes; node1 is in zone a, node2 in zone b.
pub fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.take(Change::Node(node(1, Some("a"))));
    cluster.take(Change::Node(node(2, Some("b"))));
    cluster
}

/// `ns/NAME` with TCP port 80, which is as old as its ClusterIP 10.96.0.N is high.
pub fn service(name: &str, n: u8) -> Service {
    Service {
        namespace: "ns".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        created: i64::from(n),
        cluster_ips: vec![ip(&format!("10.96.0.{n}"))],
        ports: vec![port("", Protocol::Tcp, 80)],
        ..Service::default()
    }
}

/// The same with an address of a balancer and a node port.
pub fn balanced(name: &str, n: u8, address: &str, node_port: u16) -> Service {
    let mut made = service(name, n);
    made.kind = ServiceType::LoadBalancer;
    made.load_balancer = vec![LoadBalancerAddress {
        ip: ip(address),
        proxied: false,
    }];
    made.ports[0].node_port = Some(node_port);
    made
}

/// A port without node port.
pub fn port(name: &str, protocol: Protocol, number: u16) -> ServicePort {
    ServicePort {
        name: name.to_owned(),
        protocol,
        port: number,
        node_port: None,
    }
}

/// A ready endpoint on `nodeN`, which is in its own address as well.
pub fn endpoint(address: &str) -> Endpoint {
    let address = ip(address);
    let n = match address {
        IpAddr::V4(v4) => u16::from(v4.octets()[2]),
        IpAddr::V6(v6) => v6.segments()[3],
    };
    Endpoint {
        ip: address,
        more: Box::default(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(format!("node{n}")),
        zone: None,
        hostname: None,
        pod: None,
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    }
}

/// The endpoint, terminating and still serving.
pub fn leaving(mut endpoint: Endpoint) -> Endpoint {
    endpoint.ready = false;
    endpoint.terminating = true;
    endpoint
}

/// The endpoint, not ready.
pub fn unready(mut endpoint: Endpoint) -> Endpoint {
    endpoint.ready = false;
    endpoint.serving = false;
    endpoint
}

/// The slice `SERVICE-SUFFIX` for port 8080/TCP, of the family of its first endpoint.
pub fn slice(service: &str, suffix: &str, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        namespace: "ns".to_owned(),
        name: format!("{service}-{suffix}"),
        service: service.to_owned(),
        v6: endpoints.first().is_some_and(|first| first.ip.is_ipv6()),
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: Some(8080),
        }],
        endpoints,
        triggered: None,
    }
}

/// Puts objects into a cluster.
pub trait Put {
    /// With this in it as well.
    fn put(self, cluster: &mut Cluster);
}

impl Put for Service {
    fn put(self, cluster: &mut Cluster) {
        cluster.take(Change::Service(Arc::new(self)));
    }
}

impl Put for EndpointSlice {
    fn put(self, cluster: &mut Cluster) {
        cluster.take(Change::Slice(Arc::new(self)));
    }
}

/// The settings of `node1`.
pub fn settings(cluster: &Cluster) -> Settings {
    Settings::of(cluster, &config(), "node1").unwrap()
}

/// The plan of `node1`.
pub fn plan(cluster: &Cluster) -> Plan {
    Plan::of(settings(cluster), cluster)
}

/// A TCP connection to `to`, which is `address:port`, by who is there: a pod of node1, node1
/// itself or the client outside. An address in 10.0.1.10 or 127.0.0.0/8 is this node's.
pub fn ask(plan: &Plan, origin: Origin, to: &str) -> Answer {
    explain(plan, &question(origin, to))
}

/// The question that [`ask`] asks.
pub fn question(origin: Origin, to: &str) -> Question {
    let (address, port) = to.rsplit_once(':').unwrap();
    let destination = ip(address.trim_matches(['[', ']']));
    let v6 = destination.is_ipv6();
    let source = match (origin, v6) {
        (Origin::Pod, false) => "10.244.1.99",
        (Origin::Pod, true) => "fd00:10:244:1::99",
        (Origin::Node, false) if destination.is_loopback() => "127.0.0.1",
        (Origin::Node, false) => "10.0.1.10",
        (Origin::Node, true) => "fd00:10:0:1::10",
        (Origin::Elsewhere, false) => "203.0.113.10",
        (Origin::Elsewhere, true) => "2001:db8::10",
    };
    let own = [ip("10.0.1.10"), ip("fd00:10:0:1::10")];
    Question {
        source: ip(source),
        origin,
        destination,
        to_this_node: own.contains(&destination) || destination.is_loopback(),
        protocol: Protocol::Tcp,
        port: port.parse().unwrap(),
    }
}
