//! `show`.
use super::{Failure, Outcome};
use crate::cli::{Output, Show};
/// Shows plan and kernel.
pub fn show(_paths: &lab::paths::ClusterPaths, _what: &Show, _output: Output) -> Outcome {
    Err(Failure::Failed("show is not wired yet".into()))
}
