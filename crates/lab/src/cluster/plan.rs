//! A cluster as values: every namespace, link, address, route, process and kubeconfig it
//! is made of. Pure; `underlay` and `process` make it so.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::address;
use super::kubeconfig::Identity;
use super::spec::{ClusterSpec, NodeSpec};
use crate::paths::ClusterPaths;

/// Port of the API server inside the cluster.
pub const API_PORT: u16 = 6443;
/// Port of each kubelet.
pub const KUBELET_PORT: u16 = 10250;

/// One network namespace and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name, as `ip netns` shows it.
    pub name: String,
    /// `net.*` sysctls, as paths below `/proc/sys/net`, and their values.
    pub sysctls: Vec<(&'static str, &'static str)>,
    /// Default routes, one a family.
    pub gateways: Vec<IpAddr>,
}

/// A bridge: one segment of the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// The router's addresses on the segment.
    pub addresses: Vec<IpNet>,
}

/// A cable: a veth pair between the underlay's namespace and another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cable {
    /// Name of the end in the underlay's namespace.
    pub near: String,
    /// The bridge that end is a port of; routed where there is none.
    pub bridge: Option<String>,
    /// Addresses of that end.
    pub near_addresses: Vec<IpNet>,
    /// The namespace of the other end, which is always `eth0`.
    pub netns: String,
    /// Addresses of the other end.
    pub addresses: Vec<IpNet>,
}

/// One process of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// What to call it: `apiserver`, `node1/agent`.
    pub name: String,
    /// Arguments of `flatnet`.
    pub args: Vec<String>,
    /// The network namespace it starts in; the machine's own where there is none.
    pub netns: Option<String>,
    /// Its folder below the cgroup v2 mount.
    pub cgroup: PathBuf,
    /// Its log file.
    pub log: PathBuf,
}

/// A server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// The certificate's common name.
    pub user: String,
    /// The name it is reached by.
    pub host: String,
    /// The addresses it is reached by.
    pub addresses: Vec<IpAddr>,
    /// Where the certificate goes.
    pub certificate: PathBuf,
    /// Where its key goes.
    pub key: PathBuf,
}

/// One node's part of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its cable to the underlay.
    pub cable: Cable,
    /// Its folder below the cgroup v2 mount.
    pub cgroup: PathBuf,
    /// Its agent and its kubelet.
    pub processes: Vec<Process>,
    /// The agent's and the kubelet's identities.
    pub identities: Vec<Identity>,
    /// The kubelet's certificate as a server.
    pub serving: Serving,
}

/// A whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The underlay's namespace: segments, and the router between them.
    pub underlay: Namespace,
    /// The segments.
    pub bridges: Vec<Bridge>,
    /// The client's namespace.
    pub client: Namespace,
    /// The client's cable.
    pub client_cable: Cable,
    /// The API server.
    pub apiserver: Process,
    /// What the nodes resolve names by.
    pub resolver: Process,
    /// The nodes' `resolv.conf`, which leads to it.
    pub resolv_conf: String,
    /// Scheduler and controllers.
    pub controllers: Process,
    /// The administrator and the controllers.
    pub identities: Vec<Identity>,
    /// Addresses the API server answers on inside the cluster.
    pub api_addresses: Vec<SocketAddr>,
    /// Nodes.
    pub nodes: Vec<NodePlan>,
}

/// The cluster that `spec` asks for.
pub fn plan(spec: &ClusterSpec, paths: &ClusterPaths) -> Plan {
    let underlay = paths.netns("underlay");
    let client = paths.netns("client");
    let families = underlay_families(spec);
    let client_ends: Vec<(IpNet, IpNet)> = families.iter().map(|v6| address::client(*v6)).collect();
    let api_addresses: Vec<SocketAddr> = families
        .iter()
        .map(|v6| SocketAddr::new(address::router(0, *v6).addr(), API_PORT))
        .collect();
    let local = format!("https://127.0.0.1:{}", spec.api_port);
    Plan {
        underlay: Namespace {
            name: underlay,
            sysctls: vec![("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")],
            gateways: Vec::new(),
        },
        bridges: (0..spec.segments)
            .map(|segment| Bridge {
                name: bridge(segment),
                addresses: families
                    .iter()
                    .map(|v6| address::router(segment, *v6))
                    .collect(),
            })
            .collect(),
        client: Namespace {
            name: client.clone(),
            sysctls: Vec::new(),
            gateways: client_ends
                .iter()
                .map(|(_, gateway)| gateway.addr())
                .collect(),
        },
        client_cable: Cable {
            near: "fn-client".into(),
            bridge: None,
            near_addresses: client_ends.iter().map(|(_, gateway)| *gateway).collect(),
            netns: client,
            addresses: client_ends.iter().map(|(own, _)| *own).collect(),
        },
        apiserver: apiserver(spec, paths, &api_addresses),
        resolver: resolver(spec, paths),
        resolv_conf: resolvers(spec)
            .iter()
            .map(|ip| format!("nameserver {ip}\n"))
            .collect(),
        controllers: controllers(paths),
        identities: vec![
            Identity {
                user: "kubernetes-admin".into(),
                group: "system:masters".into(),
                server: local.clone(),
                file: paths.kubeconfig(),
            },
            Identity {
                user: "flatnet-controller".into(),
                group: "flatnet:controllers".into(),
                server: local,
                file: paths.controllers_kubeconfig(),
            },
        ],
        nodes: spec
            .nodes
            .iter()
            .map(|node| node_plan(spec, node, paths, &api_addresses))
            .collect(),
        api_addresses,
    }
}

/// The underlay has IPv4 always, IPv6 where the pods have it.
fn underlay_families(spec: &ClusterSpec) -> Vec<bool> {
    if spec.has_v6() {
        vec![false, true]
    } else {
        vec![false]
    }
}

fn bridge(segment: u8) -> String {
    format!("fn-br{segment}")
}

fn node_plan(
    spec: &ClusterSpec,
    node: &NodeSpec,
    paths: &ClusterPaths,
    api: &[SocketAddr],
) -> NodePlan {
    let netns = paths.netns(&node.name);
    let families = underlay_families(spec);
    let segment = address::segment_of(node.number, spec.segments);
    let on_underlay = |v6: &bool| address::node(node.number, spec.segments, *v6);
    let addresses: Vec<IpNet> = families.iter().filter_map(on_underlay).collect();
    // The Node object shows the families that pods have, in their order.
    let node_ips: Vec<IpAddr> = spec
        .cluster_cidrs
        .iter()
        .filter_map(|net| on_underlay(&matches!(net, IpNet::V6(_))))
        .map(|net| net.addr())
        .collect();
    let cgroup = paths.node_cgroup(&node.name);
    let files = paths.node(&node.name);
    let process = |part: &str, args: Vec<String>| Process {
        name: format!("{}/{part}", node.name),
        args,
        netns: Some(netns.clone()),
        cgroup: cgroup.join(part),
        log: paths.log(&format!("{}-{part}", node.name)),
    };
    let ips: Vec<String> = node_ips.iter().map(ToString::to_string).collect();
    let agent = args(
        &["agent"],
        &[
            ("node", node.name.clone()),
            ("kubeconfig", files.agent_kubeconfig().display().to_string()),
            ("socket", files.agent_socket().display().to_string()),
            ("state", files.agent_state().display().to_string()),
            ("cni-conf", files.cni_conf().display().to_string()),
            ("resolv-conf", paths.resolv_conf().display().to_string()),
        ],
    );
    let config = spec.config();
    let dns: Vec<String> = config.cluster_dns.iter().map(ToString::to_string).collect();
    let kubelet = args(
        &["lab", "kubelet"],
        &[
            ("name", paths.name.clone()),
            ("node", node.name.clone()),
            ("node-ip", ips.join(",")),
            ("cluster-dns", dns.join(",")),
            ("cluster-domain", config.cluster_domain.clone()),
            ("resolv-conf", paths.resolv_conf().display().to_string()),
        ],
    );
    let server = api
        .first()
        .map(|address| format!("https://{address}"))
        .unwrap_or_default();
    let identity = |user: String, group: &str, file| Identity {
        user,
        group: group.into(),
        server: server.clone(),
        file,
    };
    NodePlan {
        name: node.name.clone(),
        namespace: Namespace {
            name: netns.clone(),
            sysctls: vec![("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")],
            gateways: families
                .iter()
                .map(|v6| address::router(segment, *v6).addr())
                .collect(),
        },
        cable: Cable {
            near: format!("fn-node{}", node.number),
            bridge: Some(bridge(segment)),
            near_addresses: Vec::new(),
            netns: netns.clone(),
            addresses: addresses.clone(),
        },
        serving: Serving {
            user: format!("system:node:{}", node.name),
            host: node.name.clone(),
            addresses: addresses.iter().map(IpNet::addr).collect(),
            certificate: files.kubelet_certificate(),
            key: files.kubelet_key(),
        },
        processes: vec![process("agent", agent), process("kubelet", kubelet)],
        identities: vec![
            identity(
                format!("flatnet-agent:{}", node.name),
                "flatnet:agents",
                files.agent_kubeconfig(),
            ),
            identity(
                format!("system:node:{}", node.name),
                "system:nodes",
                files.kubelet_kubeconfig(),
            ),
        ],
        cgroup,
    }
}

fn apiserver(spec: &ClusterSpec, paths: &ClusterPaths, inside: &[SocketAddr]) -> Process {
    let services: Vec<String> = spec.service_cidrs.iter().map(ToString::to_string).collect();
    let inside: Vec<String> = inside.iter().map(ToString::to_string).collect();
    Process {
        name: "apiserver".into(),
        args: args(
            &["lab", "apiserver"],
            &[
                ("name", paths.name.clone()),
                ("listen", format!("127.0.0.1:{}", spec.api_port)),
                ("netns", paths.netns("underlay")),
                ("listen-inside", inside.join(",")),
                ("service-cidr", services.join(",")),
            ],
        ),
        netns: None,
        cgroup: paths.cgroup().join("apiserver"),
        log: paths.log("apiserver"),
    }
}

/// Addresses of the nodes' resolver, in the families that pods have.
fn resolvers(spec: &ClusterSpec) -> Vec<IpAddr> {
    let families = spec.cluster_cidrs.iter();
    families
        .map(|net| address::router(0, matches!(net, IpNet::V6(_))).addr())
        .collect()
}

fn resolver(spec: &ClusterSpec, paths: &ClusterPaths) -> Process {
    let listen: Vec<String> = resolvers(spec).iter().map(ToString::to_string).collect();
    Process {
        name: "resolver".into(),
        args: args(
            &["lab", "resolver"],
            &[
                ("name", paths.name.clone()),
                ("netns", paths.netns("underlay")),
                ("listen", listen.join(",")),
                ("resolv-conf", spec.resolv_conf.display().to_string()),
            ],
        ),
        netns: None,
        cgroup: paths.cgroup().join("resolver"),
        log: paths.log("resolver"),
    }
}

fn controllers(paths: &ClusterPaths) -> Process {
    Process {
        name: "controllers".into(),
        args: args(&["lab", "controllers"], &[("name", paths.name.clone())]),
        netns: None,
        cgroup: paths.cgroup().join("controllers"),
        log: paths.log("controllers"),
    }
}

fn args(words: &[&str], flags: &[(&str, String)]) -> Vec<String> {
    let words = words.iter().map(|word| (*word).to_owned());
    words
        .chain(
            flags
                .iter()
                .map(|(flag, value)| format!("--{flag}={value}")),
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::spec::Request;

    fn planned(request: &Request) -> Plan {
        let spec = request.create("t", 41234).unwrap();
        plan(&spec, &ClusterPaths::new("t"))
    }

    #[test]
    fn one_segment_of_three_nodes() {
        let plan = planned(&Request::default());
        assert_eq!(plan.underlay.name, "fn-t-underlay");
        assert_eq!(plan.bridges.len(), 1);
        assert_eq!(plan.bridges[0].addresses[0].to_string(), "10.0.1.1/24");
        let node = &plan.nodes[1];
        assert_eq!(node.namespace.name, "fn-t-node2");
        assert_eq!(node.cable.addresses[0].to_string(), "10.0.1.20/24");
        assert_eq!(node.namespace.gateways[0].to_string(), "10.0.1.1");
        assert_eq!(node.identities[0].server, "https://10.0.1.1:6443");
        assert_eq!(plan.identities[0].server, "https://127.0.0.1:41234");
    }

    #[test]
    fn identities_are_the_ones_rbac_knows() {
        let plan = planned(&Request::default());
        let who: Vec<String> = plan.nodes[0]
            .identities
            .iter()
            .chain(&plan.identities)
            .map(|identity| format!("{} in {}", identity.user, identity.group))
            .collect();
        assert_eq!(
            who,
            [
                "flatnet-agent:node1 in flatnet:agents",
                "system:node:node1 in system:nodes",
                "kubernetes-admin in system:masters",
                "flatnet-controller in flatnet:controllers",
            ]
        );
    }

    #[test]
    fn segments_have_a_router_each() {
        let plan = planned(&Request {
            segments: Some(2),
            dual_stack: true,
            ..Request::default()
        });
        assert_eq!(plan.bridges[1].name, "fn-br1");
        assert_eq!(
            plan.bridges[1].addresses[1].to_string(),
            "fd00:10:0:2::1/64"
        );
        assert_eq!(plan.nodes[1].cable.bridge.as_deref(), Some("fn-br1"));
        assert_eq!(plan.nodes[1].cable.addresses[0].to_string(), "10.0.2.20/24");
        assert_eq!(plan.nodes[2].cable.bridge.as_deref(), Some("fn-br0"));
    }

    #[test]
    fn nodes_resolve_through_the_router_in_the_families_of_their_pods() {
        let plan = planned(&Request {
            dual_stack: true,
            resolv_conf: Some("/tmp/upstream.conf".into()),
            ..Request::default()
        });
        assert_eq!(
            plan.resolv_conf,
            "nameserver 10.0.1.1\nnameserver fd00:10:0:1::1\n"
        );
        let upstream = "--resolv-conf=/tmp/upstream.conf".to_owned();
        assert!(plan.resolver.args.contains(&upstream));
    }

    #[test]
    fn link_names_fit_the_kernel() {
        let plan = planned(&Request {
            nodes: Some(address::MOST_NODES),
            ..Request::default()
        });
        for node in &plan.nodes {
            assert!(node.cable.near.len() <= 15, "{}", node.cable.near);
        }
    }

    #[test]
    fn a_node_of_two_families_names_both_addresses_in_the_pods_order() {
        let plan = planned(&Request {
            dual_stack: true,
            ..Request::default()
        });
        let kubelet = &plan.nodes[0].processes[1];
        assert!(
            kubelet
                .args
                .contains(&"--node-ip=10.0.1.10,fd00:10:0:1::10".to_owned()),
            "{:?}",
            kubelet.args
        );
    }
}
