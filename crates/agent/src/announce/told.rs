//! What the loop tells of the cluster.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Change, Cluster, Config, Key};
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(super) struct Told {
    pub cluster: Cluster,
    pub config: Option<Arc<Config>>,
    /// Services that changed, or whose endpoints did.
    pub touched: BTreeSet<Key>,
    /// Nodes changed, or this is the first view.
    pub nodes: bool,
    /// All that there was has been told.
    pub synced: bool,
}

/// The loop's end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handle {
    shared: Arc<(Mutex<Told>, Notify)>,
}

impl Handle {
    /// A change is about to be taken into `cluster`.
    pub(crate) fn note(&self, cluster: &Cluster, change: &Change) {
        let key = |namespace: &String, name: &String| (namespace.clone(), name.clone());
        let of_slice = |key: &Key| {
            let slice = cluster.slices.get(key)?;
            Some((slice.namespace.clone(), slice.service.clone()))
        };
        let mut told = self.lock();
        match change {
            Change::Service(service) => told.touched.extend([service.key()]),
            Change::ServiceGone(namespace, name) => told.touched.extend([key(namespace, name)]),
            Change::Slice(slice) => {
                let old = of_slice(&key(&slice.namespace, &slice.name));
                let new = key(&slice.namespace, &slice.service);
                told.touched.extend(old.into_iter().chain([new]));
            }
            Change::SliceGone(namespace, name) => {
                told.touched.extend(of_slice(&key(namespace, name)));
            }
            Change::Node(_) | Change::NodeGone(_) => told.nodes = true,
            _ => {}
        }
    }

    /// How things stand now.
    pub(crate) fn tell(&self, cluster: &Cluster, config: Option<&Arc<Config>>, synced: bool) {
        let mut told = self.lock();
        told.cluster = cluster.clone();
        told.nodes |= told.config.as_ref() != config || told.synced != synced;
        told.config = config.cloned();
        told.synced = synced;
        drop(told);
        self.shared.1.notify_one();
    }

    /// Something was told since the last time.
    pub(super) async fn notified(&self) {
        self.shared.1.notified().await;
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Told> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
