//! Every object, in memory and on disk.
//!
//! Memory answers all reads; one writer thread makes changes durable in groups and only
//! then shows them. One counter, the resourceVersion, orders every change of the store.

mod disk;
mod writer;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};

use bytes::Bytes;
use objects::Object;
use tokio::sync::{oneshot, watch};

pub use writer::Placeholder;

/// Bytes of past events kept for watches that resume.
const RING_BYTES: usize = 6 << 20;
/// Number of past events kept for watches that resume.
const RING_EVENTS: usize = 20_000;
/// Writes waiting for the writer thread before callers are held back.
const QUEUE: usize = 1024;

/// One stored object: its compact JSON, complete with `metadata.resourceVersion`.
pub struct Entry {
    /// resourceVersion.
    pub rev: u64,
    /// Compact JSON.
    pub data: Bytes,
    slim: OnceLock<Box<Object>>,
}

impl Entry {
    fn new(rev: u64, data: Bytes) -> Self {
        Self {
            rev,
            data,
            slim: OnceLock::new(),
        }
    }

    /// The object, parsed.
    pub fn object(&self) -> Object {
        // What is stored was serialised here, so it parses; Null stands for a damaged file.
        serde_json::from_slice(&self.data).unwrap_or(Object::Null)
    }

    /// The part of the object that selectors and the garbage collector look at.
    pub fn slim(&self) -> &Object {
        self.slim.get_or_init(|| Box::new(slim(self.object())))
    }
}

/// What of `metadata` is kept in a slim object.
const SLIM: [&str; 5] = ["name", "namespace", "labels", "uid", "deletionTimestamp"];

/// Keeps the metadata that is selected by, and scalars one level down.
fn slim(mut object: Object) -> Object {
    let Some(top) = object.as_object_mut() else {
        return object;
    };
    top.retain(|_, value| !value.is_array());
    for (name, value) in top.iter_mut() {
        let Some(fields) = value.as_object_mut() else {
            continue;
        };
        match name.as_str() {
            "metadata" => fields.retain(|name, _| SLIM.contains(&name.as_str())),
            "data" | "binaryData" | "stringData" => fields.clear(),
            _ => fields.retain(|name, v| !(v.is_array() || v.is_object()) || name == "podIPs"),
        }
    }
    object
}

/// One change, as watches see it.
pub struct Event {
    /// resourceVersion of the change.
    pub rev: u64,
    /// Key of the object.
    pub key: Arc<str>,
    /// What was there before.
    pub prev: Option<Arc<Entry>>,
    /// What is there now, or the last state where it was deleted.
    pub entry: Arc<Entry>,
    /// True for a deletion.
    pub deleted: bool,
}

/// What must hold for a change to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing is stored at the key.
    Absent,
    /// This resourceVersion is stored at the key.
    Rev(u64),
}

/// One change of a transaction.
pub struct Change {
    key: Arc<str>,
    expect: Expect,
    body: Placeholder,
    delete: bool,
}

impl Change {
    /// True for a change at `key`.
    pub fn is_for(&self, key: &str) -> bool {
        self.key.as_ref() == key
    }

    /// Stores `object` (whose resourceVersion is written at commit).
    pub fn put(key: &str, expect: Expect, object: &mut Object) -> Self {
        Self {
            key: key.into(),
            expect,
            body: Placeholder::of(object),
            delete: false,
        }
    }

    /// Removes what is stored; `object` is the last state that watches see.
    pub fn delete(key: &str, rev: u64, object: &mut Object) -> Self {
        Self {
            key: key.into(),
            expect: Expect::Rev(rev),
            body: Placeholder::of(object),
            delete: true,
        }
    }
}

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The change at this index expected something else.
    #[error("change {0} of the transaction expected another state")]
    Conflict(usize),
    /// The disk refused; nothing was acknowledged.
    #[error("{0}")]
    Storage(String),
    /// The disk is full; nothing was acknowledged.
    #[error("no space left on the disk that holds {0}")]
    Full(String),
}

struct State {
    rev: u64,
    /// The resourceVersion at which the server started: nothing older is known.
    start: u64,
    map: BTreeMap<Arc<str>, Arc<Entry>>,
    /// Past events of everything, oldest first.
    all: Past,
    ring_bytes: usize,
    /// True from a failure of the disk until a write succeeds.
    failing: bool,
    /// The same events by resource (`group/plural`), so that a quiet one is not forgotten
    /// because of a busy one.
    topics: HashMap<String, Past>,
}

/// Past events and who waits for the next.
struct Past {
    ring: VecDeque<Arc<Event>>,
    /// Every event after this resourceVersion is in the ring.
    floor: u64,
    sender: watch::Sender<u64>,
}

impl Past {
    fn new(rev: u64) -> Self {
        Self {
            ring: VecDeque::new(),
            floor: rev,
            sender: watch::channel(rev).0,
        }
    }

    fn after(&self, rev: u64) -> Result<impl DoubleEndedIterator<Item = &Arc<Event>>, Expired> {
        if rev < self.floor {
            return Err(Expired {
                asked: rev,
                oldest: self.floor,
            });
        }
        let start = self.ring.partition_point(|e| e.rev <= rev);
        Ok(self.ring.range(start..))
    }
}

impl State {
    /// The past of what is below `prefix`; None where nothing happened to it yet.
    fn past(&self, prefix: &str) -> Option<&Past> {
        if prefix.is_empty() {
            Some(&self.all)
        } else {
            self.topics.get(topic(prefix))
        }
    }

    /// The events after `rev` below `prefix`, newest last.
    fn after<'a>(
        &'a self,
        prefix: &'a str,
        rev: u64,
    ) -> Result<impl DoubleEndedIterator<Item = &'a Arc<Event>>, Expired> {
        let events = match self.past(prefix) {
            Some(past) => Some(past.after(rev)?),
            None if rev < self.start => {
                return Err(Expired {
                    asked: rev,
                    oldest: self.start,
                });
            }
            None => None,
        };
        Ok(events
            .into_iter()
            .flatten()
            .filter(move |e| e.key.starts_with(prefix)))
    }
}

struct Job {
    changes: Vec<Change>,
    reply: oneshot::Sender<Result<Vec<Arc<Entry>>, WriteError>>,
}

/// The store. Clones share it.
#[derive(Clone)]
pub struct Store {
    state: Arc<RwLock<State>>,
    jobs: mpsc::SyncSender<Job>,
}

/// A page of a listing.
pub struct Page {
    /// The resourceVersion it is consistent with.
    pub rev: u64,
    /// Keys and objects, by key.
    pub items: Vec<(Arc<str>, Arc<Entry>)>,
}

/// The past is no longer known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// What was asked for.
    pub asked: u64,
    /// The oldest that could be answered.
    pub oldest: u64,
}

impl Store {
    /// Opens the store in `dir`, or makes an empty one.
    pub fn open(dir: &Path) -> Result<Self, WriteError> {
        let disk = disk::Disk::open(&dir.join("state.redb"))?;
        let (rev, map) = disk.load()?;
        let state = Arc::new(RwLock::new(State {
            rev,
            start: rev,
            map,
            all: Past::new(rev),
            ring_bytes: 0,
            failing: false,
            topics: HashMap::new(),
        }));
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let shared = state.clone();
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer::run(disk, &shared, &queue))
            .map_err(|e| WriteError::Storage(format!("starting the writer thread: {e}")))?;
        Ok(Self { state, jobs })
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The resourceVersion of the latest change.
    pub fn rev(&self) -> u64 {
        self.read().rev
    }

    /// True where the last write failed for the disk's sake.
    pub fn failing(&self) -> bool {
        self.read().failing
    }

    /// What is stored at `key`.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.read().map.get(key).cloned()
    }

    /// What is stored below `prefix` now.
    pub fn list(&self, prefix: &str) -> Page {
        let state = self.read();
        Page {
            rev: state.rev,
            items: range(&state.map, prefix),
        }
    }

    /// Number of objects below `prefix`.
    pub fn count(&self, prefix: &str) -> usize {
        let state = self.read();
        state
            .map
            .range::<str, _>(bounds(prefix))
            .take_while(|(k, _)| k.starts_with(prefix))
            .count()
    }

    /// What was stored below `prefix` at `rev`, from the present and the events since.
    pub fn list_at(&self, prefix: &str, rev: u64) -> Result<Page, Expired> {
        let state = self.read();
        let since = state.after(prefix, rev)?;
        let mut items: BTreeMap<Arc<str>, Arc<Entry>> =
            range(&state.map, prefix).into_iter().collect();
        for event in since.rev() {
            match &event.prev {
                Some(prev) => items.insert(event.key.clone(), prev.clone()),
                None => items.remove(&event.key),
            };
        }
        Ok(Page {
            rev,
            items: items.into_iter().collect(),
        })
    }

    /// The events after `after` below `prefix`, and the resourceVersion they reach.
    pub fn events(&self, prefix: &str, after: u64) -> Result<(u64, Vec<Arc<Event>>), Expired> {
        let state = self.read();
        let found = state.after(prefix, after)?.cloned().collect();
        Ok((state.rev, found))
    }

    /// A value that changes when something below the resource `topic` (`group/plural`) changes;
    /// the empty topic changes with everything.
    pub fn subscribe(&self, topic: &str) -> watch::Receiver<u64> {
        {
            let state = self.read();
            if topic.is_empty() {
                return state.all.sender.subscribe();
            }
            if let Some(past) = state.topics.get(topic) {
                return past.sender.subscribe();
            }
        }
        let mut state = write_lock(&self.state);
        let start = state.start;
        let past = state
            .topics
            .entry(topic.to_owned())
            .or_insert_with(|| Past::new(start));
        past.sender.subscribe()
    }

    /// Makes all `changes` durable together, or none. Returns what was stored, in order.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<Vec<Arc<Entry>>, WriteError> {
        let (reply, answer) = oneshot::channel();
        let mut job = Job { changes, reply };
        loop {
            match self.jobs.try_send(job) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Full(back)) => {
                    job = back;
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(stopped()),
            }
        }
        answer.await.map_err(|_| stopped())?
    }
}

fn stopped() -> WriteError {
    WriteError::Storage("the store has stopped".into())
}

fn write_lock(state: &RwLock<State>) -> RwLockWriteGuard<'_, State> {
    state
        .write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn bounds(prefix: &str) -> (std::ops::Bound<&str>, std::ops::Bound<&str>) {
    (
        std::ops::Bound::Included(prefix),
        std::ops::Bound::Unbounded,
    )
}

fn range(map: &BTreeMap<Arc<str>, Arc<Entry>>, prefix: &str) -> Vec<(Arc<str>, Arc<Entry>)> {
    map.range::<str, _>(bounds(prefix))
        .take_while(|(key, _)| key.starts_with(prefix))
        .map(|(key, entry)| (key.clone(), entry.clone()))
        .collect()
}

/// `group/plural` of a key.
pub fn topic(key: &str) -> &str {
    key.match_indices('/')
        .nth(1)
        .map_or(key, |(at, _)| &key[..at])
}

#[cfg(test)]
mod tests;
