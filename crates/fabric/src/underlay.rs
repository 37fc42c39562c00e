//! How this node hangs on its underlay, from what is there.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use linux::{Kind, Link};
use model::Node;

use crate::have::{Have, metric};
use crate::plan::{Underlay, Uplink};

/// Finds the links that have the node's addresses.
pub(crate) fn underlay(have: &Have, node: &Node) -> Underlay {
    let mut underlay = Underlay::default();
    for ip in &node.addresses {
        let place = match ip {
            IpAddr::V4(_) => &mut underlay.v4,
            IpAddr::V6(_) => &mut underlay.v6,
        };
        if place.is_none() {
            *place = uplink(have, *ip);
        }
    }
    underlay
}

fn uplink(have: &Have, ip: IpAddr) -> Option<Uplink> {
    let address = have
        .addresses
        .iter()
        .find(|address| address.net.addr() == ip)?;
    let link = have.links.values().find(|link| link.index == address.dev)?;
    // An address that routing announces lives on no cable: packets leave by the default route.
    let link = match is_loopback(link) {
        true => default_link(have, ip)?,
        false => link,
    };
    let mut subnets: Vec<IpNet> = have
        .addresses
        .iter()
        .filter(|other| other.dev == link.index)
        .map(|other| other.net.trunc())
        .filter(|net| net.addr().is_ipv4() == ip.is_ipv4())
        .filter(|net| net.prefix_len() < net.max_prefix_len())
        .collect();
    subnets.sort();
    subnets.dedup();
    Some(Uplink {
        address: ip,
        link: link.name.clone(),
        mtu: link.mtu,
        subnets,
    })
}

fn is_loopback(link: &Link) -> bool {
    link.name == "lo" || link.kind == Kind::Other("dummy".to_owned())
}

/// The link of the default route that is preferred.
fn default_link(have: &Have, ip: IpAddr) -> Option<&Link> {
    let all: IpNet = match ip {
        IpAddr::V4(_) => Ipv4Net::default().into(),
        IpAddr::V6(_) => Ipv6Net::default().into(),
    };
    let routes = have.routes.get(&all)?.iter();
    let dev = routes.min_by_key(|route| metric(route))?.dev?;
    have.links.values().find(|link| link.index == dev)
}
