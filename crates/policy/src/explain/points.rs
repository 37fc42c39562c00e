//! Everybody who may be at an end of a connection: pods, nodes, and the world outside as far as
//! policies tell its parts apart.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::Cluster;
use model::policy::Peer;

use super::End;
use super::grid::{Kind, Point, all_rules};

/// All ends; with several clusters the pods of each, and what any of them tells apart.
pub(super) fn points(clusters: &[&Cluster]) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    let mut seen = BTreeSet::new();
    for cluster in clusters {
        for (key, pod) in &cluster.pods {
            let ip = pod.ips.first().filter(|_| !pod.host_network);
            if let Some(ip) = ip.filter(|_| seen.insert(key.clone())) {
                points.push(Point {
                    name: key.1.clone(),
                    kind: Kind::Pod,
                    end: End {
                        ip: *ip,
                        pod: Some(key.clone()),
                        node: None,
                    },
                });
            }
        }
    }
    points.sort_by(|a, b| a.end.pod.cmp(&b.end.pod));
    let mut nodes = BTreeSet::new();
    for node in clusters.iter().flat_map(|cluster| cluster.nodes.values()) {
        let ip = node.addresses.first();
        if let Some(ip) = ip.filter(|_| nodes.insert(&node.name)) {
            points.push(Point {
                name: node.name.clone(),
                kind: Kind::Node,
                end: End {
                    ip: *ip,
                    pod: None,
                    node: Some(node.name.clone()),
                },
            });
        }
    }
    points.extend(outside(clusters));
    points
}

/// The parts of the world outside: what is in a block and in none within it.
fn outside(clusters: &[&Cluster]) -> Vec<Point> {
    let everywhere = |v6: bool| match v6 {
        false => IpNet::V4(Ipv4Net::default()),
        true => IpNet::V6(Ipv6Net::default()),
    };
    let pods = || clusters.iter().flat_map(|cluster| cluster.pods.values());
    let has = |v6: bool| pods().flat_map(|pod| &pod.ips).any(|ip| ip.is_ipv6() == v6);
    let mut nets: BTreeSet<IpNet> = [false, true].into_iter().map(everywhere).collect();
    for rule in clusters.iter().flat_map(|cluster| all_rules(cluster)) {
        for peer in rule.peers.iter().flatten() {
            if let Peer::Block { net, except } = peer {
                nets.insert(net.trunc());
                nets.extend(except.iter().map(IpNet::trunc));
            }
        }
    }
    let mut own: BTreeSet<IpNet> = BTreeSet::new();
    for node in clusters.iter().flat_map(|cluster| cluster.nodes.values()) {
        own.extend(node.pod_cidrs.iter().map(IpNet::trunc));
        own.extend(node.addresses.iter().map(|ip| IpNet::from(*ip)));
    }
    let known = |ip: &&IpAddr| own.iter().any(|net| net.contains(*ip));
    let others: Vec<IpNet> = pods()
        .flat_map(|pod| pod.ips.iter().filter(|ip| !known(ip)))
        .map(|ip| IpNet::from(*ip))
        .collect();
    own.extend(others);
    let is_root = |net: &&IpNet| net.prefix_len() == 0;
    let inner = nets.iter().filter(|net| !is_root(net));
    let families = inner
        .chain(nets.iter().filter(is_root))
        .filter(|net| has(net.addr().is_ipv6()));
    families
        .filter_map(|net| {
            let within: Vec<&IpNet> = nets
                .iter()
                .filter(|one| *one != net && net.contains(*one))
                .collect();
            let ip = left(net, &within, &own)?;
            let (v6, rest) = (ip.is_ipv6(), !within.is_empty());
            let name = match (*net == everywhere(v6), rest) {
                (true, false) if !v6 => "outside".into(),
                (true, false) => "outside (IPv6)".into(),
                (true, true) if !v6 => "the rest outside".into(),
                (true, true) => "the rest outside (IPv6)".into(),
                (false, false) => net.to_string(),
                (false, true) => format!("the rest of {net}"),
            };
            Some(Point {
                name,
                kind: Kind::Outside,
                end: End {
                    ip,
                    pod: None,
                    node: None,
                },
            })
        })
        .collect()
}

/// An address of a range that is in none of the ranges within it, and is none of the cluster's.
/// Where there is one, the first address or one right behind a range is such.
fn left(net: &IpNet, within: &[&IpNet], own: &BTreeSet<IpNet>) -> Option<IpAddr> {
    let holes = || within.iter().copied().chain(own.iter());
    let behind = holes()
        .filter(|hole| net.contains(*hole))
        .filter_map(|hole| next(hole.broadcast()));
    [net.network()]
        .into_iter()
        .chain(behind)
        .find(|ip| net.contains(ip) && !holes().any(|hole| hole.contains(ip)))
}

fn next(ip: IpAddr) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().checked_add(1)?).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().checked_add(1)?).into(),
    })
}
