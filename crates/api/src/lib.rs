//! The Kubernetes API, seen from flatnet: a client, objects turned into [`model`] values,
//! watches, status writing, Events, manifests, leader election.
//!
//! Everything works against any API server; what is pure (conversions, the Event
//! correlator, the election step) takes its clock as an argument.

pub mod backoff;
pub mod client;
pub mod convert;
pub mod draft;
pub mod error;
pub mod events;
pub mod lease;
pub mod manifest;
pub mod pool;
pub mod status;
pub mod watch;

pub use backoff::Backoff;
pub use client::client;
pub use error::Error;
