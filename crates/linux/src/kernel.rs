//! What a network function needs of the kernel of one namespace: one trait, the real one
//! ([`Host`]) and one in memory ([`crate::fake::Fake`]).

use std::net::IpAddr;

use nft::wire::read::DynamicElement;
use nft::{Compiled, Family, IpFamily, Transaction};

use crate::conntrack::{Conntrack, Flow, FlowFilter};
use crate::error::Result;
use crate::link::{Link, LinkChange, NewLink};
use crate::mac::Mac;
use crate::monitor::Ignored;
use crate::neigh::{FdbEntry, Neighbour};
use crate::netlink::Netlink;
use crate::nftables::Nftables;
use crate::route::{Route, RouteFilter};
use crate::{Address, iptables, sysctl};

/// The kernel's tables of one network namespace. The calls are those of [`Netlink`],
/// [`Nftables`], [`Conntrack`], [`iptables`] and [`sysctl`]; see there.
pub trait Kernel {
    /// All links.
    fn links(&mut self) -> Result<Vec<Link>>;
    /// Makes a link.
    fn create_link(&mut self, new: &NewLink<'_>) -> Result<()>;
    /// Changes a link.
    fn change_link(&mut self, index: u32, change: &LinkChange<'_>) -> Result<()>;
    /// Deletes a link; false where there was none.
    fn delete_link(&mut self, name: &str) -> Result<bool>;
    /// Addresses of one link, or of all.
    fn addresses(&mut self, dev: Option<u32>) -> Result<Vec<Address>>;
    /// Adds or changes an address.
    fn replace_address(&mut self, address: &Address) -> Result<()>;
    /// Deletes an address.
    fn delete_address(&mut self, address: &Address) -> Result<()>;
    /// Routes.
    fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>>;
    /// Adds or replaces a route.
    fn replace_route(&mut self, route: &Route) -> Result<()>;
    /// Deletes a route.
    fn delete_route(&mut self, route: &Route) -> Result<()>;
    /// Neighbours of one link, or of all.
    fn neighbours(&mut self, dev: Option<u32>) -> Result<Vec<Neighbour>>;
    /// Adds or replaces a permanent neighbour.
    fn replace_neighbour(&mut self, dev: u32, ip: IpAddr, mac: Mac) -> Result<()>;
    /// Deletes a neighbour.
    fn delete_neighbour(&mut self, dev: u32, ip: IpAddr) -> Result<()>;
    /// Forwarding entries of a link.
    fn fdb(&mut self, dev: u32) -> Result<Vec<FdbEntry>>;
    /// Adds or replaces a permanent forwarding entry.
    fn replace_fdb(&mut self, dev: u32, mac: Mac, dst: IpAddr) -> Result<()>;
    /// Deletes a forwarding entry.
    fn delete_fdb(&mut self, dev: u32, mac: Mac, dst: Option<IpAddr>) -> Result<()>;
    /// What an nftables table holds.
    fn nft_table(&mut self, family: Family, table: &str) -> Result<Option<Compiled>> {
        self.nft_owned(family, table, &|_| true)
    }
    /// What an nftables table holds of chains and sets whose names `owns` accepts.
    fn nft_owned(
        &mut self,
        family: Family,
        table: &str,
        owns: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Compiled>>;
    /// What packets added to a dynamic set of an nftables table.
    fn nft_dynamic(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> Result<Vec<DynamicElement>>;
    /// Makes all changes of a transaction, or none.
    fn nft_apply(&mut self, transaction: &Transaction) -> Result<()>;
    /// Hands out the flows of connection tracking that a filter lets pass.
    fn flows(&mut self, filter: &FlowFilter, take: &mut dyn FnMut(Flow)) -> Result<()>;
    /// Forgets a flow; false where there was none.
    fn delete_flow(&mut self, flow: &Flow) -> Result<bool>;
    /// Makes the changes of a text for `iptables-restore`.
    fn iptables_restore(&mut self, family: IpFamily, text: &str) -> Result<()>;
    /// What the tables of iptables hold that are there; empty where there are none.
    fn iptables_save(&mut self, family: IpFamily) -> Result<String>;
    /// A setting; [`None`] where there is none of that name.
    fn sysctl(&mut self, key: &str) -> Result<Option<String>>;
    /// Changes a setting; true where it was another one before.
    fn set_sysctl(&mut self, key: &str, value: &str) -> Result<bool>;
}

/// The real kernel, in the namespace of the thread that opened it. The sysctls and iptables are
/// those of the calling thread's namespace, so it is to be used inside that namespace.
#[derive(Debug)]
pub struct Host {
    /// Links, addresses, routes, neighbours.
    pub netlink: Netlink,
    /// Packet rules.
    pub nftables: Nftables,
    /// Flows.
    pub conntrack: Conntrack,
    /// Where a monitor is not to tell what the programs of iptables do that are run here.
    pub ignored: Option<Ignored>,
}

impl Host {
    /// Opens the calling thread's namespace.
    pub fn open() -> Result<Self> {
        Ok(Self {
            netlink: Netlink::open()?,
            nftables: Nftables::open()?,
            conntrack: Conntrack::open()?,
            ignored: None,
        })
    }
}

impl Kernel for Host {
    fn links(&mut self) -> Result<Vec<Link>> {
        self.netlink.links()
    }
    fn create_link(&mut self, new: &NewLink<'_>) -> Result<()> {
        self.netlink.create_link(new)
    }
    fn change_link(&mut self, index: u32, change: &LinkChange<'_>) -> Result<()> {
        self.netlink.change_link(index, change)
    }
    fn delete_link(&mut self, name: &str) -> Result<bool> {
        self.netlink.delete_link(name)
    }
    fn addresses(&mut self, dev: Option<u32>) -> Result<Vec<Address>> {
        self.netlink.addresses(dev)
    }
    fn replace_address(&mut self, address: &Address) -> Result<()> {
        self.netlink.replace_address(address)
    }
    fn delete_address(&mut self, address: &Address) -> Result<()> {
        self.netlink.delete_address(address)
    }
    fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>> {
        self.netlink.routes(filter)
    }
    fn replace_route(&mut self, route: &Route) -> Result<()> {
        self.netlink.replace_route(route)
    }
    fn delete_route(&mut self, route: &Route) -> Result<()> {
        self.netlink.delete_route(route)
    }
    fn neighbours(&mut self, dev: Option<u32>) -> Result<Vec<Neighbour>> {
        self.netlink.neighbours(dev)
    }
    fn replace_neighbour(&mut self, dev: u32, ip: IpAddr, mac: Mac) -> Result<()> {
        self.netlink.replace_neighbour(dev, ip, mac)
    }
    fn delete_neighbour(&mut self, dev: u32, ip: IpAddr) -> Result<()> {
        self.netlink.delete_neighbour(dev, ip)
    }
    fn fdb(&mut self, dev: u32) -> Result<Vec<FdbEntry>> {
        self.netlink.fdb(dev)
    }
    fn replace_fdb(&mut self, dev: u32, mac: Mac, dst: IpAddr) -> Result<()> {
        self.netlink.replace_fdb(dev, mac, dst)
    }
    fn delete_fdb(&mut self, dev: u32, mac: Mac, dst: Option<IpAddr>) -> Result<()> {
        self.netlink.delete_fdb(dev, mac, dst)
    }
    fn nft_owned(
        &mut self,
        family: Family,
        table: &str,
        owns: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Compiled>> {
        self.nftables.read_owned(family, table, owns)
    }
    fn nft_dynamic(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> Result<Vec<DynamicElement>> {
        self.nftables.dynamic(family, table, set)
    }
    fn nft_apply(&mut self, transaction: &Transaction) -> Result<()> {
        self.nftables.apply(transaction)
    }
    fn flows(&mut self, filter: &FlowFilter, take: &mut dyn FnMut(Flow)) -> Result<()> {
        self.conntrack.flows(filter, take)
    }
    fn delete_flow(&mut self, flow: &Flow) -> Result<bool> {
        self.conntrack.delete_flow(flow)
    }
    fn iptables_restore(&mut self, family: IpFamily, text: &str) -> Result<()> {
        let ignore = |process| match &self.ignored {
            Some(ignored) => ignored.set(process),
            None => Ok(()),
        };
        let restored = iptables::restore(family, text, |process| ignore(Some(process)));
        let heard = ignore(None);
        restored.and(heard)
    }
    fn iptables_save(&mut self, family: IpFamily) -> Result<String> {
        iptables::save(family)
    }
    fn sysctl(&mut self, key: &str) -> Result<Option<String>> {
        sysctl::read(key)
    }
    fn set_sysctl(&mut self, key: &str, value: &str) -> Result<bool> {
        sysctl::write(key, value)
    }
}
