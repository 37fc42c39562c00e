//! Questions across functions: would a packet pass, which way, and why.
//!
//! Pure: the cluster, its configuration and what the nodes' agents hold go in, the steps and
//! the verdict come out.

pub mod ends;
pub mod walk;

pub use ends::{End, Error, Place};
pub use walk::{Step, Trace, World, trace};

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use model::{Change, Cluster, Node, Pod};

    /// Two nodes, a pod on each, one with hostNetwork, one on no node yet.
    pub fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        for number in 1..=2u8 {
            cluster.take(Change::Node(Node {
                name: format!("node{number}"),
                addresses: vec![format!("10.0.1.{number}0").parse().unwrap()],
                pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
                vtep_mac: Some([2, 0, 0, 0, 0, number]),
                vtep_mac_v6: None,
                labels: BTreeMap::new(),
                leaving: false,
            }));
        }
        for (namespace, name, node, ip, host_network) in [
            ("default", "web-0", "node1", Some("10.244.1.5"), false),
            ("default", "web-1", "node1", Some("10.244.1.6"), false),
            ("data", "db-0", "node2", Some("10.244.2.5"), false),
            ("kube-system", "proxy", "node1", Some("10.0.1.10"), true),
            ("default", "pending", "", None, false),
        ] {
            cluster.take(Change::Pod(Pod {
                namespace: namespace.into(),
                name: name.into(),
                uid: format!("uid-{name}"),
                node: node.into(),
                ips: ip.iter().map(|ip| ip.parse().unwrap()).collect(),
                host_network,
                labels: BTreeMap::new(),
            }));
        }
        cluster
    }
}
