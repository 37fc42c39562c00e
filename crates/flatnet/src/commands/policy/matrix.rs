//! `policy matrix`: who reaches whom on which port.

use lab::paths::ClusterPaths;
use policy::explain::{self, Flow, Group};
use serde::Serialize;

use super::known::{declared, known};
use crate::cli::{Matrix, Output};
use crate::commands::{Failure, Outcome, runtime};
use crate::output;

/// What is printed as JSON: who there is, and what is open.
#[derive(Serialize)]
struct Shown {
    groups: Vec<Group>,
    flows: Vec<Flow>,
}

/// Prints the matrix.
pub fn matrix(paths: &ClusterPaths, words: &Matrix, output: Output) -> Outcome {
    let (known, declared) = runtime()?.block_on(async {
        let known = known(paths).await?;
        let declared = declared(&known.client).await?;
        Ok::<_, Failure>((known, declared))
    })?;
    let namespace = words.namespace.as_deref();
    if let Some(name) = namespace.filter(|name| !known.cluster.namespaces.contains_key(*name)) {
        let all: Vec<&str> = known
            .cluster
            .namespaces
            .keys()
            .map(String::as_str)
            .collect();
        return Err(Failure::Failed(format!(
            "namespace {name}: there is no such namespace; there are {}",
            all.join(", ")
        )));
    }
    let matrix = explain::matrix(&known.cluster, &declared);
    if output == Output::Json {
        let flows = matrix.flows(namespace);
        let groups = matrix.groups;
        output::json(&Shown { groups, flows })?;
        return Ok(());
    }
    let mut last = String::new();
    let rows = matrix.rows(namespace).into_iter().map(|row| {
        let to = match row.to == last {
            true => String::new(),
            false => row.to.clone(),
        };
        last = row.to;
        vec![to, row.ports, row.from]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        output::print("no pods with addresses: nobody reaches nobody\n");
        return Ok(());
    }
    output::table(&["TO", "PORTS", "FROM"], rows);
    Ok(())
}
