//! Who has an address and port, or a port of the node, that several Services ask for.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use model::{Key, Protocol};

use super::{Frontend, FrontendKind, PortId, PortPlan};

/// What only one port of one Service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    ip: Option<IpAddr>,
    v6: bool,
    protocol: Protocol,
    port: u16,
}

impl Place {
    pub(super) fn of_address(ip: IpAddr, protocol: Protocol, port: u16) -> Self {
        Self {
            ip: Some(ip),
            v6: ip.is_ipv6(),
            protocol,
            port,
        }
    }

    pub(super) fn of_node(v6: bool, protocol: Protocol, port: u16) -> Self {
        Self {
            ip: None,
            v6,
            protocol,
            port,
        }
    }

    pub(super) fn of(port: &PortPlan, frontend: &Frontend) -> Self {
        match frontend.ip {
            Some(ip) => Self::of_address(ip, port.name.protocol, frontend.port),
            None => Self::of_node(port.v6, port.name.protocol, frontend.port),
        }
    }
}

/// A port of a Service, with its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// `metadata.creationTimestamp` of the Service.
    pub(super) created: i64,
    /// Place in `spec.ports`.
    pub(super) index: usize,
    pub(super) id: PortId,
}

impl Owner {
    pub(super) fn service(&self) -> Key {
        (self.id.0.namespace.clone(), self.id.0.name.clone())
    }

    /// The older Service first, then by name, then as the ports are written.
    fn age(&self) -> (i64, &str, &str, usize, &PortId) {
        let name = &self.id.0;
        (
            self.created,
            &name.namespace,
            &name.name,
            self.index,
            &self.id,
        )
    }
}

impl PartialOrd for Owner {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Owner {
    fn cmp(&self, other: &Self) -> Ordering {
        self.age().cmp(&other.age())
    }
}

/// One that asks for a place. A ClusterIP comes before all other kinds: the cluster gave it,
/// while anybody can write another address into a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimant {
    external: bool,
    pub(super) owner: Arc<Owner>,
}

/// Who asks for a place, the best claim first. Nearly always it is one.
#[derive(Clone, Debug)]
struct Claimants {
    best: Claimant,
    others: Vec<Claimant>,
}

impl Claimants {
    fn all(&self) -> impl Iterator<Item = &Claimant> {
        std::iter::once(&self.best).chain(&self.others)
    }

    fn add(&mut self, mut claimant: Claimant) {
        if claimant < self.best {
            std::mem::swap(&mut claimant, &mut self.best);
        }
        let at = self.others.partition_point(|other| *other < claimant);
        self.others.insert(at, claimant);
    }

    /// Without the claims of this port; nothing where it was alone.
    fn without(mut self, owner: &Owner) -> Option<Self> {
        self.others.retain(|other| *other.owner != *owner);
        if *self.best.owner == *owner {
            if self.others.is_empty() {
                return None;
            }
            self.best = self.others.remove(0);
        }
        Some(self)
    }
}

/// All that is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    places: HashMap<Place, Claimants>,
    /// Places at addresses, asked for as anything but a ClusterIP.
    external: BTreeSet<Place>,
    /// Whose ClusterIP an address is: nobody else gets any port of it.
    cluster_ips: HashMap<IpAddr, Vec<Arc<Owner>>>,
    /// Health check ports: age and Service.
    checks: BTreeMap<u16, BTreeSet<(i64, Key)>>,
}

impl Claims {
    /// Who has a place.
    pub(super) fn winner(&self, place: &Place) -> Option<&Claimant> {
        let best = &self.places.get(place)?.best;
        let taken = best.external && place.ip.is_some_and(|ip| self.is_cluster_ip(ip));
        (!taken).then_some(best)
    }

    /// Who keeps a place from somebody who asks for it and does not have it.
    pub(super) fn rival(&self, place: &Place) -> Option<&Owner> {
        let of_address = || self.cluster_ips.get(&place.ip?)?.first();
        self.winner(place)
            .map(|claimant| &claimant.owner)
            .or_else(of_address)
            .map(Arc::as_ref)
    }

    pub(super) fn is_cluster_ip(&self, ip: IpAddr) -> bool {
        self.cluster_ips.contains_key(&ip)
    }

    /// A port asks for its frontends; `touched` gets the Services whose own may differ now.
    pub(super) fn take(
        &mut self,
        owner: &Arc<Owner>,
        port: &PortPlan,
        touched: &mut BTreeSet<Key>,
    ) {
        for frontend in &port.frontends {
            let place = Place::of(port, frontend);
            let claimant = Claimant {
                external: frontend.kind != FrontendKind::ClusterIp,
                owner: Arc::clone(owner),
            };
            if claimant.external && place.ip.is_some() {
                self.external.insert(place);
            }
            match self.places.entry(place) {
                Entry::Vacant(free) => {
                    let others = Vec::new();
                    free.insert(Claimants {
                        best: claimant,
                        others,
                    });
                }
                Entry::Occupied(mut taken) => {
                    touched.extend(taken.get().all().map(|other| other.owner.service()));
                    taken.get_mut().add(claimant);
                }
            }
            if frontend.kind == FrontendKind::NodePort {
                self.touch_checks(&place, touched);
            }
        }
        let ip = port.cluster_ip;
        let all = self.cluster_ips.entry(ip).or_default();
        let at = all.partition_point(|other| other < owner);
        all.insert(at, Arc::clone(owner));
        if at == 0 {
            self.touch_address(ip, touched);
        }
    }

    /// A port gives its frontends up.
    pub(super) fn release(&mut self, owner: &Owner, port: &PortPlan, touched: &mut BTreeSet<Key>) {
        for frontend in &port.frontends {
            let place = Place::of(port, frontend);
            let all = self.places.remove(&place);
            let rest = all.and_then(|all| all.without(owner));
            let others = || rest.iter().flat_map(Claimants::all);
            touched.extend(others().map(|other| other.owner.service()));
            if !others().any(|other| other.external) {
                self.external.remove(&place);
            }
            if let Some(rest) = rest {
                self.places.insert(place, rest);
            }
            if frontend.kind == FrontendKind::NodePort {
                self.touch_checks(&place, touched);
            }
        }
        let ip = port.cluster_ip;
        if let Some(all) = self.cluster_ips.get_mut(&ip) {
            let first = all.first().is_some_and(|first| **first == *owner);
            all.retain(|other| **other != *owner);
            if all.is_empty() {
                self.cluster_ips.remove(&ip);
            }
            if first {
                self.touch_address(ip, touched);
            }
        }
    }

    /// A Service asks for a health check port.
    pub(super) fn take_check(
        &mut self,
        port: u16,
        created: i64,
        service: &Key,
        touched: &mut BTreeSet<Key>,
    ) {
        let all = self.checks.entry(port).or_default();
        touched.extend(all.iter().map(|(_, other)| other.clone()));
        all.insert((created, service.clone()));
    }

    /// A Service gives a health check port up.
    pub(super) fn release_check(
        &mut self,
        port: u16,
        created: i64,
        service: &Key,
        touched: &mut BTreeSet<Key>,
    ) {
        if let Some(all) = self.checks.get_mut(&port) {
            all.remove(&(created, service.clone()));
            touched.extend(all.iter().map(|(_, other)| other.clone()));
            if all.is_empty() {
                self.checks.remove(&port);
            }
        }
    }

    /// Who has a health check port.
    pub(super) fn check_winner(&self, port: u16) -> Option<&Key> {
        let (_, service) = self.checks.get(&port)?.first()?;
        Some(service)
    }

    /// Whoever asks for a port of an address may get it or lose it with the ClusterIP.
    fn touch_address(&self, ip: IpAddr, touched: &mut BTreeSet<Key>) {
        let first = Place::of_address(ip, Protocol::Tcp, 0);
        let all = self.external.range(first..);
        let here = all.take_while(|place| place.ip == Some(ip));
        let claimants = here.filter_map(|place| self.places.get(place));
        touched.extend(
            claimants
                .flat_map(Claimants::all)
                .filter(|claimant| claimant.external)
                .map(|claimant| claimant.owner.service()),
        );
    }

    /// A node port hides a health check on the same TCP port.
    fn touch_checks(&self, place: &Place, touched: &mut BTreeSet<Key>) {
        if place.protocol == Protocol::Tcp {
            let checks = self.checks.get(&place.port).into_iter().flatten();
            touched.extend(checks.map(|(_, service)| service.clone()));
        }
    }
}
