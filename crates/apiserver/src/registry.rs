//! Which kinds are served now: the built-in ones and those of CustomResourceDefinitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use objects::Kind;

/// An immutable table of served kinds; a change of CRDs publishes a new one.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: BTreeMap<(String, String, String), Arc<Kind>>,
}

impl Registry {
    /// A table of these kinds.
    pub fn new(kinds: impl IntoIterator<Item = Arc<Kind>>) -> Self {
        let kinds = kinds
            .into_iter()
            .map(|k| ((k.group.clone(), k.version.clone(), k.plural.clone()), k))
            .collect();
        Self { kinds }
    }

    /// The kind behind a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.kinds
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The kind of an object, by its apiVersion and kind.
    pub fn of_object(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let (group, version) = split_api_version(api_version);
        self.iter()
            .find(|k| k.group == group && k.version == version && k.kind == kind)
    }

    /// Every kind, by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }

    /// One kind for each stored resource (group and plural).
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Kind>> {
        let mut last: Option<String> = None;
        let mut seen = std::collections::BTreeSet::new();
        self.iter().filter(move |k| {
            let topic = topic(k);
            let fresh = last.as_ref() != Some(&topic) && seen.insert(topic.clone());
            last = Some(topic);
            fresh
        })
    }
}

/// Group and version of `apps/v1` or `v1`.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// `group/plural`, the topic of a kind in the store.
pub fn topic(kind: &Kind) -> String {
    let (group, plural) = kind.storage_resource();
    format!("{group}/{plural}")
}

/// Key prefix of a kind's objects, of one namespace where given.
pub fn prefix(kind: &Kind, namespace: &str) -> String {
    let (group, plural) = kind.storage_resource();
    if namespace.is_empty() {
        format!("{group}/{plural}/")
    } else {
        format!("{group}/{plural}/{namespace}/")
    }
}

/// Key of one object.
pub fn key(kind: &Kind, namespace: &str, name: &str) -> String {
    let (group, plural) = kind.storage_resource();
    format!("{group}/{plural}/{namespace}/{name}")
}
