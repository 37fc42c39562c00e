//! Who has an address: what is attached here is known before the cluster hears of it, and it
//! decides where pods' objects contradict it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::{Cluster, Key, Pod};

use super::{Local, Locals};

type Container = (String, String);

/// The pods that are attached here.
#[derive(Clone, Debug, Default)]
pub(super) struct Attached {
    locals: Locals,
    at: BTreeMap<IpAddr, BTreeSet<Container>>,
    of: BTreeMap<Key, BTreeSet<Container>>,
}

impl Attached {
    /// Takes what is attached now; returns what came and what went.
    pub fn take(&mut self, locals: &Locals) -> Vec<Local> {
        let mut changed = Vec::new();
        let (gone, new) = differences(&self.locals, locals);
        for container in gone {
            if let Some(local) = self.locals.remove(&container) {
                for ip in &local.ips {
                    forget(&mut self.at, ip, &container);
                }
                forget(&mut self.of, &local.pod, &container);
                changed.push(local);
            }
        }
        for (container, local) in new {
            for ip in &local.ips {
                let at = self.at.entry(*ip).or_default();
                at.insert(container.clone());
            }
            let of = self.of.entry(local.pod.clone()).or_default();
            of.insert(container.clone());
            self.locals.insert(container.clone(), local.clone());
            changed.push(local.clone());
        }
        changed
    }

    /// The pod that has an address here. If two were said to, one of them, whoever came first.
    pub fn at(&self, ip: IpAddr) -> Option<&Local> {
        self.locals.get(self.at.get(&ip)?.last()?)
    }

    /// Addresses that a pod has here.
    pub fn ips_of(&self, pod: &Key) -> impl Iterator<Item = IpAddr> {
        let containers = self.of.get(pod).into_iter().flatten();
        let locals = containers.filter_map(|container| self.locals.get(container));
        locals.flat_map(|local| local.ips.iter().copied())
    }

    /// The pods of a namespace that are here.
    pub fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = &Local> {
        let from = (namespace.to_owned(), String::new());
        let pods = self.of.range(from..);
        pods.take_while(move |(pod, _)| pod.0 == namespace)
            .flat_map(|(_, containers)| containers)
            .filter_map(|container| self.locals.get(container))
    }

    /// All pods that are here.
    pub fn all(&self) -> impl Iterator<Item = &Local> {
        self.locals.values()
    }
}

/// What is different: what went, and what came. Both are walked once, in order.
fn differences<'a>(
    was: &Locals,
    is: &'a Locals,
) -> (Vec<Container>, Vec<(&'a Container, &'a Local)>) {
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    let mut others = was.iter().peekable();
    for (container, local) in is {
        while let Some((other, _)) = others.next_if(|(other, _)| *other < container) {
            gone.push(other.clone());
        }
        match others.next_if(|(other, _)| *other == container) {
            Some((_, same)) if same == local => continue,
            Some(_) => gone.push(container.clone()),
            None => {}
        }
        new.push((container, local));
    }
    gone.extend(others.map(|(other, _)| other.clone()));
    (gone, new)
}

fn forget<K: Ord>(map: &mut BTreeMap<K, BTreeSet<Container>>, key: &K, container: &Container) {
    if let Some(containers) = map.get_mut(key) {
        containers.remove(container);
        if containers.is_empty() {
            map.remove(key);
        }
    }
}

/// The cluster as this node sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct World<'a> {
    pub cluster: &'a Cluster,
    pub attached: &'a Attached,
    /// This node's name.
    pub node: &'a str,
}

impl<'a> World<'a> {
    /// The object of a pod that is attached here; none where it is not known yet, also where the
    /// one known is of another pod that had the name before.
    pub fn known(&self, local: &Local) -> Option<&'a Arc<Pod>> {
        let pod = self.cluster.pods.get(&local.pod)?;
        let same = if local.uid.is_empty() {
            pod.node.is_empty() || pod.node == self.node
        } else {
            pod.uid == local.uid
        };
        Some(pod).filter(|pod| same && !pod.host_network)
    }

    /// The pod that has an address for itself, as far as it is known.
    pub fn owner(&self, ip: IpAddr) -> Option<&'a Arc<Pod>> {
        match self.attached.at(ip) {
            Some(local) => self.known(local),
            None => self.cluster.pod_at(ip),
        }
    }

    /// The addresses that a pod has for itself.
    pub fn ips(&self, pod: &Pod) -> BTreeSet<IpAddr> {
        let key = (pod.namespace.clone(), pod.name.clone());
        let said = pod.ips.iter().copied().filter(|_| !pod.host_network);
        let here = self.attached.ips_of(&key);
        let has = |ip: &IpAddr| {
            self.owner(*ip)
                .is_some_and(|owner| owner.name == key.1 && owner.namespace == key.0)
        };
        said.chain(here).filter(has).collect()
    }

    /// Pods of a namespace.
    pub fn pods_of(&self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        let from = (namespace.to_owned(), String::new());
        let pods = self.cluster.pods.range(from..).map(|(_, pod)| pod);
        pods.take_while(move |pod| pod.namespace == namespace)
    }
}
