//! The Services of the table: one for each state of endpoints, pair of policies and kind of
//! source ranges, each with every kind of address in both families and over both protocols.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use model::{
    Endpoint, EndpointSlice, LoadBalancerAddress, Protocol, Service, ServicePort, ServiceType,
    SlicePort, TrafficPolicy,
};

use crate::lab::{BALANCER, CLIENT, Lab, TARGET, pod};
use crate::station::ip;

/// Port of the Services.
pub const PORT: u16 = 80;

/// One endpoint: name of the pod, ready, serving, terminating.
pub type Member = (&'static str, bool, bool, bool);

const fn ready(pod: &'static str) -> Member {
    (pod, true, true, false)
}

const fn terminating(pod: &'static str) -> Member {
    (pod, false, true, true)
}

const fn not_ready(pod: &'static str) -> Member {
    (pod, false, false, false)
}

const fn gone(pod: &'static str) -> Member {
    (pod, false, false, true)
}

/// States of endpoints. Pods `1c` and `2c` are never endpoints.
pub const STATES: [(&str, &[Member]); 11] = [
    (
        "several endpoints",
        &[ready("1a"), ready("1b"), ready("2a"), ready("2b")],
    ),
    ("one endpoint, on node 1", &[ready("1a")]),
    ("endpoints on node 2 only", &[ready("2a"), ready("2b")]),
    ("no endpoints", &[]),
    (
        "only terminating endpoints",
        &[terminating("1a"), terminating("2a")],
    ),
    (
        "a ready endpoint on node 1, a terminating one on node 2",
        &[ready("1a"), terminating("2a")],
    ),
    (
        "a ready and a terminating endpoint on each node",
        &[
            ready("1a"),
            terminating("1b"),
            terminating("2a"),
            ready("2b"),
        ],
    ),
    (
        "endpoints that are not ready",
        &[not_ready("1a"), not_ready("2a")],
    ),
    (
        "one ready endpoint, others not",
        &[not_ready("1a"), ready("1b"), gone("2a")],
    ),
    (
        "terminating endpoints that no longer serve",
        &[gone("1a"), gone("2a")],
    ),
    (
        "endpoints published though not ready",
        &[ready("1a"), ready("2a")],
    ),
];

/// What `loadBalancerSourceRanges` lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranges {
    None,
    /// The client outside.
    Client,
    /// Somebody else.
    Others,
    /// Pods and nodes of the first node.
    Node1,
}

impl Ranges {
    fn nets(self) -> Vec<IpNet> {
        let texts: &[&str] = match self {
            Self::None => &[],
            Self::Client => &["203.0.113.0/24", "2001:db8:113::/64"],
            Self::Others => &["192.0.2.128/25", "198.18.0.0/15", "2001:db8:ffff::/48"],
            Self::Node1 => &[
                "10.244.1.0/24",
                "fd00:10:244:1::/64",
                "10.0.1.10/32",
                "fd00:10:0:1::1/128",
            ],
        };
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }
}

/// One Service of the table.
pub struct Case {
    pub words: String,
    pub service: Service,
    pub members: &'static [Member],
}

impl Case {
    fn new(
        number: u8,
        (state, members): (&str, &'static [Member]),
        [internal, external]: [TrafficPolicy; 2],
        ranges: Ranges,
    ) -> Self {
        let mut words = format!("{state}, internal {internal:?}, external {external:?}");
        if ranges != Ranges::None {
            words += &format!(", source ranges {ranges:?}");
        }
        let port = |protocol: Protocol| ServicePort {
            name: protocol.word().to_lowercase(),
            protocol,
            port: PORT,
            node_port: Some(30000 + u16::from(number)),
        };
        let captured = |ip| LoadBalancerAddress { ip, proxied: false };
        let proxied = |at: &str| LoadBalancerAddress {
            ip: ip(at),
            proxied: true,
        };
        let mut load_balancer: Vec<LoadBalancerAddress> = [false, true]
            .map(|v6| captured(load_balancer(number, v6)))
            .into();
        load_balancer.extend(BALANCER.map(proxied));
        let service = Service {
            namespace: "table".into(),
            name: format!("case{number}"),
            uid: format!("uid{number}"),
            kind: ServiceType::LoadBalancer,
            cluster_ips: [false, true].map(|v6| cluster_ip(number, v6)).into(),
            external_ips: [false, true].map(|v6| external_ip(number, v6)).into(),
            load_balancer,
            source_ranges: ranges.nets(),
            ports: [Protocol::Tcp, Protocol::Udp].map(port).into(),
            internal_policy: internal,
            external_policy: external,
            publish_not_ready: state.contains("published"),
            ..Service::default()
        };
        Self {
            words,
            service,
            members,
        }
    }

    pub fn node_port(&self) -> u16 {
        self.service.ports[0].node_port.unwrap()
    }

    pub fn cluster_ip(&self, v6: bool) -> IpAddr {
        self.service.cluster_ips[usize::from(v6)]
    }

    pub fn external_ip(&self, v6: bool) -> IpAddr {
        self.service.external_ips[usize::from(v6)]
    }

    pub fn load_balancer(&self, v6: bool) -> IpAddr {
        self.service.load_balancer[usize::from(v6)].ip
    }

    /// Makes it part of the lab's cluster.
    pub fn put(&self, lab: &mut Lab) {
        let slices = [false, true].map(|v6| slice(&self.service, self.members, v6));
        lab.put(self.service.clone(), slices);
    }
}

/// The slice of a Service whose endpoints are these pods.
pub fn slice(service: &Service, members: &[Member], v6: bool) -> EndpointSlice {
    let ports = service.ports.iter().map(|port| SlicePort {
        name: port.name.clone(),
        protocol: port.protocol,
        port: Some(TARGET),
    });
    let endpoints = members.iter().map(|(name, ready, serving, terminating)| {
        let (number, ips) = pod(name);
        Endpoint {
            ip: ips[usize::from(v6)],
            more: Box::default(),
            ready: *ready,
            serving: *serving,
            terminating: *terminating,
            node: Some(format!("node{number}")),
            zone: None,
            hostname: None,
            pod: Some((*name).to_owned()),
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        }
    });
    EndpointSlice {
        namespace: service.namespace.clone(),
        name: format!("{}-{}", service.name, if v6 { "v6" } else { "v4" }),
        service: service.name.clone(),
        v6,
        ports: ports.collect(),
        endpoints: endpoints.collect(),
        triggered: None,
    }
}

/// All of them.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for state in STATES {
        for policies in policies() {
            cases.push((state, policies, Ranges::None));
        }
    }
    for state in &STATES[..3] {
        for ranges in [Ranges::Client, Ranges::Others, Ranges::Node1] {
            for policies in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
                cases.push((*state, [TrafficPolicy::Cluster, policies], ranges));
            }
        }
    }
    numbered(cases)
}

/// Those that differ in policies only, for a look at other settings.
pub fn few() -> Vec<Case> {
    let cases = STATES[..3].iter().flat_map(|state| {
        let policies = policies().into_iter();
        policies.map(|policies| (*state, policies, Ranges::None))
    });
    numbered(cases.collect())
}

type Kind = (
    (&'static str, &'static [Member]),
    [TrafficPolicy; 2],
    Ranges,
);

fn numbered(cases: Vec<Kind>) -> Vec<Case> {
    let cases = (1..).zip(cases);
    cases
        .map(|(number, (state, policies, ranges))| Case::new(number, state, policies, ranges))
        .collect()
}

fn policies() -> [[TrafficPolicy; 2]; 4] {
    use TrafficPolicy::{Cluster, Local};
    [
        [Cluster, Cluster],
        [Cluster, Local],
        [Local, Cluster],
        [Local, Local],
    ]
}

fn cluster_ip(number: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x100 + u16::from(number)).into()
    } else {
        Ipv4Addr::new(10, 96, 1, number).into()
    }
}

fn external_ip(number: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0, 0, 0, 1, number.into()).into()
    } else {
        Ipv4Addr::new(198, 51, 100, number).into()
    }
}

fn load_balancer(number: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0, 0, 0, 2, number.into()).into()
    } else {
        Ipv4Addr::new(198, 51, 101, number).into()
    }
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this pod.
    Pod(&'static str),
    /// On this node, outside of pods.
    Node(usize),
    /// Outside.
    Client,
}

impl Place {
    /// Endpoints and others on both nodes, the nodes themselves, and outside.
    pub const ALL: [Self; 7] = [
        Self::Pod("1a"),
        Self::Pod("1c"),
        Self::Pod("2a"),
        Self::Pod("2c"),
        Self::Node(0),
        Self::Node(1),
        Self::Client,
    ];

    pub fn words(self) -> String {
        match self {
            Self::Pod(name) => format!("pod {name}"),
            Self::Node(at) => format!("node {}", at + 1),
            Self::Client => "outside".to_owned(),
        }
    }

    pub fn netns(self, lab: &Lab) -> &linux::NetNs {
        match self {
            Self::Pod(name) => &lab.pod(name).station.netns,
            Self::Node(at) => &lab.nodes[at].station.netns,
            Self::Client => &lab.client.netns,
        }
    }

    pub fn ip(self, lab: &Lab, v6: bool) -> IpAddr {
        match self {
            Self::Pod(name) => lab.pod(name).ips[usize::from(v6)],
            Self::Node(at) => lab.nodes[at].ip(v6),
            Self::Client => ip(CLIENT[usize::from(v6)]),
        }
    }
}
