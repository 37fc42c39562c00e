//! Places for connections: bounded, and who has been idle the longest leaves for a new one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Notify;

/// The places of one worker.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    next: Cell<u64>,
    taken: RefCell<BTreeMap<u64, Rc<Seat>>>,
}

#[derive(Debug)]
struct Seat {
    busy: Cell<bool>,
    since: Cell<Instant>,
    leave: Notify,
}

/// A connection's place, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Rc<Places>,
    number: u64,
    seat: Rc<Seat>,
}

impl Places {
    pub(super) fn new(most: usize) -> Rc<Self> {
        Rc::new(Self {
            most,
            next: Cell::new(0),
            taken: RefCell::default(),
        })
    }

    /// A place for a new connection.
    pub(super) fn enter(self: &Rc<Self>) -> Place {
        if self.taken.borrow().len() >= self.most {
            self.evict();
        }
        let number = self.next.replace(self.next.get() + 1);
        let seat = Rc::new(Seat {
            busy: Cell::new(false),
            since: Cell::new(Instant::now()),
            leave: Notify::new(),
        });
        self.taken.borrow_mut().insert(number, Rc::clone(&seat));
        Place {
            places: Rc::clone(self),
            number,
            seat,
        }
    }

    /// Takes the place of whoever has been idle the longest, or of the one whose last sign of
    /// life is the oldest where all are busy.
    pub(super) fn evict(&self) {
        let mut taken = self.taken.borrow_mut();
        let oldest = taken
            .iter()
            .min_by_key(|(_, seat)| (seat.busy.get(), seat.since.get()));
        if let Some(number) = oldest.map(|(number, _)| *number)
            && let Some(seat) = taken.remove(&number)
        {
            seat.leave.notify_one();
        }
    }
}

impl Place {
    /// A sign of life, and whether there is something to do.
    pub(super) fn seen(&self, busy: bool) {
        self.seat.busy.set(busy);
        self.seat.since.set(Instant::now());
    }

    /// Until the place is needed for another.
    pub(super) async fn evicted(&self) {
        self.seat.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_longest_idle_leaves() {
        let places = Places::new(3);
        let [first, second, third] = std::array::from_fn(|_| places.enter());
        first.seen(true);
        third.seen(false);
        let _fourth = places.enter();
        assert!(second.evicted().now_or_never().is_some());
        drop(second);
        let _fifth = places.enter();
        assert!(third.evicted().now_or_never().is_some());
        assert!(first.evicted().now_or_never().is_none());
        assert_eq!(places.taken.borrow().len(), 3);
    }
}
