//! Questions across functions: would a packet pass, which way, and why.
//!
//! Pure: the cluster, its configuration and what the nodes' agents hold go in, the steps and
//! the verdict come out.

pub mod ends;
mod forward;
mod names;
mod policing;
mod rules;
pub mod service;
pub mod walk;

pub use ends::{End, Error, Place};
pub use policing::Judged;
pub use service::Through;
pub use walk::{Step, Trace, Wish, World, trace};

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use fabric::{Underlay, Uplink};
    use model::config::{FabricMode, ServicesMode};
    use model::{Change, Cluster, Config, Labels, Node, Pod};

    use crate::{Error, Trace, Wish, World, ends};

    /// Asks a question about a cluster in the user's words.
    pub fn traced(
        cluster: Cluster,
        fabric: FabricMode,
        mode: ServicesMode,
        from: &str,
        to: &str,
    ) -> Result<Trace, Error> {
        with_protocol(cluster, fabric, mode, [from, to], None)
    }

    /// The same of names, where the first node answers itself.
    pub fn asked(
        cluster: Cluster,
        from: &str,
        to: &str,
        protocol: Option<model::Protocol>,
    ) -> Result<Trace, Error> {
        let (fabric, mode) = (FabricMode::default(), ServicesMode::default());
        with_protocol(cluster, fabric, mode, [from, to], protocol)
    }

    fn with_protocol(
        cluster: Cluster,
        fabric: FabricMode,
        mode: ServicesMode,
        [from, to]: [&str; 2],
        protocol: Option<model::Protocol>,
    ) -> Result<Trace, Error> {
        let mut config = Config::default();
        config.fabric.mode = fabric;
        let (mut plans, mut services) = (BTreeMap::new(), BTreeMap::new());
        for node in cluster.nodes.values() {
            let underlay = Underlay {
                v4: Some(Uplink {
                    address: node.addresses[0],
                    link: "eth0".into(),
                    mtu: 1500,
                    subnets: vec!["10.0.1.0/24".parse().unwrap()],
                }),
                v6: None,
            };
            let name = node.name.clone();
            let plan = fabric::plan::plan(&cluster, &config, &name, &underlay);
            let settings = services::Settings::of(&cluster, &config, &name);
            plans.insert(name.clone(), plan.unwrap());
            services.insert(name, services::Plan::of(settings.unwrap(), &cluster));
        }
        let client = ["203.0.113.10".parse().unwrap()];
        let dns = config.cluster_dns[0];
        let resolvers = BTreeMap::from([("node1".to_owned(), BTreeMap::from([(dns, dns)]))]);
        let world = World {
            resolvers: &resolvers,
            plans: &plans,
            attachments: &BTreeMap::new(),
            services: &services,
            mode,
            cluster: &cluster,
            client: &client,
        };
        let (from, to) = (ends::parse(from)?, ends::parse(to)?);
        let wish = Wish {
            from: &ends::find(&from.0, &cluster, &client)?,
            to: &ends::find(&to.0, &cluster, &client)?,
            port: to.1,
            protocol,
            v6: false,
        };
        crate::trace(&world, &wish)
    }

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
            cluster.take(Change::Pod(Arc::new(Pod {
                namespace: namespace.into(),
                name: name.into(),
                uid: format!("uid-{name}"),
                node: node.into(),
                ips: ip.iter().map(|ip| ip.parse().unwrap()).collect(),
                host_network,
                labels: Labels::default(),
                ports: Vec::new(),
                created: 0,
                leaving: false,
            })));
        }
        cluster
    }
}
