//! What the plan asks for, to the kernel: the only I/O of Services.

use std::fmt;
use std::time::{Duration, Instant};

use linux::Kernel;
use model::{Changed, Cluster, Config, Key};
use serde::Serialize;

use crate::plan::Plan;

/// What is wrong with a Service or its slices; the rest is served all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Kind of the object that is wrong: `Service` or `EndpointSlice`.
    pub kind: &'static str,
    /// Its namespace and name.
    pub object: Key,
    /// Path of the field.
    pub field: String,
    /// Cause and next step.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = &self.object;
        write!(
            f,
            "{} {namespace}/{name}: {}: {}",
            self.kind, self.field, self.message
        )
    }
}

/// What came of one [`Services::reconcile`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong with objects of the cluster, all of it, sorted.
    pub problems: Vec<Problem>,
    /// What the kernel refused; tried again.
    pub errors: Vec<linux::Error>,
    /// How many changes the kernel made.
    pub changes: usize,
    /// When to call again if nothing else happens.
    pub again: Option<Duration>,
}

/// The Services of one node: what they should be, and what is known to be in the kernel.
#[derive(Debug)]
pub struct Services {
    node: String,
    plan: Option<Plan>,
}

impl Services {
    /// The Services of the node called `node`; adopts what it finds at the first reconcile.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            plan: None,
        }
    }

    /// The last plan.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Takes note of a change in the kernel; true where [`Services::reconcile`] is due because
    /// somebody else changed what belongs to Services.
    pub fn notice(&mut self, _event: &linux::Event) -> bool {
        false
    }

    /// Forgets what is known to be there: the next reconcile reads the kernel.
    pub fn resync(&mut self) {}

    /// Makes the kernel serve the cluster's Services. `changed` names what differs from the last
    /// call; the first call takes the whole cluster.
    pub fn reconcile(
        &mut self,
        _kernel: &mut dyn Kernel,
        _cluster: &Cluster,
        _changed: &Changed,
        _config: &Config,
        _now: Instant,
    ) -> Report {
        let _ = &self.node;
        Report::default()
    }
}
