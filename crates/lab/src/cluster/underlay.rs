//! The plan's namespaces, links, addresses and routes, made in the kernel. Everything is
//! inside namespaces of the cluster; the machine's own network is never touched.

use std::fs;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use linux::link::{LinkChange, NewKind, NewLink, VethEnd};
use linux::{Address, NetNs, Netlink, Route, run_in, sysctl};

use super::error::{Error, Result, at};
use super::plan::{Cable, Namespace, NodePlan, Plan};

/// Where `ip netns` keeps names.
const NAMES: &str = "/run/netns";
/// Says that [`NAMES`] was not there before the first cluster.
const NAMES_ARE_OURS: &str = "/run/flatnet/made-netns";

fn named<T>(result: linux::Result<T>) -> Result<T> {
    result.map_err(|error| Error::Kernel {
        what: "network".into(),
        message: error.to_string(),
    })
}

/// Makes the underlay, the client and every node's namespace and cable; what is there
/// already stays.
pub fn make(plan: &Plan) -> Result<()> {
    let underlay = namespace(&plan.underlay)?;
    let mut links = named(Netlink::open_in(&underlay))?;
    for bridge in &plan.bridges {
        if named(links.link(&bridge.name))?.is_none() {
            named(links.create_link(&NewLink::new(&bridge.name, NewKind::Bridge)))?;
        }
        let link = named(links.expect_link(&bridge.name))?;
        let index = link.index;
        // A bridge takes the lowest hardware address of its ports, another one as nodes come and
        // go, until it is given one; and what sends to its last one is not heard.
        let keep = LinkChange {
            mac: link.mac,
            ..LinkChange::default()
        };
        named(links.change_link(index, &keep))?;
        for address in &bridge.addresses {
            named(links.replace_address(&Address::new(index, *address).with_broadcast()))?;
        }
    }
    attach(&mut links, &plan.client, &plan.client_cable)?;
    for node in &plan.nodes {
        attach(&mut links, &node.namespace, &node.cable)?;
    }
    Ok(())
}

/// Makes one node's namespace and cable.
pub fn make_node(plan: &Plan, node: &NodePlan) -> Result<()> {
    attach(&mut in_underlay(plan)?, &node.namespace, &node.cable)
}

/// Plugs a node's cable in, or pulls it.
pub fn set_cable(plan: &Plan, node: &NodePlan, up: bool) -> Result<()> {
    let mut links = in_underlay(plan)?;
    let index = named(links.expect_link(&node.cable.near))?.index;
    let change = LinkChange {
        up: Some(up),
        ..LinkChange::default()
    };
    named(links.change_link(index, &change))
}

/// True where the node's cable is plugged in.
pub fn cable_is_up(plan: &Plan, node: &NodePlan) -> bool {
    let link = in_underlay(plan).and_then(|mut links| named(links.link(&node.cable.near)));
    matches!(link, Ok(Some(link)) if link.up)
}

fn in_underlay(plan: &Plan) -> Result<Netlink> {
    let underlay = named(NetNs::named(&plan.underlay.name))?;
    named(Netlink::open_in(&underlay))
}

fn namespace(plan: &Namespace) -> Result<NetNs> {
    if !Path::new(NAMES).exists() {
        let marker = Path::new(NAMES_ARE_OURS);
        at("write", marker, fs::write(marker, ""))?;
    }
    let netns = match NetNs::named(&plan.name) {
        Ok(netns) => netns,
        Err(_) => {
            // A file without a mount is what a crash between the two leaves.
            named(NetNs::delete(&plan.name))?;
            named(NetNs::create(&plan.name))?
        }
    };
    named(run_in(&netns, || {
        for (key, value) in &plan.sysctls {
            sysctl::write(&format!("net/{key}"), value)?;
        }
        let mut links = Netlink::open()?;
        let lo = links.expect_link("lo")?;
        if lo.up {
            Ok(())
        } else {
            links.set_up(lo.index)
        }
    }))
    .and_then(named)?;
    Ok(netns)
}

/// Makes a namespace and the cable between it and the underlay.
fn attach(underlay: &mut Netlink, plan: &Namespace, cable: &Cable) -> Result<()> {
    let netns = namespace(plan)?;
    let bridge = match &cable.bridge {
        Some(bridge) => Some(named(underlay.expect_link(bridge))?.index),
        None => None,
    };
    let mut links = named(Netlink::open_in(&netns))?;
    if named(links.link("eth0"))?.is_none() {
        // The near end of a cable whose namespace is just ending may still be seen.
        named(underlay.delete_link(&cable.near))?;
        let far = VethEnd {
            name: "eth0",
            netns: Some(&netns),
            ..VethEnd::default()
        };
        named(underlay.create_link(&NewLink {
            master: bridge,
            ..NewLink::new(&cable.near, NewKind::Veth(far))
        }))?;
    }
    let near = named(underlay.expect_link(&cable.near))?;
    if !near.up {
        named(underlay.set_up(near.index))?;
    }
    for address in &cable.near_addresses {
        named(underlay.replace_address(&Address::new(near.index, *address).with_broadcast()))?;
    }
    let eth0 = named(links.expect_link("eth0"))?;
    if !eth0.up {
        named(links.set_up(eth0.index))?;
    }
    for address in &cable.addresses {
        named(links.replace_address(&Address::new(eth0.index, *address).with_broadcast()))?;
    }
    for gateway in &plan.gateways {
        let everywhere = match gateway {
            std::net::IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
            std::net::IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
        };
        named(links.replace_route(&Route::new(everywhere, eth0.index).via(*gateway)))?;
    }
    Ok(())
}

/// Takes a node's cable and namespace away. The cable goes first: a namespace takes its links
/// along only some time after its name.
pub fn remove_node(plan: &Plan, node: &NodePlan) -> Result<()> {
    named(in_underlay(plan)?.delete_link(&node.cable.near))?;
    remove(&node.namespace.name)
}

/// Takes a namespace's name away; it ends with its last process.
pub fn remove(name: &str) -> Result<()> {
    named(NetNs::delete(name))
}

/// The namespaces of a cluster: `fn-CLUSTER-` and a name without a dash.
pub fn namespaces(prefix: &str) -> Result<Vec<String>> {
    let mut names = named(NetNs::list())?;
    names.retain(|name| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && !rest.contains('-'))
    });
    Ok(names)
}

/// Takes `/run/netns` away where it was made by us and is empty.
pub fn tidy() {
    let (names, marker) = (Path::new(NAMES), Path::new(NAMES_ARE_OURS));
    let empty = fs::read_dir(names).is_ok_and(|mut entries| entries.next().is_none());
    if marker.exists() && empty {
        let _ = nix::mount::umount2(names, nix::mount::MntFlags::MNT_DETACH);
        // Only the last cluster's end finds both empty; otherwise they stay.
        let _ = fs::remove_dir(names);
    }
    if !names.exists() {
        let _ = fs::remove_file(marker);
    }
}
