//! The planned interface in the forms others want it in.

use ipnet::IpNet;
use model::config::PodMode;

use super::plan::{BRIDGE, Interface};
use crate::cni::{CniResult, Dns, Interface as Link, Ip, Route};

/// The result of ADD. What an earlier plugin of the chain made comes first.
pub fn result(
    interface: &Interface,
    netns: &str,
    dns: Dns,
    previous: Option<CniResult>,
) -> CniResult {
    let mut result = previous.unwrap_or_default();
    if interface.mode == PodMode::Bridge {
        result.interfaces.push(Link {
            name: BRIDGE.to_owned(),
            ..Link::default()
        });
    }
    result.interfaces.push(Link {
        name: interface.host_link.clone(),
        mac: interface.host_mac.to_string(),
        mtu: Some(interface.mtu),
        sandbox: String::new(),
    });
    let index = result.interfaces.len();
    result.interfaces.push(Link {
        name: interface.ifname.clone(),
        mac: interface.mac.to_string(),
        mtu: Some(interface.mtu),
        sandbox: netns.to_owned(),
    });
    for (address, gateway) in interface.addresses.iter().zip(&interface.gateways) {
        result.ips.push(Ip {
            address: *address,
            gateway: Some(gateway.addr()),
            interface: Some(index),
        });
    }
    for route in &interface.routes {
        result.routes.push(Route {
            dst: route.dst,
            gw: route.gateway,
        });
    }
    if dns != Dns::default() {
        result.dns = dns;
    }
    result
}

/// Settings of the node's side, as keys below /proc/sys and values.
///
/// The pod's subnet is on its link, so it asks for its neighbours' hardware addresses: the node
/// answers for them (proxy_arp) and at once (proxy_delay, 0.8 s by default). The gateway's own
/// address is on the link as well; proxy_arp alone would need a route to it through another.
pub(super) fn host_sysctls(
    link: &str,
    addresses: &[IpNet],
    has_ports: bool,
) -> Vec<(String, &'static str)> {
    let mut settings = Vec::new();
    if has_ports {
        // Packets to 127.0.0.1:HOSTPORT are sent to the pod from there.
        settings.push((format!("net/ipv4/conf/{link}/route_localnet"), "1"));
    }
    if addresses.iter().any(|net| net.addr().is_ipv4()) {
        settings.push((format!("net/ipv4/conf/{link}/proxy_arp"), "1"));
        settings.push((format!("net/ipv4/neigh/{link}/proxy_delay"), "0"));
    }
    settings
}

/// Settings of a node with a bridge.
pub(super) const BRIDGE_SYSCTLS: [&str; 2] = [
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
];

/// Settings of a node that forwards for its pods.
pub(super) fn node_sysctls(cidrs: &[IpNet]) -> Vec<(String, &'static str)> {
    let mut settings = Vec::new();
    if cidrs.iter().any(|net| net.addr().is_ipv4()) {
        settings.push(("net/ipv4/ip_forward".to_owned(), "1"));
    }
    if cidrs.iter().any(|net| net.addr().is_ipv6()) {
        settings.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    settings
}
