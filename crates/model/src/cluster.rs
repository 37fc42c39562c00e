//! What is known of the cluster, and the one place where changes become it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::policy::{ClusterPolicy, Namespace, NetworkPolicy};
use crate::service::{EndpointSlice, Key, Protocol, Service};

/// A node, as its neighbours need to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// Internal addresses, at most one a family, primary first.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Hardware address of the node's VXLAN end for IPv4 underlays, as the node published it.
    pub vtep_mac: Option<[u8; 6]>,
    /// The same for IPv6 underlays.
    pub vtep_mac_v6: Option<[u8; 6]>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// It is being deleted, or an autoscaler has marked it so: balancers shall send it nothing new.
    #[serde(default)]
    pub leaving: bool,
}

impl Node {
    /// Its zone (`topology.kubernetes.io/zone`).
    pub fn zone(&self) -> Option<&str> {
        self.labels
            .get("topology.kubernetes.io/zone")
            .map(String::as_str)
    }
}

/// A pod, as the network needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; of a static pod the one its kubelet gave it.
    pub uid: String,
    /// `spec.nodeName`, empty while unscheduled.
    pub node: String,
    /// `status.podIPs`.
    pub ips: Vec<IpAddr>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `metadata.labels`.
    pub labels: Labels,
    /// Ports of its containers that have a name; policies and Services call them so.
    #[serde(default)]
    pub ports: Vec<ContainerPort>,
    /// `metadata.creationTimestamp`, in seconds since 1970.
    #[serde(default)]
    pub created: i64,
    /// It is being deleted: its addresses may already be another's.
    #[serde(default)]
    pub leaving: bool,
}

/// A port of a container that has a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerPort {
    /// `name`.
    pub name: Box<str>,
    /// `protocol`.
    pub protocol: Protocol,
    /// `containerPort`.
    pub port: u16,
}

/// What is known of the cluster. One owner changes it; readers get clones, which cost nothing
/// whatever its size: the maps are persistent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Nodes by name.
    pub nodes: OrdMap<String, Node>,
    /// Pods by namespace and name.
    pub pods: OrdMap<Key, Arc<Pod>>,
    /// Services by namespace and name.
    pub services: OrdMap<Key, Arc<Service>>,
    /// Endpoint slices by namespace and name.
    pub slices: OrdMap<Key, Arc<EndpointSlice>>,
    /// Namespaces by name.
    pub namespaces: OrdMap<String, Arc<Namespace>>,
    /// NetworkPolicies by namespace and name.
    pub policies: OrdMap<Key, Arc<NetworkPolicy>>,
    /// ClusterNetworkPolicies by name.
    pub cluster_policies: OrdMap<String, Arc<ClusterPolicy>>,
    /// The slices of each Service, in the order of their names: few each, so that a list costs
    /// less than a tree.
    slices_of: OrdMap<Key, Arc<Vec<Arc<EndpointSlice>>>>,
    /// The pods that say they have an address: for a moment an old one and its successor.
    claims: OrdMap<IpAddr, Arc<Vec<Key>>>,
}

/// One change, as it comes from a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node is there, new or different.
    Node(Node),
    /// A node is gone.
    NodeGone(String),
    /// A pod is there, new or different.
    Pod(Arc<Pod>),
    /// A pod is gone: namespace and name.
    PodGone(String, String),
    /// A Service is there, new or different.
    Service(Arc<Service>),
    /// A Service is gone: namespace and name.
    ServiceGone(String, String),
    /// A slice of endpoints is there, new or different.
    Slice(Arc<EndpointSlice>),
    /// A slice of endpoints is gone: namespace and name.
    SliceGone(String, String),
    /// A namespace is there, new or different.
    Namespace(Arc<Namespace>),
    /// A namespace is gone.
    NamespaceGone(String),
    /// A NetworkPolicy is there, new or different.
    Policy(Arc<NetworkPolicy>),
    /// A NetworkPolicy is gone: namespace and name.
    PolicyGone(String, String),
    /// A ClusterNetworkPolicy is there, new or different.
    ClusterPolicy(Arc<ClusterPolicy>),
    /// A ClusterNetworkPolicy is gone.
    ClusterPolicyGone(String),
}

/// What changes touched, so that work costs by their size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Names of nodes.
    pub nodes: BTreeSet<String>,
    /// Pods.
    pub pods: BTreeSet<Key>,
    /// Services that changed themselves or whose endpoints did.
    pub services: BTreeSet<Key>,
    /// Namespaces.
    pub namespaces: BTreeSet<String>,
    /// NetworkPolicies.
    pub policies: BTreeSet<Key>,
    /// ClusterNetworkPolicies.
    pub cluster_policies: BTreeSet<String>,
}

impl Changed {
    /// Whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These and those.
    pub fn extend(&mut self, others: &Self) {
        let Self {
            nodes,
            pods,
            services,
            namespaces,
            policies,
            cluster_policies,
        } = others;
        self.nodes.extend(nodes.iter().cloned());
        self.pods.extend(pods.iter().cloned());
        self.services.extend(services.iter().cloned());
        self.namespaces.extend(namespaces.iter().cloned());
        self.policies.extend(policies.iter().cloned());
        self.cluster_policies
            .extend(cluster_policies.iter().cloned());
    }
}

impl Cluster {
    /// Takes one change in; true where it changed anything.
    pub fn take(&mut self, change: Change) -> bool {
        self.note(change, &mut Changed::default())
    }

    /// Takes one change in and notes what it touched; true where it changed anything.
    pub fn note(&mut self, change: Change, changed: &mut Changed) -> bool {
        match change {
            Change::Node(node) => {
                let name = node.name.clone();
                put(&mut self.nodes, &mut changed.nodes, name, node)
            }
            Change::NodeGone(name) => remove(&mut self.nodes, &mut changed.nodes, name).is_some(),
            Change::Pod(pod) => {
                let key = (pod.namespace.clone(), pod.name.clone());
                self.put_pod(key, Some(pod), changed)
            }
            Change::PodGone(namespace, name) => self.put_pod((namespace, name), None, changed),
            Change::Service(service) => {
                let key = service.key();
                put(&mut self.services, &mut changed.services, key, service)
            }
            Change::ServiceGone(namespace, name) => {
                let key = (namespace, name);
                remove(&mut self.services, &mut changed.services, key).is_some()
            }
            Change::Slice(slice) => self.put_slice(slice, changed),
            Change::SliceGone(namespace, name) => self.remove_slice((namespace, name), changed),
            other => self.note_policy(other, changed),
        }
    }

    /// Namespaces and what is written about who may talk to whom.
    fn note_policy(&mut self, change: Change, changed: &mut Changed) -> bool {
        match change {
            Change::Namespace(namespace) => {
                let name = namespace.name.clone();
                put(
                    &mut self.namespaces,
                    &mut changed.namespaces,
                    name,
                    namespace,
                )
            }
            Change::NamespaceGone(name) => {
                remove(&mut self.namespaces, &mut changed.namespaces, name).is_some()
            }
            Change::Policy(policy) => {
                let key = policy.key();
                put(&mut self.policies, &mut changed.policies, key, policy)
            }
            Change::PolicyGone(namespace, name) => {
                let key = (namespace, name);
                remove(&mut self.policies, &mut changed.policies, key).is_some()
            }
            Change::ClusterPolicy(policy) => {
                let (all, noted) = (&mut self.cluster_policies, &mut changed.cluster_policies);
                put(all, noted, policy.name.clone(), policy)
            }
            Change::ClusterPolicyGone(name) => {
                let (all, noted) = (&mut self.cluster_policies, &mut changed.cluster_policies);
                remove(all, noted, name).is_some()
            }
            _ => false,
        }
    }

    /// The slices of a Service, in the order of their names.
    pub fn slices_of(&self, service: &Key) -> &[Arc<EndpointSlice>] {
        self.slices_of
            .get(service)
            .map_or(&[], |all| all.as_slice())
    }

    /// The Service that has an address as one of its ClusterIPs; of several the first by name.
    /// Looks at all of them.
    pub fn service_at(&self, ip: IpAddr) -> Option<&Arc<Service>> {
        let mut all = self.services.values();
        all.find(|service| service.cluster_ips.contains(&ip))
    }

    /// To whom a port of a Service leads: its ready endpoints of a family, by address and port,
    /// each once.
    pub fn ready_endpoints(
        &self,
        service: &Service,
        port: (Protocol, u16),
        v6: bool,
    ) -> BTreeSet<(IpAddr, u16)> {
        let ports = || {
            let all = service.ports.iter();
            all.filter(|one| (one.protocol, one.port) == port)
        };
        let slices = self.slices_of(&service.key()).iter();
        let slices = slices.filter(|slice| slice.v6 == v6);
        slices
            .flat_map(|slice| {
                let numbers = slice.ports.iter().filter(move |one| {
                    ports().any(|own| (&own.name, own.protocol) == (&one.name, one.protocol))
                });
                let ready = || slice.endpoints.iter().filter(|one| one.ready);
                numbers
                    .filter_map(|one| one.port)
                    .flat_map(move |number| ready().map(move |one| (one.ip, number)))
            })
            .collect()
    }

    /// The pod that has an address, and shares it with no node. Where an old pod's object is still
    /// there and a new pod already has its address, the new one: who is leaving has lost it, else
    /// the youngest has it.
    pub fn pod_at(&self, ip: IpAddr) -> Option<&Arc<Pod>> {
        let claims = self.claims.get(&ip)?;
        let pods = claims.iter().filter_map(|key| self.pods.get(key));
        pods.max_by_key(|pod| (!pod.leaving, pod.created, &pod.uid))
    }

    fn put_pod(&mut self, key: Key, pod: Option<Arc<Pod>>, changed: &mut Changed) -> bool {
        let old = self.pods.get(&key).cloned();
        if old == pod {
            return false;
        }
        for ip in old.iter().flat_map(|old| own_ips(old)) {
            if let Some(claims) = self.claims.get_mut(&ip) {
                let claims = Arc::make_mut(claims);
                claims.retain(|other| *other != key);
                if claims.is_empty() {
                    self.claims.remove(&ip);
                }
            }
        }
        for ip in pod.iter().flat_map(|pod| own_ips(pod)) {
            Arc::make_mut(self.claims.entry(ip).or_default()).push(key.clone());
        }
        changed.pods.insert(key.clone());
        match pod {
            Some(pod) => self.pods.insert(key, pod),
            None => self.pods.remove(&key),
        };
        true
    }

    fn put_slice(&mut self, slice: Arc<EndpointSlice>, changed: &mut Changed) -> bool {
        let key = (slice.namespace.clone(), slice.name.clone());
        let old = self.slices.get(&key);
        if old == Some(&slice) {
            return false;
        }
        // A label may be written anew: the slice then leaves one Service for another.
        if old.is_some_and(|old| old.service != slice.service) {
            self.remove_slice(key.clone(), changed);
        }
        let service = (slice.namespace.clone(), slice.service.clone());
        let all = Arc::make_mut(self.slices_of.entry(service.clone()).or_default());
        match all.binary_search_by(|other| other.name.cmp(&slice.name)) {
            Ok(at) => all[at] = Arc::clone(&slice),
            Err(at) => all.insert(at, Arc::clone(&slice)),
        }
        self.slices.insert(key, slice);
        changed.services.insert(service);
        true
    }

    fn remove_slice(&mut self, key: Key, changed: &mut Changed) -> bool {
        let Some(old) = self.slices.remove(&key) else {
            return false;
        };
        let service = (key.0, old.service.clone());
        if let Some(all) = self.slices_of.get_mut(&service) {
            let all = Arc::make_mut(all);
            all.retain(|other| other.name != key.1);
            if all.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        changed.services.insert(service);
        true
    }
}

/// Addresses that a pod has for itself.
fn own_ips(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let own = !pod.host_network;
    pod.ips.iter().copied().filter(move |_| own)
}

fn put<K: Ord + Clone, V: PartialEq + Clone>(
    map: &mut OrdMap<K, V>,
    changed: &mut BTreeSet<K>,
    key: K,
    value: V,
) -> bool {
    if map.get(&key) == Some(&value) {
        return false;
    }
    changed.insert(key.clone());
    map.insert(key, value);
    true
}

fn remove<K: Ord + Clone, V: Clone>(
    map: &mut OrdMap<K, V>,
    changed: &mut BTreeSet<K>,
    key: K,
) -> Option<V> {
    let old = map.remove(&key)?;
    changed.insert(key);
    Some(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, service: &str) -> Change {
        Change::Slice(Arc::new(EndpointSlice {
            namespace: "ns".into(),
            name: name.into(),
            service: service.into(),
            v6: false,
            ports: Vec::new(),
            endpoints: Vec::new(),
            triggered: None,
        }))
    }

    fn pod(name: &str, created: i64, leaving: bool) -> Change {
        Change::Pod(Arc::new(Pod {
            namespace: "ns".into(),
            name: name.into(),
            uid: name.into(),
            node: "node1".into(),
            ips: vec!["10.244.1.5".parse().unwrap()],
            host_network: false,
            labels: Labels::default(),
            ports: Vec::new(),
            created,
            leaving,
        }))
    }

    #[test]
    fn an_address_is_that_of_the_youngest_pod_that_stays() {
        let mut cluster = Cluster::default();
        let ip = "10.244.1.5".parse().unwrap();
        let has = |cluster: &Cluster| cluster.pod_at(ip).map(|pod| pod.name.clone());
        cluster.take(pod("old", 1, false));
        cluster.take(pod("new", 2, false));
        assert_eq!(has(&cluster).as_deref(), Some("new"));
        cluster.take(pod("new", 2, true));
        assert_eq!(has(&cluster).as_deref(), Some("old"));
        cluster.take(Change::PodGone("ns".into(), "old".into()));
        assert_eq!(has(&cluster).as_deref(), Some("new"));
        cluster.take(Change::PodGone("ns".into(), "new".into()));
        assert_eq!(has(&cluster), None);
    }

    #[test]
    fn a_slice_belongs_to_the_service_its_label_names() {
        let mut cluster = Cluster::default();
        let of = |cluster: &Cluster, service: &str| -> Vec<String> {
            let key = ("ns".to_owned(), service.to_owned());
            let slices = cluster.slices_of(&key);
            slices.iter().map(|slice| slice.name.clone()).collect()
        };
        assert!(cluster.take(slice("a-1", "a")));
        assert!(cluster.take(slice("a-2", "a")));
        assert!(!cluster.take(slice("a-2", "a")));
        assert_eq!(of(&cluster, "a"), ["a-1", "a-2"]);
        let mut changed = Changed::default();
        assert!(cluster.note(slice("a-2", "b"), &mut changed));
        assert_eq!(changed.services.len(), 2);
        assert_eq!(
            (of(&cluster, "a"), of(&cluster, "b")),
            (vec!["a-1".into()], vec!["a-2".into()])
        );
        assert!(cluster.take(Change::SliceGone("ns".into(), "a-2".into())));
        assert!(!cluster.take(Change::SliceGone("ns".into(), "a-2".into())));
        assert!(of(&cluster, "b").is_empty());
    }
}
