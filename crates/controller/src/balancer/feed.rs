//! A watch of one kind, which says of each object that it is there or gone.

use std::collections::BTreeSet;
use std::fmt::Debug;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt};
use model::Key;
use serde::de::DeserializeOwned;

/// One thing that a watch says.
pub(super) enum Fed<K> {
    /// The object is there, new or different.
    Put(K),
    /// The object is gone.
    Gone(Key),
    /// All that there was has been told.
    Synced,
    /// The watch failed, and is tried again.
    Failed(watcher::Error),
}

/// Everything of a kind.
pub(super) fn feed<K>(api: Api<K>) -> BoxStream<'static, Fed<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut known = BTreeSet::new();
    let mut listing = BTreeSet::new();
    watch(api)
        .flat_map(move |event| {
            let told = match event {
                Ok(Event::Init) => {
                    listing.clear();
                    Vec::new()
                }
                Ok(Event::InitApply(object)) => {
                    listing.insert(key(&object));
                    known.insert(key(&object));
                    vec![Fed::Put(object)]
                }
                Ok(Event::InitDone) => {
                    let gone: Vec<Key> = known.difference(&listing).cloned().collect();
                    known = std::mem::take(&mut listing);
                    let gone = gone.into_iter().map(Fed::Gone);
                    gone.chain([Fed::Synced]).collect()
                }
                Ok(Event::Apply(object)) => {
                    known.insert(key(&object));
                    vec![Fed::Put(object)]
                }
                Ok(Event::Delete(object)) => {
                    known.remove(&key(&object));
                    vec![Fed::Gone(key(&object))]
                }
                Err(error) => vec![Fed::Failed(error)],
            };
            stream::iter(told)
        })
        .boxed()
}

fn watch<K>(api: Api<K>) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    api::watch::raw(api, api::watch::settings())
}

pub(super) fn key<K: Resource>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}
