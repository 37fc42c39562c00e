//! What is there: the part of the kernel's tables that concerns the fabric.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use linux::route::MAIN;
use linux::{Address, Kernel, Link, Mac, Result, Route, RouteFilter};
use nft::{Compiled, Family};

use crate::plan::{VXLAN_V4, VXLAN_V6};
use crate::render::{NFT_PREFIX, ROUTE_PROTOCOL, TABLE};

/// What is there, as far as it was read or made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Have {
    /// Links by name; pods' are left out.
    pub links: BTreeMap<String, Link>,
    /// Addresses of those links, those of scope link left out.
    pub addresses: Vec<Address>,
    /// Routes of the main table by destination, pods' left out.
    pub routes: BTreeMap<IpNet, Vec<Route>>,
    /// Permanent neighbours on the VXLAN ends, by link's name.
    pub neighbours: BTreeMap<(&'static str, IpAddr), Mac>,
    /// Permanent forwarding entries of the VXLAN ends, by link's name.
    pub fdb: BTreeMap<(&'static str, Mac), IpAddr>,
    /// The fabric's part of the nftables table.
    pub nft: Option<Compiled>,
}

impl Have {
    /// Reads everything.
    pub fn read(kernel: &mut dyn Kernel) -> Result<Self> {
        let mut have = Self::default();
        for link in kernel.links()? {
            if !is_pods(&link.name) {
                have.links.insert(link.name.clone(), link);
            }
        }
        let indexes: BTreeSet<u32> = have.links.values().map(|link| link.index).collect();
        have.addresses = kernel
            .addresses(None)?
            .into_iter()
            .filter(|address| indexes.contains(&address.dev) && !address.local_scope)
            .collect();
        for route in kernel.routes(RouteFilter::main())? {
            let concerns = route.dev.is_none_or(|dev| indexes.contains(&dev));
            if concerns {
                have.routes.entry(route.dst).or_default().push(route);
            }
        }
        for name in [VXLAN_V4, VXLAN_V6] {
            if let Some(index) = have.links.get(name).map(|link| link.index) {
                have.read_tunnel(kernel, name, index)?;
            }
        }
        have.nft = kernel.nft_owned(Family::Inet, TABLE, &owns_nft)?;
        Ok(have)
    }

    fn read_tunnel(
        &mut self,
        kernel: &mut dyn Kernel,
        name: &'static str,
        index: u32,
    ) -> Result<()> {
        for neighbour in kernel.neighbours(Some(index))? {
            if let (true, Some(mac)) = (neighbour.permanent, neighbour.mac) {
                self.neighbours.insert((name, neighbour.ip), mac);
            }
        }
        for entry in kernel.fdb(index)? {
            if let (true, Some(dst)) = (entry.permanent, entry.dst) {
                self.fdb.insert((name, entry.mac), dst);
            }
        }
        Ok(())
    }

    /// The index of a link.
    pub fn index(&self, name: &str) -> Option<u32> {
        self.links.get(name).map(|link| link.index)
    }

    /// The name of a link.
    pub fn name(&self, index: u32) -> Option<&str> {
        let link = self.links.values().find(|link| link.index == index);
        link.map(|link| link.name.as_str())
    }

    /// The name of a VXLAN end of the fabric's.
    pub fn tunnel_name(&self, index: u32) -> Option<&'static str> {
        [VXLAN_V4, VXLAN_V6]
            .into_iter()
            .find(|name| self.index(name) == Some(index))
    }

    /// Whether a route is the fabric's own: marked, and through a gateway or into a tunnel.
    pub fn is_own(&self, route: &Route) -> bool {
        let leads =
            route.gateway.is_some() || route.dev.is_some_and(|dev| self.tunnel_name(dev).is_some());
        route.protocol == ROUTE_PROTOCOL && route.table == MAIN && leads
    }

    /// Forgets a link and, as the kernel does, all that hung on it.
    pub fn forget_link(&mut self, name: &str) {
        let Some(link) = self.links.remove(name) else {
            return;
        };
        self.addresses.retain(|address| address.dev != link.index);
        for routes in self.routes.values_mut() {
            routes.retain(|route| route.dev != Some(link.index));
        }
        self.routes.retain(|_, routes| !routes.is_empty());
        self.neighbours.retain(|(dev, _), _| *dev != name);
        self.fdb.retain(|(dev, _), _| *dev != name);
    }

    /// Notes that a route is in the place of those to the same destination with the same metric.
    pub fn note_route(&mut self, route: Route) {
        let there = self.routes.entry(route.dst).or_default();
        there.retain(|other| metric(other) != metric(&route));
        there.push(route);
    }

    /// Notes that a route is gone.
    pub fn forget_route(&mut self, route: &Route) {
        if let Some(there) = self.routes.get_mut(&route.dst) {
            there.retain(|other| other != route);
            if there.is_empty() {
                self.routes.remove(&route.dst);
            }
        }
    }
}

/// The metric, with what the kernel puts in for an IPv6 route without one.
pub(crate) fn metric(route: &Route) -> u32 {
    match (route.dst, route.metric) {
        (IpNet::V6(_), 0) => 1024,
        (_, metric) => metric,
    }
}

/// Whether two routes to one destination are the same way, made by the same program.
pub(crate) fn same_hop(a: &Route, b: &Route) -> bool {
    let key = |route: &Route| {
        (
            route.gateway,
            route.dev,
            route.onlink,
            route.protocol,
            route.kind,
            metric(route),
        )
    };
    key(a) == key(b) && a.hops == b.hops
}

/// Whether a chain or set of the table is the fabric's.
pub(crate) fn owns_nft(name: &str) -> bool {
    name.starts_with(NFT_PREFIX)
}

/// Whether a link is the host's side of a pod's pair: `fn-` and eleven hexadecimal digits.
pub(crate) fn is_pods(name: &str) -> bool {
    name.strip_prefix("fn-")
        .is_some_and(|id| id.len() == 11 && id.bytes().all(|c| c.is_ascii_hexdigit()))
}
