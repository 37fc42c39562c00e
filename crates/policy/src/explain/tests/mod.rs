//! Each line of the meaning, on a small cluster: two nodes, namespaces `shop` (team=a) and `data`
//! (team=b).

use std::sync::Arc;

use model::policy::{ClusterRule, Namespaces, Peer, PortMatch, PortNumbers, Rule};
use model::{
    Change, ClusterPolicy, ContainerPort, LabelSelector, Labels, Namespace, NetworkPolicy, Node,
    Pod,
};

use super::*;

mod cure;
mod matrix;
mod peers;
mod pods;
mod ports;
mod tiers;

/// `app=web` and the like; an empty text selects everything.
pub(crate) fn labelled(text: &str) -> LabelSelector {
    LabelSelector {
        match_labels: labels(text),
        ..LabelSelector::default()
    }
}

fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.collect()
}

pub(crate) fn pod(namespace: &str, name: &str, node: &str, ip: &str, marks: &str) -> Pod {
    Pod {
        namespace: namespace.into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        node: node.into(),
        ips: vec![ip.parse().unwrap()],
        host_network: false,
        labels: labels(marks),
        ports: Vec::new(),
        created: 0,
        leaving: false,
    }
}

pub(crate) fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for number in 1..=2u8 {
        cluster.take(Change::Node(Node {
            name: format!("node{number}"),
            addresses: vec![format!("10.0.1.{number}0").parse().unwrap()],
            pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
            vtep_mac: None,
            vtep_mac_v6: None,
            labels: [("zone".to_owned(), format!("z{number}"))].into(),
            leaving: false,
        }));
    }
    for (name, team) in [("shop", "team=a"), ("data", "team=b")] {
        let labels = labels(team);
        let name = name.into();
        cluster.take(Change::Namespace(Arc::new(Namespace { name, labels })));
    }
    let port = |name: &str, protocol, port| ContainerPort {
        name: name.into(),
        protocol,
        port,
    };
    for (namespace, name, node, ip, marks) in [
        ("shop", "web", "node1", "10.244.1.5", "app=web,tier=front"),
        ("shop", "api", "node2", "10.244.2.5", "app=api"),
        ("data", "db", "node2", "10.244.2.6", "app=db"),
        ("data", "job", "node1", "10.244.1.6", "app=job,tier=front"),
    ] {
        let mut pod = pod(namespace, name, node, ip, marks);
        if name == "api" {
            pod.ports = vec![
                port("http", Protocol::Tcp, 8080),
                port("dns", Protocol::Udp, 53),
            ];
        }
        if name == "db" {
            pod.ports = vec![port("http", Protocol::Tcp, 9090)];
        }
        cluster.take(Change::Pod(Arc::new(pod)));
    }
    let mut host = pod("shop", "host", "node1", "10.0.1.10", "app=web");
    host.host_network = true;
    cluster.take(Change::Pod(Arc::new(host)));
    cluster
}

/// A NetworkPolicy about the pods with these labels.
pub(crate) fn policy(
    key: &str,
    pods: &str,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Change {
    let (namespace, name) = key.split_once('/').unwrap();
    Change::Policy(Arc::new(NetworkPolicy {
        namespace: namespace.into(),
        name: name.into(),
        uid: String::new(),
        pods: labelled(pods),
        ingress,
        egress,
    }))
}

pub(crate) fn cnp(tier: Tier, priority: u16, name: &str, rules: [Vec<ClusterRule>; 2]) -> Change {
    let [ingress, egress] = rules;
    Change::ClusterPolicy(Arc::new(ClusterPolicy {
        name: name.into(),
        uid: String::new(),
        tier,
        priority,
        namespaces: LabelSelector::default(),
        pods: LabelSelector::default(),
        ingress,
        egress,
    }))
}

pub(crate) fn does(action: Action, rule: Rule) -> ClusterRule {
    ClusterRule {
        name: String::new(),
        action,
        rule,
    }
}

pub(crate) fn peers(peers: impl Into<Vec<Peer>>) -> Rule {
    Rule {
        peers: Some(peers.into()),
        ports: None,
    }
}

pub(crate) fn ports(ports: impl Into<Vec<PortMatch>>) -> Rule {
    Rule {
        peers: None,
        ports: Some(ports.into()),
    }
}

/// Pods of the policy's own namespace.
pub(crate) fn own(marks: &str) -> Peer {
    Peer::Pods {
        namespaces: Namespaces::Own,
        pods: labelled(marks),
    }
}

/// Pods of the namespaces with such labels.
pub(crate) fn of(namespaces: &str, marks: &str) -> Peer {
    Peer::Pods {
        namespaces: Namespaces::Selected(labelled(namespaces)),
        pods: labelled(marks),
    }
}

pub(crate) fn block(net: &str, except: &[&str]) -> Peer {
    Peer::Block {
        net: net.parse().unwrap(),
        except: except.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

pub(crate) fn tcp(first: u16, last: u16) -> PortMatch {
    PortMatch {
        protocol: Some(Protocol::Tcp),
        port: PortNumbers::Range(first, last),
    }
}

fn named(protocol: Option<Protocol>, name: &str) -> PortMatch {
    let port = PortNumbers::Named(name.into());
    PortMatch { protocol, port }
}

/// The address of a pod by name, or the text itself.
fn ip(cluster: &Cluster, text: &str) -> IpAddr {
    let pod = cluster.pods.values().find(|pod| pod.name == text);
    pod.map_or_else(|| text.parse().unwrap(), |pod| pod.ips[0])
}

/// By names of pods or addresses; the port is `80`, `53/UDP` or nothing for ICMP.
pub(crate) fn question(cluster: &Cluster, from: &str, to: &str, port: &str) -> Question {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
    let protocol = Protocol::ALL
        .into_iter()
        .find(|each| each.word() == protocol);
    let port = number
        .parse()
        .ok()
        .map(|number| (protocol.unwrap(), number));
    Question {
        from: End::at(cluster, ip(cluster, from)),
        to: End::at(cluster, ip(cluster, to)),
        port,
    }
}

pub(crate) fn ask(cluster: &Cluster, from: &str, to: &str, port: &str) -> Answer {
    explain(cluster, &question(cluster, from, to, port))
}

/// A cluster with these policies, and what is allowed in it: lines of `from to port`.
fn holds(policies: impl IntoIterator<Item = Change>, yes: &[&str], no: &[&str]) {
    let mut cluster = cluster();
    for policy in policies {
        cluster.take(policy);
    }
    for (lines, expected) in [(yes, true), (no, false)] {
        for line in lines {
            let mut words = line.split(' ');
            let mut next = || words.next().unwrap_or_default();
            let answer = ask(&cluster, next(), next(), next());
            assert_eq!(answer.allowed(), expected, "{line}: {answer:?}");
        }
    }
}

fn isolated(by: &[&str]) -> Reason {
    let key = |text: &&str| {
        let (namespace, name) = text.split_once('/').unwrap();
        (namespace.to_owned(), name.to_owned())
    };
    Reason::Isolated {
        by: by.iter().map(key).collect(),
    }
}

fn rule(policy: (&str, &str), rule: usize) -> Reason {
    let policy = (policy.0.into(), policy.1.into());
    Reason::Rule { policy, rule }
}

const DENY: Option<Vec<Rule>> = Some(Vec::new());
