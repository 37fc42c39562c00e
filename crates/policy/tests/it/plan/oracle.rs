//! The rendered rules, evaluated, against what `explain` says of the same connection.

use std::net::IpAddr;

use linux::fake::Fake;
use model::{Changed, Protocol};
use nft::eval::{Connection, Fate, Packet};
use nft::{Compiled, CtState};
use policy::{End, Policies, Question, explain};
use proptest::prelude::*;

use super::worlds::{NODES, PORTS, World, change};
use super::{reconcile, there};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ACK: u8 = 0x10;

/// The first packet of a connection through a node's rules: the mark it leaves, where it passes.
pub fn passes(table: Option<&Compiled>, chain: &str, packet: &Packet) -> Option<u32> {
    let Some(table) = table else {
        return Some(packet.ct_mark);
    };
    let outcome = table.eval(chain, packet).unwrap();
    (outcome.fate == Fate::Accepted).then_some(outcome.ct_mark)
}

/// The first packet of a connection.
fn first(from: IpAddr, to: IpAddr, port: Option<(Protocol, u16)>) -> Packet {
    match port {
        Some((protocol, port)) => Packet::new(from, to, protocol.number(), 40000, port),
        None => {
            let (proto, icmp_type) = if from.is_ipv4() { (ICMP, 8) } else { (58, 128) };
            let mut packet = Packet::new(from, to, proto, 7, 0);
            packet.icmp_type = icmp_type;
            packet
        }
    }
}

/// The first answer to it.
fn answer(packet: &Packet, ct_mark: u32) -> Packet {
    let mut answer = packet.clone();
    (answer.src, answer.dst) = (packet.dst, packet.src);
    (answer.sport, answer.dport) = (packet.dport, packet.sport);
    if packet.proto == TCP {
        answer.tcp_flags = ACK | 2;
    }
    answer.icmp_type = match packet.icmp_type {
        8 => 0,
        128 => 129,
        other => other,
    };
    answer.state = CtState::Established;
    answer.ct_mark = ct_mark;
    let tuple = nft::eval::Tuple {
        src: packet.src,
        dst: packet.dst,
        sport: packet.sport,
        dport: match packet.proto {
            ICMP | 58 => u16::from(packet.icmp_type) << 8,
            _ => packet.dport,
        },
    };
    answer.connection = Some(Connection::new(packet.proto, tuple));
    answer
}

/// Ends of connections: pods, nodes, and others.
fn ends(world: &World) -> Vec<IpAddr> {
    let pods = world.cluster.pods.values();
    let mut ips: Vec<IpAddr> = pods.flat_map(|pod| pod.ips.iter().copied()).collect();
    let nodes = world.cluster.nodes.values();
    ips.extend(nodes.flat_map(|node| node.addresses.iter().copied()));
    ips.extend(["203.0.113.10", "2001:db8::10"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    ips.sort();
    ips.dedup();
    ips
}

/// Whether the rules of all nodes together let a connection through.
fn allowed(world: &World, tables: &[Option<Compiled>], packet: &Packet) -> Option<bool> {
    let ends = [packet.src, packet.dst].map(|ip| End::at(&world.cluster, ip));
    let [from, to] = &ends;
    let mut allowed = true;
    for (at, node) in NODES.iter().enumerate() {
        let is_here = |end: &End| end.node.as_deref() == Some(*node);
        if !is_here(from) && !is_here(to) {
            continue;
        }
        // What a node itself opens passes no chain, but for the answers.
        let own = |end: &End| is_here(end) && end.pod.is_none();
        let table = tables[at].as_ref();
        let mark = if own(from) {
            let reply = answer(packet, 0);
            allowed &= passes(table, "input", &reply).is_some();
            continue;
        } else if own(to) {
            passes(table, "input", packet)
        } else {
            passes(table, "forward", packet)
        };
        let Some(mark) = mark else {
            allowed = false;
            continue;
        };
        // What passed passes on, and so do its answers.
        let reply = answer(packet, mark);
        if !own(to) {
            assert_eq!(passes(table, "forward", &reply), Some(mark));
            // Also once the rules changed: it is judged anew, in whichever direction.
            let late = answer(packet, 0);
            assert_eq!(passes(table, "forward", &late), Some(mark));
        }
    }
    Some(allowed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn rules_do_what_explain_says(changes in prop::collection::vec(change(), 10..60)) {
        let mut world = World::default();
        for change in &changes {
            world.cluster.take(change.clone());
        }
        // Namespaces of pods are known.
        let pods: Vec<_> = world.cluster.pods.values().cloned().collect();
        for pod in pods {
            if !world.cluster.namespaces.contains_key(&pod.namespace) {
                world.cluster.take(model::Change::Namespace(std::sync::Arc::new(model::Namespace {
                    name: pod.namespace.clone(),
                    ..Default::default()
                })));
            }
        }
        let tables: Vec<Option<Compiled>> = NODES
            .iter()
            .map(|node| {
                let mut fake = Fake::default();
                let mut policies = Policies::new(*node);
                let locals = world.locals_of(node);
                reconcile(&mut policies, &mut fake, &world.cluster, &Changed::default(), &locals);
                there(&mut fake)
            })
            .collect();
        let ends = ends(&world);
        let mut ports = vec![None];
        for port in PORTS.into_iter().chain([82, 120]) {
            ports.push(Some((Protocol::Tcp, port)));
        }
        ports.extend([Some((Protocol::Udp, 53)), Some((Protocol::Sctp, 80))]);
        for from in &ends {
            for to in &ends {
                if from.is_ipv4() != to.is_ipv4() {
                    continue;
                }
                for port in &ports {
                    let question = Question {
                        from: End::at(&world.cluster, *from),
                        to: End::at(&world.cluster, *to),
                        port: *port,
                    };
                    let expected = explain(&world.cluster, &question);
                    let found = allowed(&world, &tables, &first(*from, *to, *port));
                    prop_assert_eq!(
                        found,
                        Some(expected.allowed()),
                        "{:?}: {:?}",
                        question,
                        expected
                    );
                }
            }
        }
    }
}
