//! What the loop tells of the cluster.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Change, Cluster, Config, Key};
use tokio::sync::Notify;

/// How things stand.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub cluster: Cluster,
    pub config: Option<Arc<Config>>,
    /// All that there was has been told.
    pub synced: bool,
}

/// What is different in a view.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Services that changed, or whose endpoints did.
    pub touched: BTreeSet<Key>,
    /// Nodes changed, or this is the first view.
    pub nodes: bool,
}

#[derive(Debug, Default)]
struct Told {
    view: View,
    /// Of the view, since it was last looked at.
    news: News,
    /// Of the next view: whoever looks before that is told would look for it in vain.
    noted: News,
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
        let noted = &mut self.lock().noted;
        match change {
            Change::Service(service) => noted.touched.extend([service.key()]),
            Change::ServiceGone(namespace, name) => noted.touched.extend([key(namespace, name)]),
            Change::Slice(slice) => {
                let old = of_slice(&key(&slice.namespace, &slice.name));
                let new = key(&slice.namespace, &slice.service);
                noted.touched.extend(old.into_iter().chain([new]));
            }
            Change::SliceGone(namespace, name) => {
                noted.touched.extend(of_slice(&key(namespace, name)));
            }
            Change::Node(_) | Change::NodeGone(_) => noted.nodes = true,
            _ => {}
        }
    }

    /// How things stand now.
    pub(crate) fn tell(&self, cluster: &Cluster, config: Option<&Arc<Config>>, synced: bool) {
        let mut told = self.lock();
        let noted = std::mem::take(&mut told.noted);
        let settings = told.view.config.as_ref() != config || told.view.synced != synced;
        // Pods and policies, of which there may be many changes, are nothing to it.
        if !settings && !noted.nodes && noted.touched.is_empty() {
            return;
        }
        told.news.touched.extend(noted.touched);
        told.news.nodes |= noted.nodes || settings;
        told.view = View {
            cluster: cluster.clone(),
            config: config.cloned(),
            synced,
        };
        drop(told);
        self.shared.1.notify_one();
    }

    /// Something was told since the last time.
    pub(super) async fn notified(&self) {
        self.shared.1.notified().await;
    }

    /// The last view, and what is different in it since the last time.
    pub(super) fn look(&self) -> (View, News) {
        let mut told = self.lock();
        (told.view.clone(), std::mem::take(&mut told.news))
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use model::Service;

    use super::*;

    #[test]
    fn news_come_with_the_view_that_has_them() {
        let handle = Handle::default();
        let mut cluster = Cluster::default();
        handle.tell(&cluster, None, true);
        let (_, news) = handle.look();
        assert!(news.nodes, "the first view");
        let service = Service {
            name: "web".into(),
            ..Service::default()
        };
        let key = service.key();
        let change = Change::Service(Arc::new(service));
        handle.note(&cluster, &change);
        cluster.take(change);
        // The loop is at work on it: a look now must not use the news up.
        let (view, news) = handle.look();
        assert!(view.cluster.services.is_empty() && news.touched.is_empty());
        handle.tell(&cluster, None, true);
        let (view, news) = handle.look();
        assert!(view.cluster.services.contains_key(&key));
        assert_eq!(news.touched, BTreeSet::from([key]));
        assert!(!news.nodes);
        assert!(handle.look().1.touched.is_empty(), "told once");
    }
}
