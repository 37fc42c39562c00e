//! What names there are in the cluster, kept up to date by the size of what changes.

mod label;
mod latency;
mod names;
mod service;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use model::Cluster;

pub(crate) use label::{Label, undashed};
pub use latency::programmed;
pub use names::{Names, Whose};
pub use service::ServiceNames;
pub(crate) use service::{Address, is_headless, ready};

/// What readers get: one consistent view, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Names.
    pub names: Names,
    /// What they were made of; whose a pod's address is comes from here.
    pub cluster: Cluster,
}
