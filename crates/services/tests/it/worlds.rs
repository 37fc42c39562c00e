//! Generated clusters, and the connections to ask about them. Names, addresses and ports are few,
//! so that Services clash, slices overlap and objects come and go.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::config::{LocalDetection, NodePortAddresses};
use model::{
    Change, Changed, Cluster, Config, Endpoint, EndpointSlice, LoadBalancerAddress, Protocol,
    Service, ServicePort, ServiceType, SlicePort, TrafficPolicy,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use services::explain::{Origin, Question};
use services::plan::{Plan, Settings};

use crate::build::{config, ip, key, node};

/// A cluster as node1 sees it.
#[derive(Clone, Debug)]
pub struct World {
    /// With all changes taken in.
    pub cluster: Cluster,
    /// Services' settings differ from world to world.
    pub config: Config,
}

impl World {
    /// The settings of `node1`.
    pub fn settings(&self) -> Settings {
        Settings::of(&self.cluster, &self.config, "node1").unwrap()
    }

    /// The plan of `node1`.
    pub fn plan(&self) -> Plan {
        Plan::of(self.settings(), &self.cluster)
    }
}

/// A cluster after some changes.
pub fn world() -> impl Strategy<Value = World> {
    (empty_world(), changes(6..40)).prop_map(|(mut world, changes)| {
        for change in changes {
            world.cluster.take(change);
        }
        world
    })
}

/// Three nodes in zones, or not, and settings.
pub fn empty_world() -> impl Strategy<Value = World> {
    let zone = || select(vec![Some("a"), Some("a"), Some("b"), None]);
    ((zone(), zone(), zone()), configs()).prop_map(|(zones, config)| {
        let mut cluster = Cluster::default();
        for (n, zone) in [(1, zones.0), (2, zones.1), (3, zones.2)] {
            cluster.take(Change::Node(node(n, zone)));
        }
        World { cluster, config }
    })
}

fn configs() -> impl Strategy<Value = Config> {
    let detection = select(vec![
        LocalDetection::ClusterCidr,
        LocalDetection::ClusterCidr,
        LocalDetection::NodeCidr,
        // Of IPv4 none of this node's own, of IPv6 a part of it.
        LocalDetection::Ranges(vec![
            "10.244.2.0/23".parse().unwrap(),
            "fd00:10:244:1::/72".parse().unwrap(),
        ]),
        LocalDetection::InterfaceNamePrefix("fn-".to_owned()),
        LocalDetection::BridgeInterface("cni0".to_owned()),
    ]);
    let ranges = |text: &[&str]| text.iter().map(|one| one.parse().unwrap()).collect();
    let addresses = select(vec![
        NodePortAddresses::All,
        NodePortAddresses::All,
        NodePortAddresses::Primary,
        NodePortAddresses::Ranges(ranges(&["10.0.1.0/24", "127.0.0.0/8"])),
        NodePortAddresses::Ranges(ranges(&["192.168.0.0/16"])),
    ]);
    let rare = || prop::bool::weighted(0.15);
    (rare(), rare(), rare(), detection, addresses).prop_map(
        |(masquerade_all, closed, single, detection, addresses)| {
            let mut config = config();
            if single {
                config.cluster_cidrs.truncate(1);
                config.service_cidrs.truncate(1);
            }
            config.services.masquerade_all = masquerade_all;
            config.services.localhost_node_ports = !closed;
            config.services.local_detection = detection;
            config.services.node_port_addresses = addresses;
            config
        },
    )
}

/// What watches may bring, in this order.
pub fn changes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Change>> {
    let gone = |name: String| ("ns".to_owned(), name);
    let change = prop_oneof![
        10 => service().prop_map(|service| Change::Service(Arc::new(service))),
        20 => slice().prop_map(|slice| Change::Slice(Arc::new(slice))),
        2 => select(&SERVICES[..]).prop_map(move |name| {
            let (namespace, name) = gone(name.to_owned());
            Change::ServiceGone(namespace, name)
        }),
        2 => slice_name().prop_map(move |(_, name)| {
            let (namespace, name) = gone(name);
            Change::SliceGone(namespace, name)
        }),
    ];
    prop::collection::vec(change, count)
}

/// Takes changes in and tells which Services they touched.
pub fn note<'a>(
    cluster: &mut Cluster,
    changes: impl IntoIterator<Item = &'a Change>,
) -> BTreeSet<model::Key> {
    let mut changed = Changed::default();
    for change in changes {
        cluster.note(change.clone(), &mut changed);
    }
    changed.services
}

const SERVICES: [&str; 5] = ["a", "b", "c", "d", "e"];
const PORTS: [(&str, Protocol, u16); 5] = [
    ("http", Protocol::Tcp, 80),
    ("alt", Protocol::Tcp, 8080),
    ("dns", Protocol::Udp, 53),
    ("dns-tcp", Protocol::Tcp, 53),
    ("media", Protocol::Sctp, 80),
];
/// Among them a ClusterIP, a node's address and one that no Service can have.
const EXTERNAL: [&str; 6] = [
    "192.0.2.1",
    "192.0.2.2",
    "2001:db8:2::1",
    "10.96.0.10",
    "10.0.1.10",
    "127.0.0.1",
];
const BALANCER: [&str; 4] = ["192.0.2.2", "192.0.2.3", "2001:db8:2::2", "2001:db8:2::1"];
const SOURCES: [&str; 6] = [
    "203.0.113.0/24",
    "10.244.0.0/16",
    "10.0.1.0/24",
    "2001:db8::/64",
    "fd00:10:0:1::/64",
    "0.0.0.0/0",
];

fn addresses(of: &'static [&'static str]) -> impl Strategy<Value = Vec<IpAddr>> {
    let count = prop_oneof![2 => Just(0), 2 => Just(1), 1 => Just(2)];
    count
        .prop_flat_map(move |count| subsequence(of.to_vec(), count))
        .prop_map(|all| all.into_iter().map(ip).collect())
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    prop_oneof![2 => Just(TrafficPolicy::Cluster), 1 => Just(TrafficPolicy::Local)]
}

fn rarely(percent: u32) -> impl Strategy<Value = bool> {
    prop::bool::weighted(f64::from(percent) / 100.0)
}

fn ports() -> impl Strategy<Value = Vec<ServicePort>> {
    let node_port = || option::weighted(0.6, 30000_u16..30004);
    let named = subsequence(PORTS.to_vec(), 1..=3);
    let list = (named, prop::collection::vec(node_port(), 3)).prop_map(|(named, node_ports)| {
        let both = named.into_iter().zip(node_ports);
        both.map(|((name, protocol, port), node_port)| ServicePort {
            name: name.to_owned(),
            protocol,
            port,
            node_port,
        })
        .collect()
    });
    let one = (select(vec![80, 443, 0]), node_port()).prop_map(|(port, node_port)| {
        vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port,
            node_port,
        }]
    });
    prop_oneof![4 => list, 1 => one]
}

/// The ClusterIPs of the n-th Service.
type ClusterIps = fn(usize) -> Vec<IpAddr>;

/// IPv4, IPv6, both in either order, none; seldom one that another has or that is out of range.
fn cluster_ips() -> impl Strategy<Value = ClusterIps> {
    let v4 = |n: usize| vec![ip(&format!("10.96.0.{}", 10 + n))];
    let v6 = |n: usize| vec![ip(&format!("fd00:10:96::{:x}", 16 + n))];
    let both = |n: usize| {
        vec![
            ip(&format!("10.96.0.{}", 10 + n)),
            ip(&format!("fd00:10:96::{:x}", 16 + n)),
        ]
    };
    let turned = |n: usize| {
        vec![
            ip(&format!("fd00:10:96::{:x}", 16 + n)),
            ip(&format!("10.96.0.{}", 10 + n)),
        ]
    };
    let kinds: Vec<(u32, ClusterIps)> = vec![
        (10, v4),
        (3, v6),
        (6, both),
        (2, turned),
        (1, |_| Vec::new()),
        (1, |_| vec![ip("10.96.0.10")]),
        (1, |_| vec![ip("172.30.0.1")]),
    ];
    proptest::strategy::Union::new_weighted(
        kinds
            .into_iter()
            .map(|(weight, kind)| (weight, Just(kind)))
            .collect(),
    )
}

/// A Service of any kind.
pub fn service() -> impl Strategy<Value = Service> {
    let kind = prop_oneof![
        3 => Just(ServiceType::ClusterIp),
        3 => Just(ServiceType::NodePort),
        4 => Just(ServiceType::LoadBalancer),
        1 => Just(ServiceType::ExternalName),
    ];
    let balancer = (addresses(&BALANCER), rarely(15));
    let sources = prop_oneof![
        2 => Just(Vec::new()),
        1 => subsequence(SOURCES.to_vec(), 1..=3),
    ];
    let affinity = prop_oneof![
        10 => Just(None),
        8 => select(vec![Some(10800), Some(5)]),
        1 => Just(Some(0)),
    ];
    let check = option::weighted(0.5, select(vec![30003_u16, 30010, 30011]));
    (
        (0..SERVICES.len(), 0..4_i64, kind, cluster_ips(), ports()),
        (addresses(&EXTERNAL), balancer, sources),
        (affinity, policy(), policy(), check),
        (rarely(4), rarely(4)),
    )
        .prop_map(|(identity, addresses, behaviour, labels)| {
            let (n, created, kind, cluster_ips, ports) = identity;
            let (external_ips, (balancer, proxied), sources) = addresses;
            let (affinity, internal_policy, external_policy, health_check_port) = behaviour;
            let ranges = sources.iter().map(|range| range.parse::<IpNet>().unwrap());
            let load_balancer = balancer
                .into_iter()
                .map(|ip| LoadBalancerAddress { ip, proxied })
                .collect();
            Service {
                namespace: "ns".to_owned(),
                name: SERVICES[n].to_owned(),
                uid: SERVICES[n].to_owned(),
                created,
                kind,
                cluster_ips: cluster_ips(n),
                external_ips,
                load_balancer,
                source_ranges: ranges.collect(),
                ports,
                affinity,
                internal_policy,
                external_policy,
                health_check_port,
                external_name: None,
                publish_not_ready: false,
                other_proxy: labels.0,
                marked_headless: labels.1,
                ..Service::default()
            }
        })
}

fn slice_name() -> impl Strategy<Value = (String, String)> {
    let service = select(vec!["a", "b", "c", "d", "e", "ghost"]);
    (service, 0..3).prop_map(|(service, n)| (service.to_owned(), format!("{service}-{n}")))
}

/// A slice of any state; some belong to a Service that is not there.
pub fn slice() -> impl Strategy<Value = EndpointSlice> {
    (rarely(30), rarely(5)).prop_flat_map(|(v6, wrong)| {
        let ports = slice_ports();
        let endpoints = prop::collection::vec(endpoint(v6, wrong), 0..8);
        (slice_name(), ports, endpoints).prop_map(move |((service, name), ports, endpoints)| {
            EndpointSlice {
                namespace: "ns".to_owned(),
                name,
                service,
                v6,
                ports,
                endpoints,
                triggered: None,
            }
        })
    })
}

/// Most of the names that Services' ports have, each with a number of its own; seldom one twice.
fn slice_ports() -> impl Strategy<Value = Vec<SlicePort>> {
    let unnamed = ("", Protocol::Tcp, 80);
    let all: Vec<_> = PORTS.iter().copied().chain([unnamed]).collect();
    let number = || {
        prop_oneof![
            20 => select(vec![Some(8080), Some(9090)]),
            1 => select(vec![None, Some(0)]),
        ]
    };
    let numbers = prop::collection::vec(number(), all.len() + 1);
    (subsequence(all, 3..=6), numbers, rarely(5)).prop_map(|(mut named, numbers, twice)| {
        if twice {
            named.extend(named.first().copied());
        }
        let both = named.into_iter().zip(numbers);
        both.map(|((name, protocol, _), port)| SlicePort {
            name: name.to_owned(),
            protocol,
            port,
        })
        .collect()
    })
}

fn endpoint(v6: bool, wrong: bool) -> impl Strategy<Value = Endpoint> {
    let address = if v6 != wrong {
        select(vec![
            "fd00:10:244:1::1",
            "fd00:10:244:1::2",
            "fd00:10:244:2::1",
            "fd00:10:244:3::1",
            "fd00:10:0:1::10",
        ])
    } else {
        select(vec![
            "10.244.1.1",
            "10.244.1.2",
            "10.244.2.1",
            "10.244.3.1",
            "10.0.1.10",
            "10.0.1.20",
        ])
    };
    let state = prop_oneof![
        6 => Just((true, true, false)),
        1 => Just((false, false, false)),
        2 => Just((false, true, true)),
        1 => Just((false, false, true)),
    ];
    let hints = |all: &'static [&'static str]| prop_oneof![1 => Just(Vec::new()), 2 => subsequence(all.to_vec(), 1..=2)];
    let hinted = rarely(60);
    let node = option::weighted(0.95, 1..4_u8);
    let zones = hints(&["a", "b", "c"]);
    let nodes = hints(&["node1", "node2", "node3"]);
    (address, state, node, zones, nodes, hinted).prop_map(
        |(address, (ready, serving, terminating), node, zones, nodes, hinted)| {
            let strings = |all: Vec<&str>| {
                let all = all.into_iter().filter(|_| hinted);
                all.map(str::to_owned).collect()
            };
            Endpoint {
                ip: ip(address),
                more: Box::default(),
                ready,
                serving,
                terminating,
                node: node.map(|n| format!("node{n}")),
                zone: None,
                hostname: None,
                pod: None,
                for_zones: strings(zones),
                for_nodes: strings(nodes),
            }
        },
    )
}

/// The connections to ask about: to each frontend that a Service asks for, whether it has it or
/// not, to the port beside it and with another protocol, to the node ports at addresses of every
/// kind, and to addresses of nobody; from a pod, from each endpoint on the node, from the node,
/// from outside and from a pod of another node.
pub fn questions(cluster: &Cluster) -> Vec<Question> {
    let mut targets: BTreeSet<(IpAddr, Protocol, u16)> = BTreeSet::new();
    for nobody in [
        "10.96.200.200",
        "198.51.100.1",
        "fd00:10:96::ffff",
        "2001:db8:9::9",
    ] {
        targets.insert((ip(nobody), Protocol::Tcp, 80));
    }
    for service in cluster.services.values() {
        let balancer = service.load_balancer.iter().map(|address| address.ip);
        let all = service.cluster_ips.iter().chain(&service.external_ips);
        let addresses: Vec<IpAddr> = all.copied().chain(balancer).collect();
        for port in &service.ports {
            let beside = port.port.saturating_add(1);
            for to in &addresses {
                targets.extend([
                    (*to, port.protocol, port.port),
                    (*to, port.protocol, beside),
                    (*to, other(port.protocol), port.port),
                ]);
            }
            for to in NODE_ADDRESSES {
                let number = port.node_port.unwrap_or(port.port);
                targets.insert((ip(to), port.protocol, number));
            }
        }
    }
    let local = sources(cluster);
    let mut all = Vec::new();
    for (destination, protocol, port) in targets {
        let to_this_node = OWN.iter().any(|own| ip(own) == destination);
        for (origin, source) in &local {
            let loopback = destination.is_loopback();
            // Nobody else can send to 127.0.0.1, and from there only to there.
            let possible = source.is_ipv6() == destination.is_ipv6()
                && source.is_loopback() == loopback
                && (!loopback || *origin == Origin::Node);
            if possible {
                all.push(Question {
                    source: *source,
                    origin: *origin,
                    destination,
                    to_this_node,
                    protocol,
                    port,
                });
            }
        }
    }
    all
}

/// Addresses of node1, by family.
const OWN: [&str; 4] = ["10.0.1.10", "127.0.0.1", "fd00:10:0:1::10", "::1"];
const NODE_ADDRESSES: [&str; 6] = [
    "10.0.1.10",
    "127.0.0.1",
    "10.0.1.20",
    "fd00:10:0:1::10",
    "::1",
    "fd00:10:0:1::20",
];

fn other(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Tcp => Protocol::Udp,
        Protocol::Udp => Protocol::Sctp,
        Protocol::Sctp => Protocol::Tcp,
    }
}

/// Who asks.
fn sources(cluster: &Cluster) -> Vec<(Origin, IpAddr)> {
    let mut all: BTreeSet<IpAddr> = BTreeSet::new();
    for slice in cluster.slices.values() {
        let endpoints = slice.endpoints.iter();
        let here = endpoints.filter(|endpoint| endpoint.node.as_deref() == Some("node1"));
        let pods = here.map(|endpoint| endpoint.ip).filter(|ip| {
            let ranges = node(1, None).pod_cidrs;
            ranges.iter().any(|range| range.contains(ip))
        });
        all.extend(pods);
    }
    all.extend([ip("10.244.1.99"), ip("fd00:10:244:1::99")]);
    let pods = all.into_iter().map(|ip| (Origin::Pod, ip));
    let node = OWN.iter().map(|own| (Origin::Node, ip(own)));
    let elsewhere = [
        "203.0.113.10",
        "2001:db8::10",
        "10.244.2.99",
        "fd00:10:244:2::99",
        "10.0.1.20",
    ];
    let elsewhere = elsewhere
        .into_iter()
        .map(|source| (Origin::Elsewhere, ip(source)));
    pods.chain(node).chain(elsewhere).collect()
}

/// The Services a generated cluster may have.
pub fn names() -> Vec<model::Key> {
    SERVICES.iter().copied().map(key).collect()
}

/// The link by which a connection comes.
pub fn link(world: &World, question: &Question) -> String {
    let pods = match &world.config.services.local_detection {
        LocalDetection::BridgeInterface(name) => name.clone(),
        LocalDetection::InterfaceNamePrefix(prefix) => format!("{prefix}0123"),
        LocalDetection::ClusterCidr | LocalDetection::NodeCidr | LocalDetection::Ranges(_) => {
            "fn-0123".to_owned()
        }
    };
    match question.origin {
        Origin::Node => String::new(),
        Origin::Pod => pods,
        Origin::Elsewhere => "eth0".to_owned(),
    }
}
