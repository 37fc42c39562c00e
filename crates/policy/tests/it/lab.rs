//! Two nodes with the pods a, b and c of the namespaces x, y and z, and a host outside behind a
//! router, dual stack. Each node's policies are driven here, each from its own view of the
//! cluster; Services are there so that the kernel tracks and translates connections as in life.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use linux::link::NewKind;
use linux::{Host, LinkChange, NewLink, run_in};
use model::{
    Change, Changed, Cluster, Config, ContainerPort, Key, Labels, Namespace, Node, Pod, Protocol,
};
use policy::{Local, Locals, Policies, Report};
use services::Services;
use testing::station::{Station, ip, net};

use crate::server::{Server, Serving};

/// Ports of the servers in pods.
pub const PORTS: [u16; 2] = [80, 81];
/// The host outside.
pub const OUTSIDE: [&str; 2] = ["203.0.113.10", "2001:db8:113::10"];
/// How hosts outside reach the router.
const ROUTER: [&str; 2] = ["169.254.1.1", "2001:db8::1"];

/// A node.
pub struct LabNode {
    pub station: Station,
    pub host: Host,
    pub node: Node,
    pub policies: Policies,
    pub services: Services,
    /// What this node knows of the cluster.
    pub cluster: Cluster,
    /// What of that is not yet in its kernel.
    pub changed: Changed,
    pub locals: Locals,
    _serving: Serving,
}

/// A pod's network.
pub struct LabPod {
    pub station: Station,
    /// Index of its node.
    pub node: usize,
    /// Its link on the node.
    pub link: String,
    pub ips: [IpAddr; 2],
    serving: Option<Serving>,
}

/// A host outside the cluster.
pub struct LabHost {
    pub station: Station,
    pub ips: [IpAddr; 2],
    _serving: Serving,
}

pub struct Lab {
    pub nodes: Vec<LabNode>,
    /// Pods by namespace and name.
    pub pods: BTreeMap<Key, LabPod>,
    /// Hosts outside by name.
    pub hosts: BTreeMap<String, LabHost>,
    underlay: Station,
    /// The cluster as it is.
    pub cluster: Cluster,
    pub config: Config,
    pub server: Server,
    links: usize,
}

impl Lab {
    /// The nodes, without pods.
    pub fn empty() -> Self {
        let server = Server::start();
        let mut underlay = Station::new();
        underlay.forwards();
        let bridge = NewLink::new("fn-br0", NewKind::Bridge);
        underlay.netlink.create_link(&bridge).unwrap();
        underlay.address("fn-br0", "10.0.1.1/24");
        underlay.address("fn-br0", "fd00:10:0:1::ffff/64");
        let mut lab = Self {
            nodes: Vec::new(),
            pods: BTreeMap::new(),
            hosts: BTreeMap::new(),
            underlay,
            cluster: Cluster::default(),
            config: config(),
            server,
            links: 0,
        };
        for number in [1, 2] {
            lab.add_node(number);
        }
        lab.route_between();
        lab.add_host("outside", OUTSIDE.map(ip), &PORTS);
        lab
    }

    /// A host outside that serves these ports.
    pub fn add_host(&mut self, name: &str, ips: [IpAddr; 2], ports: &[u16]) {
        let mut station = Station::new();
        tune(&station);
        let link = format!("host{}", self.hosts.len());
        let router = ROUTER.map(ip);
        self.underlay.attach(&link, &mut station, ips, router);
        let host = LabHost {
            _serving: self.server.serve(&station.netns, &ips, ports),
            station,
            ips,
        };
        self.hosts.insert(name.to_owned(), host);
    }

    /// The nodes with all nine pods, on which nothing is enforced yet.
    pub fn new() -> Self {
        let mut lab = Self::empty();
        for name in NAMESPACES {
            lab.take(Change::Namespace(Arc::new(namespace(name))));
        }
        for (at, key) in keys().enumerate() {
            let pod = pod(at, &key);
            lab.start(&pod, &PORTS);
            lab.take(Change::Pod(Arc::new(pod)));
        }
        for pod in others() {
            lab.take(Change::Pod(Arc::new(pod)));
        }
        lab
    }

    fn add_node(&mut self, number: u8) {
        let node = node(number);
        let mut station = Station::new();
        station.forwards();
        tune(&station);
        let port = format!("port{number}");
        self.underlay.cable(&port, &mut station);
        let (bridge, index) = (self.underlay.index("fn-br0"), self.underlay.index(&port));
        let enslave = LinkChange {
            master: Some(bridge),
            ..LinkChange::default()
        };
        self.underlay.netlink.change_link(index, &enslave).unwrap();
        for (address, (length, all, gateway)) in node.addresses.iter().zip([
            (24, "0.0.0.0/0", ip("10.0.1.1")),
            (64, "::/0", ip("fd00:10:0:1::ffff")),
        ]) {
            station.address("eth0", &format!("{address}/{length}"));
            station.route("eth0", all, gateway);
        }
        for (range, at) in node.pod_cidrs.iter().zip(&node.addresses) {
            self.underlay.route("fn-br0", &range.to_string(), *at);
        }
        let serving = self
            .server
            .serve(&station.netns, &node.addresses, &PORTS[..1]);
        self.nodes.push(LabNode {
            host: run_in(&station.netns, Host::open).unwrap().unwrap(),
            policies: Policies::new(&node.name),
            services: Services::new(&node.name),
            cluster: Cluster::default(),
            changed: Changed::default(),
            locals: Locals::new(),
            _serving: serving,
            station,
            node: node.clone(),
        });
        self.cluster.take(Change::Node(node));
    }

    /// Each node knows the way to the other's pods.
    fn route_between(&mut self) {
        for (here, there) in [(0, 1), (1, 0)] {
            let far = self.nodes[there].node.clone();
            for (range, at) in far.pod_cidrs.iter().zip(&far.addresses) {
                let station = &mut self.nodes[here].station;
                station.route("eth0", &range.to_string(), *at);
            }
        }
        for node in self.cluster.nodes.clone().values() {
            self.take(Change::Node(node.clone()));
        }
        for at in 0..2 {
            self.serve_services(at);
        }
    }

    /// A node's Services; all nodes know them.
    pub fn serve_services(&mut self, at: usize) {
        let LabNode {
            station,
            host,
            services,
            changed,
            cluster,
            ..
        } = &mut self.nodes[at];
        let config = &self.config;
        let report = run_in(&station.netns, || {
            services.reconcile(host, cluster, changed, config)
        });
        assert_eq!(report.unwrap().errors, []);
    }

    /// A pod with its servers; the cluster hears nothing of it here.
    pub fn start(&mut self, pod: &Pod, ports: &[u16]) {
        self.attach(pod);
        self.serve(&(pod.namespace.clone(), pod.name.clone()), ports);
    }

    /// Gives a pod its network on its node, which knows of it at its next turn.
    pub fn attach(&mut self, pod: &Pod) {
        let at = usize::from(pod.node != self.nodes[0].node.name);
        let mut station = Station::new();
        tune(&station);
        self.links += 1;
        let link = format!("fn-{:011x}", self.links);
        let ips = [pod.ips[0], pod.ips[1]];
        let gateways = gateways(at);
        let node = &mut self.nodes[at];
        node.station.attach(&link, &mut station, ips, gateways);
        let key = (pod.namespace.clone(), pod.name.clone());
        let local = Local {
            pod: key.clone(),
            uid: pod.uid.clone(),
            ips: pod.ips.clone(),
        };
        node.locals.insert((pod.uid.clone(), "eth0".into()), local);
        let there = LabPod {
            station,
            node: at,
            link,
            ips,
            serving: None,
        };
        let before = self.pods.insert(key, there);
        assert!(before.is_none(), "{}/{} runs", pod.namespace, pod.name);
    }

    /// Starts a pod's servers.
    pub fn serve(&mut self, key: &Key, ports: &[u16]) {
        let server = &self.server;
        if let Some(pod) = self.pods.get_mut(key) {
            pod.serving = Some(server.serve(&pod.station.netns, &pod.ips, ports));
        }
    }

    /// Takes a pod's network away; the cluster hears nothing of it here.
    pub fn stop(&mut self, key: &Key) {
        let mut pod = self.pods.remove(key).unwrap();
        drop(pod.serving.take());
        let node = &mut self.nodes[pod.node];
        node.station.netlink.delete_link(&pod.link).unwrap();
        node.locals.retain(|_, local| local.pod != *key);
    }

    /// Takes a change in; the nodes hear of it and act on it at their next turn.
    pub fn take(&mut self, change: Change) {
        self.cluster.take(change.clone());
        for at in 0..self.nodes.len() {
            self.tell(at, change.clone());
        }
    }

    /// Only this node hears of a change.
    pub fn tell(&mut self, at: usize, change: Change) {
        let LabNode {
            cluster, changed, ..
        } = &mut self.nodes[at];
        cluster.note(change, changed);
    }

    /// One node's turn.
    pub fn turn(&mut self, at: usize) -> Report {
        self.nodes[at].turn()
    }

    /// Every node's turn, which must not fail.
    pub fn settle(&mut self) {
        for at in 0..self.nodes.len() {
            let report = self.turn(at);
            assert_eq!(report.errors, [], "node {}", at + 1);
        }
    }

    /// The pod's network.
    pub fn pod(&self, name: &str) -> &LabPod {
        &self.pods[&key(name)]
    }
}

impl LabNode {
    /// Brings what it knows to its kernel.
    pub fn turn(&mut self) -> Report {
        let changed = std::mem::take(&mut self.changed);
        self.policies
            .reconcile(&mut self.host, &self.cluster, &changed, &self.locals)
    }

    /// Its agent ends and a new one begins.
    pub fn restart(&mut self) {
        self.policies = Policies::new(&self.node.name);
    }
}

/// Lets the station ping without a raw socket; what is cut is sent again soon, and often.
fn tune(station: &Station) {
    run_in(&station.netns, || {
        linux::sysctl::write("net/ipv4/ping_group_range", "0\t2147483647").unwrap();
        let often = linux::sysctl::write_if_possible("net/ipv4/tcp_rto_max_ms", "1000");
        if often.unwrap() {
            linux::sysctl::write("net/ipv4/tcp_retries2", "255").unwrap();
        }
    })
    .unwrap();
}

pub const NAMESPACES: [&str; 3] = ["x", "y", "z"];
pub const PODS: [&str; 3] = ["a", "b", "c"];

/// All pods: `x/a` first, `z/c` last.
pub fn keys() -> impl Iterator<Item = Key> {
    NAMESPACES
        .iter()
        .flat_map(|ns| PODS.iter().map(|pod| ((*ns).into(), (*pod).into())))
}

/// `x/a` as a key.
pub fn key(name: &str) -> Key {
    let (namespace, name) = name.split_once('/').unwrap();
    (namespace.into(), name.into())
}

/// A namespace; z has no label but its name.
pub fn namespace(name: &str) -> Namespace {
    let own = [("kubernetes.io/metadata.name", name)].into_iter();
    let more: &[(&str, &str)] = match name {
        "x" => &[("ns", "x"), ("team", "red")],
        "y" => &[("ns", "y"), ("team", "blue")],
        _ => &[],
    };
    Namespace {
        name: name.into(),
        labels: own.chain(more.iter().copied()).collect(),
    }
}

/// The pod with this number: every namespace has pods on both nodes. `web` is another port in
/// each pod, and c has none of that name.
pub fn pod(number: usize, (namespace, name): &Key) -> Pod {
    let node = number % 2;
    let labels: &[(&str, &str)] = match name.as_str() {
        "a" => &[("pod", "a"), ("tier", "front")],
        "b" => &[("pod", "b"), ("tier", "back")],
        _ => &[("pod", "c")],
    };
    let port = |name: &str, protocol, port| ContainerPort {
        name: name.into(),
        protocol,
        port,
    };
    let mut ports = vec![
        port("serve-80-tcp", Protocol::Tcp, 80),
        port("serve-80-udp", Protocol::Udp, 80),
        port("serve-81-tcp", Protocol::Tcp, 81),
        port("serve-81-udp", Protocol::Udp, 81),
        port("serve-80-sctp", Protocol::Sctp, 80),
        port("serve-81-sctp", Protocol::Sctp, 81),
    ];
    match name.as_str() {
        "a" => ports.push(port("web", Protocol::Tcp, 80)),
        "b" => ports.push(port("web", Protocol::Tcp, 81)),
        _ => {}
    }
    Pod {
        namespace: namespace.clone(),
        name: name.clone(),
        uid: format!("{namespace}-{name}"),
        node: format!("node{}", node + 1),
        ips: addresses(node, 10 + number as u8).into(),
        host_network: false,
        labels: labels.iter().copied().collect::<Labels>(),
        ports,
        created: 1,
        leaving: false,
    }
}

/// Pods that have no addresses of their own, whatever selects them: one is of the host's network,
/// one was here before and is leaving.
fn others() -> [Pod; 2] {
    let host = Pod {
        name: "host".into(),
        uid: "x-host".into(),
        node: "node2".into(),
        ips: node(2).addresses,
        host_network: true,
        ..pod(1, &key("x/b"))
    };
    let before = Pod {
        name: "before".into(),
        uid: "y-before".into(),
        ips: addresses(0, 10).into(),
        node: "node1".into(),
        leaving: true,
        created: 2,
        ..pod(5, &key("y/c"))
    };
    [host, before]
}

/// The addresses of a node's pods.
pub fn addresses(node: usize, host: u8) -> [IpAddr; 2] {
    let number = node as u8 + 1;
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, number.into(), 0, 0, 0, host.into());
    [Ipv4Addr::new(10, 244, number, host).into(), v6.into()]
}

/// What pods of a node have as their gateway: addresses of the node.
pub fn gateways(node: usize) -> [IpAddr; 2] {
    addresses(node, 1)
}

pub fn node(number: u8) -> Node {
    let v6 = u16::from(number);
    Node {
        name: format!("node{number}"),
        addresses: vec![
            Ipv4Addr::new(10, 0, 1, 10 * number).into(),
            Ipv6Addr::new(0xfd00, 0x10, 0, 1, 0, 0, 0, v6).into(),
        ],
        pod_cidrs: vec![
            net(&format!("10.244.{number}.0/24")),
            net(&format!("fd00:10:244:{number:x}::/64")),
        ],
        vtep_mac: None,
        vtep_mac_v6: None,
        labels: BTreeMap::from([("rack".to_owned(), format!("r{number}"))]),
        leaving: false,
    }
}

fn config() -> Config {
    Config {
        cluster_cidrs: vec![net("10.244.0.0/16"), net("fd00:10:244::/56")],
        service_cidrs: vec![net("10.96.0.0/12"), net("fd00:10:96::/112")],
        ..Config::default()
    }
}

/// The nodes, namespaces and pods that are there at first.
pub fn beginning() -> Cluster {
    let mut cluster = Cluster::default();
    for number in [1, 2] {
        cluster.take(Change::Node(node(number)));
    }
    for name in NAMESPACES {
        cluster.take(Change::Namespace(Arc::new(namespace(name))));
    }
    for (at, key) in keys().enumerate() {
        cluster.take(Change::Pod(Arc::new(pod(at, &key))));
    }
    for pod in others() {
        cluster.take(Change::Pod(Arc::new(pod)));
    }
    cluster
}
