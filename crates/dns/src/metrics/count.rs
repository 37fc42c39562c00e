//! Counting without contention: each counter is written by one worker only.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::wire::Rcode;

/// A number that one thread counts up and any may read.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// Counts up. There is one writer, so that no locked instruction is needed.
    #[inline]
    pub(super) fn add(&self, more: u64) {
        let next = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(next, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many values there were up to each bound, and their sum.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    /// The last bound, that of everything, is not in `bounds`.
    bounds: &'static [u64; N],
    counts: [Count; N],
    beyond: Count,
    sum: Count,
}

impl<const N: usize> Histogram<N> {
    pub(super) fn new(bounds: &'static [u64; N]) -> Self {
        Self {
            bounds,
            counts: std::array::from_fn(|_| Count::default()),
            beyond: Count::default(),
            sum: Count::default(),
        }
    }

    #[inline]
    pub(super) fn observe(&self, value: u64, times: u64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound);
        bucket
            .map_or(&self.beyond, |bucket| &self.counts[bucket])
            .add(times);
        self.sum.add(value.saturating_mul(times));
    }

    /// Adds this histogram's values to others'.
    pub(super) fn add_to(&self, total: &mut Total<N>) {
        for (sum, count) in total.counts.iter_mut().zip(&self.counts) {
            *sum += count.get();
        }
        total.beyond += self.beyond.get();
        total.sum += self.sum.get();
    }
}

/// The histograms of all workers together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Total<const N: usize> {
    pub(super) counts: [u64; N],
    pub(super) beyond: u64,
    pub(super) sum: u64,
}

impl<const N: usize> Default for Total<N> {
    fn default() -> Self {
        Self {
            counts: [0; N],
            beyond: 0,
            sum: 0,
        }
    }
}

impl<const N: usize> Total<N> {
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.beyond
    }
}

/// 0.25 ms to 8.192 s, in nanoseconds.
pub(super) const TIMES: [u64; 16] = {
    let mut bounds = [250_000; 16];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
};
/// Bytes.
pub(super) const SIZES: [u64; 14] = [
    0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000,
];

/// Nanoseconds, as histograms count them.
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// So many kinds of responses are told apart: a dozen plugins with a few codes each.
const KINDS: usize = 64;

/// Responses by their code and the plugin they come from.
#[derive(Debug)]
pub(super) struct Responses {
    kinds: [OnceLock<(Rcode, &'static str)>; KINDS],
    counts: [Count; KINDS],
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            kinds: [const { OnceLock::new() }; KINDS],
            counts: std::array::from_fn(|_| Count::default()),
        }
    }
}

impl Responses {
    #[inline]
    pub(super) fn add(&self, rcode: Rcode, plugin: &'static str) {
        for (kind, count) in self.kinds.iter().zip(&self.counts) {
            let (known, by) = kind.get_or_init(|| (rcode, plugin));
            if *known == rcode && (std::ptr::eq(*by, plugin) || *by == plugin) {
                count.add(1);
                return;
            }
        }
    }

    /// Each kind that occurred.
    pub(super) fn each(&self) -> impl Iterator<Item = ((Rcode, &'static str), u64)> {
        let known = self.kinds.iter().map_while(OnceLock::get);
        known.copied().zip(self.counts.iter().map(Count::get))
    }
}
