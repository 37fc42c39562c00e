//! Clusters of few names and addresses, so that changes meet.

use std::net::IpAddr;
use std::sync::Arc;

use model::policy::{Action, ClusterRule, Namespaces, Peer, PortMatch, PortNumbers, Rule, Tier};
use model::selector::{Operator, Requirement};
use model::{
    Change, Changed, Cluster, ClusterPolicy, ContainerPort, LabelSelector, Labels, Namespace,
    NetworkPolicy, Node, Pod, Protocol,
};
use policy::{Local, Locals};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::HERE;

pub const NODES: [&str; 2] = [HERE, "node2"];
pub const NAMESPACES: [&str; 3] = ["red", "green", "blue"];

/// A cluster and the pods that are attached to the node.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub cluster: Cluster,
    pub locals: Locals,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    Cluster(Change),
    Attached(u8, Local),
    Detached(u8),
}

impl World {
    pub fn take(&mut self, step: &Step, changed: &mut Changed) {
        let container = |number: &u8| (format!("c{number}"), "eth0".to_owned());
        match step {
            Step::Cluster(change) => {
                self.cluster.note(change.clone(), changed);
            }
            Step::Attached(number, local) => {
                self.locals.insert(container(number), local.clone());
            }
            Step::Detached(number) => {
                self.locals.remove(&container(number));
            }
        }
    }

    /// The pods that are on a node and have their addresses, as they are attached there.
    pub fn locals_of(&self, node: &str) -> Locals {
        let mut locals = Locals::new();
        for (key, pod) in &self.cluster.pods {
            let has = |ip: &&IpAddr| self.cluster.pod_at(**ip).is_some_and(|at| at == pod);
            let ips: Vec<IpAddr> = pod.ips.iter().filter(has).copied().collect();
            if pod.node == node && !pod.host_network && !ips.is_empty() {
                let container = (format!("{}-{}", key.0, key.1), "eth0".to_owned());
                let local = Local {
                    pod: key.clone(),
                    uid: pod.uid.clone(),
                    ips,
                };
                locals.insert(container, local);
            }
        }
        locals
    }
}

fn namespace() -> impl Strategy<Value = String> {
    select(&NAMESPACES[..]).prop_map(str::to_owned)
}

fn labels() -> impl Strategy<Value = Labels> {
    let pairs = vec![("app", "a"), ("app", "b"), ("tier", "x"), ("tier", "y")];
    subsequence(pairs, 0..3).prop_map(Labels::from_iter)
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let operators = vec![
        Operator::In,
        Operator::NotIn,
        Operator::Exists,
        Operator::DoesNotExist,
    ];
    let values = subsequence(vec!["a", "b", "x"], 1..3);
    (select(vec!["app", "tier"]), select(operators), values).prop_map(|(key, operator, values)| {
        Requirement {
            key: key.to_owned(),
            operator,
            values: values.into_iter().map(str::to_owned).collect(),
        }
    })
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    prop_oneof![
        2 => Just(LabelSelector::default()),
        3 => labels().prop_map(|match_labels| LabelSelector { match_labels, ..LabelSelector::default() }),
        2 => prop::collection::vec(requirement(), 1..3).prop_map(|match_expressions| {
            LabelSelector { match_expressions, ..LabelSelector::default() }
        }),
    ]
}

fn ip4() -> impl Strategy<Value = IpAddr> {
    (1..=2u8, 1..=4u8).prop_map(|(node, n)| IpAddr::from([10, 244, node, n]))
}

fn ip6() -> impl Strategy<Value = IpAddr> {
    let ip = |node, n| IpAddr::from([0xfd00, 0x10, 0x244, node, 0, 0, 0, n]);
    (1..=2u16, 1..=3u16).prop_map(move |(node, n)| ip(node, n))
}

pub fn protocol() -> impl Strategy<Value = Protocol> {
    select(&Protocol::ALL[..])
}

fn port_name() -> impl Strategy<Value = String> {
    select(vec!["web", "dns"]).prop_map(str::to_owned)
}

pub const PORTS: [u16; 5] = [53, 80, 81, 90, 443];

fn container_port() -> impl Strategy<Value = ContainerPort> {
    (port_name(), protocol(), select(&PORTS[..])).prop_map(|(name, protocol, port)| ContainerPort {
        name: name.into(),
        protocol,
        port,
    })
}

fn pod() -> impl Strategy<Value = Pod> {
    let ports = prop::collection::vec(container_port(), 0..3);
    let ips = (prop::option::of(ip4()), prop::option::of(ip6()));
    let ips = ips.prop_map(|(v4, v6)| v4.into_iter().chain(v6).collect::<Vec<_>>());
    let flags = (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
        0..3i64,
    );
    let name = (namespace(), 1..=3u8, select(&NODES[..]), 1..=2u8);
    (name, labels(), ips, ports, flags).prop_map(
        |((namespace, n, node, uid), labels, ips, ports, (host, leaving, created))| Pod {
            name: format!("pod{n}"),
            uid: format!("uid-{namespace}-{n}-{uid}"),
            namespace,
            node: node.to_owned(),
            ips,
            host_network: host,
            labels,
            ports,
            created,
            leaving,
        },
    )
}

fn block() -> impl Strategy<Value = Peer> {
    let blocks: Vec<(&str, Vec<&str>)> = vec![
        ("0.0.0.0/0", vec![]),
        ("::/0", vec![]),
        ("0.0.0.0/1", vec![]),
        ("128.0.0.0/1", vec![]),
        ("0.0.0.0/0", vec!["10.244.1.0/24", "10.0.0.0/16"]),
        ("10.244.0.0/16", vec!["10.244.1.2/31"]),
        ("10.244.1.0/30", vec![]),
        ("10.244.1.4/30", vec![]),
        ("fd00:10:244::/48", vec!["fd00:10:244:2::1/128"]),
        ("10.0.1.20/32", vec![]),
    ];
    select(blocks).prop_map(|(net, except)| Peer::Block {
        net: net.parse().unwrap(),
        except: except.iter().map(|net| net.parse().unwrap()).collect(),
    })
}

fn peer(cluster: bool) -> impl Strategy<Value = Peer> {
    let pods = (prop::option::of(selector()), selector()).prop_map(move |(namespaces, pods)| {
        let namespaces = match namespaces {
            None if !cluster => Namespaces::Own,
            selected => Namespaces::Selected(selected.unwrap_or_default()),
        };
        Peer::Pods { namespaces, pods }
    });
    prop_oneof![4 => pods, 2 => block(), u32::from(cluster) => selector().prop_map(Peer::Nodes)]
}

fn port_match() -> impl Strategy<Value = PortMatch> {
    let some = |protocol| Some(protocol);
    prop_oneof![
        1 => protocol().prop_map(move |protocol| PortMatch {
            protocol: some(protocol),
            port: PortNumbers::Any,
        }),
        3 => (protocol(), select(&PORTS[..])).prop_map(move |(protocol, port)| PortMatch {
            protocol: some(protocol),
            port: PortNumbers::Range(port, port),
        }),
        2 => (protocol(), select(&PORTS[..]), 1..40u16).prop_map(move |(protocol, port, more)| {
            PortMatch { protocol: some(protocol), port: PortNumbers::Range(port, port + more) }
        }),
        2 => (prop::option::of(protocol()), port_name()).prop_map(|(protocol, name)| PortMatch {
            protocol,
            port: PortNumbers::Named(name),
        }),
    ]
}

fn rule(cluster: bool) -> impl Strategy<Value = Rule> {
    let peers = prop::option::weighted(0.8, prop::collection::vec(peer(cluster), 0..4));
    let ports = prop::option::weighted(0.6, prop::collection::vec(port_match(), 0..4));
    (peers, ports).prop_map(|(peers, ports)| Rule { peers, ports })
}

fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let rules = || prop::option::weighted(0.7, prop::collection::vec(rule(false), 0..4));
    (namespace(), 1..=4u8, selector(), rules(), rules()).prop_map(
        |(namespace, n, pods, ingress, egress)| NetworkPolicy {
            namespace,
            name: format!("policy{n}"),
            uid: String::new(),
            pods,
            ingress,
            egress,
        },
    )
}

fn cluster_rule() -> impl Strategy<Value = ClusterRule> {
    let actions = vec![Action::Accept, Action::Deny, Action::Pass];
    (select(actions), rule(true)).prop_map(|(action, rule)| ClusterRule {
        name: String::new(),
        action,
        rule,
    })
}

fn cluster_policy() -> impl Strategy<Value = ClusterPolicy> {
    let rules = || prop::collection::vec(cluster_rule(), 0..4);
    let tiers = vec![Tier::Admin, Tier::Baseline];
    let about = (selector(), selector());
    (1..=4u8, select(tiers), 0..3u16, about, rules(), rules()).prop_map(
        |(n, tier, priority, (namespaces, pods), ingress, egress)| ClusterPolicy {
            name: format!("cluster{n}"),
            uid: String::new(),
            tier,
            priority,
            namespaces,
            pods,
            ingress,
            egress,
        },
    )
}

fn node() -> impl Strategy<Value = Node> {
    (0..2usize, labels()).prop_map(|(at, labels)| Node {
        name: NODES[at].to_owned(),
        addresses: vec![
            IpAddr::from([10, 0, 1, 10 * (at as u8 + 1)]),
            IpAddr::from([0xfd00, 0x10, 0, 1, 0, 0, 0, 10 * (at as u16 + 1)]),
        ],
        pod_cidrs: Vec::new(),
        vtep_mac: None,
        vtep_mac_v6: None,
        labels: labels
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        leaving: false,
    })
}

/// One change of the cluster.
pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => pod().prop_map(|pod| Change::Pod(Arc::new(pod))),
        1 => (namespace(), 1..=3u8).prop_map(|(namespace, n)| {
            Change::PodGone(namespace, format!("pod{n}"))
        }),
        3 => (namespace(), labels()).prop_map(|(name, labels)| {
            Change::Namespace(Arc::new(Namespace { name, labels }))
        }),
        1 => namespace().prop_map(Change::NamespaceGone),
        6 => policy().prop_map(|policy| Change::Policy(Arc::new(policy))),
        1 => (namespace(), 1..=4u8).prop_map(|(namespace, n)| {
            Change::PolicyGone(namespace, format!("policy{n}"))
        }),
        3 => cluster_policy().prop_map(|policy| Change::ClusterPolicy(Arc::new(policy))),
        1 => (1..=4u8).prop_map(|n| Change::ClusterPolicyGone(format!("cluster{n}"))),
        2 => node().prop_map(Change::Node),
        1 => (0..2usize).prop_map(|at| Change::NodeGone(NODES[at].to_owned())),
    ]
}

fn local() -> impl Strategy<Value = Local> {
    let uid = prop::option::weighted(0.7, 1..=2u8);
    let ips = prop_oneof![
        ip4().prop_map(|ip| vec![ip]),
        (ip4(), ip6()).prop_map(|(v4, v6)| vec![v4, v6])
    ];
    (namespace(), 1..=3u8, uid, ips).prop_map(|(namespace, n, uid, ips)| Local {
        uid: uid.map_or_else(String::new, |uid| format!("uid-{namespace}-{n}-{uid}")),
        pod: (namespace, format!("pod{n}")),
        ips,
    })
}

/// One thing that happens; what is attached and what objects say need not agree.
pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => change().prop_map(Step::Cluster),
        2 => (1..=6u8, local()).prop_map(|(number, local)| Step::Attached(number, local)),
        1 => (1..=6u8).prop_map(Step::Detached),
    ]
}
