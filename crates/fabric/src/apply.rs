//! The difference between what is wanted and what is there, to the kernel. The new is made
//! before the old is taken away, so that at every moment each packet has a way.

use ipnet::IpNet;
use linux::link::NewKind;
use linux::{Address, Error, Kernel, Kind, Link, LinkChange, NewLink, Result, Route, Vxlan};

use crate::have::{Have, owns_nft, same_hop};
use crate::plan::{Tunnel, VXLAN_V4, VXLAN_V6};
use crate::render::{Objects, ROUTE_PROTOCOL, RouteTo, Setting};

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub changes: usize,
    pub errors: Vec<Error>,
}

/// Makes `want`; `have` becomes what is there then. VXLAN ends named in `keep` stay, and receive,
/// although they are not wanted.
pub(crate) fn apply(
    kernel: &mut dyn Kernel,
    have: &mut Have,
    want: &Objects,
    keep: &[&'static str],
) -> Done {
    let mut apply = Apply {
        kernel,
        have,
        want,
        done: Done::default(),
    };
    for tunnel in want.tunnels.values() {
        if let Err(error) = apply.tunnel(tunnel) {
            apply.done.errors.push(error);
        }
    }
    for setting in &want.settings {
        let set = apply.setting(setting);
        apply.note(set);
    }
    apply.add_ways();
    apply.add_routes();
    let rules = apply.rules();
    apply.note(rules);
    apply.remove_routes();
    // With a link goes all that hangs on it.
    apply.remove_tunnels(keep);
    apply.remove_ways();
    apply.done
}

struct Apply<'a> {
    kernel: &'a mut dyn Kernel,
    have: &'a mut Have,
    want: &'a Objects,
    done: Done,
}

impl Apply<'_> {
    /// Counts a change, or keeps its error; true where it was made.
    fn did(&mut self, result: Result<()>) -> bool {
        self.note(result.map(|()| true))
    }

    fn note(&mut self, result: Result<bool>) -> bool {
        match result {
            Ok(changed) => {
                self.done.changes += usize::from(changed);
                changed
            }
            Err(error) => {
                self.done.errors.push(error);
                false
            }
        }
    }

    /// The same for a removal: what somebody else removed first is removed.
    fn removed(&mut self, result: Result<()>) -> bool {
        match result {
            Err(error) if error.is_not_found() => true,
            result => self.did(result),
        }
    }

    fn setting(&mut self, setting: &Setting) -> Result<bool> {
        match setting {
            Setting::Is { key, value } => self.kernel.set_sysctl(key, value),
            Setting::NotStrict { key, or } => {
                let strict = |value: Option<String>| value.as_deref() == Some("1");
                let Some(own) = self.kernel.sysctl(key)? else {
                    return Ok(false);
                };
                let by_other = match or {
                    Some(or) => strict(self.kernel.sysctl(or)?),
                    None => false,
                };
                // The greater of the two counts, and only 1 is strict.
                if strict(Some(own.clone())) || (own == "0" && by_other) {
                    self.kernel.set_sysctl(key, "2")
                } else {
                    Ok(false)
                }
            }
        }
    }

    /// Makes a VXLAN end, changes it where that is possible, and makes it anew where it is not.
    fn tunnel(&mut self, tunnel: &Tunnel) -> Result<()> {
        let parent = self.have.index(&tunnel.parent);
        let kind = Kind::Vxlan(Vxlan {
            id: tunnel.vni,
            port: tunnel.port,
            local: Some(tunnel.local),
            parent,
            learning: false,
        });
        if let Some(link) = self.have.links.get(tunnel.link).cloned() {
            if link.kind == kind {
                self.adjust(&link, tunnel)?;
                return self.address(tunnel, link.index);
            }
            self.kernel.delete_link(tunnel.link)?;
            self.done.changes += 1;
            self.have.forget_link(tunnel.link);
        }
        let Kind::Vxlan(vxlan) = kind else {
            return Ok(());
        };
        self.kernel
            .create_link(&NewLink {
                mtu: Some(tunnel.mtu),
                mac: Some(tunnel.mac),
                ..NewLink::new(tunnel.link, NewKind::Vxlan(vxlan))
            })
            .map_err(|error| self.explain_exists(error, tunnel))?;
        self.done.changes += 1;
        let made = self
            .kernel
            .links()?
            .into_iter()
            .find(|link| link.name == tunnel.link);
        let made = made.ok_or_else(|| {
            Error::other(
                format!("link {}", tunnel.link),
                "find",
                "gone right after it was made",
            )
        })?;
        let index = made.index;
        self.have.links.insert(made.name.clone(), made);
        self.address(tunnel, index)
    }

    fn adjust(&mut self, link: &Link, tunnel: &Tunnel) -> Result<()> {
        let change = LinkChange {
            up: (!link.up).then_some(true),
            mtu: (link.mtu != tunnel.mtu).then_some(tunnel.mtu),
            mac: (link.mac != Some(tunnel.mac)).then_some(tunnel.mac),
            ..LinkChange::default()
        };
        if change.up.is_none() && change.mtu.is_none() && change.mac.is_none() {
            return Ok(());
        }
        self.kernel.change_link(link.index, &change)?;
        self.done.changes += 1;
        if let Some(link) = self.have.links.get_mut(tunnel.link) {
            (link.up, link.mtu, link.mac) = (true, tunnel.mtu, Some(tunnel.mac));
        }
        Ok(())
    }

    fn address(&mut self, tunnel: &Tunnel, dev: u32) -> Result<()> {
        let is = |there: &Address| there.dev == dev && there.net == tunnel.address;
        if self.have.addresses.iter().any(is) {
            return Ok(());
        }
        let address = Address::new(dev, tunnel.address);
        self.kernel.replace_address(&address)?;
        self.done.changes += 1;
        self.have.addresses.push(address);
        Ok(())
    }

    /// Says which link is in the way.
    fn explain_exists(&self, mut error: Error, tunnel: &Tunnel) -> Error {
        if error.is_exists() {
            let other = self.have.links.values().find(|link| match &link.kind {
                Kind::Vxlan(other) => (other.id, other.port) == (tunnel.vni, tunnel.port),
                _ => false,
            });
            if let Some(other) = other {
                error.cause = format!(
                    "link {} has VNI {} on port {} already: delete it, or choose another fabric.vni or fabric.port",
                    other.name, tunnel.vni, tunnel.port
                );
            }
        }
        error
    }

    /// Forwarding entries and neighbours, before the routes that need them.
    fn add_ways(&mut self) {
        for ((link, mac), dst) in &self.want.fdb {
            let Some(dev) = self.have.index(link) else {
                continue;
            };
            if self.have.fdb.get(&(*link, *mac)) != Some(dst) {
                let set = self.kernel.replace_fdb(dev, *mac, *dst);
                if self.did(set) {
                    self.have.fdb.insert((*link, *mac), *dst);
                }
            }
        }
        for ((link, ip), mac) in &self.want.neighbours {
            let Some(dev) = self.have.index(link) else {
                continue;
            };
            if self.have.neighbours.get(&(*link, *ip)) != Some(mac) {
                let set = self.kernel.replace_neighbour(dev, *ip, *mac);
                if self.did(set) {
                    self.have.neighbours.insert((*link, *ip), *mac);
                }
            }
        }
    }

    fn add_routes(&mut self) {
        for (dst, to) in &self.want.routes {
            // A link that could not be made has an error of its own.
            let Some(dev) = self.have.index(&to.link) else {
                continue;
            };
            let want = route(*dst, to, dev);
            let there = self.have.routes.get(dst);
            if there.is_none_or(|there| !there.iter().any(|have| same_hop(have, &want))) {
                let set = match self.kernel.replace_route(&want) {
                    Err(error) if want.onlink && error.is_invalid() => {
                        self.replace_by_gateway(&want, dev)
                    }
                    set => set,
                };
                if self.did(set) {
                    self.have.note_route(want);
                }
            }
        }
    }

    /// Replaces a way over one link by one through an on-link gateway of another. The gateway is
    /// inside the range; IPv6 looks it up, finds the old way over the other link, and refuses.
    /// For the moment of the change the gateway has a route of its own, so that at no moment the
    /// range has none.
    fn replace_by_gateway(&mut self, want: &Route, dev: u32) -> Result<()> {
        let Some(gateway) = want.gateway else {
            return Ok(());
        };
        let host = Route::new(IpNet::from(gateway), dev).protocol(ROUTE_PROTOCOL);
        self.kernel.replace_route(&host)?;
        let set = self.kernel.replace_route(want);
        let removed = self.kernel.delete_route(&host);
        set.and(removed)
    }

    fn rules(&mut self) -> Result<bool> {
        let want = self.want.nft.compile();
        let changes = nft::diff(self.have.nft.as_ref(), &want, owns_nft);
        if changes.is_empty() {
            return Ok(false);
        }
        self.kernel.nft_apply(&changes)?;
        self.have.nft = nft::apply(self.have.nft.take(), &changes)
            .map_err(|cause| Error::other(format!("table {}", want.name), "compare", cause))?;
        Ok(true)
    }

    fn remove_routes(&mut self) {
        let old: Vec<Route> = self
            .have
            .routes
            .values()
            .flatten()
            .filter(|route| self.have.is_own(route) && !self.is_wanted(route))
            .cloned()
            .collect();
        for route in old {
            let removed = self.kernel.delete_route(&route);
            if self.removed(removed) {
                self.have.forget_route(&route);
            }
        }
    }

    fn is_wanted(&self, there: &Route) -> bool {
        let Some(to) = self.want.routes.get(&there.dst) else {
            return false;
        };
        // Where the new one could not be made the old one stays: better than none.
        self.have.index(&to.link).is_none_or(|dev| {
            let want = route(there.dst, to, dev);
            let made = self.have.routes.get(&there.dst);
            let made = made.is_some_and(|made| made.iter().any(|have| same_hop(have, &want)));
            same_hop(there, &want) || !made
        })
    }

    fn remove_ways(&mut self) {
        let old: Vec<_> = self
            .have
            .neighbours
            .keys()
            .filter(|key| !self.want.neighbours.contains_key(key))
            .copied()
            .collect();
        for (link, ip) in old {
            let Some(dev) = self.have.index(link) else {
                continue;
            };
            let removed = self.kernel.delete_neighbour(dev, ip);
            if self.removed(removed) {
                self.have.neighbours.remove(&(link, ip));
            }
        }
        let old: Vec<_> = self
            .have
            .fdb
            .iter()
            .filter(|(key, _)| !self.want.fdb.contains_key(key))
            .map(|(key, dst)| (*key, *dst))
            .collect();
        for ((link, mac), dst) in old {
            let Some(dev) = self.have.index(link) else {
                continue;
            };
            let removed = self.kernel.delete_fdb(dev, mac, Some(dst));
            if self.removed(removed) {
                self.have.fdb.remove(&(link, mac));
            }
        }
        self.remove_addresses();
    }

    /// Addresses of this node's own VXLAN ends that are of a former range.
    fn remove_addresses(&mut self) {
        let wanted = |address: &Address| {
            self.want.tunnels.values().all(|tunnel| {
                self.have.index(tunnel.link) != Some(address.dev) || tunnel.address == address.net
            })
        };
        let old: Vec<Address> = self
            .have
            .addresses
            .iter()
            .filter(|address| !wanted(address))
            .cloned()
            .collect();
        for address in old {
            let removed = self.kernel.delete_address(&address);
            if self.removed(removed) {
                self.have.addresses.retain(|there| *there != address);
            }
        }
    }

    fn remove_tunnels(&mut self, keep: &[&'static str]) {
        for name in [VXLAN_V4, VXLAN_V6] {
            let there = self.have.links.contains_key(name);
            if there && !self.want.tunnels.contains_key(name) && !keep.contains(&name) {
                let deleted = self.kernel.delete_link(name);
                if self.note(deleted) {
                    self.have.forget_link(name);
                }
            }
        }
    }
}

fn route(dst: IpNet, to: &RouteTo, dev: u32) -> Route {
    let route = Route::new(dst, dev).protocol(ROUTE_PROTOCOL);
    if to.onlink {
        route.via_onlink(to.gateway)
    } else {
        route.via(to.gateway)
    }
}
