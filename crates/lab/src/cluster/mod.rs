//! The cluster on one machine: what it is to be, what that is made of, and making it so.
//!
//! `address`, `spec` and `plan` are pure; the rest applies a plan and takes it away again.

pub mod address;
pub mod cgroup;
pub mod check;
pub mod coredns;
pub mod down;
pub mod error;
pub mod kubeconfig;
pub mod pki;
pub mod plan;
pub mod preflight;
pub mod process;
pub mod ready;
pub mod spec;
pub mod state;
pub mod underlay;
pub mod up;

pub use error::{Error, Result};
pub use up::{Event, Outcome, Site};
