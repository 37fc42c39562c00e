//! A part of the cache with a lock of its own: entries in two halves, bounded in number and
//! bytes, and which questions are under way.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::entry::{Entry, Key};

/// What the owner of a question under way tells those who wait for the same.
#[derive(Clone, Debug)]
pub(super) enum Landed {
    /// Not yet anything.
    Nothing,
    /// This is the answer.
    Answer(Arc<Entry>),
    /// The answer is not for others.
    AskYourself,
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub key: Key,
    /// Made when there is somebody to tell.
    pub told: Option<watch::Sender<Landed>>,
}

/// What was counted, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub requests: u64,
    pub hits_success: u64,
    pub hits_denial: u64,
    pub misses: u64,
    pub prefetches: u64,
    pub stale: u64,
    pub drops: u64,
}

/// A shard. Each lies in cache lines of its own, so that workers do not slow each other down
/// where they ask for different names.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Shard {
    pub success: Half,
    pub denial: Half,
    pub flights: HashMap<u64, Flight, Plain>,
    pub counts: Counts,
}

/// Keys are hashes already.
pub(super) type Plain = BuildHasherDefault<Same>;

#[derive(Debug, Default)]
pub(super) struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0 << 8 | u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Entries of one sort. When it is full, the first one goes that is over or that nobody asked
/// for since the hand of the clock came by last.
#[derive(Debug)]
pub(super) struct Half {
    places: HashMap<u64, u32, Plain>,
    slots: Vec<Slot>,
    hand: usize,
    bytes: usize,
    most: usize,
    most_bytes: usize,
    /// How long entries are of use after they are over.
    stale: Duration,
    pub evictions: u64,
}

/// An entry's place.
#[derive(Debug)]
pub(super) struct Slot {
    hash: u64,
    pub entry: Arc<Entry>,
    /// What had data, where the entry that came after has none.
    pub good: Option<Arc<Entry>>,
    used: bool,
    /// Hits without a pause, and when the last one was.
    pub hits: u32,
    last: Instant,
    /// After a failed refresh the next one has to wait until then.
    pub rest_until: Option<Instant>,
}

impl Slot {
    fn bytes(&self) -> usize {
        let good = self.good.as_ref().map_or(0, |good| good.bytes);
        OVERHEAD + self.entry.bytes + good
    }

    /// Counts one more hit, from one where the last one was longer ago than `pause`.
    pub(super) fn hit(&mut self, now: Instant, pause: Duration) -> u32 {
        let paused = now.saturating_duration_since(self.last) > pause;
        self.hits = if paused {
            1
        } else {
            self.hits.saturating_add(1)
        };
        self.last = now;
        self.hits
    }
}

/// What an entry takes besides itself: its slot, its place in the index (which has room for
/// twice as many), the counts of its `Arc`.
const OVERHEAD: usize = size_of::<Slot>() + 32 + 16;

impl Half {
    pub(super) fn new(most: usize, most_bytes: usize, stale: Duration) -> Self {
        Self {
            places: HashMap::default(),
            slots: Vec::new(),
            hand: 0,
            bytes: 0,
            most,
            most_bytes,
            stale,
            evictions: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is kept under a hash; whether it is what was meant is the caller's to see.
    pub(super) fn slot(&mut self, hash: u64) -> Option<&mut Slot> {
        let place = *self.places.get(&hash)?;
        let slot = self.slots.get_mut(place as usize)?;
        slot.used = true;
        Some(slot)
    }

    /// Keeps an entry; false where it alone is more than there is room for.
    pub(super) fn put(&mut self, hash: u64, entry: Arc<Entry>, good: Option<Arc<Entry>>) -> bool {
        let now = entry.stored;
        let mut slot = Slot {
            hash,
            entry,
            good,
            used: false,
            hits: 0,
            last: now,
            rest_until: None,
        };
        if slot.bytes() > self.most_bytes {
            slot.good = None;
        }
        let bytes = slot.bytes();
        if bytes > self.most_bytes {
            return false;
        }
        // Whoever asked for what was here will ask again: prefetch goes by it.
        if let Some(before) = self.slot(hash) {
            (slot.hits, slot.last) = (before.hits, before.last);
            self.remove(hash);
        }
        while self.slots.len() >= self.most || self.bytes + bytes > self.most_bytes {
            self.evict(now);
        }
        self.bytes += bytes;
        self.places.insert(hash, self.slots.len() as u32);
        self.slots.push(slot);
        true
    }

    pub(super) fn remove(&mut self, hash: u64) {
        let Some(place) = self.places.remove(&hash) else {
            return;
        };
        let slot = self.slots.swap_remove(place as usize);
        self.bytes -= slot.bytes();
        if let Some(moved) = self.slots.get(place as usize) {
            self.places.insert(moved.hash, place);
        }
    }

    /// Makes room; there is at least one entry.
    fn evict(&mut self, now: Instant) {
        let stale = i64::try_from(self.stale.as_secs()).unwrap_or(i64::MAX);
        loop {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let Some(slot) = self.slots.get_mut(self.hand) else {
                return;
            };
            let over = -slot.entry.left(now) >= stale;
            if over || !slot.used {
                let hash = slot.hash;
                self.evictions += u64::from(!over);
                self.remove(hash);
                // What was last lies here now: its time is when the hand comes by again.
                self.hand += 1;
                return;
            }
            slot.used = false;
            self.hand += 1;
        }
    }
}
