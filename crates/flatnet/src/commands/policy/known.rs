//! What is known of the cluster, and what manifests would make of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::draft::{Doing, Drafted};
use api::watch::{Update, What};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::{Api, Client};
use lab::cluster::state;
use lab::paths::ClusterPaths;
use model::{Change, Cluster, Protocol};
use policy::explain::Declared;

use crate::commands::Failure;

/// How long the API may take to list everything.
const LISTS: Duration = Duration::from_secs(30);

/// The cluster as policies see it.
pub struct Known {
    pub client: Client,
    pub cluster: Cluster,
    /// What of its policies is not understood: object, and the sentence.
    pub bad: Vec<(String, String)>,
}

/// Reads the cluster.
pub async fn known(paths: &ClusterPaths) -> Result<Known, Failure> {
    state::existing(paths)?;
    let client = api::client(Some(&paths.kubeconfig()), "flatnet").await?;
    let listed = tokio::time::timeout(LISTS, listed(&client)).await;
    let (cluster, bad) = listed.map_err(|_| {
        let seconds = LISTS.as_secs();
        Failure::Failed(format!(
            "the API server lists nothing within {seconds} s; see: flatnet status"
        ))
    })??;
    Ok(Known {
        client,
        cluster,
        bad,
    })
}

async fn listed(client: &Client) -> Result<(Cluster, Vec<(String, String)>), Failure> {
    let mut updates = api::watch::changes(client, What::ALL);
    let (mut cluster, mut bad) = (Cluster::default(), Vec::new());
    while let Some(update) = updates.next().await {
        match update {
            Update::Change(change) => {
                cluster.take(change);
            }
            Update::Bad {
                object, problem, ..
            } if object.contains("NetworkPolicy ") => {
                bad.push((object, problem));
            }
            Update::Bad { .. } | Update::Good { .. } => {}
            Update::Synced => return Ok((cluster, bad)),
            Update::Problem(error) => return Err(error.into()),
        }
    }
    Err(Failure::Failed("the API server's lists ended early".into()))
}

/// The ports that containers declare, with names and without.
pub async fn declared(client: &Client) -> Result<Declared, Failure> {
    let pods = Api::<Pod>::all(client.clone());
    let pods = pods.list(&ListParams::default()).await;
    let pods = pods.map_err(api::Error::request("list Pods"))?;
    let mut all = Declared::new();
    for pod in pods {
        let spec = pod.spec.unwrap_or_default();
        let key = (
            pod.metadata.namespace.unwrap_or_default(),
            pod.metadata.name.unwrap_or_default(),
        );
        let ports = spec.containers.iter().flat_map(ports_of);
        all.insert(key, ports.collect());
    }
    Ok(all)
}

fn ports_of(container: &Container) -> Vec<(Protocol, u16)> {
    let ports = container.ports.iter().flatten();
    let one = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        let word = port.protocol.as_deref().unwrap_or("TCP");
        let protocol = Protocol::ALL.into_iter().find(|each| each.word() == word)?;
        Some((protocol, u16::try_from(port.container_port).ok()?))
    };
    ports.filter_map(one).collect()
}

/// What cannot be told for a reason that the user can change.
fn refused(error: api::Error) -> Failure {
    Failure::Usage(error.to_string())
}

/// What manifests would make of the cluster, and of each object.
pub async fn drafted(
    known: &Known,
    objects: &[DynamicObject],
    doing: Doing,
) -> Result<(Cluster, Vec<Drafted>), Failure> {
    let drafted = api::draft::draft(&known.client, objects, doing).await;
    let drafted = drafted.map_err(refused)?;
    let mut after = known.cluster.clone();
    for one in &drafted {
        if let Some(change) = &one.change {
            take(&mut after, change.clone());
        }
    }
    Ok((after, drafted))
}

/// Takes a change in with what follows of it: a new pod gets an address, and with a namespace all
/// that is in it goes.
fn take(cluster: &mut Cluster, change: Change) {
    if let Change::NamespaceGone(name) = &change {
        let within = |key: &&model::Key| key.0 == *name;
        let pods: Vec<model::Key> = cluster.pods.keys().filter(within).cloned().collect();
        let policies: Vec<model::Key> = cluster.policies.keys().filter(within).cloned().collect();
        for (namespace, name) in pods {
            cluster.take(Change::PodGone(namespace, name));
        }
        for (namespace, name) in policies {
            cluster.take(Change::PolicyGone(namespace, name));
        }
    }
    match change {
        Change::Pod(pod) if pod.ips.is_empty() && !pod.host_network => {
            let mut pod = model::Pod::clone(&pod);
            pod.ips.extend(free(cluster));
            cluster.take(Change::Pod(Arc::new(pod)));
        }
        change => {
            cluster.take(change);
        }
    }
}

/// An address that a new pod may get.
fn free(cluster: &Cluster) -> Option<IpAddr> {
    let mut ranges = cluster.nodes.values().flat_map(|node| &node.pod_cidrs);
    ranges.find_map(|range| {
        // The first is the gateway's.
        let mut hosts = range.hosts().skip(1);
        hosts.find(|ip| cluster.pod_at(*ip).is_none())
    })
}
