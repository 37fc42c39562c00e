//! A denied connection with everything's name.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use model::Cluster;

use crate::Connection;
use crate::event::{By, Drop, End, Icmp, Service};

/// What was known when a packet was dropped, and where it was.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The node.
    pub node: &'a str,
    /// When.
    pub time: Timestamp,
    /// The link to the pod.
    pub interface: Option<&'a str>,
}

/// What is told of a connection between these two; `by` is what policies say of it.
pub fn describe(scene: &Scene<'_>, connection: &Connection, from: End, to: End, by: By) -> Drop {
    Drop {
        time: scene.time,
        node: scene.node.to_owned(),
        direction: connection.direction,
        from,
        to,
        protocol: protocol(connection.protocol),
        source_port: connection.ports.map(|(source, _)| source),
        port: connection.ports.map(|(_, port)| port),
        icmp: connection.icmp.map(|(kind, code)| Icmp { kind, code }),
        service: connection.asked.map(|asked| service(scene.cluster, asked)),
        interface: scene.interface.map(str::to_owned),
        by,
        packets: 1,
        again: false,
    }
}

fn service(cluster: &Cluster, (ip, port): (IpAddr, u16)) -> Service {
    let mut services = cluster.services.values();
    let service = services.find(|service| service.cluster_ips.contains(&ip));
    Service {
        address: SocketAddr::new(ip, port),
        namespace: service.map(|service| service.namespace.clone()),
        name: service.map(|service| service.name.clone()),
    }
}

fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        58 => "ICMPv6".into(),
        132 => "SCTP".into(),
        number => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Change, Direction};

    use super::*;
    use crate::event::Policy;

    #[test]
    fn everything_known_is_told() {
        let mut cluster = Cluster::default();
        cluster.take(Change::Service(Arc::new(model::Service {
            namespace: "shop".into(),
            name: "db".into(),
            cluster_ips: vec!["10.96.0.7".parse().unwrap()],
            ..model::Service::default()
        })));
        let scene = Scene {
            cluster: &cluster,
            node: "node1",
            time: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            interface: Some("fn-0123456789a"),
        };
        let connection = Connection {
            direction: Direction::Egress,
            protocol: 6,
            from: "10.244.1.5".parse().unwrap(),
            to: "10.0.1.20".parse().unwrap(),
            ports: Some((40_000, 5432)),
            icmp: None,
            asked: Some(("10.96.0.7".parse().unwrap(), 5432)),
        };
        let from = End {
            ip: connection.from,
            namespace: Some("shop".into()),
            pod: Some("web-0".into()),
            node: Some("node1".into()),
        };
        let to = End {
            ip: connection.to,
            namespace: None,
            pod: None,
            node: Some("node2".into()),
        };
        assert_eq!(
            (from.to_string(), to.to_string()),
            ("shop/web-0".into(), "node node2 (10.0.1.20)".into())
        );
        let by = By {
            words: "NetworkPolicy shop/closed has no rule for it".into(),
            policies: vec![Policy {
                kind: "NetworkPolicy".into(),
                namespace: Some("shop".into()),
                name: "closed".into(),
                rule: None,
            }],
            allowed_now: false,
        };
        let drop = describe(&scene, &connection, from, to, by);
        let told = serde_json::to_value(&drop).unwrap();
        assert_eq!(
            told,
            serde_json::json!({
                "time": "2026-01-02T03:04:05.678Z",
                "node": "node1",
                "direction": "egress",
                "from": {"ip": "10.244.1.5", "namespace": "shop", "pod": "web-0", "node": "node1"},
                "to": {"ip": "10.0.1.20", "node": "node2"},
                "protocol": "TCP",
                "sourcePort": 40_000,
                "port": 5432,
                "service": {"address": "10.96.0.7:5432", "namespace": "shop", "name": "db"},
                "interface": "fn-0123456789a",
                "by": {
                    "words": "NetworkPolicy shop/closed has no rule for it",
                    "policies": [{"kind": "NetworkPolicy", "namespace": "shop", "name": "closed"}],
                },
                "packets": 1,
            })
        );
        assert_eq!(serde_json::from_value::<Drop>(told).unwrap(), drop);
    }

    #[test]
    fn protocols_have_names_where_people_know_them() {
        assert_eq!([1, 132, 47].map(protocol), ["ICMP", "SCTP", "47"]);
    }
}
