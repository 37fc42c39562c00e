//! A cluster's network as plain values.
//!
//! Nothing here does I/O, knows tokio, kube or netlink: values in, values out.

pub mod cluster;
pub mod config;

pub use cluster::{Change, Cluster, Node, Pod};
pub use config::{Config, ConfigError, Document};
