//! The DNS Service's pods, asked where this node's upstreams have no answer.

use std::net::{IpAddr, SocketAddr};

use model::{Cluster, Protocol};

/// The ready endpoints of the Service at the first of these addresses that has any, for
/// `node`: its own addresses are left out, so that it never asks itself.
pub(super) fn peers(cluster: &Cluster, services: &[IpAddr], node: &str) -> Vec<SocketAddr> {
    let node = cluster.nodes.get(node);
    let own = |ip: IpAddr| node.is_some_and(|node| node.addresses.contains(&ip));
    let of_address = |ip: &IpAddr| {
        let service = cluster.service_at(*ip)?;
        let ready = cluster.ready_endpoints(service, (Protocol::Udp, 53), ip.is_ipv6());
        let others = ready.into_iter().filter(|(ip, _)| !own(*ip));
        let others: Vec<_> = others.map(SocketAddr::from).collect();
        (!others.is_empty()).then_some(others)
    };
    services.iter().find_map(of_address).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use model::{Change, Endpoint, EndpointSlice, Node, Service, ServicePort, SlicePort};

    use super::*;

    const SERVICES: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];

    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        let addresses = |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect();
        cluster.take(Change::Node(Node {
            name: "node1".into(),
            addresses: addresses(&["10.0.1.10", "fd00:10:0:1::a"]),
            pod_cidrs: Vec::new(),
            vtep_mac: None,
            vtep_mac_v6: None,
            labels: BTreeMap::default(),
            leaving: false,
        }));
        let port = |name: &str, protocol| ServicePort {
            name: name.into(),
            protocol,
            port: 53,
            node_port: None,
        };
        cluster.take(Change::Service(Arc::new(Service {
            namespace: "kube-system".into(),
            name: "kube-dns".into(),
            cluster_ips: addresses(&SERVICES),
            ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
            ..Service::default()
        })));
        cluster
    }

    fn slice(cluster: &mut Cluster, v6: bool, ready: &[(&str, bool)]) {
        let endpoint = |(ip, ready): &(&str, bool)| Endpoint {
            ip: ip.parse().unwrap(),
            more: Box::default(),
            ready: *ready,
            serving: *ready,
            terminating: false,
            node: None,
            zone: None,
            hostname: None,
            pod: None,
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        };
        let port = |name: &str, protocol, port| SlicePort {
            name: name.into(),
            protocol,
            port: Some(port),
        };
        cluster.take(Change::Slice(Arc::new(EndpointSlice {
            namespace: "kube-system".into(),
            name: format!("kube-dns-{v6}"),
            service: "kube-dns".into(),
            v6,
            ports: vec![
                port("dns", Protocol::Udp, 5353),
                port("dns-tcp", Protocol::Tcp, 5354),
            ],
            endpoints: ready.iter().map(endpoint).collect(),
            triggered: None,
        })));
    }

    fn told(cluster: &Cluster, node: &str) -> Vec<String> {
        let services = SERVICES.map(|ip| ip.parse().unwrap());
        let all = peers(cluster, &services, node);
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ready_endpoints_at_their_own_port_and_never_the_node_itself() {
        let mut cluster = cluster();
        assert!(told(&cluster, "node1").is_empty());
        let v4 = [
            ("10.244.1.2", true),
            ("10.244.2.2", false),
            ("10.0.1.10", true),
        ];
        slice(&mut cluster, false, &v4);
        slice(&mut cluster, true, &[("fd00:10:244:1::2", true)]);
        assert_eq!(told(&cluster, "node1"), ["10.244.1.2:5353"]);
        assert_eq!(
            told(&cluster, "node2"),
            ["10.0.1.10:5353", "10.244.1.2:5353"]
        );
        // The other family, where the first has nobody.
        slice(&mut cluster, false, &[("10.0.1.10", true)]);
        assert_eq!(told(&cluster, "node1"), ["[fd00:10:244:1::2]:5353"]);
    }
}
