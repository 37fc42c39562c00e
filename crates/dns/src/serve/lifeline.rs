//! How long what serves lives: until it is told to close, and then until its guests are gone.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::{Notify, watch};

/// Told when a listener is to be closed.
#[derive(Clone, Debug)]
pub(super) struct Closing(watch::Receiver<bool>);

/// Tells a listener to close.
#[derive(Debug)]
pub(super) struct Close(watch::Sender<bool>);

/// A listener's beginning: whoever holds the one closes it, the other waits for that.
pub(super) fn lifeline() -> (Close, Closing) {
    let (close, closing) = watch::channel(false);
    (Close(close), Closing(closing))
}

impl Closing {
    /// Until it is to be closed; also where nobody is left who could say so.
    pub(super) async fn wait(&mut self) {
        let _ = self.0.wait_for(|close| *close).await;
    }
}

impl Close {
    pub(super) fn close(&self) {
        self.0.send_replace(true);
    }
}

/// Questions in flight at a worker: counted, bounded, and waited for at the end.
#[derive(Clone, Debug)]
pub(super) struct Guests(Rc<House>);

#[derive(Debug)]
struct House {
    present: Cell<usize>,
    most: usize,
    left: Notify,
}

/// A question in flight.
#[derive(Debug)]
pub(super) struct Guest(Rc<House>);

impl Guests {
    pub(super) fn new(most: usize) -> Self {
        Self(Rc::new(House {
            present: Cell::new(0),
            most,
            left: Notify::new(),
        }))
    }

    /// One more, if there is room.
    pub(super) fn enter(&self) -> Option<Guest> {
        let present = self.0.present.get();
        (present < self.0.most).then(|| {
            self.0.present.set(present + 1);
            Guest(Rc::clone(&self.0))
        })
    }

    /// Until all are gone.
    pub(super) async fn gone(&self) {
        while self.0.present.get() > 0 {
            self.0.left.notified().await;
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.present.set(self.0.present.get() - 1);
        self.0.left.notify_one();
    }
}
