//! NetworkPolicy: who may talk to whom.
//!
//! ```text
//! Cluster, local pods ──plan──▶ Plan (and what changed of it) ──render/nftables──▶ apply ──▶ kernel
//! Cluster ──explain──▶ allowed or denied, by which policy; the oracle of the rules
//! ```
//!
//! The agent owns one [`Policies`] and drives it after each change.

mod apply;
pub mod explain;
pub mod plan;
pub mod render;

pub use apply::{Counts, Policies, Report, inspect};
pub use explain::{Answer, End, Question, Reason, Side, explain};
pub use plan::{Local, Locals, NodeDns};
