//! Three nodes on a bridge, each with a pod: namespaces without names, gone with their handles.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use fabric::{Fabric, Report};
use linux::link::NewKind;
use linux::{Address, Host, Mac, NetNs, Netlink, NewLink, Route, VethEnd, Vxlan, run_in, sysctl};
use model::{Cluster, Config, Node};

use crate::cluster::net;

pub struct Station {
    pub netns: NetNs,
    pub netlink: Netlink,
}

impl Station {
    pub fn new() -> Self {
        let netns = NetNs::anonymous().unwrap();
        run_in(&netns, sysctl::without_dad).unwrap().unwrap();
        let mut netlink = Netlink::open_in(&netns).unwrap();
        netlink.set_up(1).unwrap();
        Self { netns, netlink }
    }

    pub fn index(&mut self, link: &str) -> u32 {
        self.netlink.expect_link(link).unwrap().index
    }

    pub fn address(&mut self, link: &str, address: &str) {
        let dev = self.index(link);
        self.netlink
            .add_address(&Address::new(dev, net(address)))
            .unwrap();
    }

    pub fn default_route(&mut self, link: &str, gateway: IpAddr) {
        let dev = self.index(link);
        let all = if gateway.is_ipv4() {
            "0.0.0.0/0"
        } else {
            "::/0"
        };
        self.netlink
            .add_route(&Route::new(net(all), dev).via(gateway))
            .unwrap();
    }

    /// A pair from here (`name`) to `eth0` over there, both up.
    pub fn cable(&mut self, name: &str, far: &mut Station, far_name: &str, mtu: u32) {
        self.netlink
            .create_link(&NewLink {
                mtu: Some(mtu),
                ..NewLink::new(
                    name,
                    NewKind::Veth(VethEnd {
                        name: far_name,
                        netns: Some(&far.netns),
                        mtu: Some(mtu),
                        mac: None,
                    }),
                )
            })
            .unwrap();
        let index = far.index(far_name);
        far.netlink.set_up(index).unwrap();
    }

    pub fn udp(&self, address: IpAddr) -> UdpSocket {
        let socket = run_in(&self.netns, || UdpSocket::bind((address, 0)))
            .unwrap()
            .unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        socket
    }
}

pub struct LabNode {
    pub station: Station,
    pub pod: Station,
    pub fabric: Fabric,
    pub host: Host,
    pub node: Node,
}

pub struct Lab {
    pub underlay: Station,
    pub nodes: Vec<LabNode>,
    pub cluster: Cluster,
    pub config: Config,
}

impl Lab {
    /// Nodes as in [`crate::cluster::node`], not yet connected by any fabric.
    pub fn new(nodes: Vec<Node>, config: Config) -> Self {
        Self::with_mtu(nodes, config, 1450)
    }

    /// The same with another MTU of pods.
    pub fn with_mtu(nodes: Vec<Node>, config: Config, mtu: u32) -> Self {
        let mut underlay = Station::new();
        for (segment, bridge) in [(1, "fn-br0"), (2, "fn-br1")] {
            underlay
                .netlink
                .create_link(&NewLink::new(bridge, NewKind::Bridge))
                .unwrap();
            underlay.address(bridge, &format!("10.0.{segment}.1/24"));
            underlay.address(bridge, &format!("fd00:10:0:{segment}::ffff/64"));
        }
        run_in(&underlay.netns, || {
            for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                sysctl::write(key, "1").unwrap();
            }
        })
        .unwrap();
        let nodes = nodes.into_iter().enumerate();
        let nodes = nodes
            .map(|(at, node)| lab_node(&mut underlay, at, node, mtu))
            .collect();
        let mut lab = Self {
            underlay,
            nodes,
            cluster: Cluster::default(),
            config,
        };
        for at in 0..lab.nodes.len() {
            let node = lab.nodes[at].node.clone();
            lab.cluster.nodes.insert(node.name.clone(), node);
        }
        lab
    }

    /// Connects a node to another one as Flannel does, or one by hand with `ip` and `bridge`.
    pub fn by_hand(&mut self, at: usize, other: usize, tunnel: bool) {
        let other = self.nodes[other].node.clone();
        let node = self.nodes[at].node.clone();
        let station = &mut self.nodes[at].station;
        run_in(&station.netns, || {
            sysctl::write("net/ipv4/ip_forward", "1").unwrap()
        })
        .unwrap();
        let eth0 = station.index("eth0");
        let (range, remote) = (other.pod_cidrs[0], other.addresses[0]);
        if !tunnel {
            station
                .netlink
                .add_route(&Route::new(range, eth0).via(remote))
                .unwrap();
            return;
        }
        let vxlan = Vxlan {
            id: 1,
            port: 8472,
            local: Some(node.addresses[0]),
            parent: Some(eth0),
            learning: false,
        };
        let new = NewLink {
            mtu: Some(1450),
            mac: node.vtep_mac.map(Mac),
            ..NewLink::new("flannel.1", NewKind::Vxlan(vxlan))
        };
        station.netlink.create_link(&new).unwrap();
        station.address("flannel.1", &format!("{}/32", node.pod_cidrs[0].network()));
        let dev = station.index("flannel.1");
        let (gateway, mac) = (range.network(), Mac(other.vtep_mac.unwrap()));
        station
            .netlink
            .replace_neighbour(dev, gateway, mac)
            .unwrap();
        station.netlink.replace_fdb(dev, mac, remote).unwrap();
        station
            .netlink
            .add_route(&Route::new(range, dev).via_onlink(gateway))
            .unwrap();
    }

    /// Every agent's turn, until none has anything to do.
    pub fn settle(&mut self) -> Vec<Report> {
        (0..self.nodes.len()).map(|at| self.turn(at)).collect()
    }

    pub fn turn(&mut self, at: usize) -> Report {
        let LabNode {
            station,
            fabric,
            host,
            ..
        } = &mut self.nodes[at];
        let (cluster, config) = (&self.cluster, &self.config);
        run_in(&station.netns, || {
            fabric.reconcile(host, cluster, config, Instant::now())
        })
        .unwrap()
    }

    /// What the agent of a node writes to its Node object after a turn.
    pub fn publish(&mut self, at: usize, report: &Report) {
        let name = &self.nodes[at].node.name;
        let node = self.cluster.nodes.get_mut(name).unwrap();
        node.vtep_mac = report.published.v4.map(|mac| mac.0);
        node.vtep_mac_v6 = report.published.v6.map(|mac| mac.0);
    }

    pub fn pod_ip(&self, at: usize, v6: bool) -> IpAddr {
        pod_ip(&self.nodes[at].node, v6).unwrap()
    }

    /// The source address a pod's packet has when another pod gets it.
    pub fn seen(&self, from: usize, to: usize, v6: bool) -> Option<IpAddr> {
        let sender = self.nodes[from].pod.udp(self.pod_ip(from, v6));
        let receiver = self.nodes[to].pod.udp(self.pod_ip(to, v6));
        reached(&sender, &receiver)
    }

    /// That each pod reaches each, seen with its own address.
    pub fn assert_flat(&self, v6: bool) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if from != to {
                    let seen = self.seen(from, to, v6);
                    assert_eq!(seen, Some(self.pod_ip(from, v6)), "pod {from} to pod {to}");
                }
            }
        }
    }
}

/// The source address with which a packet arrives, tried until it does.
pub fn reached(sender: &UdpSocket, receiver: &UdpSocket) -> Option<IpAddr> {
    let to: SocketAddr = receiver.local_addr().unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        let _ = sender.send_to(b"hello", to);
        if let Ok((_, from)) = receiver.recv_from(&mut [0; 16]) {
            return Some(from.ip());
        }
    }
    None
}

pub fn pod_ip(node: &Node, v6: bool) -> Option<IpAddr> {
    let range = node
        .pod_cidrs
        .iter()
        .find(|range| range.addr().is_ipv6() == v6)?;
    range.hosts().nth(1)
}

fn lab_node(underlay: &mut Station, at: usize, node: Node, mtu: u32) -> LabNode {
    let mut station = Station::new();
    let port = format!("port{at}");
    underlay.cable(&port, &mut station, "eth0", 1500);
    let segment = match node.addresses[0] {
        IpAddr::V4(ip) => ip.octets()[2],
        IpAddr::V6(_) => 1,
    };
    let bridge = underlay.index(if segment == 1 { "fn-br0" } else { "fn-br1" });
    let index = underlay.index(&port);
    let change = linux::LinkChange {
        master: Some(bridge),
        ..linux::LinkChange::default()
    };
    underlay.netlink.change_link(index, &change).unwrap();
    for address in &node.addresses {
        let (length, gateway) = match address {
            IpAddr::V4(_) => (24, [10, 0, segment, 1].into()),
            IpAddr::V6(_) => (64, format!("fd00:10:0:{segment}::ffff").parse().unwrap()),
        };
        station.address("eth0", &format!("{address}/{length}"));
        station.default_route("eth0", gateway);
    }
    let mut pod = Station::new();
    station.cable("fn-0123456789a", &mut pod, "eth0", mtu);
    for range in &node.pod_cidrs {
        let gateway = range.hosts().next().unwrap();
        let ip = pod_ip(&node, range.addr().is_ipv6()).unwrap();
        let length = range.prefix_len();
        station.address("fn-0123456789a", &format!("{gateway}/{length}"));
        pod.address("eth0", &format!("{ip}/{length}"));
        pod.default_route("eth0", gateway);
    }
    let host = run_in(&station.netns, Host::open).unwrap().unwrap();
    LabNode {
        fabric: Fabric::new(&node.name),
        station,
        pod,
        host,
        node,
    }
}

pub use testing::root;
