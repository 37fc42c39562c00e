//! From paths to the kernel's objects, by name. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use linux::Mac;
use nft::{
    Base, Chain, ChainKind, Family, Hook, IpFamily, Key, Policy, Rule, Set, Statement, Table, Type,
    Value,
};

use crate::plan::{Masquerade, Plan, Tunnel, VXLAN_V4, VXLAN_V6, Via};

/// Marks routes as the fabric's (`ip route show proto 102`); no other program is known to use
/// the number. A route with it and a gateway is removed when it is no longer wanted.
pub const ROUTE_PROTOCOL: u8 = 102;
/// The nftables table all functions share.
pub const TABLE: &str = "flatnet";
/// What the names of the fabric's chains and sets begin with.
pub const NFT_PREFIX: &str = "fabric-";

/// A route to another node's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTo {
    /// The link it leaves by.
    pub link: String,
    /// The next hop.
    pub gateway: IpAddr,
    /// The next hop is on the link although no address says so.
    pub onlink: bool,
}

/// What a setting should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// This value.
    Is {
        /// Name.
        key: String,
        /// Value.
        value: &'static str,
    },
    /// Not strict: `2` where it is `1`.
    NotStrict {
        /// Name.
        key: String,
        /// A setting that makes it strict too.
        or: Option<&'static str>,
    },
}

/// All objects of the fabric on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    /// Settings in order.
    pub settings: Vec<Setting>,
    /// VXLAN ends by name.
    pub tunnels: BTreeMap<&'static str, Tunnel>,
    /// Routes by destination.
    pub routes: BTreeMap<IpNet, RouteTo>,
    /// Hardware address of each gateway behind a VXLAN end, by link and gateway.
    pub neighbours: BTreeMap<(&'static str, IpAddr), Mac>,
    /// Underlay address of each VXLAN end, by link and hardware address.
    pub fdb: BTreeMap<(&'static str, Mac), IpAddr>,
    /// Packet rules.
    pub nft: Table,
}

/// Renders a plan. The VXLAN objects are those Flannel makes, so that nodes of either kind reach
/// each other: per peer one on-link route through the first address of its range, one permanent
/// neighbour for that address, one forwarding entry for its hardware address.
pub fn render(plan: &Plan) -> Objects {
    let mut objects = Objects {
        settings: settings(plan),
        tunnels: plan
            .tunnels
            .iter()
            .map(|tunnel| (tunnel.link, tunnel.clone()))
            .collect(),
        routes: BTreeMap::new(),
        neighbours: BTreeMap::new(),
        fdb: BTreeMap::new(),
        nft: table(&plan.masquerade),
    };
    for (range, path) in &plan.paths {
        let Some(uplink) = plan.underlay.of(range) else {
            continue;
        };
        let link = tunnel_of(range);
        let route = match path.via {
            Via::Direct { .. } => RouteTo {
                link: uplink.link.clone(),
                gateway: path.address,
                onlink: false,
            },
            Via::Vxlan { mac } => {
                // Without this node's own end there is no way into the tunnel.
                if !objects.tunnels.contains_key(link) {
                    continue;
                }
                let gateway = range.network();
                objects.neighbours.insert((link, gateway), mac);
                objects.fdb.insert((link, mac), path.address);
                RouteTo {
                    link: link.to_owned(),
                    gateway,
                    onlink: true,
                }
            }
        };
        objects.routes.insert(*range, route);
    }
    objects
}

/// The VXLAN end that carries a range.
pub(crate) fn tunnel_of(range: &IpNet) -> &'static str {
    match range {
        IpNet::V4(_) => VXLAN_V4,
        IpNet::V6(_) => VXLAN_V6,
    }
}

fn settings(plan: &Plan) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut links = BTreeSet::new();
    for uplink in [&plan.underlay.v4, &plan.underlay.v6].into_iter().flatten() {
        links.insert(uplink.link.as_str());
    }
    links.extend(plan.tunnels.iter().map(|tunnel| tunnel.link));
    let has = |v6: bool| plan.own.iter().any(|range| range.addr().is_ipv6() == v6);
    if has(false) {
        // While a mode changes, packets come by one way and go by the other.
        for link in links {
            settings.push(Setting::NotStrict {
                key: format!("net/ipv4/conf/{link}/rp_filter"),
                or: Some("net/ipv4/conf/all/rp_filter"),
            });
        }
        settings.push(Setting::Is {
            key: "net/ipv4/ip_forward".to_owned(),
            value: "1",
        });
    }
    if has(true) {
        // A forwarding host ignores router advertisements, and with them its own default route,
        // unless this is 2.
        if let Some(uplink) = &plan.underlay.v6 {
            settings.push(Setting::NotStrict {
                key: format!("net/ipv6/conf/{}/accept_ra", uplink.link),
                or: None,
            });
        }
        settings.push(Setting::Is {
            key: "net/ipv6/conf/all/forwarding".to_owned(),
            value: "1",
        });
    }
    settings
}

fn table(masquerade: &Masquerade) -> Table {
    let mut table = Table::new(Family::Inet, TABLE);
    let mut rules = Vec::new();
    for (family, kind) in [(IpFamily::V4, Type::Ipv4), (IpFamily::V6, Type::Ipv6)] {
        let same_family = |ip: IpAddr| IpFamily::of(ip) == family;
        let cluster: Vec<IpNet> = masquerade
            .cluster
            .iter()
            .copied()
            .filter(|range| same_family(range.addr()))
            .collect();
        if cluster.is_empty() {
            continue;
        }
        let nodes = match family {
            IpFamily::V4 => "fabric-nodes",
            IpFamily::V6 => "fabric-nodes6",
        };
        let mut set = Set::of([kind]);
        for ip in masquerade.nodes.iter().filter(|ip| same_family(**ip)) {
            set.add([Value::from(*ip)]);
        }
        table.sets.insert(nodes.to_owned(), set);
        for range in &cluster {
            let mut statements = vec![Statement::is(Key::Saddr(family), *range)];
            for other in cluster.iter().copied().chain([multicast(family)]) {
                statements.push(Statement::is_not(Key::Daddr(family), other));
            }
            statements.push(Statement::InSet {
                keys: vec![Key::Daddr(family)],
                negate: true,
                set: nodes.to_owned(),
            });
            statements.push(Statement::Masquerade { fully_random: true });
            rules.push(Rule::new(statements).comment("leaves the cluster"));
        }
    }
    let base = Some(Base {
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: 100,
        policy: Policy::Accept,
    });
    table
        .chains
        .insert("fabric-postrouting".to_owned(), Chain { base, rules });
    table
}

fn multicast(family: IpFamily) -> IpNet {
    match family {
        IpFamily::V4 => Ipv4Net::new_assert([224, 0, 0, 0].into(), 4).into(),
        IpFamily::V6 => Ipv6Net::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8).into(),
    }
}
