//! Scheduler, controllers and the `controller` crate's work in one process.

use std::path::PathBuf;

use api::Error;
use kube::config::Kubeconfig;

use super::driver::{Controller, Driver};
use super::{
    budget, daemonset, deployment, endpoints, namespace, node, replicaset, statefulset, tokens,
};
use crate::scheduler::Scheduler;

/// How the controllers run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who they are, and where the API server is.
    pub kubeconfig: PathBuf,
    /// Holder of the leader's Lease; stable over a restart.
    pub identity: String,
}

/// Runs until its future is dropped.
pub async fn run(options: Options) -> Result<(), Error> {
    let client = api::client(Some(&options.kubeconfig), "flatnet-controllers").await?;
    let root_ca = root_ca(&options)?;
    let driver = Driver::new(&client, controllers(root_ca));
    let controller = controller::Options {
        identity: options.identity.clone(),
    };
    tokio::select! {
        never = driver.run() => match never {},
        ended = controller::run(client.clone(), controller) => ended,
    }
}

fn controllers(root_ca: Option<String>) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(Scheduler::default()),
        Box::new(deployment::Deployments),
        Box::new(replicaset::ReplicaSets::default()),
        Box::new(statefulset::StatefulSets),
        Box::new(daemonset::DaemonSets),
        Box::new(budget::Budgets),
        Box::new(tokens::Tokens),
        Box::new(endpoints::Slices),
        Box::new(endpoints::LegacyEndpoints),
        Box::new(endpoints::Mirror),
        Box::new(node::Nodes::default()),
        Box::new(namespace::Namespaces { root_ca }),
    ]
}

/// The authority that signed the API server's certificate, as the kubeconfig names it.
fn root_ca(options: &Options) -> Result<Option<String>, Error> {
    let bad = |cause: String| Error::Kubeconfig {
        path: options.kubeconfig.clone(),
        cause,
    };
    let file = Kubeconfig::read_from(&options.kubeconfig).map_err(|e| bad(e.to_string()))?;
    let cluster = file.clusters.into_iter().find_map(|named| named.cluster);
    let Some(cluster) = cluster else {
        return Ok(None);
    };
    if let Some(data) = cluster.certificate_authority_data {
        let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data)
            .map_err(|error| bad(format!("certificate-authority-data: {error}")))?;
        return String::from_utf8(pem)
            .map(Some)
            .map_err(|error| bad(format!("certificate-authority-data: {error}")));
    }
    match cluster.certificate_authority {
        Some(path) => std::fs::read_to_string(&path)
            .map(Some)
            .map_err(|error| bad(format!("certificate-authority {path}: {error}"))),
        None => Ok(None),
    }
}
