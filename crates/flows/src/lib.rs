//! What happened to connections: those that policies denied.
//!
//! ```text
//! kernel ──log──▶ Connection ──Repeats──▶ describe ──▶ Event ──▶ Ring ──▶ readers
//!                             (seen just now?)  (cluster)                (at their own pace)
//! ```
//!
//! All of it is values and takes the time as an argument; whoever holds the sockets is elsewhere.
//! Everything is bounded: a flood makes later events push out earlier ones, and readers are told
//! how many they missed.

mod connection;
mod describe;
mod event;
mod repeats;
mod ring;

pub use connection::Connection;
pub use describe::{Scene, describe};
pub use event::{By, Drop, End, Event, Icmp, Line, Policy, Service, Unseen};
pub use repeats::{Again, Repeats};
pub use ring::{Batch, Ring};
