//! The one writer: takes what waits, makes it durable with one sync, then shows it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, RwLock, mpsc};

use bytes::Bytes;
use objects::Object;

use super::disk::{Disk, Row};
use super::{
    Change, Entry, Event, Expect, Job, Past, RING_BYTES, RING_EVENTS, State, WriteError, topic,
    write_lock,
};

/// Writes made durable together at most.
const GROUP: usize = 512;
/// Stands in for the resourceVersion while an object is serialised. It is random, so no
/// object from outside can hold it.
static MARK: LazyLock<String> = LazyLock::new(|| format!("rv-{:032x}", rand::random::<u128>()));

/// An object serialised up to its resourceVersion.
pub struct Placeholder {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Placeholder {
    /// Serialises `object`, whose resourceVersion is overwritten.
    pub fn of(object: &mut Object) -> Self {
        object["metadata"]["resourceVersion"] = MARK.as_str().into();
        let text = object.to_string();
        let mark = format!("\"resourceVersion\":\"{}\"", *MARK);
        let at = text.find(&mark).unwrap_or(text.len());
        let from = (at + mark.len()).min(text.len());
        Self {
            head: text.as_bytes()[..at].to_vec(),
            tail: text.as_bytes()[from..].to_vec(),
        }
    }

    fn fill(&self, rev: u64) -> Bytes {
        let middle = format!("\"resourceVersion\":\"{rev}\"");
        let mut data = Vec::with_capacity(self.head.len() + middle.len() + self.tail.len());
        data.extend_from_slice(&self.head);
        data.extend_from_slice(middle.as_bytes());
        data.extend_from_slice(&self.tail);
        Bytes::from(data)
    }
}

/// Runs until every sender is gone.
pub(super) fn run(mut disk: Disk, state: &RwLock<State>, queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        while jobs.len() < GROUP {
            match queue.try_recv() {
                Ok(job) => jobs.push(job),
                Err(_) => break,
            }
        }
        group(&mut disk, state, jobs);
    }
}

/// What a job became: its entries, or why not.
type Outcome = Result<Vec<Arc<Entry>>, WriteError>;

fn group(disk: &mut Disk, state: &RwLock<State>, jobs: Vec<Job>) {
    if disk.failed()
        && let Err(error) = recover(disk, state)
    {
        let text = error.to_string();
        for job in jobs {
            let _ = job.reply.send(Err(again(&error, &text)));
        }
        return;
    }
    let mut batch = Batch::default();
    {
        let state = state
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        batch.rev = state.rev;
        for job in &jobs {
            let outcome = batch.take(&state, &job.changes);
            batch.outcomes.push(outcome);
        }
    }
    let rows: Vec<Row> = batch.rows();
    if !rows.is_empty()
        && let Err(error) = disk.write(batch.rev, &rows)
    {
        let text = error.to_string();
        tracing::error!(error = %text, "nothing of this group of writes was stored");
        write_lock(state).failing = true;
        for job in jobs {
            let _ = job.reply.send(Err(again(&error, &text)));
        }
        return;
    }
    publish(state, batch.rev, batch.events);
    for (job, outcome) in jobs.into_iter().zip(batch.outcomes) {
        // Nobody waits any more where the client went away; the write stands.
        let _ = job.reply.send(outcome);
    }
}

fn again(error: &WriteError, text: &str) -> WriteError {
    match error {
        WriteError::Full(path) => WriteError::Full(path.clone()),
        _ => WriteError::Storage(text.to_owned()),
    }
}

#[derive(Default)]
struct Batch {
    rev: u64,
    overlay: HashMap<Arc<str>, Option<Arc<Entry>>>,
    events: Vec<Arc<Event>>,
    outcomes: Vec<Outcome>,
}

impl Batch {
    fn current(&self, state: &State, key: &Arc<str>) -> Option<Arc<Entry>> {
        match self.overlay.get(key) {
            Some(entry) => entry.clone(),
            None => state.map.get(key).cloned(),
        }
    }

    fn take(&mut self, state: &State, changes: &[Change]) -> Outcome {
        for (index, change) in changes.iter().enumerate() {
            let now = self.current(state, &change.key).map(|e| e.rev);
            let wanted = match change.expect {
                Expect::Absent => None,
                Expect::Rev(rev) => Some(rev),
            };
            if now != wanted {
                return Err(WriteError::Conflict(index));
            }
        }
        let mut entries = Vec::with_capacity(changes.len());
        for change in changes {
            self.rev += 1;
            let prev = self.current(state, &change.key);
            let entry = Arc::new(Entry::new(self.rev, change.body.fill(self.rev)));
            self.overlay
                .insert(change.key.clone(), (!change.delete).then(|| entry.clone()));
            self.events.push(Arc::new(Event {
                rev: self.rev,
                key: change.key.clone(),
                prev,
                entry: entry.clone(),
                deleted: change.delete,
            }));
            entries.push(entry);
        }
        Ok(entries)
    }

    fn rows(&self) -> Vec<Row> {
        self.overlay
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }
}

/// Shows a durable group to readers and watches.
fn publish(state: &RwLock<State>, rev: u64, events: Vec<Arc<Event>>) {
    if events.is_empty() {
        return;
    }
    let mut state = write_lock(state);
    state.rev = rev;
    state.failing = false;
    let start = state.start;
    let mut touched: Vec<String> = Vec::new();
    for event in events {
        if event.deleted {
            state.map.remove(&event.key);
        } else {
            state.map.insert(event.key.clone(), event.entry.clone());
        }
        let name = topic(&event.key);
        if !touched.iter().any(|t| t == name) {
            touched.push(name.to_owned());
        }
        state.ring_bytes += event.entry.data.len();
        let past = state
            .topics
            .entry(name.to_owned())
            .or_insert_with(|| Past::new(start));
        past.ring.push_back(event.clone());
        state.all.ring.push_back(event);
    }
    forget(&mut state);
    for name in &touched {
        if let Some(past) = state.topics.get(name) {
            past.sender.send_replace(rev);
        }
    }
    state.all.sender.send_replace(rev);
}

/// Drops the oldest events where there are too many.
fn forget(state: &mut State) {
    while state.all.ring.len() > RING_EVENTS || state.ring_bytes > RING_BYTES {
        let Some(old) = state.all.ring.pop_front() else {
            break;
        };
        state.ring_bytes -= old.entry.data.len();
        state.all.floor = old.rev;
        // Both rings are in the same order: the oldest of all is the oldest of its own.
        if let Some(past) = state.topics.get_mut(topic(&old.key)) {
            past.ring.pop_front();
            past.floor = old.rev;
        }
    }
}

/// Opens the file again after a failure. A group that was refused may have reached the disk
/// after all; what the file holds is then the truth, and watches are told.
fn recover(disk: &mut Disk, state: &RwLock<State>) -> Result<(), WriteError> {
    disk.reopen()?;
    let (rev, map) = disk.load()?;
    let mut events = Vec::new();
    {
        let state = state
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if rev <= state.rev {
            return Ok(());
        }
        for (key, entry) in &map {
            let prev = state.map.get(key).cloned();
            if prev.as_ref().is_none_or(|p| p.rev != entry.rev) {
                events.push(event(entry.rev, key, prev, entry.clone(), false));
            }
        }
        for (key, entry) in state.map.iter().filter(|(k, _)| !map.contains_key(*k)) {
            let last = Arc::new(Entry::new(rev, entry.data.clone()));
            events.push(event(rev, key, Some(entry.clone()), last, true));
        }
    }
    events.sort_by_key(|e| e.rev);
    publish(state, rev, events);
    Ok(())
}

fn event(
    rev: u64,
    key: &Arc<str>,
    prev: Option<Arc<Entry>>,
    entry: Arc<Entry>,
    deleted: bool,
) -> Arc<Event> {
    Arc::new(Event {
        rev,
        key: key.clone(),
        prev,
        entry,
        deleted,
    })
}
