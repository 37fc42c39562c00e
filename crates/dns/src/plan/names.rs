//! All names of the cluster.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use imbl::{HashMap, OrdMap};
use model::{Changed, Cluster, Key, Namespace, Service};
use smallvec::SmallVec;

use super::label::is_label;
use super::service::ServiceNames;

/// All names of the cluster: Services, their endpoints, namespaces, and whose an address is.
/// Clones cost nothing: the maps are persistent. Options of the plugins are none of its business.
#[derive(Clone, Default)]
pub struct Names {
    services: HashMap<Slot, ()>,
    spaces: HashMap<Box<[u8]>, Space>,
    owners: OrdMap<(Whose, IpAddr), Owners>,
    serial: u32,
    external_serial: u32,
}

/// In which way an address is a Service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// It is a cluster address.
    Cluster,
    /// One of its endpoints has it.
    Endpoint,
    /// It leads in from outside.
    External,
}

/// The keys of the Services that have an address, sorted.
type Owners = SmallVec<[Arc<[u8]>; 1]>;

/// A Service in the set of all, found by its key. The entry is behind a pointer so that what is
/// empty in the set's nodes costs little.
#[derive(Clone)]
struct Slot(Arc<ServiceNames>);

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Space {
    object: Option<Arc<Namespace>>,
    /// How many Services are in it: where one is seen before its namespace, there is a namespace.
    services: usize,
}

impl Borrow<[u8]> for Slot {
    fn borrow(&self) -> &[u8] {
        &self.0.key
    }
}

impl Hash for Slot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Slot {}

impl Names {
    /// Of a whole cluster at once.
    pub fn of(cluster: &Cluster, at: SystemTime) -> Self {
        let mut names = Self::default();
        let changed = Changed {
            services: cluster
                .services
                .keys()
                .cloned()
                .chain(
                    cluster
                        .slices
                        .values()
                        .map(|slice| (slice.namespace.clone(), slice.service.clone())),
                )
                .collect(),
            namespaces: cluster.namespaces.keys().cloned().collect(),
            ..Changed::default()
        };
        names.update(cluster, &changed, at);
        names
    }

    /// Takes in what changed; the cluster is the one after the changes.
    pub fn update(&mut self, cluster: &Cluster, changed: &Changed, at: SystemTime) {
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32;
        for name in changed.namespaces.iter().filter(|name| is_label(name)) {
            let object = cluster.namespaces.get(name).cloned();
            self.space(name, |space| space.object = object);
        }
        for key in &changed.services {
            let Some(wire) = wire_key(key) else {
                continue;
            };
            let (inside, outside) = self.service(cluster, key, &wire);
            if inside {
                self.serial = self.serial.max(seconds);
            }
            if outside {
                self.external_serial = self.external_serial.max(seconds);
            }
        }
    }

    /// A Service by the labels of its name and namespace in wire format, in lower case.
    pub(crate) fn service_at(&self, key: &[u8]) -> Option<&Arc<ServiceNames>> {
        let (slot, ()) = self.services.get_key_value(key)?;
        Some(&slot.0)
    }

    /// All Services, and endpoints without one, in no order.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<ServiceNames>> {
        self.services.keys().map(|slot| &slot.0)
    }

    /// What is known of a Service's names.
    pub fn service_named(&self, namespace: &str, name: &str) -> Option<&Arc<ServiceNames>> {
        self.service_at(&wire_key(&(namespace.to_owned(), name.to_owned()))?)
    }

    /// Whether there is a namespace, its label in lower case.
    pub(crate) fn has_namespace(&self, label: &[u8]) -> bool {
        self.spaces.contains_key(label)
    }

    /// A namespace by its label in lower case.
    pub(crate) fn namespace(&self, label: &[u8]) -> Option<&Arc<Namespace>> {
        self.spaces.get(label)?.object.as_ref()
    }

    /// The Services that have an address in this way, sorted by their names.
    pub(crate) fn owners(
        &self,
        whose: Whose,
        ip: IpAddr,
    ) -> impl Iterator<Item = &Arc<ServiceNames>> {
        let keys = self.owners.get(&(whose, ip)).map_or(&[][..], |keys| keys);
        keys.iter().filter_map(|key| self.service_at(key))
    }

    /// The addresses that Services have in some way.
    pub(crate) fn owned(&self) -> impl Iterator<Item = (Whose, IpAddr)> {
        self.owners.keys().copied()
    }

    /// When names inside the cluster changed last, in seconds since 1970.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// When names for outside changed last, in seconds since 1970.
    pub fn external_serial(&self) -> u32 {
        self.external_serial
    }

    /// Changes a namespace; it is forgotten where nothing is left of it.
    fn space(&mut self, name: &str, change: impl FnOnce(&mut Space)) {
        let old = self.spaces.get(name.as_bytes());
        let mut space = old.cloned().unwrap_or_default();
        change(&mut space);
        if space.object.is_none() && space.services == 0 {
            self.spaces.remove(name.as_bytes());
        } else if old != Some(&space) {
            self.spaces.insert(name.as_bytes().into(), space);
        }
    }

    /// Takes in one Service with its endpoints; whether names inside and outside are different.
    fn service(&mut self, cluster: &Cluster, key: &Key, wire: &[u8]) -> (bool, bool) {
        let old = self.service_at(wire).cloned();
        let service = cluster.services.get(key).cloned();
        let slices = cluster.slices_of(key);
        let new = (service.is_some() || !slices.is_empty()).then(|| {
            let wire = old
                .as_ref()
                .map_or_else(|| wire.into(), |old| Arc::clone(&old.key));
            Arc::new(ServiceNames::new(wire, service, slices))
        });
        if old == new {
            return (false, false);
        }
        let there = |entry: &Option<Arc<ServiceNames>>| {
            usize::from(entry.as_ref().is_some_and(|entry| entry.service.is_some()))
        };
        let (before, after) = (there(&old), there(&new));
        self.space(&key.0, |space| {
            space.services = space.services + after - before
        });
        let outside = self.move_addresses(old.as_deref(), new.as_deref());
        match new {
            Some(new) => self.services.insert(Slot(new), ()),
            None => self.services.remove(wire),
        };
        (true, outside)
    }

    /// Whose addresses are: only what is different is touched. True where a Service's names
    /// for outside are.
    fn move_addresses(&mut self, old: Option<&ServiceNames>, new: Option<&ServiceNames>) -> bool {
        let (before, after) = (addresses(old), addresses(new));
        let Some(key) = old.or(new).map(|entry| Arc::clone(&entry.key)) else {
            return false;
        };
        for gone in before
            .iter()
            .filter(|one| after.binary_search(one).is_err())
        {
            if let Some(keys) = self.owners.get_mut(gone) {
                keys.retain(|other| *other != key);
                if keys.is_empty() {
                    self.owners.remove(gone);
                }
            }
        }
        for new in after
            .iter()
            .filter(|one| before.binary_search(one).is_err())
        {
            let keys = self.owners.entry(*new).or_default();
            if let Err(at) = keys.binary_search(&key) {
                keys.insert(at, Arc::clone(&key));
            }
        }
        fn outside(entry: Option<&ServiceNames>) -> Option<impl PartialEq + '_> {
            let service = entry?.service.as_deref()?;
            let is = has_outside(service);
            is.then_some((
                &service.external_ips,
                &service.load_balancer,
                &service.ports,
            ))
        }
        outside(old) != outside(new)
    }
}

/// Whether a Service has a name for outside.
fn has_outside(service: &Service) -> bool {
    !service.external_ips.is_empty() || !service.load_balancer.is_empty()
}

/// The addresses of a Service, each once.
fn addresses(entry: Option<&ServiceNames>) -> Vec<(Whose, IpAddr)> {
    let Some(entry) = entry else {
        return Vec::new();
    };
    let endpoints = entry.addresses().map(|one| (Whose::Endpoint, one.ip));
    let mut all: Vec<_> = endpoints.collect();
    if let Some(service) = &entry.service {
        all.extend(service.cluster_ips.iter().map(|ip| (Whose::Cluster, *ip)));
        all.extend(service.external_ips.iter().map(|ip| (Whose::External, *ip)));
        let balancers = service.load_balancer.iter();
        all.extend(balancers.map(|one| (Whose::External, one.ip)));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// The key of a Service: none where it has no name in DNS.
fn wire_key((namespace, name): &Key) -> Option<SmallVec<[u8; 128]>> {
    if !is_label(namespace) || !is_label(name) {
        return None;
    }
    let mut wire = SmallVec::new();
    for label in [name, namespace] {
        wire.push(label.len() as u8);
        wire.extend_from_slice(label.as_bytes());
    }
    Some(wire)
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("services", &self.services.len())
            .field("namespaces", &self.spaces.len())
            .field("addresses", &self.owners.len())
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Names {
    /// All there is, in one order.
    pub(super) fn dump(&self) -> String {
        let services: std::collections::BTreeMap<_, _> = self
            .services
            .keys()
            .map(|slot| (&slot.0.key, &slot.0))
            .collect();
        let spaces: std::collections::BTreeMap<_, _> = self.spaces.iter().collect();
        format!("{services:?}\n{spaces:?}\n{:?}", self.owners)
    }
}
