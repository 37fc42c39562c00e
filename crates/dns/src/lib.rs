//! The cluster's DNS server: takes a CoreDNS Corefile as it is, answers the Kubernetes DNS
//! specification from the watched state, caches and forwards the rest.

pub mod apply;
pub mod cache;
pub mod chain;
pub mod corefile;
pub mod explain;
pub mod expression;
pub mod gotext;
pub mod metrics;
pub mod plan;
pub mod plugins;
pub mod query;
pub mod render;
pub mod serve;
pub mod upstream;
pub mod wire;
pub mod zonefile;
