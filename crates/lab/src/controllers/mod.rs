//! The controllers a cluster needs: workloads, endpoints, node life cycle, namespaces, tokens.
//!
//! Each is a client of the Kubernetes API and pure: what is known of the cluster in,
//! actions out. One driver runs them all over one shared cache.

pub mod action;
mod amount;
mod budget;
mod daemonset;
mod deployment;
pub mod driver;
mod endpoints;
mod execute;
mod hash;
mod namespace;
mod node;
#[cfg(test)]
mod order_tests;
pub mod pods;
mod replicaset;
mod revision;
mod run;
mod statefulset;
pub mod store;
mod tokens;
pub mod world;

pub use run::{Options, run};
