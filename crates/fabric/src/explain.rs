//! The steps a packet takes, from the plan alone.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use linux::Mac;
use serde::{Deserialize, Serialize};

use crate::plan::{Masquerade, Path, Plan, Via, overhead};
use crate::render::tunnel_of;

/// One step of a packet on its way out of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "step"
)]
pub enum Step {
    /// It stays on this node: the destination is a pod of its own.
    OwnPod {
        /// The node's range.
        range: IpNet,
    },
    /// It stays on this node: the destination is the node itself.
    OwnNode {
        /// The node.
        node: String,
    },
    /// The route that is taken.
    Route {
        /// Destination.
        dst: IpNet,
        /// Next hop.
        via: IpAddr,
        /// Link.
        link: String,
        /// The next hop is on the link although no address says so.
        onlink: bool,
        /// The node whose range it is.
        node: String,
    },
    /// The next hop's hardware address.
    Neighbour {
        /// Next hop.
        ip: IpAddr,
        /// Its hardware address.
        mac: Mac,
        /// Link.
        link: String,
    },
    /// The other end of the tunnel.
    Forward {
        /// The hardware address it is found by.
        mac: Mac,
        /// The other node's address.
        remote: IpAddr,
        /// Link.
        link: String,
    },
    /// It is put into another packet.
    Encapsulate {
        /// Network identifier.
        vni: u32,
        /// UDP port.
        port: u16,
        /// Source of the outer packet.
        local: IpAddr,
        /// Destination of the outer packet.
        remote: IpAddr,
        /// Greatest packet that fits.
        mtu: u32,
        /// Bytes around it.
        overhead: u32,
    },
    /// It gets this node's address.
    Masquerade {
        /// The address.
        address: IpAddr,
    },
    /// It keeps its source address.
    KeepSource {
        /// Why.
        reason: String,
    },
    /// It leaves by the underlay.
    Send {
        /// Link.
        link: String,
        /// The node or router it is handed to; absent where the node's own routes decide.
        to: Option<IpAddr>,
    },
    /// There is no way.
    NoWay {
        /// Why, and what to look at.
        reason: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnPod { range } => write!(f, "pod of this node (range {range})"),
            Self::OwnNode { node } => write!(f, "node {node} itself"),
            Self::Route {
                dst,
                via,
                link,
                onlink,
                node,
            } => {
                let onlink = if *onlink { " onlink" } else { "" };
                write!(f, "route {dst} via {via} dev {link}{onlink} (node {node})")
            }
            Self::Neighbour { ip, mac, link } => {
                write!(f, "neighbour {ip} dev {link} lladdr {mac} PERMANENT")
            }
            Self::Forward { mac, remote, link } => {
                write!(f, "fdb {mac} dev {link} dst {remote} self permanent")
            }
            Self::Encapsulate {
                vni,
                port,
                local,
                remote,
                mtu,
                overhead,
            } => write!(
                f,
                "VXLAN {vni} from {local} to {remote}:{port} (mtu {mtu}, {overhead} bytes around)"
            ),
            Self::Masquerade { address } => write!(f, "masquerade: source becomes {address}"),
            Self::KeepSource { reason } => write!(f, "source kept: {reason}"),
            Self::Send { link, to: Some(to) } => write!(f, "sent to {to} dev {link}"),
            Self::Send { link, to: None } => {
                write!(f, "sent by the node's own routes, usually dev {link}")
            }
            Self::NoWay { reason } => write!(f, "no way: {reason}"),
        }
    }
}

/// The steps from a pod, or from the node itself, to an address, as far as this node has a part
/// in them.
pub fn explain(plan: &Plan, src: IpAddr, dst: IpAddr) -> Vec<Step> {
    if let Some(range) = plan.own.iter().find(|range| range.contains(&dst)) {
        return vec![Step::OwnPod { range: *range }];
    }
    let own_addresses = [&plan.underlay.v4, &plan.underlay.v6];
    if own_addresses
        .into_iter()
        .flatten()
        .any(|uplink| uplink.address == dst)
    {
        return vec![Step::OwnNode {
            node: plan.node.clone(),
        }];
    }
    if let Some((range, path)) = plan.paths.iter().find(|(range, _)| range.contains(&dst)) {
        return between(plan, range, path);
    }
    if let Some(cidr) = plan
        .masquerade
        .cluster
        .iter()
        .find(|cidr| cidr.contains(&dst))
    {
        return vec![Step::NoWay {
            reason: no_way(plan, cidr, dst),
        }];
    }
    outside(plan, src, dst)
}

impl Masquerade {
    /// Whether a packet from `src` to `dst` gets the node's address when it leaves.
    pub fn applies(&self, src: IpAddr, dst: IpAddr) -> bool {
        let inside = |ip: &IpAddr| self.cluster.iter().any(|range| range.contains(ip));
        inside(&src) && !inside(&dst) && !dst.is_multicast() && !self.nodes.contains(&dst)
    }
}

fn between(plan: &Plan, range: &IpNet, path: &Path) -> Vec<Step> {
    let Some(uplink) = plan.underlay.of(range) else {
        return Vec::new();
    };
    let send = Step::Send {
        link: uplink.link.clone(),
        to: Some(path.address),
    };
    let route = |via, link: &str, onlink| Step::Route {
        dst: *range,
        via,
        link: link.to_owned(),
        onlink,
        node: path.node.clone(),
    };
    let mac = match path.via {
        Via::Direct { .. } => return vec![route(path.address, &uplink.link, false), send],
        Via::Vxlan { mac } => mac,
    };
    let link = tunnel_of(range);
    let Some(tunnel) = plan.tunnels.iter().find(|tunnel| tunnel.link == link) else {
        return vec![Step::NoWay {
            reason: format!("node {} has no link {link}", plan.node),
        }];
    };
    vec![
        route(range.network(), link, true),
        Step::Neighbour {
            ip: range.network(),
            mac,
            link: link.to_owned(),
        },
        Step::Forward {
            mac,
            remote: path.address,
            link: link.to_owned(),
        },
        Step::Encapsulate {
            vni: tunnel.vni,
            port: tunnel.port,
            local: tunnel.local,
            remote: path.address,
            mtu: tunnel.mtu,
            overhead: overhead(range),
        },
        Step::Send {
            // Between subnets the node's own routes say which router is next.
            to: Some(path.address),
            link: uplink.link.clone(),
        },
    ]
}

fn outside(plan: &Plan, src: IpAddr, dst: IpAddr) -> Vec<Step> {
    let uplink = match dst {
        IpAddr::V4(_) => plan.underlay.v4.as_ref(),
        IpAddr::V6(_) => plan.underlay.v6.as_ref(),
    };
    let Some(uplink) = uplink else {
        return vec![Step::NoWay {
            reason: format!("node {} has no address in the family of {dst}", plan.node),
        }];
    };
    let masquerade = &plan.masquerade;
    let near = uplink.subnets.iter().any(|subnet| subnet.contains(&dst));
    let send = Step::Send {
        link: uplink.link.clone(),
        to: near.then_some(dst),
    };
    let source = if masquerade.applies(src, dst) {
        Step::Masquerade {
            address: uplink.address,
        }
    } else {
        let reason = if masquerade.nodes.contains(&dst) {
            "the destination is a node that the underlay carries pods' addresses to"
        } else if dst.is_multicast() {
            "the destination is multicast"
        } else {
            "the source is no pod's address"
        };
        Step::KeepSource {
            reason: reason.to_owned(),
        }
    };
    vec![source, send]
}

fn no_way(plan: &Plan, cidr: &IpNet, dst: IpAddr) -> String {
    let mut reason =
        format!("{dst} is in the cluster's range {cidr} but in no node's usable range");
    for problem in &plan.problems {
        reason.push_str("; ");
        reason.push_str(&problem.to_string());
    }
    reason
}
