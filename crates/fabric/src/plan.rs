//! From the cluster and the underlay to paths: who is reached how. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use linux::Mac;
use model::config::FabricMode;
use model::{Cluster, Config, Node};
use serde::Serialize;

use crate::ranges::{Ranges, ranges};

/// Name of the VXLAN end whose packets travel over IPv4; it carries the IPv4 pod ranges.
pub const VXLAN_V4: &str = "fn-vxlan";
/// Name of the VXLAN end whose packets travel over IPv6; it carries the IPv6 pod ranges.
pub const VXLAN_V6: &str = "fn-vxlan6";
/// Outer Ethernet, IPv4, UDP and VXLAN headers.
pub const OVERHEAD_V4: u32 = 50;
/// Outer Ethernet, IPv6, UDP and VXLAN headers.
pub const OVERHEAD_V6: u32 = 70;
/// Least MTU of a link that carries IPv6.
const MTU_MIN_V6: u32 = 1280;

/// How this node hangs on its underlay in one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uplink {
    /// This node's address.
    pub address: IpAddr,
    /// The link that has it.
    pub link: String,
    /// That link's MTU.
    pub mtu: u32,
    /// Subnets on that link: an address in one of them is reached without a router.
    pub subnets: Vec<IpNet>,
}

/// How this node hangs on its underlay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Underlay {
    /// In IPv4.
    pub v4: Option<Uplink>,
    /// In IPv6.
    pub v6: Option<Uplink>,
}

impl Underlay {
    /// In the family of an address range.
    pub fn of(&self, range: &IpNet) -> Option<&Uplink> {
        match range {
            IpNet::V4(_) => self.v4.as_ref(),
            IpNet::V6(_) => self.v6.as_ref(),
        }
    }
}

/// The way to a range of pods on another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Path {
    /// The node.
    pub node: String,
    /// Its address in the underlay.
    pub address: IpAddr,
    /// How.
    pub via: Via,
}

/// How a packet travels between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Via {
    /// As it is, to the node's address on the same subnet.
    Direct {
        /// Set where it should be tunnelled but the node has not published its end yet.
        until_published: bool,
    },
    /// Inside VXLAN.
    Vxlan {
        /// Hardware address of the node's end.
        mac: Mac,
    },
}

/// This node's VXLAN end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tunnel {
    /// Name of the link.
    pub link: &'static str,
    /// Network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// This node's address: the source of tunnelled packets.
    pub local: IpAddr,
    /// The link they leave by.
    pub parent: String,
    /// MTU.
    pub mtu: u32,
    /// Hardware address, made from the node's name: the same after a restart, or when the link
    /// was deleted, so what the other nodes know of it stays right.
    pub mac: Mac,
    /// The first address of the node's pod range, as a host route.
    pub address: IpNet,
}

/// Whose traffic gets the node's address when it leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Masquerade {
    /// The cluster's pod ranges: traffic from one, to none of them, leaves the cluster.
    pub cluster: Vec<IpNet>,
    /// Nodes that see pods' own addresses: this one, and those reached directly. The underlay
    /// carries pod addresses to them anyway. A node behind a tunnel gets the node's address
    /// instead, because an underlay that needs the tunnel drops packets with a pod's.
    pub nodes: BTreeSet<IpAddr>,
}

/// What is wrong with an object, as its owner is to read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Name of the Node it is about.
    pub node: String,
    /// Field of the Node, for example `spec.podCIDRs`.
    pub field: String,
    /// Cause and next step.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(node: &str, field: &str, message: impl Into<String>) -> Self {
        Self {
            node: node.to_owned(),
            field: field.to_owned(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}: {}: {}", self.node, self.field, self.message)
    }
}

/// The fabric as it should be on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// This node.
    pub node: String,
    /// Mode that was asked for.
    pub mode: FabricMode,
    /// This node's pod ranges.
    pub own: Vec<IpNet>,
    /// How it hangs on the underlay.
    pub underlay: Underlay,
    /// MTU of pods.
    pub mtu: u32,
    /// VXLAN ends, at most one a family.
    pub tunnels: Vec<Tunnel>,
    /// Ways to the other nodes' ranges.
    pub paths: BTreeMap<IpNet, Path>,
    /// Traffic that leaves.
    pub masquerade: Masquerade,
    /// What is wrong, by node and field.
    pub problems: Vec<Problem>,
}

/// Plans the fabric of the node called `node`; [`None`] while the cluster has no such node, in
/// which case everything stays as it is.
pub fn plan(cluster: &Cluster, config: &Config, node: &str, underlay: &Underlay) -> Option<Plan> {
    let own = cluster.nodes.get(node)?;
    let Ranges {
        mut of_nodes,
        mut problems,
    } = ranges(cluster, config, own);
    let own_ranges = of_nodes.remove(node).unwrap_or_default();
    if own_ranges.is_empty() && own.pod_cidrs.is_empty() {
        problems.push(Problem::new(
            node,
            "spec.podCIDRs",
            "is empty: no controller has given the node a range of pod addresses yet",
        ));
    }
    let mut planner = Planner {
        config,
        own,
        underlay,
        addresses: BTreeMap::new(),
        macs: BTreeMap::new(),
        problems,
    };
    let mtu = planner.mtu(&own_ranges);
    let tunnels: Vec<Tunnel> = own_ranges
        .iter()
        .filter_map(|range| planner.tunnel(range, mtu))
        .collect();
    let mut paths = BTreeMap::new();
    for (name, ranges) in &of_nodes {
        let Some(peer) = cluster.nodes.get(*name) else {
            continue;
        };
        for range in ranges {
            match planner.path(peer, range) {
                Ok(Some(path)) => {
                    paths.insert(*range, path);
                }
                Ok(None) => {}
                Err(problem) => planner.problems.push(problem),
            }
        }
    }
    let masquerade = masquerade(config, own, &paths);
    let mut problems = planner.problems;
    problems.sort();
    problems.dedup();
    Some(Plan {
        node: node.to_owned(),
        mode: config.fabric.mode,
        own: own_ranges,
        underlay: underlay.clone(),
        mtu,
        tunnels,
        paths,
        masquerade,
        problems,
    })
}

struct Planner<'a> {
    config: &'a Config,
    own: &'a Node,
    underlay: &'a Underlay,
    /// Whose an underlay address is.
    addresses: BTreeMap<IpAddr, &'a str>,
    /// Whose a hardware address is.
    macs: BTreeMap<(bool, [u8; 6]), &'a str>,
    problems: Vec<Problem>,
}

impl<'a> Planner<'a> {
    fn path(&mut self, peer: &'a Node, range: &IpNet) -> Result<Option<Path>, Problem> {
        let wrong = |field, message| Err(Problem::new(&peer.name, field, message));
        let family = family(range);
        // What is wrong with this node is said once, where its ranges are looked at.
        let Some(uplink) = self.underlay.of(range) else {
            return Ok(None);
        };
        let Some(address) = address(peer, range) else {
            return wrong(
                "status.addresses",
                format!("has no {family} InternalIP, so pods in {range} cannot be reached"),
            );
        };
        let owner = match address == uplink.address {
            true => self.own.name.as_str(),
            false => self.addresses.entry(address).or_insert(&peer.name),
        };
        if owner != peer.name {
            return wrong(
                "status.addresses",
                format!("{address} is node {owner}'s address too; give one of them another"),
            );
        }
        let near = uplink
            .subnets
            .iter()
            .any(|subnet| subnet.contains(&address));
        let direct = |until_published| {
            Ok(Some(Path {
                node: peer.name.clone(),
                address,
                via: Via::Direct { until_published },
            }))
        };
        match (self.config.fabric.mode, near) {
            (FabricMode::HostGw | FabricMode::CrossSubnet, true) => return direct(false),
            (FabricMode::HostGw, false) => {
                let subnets: Vec<String> = uplink.subnets.iter().map(IpNet::to_string).collect();
                return wrong(
                    "status.addresses",
                    format!(
                        "{address} is on no subnet of node {} ({}), which fabric mode host-gw needs; use cross-subnet or vxlan",
                        self.own.name,
                        subnets.join(", ")
                    ),
                );
            }
            (FabricMode::Vxlan, _) | (FabricMode::CrossSubnet, false) => {}
        }
        let published = match range {
            IpNet::V4(_) => peer.vtep_mac,
            IpNet::V6(_) => peer.vtep_mac_v6,
        };
        let Some(mac) = published else {
            // It does not listen for tunnelled packets yet, or no more: on one subnet there is
            // another way to it.
            return match near {
                true => direct(true),
                false => wrong("metadata.annotations", not_published(range)),
            };
        };
        let owner = *self
            .macs
            .entry((range.addr().is_ipv4(), mac))
            .or_insert(&peer.name);
        if owner != peer.name {
            return wrong(
                "metadata.annotations",
                format!("VtepMAC {} is node {owner}'s too", Mac(mac)),
            );
        }
        Ok(Some(Path {
            node: peer.name.clone(),
            address,
            via: Via::Vxlan { mac: Mac(mac) },
        }))
    }

    fn tunnel(&self, range: &IpNet, mtu: u32) -> Option<Tunnel> {
        if self.config.fabric.mode == FabricMode::HostGw {
            return None;
        }
        let uplink = self.underlay.of(range)?;
        let link = match range {
            IpNet::V4(_) => VXLAN_V4,
            IpNet::V6(_) => VXLAN_V6,
        };
        Some(Tunnel {
            link,
            vni: self.config.fabric.vni,
            port: self.config.fabric.port,
            local: uplink.address,
            parent: uplink.link.clone(),
            // The kernel refuses more than fits the parent.
            mtu: mtu.min(uplink.mtu.saturating_sub(overhead(range))),
            mac: vtep_mac(&self.own.name, link),
            address: IpNet::from(range.network()),
        })
    }

    /// The greatest MTU that fits every way a pod's packet may take, or the one asked for.
    fn mtu(&mut self, own_ranges: &[IpNet]) -> u32 {
        let tunnelled = self.config.fabric.mode != FabricMode::HostGw;
        let mut fits: Option<u32> = None;
        for range in own_ranges {
            let Some(uplink) = self.underlay.of(range) else {
                self.problems.push(Problem::new(
                    &self.own.name,
                    "status.addresses",
                    format!(
                        "no link of this node has an {} InternalIP of it, so its pods in {range} reach no other node",
                        family(range)
                    ),
                ));
                continue;
            };
            let here = match tunnelled {
                true => uplink.mtu.saturating_sub(overhead(range)),
                false => uplink.mtu,
            };
            fits = Some(fits.map_or(here, |fits| fits.min(here)));
        }
        let fits = fits.unwrap_or(1500 - OVERHEAD_V4);
        let mtu = self.config.fabric.mtu.unwrap_or(fits);
        if mtu > fits {
            self.problems.push(Problem::new(
                &self.own.name,
                "fabric.mtu",
                format!("{mtu} does not fit the underlay: the greatest that does is {fits}"),
            ));
        }
        if mtu < MTU_MIN_V6 && own_ranges.iter().any(|range| range.addr().is_ipv6()) {
            self.problems.push(Problem::new(
                &self.own.name,
                "fabric.mtu",
                format!("{mtu} is too small for IPv6, which needs {MTU_MIN_V6}"),
            ));
        }
        mtu
    }
}

fn masquerade(config: &Config, own: &Node, paths: &BTreeMap<IpNet, Path>) -> Masquerade {
    let direct = paths.values().filter_map(|path| match path.via {
        Via::Direct { .. } => Some(path.address),
        Via::Vxlan { .. } => None,
    });
    Masquerade {
        cluster: config.cluster_cidrs.iter().map(IpNet::trunc).collect(),
        nodes: own.addresses.iter().copied().chain(direct).collect(),
    }
}

fn not_published(range: &IpNet) -> String {
    let suffix = match range {
        IpNet::V4(_) => "",
        IpNet::V6(_) => "-v6",
    };
    format!(
        "has no flannel.alpha.coreos.com/backend{suffix}-data yet, so pods in {range} cannot be reached: is its agent running?"
    )
}

pub(crate) fn overhead(range: &IpNet) -> u32 {
    match range {
        IpNet::V4(_) => OVERHEAD_V4,
        IpNet::V6(_) => OVERHEAD_V6,
    }
}

fn family(range: &IpNet) -> &'static str {
    match range {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    }
}

pub(crate) fn address(node: &Node, range: &IpNet) -> Option<IpAddr> {
    let same_family = |ip: &&IpAddr| ip.is_ipv4() == range.addr().is_ipv4();
    node.addresses.iter().find(same_family).copied()
}

/// The hardware address of a node's VXLAN end: a hash (FNV-1a) of its name and the link's.
pub fn vtep_mac(node: &str, link: &str) -> Mac {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in node.bytes().chain([b'/']).chain(link.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let [_, _, bytes @ ..] = (hash ^ hash >> 48).to_be_bytes();
    Mac::local(bytes)
}
