//! Who announces what, among the nodes that may. Pure: the clock is an argument.
//!
//! A Lease for each slot says who announces it; it is written only when that changes. That the
//! holder lives it shows by one Lease of its own, renewed all the time, whatever number of slots
//! it holds. Who is silent for too long loses its slots, unless it still answers on the link: a
//! slow API server is no reason to break its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use services::announce::Slot;

/// How often a holder shows that it lives.
pub(super) const BEAT: Duration = Duration::from_millis(400);
/// Who is silent for this long loses what it holds.
pub(super) const SILENCE: Duration = Duration::from_millis(1200);
/// From this on the link is asked too.
const DOUBT: Duration = Duration::from_millis(800);
/// How often it is asked.
const PROBE: Duration = Duration::from_millis(200);
/// An answer counts for this long.
const ANSWER: Duration = Duration::from_millis(1000);
/// Who only answers on the link, but knows nothing of the cluster any more, loses it after this.
const CUT_OFF: Duration = Duration::from_secs(10);
/// After a failed attempt.
const RETRY: Duration = Duration::from_millis(200);
/// So that not all try at the same moment: in so many steps of this.
const STAGGER: Duration = Duration::from_millis(40);
const STEPS: u64 = 4;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Try to become the holder, if the last holder is still this one, and its heart has not
    /// beaten since this version.
    Take {
        slot: Slot,
        from: Option<(String, Option<String>)>,
    },
    /// Give the Lease of this name back.
    Release(String),
    /// Ask the link whether somebody answers for it.
    Probe(Slot),
}

#[derive(Debug)]
struct Beat {
    version: String,
    since: Instant,
}

#[derive(Debug)]
struct Held {
    holder: String,
    since: Instant,
}

#[derive(Debug, Default)]
struct Wish {
    under_way: bool,
    not_before: Option<Instant>,
    probed: Option<Instant>,
    answered: Option<Instant>,
    /// Somebody else answers for it, and the API cannot be asked who is right.
    yielded: bool,
}

/// One node's view of all elections.
#[derive(Debug)]
pub(super) struct Election {
    me: String,
    /// By the name of the Lease.
    leases: BTreeMap<String, Held>,
    /// By node.
    beats: BTreeMap<String, Beat>,
    /// Slots this node may hold.
    wishes: BTreeMap<Slot, Wish>,
    names: BTreeMap<String, Slot>,
    releasing: BTreeSet<String>,
    /// Everything has been told: what is held without a wish is given back.
    ready: bool,
}

impl Election {
    pub(super) fn new(me: &str) -> Self {
        Self {
            me: me.to_owned(),
            leases: BTreeMap::new(),
            beats: BTreeMap::new(),
            wishes: BTreeMap::new(),
            names: BTreeMap::new(),
            releasing: BTreeSet::new(),
            ready: false,
        }
    }

    /// The slots this node may hold are all known from now on.
    pub(super) fn ready(&mut self) {
        self.ready = true;
    }

    pub(super) fn want(&mut self, slot: Slot) {
        self.names.insert(slot.lease(), slot.clone());
        self.wishes.entry(slot).or_default();
    }

    pub(super) fn unwant(&mut self, slot: &Slot) {
        self.names.remove(&slot.lease());
        self.wishes.remove(slot);
    }

    /// A slot's Lease says who holds it; nobody where the name is empty.
    pub(super) fn saw_holder(&mut self, lease: &str, holder: &str, now: Instant) {
        let same = self.leases.get(lease).is_some_and(|h| h.holder == holder);
        if !same {
            let held = Held {
                holder: holder.to_owned(),
                since: now,
            };
            self.leases.insert(lease.to_owned(), held);
        }
    }

    pub(super) fn lease_gone(&mut self, lease: &str) {
        self.leases.remove(lease);
    }

    /// A node's heart has beaten.
    pub(super) fn saw_beat(&mut self, node: &str, version: &str, now: Instant) {
        if self.beats.get(node).is_none_or(|b| b.version != version) {
            let beat = Beat {
                version: version.to_owned(),
                since: now,
            };
            self.beats.insert(node.to_owned(), beat);
        }
    }

    /// The API could not be asked: silence says nothing, and is measured anew.
    pub(super) fn blind(&mut self, now: Instant) {
        for beat in self.beats.values_mut() {
            beat.since = now;
        }
        for held in self.leases.values_mut() {
            held.since = now;
        }
    }

    /// An attempt to take the slot is over.
    pub(super) fn tried(&mut self, slot: &Slot, now: Instant) {
        if let Some(wish) = self.wishes.get_mut(slot) {
            wish.under_way = false;
            wish.not_before = Some(now + RETRY);
        }
    }

    /// A Lease was given back, or not.
    pub(super) fn released(&mut self, lease: &str) {
        self.releasing.remove(lease);
    }

    /// Somebody else answers for an address of the slot.
    pub(super) fn answered(&mut self, slot: &Slot, now: Instant) {
        if let Some(wish) = self.wishes.get_mut(slot) {
            wish.answered = Some(now);
        }
    }

    /// Somebody else answers for a slot that this node holds, and the API cannot be asked.
    pub(super) fn give_way(&mut self, slot: &Slot) {
        if let Some(wish) = self.wishes.get_mut(slot) {
            wish.yielded = true;
        }
    }

    /// The Leases have been read anew: they say who is right.
    pub(super) fn reconnected(&mut self) {
        for wish in self.wishes.values_mut() {
            wish.yielded = false;
        }
    }

    /// Whether this node announces the slot.
    pub(super) fn holds(&self, slot: &Slot) -> bool {
        let wish = self.wishes.get(slot);
        wish.is_some_and(|wish| !wish.yielded) && self.is_mine(&slot.lease())
    }

    /// Leases that name this node.
    pub(super) fn mine(&self) -> impl Iterator<Item = &String> {
        let mine = self
            .leases
            .iter()
            .filter(|(_, held)| held.holder == self.me);
        mine.map(|(name, _)| name)
    }

    /// Whether others must see this node's heart beat.
    pub(super) fn must_beat(&self) -> bool {
        let mut wishes = self.wishes.iter();
        wishes.any(|(slot, wish)| wish.under_way || self.is_mine(&slot.lease()))
    }

    /// What is to be done now, and when to ask again.
    pub(super) fn step(&mut self, now: Instant) -> (Vec<Act>, Option<Instant>) {
        let mut acts = Vec::new();
        let mut next: Option<Instant> = None;
        if self.ready {
            let stray: Vec<String> = self
                .mine()
                .filter(|name| !self.names.contains_key(*name))
                .filter(|name| !self.releasing.contains(*name))
                .cloned()
                .collect();
            self.releasing.extend(stray.iter().cloned());
            acts.extend(stray.into_iter().map(Act::Release));
        }
        for (slot, wish) in &mut self.wishes {
            let held = self.leases.get(&slot.lease());
            let rival = held.filter(|held| !held.holder.is_empty());
            if wish.under_way || rival.is_some_and(|held| held.holder == self.me) {
                continue;
            }
            let mut wait = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
            if let Some(at) = wish.not_before.filter(|at| *at > now) {
                wait(at);
                continue;
            }
            let stagger = stagger(slot, &self.me);
            let Some(rival) = rival else {
                // Nobody: the moment it became so is when everybody learns of it.
                let since = held.map(|held| held.since);
                let at = since.map_or(now, |since| since + stagger);
                let at = wish.not_before.map_or(at, |not_before| at.max(not_before));
                if held.is_none() && wish.not_before.is_none() {
                    wish.not_before = Some(now + stagger);
                    wait(now + stagger);
                } else if at <= now {
                    wish.under_way = true;
                    acts.push(Act::Take {
                        slot: slot.clone(),
                        from: None,
                    });
                } else {
                    wait(at);
                }
                continue;
            };
            let beat = self.beats.get(&rival.holder);
            let since = beat.map_or(rival.since, |beat| beat.since.max(rival.since));
            if now < since + DOUBT {
                wait(since + DOUBT);
                continue;
            }
            if wish.probed.is_none_or(|at| at + PROBE <= now) {
                wish.probed = Some(now);
                acts.push(Act::Probe(slot.clone()));
            }
            let answers = wish.answered.is_some_and(|at| now < at + ANSWER);
            let silence = if answers { CUT_OFF } else { SILENCE };
            if now < since + silence + stagger {
                wait((since + silence + stagger).min(now + PROBE));
                continue;
            }
            wish.under_way = true;
            let version = beat.map(|beat| beat.version.clone());
            acts.push(Act::Take {
                slot: slot.clone(),
                from: Some((rival.holder.clone(), version)),
            });
        }
        (acts, next)
    }

    fn is_mine(&self, lease: &str) -> bool {
        let held = self.leases.get(lease);
        held.is_some_and(|held| held.holder == self.me)
    }
}

/// How long this node lets others go first: another order for each slot, so that slots are
/// spread over nodes.
fn stagger(slot: &Slot, me: &str) -> Duration {
    // FNV-1a, which is the same in every process.
    let text = slot.lease();
    let bytes = text.bytes().chain(me.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    STAGGER * u32::try_from((hash >> 32) % STEPS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot::Address("10.0.1.200".parse().unwrap())
    }

    struct World {
        election: Election,
        begun: Instant,
    }

    impl World {
        fn new() -> Self {
            let mut election = Election::new("b");
            election.want(slot());
            election.ready();
            Self {
                election,
                begun: Instant::now(),
            }
        }

        fn at(&self, millis: u64) -> Instant {
            self.begun + Duration::from_millis(millis)
        }

        fn saw(&mut self, holder: &str, millis: u64) {
            let at = self.at(millis);
            self.election.saw_holder(&slot().lease(), holder, at);
        }

        fn beat(&mut self, node: &str, version: &str, millis: u64) {
            let at = self.at(millis);
            self.election.saw_beat(node, version, at);
        }

        fn acts(&mut self, millis: u64) -> Vec<Act> {
            let at = self.at(millis);
            self.election.step(at).0
        }

        /// When, by the clock, it tries to take the slot.
        fn takes_at(&mut self, from: u64, until: u64) -> Option<u64> {
            (from..=until).find(|millis| {
                let acts = self.acts(*millis);
                acts.iter().any(|act| matches!(act, Act::Take { .. }))
            })
        }
    }

    #[test]
    fn nobodys_slot_is_taken_at_once() {
        let mut world = World::new();
        assert!(world.takes_at(0, 1000).unwrap() <= 160);
        let mut world = World::new();
        world.saw("", 0);
        assert!(world.takes_at(0, 1000).unwrap() <= 160);
        assert_eq!(world.takes_at(160, 1000), None, "only once at a time");
    }

    #[test]
    fn a_holder_keeps_it_as_long_as_its_heart_beats_and_loses_it_after_silence() {
        let mut world = World::new();
        world.saw("a", 0);
        for beat in 0..10 {
            world.beat("a", &beat.to_string(), beat * 400);
            assert_eq!(world.takes_at(beat * 400, beat * 400 + 399), None);
        }
        let taken = world.takes_at(4000, 6000).unwrap();
        assert!((4800..=4960).contains(&taken), "{taken}");
    }

    #[test]
    fn who_still_answers_on_the_link_is_given_more_time() {
        let mut world = World::new();
        world.saw("a", 0);
        world.beat("a", "1", 0);
        let mut probes = 0;
        for millis in 0..9_900 {
            for act in world.acts(millis) {
                match act {
                    Act::Probe(slot) => {
                        probes += 1;
                        let at = world.at(millis);
                        world.election.answered(&slot, at);
                    }
                    other => panic!("{other:?} at {millis}"),
                }
            }
        }
        assert!((40..50).contains(&probes), "{probes}");
        assert!(world.takes_at(9_900, 10_200).is_some());
    }

    #[test]
    fn a_time_without_the_api_is_no_silence() {
        let mut world = World::new();
        world.saw("a", 0);
        world.beat("a", "1", 0);
        let at = world.at(1100);
        world.election.blind(at);
        let taken = world.takes_at(1100, 4000).unwrap();
        assert!((2300..=2460).contains(&taken), "{taken}");
    }

    #[test]
    fn what_a_node_may_no_longer_hold_it_gives_back_but_not_before_it_knows() {
        let mut world = World::new();
        world.saw("b", 0);
        assert!(world.election.holds(&slot()) && world.election.must_beat());
        assert!(world.acts(0).is_empty());
        world.election.unwant(&slot());
        world.election.ready = false;
        assert!(world.acts(1).is_empty());
        world.election.ready();
        assert_eq!(world.acts(2), [Act::Release(slot().lease())]);
        assert!(world.acts(3).is_empty(), "only once at a time");
        assert!(!world.election.must_beat());
    }

    #[test]
    fn who_gave_way_announces_again_only_when_the_leases_say_so() {
        let mut world = World::new();
        world.saw("b", 0);
        world.election.give_way(&slot());
        assert!(!world.election.holds(&slot()));
        world.election.reconnected();
        assert!(world.election.holds(&slot()));
        world.saw("a", 10);
        assert!(!world.election.holds(&slot()));
    }
}
