//! The objects of one kind as the watch tells them, with our own writes taken in at once.
//!
//! Because a write's answer is in the store before the next plan is made, no plan acts on
//! a state older than its own last actions; nothing else keeps count of what is expected.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

/// Namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        }
    }
}

/// One object before and after.
#[derive(Debug)]
pub struct Change<K> {
    /// As it was; None where it is new.
    pub old: Option<Arc<K>>,
    /// As it is; None where it is gone.
    pub new: Option<Arc<K>>,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        Self {
            old: self.old.clone(),
            new: self.new.clone(),
        }
    }
}

impl<K> Change<K> {
    /// The new object, or the old one where it is gone.
    pub fn any(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Both.
    pub fn both(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(self.new.iter())
    }
}

/// All objects of one kind.
#[derive(Debug)]
pub struct Store<K> {
    objects: BTreeMap<Key, Arc<K>>,
    /// Newest resourceVersion the watch has told of: an answer to an older write brings
    /// nothing new, and might bring back what is gone.
    watched: u64,
    /// UIDs we deleted, whose end the watch has not told of yet.
    ended: HashSet<String>,
    listing: Option<BTreeSet<Key>>,
    synced: bool,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            watched: 0,
            ended: HashSet::new(),
            listing: None,
            synced: false,
        }
    }
}

fn version<K: Resource>(object: &K) -> u64 {
    let version = object.meta().resource_version.as_deref();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl<K: Resource<DynamicType = ()>> Store<K> {
    /// True once the first list is complete.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// The object of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.objects.get(&Key::new(namespace, name))
    }

    /// The object of that key.
    pub fn at(&self, key: &Key) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// How many objects.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The objects of one namespace.
    pub fn within<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Arc<K>> + use<'a, K> {
        let namespace = namespace.to_owned();
        self.objects
            .range(Key::new(&namespace, "")..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// Takes in what the watch tells.
    pub fn take(&mut self, event: Event<K>) -> Vec<Change<K>> {
        match event {
            Event::Init => {
                self.listing = Some(BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                if let Some(listing) = &mut self.listing {
                    listing.insert(Key::of(&object));
                }
                self.apply(object).into_iter().collect()
            }
            Event::Apply(object) => self.apply(object).into_iter().collect(),
            Event::Delete(object) => self.delete(&object).into_iter().collect(),
            Event::InitDone => self.finish_list(),
        }
    }

    fn apply(&mut self, object: K) -> Option<Change<K>> {
        self.watched = self.watched.max(version(&object));
        if object.uid().is_some_and(|uid| self.ended.contains(&uid)) {
            return None;
        }
        self.put(object)
    }

    fn put(&mut self, object: K) -> Option<Change<K>> {
        let key = Key::of(&object);
        if let Some(old) = self.objects.get(&key)
            && version(old.as_ref()) >= version(&object)
            && version(&object) > 0
        {
            return None;
        }
        let new = Arc::new(object);
        let old = self.objects.insert(key, new.clone());
        Some(Change {
            old,
            new: Some(new),
        })
    }

    fn delete(&mut self, object: &K) -> Option<Change<K>> {
        self.watched = self.watched.max(version(object));
        let uid = object.uid().unwrap_or_default();
        self.ended.remove(&uid);
        self.remove(&Key::of(object), &uid)
    }

    fn remove(&mut self, key: &Key, uid: &str) -> Option<Change<K>> {
        let held = self.objects.get(key)?;
        // Under the same name there may already be its successor.
        if held.meta().uid.as_deref() != Some(uid) {
            return None;
        }
        self.objects.remove(key).map(|old| Change {
            old: Some(old),
            new: None,
        })
    }

    fn finish_list(&mut self) -> Vec<Change<K>> {
        self.synced = true;
        self.ended.clear();
        let Some(listing) = self.listing.take() else {
            return Vec::new();
        };
        let gone: Vec<Key> = self
            .objects
            .keys()
            .filter(|key| !listing.contains(*key))
            .cloned()
            .collect();
        gone.iter()
            .filter_map(|key| self.objects.remove(key))
            .map(|old| Change {
                old: Some(old),
                new: None,
            })
            .collect()
    }

    /// Takes in the answer to a write of ours.
    pub fn written(&mut self, object: K) -> Option<Change<K>> {
        if version(&object) <= self.watched {
            return None;
        }
        self.put(object)
    }

    /// Takes in that we deleted an object for good.
    pub fn ended(&mut self, key: &Key, uid: &str) -> Option<Change<K>> {
        let change = self.remove(key, uid);
        if change.is_some() {
            self.ended.insert(uid.to_owned());
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    fn map(name: &str, uid: &str, version: u64) -> ConfigMap {
        serde_json::from_value(json!({"metadata":
            {"namespace": "d", "name": name, "uid": uid, "resourceVersion": version.to_string()}}))
        .unwrap()
    }

    fn names(store: &Store<ConfigMap>) -> Vec<String> {
        store.iter().map(|map| map.name_any()).collect()
    }

    #[test]
    fn a_late_answer_does_not_bring_back_what_is_gone() {
        let mut store = Store::default();
        store.take(Event::Apply(map("a", "1", 5)));
        store.take(Event::Delete(map("a", "1", 7)));
        assert!(store.written(map("a", "1", 5)).is_none());
        assert!(names(&store).is_empty());
    }

    #[test]
    fn an_early_answer_is_kept_against_older_watch_events() {
        let mut store = Store::default();
        store.take(Event::Apply(map("a", "1", 5)));
        assert!(store.written(map("a", "1", 9)).is_some());
        assert!(store.take(Event::Apply(map("a", "1", 7))).is_empty());
        assert_eq!(
            store.get("d", "a").unwrap().resource_version().unwrap(),
            "9"
        );
    }

    #[test]
    fn what_we_deleted_stays_gone_and_its_successor_stays() {
        let mut store = Store::default();
        store.take(Event::Apply(map("a", "1", 5)));
        assert!(store.ended(&Key::new("d", "a"), "1").is_some());
        assert!(store.take(Event::Apply(map("a", "1", 6))).is_empty());
        assert!(store.written(map("a", "2", 8)).is_some());
        assert!(store.take(Event::Delete(map("a", "1", 7))).is_empty());
        assert_eq!(names(&store), ["a"]);
    }

    #[test]
    fn a_new_list_drops_what_it_does_not_name() {
        let mut store = Store::default();
        store.take(Event::Init);
        store.take(Event::InitApply(map("a", "1", 1)));
        store.take(Event::InitApply(map("b", "2", 2)));
        store.take(Event::InitDone);
        assert!(store.synced());
        store.take(Event::Init);
        store.take(Event::InitApply(map("b", "2", 2)));
        assert_eq!(store.take(Event::InitDone).len(), 1);
        assert_eq!(names(&store), ["b"]);
    }
}
