//! What each plugin of a server block does with a query: a file or folder a plugin, each pure
//! over its options, the query, and the time.

pub mod acl;
pub mod any;
pub mod autopath;
pub mod chaos;
pub mod dns64;
pub mod erratic;
pub mod errors;
pub mod file;
pub mod header;
pub mod hosts;
pub mod k8s_external;
pub mod kubernetes;
pub mod loadbalance;
pub mod local;
pub mod log;
pub mod looping;
pub mod metrics;
pub mod minimal;
pub mod nsid;
pub mod outcome;
pub mod output;
pub mod rewrite;
pub mod template;
pub mod transfer;
pub mod whoami;
pub mod zones;

#[cfg(test)]
pub(crate) mod tests;
