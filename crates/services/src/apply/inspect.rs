//! What the kernel has beside what a plan asks for: a look that changes nothing.

use std::collections::BTreeMap;

use linux::{Error, Kernel};
use model::config::ServicesMode;
use serde::Serialize;

use super::{iptables, nftables};
use crate::plan::{Plan, PortId};

/// How a Service's port stands in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// All rules are there.
    Ok,
    /// Some rules are not as planned.
    Different,
    /// None is there.
    Missing,
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Each port of the plan.
    pub ports: BTreeMap<PortId, State>,
    /// What else deviates: what all Services share, and what is there beside the plan.
    pub others: Vec<String>,
}

/// Compares the kernel with a plan, in the mode that is in force.
pub fn inspect(
    kernel: &mut dyn Kernel,
    plan: &Plan,
    mode: ServicesMode,
) -> Result<Inspection, Error> {
    match mode {
        ServicesMode::Nftables => nftables::inspect(kernel, plan),
        ServicesMode::Iptables => iptables::inspect(kernel, plan),
    }
}
