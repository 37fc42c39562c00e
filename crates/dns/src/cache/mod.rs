//! The cache: answers that came from elsewhere, kept as long as they hold.
//!
//! What it keeps and for how long is what `CoreDNS` keeps; time is an argument. Every record of
//! an answer has the least TTL of them all, on the way in and out. Answers made from the watched
//! state ([`Answer::live`]) are never kept, so that a change in the cluster is in the next
//! answer.
//!
//! It is cut into shards, each with a lock that is held for a look-up only, and bounded in
//! entries and in bytes. Equal questions under way are asked once: the others wait.

mod entry;
mod metrics;
mod shard;
#[cfg(test)]
mod tests;
mod through;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::corefile::plugins::{Cache as Options, CacheLimits, Refresh};
use crate::query::{Answer, Query};
use crate::wire::{Name, Question, Rcode, Type};
use entry::{Entry, Key, Kind};
pub use metrics::Caches;
use shard::{Counts, Flight, Half, Landed, Shard};
pub use through::Renewal;

/// So many parts with a lock each.
const SHARDS: usize = 64;
/// So much memory an entry may take on average: usual ones take half.
const BYTES_EACH: usize = 1024;
/// At least so much has a shard's half, so that it takes any message.
const LEAST_BYTES: usize = 96 << 10;

/// A server block's cache.
#[derive(Debug)]
pub struct Cache {
    options: Options,
    /// Zones that are asked always.
    bypass: Vec<Name>,
    /// Makes hashes unpredictable.
    seed: [u64; 2],
    shards: Box<[Mutex<Shard>]>,
}

/// What is in the cache about a question.
#[derive(Debug)]
enum Look {
    /// Not the cache's matter.
    Pass,
    /// This.
    Hit(Answer),
    /// This, and it is time to ask again for those who come later.
    Early(Answer, Ticket),
    /// Something too old, which is still better than nothing.
    Verify(Arc<Entry>, Verify),
    /// Nothing.
    Miss(Ticket),
    /// Nothing yet, but somebody asked.
    Wait(watch::Receiver<Landed>),
}

/// How a stale answer is checked.
#[derive(Debug)]
enum Verify {
    /// By asking.
    Ask(Ticket),
    /// Somebody else does.
    Wait(watch::Receiver<Landed>),
}

/// The right and the duty to ask a question and to tell the others what came of it.
#[derive(Debug)]
struct Ticket {
    cache: Arc<Cache>,
    hash: u64,
    key: Key,
    /// Another question of the same hash is under way: nobody waits for this one.
    alone: bool,
    landed: bool,
}

/// What the cache has counted, for `coredns_cache_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the metric of that name")]
pub struct Figures {
    pub entries_success: u64,
    pub entries_denial: u64,
    pub requests: u64,
    pub hits_success: u64,
    pub hits_denial: u64,
    pub misses: u64,
    pub prefetch: u64,
    /// Answers that alone are more than there is room for.
    pub drops: u64,
    pub served_stale: u64,
    pub evictions_success: u64,
    pub evictions_denial: u64,
    /// Memory that the entries take.
    pub bytes: u64,
}

/// What became of an answer on its way through.
struct Kept {
    answer: Answer,
    /// It is good enough in place of something stale (RFC 8767, section 4).
    refreshed: bool,
}

impl Cache {
    /// An empty cache. `bypass` are zones whose names the cache need not look for, since all of
    /// their answers are live: those of the cluster without `fallthrough`.
    pub fn new(options: Options, bypass: Vec<Name>) -> Self {
        let stale = options.serve_stale.map_or(Duration::ZERO, |s| s.duration);
        let half = |limits: CacheLimits| {
            let most = (limits.capacity / SHARDS).max(1);
            Half::new(most, (most * BYTES_EACH).max(LEAST_BYTES), stale)
        };
        let shard = || Shard {
            success: half(options.success),
            denial: half(options.denial),
            flights: Default::default(),
            counts: Counts::default(),
        };
        Self {
            seed: [rand::random(), rand::random()],
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            options,
            bypass,
        }
    }

    /// What has been counted so far.
    pub fn figures(&self) -> Figures {
        let mut sum = Figures::default();
        for shard in &self.shards {
            let shard = lock(shard);
            let counts = shard.counts;
            sum.entries_success += shard.success.len() as u64;
            sum.entries_denial += shard.denial.len() as u64;
            sum.requests += counts.requests;
            sum.hits_success += counts.hits_success;
            sum.hits_denial += counts.hits_denial;
            sum.misses += counts.misses;
            sum.prefetch += counts.prefetches;
            sum.drops += counts.drops;
            sum.served_stale += counts.stale;
            sum.evictions_success += shard.success.evictions;
            sum.evictions_denial += shard.denial.evictions;
            sum.bytes += (shard.success.bytes() + shard.denial.bytes()) as u64;
        }
        sum
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        lock(&self.shards[(hash >> 32) as usize % SHARDS])
    }

    fn is_passed(&self, question: &Question) -> bool {
        let (name, zones) = (&question.name, &self.options.zones);
        is_in(&self.bypass, name)
            || !zones.is_empty() && !is_in(zones, name)
            || matches!(question.kind, Type::AXFR | Type::IXFR)
    }

    /// Looks for an answer.
    fn look(self: &Arc<Self>, query: &Query) -> Look {
        if self.is_passed(&query.question) {
            return Look::Pass;
        }
        let hash = hash(self.seed, query);
        let now = query.now;
        let mut shard = self.shard(hash);
        let shard = &mut *shard;
        shard.counts.requests += 1;
        let Some((entry, half)) = self.find(shard, hash, query) else {
            shard.counts.misses += 1;
            return match self.board(shard, hash, query) {
                Ok(ticket) => Look::Miss(ticket),
                Err(flight) => Look::Wait(flight),
            };
        };
        match half {
            Found::Success => shard.counts.hits_success += 1,
            Found::Denial => shard.counts.hits_denial += 1,
        }
        let left = entry.left(now);
        if left <= 0 {
            return self.stale(shard, hash, query, entry, half);
        }
        if let Some(prefetch) = self.options.prefetch.filter(|p| p.amount > 0) {
            let slot = half.of(shard).slot(hash);
            let hits = slot.map_or(0, |slot| slot.hit(now, prefetch.duration));
            if hits >= prefetch.amount
                && entry.is_nearly_over(now, prefetch.percentage)
                && let Some(ticket) = self.board_alone(shard, hash, query)
            {
                shard.counts.prefetches += 1;
                return Look::Early(entry.answer(query, self.shown(left)), ticket);
            }
        }
        // The records are copied below, without the lock.
        Look::Hit(entry.answer(query, self.shown(left)))
    }

    /// The TTL an answer is given with.
    fn shown(&self, left: i64) -> Option<u32> {
        let left = u32::try_from(left.max(0)).unwrap_or(0);
        (!self.options.keepttl).then_some(left)
    }

    fn find(&self, shard: &mut Shard, hash: u64, query: &Query) -> Option<(Arc<Entry>, Found)> {
        let stale = self.options.serve_stale;
        let most = stale.map_or(0, |s| {
            i64::try_from(s.duration.as_secs()).unwrap_or(i64::MAX)
        });
        let holds = |entry: &Entry| {
            let left = entry.left(query.now);
            // A failure that is over is no answer at all.
            let most = if entry.kind == Kind::Failure { 0 } else { most };
            entry.key.is_of(query) && (left > 0 || -left < most)
        };
        if stale.is_some_and(|s| s.prefer_positive)
            && let Some(slot) = shard.success.slot(hash)
        {
            let candidates = [Some(&slot.entry), slot.good.as_ref()]
                .into_iter()
                .flatten();
            let mut good = candidates.filter(|entry| entry.answering && holds(entry));
            if let Some(entry) = good.next() {
                return Some((Arc::clone(entry), Found::Success));
            }
        }
        let mut one = |half: Found| {
            let entry = &half.of(shard).slot(hash)?.entry;
            holds(entry).then(|| (Arc::clone(entry), half))
        };
        match one(Found::Denial) {
            // A failure passes; it does not hide what is known.
            Some(failure) if failure.0.kind == Kind::Failure => {
                one(Found::Success).or(Some(failure))
            }
            Some(denial) => Some(denial),
            None => one(Found::Success),
        }
    }

    /// What comes of an answer that is too old.
    fn stale(
        self: &Arc<Self>,
        shard: &mut Shard,
        hash: u64,
        query: &Query,
        entry: Arc<Entry>,
        half: Found,
    ) -> Look {
        let Some(stale) = self.options.serve_stale else {
            return Look::Pass;
        };
        let slot = half.of(shard).slot(hash);
        let rests = slot.is_some_and(|s| s.rest_until.is_some_and(|until| query.now < until));
        let verify = match stale.refresh {
            _ if rests => None,
            Refresh::Immediate => match self.board_alone(shard, hash, query) {
                Some(ticket) => {
                    shard.counts.prefetches += 1;
                    shard.counts.stale += 1;
                    return Look::Early(self.old(&entry, query), ticket);
                }
                None => None,
            },
            // Who comes while somebody checks, for a bounded time, gets what there is.
            Refresh::Verify(Some(_)) => self.board_alone(shard, hash, query).map(Verify::Ask),
            Refresh::Verify(None) => Some(match self.board(shard, hash, query) {
                Ok(ticket) => Verify::Ask(ticket),
                Err(flight) => Verify::Wait(flight),
            }),
        };
        match verify {
            Some(verify) => Look::Verify(entry, verify),
            None => {
                shard.counts.stale += 1;
                Look::Hit(self.old(&entry, query))
            }
        }
    }

    /// An answer that is too old, as it is given.
    fn old(&self, entry: &Entry, query: &Query) -> Answer {
        let ttl = self.options.serve_stale.map_or(0, |stale| stale.ttl);
        let keep = self.options.keepttl && ttl == 0;
        entry.answer(query, (!keep).then_some(ttl))
    }

    /// Counts and gives an answer that is too old, since nothing better came.
    fn give_old(&self, entry: &Entry, query: &Query) -> Answer {
        self.shard(hash(self.seed, query)).counts.stale += 1;
        self.old(entry, query)
    }

    /// The right to ask, or somebody to wait for.
    fn board(
        self: &Arc<Self>,
        shard: &mut Shard,
        hash: u64,
        query: &Query,
    ) -> Result<Ticket, watch::Receiver<Landed>> {
        let mut alone = false;
        if let Some(flight) = shard.flights.get_mut(&hash) {
            if flight.key.is_of(query) {
                let told = || watch::Sender::new(Landed::Nothing);
                return Err(flight.told.get_or_insert_with(told).subscribe());
            }
            alone = true;
        }
        let key = Key::of(query);
        if !alone {
            let flight = Flight {
                key: key.clone(),
                told: None,
            };
            shard.flights.insert(hash, flight);
        }
        Ok(Ticket {
            cache: Arc::clone(self),
            hash,
            key,
            alone,
            landed: false,
        })
    }

    /// The right to ask, where nobody else does.
    fn board_alone(self: &Arc<Self>, shard: &mut Shard, hash: u64, q: &Query) -> Option<Ticket> {
        if shard.flights.contains_key(&hash) {
            return None;
        }
        self.board(shard, hash, q).ok()
    }

    /// Takes in what came for a question, and says what is answered. With `verify` only what may
    /// replace something stale is kept.
    fn keep(&self, ticket: &mut Ticket, answer: Answer, verify: bool, now: Instant) -> Kept {
        if answer.live {
            self.land(ticket, Landed::AskYourself);
            return Kept {
                answer,
                refreshed: true,
            };
        }
        let mut answer = answer;
        let kind = entry::kind(&ticket.key.question, &answer, ticket.key.dnssec, wall());
        let ttl = self.ttl_of(&answer, kind);
        answer.options.clear();
        let sections = [
            &mut answer.answers,
            &mut answer.authorities,
            &mut answer.additionals,
        ];
        for record in sections.into_iter().flatten() {
            record.ttl = ttl;
        }
        let prefers = self.options.serve_stale.is_some_and(|s| s.prefer_positive);
        let entry = Arc::new(Entry::new(ticket.key.clone(), &answer, kind, ttl, now));
        let refreshed = if prefers {
            kind == Kind::Success && entry.answering
        } else {
            kind != Kind::Other && matches!(answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN)
        };
        if kind != Kind::Other && ttl > 0 && (!verify || refreshed || prefers) {
            self.store(ticket.hash, &entry, prefers);
        }
        self.land(
            ticket,
            match answer.truncated {
                // How much fits depends on who asks.
                true => Landed::AskYourself,
                false => Landed::Answer(entry),
            },
        );
        Kept { answer, refreshed }
    }

    /// How long an answer is kept and may be kept by others, in seconds.
    fn ttl_of(&self, answer: &Answer, kind: Kind) -> u32 {
        let limits = match kind {
            Kind::Failure => return u32::try_from(self.options.servfail.as_secs()).unwrap_or(0),
            Kind::Denial => self.options.denial,
            _ if answer.rcode == Rcode::NXDOMAIN => self.options.denial,
            Kind::Success | Kind::Other => self.options.success,
        };
        entry::ttl(answer, kind)
            .max(limits.min_ttl)
            .min(limits.max_ttl)
    }

    fn store(&self, hash: u64, entry: &Arc<Entry>, prefers: bool) {
        let name = &entry.key.question.name;
        let mut shard = self.shard(hash);
        let shard = &mut *shard;
        let kept = match entry.kind {
            Kind::Success if is_in(&self.options.disable_success, name) => return,
            Kind::Success => {
                if !prefers || entry.answering {
                    shard.denial.remove(hash);
                }
                let good = match shard.success.slot(hash) {
                    Some(slot) if prefers && !entry.answering => {
                        let before = [Some(&slot.entry), slot.good.as_ref()];
                        let good = |e: &&Arc<Entry>| e.answering && e.key == entry.key;
                        before.into_iter().flatten().find(good).cloned()
                    }
                    _ => None,
                };
                shard.success.put(hash, Arc::clone(entry), good)
            }
            _ if is_in(&self.options.disable_denial, name) => return,
            Kind::Denial => {
                if !prefers {
                    shard.success.remove(hash);
                }
                shard.denial.put(hash, Arc::clone(entry), None)
            }
            Kind::Failure => shard.denial.put(hash, Arc::clone(entry), None),
            Kind::Other => return,
        };
        shard.counts.drops += u64::from(!kept);
    }

    /// Nothing came for a stale answer: the next attempt may have to wait.
    fn rest(&self, hash: u64, now: Instant) {
        let recheck = self
            .options
            .serve_stale
            .map_or(Duration::ZERO, |s| s.recheck);
        if recheck.is_zero() {
            return;
        }
        let mut shard = self.shard(hash);
        for half in [Found::Success, Found::Denial] {
            if let Some(slot) = half.of(&mut shard).slot(hash) {
                slot.rest_until = Some(now + recheck);
            }
        }
    }

    /// Ends a question's way and tells those who wait for it.
    fn land(&self, ticket: &mut Ticket, landed: Landed) {
        ticket.landed = true;
        if ticket.alone {
            return;
        }
        let flight = self.shard(ticket.hash).flights.remove(&ticket.hash);
        if let Some(told) = flight.and_then(|flight| flight.told) {
            // Without receivers there is nobody left to tell.
            let _ = told.send(landed);
        }
    }
}

/// Who asked went away: those who wait see to it themselves.
impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.landed {
            let cache = Arc::clone(&self.cache);
            cache.land(self, Landed::Nothing);
        }
    }
}

/// Which half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Success,
    Denial,
}

impl Found {
    fn of(self, shard: &mut Shard) -> &mut Half {
        match self {
            Self::Success => &mut shard.success,
            Self::Denial => &mut shard.denial,
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_in(zones: &[Name], name: &Name) -> bool {
    zones.iter().any(|zone| name.is_within(zone))
}

/// Seconds since 1970, for the times in signatures.
fn wall() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as u32)
}

/// A hash of what an answer is kept under, letters in any case: folded multiplications, which
/// nobody who does not know the seed can aim. Where two are the same, only one is kept.
fn hash(seed: [u64; 2], query: &Query) -> u64 {
    let name = query.question.name.as_bytes();
    let mut padded = [0_u8; 256];
    let whole = name.len().next_multiple_of(16).min(256);
    padded[..name.len()].copy_from_slice(name);
    // Lengths of labels are below 64, so below any letter.
    padded[..whole].make_ascii_lowercase();
    let flags = u64::from(entry::wants_dnssec(query)) << 1 | u64::from(query.checking_disabled);
    let kinds = u64::from(query.question.kind.0) << 16 | u64::from(query.question.class.0);
    let mut state = fold(seed[0] ^ (flags << 32 | kinds), seed[1] ^ name.len() as u64);
    let (pairs, _) = padded[..whole].as_chunks::<16>();
    for pair in pairs {
        let (halves, _) = pair.as_chunks::<8>();
        let [low, high] = [halves[0], halves[1]].map(u64::from_le_bytes);
        state = fold(low ^ seed[1], high ^ state);
    }
    fold(state, seed[0])
}

fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left ^ 0x9e37_79b9_7f4a_7c15) * u128::from(right | 1 << 63);
    (product >> 64) as u64 ^ product as u64
}
