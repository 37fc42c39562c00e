//! A kernel in memory, for tests without root: it keeps the tables, refuses what the real one
//! refuses, and writes down every change.

mod iptables;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use nft::wire::read::DynamicElement;
use nft::{Compiled, Family, IpFamily, Transaction};

use crate::Address;
use crate::conntrack::{Flow, FlowFilter};
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::link::{Kind, Link, LinkChange, NewKind, NewLink};
use crate::mac::Mac;
use crate::neigh::{FdbEntry, Neighbour};
use crate::route::{Route, RouteFilter};

pub use iptables::Iptables;

/// The kernel in memory. Its fields are open: a test sets up, looks, and breaks things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fake {
    /// Links.
    pub links: Vec<Link>,
    /// Addresses.
    pub addresses: Vec<Address>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Forwarding entries.
    pub fdb: Vec<FdbEntry>,
    /// Tables of nftables by name. What a test puts into a dynamic set, packets added.
    pub nft: BTreeMap<String, Compiled>,
    /// Tables of iptables by family and name; those never changed are not there.
    pub iptables: BTreeMap<(IpFamily, String), Iptables>,
    /// Rules of iptables that have this in them are refused, as by a kernel without the match.
    pub iptables_lacks: Option<String>,
    /// Flows of connection tracking.
    pub flows: Vec<Flow>,
    /// Settings; a name that is not here does not exist.
    pub sysctls: BTreeMap<String, String>,
    /// Every change in order, in words such as `create link fn-vxlan`.
    pub changes: Vec<String>,
    /// A change whose words begin so is refused with this number, until it is taken out.
    pub refuse: BTreeMap<String, i32>,
    next_index: u32,
}

impl Fake {
    /// A host with `lo` and one link `eth0` that has these addresses.
    pub fn host(addresses: &[&str]) -> Self {
        let mut fake = Self::default();
        fake.add_link("lo", Kind::Other(String::new()), 65536);
        let eth0 = fake.add_link("eth0", Kind::Veth, 1500);
        for net in addresses
            .iter()
            .filter_map(|text| text.parse::<ipnet::IpNet>().ok())
        {
            fake.addresses.push(Address::new(eth0, net));
        }
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            fake.sysctls.insert(key.into(), "0".into());
        }
        fake
    }

    /// Adds a link that is up, and returns its index.
    pub fn add_link(&mut self, name: &str, kind: Kind, mtu: u32) -> u32 {
        self.next_index += 1;
        self.links.push(Link {
            index: self.next_index,
            name: name.to_owned(),
            kind,
            mtu,
            mac: None,
            up: true,
            carrier: true,
            peer: None,
            peer_netns: None,
            master: None,
            hairpin: false,
            alias: None,
        });
        self.next_index
    }

    /// The link called `name`.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// What was changed since the last call.
    pub fn take_changes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.changes)
    }

    fn change(&mut self, words: String) -> Result<()> {
        let refused = self
            .refuse
            .iter()
            .find(|(start, _)| words.starts_with(*start));
        if let Some((_, errno)) = refused {
            return Err(Error::kernel(words, "change", *errno, None));
        }
        self.changes.push(words);
        Ok(())
    }

    fn name(&self, index: u32) -> Result<String> {
        let link = self.links.iter().find(|link| link.index == index);
        link.map(|link| link.name.clone())
            .ok_or_else(|| Error::kernel(format!("link #{index}"), "find", libc::ENODEV, None))
    }

    /// IPv6 refuses an on-link gateway that a route over another link leads to.
    fn refuses_gateway(&self, route: &Route) -> bool {
        let Some(gateway @ IpAddr::V6(_)) = route.gateway.filter(|_| route.onlink) else {
            return false;
        };
        let leads = |there: &&Route| {
            there.table == route.table && there.dst.prefix_len() > 0 && there.dst.contains(&gateway)
        };
        let best = self
            .routes
            .iter()
            .filter(leads)
            .max_by_key(|there| there.dst.prefix_len());
        best.is_some_and(|best| best.dev != route.dev)
    }

    fn missing(object: String) -> Error {
        Error::kernel(object, "delete", libc::ENOENT, None)
    }
}

/// What has an accepted name.
fn kept<T: Clone>(all: &BTreeMap<String, T>, owns: &dyn Fn(&str) -> bool) -> BTreeMap<String, T> {
    let owned = all.iter().filter(|(name, _)| owns(name));
    owned
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn same_place(a: &Route, b: &Route) -> bool {
    (a.dst, a.table, a.metric) == (b.dst, b.table, b.metric)
}

impl Kernel for Fake {
    fn links(&mut self) -> Result<Vec<Link>> {
        Ok(self.links.clone())
    }

    fn create_link(&mut self, new: &NewLink<'_>) -> Result<()> {
        let object = format!("link {}", new.name);
        let kind = match &new.kind {
            NewKind::Veth(_) => Kind::Veth,
            NewKind::Bridge => Kind::Bridge,
            NewKind::Vxlan(vxlan) => Kind::Vxlan(vxlan.clone()),
            NewKind::Ifb => Kind::Ifb,
        };
        let twice = self.links.iter().any(|link| {
            let same_vxlan = match (&link.kind, &kind) {
                // Two ends of one network on one port, for one family, cannot be.
                (Kind::Vxlan(a), Kind::Vxlan(b)) => {
                    let v6 = |v: &crate::Vxlan| v.local.is_some_and(|ip| ip.is_ipv6());
                    (a.id, a.port, v6(a)) == (b.id, b.port, v6(b))
                }
                _ => false,
            };
            link.name == new.name || same_vxlan
        });
        if twice {
            return Err(Error::kernel(object, "create", libc::EEXIST, None));
        }
        self.change(format!("create {object}"))?;
        let index = self.add_link(new.name, kind, new.mtu.unwrap_or(1500));
        if let Some(link) = self.links.iter_mut().find(|link| link.index == index) {
            link.mac = new
                .mac
                .or(Some(Mac::local([0xfa, 0xce, 0, 0, 0, index as u8])));
            link.up = new.up;
            link.master = new.master;
        }
        Ok(())
    }

    fn change_link(&mut self, index: u32, change: &LinkChange<'_>) -> Result<()> {
        let name = self.name(index)?;
        self.change(format!("change link {name}"))?;
        for link in self.links.iter_mut().filter(|link| link.index == index) {
            link.up = change.up.unwrap_or(link.up);
            link.mtu = change.mtu.unwrap_or(link.mtu);
            link.mac = change.mac.or(link.mac);
            if let Some(name) = change.name {
                link.name = name.to_owned();
            }
            if let Some(master) = change.master {
                link.master = Some(master).filter(|master| *master != 0);
            }
            link.hairpin = change.hairpin.unwrap_or(link.hairpin);
        }
        Ok(())
    }

    fn delete_link(&mut self, name: &str) -> Result<bool> {
        let Some(index) = self.link(name).map(|link| link.index) else {
            return Ok(false);
        };
        self.change(format!("delete link {name}"))?;
        self.links.retain(|link| link.index != index);
        self.addresses.retain(|address| address.dev != index);
        self.routes.retain(|route| route.dev != Some(index));
        self.neighbours.retain(|neighbour| neighbour.dev != index);
        self.fdb.retain(|entry| entry.dev != index);
        Ok(true)
    }

    fn addresses(&mut self, dev: Option<u32>) -> Result<Vec<Address>> {
        let of = |address: &&Address| dev.is_none_or(|dev| address.dev == dev);
        Ok(self.addresses.iter().filter(of).cloned().collect())
    }

    fn replace_address(&mut self, address: &Address) -> Result<()> {
        let name = self.name(address.dev)?;
        self.change(format!("set address {} on {name}", address.net))?;
        self.addresses
            .retain(|there| (there.dev, there.net) != (address.dev, address.net));
        self.addresses.push(address.clone());
        Ok(())
    }

    fn delete_address(&mut self, address: &Address) -> Result<()> {
        let name = self.name(address.dev)?;
        let words = format!("address {} on {name}", address.net);
        let is = |there: &Address| (there.dev, there.net) == (address.dev, address.net);
        if !self.addresses.iter().any(is) {
            return Err(Self::missing(words));
        }
        self.change(format!("delete {words}"))?;
        self.addresses.retain(|there| !is(there));
        Ok(())
    }

    fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>> {
        Ok(self
            .routes
            .iter()
            .filter(|route| filter.matches(route))
            .cloned()
            .collect())
    }

    fn replace_route(&mut self, route: &Route) -> Result<()> {
        if let Some(dev) = route.dev {
            self.name(dev)?;
        }
        if self.refuses_gateway(route) {
            let words = format!("route {}", route.dst);
            return Err(Error::kernel(
                words,
                "set",
                libc::EINVAL,
                Some("Nexthop has invalid gateway or device mismatch"),
            ));
        }
        self.change(format!("set route {}", route.dst))?;
        self.routes.retain(|there| !same_place(there, route));
        self.routes.push(route.clone());
        Ok(())
    }

    fn delete_route(&mut self, route: &Route) -> Result<()> {
        let words = format!("route {}", route.dst);
        if !self.routes.iter().any(|there| same_place(there, route)) {
            return Err(Error::kernel(words, "delete", libc::ESRCH, None));
        }
        self.change(format!("delete {words}"))?;
        self.routes.retain(|there| !same_place(there, route));
        Ok(())
    }

    fn neighbours(&mut self, dev: Option<u32>) -> Result<Vec<Neighbour>> {
        let of = |neighbour: &&Neighbour| dev.is_none_or(|dev| neighbour.dev == dev);
        Ok(self.neighbours.iter().filter(of).cloned().collect())
    }

    fn replace_neighbour(&mut self, dev: u32, ip: IpAddr, mac: Mac) -> Result<()> {
        self.name(dev)?;
        self.change(format!("set neighbour {ip}"))?;
        self.neighbours
            .retain(|there| (there.dev, there.ip) != (dev, ip));
        self.neighbours.push(Neighbour {
            dev,
            ip,
            mac: Some(mac),
            permanent: true,
        });
        Ok(())
    }

    fn delete_neighbour(&mut self, dev: u32, ip: IpAddr) -> Result<()> {
        let is = |there: &Neighbour| (there.dev, there.ip) == (dev, ip);
        if !self.neighbours.iter().any(is) {
            return Err(Self::missing(format!("neighbour {ip}")));
        }
        self.change(format!("delete neighbour {ip}"))?;
        self.neighbours.retain(|there| !is(there));
        Ok(())
    }

    fn fdb(&mut self, dev: u32) -> Result<Vec<FdbEntry>> {
        Ok(self
            .fdb
            .iter()
            .filter(|entry| entry.dev == dev)
            .cloned()
            .collect())
    }

    fn replace_fdb(&mut self, dev: u32, mac: Mac, dst: IpAddr) -> Result<()> {
        self.name(dev)?;
        self.change(format!("set forwarding entry {mac}"))?;
        self.fdb
            .retain(|there| (there.dev, there.mac) != (dev, mac));
        self.fdb.push(FdbEntry {
            dev,
            mac,
            dst: Some(dst),
            permanent: true,
        });
        Ok(())
    }

    fn delete_fdb(&mut self, dev: u32, mac: Mac, _dst: Option<IpAddr>) -> Result<()> {
        let is = |there: &FdbEntry| (there.dev, there.mac) == (dev, mac);
        if !self.fdb.iter().any(is) {
            return Err(Self::missing(format!("forwarding entry {mac}")));
        }
        self.change(format!("delete forwarding entry {mac}"))?;
        self.fdb.retain(|there| !is(there));
        Ok(())
    }

    fn nft_owned(
        &mut self,
        family: Family,
        table: &str,
        owns: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Compiled>> {
        let is = |there: &&Compiled| there.family == family;
        Ok(self.nft.get(table).filter(is).map(|there| Compiled {
            family,
            name: there.name.clone(),
            chains: kept(&there.chains, owns),
            sets: kept(&there.sets, owns)
                .into_iter()
                .map(|(name, mut set)| {
                    if set.dynamic {
                        set.elements.clear();
                    }
                    (name, set)
                })
                .collect(),
        }))
    }

    fn nft_dynamic(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> Result<Vec<DynamicElement>> {
        let set = self
            .nft
            .get(table)
            .filter(|there| there.family == family)
            .and_then(|table| table.sets.get(set));
        let elements = set.into_iter().flat_map(|set| &set.elements);
        Ok(elements
            .map(|(key, data)| DynamicElement {
                key: key.clone(),
                data: data.clone(),
                remaining: Duration::MAX,
            })
            .collect())
    }

    fn nft_apply(&mut self, transaction: &Transaction) -> Result<()> {
        for op in &transaction.ops {
            self.change(op.to_string())?;
        }
        let table = &transaction.table;
        let made = nft::apply(self.nft.get(table).cloned(), transaction)
            .map_err(|cause| Error::other(format!("table {table}"), "change", cause))?;
        match made {
            Some(made) => self.nft.insert(table.clone(), made),
            None => self.nft.remove(table),
        };
        Ok(())
    }

    fn flows(&mut self, filter: &FlowFilter, take: &mut dyn FnMut(Flow)) -> Result<()> {
        let found = self.flows.iter().filter(|flow| filter.matches(flow));
        found.copied().for_each(take);
        Ok(())
    }

    fn delete_flow(&mut self, flow: &Flow) -> Result<bool> {
        let Some(at) = self.flows.iter().position(|there| there == flow) else {
            return Ok(false);
        };
        self.change(format!("delete {flow}"))?;
        self.flows.remove(at);
        Ok(true)
    }

    fn iptables_restore(&mut self, family: IpFamily, text: &str) -> Result<()> {
        let words = format!("restore {} tables", family.word());
        self.change(words.clone())?;
        let of_family = |(key, table): (&(IpFamily, String), &Iptables)| {
            (key.0 == family).then(|| (key.1.clone(), table.clone()))
        };
        let mut tables = self.iptables.iter().filter_map(of_family).collect();
        let lacks = self.iptables_lacks.as_deref();
        let restored = iptables::restore(&mut tables, text, lacks);
        let tables = tables.into_iter();
        self.iptables
            .extend(tables.map(|(name, table)| ((family, name), table)));
        restored
            .map_err(|(line, cause)| Error::other(words, "change", format!("{cause}: `{line}`")))
    }

    fn iptables_save(&mut self, family: IpFamily) -> Result<String> {
        let found = self.iptables.iter().filter(|((of, _), _)| *of == family);
        Ok(found
            .map(|((_, name), table)| format!("*{name}\n{table}COMMIT\n"))
            .collect())
    }

    fn sysctl(&mut self, key: &str) -> Result<Option<String>> {
        Ok(self.sysctls.get(key).cloned())
    }

    fn set_sysctl(&mut self, key: &str, value: &str) -> Result<bool> {
        match self.sysctls.get(key) {
            None => {
                return Err(Error::kernel(
                    format!("sysctl {key}"),
                    "write",
                    libc::ENOENT,
                    None,
                ));
            }
            Some(there) if there == value => return Ok(false),
            Some(_) => {}
        }
        self.change(format!("set sysctl {key}"))?;
        self.sysctls.insert(key.to_owned(), value.to_owned());
        Ok(true)
    }
}
