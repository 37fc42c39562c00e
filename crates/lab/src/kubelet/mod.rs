//! The kubelet: pods of one node, from the API to running containers.
//!
//! Every pod has a task of its own ([`pod`]) that owns the pod's state. It asks the pure
//! [`worker`] what to do next, carries it out ([`actions`]) and reports a status that the
//! pure [`status`] makes from the state. [`driver`] routes what the API says to the tasks.

mod actions;
mod admission;
mod adopt;
mod cni;
mod dns;
mod driver;
mod env;
mod launch;
mod node;
mod objects;
mod pod;
mod probe_io;
mod prober;
mod probes;
mod quantity;
mod report;
mod sandbox;
mod server;
mod start;
mod state;
mod status;
mod volume_files;
mod volumes;
mod worker;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use api::events::Recorder;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{Client, Resource};
use tokio::sync::watch;

use crate::images::Images;
use crate::paths::NodePaths;
use crate::shim;
pub use dns::Resolv;
pub use launch::RESOLV_FILE;

/// The version this kubelet reports.
pub const VERSION: &str = concat!("v1.36.0-flatnet.", env!("CARGO_PKG_VERSION"));

/// What a kubelet is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name.
    pub node: String,
    /// The node's addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// How to reach the API server, and as whom.
    pub kubeconfig: PathBuf,
    /// The node's folders.
    pub paths: NodePaths,
    /// The node's cgroup v2 folder, absolute; pods live in `pods/UID` below it.
    pub cgroup: PathBuf,
    /// Addresses of the cluster's DNS.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// The flatnet program.
    pub program: PathBuf,
    /// Where the programs of the built-in images are laid out.
    pub images: PathBuf,
    /// Folders of the CNI plugins.
    pub cni_path: Vec<PathBuf>,
    /// Port of the kubelet's own API.
    pub port: u16,
    /// Serving certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Authority of the clients, PEM.
    pub client_ca: PathBuf,
    /// Most pods on this node.
    pub max_pods: u32,
    /// The node's `resolv.conf`.
    pub resolv_conf: PathBuf,
}

/// Why a kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The port for logs and exec.
    #[error("kubelet port {port}: {source}; is another kubelet running in this network namespace?")]
    Listen {
        /// The port.
        port: u16,
        /// The cause.
        source: std::io::Error,
    },
    /// Keys and certificates.
    #[error("TLS material of the kubelet: {0}")]
    Tls(String),
}

/// What the tasks of a kubelet share.
struct Shared {
    options: Options,
    client: Client,
    recorder: Recorder,
    images: Images,
    objects: objects::Objects,
    cni: cni::Runner,
    /// Why pods cannot have a network; none where they can.
    network: watch::Receiver<Option<String>>,
    /// Told when the API server answers again: while it heard nothing of this node, others
    /// have said how the node is.
    answered: tokio::sync::Notify,
    services: RwLock<Arc<Vec<env::ServiceLink>>>,
    allocatable: BTreeMap<String, String>,
    pods: Mutex<HashMap<(String, String), Arc<PodView>>>,
}

/// A pod as the server of logs and exec sees it.
#[derive(Clone, Debug)]
struct PodView {
    pod: Arc<Pod>,
    dir: PathBuf,
    sandbox: Option<shim::client::Sandbox>,
    /// Starts so far and whether it runs, by container.
    containers: BTreeMap<String, (u32, bool)>,
}

impl Shared {
    fn services(&self) -> Arc<Vec<env::ServiceLink>> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        services.clone()
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<PodView>> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn publish(&self, view: PodView) {
        let key = key(&view.pod);
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.insert(key, Arc::new(view));
    }

    /// Forgets a pod, unless another of the same name has taken its place.
    fn unpublish(&self, pod: &Pod) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let key = key(pod);
        if pods
            .get(&key)
            .is_some_and(|view| view.pod.metadata.uid == pod.metadata.uid)
        {
            pods.remove(&key);
        }
    }

    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.options.paths.pods().join(uid)
    }

    fn pod_cgroup(&self, uid: &str) -> PathBuf {
        self.options.cgroup.join("pods").join(uid)
    }
}

/// Namespace and name.
fn key(pod: &Pod) -> (String, String) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    (text(&pod.metadata.namespace), text(&pod.metadata.name))
}

/// The reference for an Event on a pod, or on one of its containers.
fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let mut reference = pod.object_ref(&());
    reference.resource_version = pod.metadata.resource_version.clone();
    reference.field_path = container.map(|name| {
        let init = pod.spec.as_ref().is_some_and(|spec| {
            state::inits(spec)
                .iter()
                .any(|container| container.name == name)
        });
        let list = if init { "initContainers" } else { "containers" };
        format!("spec.{list}{{{name}}}")
    });
    reference
}

/// Runs a node's kubelet for as long as the process lives. Pods keep running without it.
pub async fn run(options: Options) -> Result<(), Error> {
    let client = api::client(Some(&options.kubeconfig), "flatnet-kubelet").await?;
    for folder in [
        options.paths.pods(),
        options.paths.run.clone(),
        options.images.clone(),
    ] {
        std::fs::create_dir_all(&folder).map_err(|source| Error::File {
            path: folder.clone(),
            source,
        })?;
    }
    let images = Images::prepare(&options.images, &options.program).map_err(|source| {
        let path = options.images.clone();
        Error::File { path, source }
    })?;
    let listener = server::listen(&options).await?;
    let cni = cni::Runner {
        conf: options.paths.cni_conf(),
        path: options.cni_path.clone(),
    };
    // Known before the node says that it is ready or not: a restart is not an outage.
    let (network_state, network) = watch::channel(node::network_problem(&cni).await);
    let shared = Arc::new(Shared {
        recorder: Recorder::new(client.clone(), "kubelet", Some(&options.node)),
        allocatable: node::capacity(options.max_pods, &options.paths.state),
        objects: objects::Objects::new(client.clone()),
        pods: Mutex::default(),
        services: RwLock::default(),
        images,
        network,
        answered: tokio::sync::Notify::new(),
        client,
        cni,
        options,
    });
    tokio::select! {
        () = node::watch_network(shared.clone(), network_state) => Ok(()),
        () = node::keep_registered(shared.clone()) => Ok(()),
        () = node::keep_lease(shared.clone()) => Ok(()),
        () = driver::run(shared.clone()) => Ok(()),
        () = driver::watch_services(shared.clone()) => Ok(()),
        () = server::serve(shared.clone(), listener) => Ok(()),
    }
}
