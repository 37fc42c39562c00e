//! Garbage collection by `metadata.ownerReferences`.
//!
//! One task follows every change of the store and keeps who owns whom. What a change calls
//! for is planned from that graph alone, then done through the same verbs clients use.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt as _;
use objects::{Kind, Object};
use serde::Deserialize;

use crate::context::Ctx;
use crate::failure::Failure;
use crate::store::Entry;
use crate::verbs::delete::{self, Propagation, delete_object};
use crate::verbs::meta;
use crate::verbs::write::{self, Options};

/// Deletions on their way at once.
const AT_ONCE: usize = 64;
/// The finalizer of a foreground deletion.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an orphaning deletion.
const ORPHAN: &str = "orphan";

#[derive(Deserialize)]
struct Whole {
    metadata: Head,
}

/// The part of an object that counts here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    uid: String,
    owner_references: Vec<Reference>,
    finalizers: Vec<String>,
    deletion_timestamp: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct Reference {
    uid: String,
    block_owner_deletion: bool,
}

impl Head {
    fn of(entry: &Entry) -> Self {
        serde_json::from_slice::<Whole>(&entry.data)
            .map(|w| w.metadata)
            .unwrap_or_default()
    }

    fn ending(&self, finalizer: &str) -> bool {
        self.deletion_timestamp.is_some() && self.finalizers.iter().any(|f| f == finalizer)
    }
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    /// Nobody owns it any more.
    Delete { key: Arc<str>, foreground: bool },
    /// Its references to these owners lead nowhere.
    Forget { key: Arc<str>, owners: Vec<String> },
    /// Nothing holds the owner's deletion any more.
    Release {
        key: Arc<str>,
        finalizer: &'static str,
    },
}

/// Who owns whom.
#[derive(Default)]
struct Graph {
    heads: HashMap<Arc<str>, Head>,
    keys: HashMap<String, Arc<str>>,
    dependents: HashMap<String, BTreeSet<Arc<str>>>,
}

impl Graph {
    /// Takes in what is stored at `key` now; tells which keys must be looked at.
    fn set(&mut self, key: &Arc<str>, head: Option<Head>) -> Vec<Arc<str>> {
        let old = self.heads.remove(key);
        let mut look: Vec<Arc<str>> = Vec::new();
        if let Some(old) = &old {
            for owner in &old.owner_references {
                if let Some(set) = self.dependents.get_mut(&owner.uid) {
                    set.remove(key);
                    if set.is_empty() {
                        self.dependents.remove(&owner.uid);
                    }
                }
                // An owner that waits for this one may go on.
                look.extend(self.keys.get(&owner.uid).cloned());
            }
            if head.as_ref().is_none_or(|h| h.uid != old.uid) {
                self.keys.remove(&old.uid);
                look.extend(self.dependents.get(&old.uid).into_iter().flatten().cloned());
            }
        }
        if let Some(head) = head {
            self.keys.insert(head.uid.clone(), key.clone());
            for owner in &head.owner_references {
                self.dependents
                    .entry(owner.uid.clone())
                    .or_default()
                    .insert(key.clone());
            }
            if !head.owner_references.is_empty() || head.deletion_timestamp.is_some() {
                look.push(key.clone());
            }
            if head.deletion_timestamp.is_some() {
                look.extend(
                    self.dependents
                        .get(&head.uid)
                        .into_iter()
                        .flatten()
                        .cloned(),
                );
            }
            self.heads.insert(key.clone(), head);
        }
        look
    }

    /// What must be done about one object.
    fn plan(&self, key: &Arc<str>) -> Vec<Action> {
        let Some(head) = self.heads.get(key) else {
            return Vec::new();
        };
        let mut actions = self.as_owner(key, head);
        actions.extend(self.as_dependent(key, head));
        actions
    }

    fn as_owner(&self, key: &Arc<str>, head: &Head) -> Vec<Action> {
        let dependents = || self.dependents.get(&head.uid).into_iter().flatten();
        if head.ending(ORPHAN) {
            let mut actions: Vec<Action> = dependents()
                .map(|d| Action::Forget {
                    key: d.clone(),
                    owners: vec![head.uid.clone()],
                })
                .collect();
            if actions.is_empty() {
                actions.push(Action::Release {
                    key: key.clone(),
                    finalizer: ORPHAN,
                });
            }
            return actions;
        }
        if head.ending(FOREGROUND) {
            let blocked = dependents().filter_map(|d| self.heads.get(d)).any(|d| {
                d.owner_references
                    .iter()
                    .any(|o| o.uid == head.uid && o.block_owner_deletion)
            });
            if !blocked {
                return vec![Action::Release {
                    key: key.clone(),
                    finalizer: FOREGROUND,
                }];
            }
        }
        Vec::new()
    }

    fn as_dependent(&self, key: &Arc<str>, head: &Head) -> Option<Action> {
        if head.owner_references.is_empty() || head.deletion_timestamp.is_some() {
            return None;
        }
        let owner = |r: &Reference| self.keys.get(&r.uid).and_then(|k| self.heads.get(k));
        let dangling: Vec<String> = head
            .owner_references
            .iter()
            .filter(|r| owner(r).is_none())
            .map(|r| r.uid.clone())
            .collect();
        let waiting = |r: &&Reference| owner(r).is_some_and(|o| o.ending(FOREGROUND));
        let waits = head.owner_references.iter().filter(waiting).count();
        if dangling.len() + waits == head.owner_references.len() {
            let owns = self.dependents.contains_key(&head.uid);
            return Some(Action::Delete {
                key: key.clone(),
                foreground: waits > 0 && owns,
            });
        }
        (!dangling.is_empty()).then(|| Action::Forget {
            key: key.clone(),
            owners: dangling,
        })
    }
}

/// Follows the store until the server ends.
pub async fn run(ctx: Ctx) {
    let mut changed = ctx.store.subscribe("");
    let mut graph = Graph::default();
    let mut cursor = None;
    loop {
        changed.mark_unchanged();
        let mut look: BTreeSet<Arc<str>> = BTreeSet::new();
        match cursor.map(|after| ctx.store.events("", after)) {
            Some(Ok((rev, events))) => {
                for event in events {
                    let head = (!event.deleted).then(|| Head::of(&event.entry));
                    look.extend(graph.set(&event.key, head));
                }
                cursor = Some(rev);
            }
            // At the start, and where too much happened at once: everything anew.
            None | Some(Err(_)) => {
                graph = Graph::default();
                let page = ctx.store.list("");
                for (key, entry) in page.items {
                    look.extend(graph.set(&key, Some(Head::of(&entry))));
                }
                cursor = Some(page.rev);
            }
        }
        let actions: BTreeSet<Action> = look.iter().flat_map(|key| graph.plan(key)).collect();
        let failed = act(&ctx, actions).await;
        if failed {
            // What failed is looked at again with everything else.
            cursor = None;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        } else if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Does it; true where something failed.
async fn act(ctx: &Ctx, actions: BTreeSet<Action>) -> bool {
    let results = futures::stream::iter(actions)
        .map(|action| async move {
            match one(ctx, &action).await {
                Ok(()) => false,
                // Gone or changed meanwhile: the change itself calls for a new look.
                Err(Failure(status)) if matches!(status.code, 404 | 409) => false,
                Err(Failure(status)) => {
                    tracing::warn!(?action, cause = status.message, "garbage collection");
                    true
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<bool>>()
        .await;
    results.contains(&true)
}

/// Kind, namespace and name of a key.
pub fn place<'a>(ctx: &Ctx, key: &'a str) -> Option<(Arc<Kind>, &'a str, &'a str)> {
    let mut parts = key.splitn(4, '/');
    let (group, plural) = (parts.next()?, parts.next()?);
    let (namespace, name) = (parts.next()?, parts.next()?);
    let registry = ctx.registry.load();
    let kind = registry
        .iter()
        .find(|k| k.storage_resource() == (group, plural))?;
    Some((kind.clone(), namespace, name))
}

async fn one(ctx: &Ctx, action: &Action) -> Result<(), Failure> {
    let key = match action {
        Action::Delete { key, .. } | Action::Forget { key, .. } | Action::Release { key, .. } => {
            key
        }
    };
    let Some((kind, namespace, name)) = place(ctx, key) else {
        return Ok(());
    };
    match action {
        Action::Delete { foreground, .. } => {
            let Some(entry) = ctx.store.get(key) else {
                return Ok(());
            };
            let options = delete::Options {
                propagation: if *foreground {
                    Propagation::Foreground
                } else {
                    Propagation::Background
                },
                uid: Head::of(&entry).uid,
                ..delete::Options::default()
            };
            delete_object(ctx, &kind, namespace, name, &options).await?;
        }
        Action::Forget { owners, .. } => {
            change(ctx, &kind, namespace, name, |object| {
                drop_references(object, owners)
            })
            .await?;
        }
        Action::Release { finalizer, .. } => {
            change(ctx, &kind, namespace, name, |object| {
                drop_finalizer(object, finalizer)
            })
            .await?;
        }
    }
    Ok(())
}

async fn change(
    ctx: &Ctx,
    kind: &Arc<Kind>,
    namespace: &str,
    name: &str,
    fix: impl Fn(&mut Object),
) -> Result<(), Failure> {
    let options = Options {
        manager: "kube-controller-manager".into(),
        ..Options::default()
    };
    write::replace(ctx, kind, namespace, name, &options, |old| {
        let mut new = old
            .cloned()
            .ok_or_else(|| objects::Status::not_found(&kind.group, &kind.plural, name))?;
        fix(&mut new);
        Ok(new)
    })
    .await?;
    Ok(())
}

fn drop_references(object: &mut Object, owners: &[String]) {
    if let Some(list) = meta::array_mut(object, &["metadata", "ownerReferences"]) {
        list.retain(|r| !owners.iter().any(|uid| r["uid"] == uid.as_str()));
        if list.is_empty() {
            meta::set(object, "ownerReferences", Object::Null);
        }
    }
}

/// Takes a finalizer away.
pub fn drop_finalizer(object: &mut Object, finalizer: &str) {
    if let Some(list) = meta::array_mut(object, &["metadata", "finalizers"]) {
        list.retain(|f| f != finalizer);
        if list.is_empty() {
            meta::set(object, "finalizers", Object::Null);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uid: &str, owners: &[&str], ending: &[&str]) -> Head {
        Head {
            uid: uid.into(),
            owner_references: owners
                .iter()
                .map(|uid| Reference {
                    uid: (*uid).into(),
                    block_owner_deletion: true,
                })
                .collect(),
            finalizers: ending.iter().map(|f| (*f).to_owned()).collect(),
            deletion_timestamp: (!ending.is_empty()).then(|| "now".into()),
        }
    }

    fn key(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn what_lost_its_last_owner_goes() {
        let mut graph = Graph::default();
        graph.set(&key("a"), Some(head("1", &[], &[])));
        graph.set(&key("b"), Some(head("2", &["1"], &[])));
        assert_eq!(graph.plan(&key("b")), []);
        assert_eq!(graph.set(&key("a"), None), [key("b")]);
        assert_eq!(
            graph.plan(&key("b")),
            [Action::Delete {
                key: key("b"),
                foreground: false
            }]
        );
    }

    #[test]
    fn what_keeps_an_owner_stays_and_forgets_the_other() {
        let mut graph = Graph::default();
        graph.set(&key("a"), Some(head("1", &[], &[])));
        graph.set(&key("b"), Some(head("2", &["1", "9"], &[])));
        assert_eq!(
            graph.plan(&key("b")),
            [Action::Forget {
                key: key("b"),
                owners: vec!["9".into()]
            }]
        );
    }

    #[test]
    fn a_foreground_deletion_waits_for_its_dependents() {
        let mut graph = Graph::default();
        graph.set(&key("b"), Some(head("2", &["1"], &[])));
        let look = graph.set(&key("a"), Some(head("1", &[], &[FOREGROUND])));
        assert_eq!(look, [key("a"), key("b")]);
        assert_eq!(graph.plan(&key("a")), []);
        assert_eq!(
            graph.plan(&key("b")),
            [Action::Delete {
                key: key("b"),
                foreground: false
            }]
        );
        assert_eq!(graph.set(&key("b"), None), [key("a")]);
        assert_eq!(
            graph.plan(&key("a")),
            [Action::Release {
                key: key("a"),
                finalizer: FOREGROUND
            }]
        );
    }

    #[test]
    fn an_orphaning_deletion_frees_its_dependents_first() {
        let mut graph = Graph::default();
        graph.set(&key("b"), Some(head("2", &["1"], &[])));
        graph.set(&key("a"), Some(head("1", &[], &[ORPHAN])));
        assert_eq!(
            graph.plan(&key("a")),
            [Action::Forget {
                key: key("b"),
                owners: vec!["1".into()]
            }]
        );
        assert_eq!(graph.set(&key("b"), Some(head("2", &[], &[]))), [key("a")]);
        assert_eq!(
            graph.plan(&key("a")),
            [Action::Release {
                key: key("a"),
                finalizer: ORPHAN
            }]
        );
    }
}
