//! Whether somebody else's change concerns the fabric.

use linux::{Event, Kind, Link};

use crate::have::{Have, is_pods, owns_nft, same_hop};
use crate::plan::Plan;
use crate::render::TABLE;

/// Whether an event says other than what is thought to be there. The fabric's own changes come
/// back as events too, and say the same.
pub(crate) fn concerns(have: &Have, plan: Option<&Plan>, event: &Event) -> bool {
    match event {
        Event::Lost => true,
        Event::Link { link, gone } => link_differs(have, link, *gone),
        Event::Address { address, gone } => {
            let known = have
                .addresses
                .iter()
                .any(|there| (there.dev, there.net) == (address.dev, address.net));
            let of_interest = have.name(address.dev).is_some()
                || plan.is_none_or(|plan| {
                    let uplinks = [&plan.underlay.v4, &plan.underlay.v6];
                    // A family that has no link yet may get one by any address.
                    uplinks.into_iter().any(|uplink| {
                        uplink
                            .as_ref()
                            .is_none_or(|uplink| uplink.address == address.net.addr())
                    })
                });
            !address.local_scope && of_interest && known == *gone
        }
        Event::Route { route, gone } => {
            let wanted = plan.is_some_and(|plan| plan.paths.contains_key(&route.dst));
            let known = have
                .routes
                .get(&route.dst)
                .is_some_and(|there| there.iter().any(|there| same_hop(there, route)));
            route.table == linux::route::MAIN && (wanted || have.is_own(route)) && known == *gone
        }
        Event::Rule { .. } => false,
        Event::Neighbour { neighbour, gone } => {
            let Some(tunnel) = have.tunnel_name(neighbour.dev) else {
                return false;
            };
            match have.neighbours.get(&(tunnel, neighbour.ip)) {
                Some(mac) => *gone || !neighbour.permanent || neighbour.mac != Some(*mac),
                None => !gone && neighbour.permanent,
            }
        }
        Event::Fdb { entry, gone } => {
            let Some(tunnel) = have.tunnel_name(entry.dev) else {
                return false;
            };
            match have.fdb.get(&(tunnel, entry.mac)) {
                Some(dst) => *gone || !entry.permanent || entry.dst != Some(*dst),
                None => !gone && entry.permanent,
            }
        }
        Event::Nftables { table, name } => table == TABLE && name.as_deref().is_none_or(owns_nft),
    }
}

fn link_differs(have: &Have, link: &Link, gone: bool) -> bool {
    if is_pods(&link.name) {
        return false;
    }
    let Some(there) = have.links.values().find(|there| there.index == link.index) else {
        // One with the same VNI may be what was in the way of the fabric's own.
        return matches!(link.kind, Kind::Vxlan(_));
    };
    let state = |link: &Link| {
        (
            link.name.clone(),
            link.kind.clone(),
            link.mtu,
            link.mac,
            link.up,
        )
    };
    gone || state(there) != state(link)
}
