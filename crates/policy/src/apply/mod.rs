//! What the plan asks for, to the kernel: the only I/O of policies.

use std::fmt;

use linux::{Error, Event, Kernel};
use model::{Changed, Cluster, Key};
use serde::Serialize;

use crate::plan::Locals;

/// What is wrong with a policy; the pods it is about are closed where it is not understood.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// `NetworkPolicy` or `ClusterNetworkPolicy`.
    pub kind: &'static str,
    /// Its namespace (empty where it has none) and name.
    pub object: Key,
    /// Path of the field.
    pub field: String,
    /// Cause and next step.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = &self.object;
        let slash = if namespace.is_empty() { "" } else { "/" };
        let Self {
            kind,
            field,
            message,
            ..
        } = self;
        write!(f, "{kind} {namespace}{slash}{name}: {field}: {message}")
    }
}

/// What came of one [`Policies::reconcile`].
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What is wrong with objects of the cluster, all of it, sorted.
    pub problems: Vec<Problem>,
    /// What the kernel refused; tried again.
    pub errors: Vec<Error>,
    /// How many changes the kernel made.
    pub changes: usize,
}

/// The policies of one node: what they should be, and what is known to be in the kernel.
#[derive(Debug)]
pub struct Policies {
    node: String,
}

impl Policies {
    /// The policies of the node called `node`; adopts what it finds at the first reconcile.
    pub fn new(node: impl Into<String>) -> Self {
        Self { node: node.into() }
    }

    /// Takes note of a change in the kernel; true where [`Policies::reconcile`] is due because
    /// somebody else changed what belongs to policies.
    pub fn notice(&mut self, event: &Event) -> bool {
        let _ = event;
        false
    }

    /// Forgets what is known to be there: the next reconcile reads the kernel.
    pub fn resync(&mut self) {}

    /// Makes the kernel hold what the policies say about the pods that are here. `changed` names
    /// what differs from the last call; the first call takes the whole cluster. Local pods are
    /// compared with those of the last call.
    pub fn reconcile(
        &mut self,
        kernel: &mut dyn Kernel,
        cluster: &Cluster,
        changed: &Changed,
        locals: &Locals,
    ) -> Report {
        let _ = (kernel, cluster, changed, locals, &self.node);
        Report::default()
    }
}
