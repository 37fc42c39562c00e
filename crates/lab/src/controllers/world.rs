//! Everything the scheduler and the controllers know of the cluster: one store a kind,
//! shared by all, owned by the driver.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, ContainerStatus, Endpoints, Namespace, Node, Pod, Secret, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::store::{Change, Key, Store};

/// Drops what no controller reads: the cache stays small.
trait Slim {
    fn slim(&mut self) {}
}

impl Slim for Node {
    fn slim(&mut self) {
        if let Some(status) = &mut self.status {
            status.images = None;
        }
    }
}

impl Slim for Pod {
    fn slim(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        spec.volumes = None;
        for container in spec.init_containers.iter_mut().flatten() {
            slim_container(container);
        }
        for container in &mut spec.containers {
            slim_container(container);
        }
        if let Some(status) = &mut self.status {
            status.init_container_statuses = None;
            for container in status.container_statuses.iter_mut().flatten() {
                *container = ContainerStatus {
                    name: std::mem::take(&mut container.name),
                    restart_count: container.restart_count,
                    ..ContainerStatus::default()
                };
            }
        }
    }
}

impl Slim for Secret {
    fn slim(&mut self) {
        self.data = None;
    }
}

fn slim_container(container: &mut Container) {
    *container = Container {
        name: std::mem::take(&mut container.name),
        ports: container.ports.take(),
        resources: container.resources.take(),
        restart_policy: container.restart_policy.take(),
        ..Container::default()
    };
}

macro_rules! kinds {
    ($($kind:ident $store:ident $(, $field:literal)?;)*) => {
        /// The kinds known.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $(#[doc = concat!("`", stringify!($kind), "`.")] $kind,)* }

        impl Kind {
            /// Path of the collection.
            pub fn path(self, namespace: &str) -> String {
                let namespace = (!namespace.is_empty()).then_some(namespace);
                match self { $(Self::$kind => <$kind as Resource>::url_path(&(), namespace),)* }
            }

            /// As written in manifests.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)* }
            }
        }

        /// What a watch told, by kind.
        #[derive(Debug)]
        pub enum Arrived {
            $(#[doc = concat!("Of `", stringify!($kind), "`.")] $kind(Event<$kind>),)*
            /// A watch failed and will be tried again.
            Failed(api::Error),
        }

        /// What changed, by kind.
        #[derive(Clone, Debug)]
        pub enum Changed { $(#[doc = concat!("A `", stringify!($kind), "`.")] $kind(Change<$kind>),)* }

        /// The stores.
        #[derive(Debug, Default)]
        pub struct World {
            $(#[doc = concat!("Every `", stringify!($kind), "`.")] pub $store: Store<$kind>,)*
            pods_by_owner: HashMap<String, BTreeSet<Key>>,
            pods_by_node: BTreeMap<String, BTreeSet<Key>>,
        }

        impl World {
            /// True once every first list is complete.
            pub fn synced(&self) -> bool {
                true $(&& self.$store.synced())*
            }

            /// Takes in what a watch told.
            pub fn take(&mut self, arrived: Arrived) -> Vec<Changed> {
                let changed: Vec<Changed> = match arrived {
                    $(Arrived::$kind(event) => self.$store.take(event.modify(slim)).into_iter().map(Changed::$kind).collect(),)*
                    Arrived::Failed(_) => Vec::new(),
                };
                for change in &changed { self.index(change); }
                changed
            }

            /// Takes in the answer to a write.
            pub fn written(&mut self, kind: Kind, object: Value) -> Result<Option<Changed>, serde_json::Error> {
                let changed = match kind {
                    $(Kind::$kind => {
                        let mut object: $kind = serde_json::from_value(object)?;
                        slim(&mut object);
                        self.$store.written(object).map(Changed::$kind)
                    })*
                };
                if let Some(change) = &changed { self.index(change); }
                Ok(changed)
            }

            /// Takes in that an object was deleted for good.
            pub fn ended(&mut self, kind: Kind, key: &Key, uid: &str) -> Option<Changed> {
                let changed = match kind { $(Kind::$kind => self.$store.ended(key, uid).map(Changed::$kind),)* };
                if let Some(change) = &changed { self.index(change); }
                changed
            }
        }

        /// Watches of every kind.
        pub fn watches(client: &Client) -> SelectAll<BoxStream<'static, Arrived>> {
            let mut all = SelectAll::new();
            $(
                let settings = api::watch::settings();
                $(let settings = settings.fields($field);)?
                all.push(watch(client, settings, stringify!($kind), Arrived::$kind));
            )*
            all
        }
    };
}

kinds! {
    Namespace namespaces;
    Node nodes;
    Lease leases, "metadata.namespace=kube-node-lease";
    Pod pods;
    ReplicaSet replica_sets;
    Deployment deployments;
    StatefulSet stateful_sets;
    DaemonSet daemon_sets;
    ControllerRevision revisions;
    Service services;
    Endpoints endpoints;
    EndpointSlice slices;
    ServiceAccount service_accounts;
    ConfigMap config_maps, "metadata.name=kube-root-ca.crt";
    Secret secrets, "type=kubernetes.io/service-account-token";
    PodDisruptionBudget budgets;
}

macro_rules! plain {
    ($($kind:ident)*) => { $(impl Slim for $kind {})* };
}

plain! {
    Namespace Lease ReplicaSet Deployment StatefulSet DaemonSet ControllerRevision Service
    Endpoints EndpointSlice ServiceAccount ConfigMap PodDisruptionBudget
}

fn slim<K: Resource + Slim>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    object.slim();
}

fn watch<K>(
    client: &Client,
    settings: watcher::Config,
    kind: &'static str,
    wrap: fn(Event<K>) -> Arrived,
) -> BoxStream<'static, Arrived>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    api::watch::raw(Api::<K>::all(client.clone()), settings)
        .map(move |event| match event {
            Ok(event) => wrap(event),
            Err(error) => Arrived::Failed(api::watch::watch_error(kind, error)),
        })
        .boxed()
}

impl World {
    /// Pods whose controller is the object of that UID.
    pub fn pods_of<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        let keys = self.pods_by_owner.get(uid).into_iter().flatten();
        keys.filter_map(|key| self.pods.at(key))
    }

    /// Pods of the namespace that have no controller.
    pub fn orphans<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        self.pods_of(&orphans_of(namespace))
    }

    /// Pods bound to the node.
    pub fn pods_on<'a>(&'a self, node: &str) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
        let keys = self.pods_by_node.get(node).into_iter().flatten();
        keys.filter_map(|key| self.pods.at(key))
    }

    /// Names of nodes that pods are bound to, whether they exist or not.
    pub fn nodes_with_pods(&self) -> impl Iterator<Item = &String> {
        self.pods_by_node.keys()
    }

    fn index(&mut self, changed: &Changed) {
        let Changed::Pod(change) = changed else {
            return;
        };
        if let Some(old) = &change.old {
            let key = Key::of(old.as_ref());
            unindex(self.pods_by_owner.entry(owner_uid(old)), &key);
            let node = node_of(old).to_owned();
            if let Some(keys) = self.pods_by_node.get_mut(&node) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.pods_by_node.remove(&node);
                }
            }
        }
        if let Some(new) = &change.new {
            let key = Key::of(new.as_ref());
            self.pods_by_owner
                .entry(owner_uid(new))
                .or_default()
                .insert(key.clone());
            let node = node_of(new);
            if !node.is_empty() {
                self.pods_by_node
                    .entry(node.to_owned())
                    .or_default()
                    .insert(key);
            }
        }
    }
}

fn unindex(entry: std::collections::hash_map::Entry<'_, String, BTreeSet<Key>>, key: &Key) {
    if let std::collections::hash_map::Entry::Occupied(mut entry) = entry {
        entry.get_mut().remove(key);
        if entry.get().is_empty() {
            entry.remove();
        }
    }
}

/// Under which UID a pod is indexed: its controller's, or its namespace's for orphans.
fn owner_uid(pod: &Pod) -> String {
    let mut owners = pod.owner_references().iter();
    match owners.find(|owner| owner.controller == Some(true)) {
        Some(owner) => owner.uid.clone(),
        None => orphans_of(&pod.namespace().unwrap_or_default()),
    }
}

/// No UID begins with a slash.
fn orphans_of(namespace: &str) -> String {
    format!("/{namespace}")
}

/// The node a pod is bound to, or nothing.
pub fn node_of(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref();
    spec.and_then(|s| s.node_name.as_deref()).unwrap_or("")
}
