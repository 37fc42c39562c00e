//! The check's own pods: two on every node, made, awaited and taken away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::commands::Failure;

/// The namespace of the check.
pub const NAMESPACE: &str = "flatnet-check";
/// Label with a pod's own name.
pub const POD: &str = "flatnet.io/check-pod";
/// Label of the pods that stand behind the check's Services.
pub const SERVES: &str = "flatnet.io/check-serves";
/// How long the pods may take to run.
const PATIENCE: Duration = Duration::from_secs(15);

/// The check's pods, made where they were not there.
pub struct Pods {
    /// The API.
    pub client: Client,
    api: Api<Pod>,
    made: bool,
    /// Every pod wanted, with the object once it runs, or why it does not.
    pub found: BTreeMap<String, Result<Pod, String>>,
}

/// The names of a node's two pods.
pub fn names(node: &str) -> [String; 2] {
    [format!("{node}-a"), format!("{node}-b")]
}

pub fn failed(what: &str) -> impl Fn(kube::Error) -> Failure + '_ {
    move |error| Failure::Failed(format!("{what}: {}", api::error::cause(&error)))
}

pub fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

impl Pods {
    /// Makes the pods and waits until they run; what does not run is part of the answer.
    pub async fn make(client: &Client, nodes: &[String]) -> Result<Self, Failure> {
        let namespaces = Api::<Namespace>::all(client.clone());
        let namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }));
        let namespace: Namespace = namespace.map_err(|error| Failure::Failed(error.to_string()))?;
        let made = match namespaces.create(&PostParams::default(), &namespace).await {
            Ok(_) => true,
            Err(error) if code(&error) == Some(409) => false,
            Err(error) => return Err(failed("create namespace flatnet-check")(error)),
        };
        let mut pods = Self {
            client: client.clone(),
            api: Api::namespaced(client.clone(), NAMESPACE),
            made,
            found: BTreeMap::new(),
        };
        let deadline = Instant::now() + PATIENCE;
        let created = pods.create(nodes, deadline).await;
        if let Err(failure) = created {
            pods.clean(false).await?;
            return Err(failure);
        }
        pods.wait(deadline).await;
        Ok(pods)
    }

    async fn create(&mut self, nodes: &[String], deadline: Instant) -> Result<(), Failure> {
        let mut backoff = api::Backoff::new(Duration::from_millis(10), Duration::from_millis(200));
        for node in nodes {
            for name in names(node) {
                let pod = pod(&name, node)?;
                loop {
                    match self.api.create(&PostParams::default(), &pod).await {
                        Ok(_) => break,
                        Err(error) if code(&error) == Some(409) => break,
                        // The namespace's service account comes a moment after the namespace.
                        Err(error) if code(&error) == Some(403) && Instant::now() < deadline => {
                            tokio::time::sleep(backoff.wait()).await;
                        }
                        Err(error) => {
                            return Err(failed(&format!("create pod flatnet-check/{name}"))(error));
                        }
                    }
                }
                self.found.insert(name, Err("not seen yet".into()));
            }
        }
        Ok(())
    }

    async fn wait(&mut self, deadline: Instant) {
        let mut events = Box::pin(api::watch::raw(self.api.clone(), api::watch::settings()));
        while self.found.values().any(Result::is_err) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(Some(event)) = tokio::time::timeout(left, events.next()).await else {
                return;
            };
            if let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event
                && let Some(entry) = self.found.get_mut(&pod.name_any())
            {
                *entry = running(pod);
            }
        }
    }

    /// Takes the pods away, unless they were there before or are to stay.
    pub async fn clean(&self, keep: bool) -> Result<(), Failure> {
        if keep || !self.made {
            return Ok(());
        }
        let now = DeleteParams::default().grace_period(0);
        let pods = self
            .api
            .delete_collection(&now, &ListParams::default())
            .await;
        pods.map_err(failed("delete the pods of flatnet-check"))?;
        let namespaces = Api::<Namespace>::all(self.client.clone());
        match namespaces.delete(NAMESPACE, &DeleteParams::default()).await {
            Err(error) if code(&error) != Some(404) => {
                return Err(failed("delete namespace flatnet-check")(error));
            }
            _ => {}
        }
        // Gone means gone: what is left of a pod would be in the way of a next check.
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Ok(None) = namespaces.get_opt(NAMESPACE).await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        eprintln!("namespace flatnet-check is still being deleted");
        Ok(())
    }
}

fn running(pod: Pod) -> Result<Pod, String> {
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Pending");
    if phase == "Running" && status.pod_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
        return Ok(pod);
    }
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let said = waiting
        .filter_map(|waiting| waiting.message.clone().or_else(|| waiting.reason.clone()))
        .next();
    Err(format!(
        "is {phase}{}",
        said.map(|said| format!(": {said}")).unwrap_or_default()
    ))
}

fn pod(name: &str, node: &str) -> Result<Pod, Failure> {
    let pod = json!({
        "metadata": { "name": name, "labels": {
            "app.kubernetes.io/name": NAMESPACE,
            // Whom the check's Services select: the second pod of each node.
            POD: name,
            SERVES: name.ends_with("-b").to_string(),
        } },
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "pause", "image": "registry.k8s.io/pause:3.10" }],
        },
    });
    serde_json::from_value(pod).map_err(|error| Failure::Failed(error.to_string()))
}
