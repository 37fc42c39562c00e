//! Addresses of Services of type LoadBalancer.
//!
//! ```text
//! Services, pools, namespaces ──ask──▶ Ask ──plan──▶ Outcome ──run──▶ status.loadBalancer, Events
//! ```
//!
//! An address that a Service's status shows is kept as long as it may be: a controller that
//! starts anew knows nothing else, and gives everybody what they had.

pub mod ask;
mod feed;
mod free;
pub mod plan;
mod run;
mod status;

pub use ask::{Ask, Families};
pub use plan::{Balancer, Outcome};
pub(crate) use run::Services;

#[cfg(test)]
mod tests;
