//! Which addresses of Services of type LoadBalancer this node may announce on its links. Pure.
//!
//! Addresses that any node can serve are announced together, by one node for each entry of a
//! pool. An address whose packets must stay on the node that gets them
//! (`externalTrafficPolicy: Local`) is announced for itself, by a node that has an endpoint.
//! Which of the nodes that may does is not decided here, but by a Lease for each [`Slot`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{AddressRange, Cluster, Endpoint, Judged, Key, Node, ServiceType, TrafficPolicy};

/// Label that takes a node out of balancing.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Addresses that are announced by the same node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// Those of one entry of a pool.
    Pool(String, AddressRange),
    /// One that is announced for itself.
    Address(IpAddr),
}

impl Slot {
    /// The name of the Lease that says who announces it.
    pub fn lease(&self) -> String {
        match self {
            // Pools have names of up to 253 characters, and so have Leases.
            Self::Pool(pool, range) => {
                let mut pool: String = pool.chars().take(180).collect();
                pool.truncate(pool.trim_end_matches(['.', '-']).len());
                format!("flatnet-announce-{}-{pool}", digits(range.first))
            }
            Self::Address(ip) => format!("flatnet-announce-{}", digits(*ip)),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(pool, range) => write!(f, "{range} of LoadBalancerPool {pool}"),
            Self::Address(ip) => write!(f, "{ip}"),
        }
    }
}

fn digits(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string().replace('.', "-"),
        IpAddr::V6(ip) => format!("{:032x}", u128::from(ip)),
    }
}

/// An address that came to be announced with another slot, or with none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The address.
    pub ip: IpAddr,
    /// The slot it was in, as far as this node may announce it.
    pub was: Option<Slot>,
    /// The slot it is in now.
    pub is: Option<Slot>,
}

/// What this node may announce.
#[derive(Clone, Debug, Default)]
pub struct Announcements {
    node: String,
    own: Option<Node>,
    pools: Vec<Judged>,
    /// Networks that this node is on.
    lan: Vec<IpNet>,
    /// What every Service has to do with which address.
    parts: BTreeMap<Key, Vec<Part>>,
    services: BTreeMap<IpAddr, BTreeSet<Key>>,
    slots: BTreeMap<IpAddr, Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    ip: IpAddr,
    local: bool,
    /// An endpoint that counts is on this node.
    here: bool,
}

impl Announcements {
    /// Of the node called `node`.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            ..Self::default()
        }
    }

    /// All that this node may announce, by address.
    pub fn slots(&self) -> &BTreeMap<IpAddr, Slot> {
        &self.slots
    }

    /// A Service that has the address.
    pub fn service(&self, ip: IpAddr) -> Option<&Key> {
        self.services.get(&ip)?.first()
    }

    /// Takes in other pools, networks or a change of this node itself: everything is looked at.
    pub fn replan(&mut self, cluster: &Cluster, pools: Vec<Judged>, lan: Vec<IpNet>) -> Vec<Moved> {
        self.own = cluster.nodes.get(&self.node).cloned();
        self.pools = pools;
        self.lan = lan;
        let mut all: BTreeSet<Key> = self.parts.keys().cloned().collect();
        all.extend(cluster.services.keys().cloned());
        let mut touched: BTreeSet<IpAddr> = self.slots.keys().copied().collect();
        for key in &all {
            self.replace(cluster, key, &mut touched);
        }
        self.move_all(touched)
    }

    /// Takes in changes of these Services and their endpoints.
    pub fn update(&mut self, cluster: &Cluster, services: &BTreeSet<Key>) -> Vec<Moved> {
        let mut touched = BTreeSet::new();
        for key in services {
            self.replace(cluster, key, &mut touched);
        }
        self.move_all(touched)
    }

    fn replace(&mut self, cluster: &Cluster, key: &Key, touched: &mut BTreeSet<IpAddr>) {
        for part in self.parts.remove(key).unwrap_or_default() {
            touched.insert(part.ip);
            if let Some(keys) = self.services.get_mut(&part.ip) {
                keys.remove(key);
                if keys.is_empty() {
                    self.services.remove(&part.ip);
                }
            }
        }
        let parts = parts(cluster, key, &self.node);
        for part in &parts {
            touched.insert(part.ip);
            self.services
                .entry(part.ip)
                .or_default()
                .insert(key.clone());
        }
        if !parts.is_empty() {
            self.parts.insert(key.clone(), parts);
        }
    }

    fn move_all(&mut self, touched: BTreeSet<IpAddr>) -> Vec<Moved> {
        let mut moved = Vec::new();
        for ip in touched {
            let is = self.slot(ip);
            let was = match &is {
                Some(slot) => self.slots.insert(ip, slot.clone()),
                None => self.slots.remove(&ip),
            };
            if was != is {
                moved.push(Moved { ip, was, is });
            }
        }
        moved
    }

    /// The slot of an address, where this node may announce it.
    fn slot(&self, ip: IpAddr) -> Option<Slot> {
        let own = self.own.as_ref()?;
        let pool = self.pools.iter().find(|pool| pool.has(ip))?;
        let selected = pool
            .pool
            .node_selector
            .as_ref()
            .is_none_or(|selector| selector.matches(&own.labels));
        let balances = !own.leaving && !own.labels.contains_key(EXCLUDED);
        // Nobody asks for an address on another network than its own.
        let near = self.lan.iter().any(|net| net.contains(&ip));
        if !(selected && balances && near) {
            return None;
        }
        let parts = self.services.get(&ip)?.iter().filter_map(|key| {
            let mut parts = self.parts.get(key)?.iter();
            parts.find(|part| part.ip == ip)
        });
        let (local, here) = parts.fold((false, false), |(local, here), part| {
            (local | part.local, here | part.here)
        });
        if local {
            return here.then_some(Slot::Address(ip));
        }
        Some(Slot::Pool(pool.pool.name.clone(), *pool.entry(ip)?))
    }
}

fn parts(cluster: &Cluster, key: &Key, node: &str) -> Vec<Part> {
    let Some(service) = cluster.services.get(key) else {
        return Vec::new();
    };
    if service.kind != ServiceType::LoadBalancer || service.load_balancer.is_empty() {
        return Vec::new();
    }
    let local = service.external_policy == TrafficPolicy::Local;
    let here = [false, true].map(|v6| local && has_endpoint(cluster, key, node, v6));
    let addresses = service.load_balancer.iter();
    addresses
        .map(|address| Part {
            ip: address.ip,
            local,
            here: here[usize::from(address.ip.is_ipv6())],
        })
        .collect()
}

/// Whether the node has an endpoint that packets from outside go to: a ready one, or one that
/// ends but still answers where no node has a ready one.
fn has_endpoint(cluster: &Cluster, key: &Key, node: &str, v6: bool) -> bool {
    let slices = || cluster.slices_of(key).iter().filter(|slice| slice.v6 == v6);
    let here = |endpoint: &Endpoint| endpoint.node.as_deref() == Some(node);
    let any_ready = slices().any(|slice| slice.endpoints.iter().any(|one| one.ready));
    slices().any(|slice| {
        slice
            .endpoints
            .iter()
            .any(|one| here(one) && (one.ready || (!any_ready && one.serving && one.terminating)))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Change, EndpointSlice, LabelSelector, LoadBalancerAddress, Pool, Service};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn key(name: &str) -> Key {
        ("default".into(), name.into())
    }

    fn service(name: &str, address: &str, policy: TrafficPolicy) -> Change {
        Change::Service(Arc::new(Service {
            namespace: "default".into(),
            name: name.into(),
            kind: ServiceType::LoadBalancer,
            cluster_ips: vec![ip("10.96.0.1")],
            load_balancer: vec![LoadBalancerAddress {
                ip: ip(address),
                proxied: false,
            }],
            external_policy: policy,
            ..Service::default()
        }))
    }

    fn slice(service: &str, nodes: &[(&str, bool, bool)]) -> Change {
        let endpoints = nodes.iter().map(|(node, ready, ending)| Endpoint {
            ip: ip("10.244.1.2"),
            more: Box::default(),
            ready: *ready,
            serving: true,
            terminating: *ending,
            node: Some((*node).into()),
            zone: None,
            hostname: None,
            pod: None,
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        });
        Change::Slice(Arc::new(EndpointSlice {
            namespace: "default".into(),
            name: format!("{service}-1"),
            service: service.into(),
            v6: false,
            ports: Vec::new(),
            endpoints: endpoints.collect(),
            triggered: None,
        }))
    }

    fn node(labels: &[(&str, &str)], leaving: bool) -> Change {
        let labels = labels.iter();
        Change::Node(Node {
            name: "node1".into(),
            addresses: vec![ip("10.0.1.10")],
            pod_cidrs: Vec::new(),
            vtep_mac: None,
            vtep_mac_v6: None,
            labels: labels
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            leaving,
        })
    }

    fn pools(selector: Option<LabelSelector>) -> Vec<Judged> {
        let pool = Pool {
            name: "lan".into(),
            created: 1,
            addresses: vec!["10.0.1.200-10.0.1.250".parse().unwrap()],
            avoid_buggy: false,
            service_selector: None,
            namespace_selector: None,
            node_selector: selector,
            auto_assign: true,
        };
        model::pool::judge([Arc::new(pool)], None, [])
    }

    struct World {
        cluster: Cluster,
        announcements: Announcements,
    }

    impl World {
        fn new() -> Self {
            let mut world = Self {
                cluster: Cluster::default(),
                announcements: Announcements::new("node1"),
            };
            world.cluster.take(node(&[], false));
            world.replan(pools(None), "10.0.1.0/24");
            world
        }

        fn replan(&mut self, pools: Vec<Judged>, lan: &str) -> Vec<String> {
            let lan = vec![lan.parse().unwrap()];
            shown(self.announcements.replan(&self.cluster, pools, lan))
        }

        fn take(&mut self, change: Change, service: &str) -> Vec<String> {
            self.cluster.take(change);
            let services = BTreeSet::from([key(service)]);
            shown(self.announcements.update(&self.cluster, &services))
        }
    }

    fn shown(moved: Vec<Moved>) -> Vec<String> {
        let slot = |slot: &Option<Slot>| {
            slot.as_ref().map_or("-".to_owned(), |slot| match slot {
                Slot::Pool(pool, _) => pool.clone(),
                Slot::Address(_) => "itself".to_owned(),
            })
        };
        moved
            .iter()
            .map(|moved| format!("{} {}>{}", moved.ip, slot(&moved.was), slot(&moved.is)))
            .collect()
    }

    #[test]
    fn cluster_addresses_go_with_their_pool_local_ones_where_an_endpoint_is() {
        let mut world = World::new();
        let cluster = service("a", "10.0.1.200", TrafficPolicy::Cluster);
        assert_eq!(world.take(cluster, "a"), ["10.0.1.200 ->lan"]);
        let local = service("b", "10.0.1.201", TrafficPolicy::Local);
        assert!(world.take(local, "b").is_empty());
        let ready = slice("b", &[("node1", true, false), ("node2", true, false)]);
        assert_eq!(world.take(ready, "b"), ["10.0.1.201 ->itself"]);
        let elsewhere = slice("b", &[("node1", false, true), ("node2", true, false)]);
        assert_eq!(world.take(elsewhere, "b"), ["10.0.1.201 itself>-"]);
        // The last ones that still answer while they end.
        let ending = slice("b", &[("node1", false, true)]);
        assert_eq!(world.take(ending, "b"), ["10.0.1.201 ->itself"]);
        let cluster = service("b", "10.0.1.201", TrafficPolicy::Cluster);
        assert_eq!(world.take(cluster, "b"), ["10.0.1.201 itself>lan"]);
        let gone = Change::ServiceGone("default".into(), "a".into());
        assert_eq!(world.take(gone, "a"), ["10.0.1.200 lan>-"]);
    }

    #[test]
    fn a_node_that_is_left_out_announces_nothing() {
        let mut world = World::new();
        let cluster = service("a", "10.0.1.200", TrafficPolicy::Cluster);
        world.take(cluster, "a");
        let all = || pools(None);
        let edge = LabelSelector {
            match_labels: model::Labels::from([("edge", "yes")]),
            ..LabelSelector::default()
        };
        let (gone, back) = (["10.0.1.200 lan>-"], ["10.0.1.200 ->lan"]);
        assert_eq!(world.replan(pools(Some(edge.clone())), "10.0.1.0/24"), gone);
        world.cluster.take(node(&[("edge", "yes")], false));
        assert_eq!(world.replan(pools(Some(edge)), "10.0.1.0/24"), back);
        world.cluster.take(node(&[(EXCLUDED, "")], false));
        assert_eq!(world.replan(all(), "10.0.1.0/24"), gone);
        world.cluster.take(node(&[], false));
        assert_eq!(world.replan(all(), "10.0.1.0/24"), back);
        assert_eq!(world.replan(all(), "10.0.2.0/24"), gone);
        assert_eq!(world.replan(all(), "10.0.1.0/24"), back);
        world.cluster.take(node(&[], true));
        assert_eq!(world.replan(all(), "10.0.1.0/24"), gone);
        world.cluster.take(node(&[], false));
        assert!(world.replan(Vec::new(), "10.0.1.0/24").is_empty());
    }

    #[test]
    fn leases_have_names_that_kubernetes_takes() {
        let range = |text: &str| text.parse().unwrap();
        let pool = |name: &str, text| Slot::Pool(name.into(), range(text)).lease();
        assert_eq!(
            pool("lan", "10.0.1.200-10.0.1.250"),
            "flatnet-announce-10-0-1-200-lan"
        );
        let long = pool(&"a.".repeat(126), "fd00::/64");
        assert!(long.len() <= 253 && !long.ends_with('.'), "{long}");
        assert_eq!(
            Slot::Address(ip("10.0.1.200")).lease(),
            "flatnet-announce-10-0-1-200"
        );
    }
}
