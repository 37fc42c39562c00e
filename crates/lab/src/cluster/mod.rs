//! The cluster on one machine: what it is to be, what that is made of, and making it so.
//!
//! `spec` and `plan` are pure; the rest applies a plan and takes it away again.

pub mod address;
pub mod cgroup;
pub mod error;
pub mod kubeconfig;
pub mod plan;
pub mod process;
pub mod spec;
pub mod state;

pub use error::{Error, Result};
