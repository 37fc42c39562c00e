//! `dns`: the server.

use lab::paths::ClusterPaths;

use super::{Failure, Outcome, names};
use crate::cli::{Dns, DnsCommand, DnsServe, Output};

/// Serves, or asks.
pub fn dns(paths: &ClusterPaths, words: Dns, output: Output) -> Outcome {
    match words.what {
        Some(DnsCommand::Query(query)) => names::query::query(paths, &query, output),
        None => serve(words.serve),
    }
}

fn serve(_words: DnsServe) -> Outcome {
    Err(Failure::Failed("not there yet".into()))
}
