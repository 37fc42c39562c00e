//! Clusters as values.

use std::net::{Ipv4Addr, Ipv6Addr};

use fabric::plan::{VXLAN_V4, VXLAN_V6, vtep_mac};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::config::FabricMode;
use model::{Cluster, Config, Node};

/// Node `number` of the one-machine cluster, as its agent has published it.
pub fn node(number: u8, dual: bool) -> Node {
    let name = format!("node{number}");
    let mut node = Node {
        addresses: vec![Ipv4Addr::new(10, 0, 1, 10 * number).into()],
        pod_cidrs: vec![
            Ipv4Net::new(Ipv4Addr::new(10, 244, number, 0), 24)
                .unwrap()
                .into(),
        ],
        vtep_mac: Some(vtep_mac(&name, VXLAN_V4).0),
        vtep_mac_v6: None,
        labels: Default::default(),
        leaving: false,
        name,
    };
    if dual {
        let number = u16::from(number);
        let underlay = Ipv6Addr::new(0xfd00, 0x10, 0, 1, 0, 0, 0, number);
        let range = Ipv6Addr::new(0xfd00, 0x10, 0x244, number, 0, 0, 0, 0);
        node.addresses.push(underlay.into());
        node.pod_cidrs.push(Ipv6Net::new(range, 64).unwrap().into());
        node.vtep_mac_v6 = Some(vtep_mac(&node.name, VXLAN_V6).0);
    }
    node
}

/// The same on the underlay's second segment.
pub fn far_node(number: u8, dual: bool) -> Node {
    let mut node = node(number, dual);
    node.addresses[0] = Ipv4Addr::new(10, 0, 2, 10 * number).into();
    if dual {
        let underlay = Ipv6Addr::new(0xfd00, 0x10, 0, 2, 0, 0, 0, number.into());
        node.addresses[1] = underlay.into();
    }
    node
}

pub fn cluster(nodes: impl IntoIterator<Item = Node>) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes {
        cluster.nodes.insert(node.name.clone(), node);
    }
    cluster
}

pub fn config(mode: FabricMode) -> Config {
    let mut config = Config {
        cluster_cidrs: vec![net("10.244.0.0/16"), net("fd00:10:244::/56")],
        ..Config::default()
    };
    config.fabric.mode = mode;
    config
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}
