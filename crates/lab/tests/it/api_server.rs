//! An API server in this process, the controllers beside it, and kubelets that only say
//! that pods run.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// How long anything may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends its task when dropped.
pub struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A cluster of an API server and controllers; everything ends when it is dropped.
pub struct Cluster {
    pub client: Client,
    pub kubeconfig: std::path::PathBuf,
    tasks: Vec<Task>,
    _server: apiserver::Server,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// With scheduler and controllers.
    pub async fn start() -> Self {
        let mut cluster = Self::bare().await;
        cluster.run_controllers();
        cluster
    }

    /// Without.
    pub async fn bare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = apiserver::Server::start(apiserver::Options {
            data_dir: dir.path().to_owned(),
            listeners: vec![listener],
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
            node_ports: 30000..=32767,
            advertise: vec!["10.0.1.1".parse().unwrap()],
            advertise_port: 6443,
            connect: apiserver::connect_directly(),
        })
        .await
        .unwrap();
        let pki = certs::Pki::open(dir.path()).unwrap();
        let kubeconfig = |user: &str, group: &str| {
            let url = format!("https://127.0.0.1:{port}");
            let text = pki.kubeconfig("test", &url, user, Some(group)).unwrap();
            let path = dir.path().join(user);
            std::fs::write(&path, text).unwrap();
            path
        };
        let admin = kubeconfig("admin", "system:masters");
        let client = api::client(Some(&admin), "test").await.unwrap();
        // The controllers have the rights they have in a cluster, and no more.
        let kubeconfig = kubeconfig("flatnet-controller", "flatnet:controllers");
        Self {
            client,
            kubeconfig,
            tasks: Vec::new(),
            _server: server,
            _dir: dir,
        }
    }

    /// Starts scheduler and controllers.
    pub fn run_controllers(&mut self) {
        let options = lab::controllers::Options {
            kubeconfig: self.kubeconfig.clone(),
            identity: "test".to_owned(),
        };
        self.spawn(async move {
            if let Err(error) = lab::controllers::run(options).await {
                panic!("controllers: {error}");
            }
        });
    }

    /// Ends scheduler and controllers (and kubelets).
    pub fn stop_tasks(&mut self) {
        self.tasks.clear();
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(Task(tokio::spawn(work)));
    }

    /// Registers a node with a kubelet that starts whatever is bound to it at once. The
    /// switch ends it.
    pub async fn node(&mut self, name: &str, labels: Value) -> Arc<AtomicBool> {
        let mut all = json!({"kubernetes.io/hostname": name});
        merge(&mut all, labels);
        let node =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": all}});
        let node: Node = serde_json::from_value(node).unwrap();
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &node).await.unwrap();
        self.revive(name).await
    }

    /// A kubelet for a node that is registered.
    pub async fn revive(&mut self, name: &str) -> Arc<AtomicBool> {
        let alive = Arc::new(AtomicBool::new(true));
        let address = format!("10.0.1.{}", 10 * (self.tasks.len() + 1));
        self.spawn(kubelet(
            self.client.clone(),
            name.to_owned(),
            address,
            alive.clone(),
        ));
        alive
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates an object.
    pub async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let object: K = serde_json::from_value(object).unwrap();
        let api = self.api::<K>(namespace);
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    /// Merges into an object.
    pub async fn patch<K>(&self, namespace: &str, name: &str, patch: Value)
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let params = PatchParams::default();
        let api = self.api::<K>(namespace);
        api.patch(name, &params, &Patch::Strategic(patch))
            .await
            .unwrap();
    }

    /// Deletes an object.
    pub async fn delete<K>(&self, namespace: &str, name: &str)
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let api = self.api::<K>(namespace);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The objects of a kind.
    pub async fn list<K>(&self, namespace: &str) -> Vec<K>
    where
        K: Kind,
    {
        let all = Api::<K>::all(self.client.clone());
        let all = all.list(&ListParams::default()).await.unwrap().items;
        let within = all.into_iter();
        within
            .filter(|object| object.namespace().unwrap_or_default() == namespace)
            .collect()
    }

    /// Waits until the objects of a kind are as `good` says; what it returns.
    pub async fn until<K, T>(
        &self,
        what: &str,
        namespace: &str,
        good: impl Fn(&[K]) -> Option<T>,
    ) -> T
    where
        K: Kind,
    {
        let mut objects: BTreeMap<(String, String), K> = BTreeMap::new();
        let watch = api::watch::raw(Api::<K>::all(self.client.clone()), api::watch::settings());
        let mut watch = std::pin::pin!(watch);
        let mut synced = false;
        let wait = async {
            loop {
                match watch.next().await.unwrap() {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => {
                        let key = (object.namespace().unwrap_or_default(), object.name_any());
                        objects.insert(key, object);
                    }
                    Ok(Event::Delete(object)) => {
                        let key = (object.namespace().unwrap_or_default(), object.name_any());
                        objects.remove(&key);
                    }
                    Ok(Event::Init) => objects.clear(),
                    Ok(Event::InitDone) => synced = true,
                    Err(error) => panic!("watch for {what:?}: {error}"),
                }
                if synced {
                    let within = objects.iter().filter(|((ns, _), _)| ns == namespace);
                    let all: Vec<K> = within.map(|(_, object)| object.clone()).collect();
                    if let Some(answer) = good(&all) {
                        return answer;
                    }
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(answer) => answer,
            Err(_) => {
                let all: Vec<String> = objects
                    .values()
                    .map(|object| serde_json::to_string(&slim(object)).unwrap())
                    .collect();
                panic!(
                    "not within {PATIENCE:?}: {what}; there is:\n{}",
                    all.join("\n")
                )
            }
        }
    }
}

fn slim<K: serde::Serialize>(object: &K) -> Value {
    let mut value = serde_json::to_value(object).unwrap();
    if let Some(meta) = value["metadata"].as_object_mut() {
        meta.remove("managedFields");
    }
    value
}

/// What a kind has to be to be listed and watched here.
pub trait Kind:
    kube::Resource<DynamicType = ()>
    + serde::Serialize
    + DeserializeOwned
    + Clone
    + std::fmt::Debug
    + Send
    + 'static
{
}

impl<K> Kind for K where
    K: kube::Resource<DynamicType = ()>
        + serde::Serialize
        + DeserializeOwned
        + Clone
        + std::fmt::Debug
        + Send
        + 'static
{
}

fn merge(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        into.extend(from);
    }
}

/// Says of its node that it is ready, and of its pods that they run.
async fn kubelet(client: Client, node: String, address: String, alive: Arc<AtomicBool>) {
    let nodes: Api<Node> = Api::all(client.clone());
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": address}],
        "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110"},
        "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": k8s_openapi::jiff::Timestamp::now(),
            "lastTransitionTime": k8s_openapi::jiff::Timestamp::now()}]}});
    let params = PatchParams::default();
    nodes
        .patch_status(&node, &params, &Patch::Strategic(status))
        .await
        .unwrap();
    let heart = heartbeat(client.clone(), node.clone(), alive.clone());
    tokio::select! {
        () = heart => {}
        () = start_pods(client, node, alive) => {}
    }
}

async fn heartbeat(client: Client, node: String, alive: Arc<AtomicBool>) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let params = PatchParams::apply("kubelet").force();
    while alive.load(Ordering::Relaxed) {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": node},
            "spec": {"holderIdentity": node, "leaseDurationSeconds": 4,
                "renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(k8s_openapi::jiff::Timestamp::now())}});
        let _ = leases.patch(&node, &params, &Patch::Apply(lease)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn start_pods(client: Client, node: String, alive: Arc<AtomicBool>) {
    let field = format!("spec.nodeName={node}");
    let all: Api<Pod> = Api::all(client.clone());
    let watch = api::watch::raw(all, api::watch::settings().fields(&field));
    let mut watch = std::pin::pin!(watch);
    let mut next_address = 1;
    while let Some(event) = watch.next().await {
        if !alive.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event {
            next_address += 1;
            run(&client, &node, &pod, next_address).await;
        }
    }
}

async fn run(client: &Client, node: &str, pod: &Pod, address: u32) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        let now = DeleteParams::default().grace_period(0);
        let _ = pods.delete(&name, &now).await;
        return;
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    if phase == Some("Running") {
        return;
    }
    let ready = !pod.annotations().contains_key("test/never-ready");
    let now = k8s_openapi::jiff::Timestamp::now();
    let number: u32 = node
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap_or(0);
    let ip = format!("10.244.{number}.{address}");
    let status = json!({"metadata": {"uid": pod.uid()}, "status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "10.0.1.10", "startTime": now,
        "conditions": [
            {"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": now},
            {"type": "ContainersReady", "status": if ready { "True" } else { "False" }, "lastTransitionTime": now}]}});
    let params = PatchParams::default();
    let _ = pods
        .patch_status(&name, &params, &Patch::Strategic(status))
        .await;
}
