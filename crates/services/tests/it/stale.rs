//! Which flows the kernel is made to forget, on the fake kernel.

use std::net::SocketAddr;

use linux::conntrack::{DST_NAT, Flow, Tuple};
use linux::fake::Fake;
use model::config::ServicesMode;
use model::{Change, Changed, Cluster, Service};
use services::Services;

use crate::cases::{Member, slice};
use crate::lab::{TARGET, config, node, pod};
use crate::spread::service;

const UDP: u8 = 17;

/// A node of which only the flows are looked at.
struct Node {
    fake: Fake,
    services: Services,
    cluster: Cluster,
    changed: Changed,
}

impl Node {
    fn new() -> Self {
        let mut cluster = Cluster::default();
        for number in [1, 2] {
            cluster.take(Change::Node(node(number)));
        }
        Self {
            fake: Fake::host(&["10.0.1.10/24", "fd00:10:0:1::1/64"]),
            services: Services::new("node1"),
            cluster,
            changed: Changed::default(),
        }
    }

    fn put(&mut self, service: &Service, members: &[Member]) {
        let slices = [false, true].map(|v6| Change::Slice(slice(service, members, v6).into()));
        self.take(Change::Service(service.clone().into()));
        slices.into_iter().for_each(|slice| self.take(slice));
    }

    fn take(&mut self, change: Change) {
        self.cluster.note(change, &mut self.changed);
    }

    fn turn(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        let (fake, cluster) = (&mut self.fake, &self.cluster);
        let config = config(ServicesMode::Nftables);
        let services = &mut self.services;
        let report = services.reconcile(fake, cluster, &changed, &config);
        assert_eq!(report.errors, []);
    }

    /// A flow to `to`, answered by `by`; its number tells it from others.
    fn flow(&mut self, id: u32, proto: u8, to: &str, by: &str) {
        let (to, by): (SocketAddr, SocketAddr) = (to.parse().unwrap(), by.parse().unwrap());
        let from = pod("1c").1[usize::from(to.is_ipv6())];
        let tuple = |src: SocketAddr, dst: SocketAddr| Tuple {
            src: src.ip(),
            dst: dst.ip(),
            sport: src.port(),
            dport: dst.port(),
        };
        let from = SocketAddr::new(from, 40_000);
        let flow = Flow::new(proto, tuple(from, to), tuple(by, from));
        self.fake.flows.push(Flow {
            id,
            status: if to == by { 0 } else { DST_NAT },
            ..flow
        });
    }

    /// The flows that are there.
    fn left(&self) -> Vec<u32> {
        self.fake.flows.iter().map(|flow| flow.id).collect()
    }
}

fn at(name: &str, v6: bool) -> String {
    SocketAddr::new(pod(name).1[usize::from(v6)], TARGET).to_string()
}

const READY: [Member; 3] = [
    ("1a", true, true, false),
    ("1b", true, true, false),
    ("2a", true, true, false),
];

#[test]
fn a_flow_goes_with_its_endpoint_and_no_other() {
    let mut node = Node::new();
    node.put(&service(1), &READY);
    node.turn();
    let (gone, stays) = (at("1a", false), at("1b", false));
    node.flow(1, UDP, "10.96.2.1:80", &gone);
    node.flow(2, UDP, "10.96.2.1:80", &stays);
    node.flow(3, UDP, "10.0.1.10:31001", &gone);
    node.flow(4, UDP, "127.0.0.1:31001", &gone);
    node.flow(5, UDP, "[fd00:10:96::201]:80", &at("1a", true));
    // TCP, another port, another host's port of the same number, another Service's.
    node.flow(6, 6, "10.96.2.1:80", &gone);
    node.flow(7, UDP, "10.96.2.1:81", "10.96.2.1:81");
    node.flow(8, UDP, "10.0.1.20:31001", "10.0.1.20:31001");
    node.flow(9, UDP, "198.51.100.1:31001", "198.51.100.1:31001");
    node.put(&service(1), &READY[1..]);
    node.turn();
    assert_eq!(node.left(), [2, 6, 7, 8, 9]);
}

#[test]
fn a_terminating_endpoint_keeps_its_flows_while_it_serves() {
    let mut node = Node::new();
    node.put(&service(1), &READY);
    node.turn();
    node.flow(1, UDP, "10.96.2.1:80", &at("1a", false));
    let mut members = READY;
    members[0] = ("1a", false, true, true);
    node.put(&service(1), &members);
    node.turn();
    assert_eq!(node.left(), [1]);
    // No rule changes by this one.
    members[0] = ("1a", false, false, true);
    node.put(&service(1), &members);
    node.turn();
    assert_eq!(node.left(), []);
}

#[test]
fn what_came_before_its_service_is_translated_from_then_on() {
    let mut node = Node::new();
    node.turn();
    node.flow(1, UDP, "10.96.2.1:80", "10.96.2.1:80");
    node.flow(2, UDP, "10.0.1.10:31001", "10.0.1.10:31001");
    node.put(&service(1), &[]);
    node.turn();
    node.put(&service(1), &READY);
    node.turn();
    assert_eq!(node.left(), []);
}

#[test]
fn a_service_that_goes_takes_its_flows_along() {
    let mut node = Node::new();
    node.put(&service(1), &READY);
    node.turn();
    node.flow(1, UDP, "10.96.2.1:80", &at("1a", false));
    node.flow(2, UDP, "10.0.1.10:31001", &at("1a", false));
    // Of somebody who has the port himself.
    node.flow(3, UDP, "10.0.1.10:31001", "10.0.1.10:31001");
    let (namespace, name) = service(1).key();
    node.take(Change::ServiceGone(namespace, name));
    node.turn();
    assert_eq!(node.left(), [3]);
}

#[test]
fn a_new_agent_finds_what_became_stale_meanwhile() {
    let mut node = Node::new();
    node.put(&service(1), &READY[..1]);
    node.flow(1, UDP, "10.96.2.1:80", &at("1a", false));
    node.flow(2, UDP, "10.96.2.1:80", &at("1b", false));
    node.flow(3, UDP, "10.96.2.1:80", "10.96.2.1:80");
    node.flow(4, UDP, "10.0.1.10:31001", &at("1b", false));
    // A host port, and what is no Service's.
    node.flow(5, UDP, "10.0.1.10:5353", &at("1b", false));
    node.flow(6, UDP, "192.0.2.53:53", "192.0.2.53:53");
    node.turn();
    assert_eq!(node.left(), [1, 5, 6]);
}
