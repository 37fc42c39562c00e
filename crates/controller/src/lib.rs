//! The cluster's daemon: it gives every node its pod ranges, and every Service of type
//! LoadBalancer its addresses. One of several leads.

pub mod balancer;
pub mod cidr;
mod run;

pub use run::{Options, run};
