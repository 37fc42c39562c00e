//! The cluster's daemon: it gives every node its pod ranges. One of several leads.

pub mod cidr;
mod run;

pub use run::{Options, run};
