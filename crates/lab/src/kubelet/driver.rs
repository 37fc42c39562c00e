//! Routes what the API says about this node's pods to their tasks, and cleans up after
//! pods that went while the kubelet was away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::runtime::watcher::Event;
use kube::{Api, Resource};
use tokio::sync::{mpsc, watch};

use crate::shim;

use super::admission;
use super::env::ServiceLink;
use super::pod::{MAILBOX, Newest, Task};
use super::sandbox::CNI_FILE;
use super::{Shared, cni, reference, volumes};

/// A pod's task as the driver knows it.
struct Handle {
    pod: Arc<Pod>,
    newest: watch::Sender<Newest>,
}

/// Follows this node's pods.
pub async fn run(shared: Arc<Shared>) {
    let api: Api<Pod> = Api::all(shared.client.clone());
    let settings = api::watch::settings().fields(&format!("spec.nodeName={}", shared.options.node));
    let mut events = std::pin::pin!(api::watch::raw(api, settings));
    let mut pods: HashMap<String, Handle> = HashMap::new();
    let mut listed: HashSet<String> = HashSet::new();
    let mut first = true;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.extend(pod.metadata.uid.clone());
                apply(&shared, &mut pods, pod).await;
            }
            Ok(Event::Apply(pod)) => apply(&shared, &mut pods, pod).await,
            Ok(Event::Delete(pod)) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                // The last object seen says how long the pod has.
                let last = pod.metadata.deletion_timestamp.is_some();
                gone(&mut pods, &uid, last.then(|| Arc::new(slim(pod))));
            }
            Ok(Event::InitDone) => {
                let missing: Vec<String> = pods
                    .keys()
                    .filter(|uid| !listed.contains(*uid))
                    .cloned()
                    .collect();
                for uid in missing {
                    gone(&mut pods, &uid, None);
                }
                if std::mem::take(&mut first) {
                    tokio::spawn(remove_orphans(shared.clone(), listed.clone()));
                }
            }
            Err(error) => {
                tracing::warn!(error = %api::watch::watch_error("Pod", error), "watching pods; trying again");
            }
        }
        pods.retain(|_, handle| !handle.newest.is_closed());
    }
}

/// Drops what the kubelet never reads and what would cost memory.
fn slim(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    pod
}

/// Tells a pod's task that the pod is gone. Never waits: only the newest counts.
fn gone(pods: &mut HashMap<String, Handle>, uid: &str, last: Option<Arc<Pod>>) {
    if let Some(handle) = pods.get_mut(uid) {
        if let Some(last) = last {
            handle.pod = last;
        }
        handle.newest.send_replace((handle.pod.clone(), true));
    }
}

async fn apply(shared: &Arc<Shared>, pods: &mut HashMap<String, Handle>, pod: Pod) {
    let pod = Arc::new(slim(pod));
    let Some(uid) = pod.metadata.uid.clone() else {
        return;
    };
    if let Some(handle) = pods
        .get_mut(&uid)
        .filter(|handle| !handle.newest.is_closed())
    {
        if handle.pod.metadata.resource_version != pod.metadata.resource_version {
            handle.pod = pod.clone();
            handle.newest.send_modify(|newest| newest.0 = pod);
        }
        return;
    }
    let (mailbox, messages) = mpsc::channel(MAILBOX);
    let mut task = Task::new(shared.clone(), pod.clone(), mailbox);
    let (newest, changes) = watch::channel((pod.clone(), false));
    // A pod that runs already was admitted before.
    let fresh = !shared.pod_dir(&uid).exists()
        && !finished(&pod)
        && pod.metadata.deletion_timestamp.is_none();
    if fresh && let Err(failure) = admit(shared, pods, &pod).await {
        shared.recorder.warning(
            reference(&pod, None),
            &failure.reason,
            failure.message.clone(),
        );
        task.state.failure = Some(failure);
    }
    tokio::spawn(task.run(messages, changes));
    pods.insert(uid, Handle { pod, newest });
}

fn finished(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

async fn admit(
    shared: &Shared,
    pods: &HashMap<String, Handle>,
    pod: &Pod,
) -> Result<(), super::state::PodFailure> {
    let others: Vec<&Pod> = pods
        .values()
        .map(|handle| handle.pod.as_ref())
        .filter(|other| !finished(other))
        .collect();
    let labels = match selects_nodes(pod) {
        true => node_labels(shared).await,
        false => BTreeMap::new(),
    };
    let node = admission::Node {
        name: &shared.options.node,
        labels: &labels,
        allocatable: &shared.allocatable,
    };
    admission::admit(pod, &others, &node)
}

fn selects_nodes(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.node_selector
            .as_ref()
            .is_some_and(|selector| !selector.is_empty())
            || spec
                .affinity
                .as_ref()
                .is_some_and(|affinity| affinity.node_affinity.is_some())
    })
}

async fn node_labels(shared: &Shared) -> BTreeMap<String, String> {
    let api: Api<Node> = Api::all(shared.client.clone());
    match api.get(&shared.options.node).await {
        Ok(node) => node.metadata.labels.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(
                cause = api::error::cause(&error),
                "reading the node's labels"
            );
            BTreeMap::new()
        }
    }
}

/// Takes down pods whose objects went while no kubelet looked.
async fn remove_orphans(shared: Arc<Shared>, known: HashSet<String>) {
    let entries = std::fs::read_dir(shared.options.paths.pods());
    for entry in entries.into_iter().flatten().flatten() {
        let uid = entry.file_name().to_string_lossy().into_owned();
        if known.contains(&uid) {
            continue;
        }
        tracing::info!(uid, "removing what is left of a pod that is gone");
        if let Err(error) = remove_orphan(&shared, &entry.path()).await {
            tracing::warn!(uid, error, "removing what is left of a pod");
        }
    }
}

async fn remove_orphan(shared: &Shared, dir: &Path) -> Result<(), String> {
    if let Some(attachment) = cni::load(&dir.join(CNI_FILE)) {
        let sandbox = shim::client::Sandbox::connect(dir).await.ok();
        let netns = sandbox
            .map(|(sandbox, _)| sandbox.netns())
            .filter(|netns| netns.exists());
        let removed = shared.cni.delete(&attachment, netns.as_deref()).await;
        removed.map_err(|error| error.to_string())?;
    }
    shim::client::stop(dir)
        .await
        .map_err(|error| error.to_string())?;
    volumes::remove(dir).map_err(|error| error.to_string())
}

/// Keeps the Services that pods learn of by their environment.
pub async fn watch_services(shared: Arc<Shared>) {
    let api: Api<Service> = Api::all(shared.client.clone());
    let mut events = std::pin::pin!(api::watch::raw(api, api::watch::settings()));
    let mut known: BTreeMap<(String, String), ServiceLink> = BTreeMap::new();
    let mut fresh = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => fresh = BTreeMap::new(),
            Ok(Event::InitApply(service)) => {
                let link = link(&service);
                fresh.insert((link.namespace.clone(), link.name.clone()), link);
                continue;
            }
            Ok(Event::InitDone) => known = std::mem::take(&mut fresh),
            Ok(Event::Apply(service)) => {
                let link = link(&service);
                known.insert((link.namespace.clone(), link.name.clone()), link);
            }
            Ok(Event::Delete(service)) => {
                let link = link(&service);
                known.remove(&(link.namespace, link.name));
            }
            Err(error) => {
                tracing::warn!(error = %api::watch::watch_error("Service", error), "watching services; trying again");
                continue;
            }
        }
        let links = Arc::new(known.values().cloned().collect());
        *shared
            .services
            .write()
            .unwrap_or_else(PoisonError::into_inner) = links;
    }
}

fn link(service: &Service) -> ServiceLink {
    let spec = service.spec.as_ref();
    let ip: Option<IpAddr> = spec.and_then(|spec| spec.cluster_ip.as_ref()?.parse().ok());
    let ports = spec
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let meta = service.meta();
    ServiceLink {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        cluster_ip: ip,
        ports: ports
            .iter()
            .filter_map(|port| {
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                Some((port.name.clone(), u16::try_from(port.port).ok()?, protocol))
            })
            .collect(),
    }
}
