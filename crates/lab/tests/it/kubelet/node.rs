//! A node of its own for a test: a network namespace, a real kubelet in it, an API server
//! that both reach, and a small CNI plugin.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use linux::{Address, NetNs, Netlink, run_in};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// How long anything may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);
/// The node's address, on its loopback interface.
const ADDRESS: &str = "10.0.1.10";

/// A running kubelet; its thread is in the node's namespace.
struct Kubelet {
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// A node with its cluster; everything ends when it is dropped.
pub struct Node {
    pub client: Client,
    pub kubeconfig: PathBuf,
    pub dir: tempfile::TempDir,
    netns: Arc<NetNs>,
    cgroup: PathBuf,
    kubelet: Option<Kubelet>,
    controllers: tokio::task::JoinHandle<()>,
    _server: apiserver::Server,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.controllers.abort();
        self.stop_kubelet();
        // Every process of every pod, then the folders, innermost first.
        let _ = std::fs::write(self.cgroup.join("cgroup.kill"), "1");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !remove_cgroup(&self.cgroup) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        // The folder all tests share goes with the last of them.
        let _ = self.cgroup.parent().map(std::fs::remove_dir);
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for mount in ours.filter(|mount| Path::new(mount).starts_with(self.dir.path())) {
            let _ = nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

fn remove_cgroup(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    std::fs::remove_dir(folder).is_ok() || !folder.exists()
}

impl Node {
    /// A node that is ready for pods.
    pub async fn start(name: &str) -> Self {
        let mut node = Self::without_network(name).await;
        node.write_conflist();
        node.start_kubelet();
        node
    }

    /// A node without a kubelet and without a network configuration.
    pub async fn without_network(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let netns = Arc::new(NetNs::anonymous().unwrap());
        let mut netlink = Netlink::open_in(&netns).unwrap();
        let lo = netlink.expect_link("lo").unwrap().index;
        for address in [ADDRESS, "10.244.9.1"] {
            let address: ipnet::IpNet = format!("{address}/32").parse().unwrap();
            netlink.add_address(&Address::new(lo, address)).unwrap();
        }
        netlink.set_up(lo).unwrap();
        let outside = TcpListener::bind("127.0.0.1:0").unwrap();
        let inside = run_in(&netns, || TcpListener::bind("127.0.0.1:0"))
            .unwrap()
            .unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let (outside_port, inside_port) = (port(&outside), port(&inside));
        let server = apiserver::Server::start(apiserver::Options {
            data_dir: dir.path().join("api"),
            listeners: vec![outside, inside],
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
            node_ports: 30000..=32767,
            advertise: vec!["10.0.1.1".parse().unwrap()],
            advertise_port: 6443,
            connect: connect_in(netns.clone()),
        })
        .await
        .unwrap();
        let kubeconfig = identity(dir.path(), "admin", "system:masters", outside_port);
        identity(dir.path(), "system:node:node1", "system:nodes", inside_port);
        write_plugin(dir.path());
        serving_certificate(dir.path());
        let client = api::client(Some(&kubeconfig), "test").await.unwrap();
        let options = lab::controllers::Options {
            kubeconfig: kubeconfig.clone(),
            identity: "test".to_owned(),
        };
        let controllers = tokio::spawn(async move {
            let _ = lab::controllers::run(options).await;
        });
        Self {
            cgroup: cgroup_mount()
                .join("flatnet-tests")
                .join(format!("{name}-{}", std::process::id())),
            client,
            kubeconfig,
            dir,
            netns,
            kubelet: None,
            controllers,
            _server: server,
        }
    }

    /// Gives the node its network configuration, all at once.
    pub fn write_conflist(&self) {
        let folder = self.dir.path().join("state/cni/net.d");
        std::fs::create_dir_all(&folder).unwrap();
        let list = json!({"cniVersion": "1.1.0", "name": "test", "plugins": [{"type": "plugin"}]});
        std::fs::write(folder.join("new"), list.to_string()).unwrap();
        std::fs::rename(folder.join("new"), folder.join("10-test.conflist")).unwrap();
    }

    /// Starts the kubelet.
    pub fn start_kubelet(&mut self) {
        let dir = self.dir.path();
        let options = lab::kubelet::Options {
            node: "node1".to_owned(),
            addresses: vec![ADDRESS.parse().unwrap()],
            kubeconfig: dir.join("system:node:node1.kubeconfig"),
            paths: lab::paths::NodePaths {
                state: dir.join("state"),
                run: dir.join("run"),
            },
            cgroup: self.cgroup.clone(),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".to_owned(),
            program: std::env::current_exe().unwrap(),
            images: dir.join("images"),
            cni_path: vec![dir.join("cni")],
            port: 10250,
            certificate: dir.join("kubelet.crt"),
            key: dir.join("kubelet.key"),
            client_ca: dir.join("api/pki/ca.crt"),
            max_pods: 20,
            resolv_conf: dir.join("resolv.conf"),
        };
        std::fs::write(
            &options.resolv_conf,
            "nameserver 192.0.2.53\nsearch corp.example\n",
        )
        .unwrap();
        let netns = self.netns.clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            netns.enter().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    ended = lab::kubelet::run(options) => panic!("the kubelet ended: {ended:?}"),
                    _ = stopped => {}
                }
            });
        });
        self.kubelet = Some(Kubelet { stop, thread });
    }

    /// Ends the kubelet, not its pods.
    pub fn stop_kubelet(&mut self) {
        if let Some(kubelet) = self.kubelet.take() {
            let _ = kubelet.stop.send(());
            let _ = kubelet.thread.join();
        }
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates a pod on this node.
    pub async fn run(&self, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = json!("node1");
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        // The namespace's service account comes from a controller.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.pods().create(&PostParams::default(), &pod).await {
                Ok(pod) => return pod,
                Err(error) if Instant::now() > deadline => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Waits until a pod is as `good` says.
    pub async fn until(&self, name: &str, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pod = self.pods().get_opt(name).await.unwrap();
            let pod = serde_json::to_value(pod).unwrap();
            if good(&pod) {
                return pod;
            }
            assert!(
                Instant::now() < deadline,
                "not in time: {what}; there is {:#}",
                pod["status"]
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn until_ready(&self, name: &str) -> Value {
        self.until(name, "ready", |pod| condition(pod, "Ready") == "True")
            .await
    }

    /// Waits until a pod is gone from the API.
    pub async fn until_gone(&self, name: &str) {
        self.until(name, "gone", Value::is_null).await;
    }

    pub async fn delete(&self, name: &str, params: &DeleteParams) {
        self.pods().delete(name, params).await.unwrap();
    }

    pub async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), "default");
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    /// Waits for an Event with this reason whose message contains these words.
    pub async fn until_event(&self, reason: &str, words: &str) {
        let api: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = api.list(&ListParams::default()).await.unwrap().items;
            let message = |event: &Event| event.message.clone().unwrap_or_default();
            let is = |event: &&Event| event.reason.as_deref() == Some(reason);
            if events
                .iter()
                .filter(is)
                .any(|event| message(event).contains(words))
            {
                return;
            }
            let all: Vec<_> = events
                .iter()
                .map(|e| (e.reason.clone(), message(e)))
                .collect();
            assert!(
                Instant::now() < deadline,
                "no Event {reason} with {words:?} among {all:#?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs kubectl; its exit code, output and errors.
    pub async fn kubectl(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.kubectl_command(args).output();
        let output = tokio::time::timeout(PATIENCE, output)
            .await
            .expect("kubectl in time")
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code().unwrap_or(-1),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    pub fn kubectl_command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Every call of the plugin: command and sandbox.
    pub fn all_plugin_calls(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("cni/calls")).unwrap_or_default()
    }

    /// How often the plugin was called with this command.
    pub fn plugin_calls(&self, command: &str) -> usize {
        let calls = self.all_plugin_calls();
        calls
            .lines()
            .filter(|line| line.starts_with(command))
            .count()
    }

    pub fn pod_folder(&self, pod: &Value) -> PathBuf {
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        self.dir.path().join("state/pods").join(uid)
    }
}

/// The status of a pod's condition.
pub fn condition<'a>(pod: &'a Value, type_: &str) -> &'a str {
    let conditions = pod["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|c| c["type"] == type_);
    found.and_then(|c| c["status"].as_str()).unwrap_or_default()
}

fn cgroup_mount() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let v2 = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"))
        .unwrap();
    PathBuf::from(v2.split(' ').nth(1).unwrap())
}

/// Reaches kubelets in the node's namespace.
fn connect_in(netns: Arc<NetNs>) -> apiserver::Connect {
    Arc::new(move |address: IpAddr, port| {
        let netns = netns.clone();
        Box::pin(async move {
            let stream = tokio::task::spawn_blocking(move || {
                let to = SocketAddr::new(address, port);
                run_in(&netns, || std::net::TcpStream::connect(to))
                    .map_err(std::io::Error::other)?
            });
            let stream = stream.await??;
            stream.set_nonblocking(true)?;
            tokio::net::TcpStream::from_std(stream)
        })
    })
}

/// Writes `USER.kubeconfig`.
fn identity(dir: &Path, user: &str, group: &str, port: u16) -> PathBuf {
    let pki = certs::Pki::open(&dir.join("api")).unwrap();
    let url = format!("https://127.0.0.1:{port}");
    let text = pki.kubeconfig("test", &url, user, Some(group)).unwrap();
    let path = dir.join(format!("{user}.kubeconfig"));
    std::fs::write(&path, text).unwrap();
    path
}

fn serving_certificate(dir: &Path) {
    let read = |name: &str| std::fs::read_to_string(dir.join("api/pki").join(name)).unwrap();
    let pair = certs::Pair {
        certificate: read("ca.crt"),
        key: read("ca.key"),
    };
    let authority = certs::Authority::load(&pair).unwrap();
    let addresses = [ADDRESS.parse().unwrap()];
    let pair = authority
        .server(
            "system:node:node1",
            Some("system:nodes"),
            &["node1"],
            &addresses,
        )
        .unwrap();
    std::fs::write(dir.join("kubelet.crt"), pair.certificate).unwrap();
    std::fs::write(dir.join("kubelet.key"), pair.key).unwrap();
}

fn write_plugin(dir: &Path) {
    std::fs::create_dir(dir.join("cni")).unwrap();
    let path = dir.join("cni/plugin");
    std::fs::write(&path, include_str!("plugin.sh")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
