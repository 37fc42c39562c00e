//! What a cluster is to be: checked, remembered, and compared with what is asked next time.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;
use model::config::{Config, FabricConfig, FabricMode, PodMode, ServicesConfig, ServicesMode};
use serde::{Deserialize, Serialize};

use super::address;

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name, `node1` and so on.
    pub name: String,
    /// Its number, which decides its address.
    pub number: u16,
}

/// A cluster as it was asked for; kept in the state folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// `--name`.
    pub name: String,
    /// Between nodes.
    pub fabric: FabricConfig,
    /// On the node.
    pub pod_mode: PodMode,
    /// Virtual addresses; a cluster made before there were any has the defaults.
    #[serde(default)]
    pub services: ServicesConfig,
    /// Pod ranges, at most one a family, primary first.
    pub cluster_cidrs: Vec<IpNet>,
    /// Service ranges, the same families in the same order.
    pub service_cidrs: Vec<IpNet>,
    /// How many underlay segments the nodes are dealt out to.
    pub segments: u8,
    /// Port of the API server on 127.0.0.1.
    pub api_port: u16,
    /// Names the servers that the nodes' resolver asks.
    #[serde(default = "machine_resolv_conf")]
    pub resolv_conf: PathBuf,
    /// Nodes.
    pub nodes: Vec<NodeSpec>,
}

/// What a command line asks for; what it leaves open stays as it is, or at its default.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `--nodes`.
    pub nodes: Option<u16>,
    /// `--fabric`.
    pub fabric: Option<FabricMode>,
    /// `--mtu`.
    pub mtu: Option<u32>,
    /// `--pod-mode`.
    pub pod_mode: Option<PodMode>,
    /// `--services`.
    pub services: Option<ServicesMode>,
    /// `--dual-stack`.
    pub dual_stack: bool,
    /// `--cluster-cidr`.
    pub cluster_cidrs: Vec<IpNet>,
    /// `--service-cidr`.
    pub service_cidrs: Vec<IpNet>,
    /// `--subnets`.
    pub segments: Option<u8>,
    /// `--api-port`.
    pub api_port: Option<u16>,
    /// `--resolv-conf`.
    pub resolv_conf: Option<PathBuf>,
}

/// What is wrong with a request: flag, cause, next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The flag.
    pub flag: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.flag, self.message)
    }
}

impl std::error::Error for SpecError {}

/// Refuses a flag.
pub(super) fn wrong<T>(flag: &'static str, message: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError {
        flag,
        message: message.into(),
    })
}

const CLUSTER_V4: &str = "10.244.0.0/16";
const CLUSTER_V6: &str = "fd00:10:244::/56";
const SERVICE_V4: &str = "10.96.0.0/12";
const SERVICE_V6: &str = "fd00:10:96::/112";
const DEFAULT_NODES: u16 = 3;

fn machine_resolv_conf() -> PathBuf {
    "/etc/resolv.conf".into()
}

fn ranges(given: &[IpNet], dual_stack: bool, v4: &str, v6: &str) -> Vec<IpNet> {
    let mut all = given.to_vec();
    if all.is_empty() {
        all.extend(v4.parse::<IpNet>());
    }
    let has_v6 = all.iter().any(|net| matches!(net, IpNet::V6(_)));
    let has_v4 = all.iter().any(|net| matches!(net, IpNet::V4(_)));
    if dual_stack && !has_v6 {
        all.extend(v6.parse::<IpNet>());
    }
    if dual_stack && !has_v4 {
        all.extend(v4.parse::<IpNet>());
    }
    all
}

impl Request {
    /// A new cluster; `free_port` is taken where no port was asked for.
    pub fn create(&self, name: &str, free_port: u16) -> Result<ClusterSpec, SpecError> {
        let cluster_cidrs = ranges(&self.cluster_cidrs, self.dual_stack, CLUSTER_V4, CLUSTER_V6);
        if self.api_port == Some(0) {
            return wrong("--api-port", "0 is not a port; leave it out for a free one");
        }
        // Services follow the pods' families where nothing else was said.
        let pods_v4 = cluster_cidrs.iter().any(|net| matches!(net, IpNet::V4(_)));
        let pods_v6 = cluster_cidrs.iter().any(|net| matches!(net, IpNet::V6(_)));
        let service_cidrs = if self.service_cidrs.is_empty() && !pods_v4 {
            ranges(&[], false, SERVICE_V6, SERVICE_V6)
        } else {
            ranges(
                &self.service_cidrs,
                pods_v4 && pods_v6,
                SERVICE_V4,
                SERVICE_V6,
            )
        };
        let spec = ClusterSpec {
            name: name.to_owned(),
            fabric: FabricConfig {
                mode: self.fabric.unwrap_or_default(),
                mtu: self.mtu,
                ..FabricConfig::default()
            },
            pod_mode: self.pod_mode.unwrap_or_default(),
            services: ServicesConfig {
                mode: self.services.unwrap_or_default(),
                ..ServicesConfig::default()
            },
            cluster_cidrs,
            service_cidrs,
            segments: self.segments.unwrap_or(1),
            api_port: self.api_port.unwrap_or(free_port),
            resolv_conf: self.resolv_conf.clone().unwrap_or_else(machine_resolv_conf),
            nodes: (1..=self.nodes.unwrap_or(DEFAULT_NODES))
                .map(node_called)
                .collect(),
        };
        spec.check()?;
        Ok(spec)
    }

    /// The cluster that is there, with what was asked for changed; what cannot be changed
    /// on a live cluster is refused by name.
    pub fn change(&self, old: &ClusterSpec) -> Result<ClusterSpec, SpecError> {
        let mut spec = old.clone();
        let Config {
            fabric, services, ..
        } = self.onto(old.config());
        (spec.fabric, spec.services) = (fabric, services);
        if let Some(file) = &self.resolv_conf {
            spec.resolv_conf.clone_from(file);
        }
        self.refuse_fixed(old)?;
        if let Some(nodes) = self.nodes {
            let have = u16::try_from(spec.nodes.len()).unwrap_or(u16::MAX);
            if nodes < have {
                let last = spec.nodes.last().map_or("", |node| node.name.as_str());
                return wrong(
                    "--nodes",
                    format!(
                        "the cluster has {have} nodes; nodes leave one by one: flatnet node remove {last}"
                    ),
                );
            }
            for _ in have..nodes {
                spec.add_node(None)?;
            }
        }
        spec.check()?;
        Ok(spec)
    }

    /// A live configuration with what was asked for changed.
    pub fn onto(&self, mut live: Config) -> Config {
        live.fabric.mode = self.fabric.unwrap_or(live.fabric.mode);
        live.fabric.mtu = self.mtu.or(live.fabric.mtu);
        live.services.mode = self.services.unwrap_or(live.services.mode);
        live
    }

    fn refuse_fixed(&self, old: &ClusterSpec) -> Result<(), SpecError> {
        let fixed = |flag, is: String, asked: String| {
            wrong(
                flag,
                format!(
                    "cluster {} has {is} and a live cluster cannot change it to {asked}; \
                     `flatnet down --name {}` first, or another --name",
                    old.name, old.name
                ),
            )
        };
        if !self.cluster_cidrs.is_empty()
            && !self
                .cluster_cidrs
                .iter()
                .all(|net| old.cluster_cidrs.contains(net))
        {
            return fixed(
                "--cluster-cidr",
                list(&old.cluster_cidrs),
                list(&self.cluster_cidrs),
            );
        }
        if !self.service_cidrs.is_empty()
            && !self
                .service_cidrs
                .iter()
                .all(|net| old.service_cidrs.contains(net))
        {
            return fixed(
                "--service-cidr",
                list(&old.service_cidrs),
                list(&self.service_cidrs),
            );
        }
        if self.dual_stack && !(old.has_v4() && old.has_v6()) {
            return fixed("--dual-stack", "one address family".into(), "two".into());
        }
        if let Some(mode) = self.pod_mode.filter(|mode| *mode != old.pod_mode) {
            return fixed("--pod-mode", shown(&old.pod_mode), shown(&mode));
        }
        if let Some(segments) = self.segments.filter(|segments| *segments != old.segments) {
            return fixed("--subnets", old.segments.to_string(), segments.to_string());
        }
        if let Some(port) = self.api_port.filter(|port| *port != old.api_port) {
            return fixed("--api-port", old.api_port.to_string(), port.to_string());
        }
        Ok(())
    }
}

fn list(nets: &[IpNet]) -> String {
    let all: Vec<String> = nets.iter().map(ToString::to_string).collect();
    all.join(",")
}

/// A mode in the word users write it with.
pub fn shown<T: Serialize>(mode: &T) -> String {
    match serde_json::to_value(mode) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn node_called(number: u16) -> NodeSpec {
    NodeSpec {
        name: format!("node{number}"),
        number,
    }
}

impl ClusterSpec {
    /// True where pods have IPv4 addresses.
    pub fn has_v4(&self) -> bool {
        self.cluster_cidrs
            .iter()
            .any(|net| matches!(net, IpNet::V4(_)))
    }

    /// True where pods have IPv6 addresses.
    pub fn has_v6(&self) -> bool {
        self.cluster_cidrs
            .iter()
            .any(|net| matches!(net, IpNet::V6(_)))
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Adds a node with the lowest free number; its name is `nodeN` where none is given.
    pub fn add_node(&mut self, name: Option<&str>) -> Result<NodeSpec, SpecError> {
        let taken: BTreeSet<u16> = self.nodes.iter().map(|node| node.number).collect();
        let number = (1..=address::MOST_NODES).find(|n| !taken.contains(n));
        let Some(number) = number else {
            return wrong(
                "--nodes",
                format!(
                    "{} nodes are the most one machine takes",
                    address::MOST_NODES
                ),
            );
        };
        let name = name.map_or_else(|| format!("node{number}"), ToOwned::to_owned);
        if self.node(&name).is_some() {
            return wrong("NAME", format!("there is a node called {name} already"));
        }
        let node = NodeSpec { name, number };
        self.nodes.push(node.clone());
        self.nodes.sort_by_key(|node| node.number);
        self.check()?;
        Ok(node)
    }

    /// The network configuration that agents and controllers follow.
    pub fn config(&self) -> Config {
        Config {
            cluster_cidrs: self.cluster_cidrs.clone(),
            service_cidrs: self.service_cidrs.clone(),
            cluster_dns: self
                .service_cidrs
                .iter()
                .map(|net| address::nth(*net, 10))
                .collect(),
            fabric: self.fabric.clone(),
            pod_mode: self.pod_mode,
            services: self.services.clone(),
            ..Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(all: &[&str]) -> Vec<IpNet> {
        all.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn made(request: &Request) -> Result<ClusterSpec, SpecError> {
        request.create("t", 6443)
    }

    #[test]
    fn nothing_asked_gives_the_documents_cluster() {
        let spec = made(&Request::default()).unwrap();
        let names: Vec<&str> = spec.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["node1", "node2", "node3"]);
        assert_eq!(list(&spec.cluster_cidrs), "10.244.0.0/16");
        assert_eq!(list(&spec.service_cidrs), "10.96.0.0/12");
        assert_eq!(spec.config().cluster_dns[0].to_string(), "10.96.0.10");
    }

    #[test]
    fn port_0_is_refused() {
        let error = made(&Request {
            api_port: Some(0),
            ..Request::default()
        });
        assert!(error.unwrap_err().to_string().starts_with("--api-port: 0"));
    }

    #[test]
    fn dual_stack_has_both_families() {
        let spec = made(&Request {
            dual_stack: true,
            ..Request::default()
        })
        .unwrap();
        assert_eq!(list(&spec.cluster_cidrs), "10.244.0.0/16,fd00:10:244::/56");
        assert_eq!(list(&spec.service_cidrs), "10.96.0.0/12,fd00:10:96::/112");
        assert_eq!(spec.config().cluster_dns[1].to_string(), "fd00:10:96::a");
    }

    #[test]
    fn pods_with_ipv6_alone_get_services_with_ipv6_alone() {
        let spec = made(&Request {
            cluster_cidrs: nets(&["fd00:99::/56"]),
            ..Request::default()
        })
        .unwrap();
        assert_eq!(list(&spec.service_cidrs), "fd00:10:96::/112");
    }

    #[test]
    fn a_live_cluster_changes_its_fabric_but_not_its_ranges() {
        let old = made(&Request::default()).unwrap();
        let new = Request {
            fabric: Some(FabricMode::HostGw),
            services: Some(ServicesMode::Iptables),
            nodes: Some(4),
            ..Request::default()
        }
        .change(&old)
        .unwrap();
        assert_eq!(new.fabric.mode, FabricMode::HostGw);
        assert_eq!(new.config().services.mode, ServicesMode::Iptables);
        assert_eq!(new.nodes.len(), 4);
        let error = Request {
            cluster_cidrs: nets(&["10.9.0.0/16"]),
            ..Request::default()
        }
        .change(&old)
        .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("--cluster-cidr: cluster t has 10.244.0.0/16"),
            "{error}"
        );
        let error = Request {
            nodes: Some(1),
            ..Request::default()
        }
        .change(&old)
        .unwrap_err();
        assert!(
            error.to_string().contains("flatnet node remove node3"),
            "{error}"
        );
        assert_eq!(Request::default().change(&old).unwrap(), old);
    }

    #[test]
    fn pods_packets_fit_into_the_tunnel() {
        let refused = |fabric, dual_stack, mtu| {
            let request = Request {
                fabric: Some(fabric),
                dual_stack,
                mtu: Some(mtu),
                ..Request::default()
            };
            made(&request).err().map(|error| error.to_string())
        };
        assert_eq!(refused(FabricMode::HostGw, false, 1500), None);
        assert_eq!(refused(FabricMode::Vxlan, false, 1450), None);
        assert_eq!(
            refused(FabricMode::Vxlan, false, 1451).unwrap(),
            "--mtu: 1451 is not between 576 and 1450, the underlay's 1500 less 50 bytes of VXLAN"
        );
        assert!(refused(FabricMode::CrossSubnet, true, 1431).is_some());

        // Leaving host-gw with its packets' size is refused as well.
        let old = made(&Request {
            fabric: Some(FabricMode::HostGw),
            mtu: Some(1500),
            ..Request::default()
        });
        let change = Request {
            fabric: Some(FabricMode::Vxlan),
            ..Request::default()
        };
        assert!(change.change(&old.unwrap()).is_err());
    }

    #[test]
    fn a_node_that_left_gives_its_number_to_the_next() {
        let mut spec = made(&Request::default()).unwrap();
        spec.nodes.retain(|node| node.name != "node2");
        assert_eq!(spec.add_node(None).unwrap().name, "node2");
        assert_eq!(spec.add_node(Some("edge")).unwrap().number, 4);
        assert!(spec.add_node(Some("edge")).is_err());
        assert!(spec.add_node(Some("client")).is_err());
    }
}
