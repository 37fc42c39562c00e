//! The last events, for readers who come and go.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::Event;

/// The last events, numbered from 0. Whoever reads keeps the number it wants next, so that
/// readers cost nothing here and a slow one holds up nobody.
#[derive(Debug)]
pub struct Ring {
    room: usize,
    events: VecDeque<Arc<Event>>,
    /// The number of the next event.
    next: u64,
}

/// What a reader gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// So many events it wanted are gone.
    pub missed: u64,
    /// The number of the first.
    pub first: u64,
    /// In their order.
    pub events: Vec<Arc<Event>>,
}

impl Batch {
    /// What the reader wants next.
    pub fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

impl Ring {
    /// Keeps so many.
    pub fn new(room: usize) -> Self {
        Self {
            room: room.max(1),
            events: VecDeque::new(),
            next: 0,
        }
    }

    /// Adds one; gives the number of the one after it.
    pub fn push(&mut self, event: Event) -> u64 {
        if self.events.len() >= self.room {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(event));
        self.next += 1;
        self.next
    }

    /// The number of the next event.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The events from a number on, at most so many at once.
    pub fn from(&self, wanted: u64, most: usize) -> Batch {
        let oldest = self.next - self.events.len() as u64;
        let first = wanted.clamp(oldest, self.next);
        let skip = usize::try_from(first - oldest).unwrap_or(usize::MAX);
        Batch {
            missed: first.saturating_sub(wanted),
            first,
            events: self.events.iter().skip(skip).take(most).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::Unseen;

    fn event(packets: u64) -> Event {
        Event::Unseen(Unseen {
            time: Timestamp::UNIX_EPOCH,
            node: "node1".into(),
            direction: None,
            packets,
        })
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        let numbers = batch.events.iter().map(|event| match &**event {
            Event::Unseen(unseen) => unseen.packets,
            Event::Drop(_) => unreachable!(),
        });
        numbers.collect()
    }

    #[test]
    fn who_comes_late_knows_what_it_missed() {
        let mut ring = Ring::new(3);
        assert_eq!(ring.from(0, 10), Batch::default());
        for number in 0..5 {
            assert_eq!(ring.push(event(number)), number + 1);
        }
        let batch = ring.from(0, 2);
        assert_eq!((batch.missed, numbers(&batch)), (2, vec![2, 3]));
        let batch = ring.from(batch.next(), 2);
        assert_eq!((batch.missed, numbers(&batch)), (0, vec![4]));
        assert_eq!(batch.next(), ring.next());
        // A number of another run.
        assert_eq!(ring.from(99, 2).next(), 5);
    }

    proptest! {
        /// Whatever its pace, a reader gets each event or is told that it missed it, in order.
        #[test]
        fn read_and_missed_are_all(
            room in 1_usize..8,
            steps in prop::collection::vec((0_u64..10, 0_usize..6), 0..50),
        ) {
            let mut ring = Ring::new(room);
            let (mut wanted, mut expected, mut pushed) = (0, 0, 0);
            for (pushes, reads) in steps {
                for _ in 0..pushes {
                    ring.push(event(pushed));
                    pushed += 1;
                }
                let batch = ring.from(wanted, reads);
                expected += batch.missed;
                for number in numbers(&batch) {
                    prop_assert_eq!(number, expected);
                    expected += 1;
                }
                wanted = batch.next();
                prop_assert_eq!(wanted, expected);
                prop_assert!(ring.events.len() <= room);
            }
        }
    }
}
