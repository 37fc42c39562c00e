//! Two nodes with three pods each and a client outside behind a router, dual stack, connected by
//! the real fabric; each node's Services run inside its namespace on a cluster made by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use fabric::Fabric;
use ipnet::IpNet;
use linux::link::NewKind;
use linux::{Host, LinkChange, NewLink, run_in};
use model::config::{FabricMode, ServicesMode};
use model::{Change, Changed, Cluster, Config, EndpointSlice, Node, Service};
use services::{Report, Services};

use crate::echo::Server;
use crate::station::{Station, ip, net};

pub const MODES: [ServicesMode; 2] = [ServicesMode::Nftables, ServicesMode::Iptables];
/// Port of the servers in pods.
pub const TARGET: u16 = 8080;
/// A balancer outside that ends connections itself, at port 80.
pub const BALANCER: [&str; 2] = ["192.0.2.1", "2001:db8:2::1"];

/// A node.
pub struct LabNode {
    pub station: Station,
    pub host: Host,
    pub services: Services,
    pub node: Node,
    changed: Changed,
}

impl LabNode {
    pub fn ip(&self, v6: bool) -> IpAddr {
        self.node.addresses[usize::from(v6)]
    }
}

/// A pod.
pub struct Pod {
    /// Its node's number and its own letter, for example `1a`.
    pub name: String,
    /// Index of its node.
    pub node: usize,
    pub station: Station,
    pub ips: [IpAddr; 2],
    _server: Server,
}

pub struct Lab {
    pub nodes: Vec<LabNode>,
    pub pods: Vec<Pod>,
    pub client: Station,
    pub underlay: Station,
    pub cluster: Cluster,
    pub config: Config,
    _balancer: Server,
}

pub const CLIENT: [&str; 2] = ["203.0.113.10", "2001:db8:113::10"];
const CLIENT_GATEWAY: [&str; 2] = ["203.0.113.1", "2001:db8:113::1"];

impl Lab {
    /// Two nodes of three pods.
    pub fn new(mode: ServicesMode) -> Self {
        Self::with_pods(mode, [3, 3])
    }

    /// A node for each number, of so many pods; Services are not yet applied.
    pub fn with_pods(mode: ServicesMode, pods: impl IntoIterator<Item = u8>) -> Self {
        let mut underlay = Station::new();
        underlay.forwards();
        let bridge = NewLink::new("fn-br0", NewKind::Bridge);
        underlay.netlink.create_link(&bridge).unwrap();
        underlay.address("fn-br0", "10.0.1.1/24");
        underlay.address("fn-br0", "fd00:10:0:1::ffff/64");
        let (client, balancer) = outside(&mut underlay);
        let mut lab = Self {
            nodes: Vec::new(),
            pods: Vec::new(),
            client,
            underlay,
            cluster: Cluster::default(),
            config: config(mode),
            _balancer: balancer,
        };
        for (number, pods) in (1..).zip(pods) {
            lab.add_node(number, pods);
        }
        lab.connect();
        lab
    }

    fn add_node(&mut self, number: u8, pods: u8) {
        let node = node(number);
        let mut station = Station::new();
        station.forwards();
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
        // The router knows the pods of all nodes; what belongs to Services it sends to the first.
        for (range, at) in node.pod_cidrs.iter().zip(&node.addresses) {
            self.underlay.route("fn-br0", &range.to_string(), *at);
        }
        if number == 1 {
            for (range, v6) in VIRTUAL {
                let at = node.addresses[usize::from(v6)];
                self.underlay.route("fn-br0", range, at);
            }
        }
        for letter in 0..pods {
            let mut station_of_pod = Station::new();
            let name = format!("{number}{}", char::from(b'a' + letter));
            let (_, ips) = pod(&name);
            let gateways = [
                Ipv4Addr::new(10, 244, number, 1).into(),
                Ipv6Addr::new(0xfd00, 0x10, 0x244, number.into(), 0, 0, 0, 1).into(),
            ];
            station.attach(
                &format!("fn-{name:0>11}"),
                &mut station_of_pod,
                ips,
                gateways,
            );
            let at = ips.map(|ip| (ip, TARGET).into());
            self.pods.push(Pod {
                _server: Server::start(&name, &station_of_pod.netns, &at),
                name,
                node: self.nodes.len(),
                station: station_of_pod,
                ips,
            });
        }
        self.cluster.take(Change::Node(node.clone()));
        self.nodes.push(LabNode {
            host: run_in(&station.netns, Host::open).unwrap().unwrap(),
            services: Services::new(&node.name),
            station,
            node,
            changed: Changed::default(),
        });
    }

    fn connect(&mut self) {
        for at in 0..self.nodes.len() {
            let LabNode {
                station,
                host,
                node,
                ..
            } = &mut self.nodes[at];
            let (cluster, config) = (&self.cluster, &self.config);
            let report = run_in(&station.netns, || {
                Fabric::new(&node.name).reconcile(host, cluster, config, Instant::now())
            });
            assert_eq!(report.unwrap().errors, []);
        }
    }

    /// Takes a change in; the nodes hear of it at their next turn.
    pub fn take(&mut self, change: Change) {
        let mut changed = Changed::default();
        self.cluster.note(change, &mut changed);
        for node in &mut self.nodes {
            node.changed.services.extend(changed.services.clone());
            node.changed.nodes.extend(changed.nodes.clone());
        }
    }

    pub fn put(&mut self, service: Service, slices: impl IntoIterator<Item = EndpointSlice>) {
        self.take(Change::Service(Arc::new(service)));
        for slice in slices {
            self.take(Change::Slice(Arc::new(slice)));
        }
    }

    /// One node's turn.
    pub fn turn(&mut self, at: usize) -> Report {
        let LabNode {
            station,
            host,
            services,
            changed,
            ..
        } = &mut self.nodes[at];
        let (cluster, config) = (&self.cluster, &self.config);
        let changed = std::mem::take(changed);
        run_in(&station.netns, || {
            services.reconcile(host, cluster, &changed, config)
        })
        .unwrap()
    }

    /// Every node's turn, which must not fail.
    pub fn settle(&mut self) {
        for at in 0..self.nodes.len() {
            let report = self.turn(at);
            assert_eq!(report.errors, [], "node {}", at + 1);
            assert_eq!(report.problems, [], "node {}", at + 1);
        }
    }

    /// The node's agent ends and a new one begins.
    pub fn restart(&mut self, at: usize) {
        self.nodes[at].services = Services::new(&self.nodes[at].node.name);
    }

    pub fn pod(&self, name: &str) -> &Pod {
        let pod = self.pods.iter().find(|pod| pod.name == name);
        pod.unwrap()
    }

    /// The name of the pod that has this address.
    pub fn pod_at(&self, ip: IpAddr) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.ips.contains(&ip))
    }
}

/// Ranges of virtual addresses, and whether they are of IPv6: Services', external and balancers'.
const VIRTUAL: [(&str, bool); 4] = [
    ("10.96.0.0/12", false),
    ("198.51.100.0/23", false),
    ("fd00:10:96::/112", true),
    ("2001:db8:198::/64", true),
];

/// The client, and a balancer that ends connections itself beside it.
fn outside(underlay: &mut Station) -> (Station, Server) {
    let mut client = Station::new();
    underlay.cable("client", &mut client);
    for (at, (length, all)) in [(24, "0.0.0.0/0"), (64, "::/0")].into_iter().enumerate() {
        underlay.address("client", &format!("{}/{length}", CLIENT_GATEWAY[at]));
        client.address("eth0", &format!("{}/{length}", CLIENT[at]));
        client.route("eth0", all, ip(CLIENT_GATEWAY[at]));
        let balancer = IpNet::from(ip(BALANCER[at])).to_string();
        underlay.route("client", &balancer, ip(CLIENT[at]));
        client.address("lo", &balancer);
    }
    let at = BALANCER.map(|balancer| (ip(balancer), 80).into());
    let server = Server::start("balancer", &client.netns, &at);
    (client, server)
}

pub fn config(mode: ServicesMode) -> Config {
    let mut config = Config {
        cluster_cidrs: vec![net("10.244.0.0/16"), net("fd00:10:244::/56")],
        service_cidrs: vec![net("10.96.0.0/12"), net("fd00:10:96::/112")],
        ..Config::default()
    };
    config.fabric.mode = FabricMode::HostGw;
    config.services.mode = mode;
    config
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
        labels: Default::default(),
        leaving: false,
    }
}

/// The number of a pod's node and its addresses, by its name.
pub fn pod(name: &str) -> (u8, [IpAddr; 2]) {
    let (number, letter) = (name.as_bytes()[0] - b'0', name.as_bytes()[1] - b'a');
    let (node, host) = (u16::from(number), u16::from(letter) + 2);
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, node, 0, 0, 0, host);
    let v4 = Ipv4Addr::new(10, 244, number, letter + 2);
    (number, [v4.into(), v6.into()])
}
