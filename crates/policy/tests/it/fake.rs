//! What the rendered rules say of a connection, evaluated packet by packet on each node it
//! passes, in a kernel in memory.

use std::collections::BTreeMap;

use linux::fake::Fake;
use model::{Changed, Cluster};
use nft::eval::{Connection, Fate, Packet, Tuple};
use nft::{Compiled, CtState};
use policy::render::nftables::TABLE;
use policy::{End, Locals, Policies, Question};

/// The rules of a cluster's nodes, by node; of those that have some.
pub type Fakes = BTreeMap<String, Compiled>;

/// What new agents make of a cluster as it is, with the pods the cluster says their nodes have.
pub fn of(cluster: &Cluster) -> Fakes {
    let rules = |name: &String| {
        let rules = rules(name, cluster, &locals(cluster, name))?;
        Some((name.clone(), rules))
    };
    cluster.nodes.keys().filter_map(rules).collect()
}

/// What a new agent makes of a cluster as it is.
pub fn rules(node: &str, cluster: &Cluster, locals: &Locals) -> Option<Compiled> {
    let mut kernel = Fake::default();
    let changed = Changed::default();
    let report = Policies::new(node).reconcile(&mut kernel, cluster, &changed, locals);
    assert_eq!(report.errors, []);
    kernel.nft.remove(TABLE)
}

/// The pods that the cluster says a node has.
pub fn locals(cluster: &Cluster, node: &str) -> Locals {
    let here = cluster.pods.iter().filter(|(key, pod)| {
        let first = pod.ips.first().and_then(|ip| cluster.pod_at(*ip));
        let has = first.is_some_and(|has| (&has.namespace, &has.name) == (&key.0, &key.1));
        pod.node == node && !pod.host_network && has
    });
    here.map(|(key, pod)| {
        let local = policy::Local {
            pod: key.clone(),
            uid: pod.uid.clone(),
            ips: pod.ips.clone(),
        };
        ((format!("{}-{}", key.0, key.1), "eth0".to_owned()), local)
    })
    .collect()
}

/// A place where a node's rules see the connection.
struct Pass<'a> {
    node: &'a str,
    hook: &'static str,
    iif: &'static str,
    oif: &'static str,
}

/// Where it is seen on its way.
fn passes(question: &Question) -> Vec<Pass<'_>> {
    let Question { from, to, .. } = question;
    if from.ip == to.ip {
        return Vec::new();
    }
    let at = |end: &End| end.node.clone().unwrap_or_default();
    let mut passes = Vec::new();
    let near = at(from) == at(to);
    if from.pod.is_some()
        && let Some(node) = &from.node
    {
        let own_node = near && to.pod.is_none();
        passes.push(Pass {
            node,
            hook: if own_node { "input" } else { "forward" },
            iif: "fn-00000000001",
            oif: match (own_node, near) {
                (true, _) => "",
                (false, true) => "fn-00000000002",
                (false, false) => "eth0",
            },
        });
    }
    if let Some(node) = to.node.as_ref().filter(|_| !near) {
        passes.push(Pass {
            node,
            hook: if to.pod.is_some() { "forward" } else { "input" },
            iif: "eth0",
            oif: if to.pod.is_some() {
                "fn-00000000002"
            } else {
                ""
            },
        });
    }
    passes
}

/// The first packet of a connection.
fn packet(question: &Question, pass: &Pass<'_>) -> Packet {
    let Question { from, to, port } = question;
    let v6 = from.ip.is_ipv6();
    let (proto, dport) = match port {
        Some((protocol, port)) => (protocol.number(), *port),
        None => (if v6 { 58 } else { 1 }, 0),
    };
    let mut packet = Packet::new(from.ip, to.ip, proto, 40000, dport);
    if port.is_none() {
        packet.icmp_type = if v6 { 128 } else { 8 };
    }
    packet.iif = pass.iif.into();
    packet.oif = pass.oif.into();
    packet
}

/// The answer to it, of a connection that is not judged yet.
fn reply(first: &Packet, pass: &Pass<'_>) -> Packet {
    let icmp = matches!(first.proto, 1 | 58);
    let original = Tuple {
        src: first.src,
        dst: first.dst,
        sport: first.sport,
        dport: if icmp {
            u16::from(first.icmp_type) << 8
        } else {
            first.dport
        },
    };
    let mut packet = Packet::new(first.dst, first.src, first.proto, first.dport, first.sport);
    if icmp {
        packet.sport = first.sport;
        packet.dport = 0;
        packet.icmp_type = if first.proto == 58 { 129 } else { 0 };
    }
    // SYN and ACK.
    packet.tcp_flags = 0x12;
    packet.state = CtState::Established;
    packet.connection = Some(Connection::new(first.proto, original));
    packet.iif = pass.oif.into();
    packet.oif = pass.iif.into();
    packet
}

/// Whether the rules let a connection through; packets of either direction must be judged alike.
pub fn allows(nodes: &Fakes, question: &Question) -> bool {
    passes(question).iter().all(|pass| {
        let Some(table) = nodes.get(pass.node) else {
            return true;
        };
        let first = packet(question, pass);
        let allowed = accepts(table, pass.hook, &first);
        if pass.hook == "forward" {
            let reply = reply(&first, pass);
            let back = accepts(table, pass.hook, &reply);
            assert_eq!(allowed, back, "the answer's fate: {question:?}");
        }
        allowed
    })
}

fn accepts(table: &Compiled, hook: &str, packet: &Packet) -> bool {
    match table.eval(hook, packet) {
        None => true,
        Some(outcome) => match outcome.fate {
            Fate::Accepted => true,
            Fate::Dropped => false,
            Fate::Rejected(how) => panic!("rejected with {how:?}"),
        },
    }
}
