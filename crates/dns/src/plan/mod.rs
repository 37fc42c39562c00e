//! What names there are in the cluster, kept up to date by the size of what changes.

use model::{Changed, Cluster};

/// All names of the cluster: Services, their endpoints, namespaces, and whose an address is.
/// Clones cost nothing: the maps are persistent.
#[derive(Clone, Debug, Default)]
pub struct Names {}

impl Names {
    /// Takes in what changed; the cluster is the one after the changes.
    pub fn update(&mut self, _cluster: &Cluster, _changed: &Changed) {}
}

/// What readers get: one consistent view, replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Names.
    pub names: Names,
    /// What they were made of; whose a pod's address is comes from here.
    pub cluster: Cluster,
}
