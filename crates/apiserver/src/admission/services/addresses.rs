//! Addresses of the service ranges.

use std::net::IpAddr;

use ipnet::IpNet;
use objects::{Kind, Object, Status};
use serde_json::json;

use super::families::{family, refused};
use super::{TRIES, is_headless, list};
use crate::context::Ctx;
use crate::store::Store;

fn is_taken(store: &Store, address: IpAddr) -> bool {
    store
        .get(&format!("networking.k8s.io/ipaddresses//{address}"))
        .is_some()
}

/// Gives an address of each family, or checks the ones asked for.
pub(super) fn allocate(
    ctx: &Ctx,
    kind: &Kind,
    had: &[String],
    new: &mut Object,
) -> Result<(), Status> {
    if is_headless(new) {
        return Ok(());
    }
    let given = list(new, "clusterIPs");
    let mut chosen = Vec::new();
    for (index, wanted) in list(new, "ipFamilies").iter().enumerate() {
        let mut ranges = ctx.settings.service_cidrs.iter();
        let range = ranges.find(|range| family(range.addr()) == wanted);
        let asked = given.get(index).filter(|a| !a.is_empty());
        let address = match (asked, range) {
            (Some(asked), _) if had.contains(asked) => asked.clone(),
            (Some(asked), range) => {
                // Validation has parsed it.
                let address = asked.parse().ok();
                let Some(address) = address.filter(|a| range.is_some_and(|r| serves(r, *a))) else {
                    let why = "the provided network does not match the current range";
                    return Err(refused(kind, new, asked, why));
                };
                if is_taken(&ctx.store, address) {
                    return Err(refused(
                        kind,
                        new,
                        asked,
                        "provided IP is already allocated",
                    ));
                }
                address.to_string()
            }
            (None, Some(range)) => free(range, &ctx.store)
                .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?
                .to_string(),
            (None, None) => continue,
        };
        chosen.push(address);
    }
    new["spec"]["clusterIP"] = chosen.first().cloned().unwrap_or_default().into();
    new["spec"]["clusterIPs"] = json!(chosen);
    Ok(())
}

/// Neither the range's own address nor an IPv4 broadcast address is given.
fn serves(range: &IpNet, address: IpAddr) -> bool {
    range.contains(&address)
        && address != range.network()
        && !(address.is_ipv4() && address == range.broadcast())
}

/// The address `offset` places into a range.
fn nth(range: &IpNet, offset: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(base) => {
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            IpAddr::from(u32::from(base).saturating_add(offset).to_be_bytes())
        }
        IpAddr::V6(base) => IpAddr::from(u128::from(base).saturating_add(offset).to_be_bytes()),
    }
}

/// How many addresses a range gives, and how many of the first ones are left to be asked for.
fn extent(range: &IpNet) -> (u128, u128) {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = 1_u128 << bits.min(64);
    // Kubernetes keeps min(max(16, size/16), 256) addresses for static use.
    (size, (size / 16).clamp(16, 256).min(size / 2))
}

/// A free address, from the part that is not kept for static use as long as there is one.
fn free(range: &IpNet, store: &Store) -> Option<IpAddr> {
    let (size, kept) = extent(range);
    let last = if range.addr().is_ipv4() {
        size.saturating_sub(1)
    } else {
        size
    };
    if last > kept {
        for _ in 0..TRIES {
            let address = nth(range, rand::random_range(kept..last));
            if !is_taken(store, address) {
                return Some(address);
            }
        }
    }
    let most = last.min(kept + (1 << 20));
    (kept..most)
        .chain(1..kept)
        .map(|n| nth(range, n))
        .find(|a| !is_taken(store, *a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_start_of_the_range() {
        let range: IpNet = "10.96.0.0/12".parse().unwrap();
        assert_eq!(nth(&range, 1).to_string(), "10.96.0.1");
        assert_eq!(extent(&range), (1 << 20, 256));
        let small: IpNet = "10.0.0.0/28".parse().unwrap();
        assert_eq!(extent(&small), (16, 8));
        let six: IpNet = "fd00:10:96::/112".parse().unwrap();
        assert_eq!(nth(&six, 10).to_string(), "fd00:10:96::a");
    }

    #[test]
    fn the_ends_of_a_range_are_nobodys() {
        let range: IpNet = "10.96.0.0/24".parse().unwrap();
        for (address, good) in [
            ("10.96.0.0", false),
            ("10.96.0.255", false),
            ("10.96.0.1", true),
        ] {
            assert_eq!(serves(&range, address.parse().unwrap()), good, "{address}");
        }
    }
}
