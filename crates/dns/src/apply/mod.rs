//! Brings a node's queries to the server on it, as long as that answers.
//!
//! What does it is bound to the process: the nftables table ends with the socket that made it,
//! whatever the process ends by. A rule of routing and its routes may stay; they are about marked
//! packets, and nothing marks any then.

use std::net::IpAddr;

use ipnet::IpNet;
use linux::route::PROTO_KERNEL;
use linux::{Error, Event, MarkRule, Netlink, Nftables, Route, RouteFilter, RouteType, Scope};
use nft::{Family, Op, Transaction, diff};

use crate::render::nftables::{TABLE, table};

/// The table of routes to the addresses.
pub const ROUTES: u32 = 10_053;
/// Where its rule stands among the others: behind that of the host's own addresses, before any
/// that others are known to make.
pub const PRIORITY: u32 = 53;
/// The bit of packets' marks: one that neither kube-proxy (14 and 15) nor Calico, Cilium, Istio,
/// Tailscale or the AWS plugin are known to use.
const BIT: u8 = 6;
/// Where a configuration gave that one away.
const OTHER_BIT: u8 = 1;
/// `lo`
const LOOPBACK: u32 = 1;

/// The bit that marks queries, where Services mark with bit `masquerade`.
pub fn mark(masquerade: u8) -> u32 {
    1 << if masquerade == BIT { OTHER_BIT } else { BIT }
}

/// The way of a node's queries to its own server. Ends when dropped.
#[derive(Debug)]
pub struct Interception {
    /// Owns the table.
    nftables: Nftables,
    /// What is led here, and by which mark; nothing at first.
    led: Option<(Vec<IpAddr>, u32)>,
}

impl Interception {
    /// Makes an empty table in the calling thread's network namespace, so that nobody else can
    /// have one: [`None`] where another process has it; the kernel does not tell when that ends.
    /// Whoever has the table may bind sockets to the addresses: two servers would share the
    /// queries out between them.
    pub fn claim() -> Result<Option<Self>, Error> {
        let mut nftables = Nftables::open()?;
        match nftables.apply(&transaction(vec![Op::OwnTable])) {
            Ok(()) => {}
            Err(error) if error.is(libc::EPERM) && is_there()? => return Ok(None),
            Err(error) => {
                return Err(error.hint("a table bound to its process needs Linux 5.12 or newer"));
            }
        }
        let led = None;
        Ok(Some(Self { nftables, led }))
    }

    /// Leads queries to these addresses here from now on, and to no others. The sockets are there
    /// and answered.
    pub fn lead(
        &mut self,
        netlink: &mut Netlink,
        addresses: &[IpAddr],
        mark: u32,
    ) -> Result<(), Error> {
        route(netlink, addresses, mark)?;
        let want = table(addresses, mark).compile();
        let have = self.nftables.read(Family::Inet, TABLE)?;
        let mut change = diff(have.as_ref(), &want, |_| true);
        if !change.is_empty() {
            change.ops.insert(0, Op::OwnTable);
            self.nftables.apply(&change)?;
        }
        self.led = Some((addresses.to_vec(), mark));
        Ok(())
    }

    /// What is led here.
    pub fn led(&self) -> Option<&[IpAddr]> {
        self.led.as_ref().map(|(addresses, _)| addresses.as_slice())
    }

    /// Makes what somebody took away: the rule and the routes; nobody else can change the table.
    pub fn heal(&mut self, netlink: &mut Netlink) -> Result<(), Error> {
        match self.led.clone() {
            Some((addresses, mark)) => self.lead(netlink, &addresses, mark),
            None => Ok(()),
        }
    }

    /// Whether a change in the kernel took something away, so that [`Interception::heal`] is due.
    pub fn notice(&self, event: &Event) -> bool {
        self.led.is_some()
            && match event {
                Event::Lost => true,
                Event::Rule { rule, gone } => *gone && rule.table == ROUTES,
                Event::Route { route, gone } => *gone && route.table == ROUTES,
                // Links that go down take their routes with them and tell nobody.
                Event::Link { link, .. } => link.index == LOOPBACK,
                _ => false,
            }
    }
}

/// Removes rule and routes, which do nothing without a table: for `flatnet agent --cleanup`.
pub fn remove_all(netlink: &mut Netlink) -> Vec<Error> {
    let removed = route(netlink, &[], 0);
    removed.err().into_iter().collect()
}

fn is_there() -> Result<bool, Error> {
    let found = Nftables::open()?.read_owned(Family::Inet, TABLE, &|_| false)?;
    Ok(found.is_some())
}

/// The rule and the routes for these addresses and no others.
fn route(netlink: &mut Netlink, addresses: &[IpAddr], mark: u32) -> Result<(), Error> {
    let wanted: Vec<Route> = addresses.iter().copied().map(local).collect();
    let filter = RouteFilter {
        table: Some(ROUTES),
        ..RouteFilter::default()
    };
    let have = netlink.routes(filter)?;
    for route in &wanted {
        if !have.iter().any(|have| is_same(have, route)) {
            netlink.replace_route(route)?;
        }
    }
    for route in have
        .iter()
        .filter(|have| !wanted.iter().any(|route| is_same(have, route)))
    {
        match netlink.delete_route(route) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    let rules: Vec<MarkRule> = [false, true]
        .into_iter()
        .filter(|v6| addresses.iter().any(|ip| ip.is_ipv6() == *v6))
        .map(|v6| MarkRule {
            v6,
            priority: PRIORITY,
            mark,
            mask: mark,
            table: ROUTES,
        })
        .collect();
    let have = netlink.mark_rules()?;
    for rule in rules.iter().filter(|rule| !have.contains(rule)) {
        netlink.add_mark_rule(rule)?;
    }
    for rule in have
        .iter()
        .filter(|rule| rule.table == ROUTES && !rules.contains(rule))
    {
        netlink.delete_mark_rule(rule)?;
    }
    Ok(())
}

/// Only the address itself: whatever else looks into this table, as the search for the way back
/// of a marked packet may (`src_valid_mark`), finds nothing there and goes on.
fn local(ip: IpAddr) -> Route {
    Route {
        table: ROUTES,
        protocol: PROTO_KERNEL,
        kind: RouteType::Local,
        scope: match ip.is_ipv4() {
            true => Scope::Host,
            false => Scope::Global,
        },
        ..Route::new(IpNet::from(ip), LOOPBACK)
    }
}

fn is_same(have: &Route, want: &Route) -> bool {
    have.dst == want.dst && have.kind == want.kind && have.dev == want.dev
}

fn transaction(ops: Vec<Op>) -> Transaction {
    Transaction {
        family: Family::Inet,
        table: TABLE.to_owned(),
        ops,
    }
}
