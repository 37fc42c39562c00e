//! Routes.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteProtocol, RouteScope, RouteType as WireType, RouteVia,
};

use crate::addr::family;
use crate::error::Result;
use crate::netlink::{About, Netlink};

/// The main table.
pub const MAIN: u32 = 254;
/// The table of the host's own addresses.
pub const LOCAL: u32 = 255;
/// `RTPROT_KERNEL`: made by the kernel itself, for an address.
pub const PROTO_KERNEL: u8 = 2;
/// `RTPROT_BOOT`: made by `ip route add` without a protocol.
pub const PROTO_BOOT: u8 = 3;
/// `RTPROT_STATIC`: made by an administrator.
pub const PROTO_STATIC: u8 = 4;

/// How far the destination is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Behind a gateway.
    #[default]
    Global,
    /// On the link.
    Link,
    /// This host.
    Host,
    /// Any other number.
    Other(u8),
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteType {
    /// Sent on.
    #[default]
    Unicast,
    /// Delivered here.
    Local,
    /// Delivered here as a broadcast.
    Broadcast,
    /// Dropped silently.
    Blackhole,
    /// Refused: host unreachable.
    Unreachable,
    /// Refused: administratively prohibited.
    Prohibit,
    /// Any other number.
    Other(u8),
}

/// One next hop of a multipath route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Its address.
    pub gateway: Option<IpAddr>,
    /// Index of the link towards it.
    pub dev: u32,
    /// Its share, 1 to 256.
    pub weight: u16,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination; `0.0.0.0/0` or `::/0` is the default route.
    pub dst: IpNet,
    /// Address of the next hop.
    pub gateway: Option<IpAddr>,
    /// Index of the link.
    pub dev: Option<u32>,
    /// Preferred source address.
    pub src: Option<IpAddr>,
    /// Table, [`MAIN`] for most.
    pub table: u32,
    /// Who made it.
    pub protocol: u8,
    /// Scope; set from the gateway by [`Route::via`] and [`Route::new`].
    pub scope: Scope,
    /// What becomes of the packet.
    pub kind: RouteType,
    /// Priority; 0 is the kernel's default (which IPv6 lists as 1024).
    pub metric: u32,
    /// The gateway is on the link although no address says so.
    pub onlink: bool,
    /// MTU of this path, where it differs from the link's.
    pub mtu: Option<u32>,
    /// Several next hops, instead of `gateway` and `dev`.
    pub hops: Vec<NextHop>,
}

impl Route {
    /// A route on a link.
    pub fn new(dst: impl Into<IpNet>, dev: u32) -> Self {
        let dst = dst.into().trunc();
        Self {
            dst,
            gateway: None,
            dev: Some(dev),
            src: None,
            table: MAIN,
            protocol: PROTO_BOOT,
            // IPv6 has no scopes: the kernel lists every route as global.
            scope: if dst.addr().is_ipv4() {
                Scope::Link
            } else {
                Scope::Global
            },
            kind: RouteType::Unicast,
            metric: 0,
            onlink: false,
            mtu: None,
            hops: Vec::new(),
        }
    }

    /// The same through a gateway.
    #[must_use]
    pub fn via(mut self, gateway: IpAddr) -> Self {
        self.gateway = Some(gateway);
        self.scope = Scope::Global;
        self
    }

    /// The same through a gateway that is on the link although no address says so.
    #[must_use]
    pub fn via_onlink(self, gateway: IpAddr) -> Self {
        Self {
            onlink: true,
            ..self.via(gateway)
        }
    }

    /// The same, marked as made by `protocol`.
    #[must_use]
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = protocol;
        self
    }
}

impl fmt::Display for Route {
    /// In the words of `ip route`, with the link as its index.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteType::Unicast => {}
            kind => write!(f, "{} ", format!("{kind:?}").to_lowercase())?,
        }
        write!(f, "{}", self.dst)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(dev) = self.dev {
            write!(f, " dev #{dev}")?;
        }
        if self.table != MAIN {
            write!(f, " table {}", self.table)?;
        }
        if self.onlink {
            write!(f, " onlink")?;
        }
        Ok(())
    }
}

/// Which routes to list; the kernel filters.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteFilter {
    /// Only this table; [`None`] lists all, the host's own addresses too.
    pub table: Option<u32>,
    /// Only this maker.
    pub protocol: Option<u8>,
    /// Only through this link.
    pub dev: Option<u32>,
}

impl RouteFilter {
    /// The main table.
    pub fn main() -> Self {
        Self {
            table: Some(MAIN),
            ..Self::default()
        }
    }

    /// Whether a route is one of those asked for.
    pub fn matches(&self, route: &Route) -> bool {
        self.table.is_none_or(|table| route.table == table)
            && self
                .protocol
                .is_none_or(|protocol| route.protocol == protocol)
            && self.dev.is_none_or(|dev| {
                route.dev == Some(dev) || route.hops.iter().any(|hop| hop.dev == dev)
            })
    }
}

impl Netlink {
    /// Routes of both families, IPv4 first.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [
            netlink_packet_route::AddressFamily::Inet,
            netlink_packet_route::AddressFamily::Inet6,
        ] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            if let Some(protocol) = filter.protocol {
                message.header.protocol = RouteProtocol::from(protocol);
            }
            if let Some(table) = filter.table {
                message.attributes.push(RouteAttribute::Table(table));
            }
            if let Some(dev) = filter.dev {
                message.attributes.push(RouteAttribute::Oif(dev));
            }
            let answers = self.dump(
                &RouteNetlinkMessage::GetRoute(message),
                &About {
                    object: &|| "routes".to_owned(),
                    operation: "list",
                },
            );
            let answers = match answers {
                // A table that nobody wrote to yet is not there.
                Err(error) if error.is(libc::ENOENT) => Vec::new(),
                // No IPv6 in this kernel.
                Err(error) if error.is(libc::EOPNOTSUPP) => Vec::new(),
                answers => answers?,
            };
            routes.extend(
                answers
                    .into_iter()
                    .filter_map(|answer| match answer {
                        RouteNetlinkMessage::NewRoute(message) => parse(&message),
                        _ => None,
                    })
                    .filter(|route| filter.matches(route)),
            );
        }
        Ok(routes)
    }

    /// The route the kernel takes to an address.
    pub fn route_to(&mut self, destination: IpAddr) -> Result<Option<Route>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        message
            .attributes
            .push(RouteAttribute::Destination(destination.into()));
        let answer = self.get(
            RouteNetlinkMessage::GetRoute(message),
            &About {
                object: &|| format!("route to {destination}"),
                operation: "look up",
            },
        );
        match answer {
            Ok(Some(RouteNetlinkMessage::NewRoute(message))) => Ok(parse(&message)),
            Ok(_) => Ok(None),
            Err(error) if matches!(error.errno, Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Adds a route; one with the same destination, table and metric is an error (`is_exists`).
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        self.new_route(route, NLM_F_CREATE | NLM_F_EXCL, "add")
    }

    /// Adds a route, or puts it in the place of the one with the same destination, table and
    /// metric, without a moment in which neither is there.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        self.new_route(route, NLM_F_CREATE | NLM_F_REPLACE, "set")
    }

    /// Deletes a route.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        self.change(
            RouteNetlinkMessage::DelRoute(request(route)),
            0,
            &About {
                object: &|| object(route),
                operation: "delete",
            },
        )
    }

    fn new_route(&mut self, route: &Route, flags: u16, operation: &'static str) -> Result<()> {
        self.change(
            RouteNetlinkMessage::NewRoute(request(route)),
            flags,
            &About {
                object: &|| object(route),
                operation,
            },
        )
    }
}

fn object(route: &Route) -> String {
    format!("route {route}")
}

fn request(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(route.dst.addr()),
        destination_prefix_length: route.dst.prefix_len(),
        table: u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        protocol: RouteProtocol::from(route.protocol),
        scope: route.scope.into(),
        kind: route.kind.into(),
        ..RouteHeader::default()
    };
    if route.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    if route.dst.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.dst.addr().into()));
    }
    if route.table > 255 {
        attributes.push(RouteAttribute::Table(route.table));
    }
    if let Some(gateway) = route.gateway {
        attributes.push(match (gateway, route.dst) {
            (IpAddr::V6(gateway), IpNet::V4(_)) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
            _ => RouteAttribute::Gateway(gateway.into()),
        });
    }
    if let Some(dev) = route.dev {
        attributes.push(RouteAttribute::Oif(dev));
    }
    if let Some(src) = route.src {
        attributes.push(RouteAttribute::PrefSource(src.into()));
    }
    if route.metric > 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    if let Some(mtu) = route.mtu {
        attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    if !route.hops.is_empty() {
        attributes.push(RouteAttribute::MultiPath(
            route.hops.iter().map(next_hop).collect(),
        ));
    }
    message
}

fn next_hop(hop: &NextHop) -> RouteNextHop {
    let mut wire = RouteNextHop::default();
    wire.interface_index = hop.dev;
    wire.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    if let Some(gateway) = hop.gateway {
        wire.attributes
            .push(RouteAttribute::Gateway(gateway.into()));
    }
    wire
}

pub(crate) fn parse(message: &RouteMessage) -> Option<Route> {
    use netlink_packet_route::AddressFamily::{Inet, Inet6};
    let unspecified = match message.header.address_family {
        Inet => IpAddr::from([0; 4]),
        Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let mut dst = unspecified;
    let mut route = Route::new(IpNet::new(unspecified, 0).ok()?, 0);
    route.dev = None;
    route.table = message.header.table.into();
    route.protocol = message.header.protocol.into();
    route.scope = message.header.scope.into();
    route.kind = message.header.kind.into();
    route.onlink = message.header.flags.contains(RouteFlags::Onlink);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => dst = ip(to)?,
            RouteAttribute::Gateway(via) => route.gateway = ip(via),
            RouteAttribute::Via(RouteVia::Inet6(via)) => route.gateway = Some((*via).into()),
            RouteAttribute::Via(RouteVia::Inet(via)) => route.gateway = Some((*via).into()),
            RouteAttribute::Oif(dev) => route.dev = Some(*dev),
            RouteAttribute::PrefSource(src) => route.src = ip(src),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::MultiPath(hops) => route.hops = hops.iter().map(parse_hop).collect(),
            _ => {}
        }
    }
    route.dst = IpNet::new(dst, message.header.destination_prefix_length).ok()?;
    Some(route)
}

fn parse_hop(wire: &RouteNextHop) -> NextHop {
    NextHop {
        gateway: wire
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Gateway(via) => ip(via),
                _ => None,
            }),
        dev: wire.interface_index,
        weight: u16::from(wire.hops) + 1,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

impl From<RouteScope> for Scope {
    fn from(scope: RouteScope) -> Self {
        match scope {
            RouteScope::Universe => Self::Global,
            RouteScope::Link => Self::Link,
            RouteScope::Host => Self::Host,
            other => Self::Other(other.into()),
        }
    }
}

impl From<Scope> for RouteScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Global => Self::Universe,
            Scope::Link => Self::Link,
            Scope::Host => Self::Host,
            Scope::Other(number) => Self::from(number),
        }
    }
}

impl From<WireType> for RouteType {
    fn from(kind: WireType) -> Self {
        match kind {
            WireType::Unicast => Self::Unicast,
            WireType::Local => Self::Local,
            WireType::Broadcast => Self::Broadcast,
            WireType::BlackHole => Self::Blackhole,
            WireType::Unreachable => Self::Unreachable,
            WireType::Prohibit => Self::Prohibit,
            other => Self::Other(other.into()),
        }
    }
}

impl From<RouteType> for WireType {
    fn from(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local => Self::Local,
            RouteType::Broadcast => Self::Broadcast,
            RouteType::Blackhole => Self::BlackHole,
            RouteType::Unreachable => Self::Unreachable,
            RouteType::Prohibit => Self::Prohibit,
            RouteType::Other(number) => Self::from(number),
        }
    }
}
