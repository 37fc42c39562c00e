//! `policy`: questions about NetworkPolicies, answered from the API alone.

mod known;
mod lint;
mod list;
mod matrix;
mod test;

use lab::paths::ClusterPaths;

use super::Outcome;
use crate::cli::{Output, Policy};

/// Answers one of the questions.
pub fn policy(paths: &ClusterPaths, what: &Policy, output: Output) -> Outcome {
    match what {
        Policy::List(words) => list::list(paths, words, output),
        Policy::Matrix(words) => matrix::matrix(paths, words, output),
        Policy::Test(words) => test::test(paths, words, output),
        Policy::Lint(words) => lint::lint(paths, words, output),
    }
}
