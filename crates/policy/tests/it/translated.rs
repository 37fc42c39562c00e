//! Connections through Services: what goes out is matched after translation, what comes in by the
//! client's own address where the pod's node still sees it, and a pod reaches itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use model::{
    Change, Endpoint, EndpointSlice, Protocol, Service, ServicePort, ServiceType, SlicePort,
    TrafficPolicy,
};
use serde_json::{Value as Json, json};
use testing::station::ip;

use crate::lab::{self, Lab};
use crate::objects;
use crate::probe::{self, Outcome, Place};

/// Both lead to port 80 of x/a, which is on node 1.
const CLUSTER: u16 = 31000;
const LOCAL: u16 = 31001;

fn service(lab: &Lab, node_port: u16) -> [Change; 3] {
    let number = node_port - 31000 + 10;
    let service = Service {
        namespace: "x".into(),
        name: format!("s{node_port}"),
        uid: format!("s{node_port}"),
        kind: ServiceType::NodePort,
        cluster_ips: virtual_ips(node_port).into(),
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 8000,
            node_port: Some(node_port),
        }],
        external_policy: if node_port == LOCAL {
            TrafficPolicy::Local
        } else {
            TrafficPolicy::Cluster
        },
        created: number.into(),
        ..Service::default()
    };
    let slice = |v6: bool| EndpointSlice {
        namespace: "x".into(),
        name: format!("s{node_port}-{v6}"),
        service: service.name.clone(),
        v6,
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: Some(80),
        }],
        endpoints: vec![Endpoint {
            ip: lab.pod("x/a").ips[usize::from(v6)],
            more: Box::default(),
            ready: true,
            serving: true,
            terminating: false,
            node: Some("node1".into()),
            zone: None,
            hostname: None,
            pod: Some("a".into()),
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        }],
        triggered: None,
    };
    let slices = [false, true].map(|v6| Change::Slice(Arc::new(slice(v6))));
    let [first, second] = slices;
    [Change::Service(Arc::new(service)), first, second]
}

fn virtual_ips(node_port: u16) -> [IpAddr; 2] {
    let number = node_port - 31000 + 10;
    [
        ip(&format!("10.96.0.{number}")),
        ip(&format!("fd00:10:96::{number:x}")),
    ]
}

/// By which address a Service is asked.
#[derive(Clone, Copy, Debug)]
enum Way {
    Virtual,
    /// A node port of a node.
    Port(usize, u16),
}

impl Way {
    fn at(self, lab: &Lab, v6: bool) -> SocketAddr {
        match self {
            Self::Virtual => (virtual_ips(CLUSTER)[usize::from(v6)], 8000).into(),
            Self::Port(node, port) => (Place::Node(node).ip(lab, v6), port).into(),
        }
    }
}

fn place(name: &str) -> Place {
    match name {
        "outside" => Place::Host(name.into()),
        "node1" => Place::Node(0),
        "node2" => Place::Node(1),
        pod => Place::Pod(lab::key(pod)),
    }
}

/// A policy of namespace x, what it is about, and who then reaches the Service by which way.
type Case = (&'static str, Json, Vec<(&'static str, Way, bool)>);

fn egress(rule: &Json) -> Json {
    json!({"podSelector": {"matchExpressions": [{"key": "pod", "operator": "NotIn", "values": ["a"]}]},
        "policyTypes": ["Egress"], "egress": [rule]})
}

fn ingress(peers: &Json) -> Json {
    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": peers}]})
}

fn blocks(v4: &str, v6: &str) -> Json {
    json!([{"ipBlock": {"cidr": v4}}, {"ipBlock": {"cidr": v6}}])
}

fn cases() -> Vec<Case> {
    use Way::{Port, Virtual};
    let tcp = |port: u16| json!([{"protocol": "TCP", "port": port}]);
    let a = json!([{"podSelector": {"matchLabels": {"pod": "a"}}}]);
    let both = |allowed| vec![("x/b", Virtual, allowed), ("x/c", Virtual, allowed)];
    let client = blocks("203.0.113.10/32", "2001:db8:113::10/128");
    vec![
        (
            "out to the pod and its port behind the Service",
            egress(&json!({"to": a, "ports": tcp(80)})),
            both(true),
        ),
        (
            "out to the Service's port",
            egress(&json!({"to": a, "ports": tcp(8000)})),
            both(false),
        ),
        (
            "out to the Services' range",
            egress(&json!({"to": blocks("10.96.0.0/12", "fd00:10:96::/112")})),
            both(false),
        ),
        (
            "out to the pod's address",
            egress(&json!({"to": blocks("10.244.1.10/32", "fd00:10:244:1::a/128")})),
            both(true),
        ),
        (
            "in from a pod, by whichever node",
            ingress(&json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}},
                "podSelector": {"matchLabels": {"pod": "a"}}}])),
            vec![
                ("y/a", Virtual, true),
                ("y/b", Virtual, false),
                ("y/c", Virtual, false),
                ("z/a", Virtual, false),
                ("y/a", Port(0, CLUSTER), true),
                ("x/a", Virtual, true),
            ],
        ),
        (
            "nothing in, nothing out",
            json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
            vec![
                ("x/a", Virtual, true),
                ("x/b", Virtual, false),
                ("x/c", Virtual, false),
                ("y/a", Virtual, false),
                ("node1", Virtual, true),
                ("node1", Port(0, CLUSTER), true),
                ("node2", Virtual, false),
                ("outside", Port(0, CLUSTER), false),
            ],
        ),
        (
            "in from the client outside",
            ingress(&client),
            vec![
                ("outside", Port(0, CLUSTER), true),
                ("outside", Port(0, LOCAL), true),
                // Another node has put its own address in the client's place.
                ("outside", Port(1, CLUSTER), false),
                ("x/b", Virtual, false),
            ],
        ),
        (
            "in from the other node",
            ingress(&blocks("10.0.1.20/32", "fd00:10:0:1::2/128")),
            vec![
                ("outside", Port(0, CLUSTER), false),
                ("outside", Port(0, LOCAL), false),
                ("outside", Port(1, CLUSTER), true),
                ("node2", Virtual, true),
                ("node1", Virtual, true),
            ],
        ),
        (
            "in from all but the client outside",
            ingress(&json!([
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["203.0.113.10/32"]}},
                {"ipBlock": {"cidr": "::/0", "except": ["2001:db8:113::10/128"]}}
            ])),
            vec![
                ("outside", Port(0, CLUSTER), false),
                ("outside", Port(0, LOCAL), false),
                ("outside", Port(1, CLUSTER), true),
                ("x/b", Virtual, true),
                ("y/b", Virtual, true),
            ],
        ),
    ]
}

#[test]
fn connections_through_services_are_matched_by_their_real_ends() {
    if !testing::root("connections_through_services_are_matched_by_their_real_ends") {
        return;
    }
    let mut lab = Lab::new();
    for port in [CLUSTER, LOCAL] {
        for change in service(&lab, port) {
            lab.take(change);
        }
    }
    let mut wrong = Vec::new();
    for at in 0..2 {
        lab.serve_services(at);
    }
    for (words, spec, ways) in cases() {
        let object = objects::policy("x", "one", &spec);
        let mut check = |lab: &Lab, open: bool, when: &str| {
            for (from, way, allowed) in &ways {
                for v6 in [false, true] {
                    let to = way.at(lab, v6);
                    let expected = *allowed || open;
                    let outcome = probe::reaches(lab, &place(from), to, expected);
                    if (outcome == Outcome::Answered) != expected {
                        wrong.push(format!("{words}, {when}: {from} -> {to}: {outcome}"));
                    }
                }
            }
        };
        check(&lab, true, "without it");
        lab.take(objects::read(&object).0);
        lab.settle();
        check(&lab, false, "with it");
        lab.take(objects::gone(&object));
        lab.settle();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
