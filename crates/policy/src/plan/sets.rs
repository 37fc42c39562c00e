//! The sets that rules look things up in, with their elements.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::selector::LabelSelector;
use model::{Cluster, Pod};

use super::attached::World;
use super::set::{Element, Scope, Set, SetId, What};

/// A set that is used.
#[derive(Clone, Debug)]
pub struct Live {
    /// What it holds.
    pub set: Arc<Set>,
    /// By how many lists.
    uses: usize,
    /// Its elements in order.
    pub elements: Vec<Element>,
}

/// What came into a set and what left it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// What came.
    pub new: Vec<Element>,
    /// What left.
    pub gone: Vec<Element>,
}

/// All that are used, and which of them a pod may be in.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    live: BTreeMap<SetId, Live>,
    everywhere: BTreeSet<Arc<Set>>,
    of_namespace: BTreeMap<String, BTreeSet<Arc<Set>>>,
    selected: BTreeMap<LabelSelector, BTreeSet<Arc<Set>>>,
    nodes: BTreeSet<Arc<Set>>,
    /// The sets that an address is in.
    of_ip: BTreeMap<IpAddr, Vec<SetId>>,
    elements: usize,
}

/// The sets that pods of a namespace may be in.
pub(super) type Candidates = Vec<Arc<Set>>;

impl Sets {
    pub fn live(&self) -> &BTreeMap<SetId, Live> {
        &self.live
    }

    /// How many elements they have together.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// A list more uses a set; true where none did before.
    pub fn acquire(&mut self, set: &Arc<Set>, world: &World<'_>) -> bool {
        if let Some(live) = self.live.get_mut(&set.id()) {
            live.uses += 1;
            return false;
        }
        if let Some(index) = self.index(set) {
            index.insert(Arc::clone(set));
        }
        let elements = filled(set, world);
        for ip in elements.iter().filter_map(Element::ip) {
            let sets = self.of_ip.entry(ip).or_default();
            if let Err(at) = sets.binary_search(&set.id()) {
                sets.insert(at, set.id());
            }
        }
        self.elements += elements.len();
        let live = Live {
            set: Arc::clone(set),
            uses: 1,
            elements,
        };
        self.live.insert(set.id(), live);
        true
    }

    /// A list less uses a set; true where none is left.
    pub fn release(&mut self, set: &Arc<Set>) -> bool {
        match self.live.get_mut(&set.id()) {
            Some(live) if live.uses > 1 => live.uses -= 1,
            _ => return self.remove(set),
        }
        false
    }

    fn remove(&mut self, set: &Arc<Set>) -> bool {
        let Some(live) = self.live.remove(&set.id()) else {
            return false;
        };
        self.elements -= live.elements.len();
        if let Some(index) = self.index(set) {
            index.remove(set);
        }
        match set.pods().map(|pods| &pods.scope) {
            Some(Scope::Namespace(name)) => drop_empty(&mut self.of_namespace, name),
            Some(Scope::Selected(selector)) => drop_empty(&mut self.selected, selector),
            Some(Scope::All) | None => {}
        }
        for ip in live.elements.iter().filter_map(Element::ip) {
            self.leave(ip, set.id());
        }
        true
    }

    fn leave(&mut self, ip: IpAddr, set: SetId) {
        if let Some(sets) = self.of_ip.get_mut(&ip) {
            sets.retain(|other| *other != set);
            if sets.is_empty() {
                self.of_ip.remove(&ip);
            }
        }
    }

    /// Where a set is found by what may be in it.
    fn index(&mut self, set: &Set) -> Option<&mut BTreeSet<Arc<Set>>> {
        match (&set.what, set.pods().map(|pods| &pods.scope)) {
            (_, Some(Scope::All)) => Some(&mut self.everywhere),
            (_, Some(Scope::Namespace(name))) => {
                Some(self.of_namespace.entry(name.clone()).or_default())
            }
            (_, Some(Scope::Selected(selector))) => {
                Some(self.selected.entry(selector.clone()).or_default())
            }
            (What::Nodes(_), None) => Some(&mut self.nodes),
            (_, None) => None,
        }
    }

    /// The sets that pods of a namespace may be in.
    pub fn candidates(&self, cluster: &Cluster, namespace: &str) -> Candidates {
        let labels = cluster.namespaces.get(namespace).map(|found| &found.labels);
        let own = self.of_namespace.get(namespace).into_iter().flatten();
        let selected = self
            .selected
            .iter()
            .filter(|(selector, _)| labels.is_some_and(|labels| selector.matches(labels)))
            .flat_map(|(_, sets)| sets);
        self.everywhere
            .iter()
            .chain(own)
            .chain(selected)
            .cloned()
            .collect()
    }

    /// Whether any set asks for labels of namespaces.
    pub fn ask_for_namespaces(&self) -> bool {
        !self.selected.is_empty()
    }

    /// An address may be another's, or its pod may have changed; `candidates` are the sets that
    /// pods of its owner's namespace may be in.
    pub fn refresh(
        &mut self,
        ip: IpAddr,
        owner: Option<&Pod>,
        candidates: &[Arc<Set>],
        moved: &mut BTreeMap<SetId, Moved>,
    ) {
        let mut now: BTreeMap<SetId, Vec<Element>> = BTreeMap::new();
        for set in candidates {
            let elements = owner.map_or_else(Vec::new, |pod| set.of_pod(pod, ip));
            if !elements.is_empty() {
                now.insert(set.id(), elements);
            }
        }
        let before = self.of_ip.get(&ip).cloned().unwrap_or_default();
        for id in before.iter().filter(|id| !now.contains_key(id)) {
            self.replace(*id, ip, &[], moved);
        }
        for (id, elements) in &now {
            self.replace(*id, ip, elements, moved);
        }
        if now.is_empty() {
            self.of_ip.remove(&ip);
        } else {
            self.of_ip.insert(ip, now.into_keys().collect());
        }
    }

    /// From now on these are the elements of a set that are about an address.
    fn replace(
        &mut self,
        id: SetId,
        ip: IpAddr,
        now: &[Element],
        moved: &mut BTreeMap<SetId, Moved>,
    ) {
        let Some(live) = self.live.get_mut(&id) else {
            return;
        };
        let about = |element: &Element| element.ip().map(|own| own.cmp(&ip));
        let from = live
            .elements
            .partition_point(|element| about(element) == Some(std::cmp::Ordering::Less));
        let len = live.elements[from..]
            .iter()
            .take_while(|element| element.ip() == Some(ip))
            .count();
        let was = &live.elements[from..from + len];
        if was == now {
            return;
        }
        let moved = moved.entry(id).or_default();
        let gone = was.iter().filter(|element| !now.contains(element));
        moved.gone.extend(gone.copied());
        let new = now.iter().filter(|element| !was.contains(element));
        moved.new.extend(new.copied());
        self.elements = self.elements - len + now.len();
        live.elements.splice(from..from + len, now.iter().copied());
    }

    /// Nodes changed.
    pub fn refresh_nodes(&mut self, cluster: &Cluster, moved: &mut BTreeMap<SetId, Moved>) {
        for set in &self.nodes {
            let Some(live) = self.live.get_mut(&set.id()) else {
                continue;
            };
            let now = of_nodes(set, cluster);
            let (was, is): (BTreeSet<_>, BTreeSet<_>) =
                (live.elements.iter().collect(), now.iter().collect());
            let gone: Vec<Element> = was.difference(&is).map(|element| **element).collect();
            let new: Vec<Element> = is.difference(&was).map(|element| **element).collect();
            if gone.is_empty() && new.is_empty() {
                continue;
            }
            self.elements = self.elements - live.elements.len() + now.len();
            live.elements = now;
            let moved = moved.entry(set.id()).or_default();
            moved.gone.extend(gone);
            moved.new.extend(new);
        }
    }
}

fn drop_empty<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Arc<Set>>>, key: &K) {
    if index.get(key).is_some_and(BTreeSet::is_empty) {
        index.remove(key);
    }
}

/// The elements of a set in order.
fn filled(set: &Set, world: &World<'_>) -> Vec<Element> {
    let mut elements = match (&set.what, set.pods()) {
        (What::Nodes(_), _) => of_nodes(set, world.cluster),
        (_, Some(pods)) => match &pods.scope {
            Scope::All => of_pods(set, world.cluster.pods.values(), world),
            Scope::Namespace(name) => of_pods(set, world.pods_of(name), world),
            Scope::Selected(selector) => {
                let namespaces = world.cluster.namespaces.values();
                let selected = namespaces.filter(|one| selector.matches(&one.labels));
                let pods = selected.flat_map(|one| world.pods_of(&one.name));
                of_pods(set, pods, world)
            }
        },
        (_, None) => return set.fixed().unwrap_or_default(),
    };
    elements.sort();
    elements.dedup();
    elements
}

fn of_pods<'a>(
    set: &Set,
    pods: impl Iterator<Item = &'a Arc<Pod>>,
    world: &World<'_>,
) -> Vec<Element> {
    let selected = pods.filter(|pod| {
        set.pods()
            .is_some_and(|pods| pods.selector.matches(&pod.labels))
    });
    let elements = selected.flat_map(|pod| {
        let ips = world.ips(pod).into_iter();
        ips.flat_map(|ip| set.of_pod(pod, ip))
    });
    elements.collect()
}

fn of_nodes(set: &Set, cluster: &Cluster) -> Vec<Element> {
    let What::Nodes(selector) = &set.what else {
        return Vec::new();
    };
    let nodes = cluster.nodes.values();
    let nodes = nodes.filter(|node| selector.matches(&node.labels));
    let ips = nodes.flat_map(|node| node.addresses.iter());
    let ips: BTreeSet<Element> = ips
        .filter(|ip| ip.is_ipv6() == set.v6)
        .map(|ip| Element::Ip(*ip))
        .collect();
    ips.into_iter().collect()
}
