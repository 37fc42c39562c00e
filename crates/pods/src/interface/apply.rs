//! The planned interface in the kernel: made, healed, removed.

use std::fmt;
use std::net::IpAddr;

use linux::link::NewKind;
use linux::{
    Address, Kind, Link, LinkChange, NetNs, Netlink, NewLink, Route, RouteFilter, VethEnd, sysctl,
};
use model::config::PodMode;

use super::plan::{BRIDGE, Interface, Settings, shaper, single};
use super::render::{BRIDGE_SYSCTLS, host_sysctls, node_sysctls};
use crate::cni::{CniError, code};

/// Metric of the node's own unreachable route: any other route to the range wins.
const LAST_RESORT: u32 = 4096;

/// Why an interface could not be made.
#[derive(Debug)]
pub enum ApplyError {
    /// The container has an interface of that name.
    Exists(String),
    /// The namespace cannot be entered.
    Netns(linux::Error),
    /// The namespace is the node's own.
    OwnNetns(String),
    /// The kernel refused something else.
    Kernel(linux::Error),
}

impl From<linux::Error> for ApplyError {
    fn from(error: linux::Error) -> Self {
        ApplyError::Kernel(error)
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplyError::Exists(name) => write!(
                f,
                "interface {name} exists in the container already; DEL comes first"
            ),
            ApplyError::Netns(error) => error.fmt(f),
            ApplyError::OwnNetns(path) => {
                write!(f, "CNI_NETNS {path} is the node's own network namespace")
            }
            ApplyError::Kernel(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ApplyError {}

impl From<ApplyError> for CniError {
    fn from(error: ApplyError) -> Self {
        let code = match error {
            ApplyError::Exists(_) => code::INTERFACE_EXISTS,
            ApplyError::Netns(_) | ApplyError::OwnNetns(_) => code::INVALID_NETNS,
            ApplyError::Kernel(_) => code::KERNEL,
        };
        CniError::new(code, error.to_string())
    }
}

/// The node's side of all pods.
#[derive(Debug)]
pub struct Wires {
    node: Netlink,
    netns: NetNs,
    netns_id: (u64, u64),
}

impl Wires {
    /// For the network namespace of the calling thread; every later call must come from a
    /// thread in the same one.
    pub fn open() -> Result<Wires, linux::Error> {
        let netns = NetNs::current()?;
        Ok(Wires {
            node: Netlink::open()?,
            netns_id: netns.id()?,
            netns,
        })
    }

    /// Makes the pod's interface. What was made before a failure is removed again.
    pub fn make(&mut self, interface: &Interface, netns: &str) -> Result<(), ApplyError> {
        let pod_netns = NetNs::open(netns).map_err(ApplyError::Netns)?;
        if pod_netns.id().map_err(ApplyError::Netns)? == self.netns_id {
            return Err(ApplyError::OwnNetns(netns.to_owned()));
        }
        let mut pod = self.open_in(&pod_netns).map_err(ApplyError::Netns)?;
        if pod.link(&interface.ifname)?.is_some() {
            return Err(ApplyError::Exists(interface.ifname.clone()));
        }
        let master = match interface.mode {
            PodMode::Routed => None,
            PodMode::Bridge => Some(self.bridge(interface)?),
        };
        self.node.create_link(&NewLink {
            mtu: Some(interface.mtu),
            mac: Some(interface.host_mac),
            master,
            ..NewLink::new(
                &interface.host_link,
                NewKind::Veth(VethEnd {
                    name: &interface.ifname,
                    netns: Some(&pod_netns),
                    mtu: Some(interface.mtu),
                    mac: Some(interface.mac),
                }),
            )
        })?;
        let made = fill_pod(&mut pod, interface).and_then(|()| self.host_side(interface));
        if let Err(error) = made {
            let _ = self.node.delete_link(&interface.host_link);
            return Err(error.into());
        }
        Ok(())
    }

    /// A handle to a pod's namespace, opened on this very thread: handing the job to another
    /// and waiting for it costs more than the job.
    fn open_in(&self, pod: &NetNs) -> Result<Netlink, linux::Error> {
        pod.enter()?;
        let opened = Netlink::open();
        if let Err(error) = self.netns.enter() {
            // This thread would do everything to come in the wrong namespace.
            tracing::error!(%error, "cannot come back to the node's network namespace");
            std::process::abort();
        }
        opened
    }

    /// The node's side of one interface: settings, gateway addresses, routes. Idempotent.
    fn host_side(&mut self, interface: &Interface) -> Result<(), linux::Error> {
        let link = self.node.expect_link(&interface.host_link)?.index;
        self.limit(interface, link)?;
        if interface.mode == PodMode::Bridge {
            // A pod that calls a Service may be given itself: with br_netfilter the answer of
            // the Service's rules is a frame back to the port it came by.
            let change = LinkChange {
                hairpin: Some(true),
                ..LinkChange::default()
            };
            self.node.change_link(link, &change)?;
            let bridge = self.node.expect_link(BRIDGE)?.index;
            return self.know_neighbour(interface, bridge);
        }
        for (key, value) in host_sysctls(
            &interface.host_link,
            &interface.addresses,
            interface.has_ports,
        ) {
            sysctl::write(&key, value)?;
        }
        for (address, gateway) in interface.addresses.iter().zip(&interface.gateways) {
            self.node
                .replace_address(&Address::new(link, single(gateway.addr())))?;
            self.node
                .replace_route(&Route::new(single(address.addr()), link))?;
        }
        self.know_neighbour(interface, link)
    }

    /// Tells the node the pod's hardware address behind its IPv6 addresses: while the link's own
    /// address is in duplicate address detection (one to two seconds), the node would ask for
    /// none and drop what it forwards to the new pod.
    fn know_neighbour(&mut self, interface: &Interface, link: u32) -> Result<(), linux::Error> {
        for address in &interface.addresses {
            if address.addr().is_ipv6() {
                self.node
                    .replace_neighbour(link, address.addr(), interface.mac)?;
            }
        }
        Ok(())
    }

    /// The bridge, made where it is not there. Its index.
    fn bridge(&mut self, interface: &Interface) -> Result<u32, linux::Error> {
        show_bridged_packets()?;
        let bridge = match self.node.link(BRIDGE)? {
            Some(bridge) => bridge,
            None => {
                let new = NewLink {
                    mtu: Some(interface.mtu),
                    ..NewLink::new(BRIDGE, NewKind::Bridge)
                };
                match self.node.create_link(&new) {
                    Err(error) if !error.is_exists() => return Err(error),
                    _ => {
                        let made = self.node.expect_link(BRIDGE)?;
                        // Given its own hardware address it keeps it: else it takes the lowest of
                        // its ports, another one as pods come and go.
                        let keep = LinkChange {
                            mac: made.mac,
                            ..LinkChange::default()
                        };
                        self.node.change_link(made.index, &keep)?;
                        made
                    }
                }
            }
        };
        if bridge.kind != Kind::Bridge {
            return Err(linux::Error::other(
                format!("link {BRIDGE}"),
                "use",
                "it is there and is not a bridge",
            ));
        }
        if !bridge.up || bridge.mtu != interface.mtu {
            let change = LinkChange {
                up: Some(true),
                mtu: Some(interface.mtu),
                ..LinkChange::default()
            };
            self.node.change_link(bridge.index, &change)?;
        }
        // Routed pods of the same node, from before a change of mode, are behind the bridge.
        for (key, value) in host_sysctls(BRIDGE, &interface.addresses, interface.has_ports) {
            sysctl::write(&key, value)?;
        }
        for gateway in &interface.gateways {
            let address = Address::new(bridge.index, *gateway).with_broadcast();
            self.node.replace_address(&address)?;
        }
        Ok(bridge.index)
    }

    /// Settings and routes of a node with these ranges, whatever pods it has; `bridged` where
    /// some of them hang on the bridge.
    pub fn prepare_node(&mut self, settings: &Settings, bridged: bool) -> Result<(), linux::Error> {
        if bridged || settings.mode == PodMode::Bridge {
            show_bridged_packets()?;
        }
        for (key, value) in node_sysctls(&settings.pod_cidrs) {
            sysctl::write(&key, value)?;
        }
        // An address of the range that no pod has must not leave by the default route.
        for cidr in &settings.pod_cidrs {
            let route = Route {
                kind: linux::RouteType::Unreachable,
                dev: None,
                metric: LAST_RESORT,
                scope: linux::Scope::Global,
                ..Route::new(*cidr, 0)
            };
            self.node.replace_route(&route)?;
        }
        Ok(())
    }

    /// Removes the node's side, and with it the pod's; false where there was none.
    pub fn remove(&mut self, host_link: &str, limited: bool) -> Result<bool, linux::Error> {
        if limited {
            self.node.delete_link(&shaper(host_link))?;
        }
        self.node.delete_link(host_link)
    }

    /// Removes what the bridge knows of an address; routed links take that along.
    pub fn forget_neighbour(&mut self, ip: IpAddr) {
        if let Ok(Some(bridge)) = self.node.link(BRIDGE) {
            // It may never have been there.
            let _ = self.node.delete_neighbour(bridge.index, ip);
        }
    }

    /// Links that hold back what pods send.
    pub fn shapers(&mut self) -> Result<Vec<String>, linux::Error> {
        let links = self.node.links()?.into_iter();
        Ok(links
            .filter(|link| link.kind == Kind::Ifb && link.name.starts_with("fn-i"))
            .map(|link| link.name)
            .collect())
    }

    /// The node's sides of its pods: every link with our prefix that is one end of a pair, with
    /// the addresses routed to it.
    pub fn pod_addresses(&mut self) -> Result<Vec<(String, Vec<IpAddr>)>, linux::Error> {
        let links = self.node.links()?;
        let routes = self.node.routes(RouteFilter::main())?;
        let ours = links
            .into_iter()
            .filter(|link| link.kind == Kind::Veth && link.name.starts_with("fn-"));
        Ok(ours
            .map(|link| {
                let here = |route: &&Route| {
                    route.dev == Some(link.index)
                        && route.dst.prefix_len() == route.dst.max_prefix_len()
                };
                let ips = routes
                    .iter()
                    .filter(here)
                    .map(|route| route.dst.addr())
                    .collect();
                (link.name, ips)
            })
            .collect())
    }

    /// A link by its index, where it is there.
    pub fn link(&mut self, index: u32) -> Option<Link> {
        self.node.link_by_index(index).ok().flatten()
    }

    /// Whether the node's side of a pod is there.
    pub fn is_there(&mut self, host_link: &str) -> Result<bool, linux::Error> {
        Ok(self.node.link(host_link)?.is_some())
    }

    /// Puts back what others took from the node's side of these interfaces; the names of
    /// those that needed it, and what could not be put back.
    pub fn heal(&mut self, interfaces: &[(Interface, &str)]) -> (Vec<String>, Vec<linux::Error>) {
        let mut healed = Vec::new();
        let mut errors = Vec::new();
        let state = self.node.links().and_then(|links| {
            Ok((
                links,
                self.node.addresses(None)?,
                self.node.routes(RouteFilter::main())?,
            ))
        });
        let (links, addresses, routes) = match state {
            Ok(state) => state,
            Err(error) => return (healed, vec![error]),
        };
        for (interface, netns) in interfaces {
            // A pod whose link is gone cannot be healed: its runtime makes it anew.
            let Some(link) = links.iter().find(|link| link.name == interface.host_link) else {
                continue;
            };
            let whole =
                link.up
                    && link.mtu == interface.mtu
                    && match interface.mode {
                        PodMode::Bridge => {
                            let is_ours = |bridge: &Link| {
                                bridge.name == BRIDGE
                                    && bridge.up
                                    && link.master == Some(bridge.index)
                            };
                            link.hairpin && links.iter().any(is_ours)
                        }
                        PodMode::Routed => interface.addresses.iter().zip(&interface.gateways).all(
                            |(ip, gateway)| {
                                let (ip, gateway) = (single(ip.addr()), single(gateway.addr()));
                                routes
                                    .iter()
                                    .any(|route| route.dst == ip && route.dev == Some(link.index))
                                    && addresses.iter().any(|address| {
                                        address.dev == link.index && address.net == gateway
                                    })
                            },
                        ),
                    };
            if whole {
                continue;
            }
            match self.put_back(interface, link, netns) {
                Ok(()) => healed.push(interface.host_link.clone()),
                Err(error) => errors.push(error),
            }
        }
        (healed, errors)
    }

    fn put_back(
        &mut self,
        interface: &Interface,
        link: &Link,
        netns: &str,
    ) -> Result<(), linux::Error> {
        if link.mtu != interface.mtu {
            self.set_mtu(interface, link, netns)?;
        }
        if interface.mode == PodMode::Bridge {
            let bridge = self.bridge(interface)?;
            let change = LinkChange {
                master: Some(bridge),
                up: Some(true),
                ..LinkChange::default()
            };
            self.node.change_link(link.index, &change)?;
        } else if !link.up {
            self.node.set_up(link.index)?;
        }
        self.host_side(interface)
    }

    /// Both ends: one that sends more than the other takes would lose packets silently.
    fn set_mtu(
        &mut self,
        interface: &Interface,
        link: &Link,
        netns: &str,
    ) -> Result<(), linux::Error> {
        let change = LinkChange {
            mtu: Some(interface.mtu),
            ..LinkChange::default()
        };
        let mut pod = Netlink::open_in(&NetNs::open(netns)?)?;
        let inside = pod.expect_link(&interface.ifname)?.index;
        pod.change_link(inside, &change)?;
        self.node.change_link(link.index, &change)
    }

    pub(super) fn node(&mut self) -> &mut Netlink {
        &mut self.node
    }
}

/// Leads what the bridge carries past the node's rules, as if it were forwarded: else neither
/// Services nor policies hold between pods of one node.
fn show_bridged_packets() -> Result<(), linux::Error> {
    for key in BRIDGE_SYSCTLS {
        if sysctl::read(key)?.is_none() {
            return Err(linux::Error::other(
                format!("sysctl {key}"),
                "write",
                "pods on a bridge need the kernel module br_netfilter, without which neither \
                 Services nor network policies hold between them: modprobe br_netfilter, or \
                 podMode: routed in the configuration",
            ));
        }
        sysctl::write(key, "1")?;
    }
    Ok(())
}

/// The pod's side: loopback and the interface up, addresses, routes.
fn fill_pod(pod: &mut Netlink, interface: &Interface) -> Result<(), linux::Error> {
    let link = pod.expect_link(&interface.ifname)?.index;
    // Loopback is the first link of every namespace.
    pod.set_up(1)?;
    pod.set_up(link)?;
    for address in &interface.addresses {
        pod.add_address(&Address {
            no_prefix_route: address.addr().is_ipv6(),
            ..Address::new(link, *address).with_broadcast()
        })?;
    }
    for route in &interface.routes {
        let new = Route::new(route.dst, link);
        pod.add_route(&match route.gateway {
            Some(gateway) => new.via(gateway),
            None => new,
        })?;
    }
    Ok(())
}

/// Removes an interface from inside its namespace, without an agent; false where the
/// namespace or the interface is not there.
pub fn remove_in_namespace(netns: &str, ifname: &str) -> Result<bool, linux::Error> {
    let Ok(netns) = NetNs::open(netns) else {
        return Ok(false);
    };
    if netns.id()? == NetNs::current()?.id()? {
        return Ok(false);
    }
    let mut pod = Netlink::open_in(&netns)?;
    // Only what ADD makes: another plugin's interface of the same name is not ours to delete.
    match pod.link(ifname)? {
        Some(link) if link.kind == Kind::Veth => pod.delete_link(ifname),
        _ => Ok(false),
    }
}
