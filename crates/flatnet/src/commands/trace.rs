//! `trace`.
use super::{Failure, Outcome};
use crate::cli::{Output, Trace};
/// Each step a packet takes.
pub fn trace(_paths: &lab::paths::ClusterPaths, _trace: &Trace, _output: Output) -> Outcome {
    Err(Failure::Failed("trace is not wired yet".into()))
}
