//! CHECK: is the world as ADD left it?

use linux::{Address, Link, NetNs, Netlink, Route, RouteFilter};
use model::config::PodMode;

use super::apply::Wires;
use super::plan::{BRIDGE, Interface, single};
use crate::cni::CniResult;

impl Wires {
    /// Everything of `interface` that is missing or different, in the pod and on the node;
    /// `expected` is the chain's result, whose addresses and routes must be there too.
    pub fn check(
        &mut self,
        interface: &Interface,
        netns: &str,
        expected: &CniResult,
    ) -> Result<Vec<String>, linux::Error> {
        let mut pod = Netlink::open_in(&NetNs::open(netns)?)?;
        let mut wrong = Vec::new();
        match pod.link(&interface.ifname)? {
            None => wrong.push(format!("interface {} is not in {netns}", interface.ifname)),
            Some(link) => {
                check_link(&link, interface, expected, netns, &mut wrong);
                let addresses = pod.addresses(Some(link.index))?;
                let routes = pod.routes(RouteFilter::main())?;
                check_pod(&addresses, &routes, &link, expected, &mut wrong);
            }
        }
        self.check_node(interface, &mut wrong)?;
        Ok(wrong)
    }

    fn check_node(
        &mut self,
        interface: &Interface,
        wrong: &mut Vec<String>,
    ) -> Result<(), linux::Error> {
        let name = &interface.host_link;
        let Some(link) = self.node().link(name)? else {
            wrong.push(format!("link {name} is not on the node"));
            return Ok(());
        };
        if !link.up {
            wrong.push(format!("link {name} is down"));
        }
        wrong.extend(self.check_limits(interface, link.index)?);
        match interface.mode {
            PodMode::Bridge => {
                let bridge = self.node().link(BRIDGE)?.map(|bridge| bridge.index);
                if bridge.is_none() || link.master != bridge {
                    wrong.push(format!("link {name} is no port of {BRIDGE}"));
                } else if !link.hairpin {
                    wrong.push(format!(
                        "port {name} of {BRIDGE} is not in hairpin mode: the pod does not reach \
                         itself through a Service"
                    ));
                }
            }
            PodMode::Routed => {
                let routes = self.node().routes(RouteFilter {
                    dev: Some(link.index),
                    ..RouteFilter::main()
                })?;
                for address in &interface.addresses {
                    let ip = single(address.addr());
                    if !routes.iter().any(|route| route.dst == ip) {
                        wrong.push(format!(
                            "the node has no route to {} on {name}",
                            address.addr()
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

fn check_link(
    link: &Link,
    interface: &Interface,
    expected: &CniResult,
    netns: &str,
    wrong: &mut Vec<String>,
) {
    let name = &interface.ifname;
    if !link.up {
        wrong.push(format!("interface {name} is down"));
    }
    let listed = expected
        .interfaces
        .iter()
        .find(|listed| listed.name == *name && listed.sandbox == netns);
    match listed {
        None => wrong.push(format!("prevResult.interfaces has no {name} in {netns}")),
        Some(listed) => {
            let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
            if !listed.mac.is_empty() && !listed.mac.eq_ignore_ascii_case(&mac) {
                wrong.push(format!(
                    "interface {name} has hardware address {mac}, not {}",
                    listed.mac
                ));
            }
            if let Some(mtu) = listed.mtu
                && mtu != link.mtu
                && link.mtu != interface.mtu
            {
                wrong.push(format!("interface {name} has MTU {}, not {mtu}", link.mtu));
            }
        }
    }
}

fn check_pod(
    addresses: &[Address],
    routes: &[Route],
    link: &Link,
    expected: &CniResult,
    wrong: &mut Vec<String>,
) {
    let ours = |index: Option<usize>| {
        let listed = index.and_then(|index| expected.interfaces.get(index));
        listed.is_none_or(|listed| listed.name == link.name)
    };
    for ip in expected.ips.iter().filter(|ip| ours(ip.interface)) {
        if !addresses.iter().any(|address| address.net == ip.address) {
            wrong.push(format!("address {} is not on {}", ip.address, link.name));
        }
    }
    for wanted in &expected.routes {
        let there = routes.iter().any(|route| {
            route.dst == wanted.dst
                && wanted
                    .gw
                    .is_none_or(|gateway| route.gateway == Some(gateway))
        });
        if !there {
            let via = wanted
                .gw
                .map(|gateway| format!(" via {gateway}"))
                .unwrap_or_default();
            wrong.push(format!("route {}{via} is not there", wanted.dst));
        }
    }
}
