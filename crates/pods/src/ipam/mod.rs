//! Which address is whose.
//!
//! [`Pool`] chooses addresses out of one range, [`Ledger`] holds every attachment of the node
//! and turns decisions into journal entries, [`Journal`] keeps those on disk. Pool and ledger
//! are pure: time is an argument.

mod error;
mod intervals;
mod journal;
mod ledger;
mod pool;

pub use error::IpamError;
pub use journal::{Entry, Journal, JournalError, Opened};
pub use ledger::{Ledger, Wanted};
pub use pool::Pool;

/// Seconds since the epoch.
pub type Seconds = u64;

/// How long a released address rests before it is given again: longer than neighbour entries
/// and half-closed connections of its former holder live.
pub const COOL_DOWN: Seconds = 30;
