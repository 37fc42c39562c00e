//! Who it was, and what decided.

use std::time::Duration;

use flows::{By, Connection};
use jiff::Timestamp;
use model::{Cluster, Config, Direction, Key, Protocol};
use policy::explain::{asking, words};
use policy::render::nftables::TABLE;
use policy::{End, Question, Reason, explain};

/// A pod may be isolated by very many policies; so many are named in an event.
const MOST_POLICIES: usize = 16;

/// Of which direction a rule of ours tells, by what it puts before the packet.
pub(super) fn direction(prefix: &str) -> Option<Direction> {
    let word = prefix.strip_prefix(TABLE)?.strip_prefix(' ')?;
    Direction::ALL.into_iter().find(|one| one.word() == word)
}

/// The connection, as policies see it: a packet to this node's own DNS server, which belongs to no
/// connection, is one to the cluster's DNS. `config` says where that server answers.
pub(super) fn seen(
    cluster: &Cluster,
    config: Option<&Config>,
    connection: Connection,
) -> Connection {
    let asked = config.and_then(|config| config.dns_service_of(connection.to));
    let (Some(service), Some(protocol), Some((sport, 53)), None, Direction::Egress) = (
        asked,
        protocol(&connection),
        connection.ports,
        connection.asked,
        connection.direction,
    ) else {
        return connection;
    };
    let from = End::at(cluster, connection.from);
    let (question, _) = asking(cluster, &from, service, protocol);
    let port = question.port.map_or(53, |(_, port)| port);
    let asked = (question.to.ip != connection.to).then_some((connection.to, 53));
    Connection {
        to: question.to.ip,
        ports: Some((sport, port)),
        asked,
        ..connection
    }
}

fn protocol(connection: &Connection) -> Option<Protocol> {
    let mut all = Protocol::ALL.into_iter();
    all.find(|protocol| protocol.number() == connection.protocol)
}

/// Both ends by name, and what policies say of a connection now.
pub(super) fn judged(cluster: &Cluster, connection: &Connection) -> (flows::End, flows::End, By) {
    let question = Question {
        from: End::at(cluster, connection.from),
        to: End::at(cluster, connection.to),
        port: protocol(connection).zip(connection.ports.map(|(_, port)| port)),
    };
    let answer = explain(cluster, &question);
    let side = match connection.direction {
        Direction::Egress => answer.egress,
        Direction::Ingress => answer.ingress,
    };
    let why = words::why(cluster, &question, connection.direction, &side);
    let by = By {
        words: match side.allowed {
            true => format!("what denied it is no more: {why}"),
            false => why,
        },
        policies: policies(&side.reason),
        allowed_now: side.allowed,
    };
    (end(question.from), end(question.to), by)
}

fn policies(reason: &Reason) -> Vec<flows::Policy> {
    let plain = |key: &Key| policy(key, None);
    match reason {
        Reason::Cluster {
            policy: name, rule, ..
        } => {
            vec![policy(&(String::new(), name.clone()), Some(*rule))]
        }
        Reason::Rule { policy: key, rule } => vec![policy(key, Some(*rule))],
        Reason::Isolated { by } | Reason::NotKnown { by } => {
            by.iter().take(MOST_POLICIES).map(plain).collect()
        }
        Reason::NotAPod | Reason::OwnNode | Reason::Itself | Reason::Nothing => Vec::new(),
    }
}

/// A policy without a namespace is one of the cluster.
fn policy((namespace, name): &Key, rule: Option<usize>) -> flows::Policy {
    let namespace = Some(namespace.clone()).filter(|namespace| !namespace.is_empty());
    flows::Policy {
        kind: match namespace {
            Some(_) => "NetworkPolicy".into(),
            None => "ClusterNetworkPolicy".into(),
        },
        namespace,
        name: name.clone(),
        rule,
    }
}

fn end(end: End) -> flows::End {
    let (namespace, pod) = end.pod.unzip();
    flows::End {
        ip: end.ip,
        namespace,
        pod,
        node: end.node,
    }
}

/// The name of a link of this namespace, while it is there.
pub(super) fn link(index: u32) -> Option<String> {
    let name = nix::net::if_::if_indextoname(index).ok()?;
    name.into_string().ok()
}

/// A time since 1970.
pub(super) fn timestamp(since: Duration) -> Option<Timestamp> {
    let micros = i64::try_from(since.as_micros()).ok()?;
    Timestamp::from_microsecond(micros).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Change, NetworkPolicy, Pod};

    use super::*;

    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        for (name, ip) in [("web-0", "10.244.1.5"), ("db-0", "10.244.2.9")] {
            cluster.take(Change::Pod(Arc::new(Pod {
                namespace: "shop".into(),
                name: name.into(),
                uid: name.into(),
                node: "node1".into(),
                ips: vec![ip.parse().unwrap()],
                host_network: false,
                labels: model::Labels::default(),
                ports: Vec::new(),
                created: 0,
                leaving: false,
            })));
        }
        cluster
    }

    fn isolate(cluster: &mut Cluster, name: &str) {
        cluster.take(Change::Policy(Arc::new(NetworkPolicy {
            namespace: "shop".into(),
            name: name.into(),
            ingress: Some(Vec::new()),
            ..NetworkPolicy::default()
        })));
    }

    const CONNECTION: Connection = Connection {
        direction: Direction::Ingress,
        protocol: 6,
        from: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 5)),
        to: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 2, 9)),
        ports: Some((40_000, 5432)),
        icmp: None,
        asked: None,
    };

    #[test]
    fn both_pods_and_the_policies_are_named() {
        let mut cluster = cluster();
        isolate(&mut cluster, "closed");
        let (from, to, by) = judged(&cluster, &CONNECTION);
        assert_eq!(
            (from.to_string(), to.to_string()),
            ("shop/web-0".into(), "shop/db-0".into())
        );
        assert_eq!(
            by.words,
            "NetworkPolicy shop/closed isolates pod shop/db-0 for ingress, and no rule of it allows it"
        );
        assert_eq!(
            by.policies,
            [policy(&("shop".into(), "closed".into()), None)]
        );
        assert!(!by.allowed_now);
        for number in 0..100 {
            isolate(&mut cluster, &format!("more-{number}"));
        }
        assert_eq!(
            judged(&cluster, &CONNECTION).2.policies.len(),
            MOST_POLICIES
        );
    }

    #[test]
    fn a_question_to_the_nodes_own_server_is_one_to_the_clusters_dns() {
        let mut cluster = cluster();
        let dns: std::net::IpAddr = "10.96.0.10".parse().unwrap();
        let names = |connection: Connection, cluster: &Cluster| {
            seen(cluster, Some(&Config::default()), connection)
        };
        let question = Connection {
            direction: Direction::Egress,
            protocol: 17,
            to: dns,
            ports: Some((40_000, 53)),
            ..CONNECTION
        };
        // Without endpoints the Service's own address is judged.
        assert_eq!(names(question, &cluster), question);
        cluster.take(Change::Service(Arc::new(model::Service {
            namespace: "shop".into(),
            name: "dns".into(),
            cluster_ips: vec![dns],
            ports: vec![model::ServicePort {
                name: "dns".into(),
                protocol: Protocol::Udp,
                port: 53,
                node_port: None,
            }],
            ..model::Service::default()
        })));
        cluster.take(Change::Slice(Arc::new(model::EndpointSlice {
            namespace: "shop".into(),
            name: "dns-1".into(),
            service: "dns".into(),
            v6: false,
            ports: vec![model::SlicePort {
                name: "dns".into(),
                protocol: Protocol::Udp,
                port: Some(5353),
            }],
            endpoints: vec![model::Endpoint {
                ip: "10.244.2.9".parse().unwrap(),
                more: Box::default(),
                ready: true,
                serving: true,
                terminating: false,
                node: None,
                zone: None,
                hostname: None,
                pod: None,
                for_zones: Vec::new(),
                for_nodes: Vec::new(),
            }],
            triggered: None,
        })));
        let seen_as = names(question, &cluster);
        assert_eq!(seen_as.asked, Some((dns, 53)));
        assert_eq!(seen_as.ports, Some((40_000, 5353)));
        cluster.take(Change::Policy(Arc::new(NetworkPolicy {
            namespace: "shop".into(),
            name: "closed".into(),
            egress: Some(Vec::new()),
            ..NetworkPolicy::default()
        })));
        let (from, to, by) = judged(&cluster, &seen_as);
        let ends = (from.to_string(), to.to_string());
        assert_eq!(ends, ("shop/web-0".into(), "shop/db-0".into()));
        assert!(
            by.words
                .starts_with("NetworkPolicy shop/closed isolates pod shop/web-0 for egress")
        );
        // Others are what they are.
        assert_eq!(names(CONNECTION, &cluster), CONNECTION);
    }

    #[test]
    fn what_changed_meanwhile_is_said() {
        let (_, _, by) = judged(&cluster(), &CONNECTION);
        assert!(by.allowed_now);
        assert_eq!(
            by.words,
            "what denied it is no more: no policy says anything about ingress of pod shop/db-0"
        );
    }
}
