//! How many packets are denied, and of how many nobody is told: the rules tell of at most some in
//! a second, and count all.

use linux::Nftables;
use model::Direction;
use nft::Family;
use policy::render::nftables::{TABLE, denied};

/// Packets of each direction, as [`Direction::ALL`] has them; nothing where no rule counts.
pub(crate) type Counted = [Option<u64>; 2];

/// What the kernel has counted.
pub(crate) fn read(nftables: &mut Nftables) -> linux::Result<Counted> {
    let mut counted = [None; 2];
    for (counted, direction) in counted.iter_mut().zip(Direction::ALL) {
        *counted = nftables.counted(Family::Inet, TABLE, &denied(direction))?;
    }
    Ok(counted)
}

/// What was counted, and what was told.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sides: [Side; 2],
    /// Told by the kernel, but there was no room, since the last look.
    lost: u64,
}

/// Since listening began, or since the kernel last counted from 0.
#[derive(Debug, Default)]
struct Side {
    /// What the counter was.
    counter: u64,
    denied: u64,
    told: u64,
    unseen: u64,
    /// Of `told`, since the last look.
    lately: u64,
}

/// What is new.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Denied packets, as [`Direction::ALL`] has the directions.
    pub denied: [u64; 2],
    /// Those that nobody was told of.
    pub unseen: Vec<(Option<Direction>, u64)>,
}

impl Counts {
    /// Begins with what there is; gives what was denied before.
    pub(crate) fn begin(&mut self, counted: &Counted) -> [u64; 2] {
        for (side, counted) in self.sides.iter_mut().zip(counted) {
            side.counter = counted.unwrap_or_default();
        }
        counted.map(Option::unwrap_or_default)
    }

    /// A packet was told.
    pub(crate) fn told(&mut self, direction: Direction) {
        for (side, of) in self.sides.iter_mut().zip(Direction::ALL) {
            let told = u64::from(of == direction);
            side.told += told;
            side.lately += told;
        }
    }

    /// So many were told, but there was no room for them.
    pub(crate) fn lost(&mut self, packets: u64) {
        self.lost += packets;
    }

    /// Compares with what the kernel counted before it told the last packet.
    pub(crate) fn take(&mut self, counted: &Counted) -> News {
        let mut news = News::default();
        let lost = std::mem::take(&mut self.lost);
        if counted.iter().all(Option::is_none) {
            // Rules that do not count: what was told is all that is known.
            news.denied = self
                .sides
                .each_mut()
                .map(|side| std::mem::take(&mut side.lately));
            news.unseen.extend((lost > 0).then_some((None, lost)));
            return news;
        }
        for (at, direction) in Direction::ALL.into_iter().enumerate() {
            let (side, now) = (&mut self.sides[at], counted[at].unwrap_or_default());
            if now < side.counter {
                // Its chain was made anew, and all that was told lately is of it.
                *side = Side {
                    told: side.lately,
                    ..Side::default()
                };
            }
            news.denied[at] = now - side.counter;
            side.denied += news.denied[at];
            side.counter = now;
            side.lately = 0;
            // Packets may have been told already that are not in this count.
            let unseen = side.denied.saturating_sub(side.told);
            let more = unseen.saturating_sub(side.unseen);
            side.unseen += more;
            news.unseen
                .extend((more > 0).then_some((Some(direction), more)));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INGRESS: Direction = Direction::Ingress;

    fn tell(counts: &mut Counts, packets: u64) {
        for _ in 0..packets {
            counts.told(INGRESS);
        }
    }

    fn news(denied: [u64; 2], unseen: &[(Option<Direction>, u64)]) -> News {
        News {
            denied,
            unseen: unseen.to_vec(),
        }
    }

    #[test]
    fn what_is_denied_and_not_told_is_unseen_once() {
        let mut counts = Counts::default();
        assert_eq!(counts.begin(&[Some(50), None]), [50, 0]);
        tell(&mut counts, 100);
        let flood = counts.take(&[Some(1050), None]);
        assert_eq!(flood, news([1000, 0], &[(Some(INGRESS), 900)]));
        assert_eq!(counts.take(&[Some(1050), None]), News::default());
        // Told, but counted only at the next look.
        tell(&mut counts, 3);
        assert_eq!(counts.take(&[Some(1052), None]), news([2, 0], &[]));
        assert_eq!(counts.take(&[Some(1053), None]), news([1, 0], &[]));
        tell(&mut counts, 1);
        let more = counts.take(&[Some(1060), Some(2)]);
        assert_eq!(
            more,
            news([7, 2], &[(Some(INGRESS), 6), (Some(Direction::Egress), 2)])
        );
    }

    #[test]
    fn a_counter_that_begins_anew_is_no_flood() {
        let mut counts = Counts::default();
        counts.begin(&[Some(1000), Some(0)]);
        tell(&mut counts, 5);
        assert_eq!(counts.take(&[Some(1005), Some(0)]), news([5, 0], &[]));
        tell(&mut counts, 2);
        assert_eq!(counts.take(&[Some(2), Some(0)]), news([2, 0], &[]));
        tell(&mut counts, 1);
        assert_eq!(counts.take(&[None, Some(0)]), news([0, 0], &[]));
        let anew = counts.take(&[Some(3), Some(0)]);
        assert_eq!(anew, news([3, 0], &[(Some(INGRESS), 2)]));
    }

    #[test]
    fn without_counters_what_is_told_is_counted() {
        let mut counts = Counts::default();
        assert_eq!(counts.begin(&[None, None]), [0, 0]);
        tell(&mut counts, 5);
        counts.lost(7);
        assert_eq!(counts.take(&[None, None]), news([5, 0], &[(None, 7)]));
        assert_eq!(counts.take(&[None, None]), News::default());
    }
}
