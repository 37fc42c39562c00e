//! Services: one address that always answers.
//!
//! ```text
//! Cluster, Config ──plan──▶ Plan (and what changed of it) ──render/nftables or render/iptables──▶ apply ──▶ kernel
//!                            └──explain: what becomes of a new connection, the oracle of both backends
//! ```
//!
//! The agent owns one [`Services`] and drives it after each change. What a change costs depends
//! on the change alone: the plan keeps each Service's port by itself, a backend is told what a
//! port was and what it is, and the kernel gets those elements and chains that differ.

pub mod announce;
mod apply;
mod conntrack;
pub mod explain;
pub mod plan;
pub mod render;

pub use apply::{Inspection, Problem, Report, Services, State, inspect};
pub use explain::{Answer, Origin, Question, Verdict, explain};
pub use plan::{Backend, Delta, Frontend, FrontendKind, Plan, PortName, PortPlan, Settings};
