//! The node's own object: registration, conditions, lease.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Options, Shared, VERSION};

/// Renewals of the node's lease: often, so that a node that stops is missed in about ten
/// seconds (the node controller bears silence for as long as the lease itself says).
const LEASE_EVERY: Duration = Duration::from_secs(3);
const LEASE_SECONDS: i32 = 10;
/// A renewal without an answer for so long is given up, with its connection: after a cut
/// the node is back as soon as the network is.
const LEASE_TIMEOUT: Duration = Duration::from_secs(2);
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The node's status is written again after this, changed or not.
const STATUS_EVERY: Duration = Duration::from_secs(300);
/// The node is looked at this often: what somebody else says of it is put right.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same as [`LEASE_TIMEOUT`], for writing the status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the network is looked at, once it is there.
const NETWORK_EVERY: Duration = Duration::from_secs(30);

/// What the network plugin's state is called before there is one.
pub const NOT_INITIALIZED: &str = "cni plugin not initialized";

/// What the machine offers, by resource; `folder` is on the disk that pods use.
pub fn capacity(max_pods: u32, folder: &Path) -> BTreeMap<String, String> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next())
        .unwrap_or("0");
    let mut capacity = BTreeMap::from([
        ("cpu".to_owned(), cpus.to_string()),
        ("memory".to_owned(), format!("{memory}Ki")),
        ("pods".to_owned(), max_pods.to_string()),
    ]);
    if let Ok(disk) = nix::sys::statvfs::statvfs(folder) {
        let kib = disk.blocks() * disk.fragment_size() / 1024;
        capacity.insert("ephemeral-storage".to_owned(), format!("{kib}Ki"));
    }
    capacity
}

/// Labels every node has.
fn labels(options: &Options) -> BTreeMap<String, String> {
    BTreeMap::from(
        [
            ("kubernetes.io/hostname", options.node.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture()),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", architecture()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    )
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// `status.nodeInfo`.
fn node_info() -> Value {
    let release = read("/etc/os-release");
    let image = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux");
    json!({
        "machineID": read("/etc/machine-id"),
        "systemUUID": read("/sys/class/dmi/id/product_uuid"),
        "bootID": read("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": read("/proc/sys/kernel/osrelease"),
        "osImage": image.trim_matches('"'),
        "containerRuntimeVersion": concat!("flatnet://", env!("CARGO_PKG_VERSION")),
        "kubeletVersion": VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": architecture(),
    })
}

/// The status of a node whose network is ready, or not for the reason given. `old` keeps
/// the times of conditions that did not change.
fn status(
    options: &Options,
    capacity: &BTreeMap<String, String>,
    network: Option<&str>,
    old: Option<&Node>,
    now: Timestamp,
) -> Value {
    let mut addresses: Vec<Value> = options
        .addresses
        .iter()
        .map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}))
        .collect();
    addresses.push(json!({"type": "Hostname", "address": options.node}));
    let ready = match network {
        None => (
            "Ready",
            true,
            "KubeletReady",
            "kubelet is posting ready status".to_owned(),
        ),
        Some(cause) => (
            "Ready",
            false,
            "KubeletNotReady",
            format!(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: {cause}"
            ),
        ),
    };
    let fine = |type_, reason, message: &str| (type_, false, reason, message.to_owned());
    let conditions: Vec<Value> = [
        fine(
            "MemoryPressure",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        fine(
            "DiskPressure",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        fine(
            "PIDPressure",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        ready,
    ]
    .into_iter()
    .map(|(type_, value, reason, message)| {
        let status = if value { "True" } else { "False" };
        let since = old
            .and_then(|node| node.status.as_ref()?.conditions.as_ref())
            .and_then(|conditions| {
                conditions
                    .iter()
                    .find(|c| c.type_ == type_ && c.status == status)
            })
            .and_then(|condition| condition.last_transition_time.as_ref())
            .map_or(now, |time| time.0);
        let text = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({"type": type_, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": text(now), "lastTransitionTime": text(since)})
    })
    .collect();
    json!({
        "addresses": addresses,
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": conditions,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": options.port}},
        "nodeInfo": node_info(),
    })
}

/// Registers the node and keeps its labels and status right.
pub async fn keep_registered(shared: Arc<Shared>) {
    let mut network = shared.network.clone();
    let mut backoff = api::Backoff::reconnect();
    // When the status was written last; nothing where it is to be written in any case.
    let mut written: Option<Instant> = None;
    loop {
        let cause = network.borrow_and_update().clone();
        let due = written.is_none_or(|at| at.elapsed() >= STATUS_EVERY);
        let registration = register(&shared, cause.as_deref(), due);
        let wait = match tokio::time::timeout(STATUS_TIMEOUT, registration).await {
            Ok(Ok(())) => {
                backoff.reset();
                written = written.filter(|_| !due).or_else(|| Some(Instant::now()));
                LOOK_EVERY
            }
            Err(_) => {
                tracing::warn!("registering the node: no answer; trying again");
                backoff.wait()
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    cause = api::error::cause(&error),
                    "registering the node; trying again"
                );
                backoff.wait()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.answered.notified() => written = None,
            changed = network.changed() => match changed {
                Ok(()) => written = None,
                Err(_) => return,
            },
        }
    }
}

/// Whether the node's object says of it what its network's state makes it.
fn agrees(node: &Node, network: Option<&str>) -> bool {
    let status = if network.is_none() { "True" } else { "False" };
    let conditions = node.status.as_ref().and_then(|it| it.conditions.as_ref());
    let mut all = conditions.into_iter().flatten();
    all.any(|condition| condition.type_ == "Ready" && condition.status == status)
}

/// Makes the node, or puts it right where it differs or its status is `due`.
async fn register(shared: &Shared, network: Option<&str>, due: bool) -> Result<(), kube::Error> {
    let options = &shared.options;
    let api: Api<Node> = Api::all(shared.client.clone());
    let labels = labels(options);
    let found = api.get_opt(&options.node).await?;
    let now = Timestamp::now();
    let old = match found {
        Some(node) => {
            let has = node.metadata.labels.clone().unwrap_or_default();
            if labels
                .iter()
                .any(|(key, value)| has.get(key) != Some(value))
            {
                let patch = json!({"metadata": {"labels": labels}});
                api.patch(&options.node, &PatchParams::default(), &Patch::Merge(patch))
                    .await?;
            }
            if !due && agrees(&node, network) {
                return Ok(());
            }
            Some(node)
        }
        None => {
            let mut node = Node {
                metadata: ObjectMeta {
                    name: Some(options.node.clone()),
                    labels: Some(labels),
                    ..ObjectMeta::default()
                },
                ..Node::default()
            };
            let value = status(options, &shared.allocatable, network, None, now);
            node.status = serde_json::from_value(value).ok();
            match api.create(&PostParams::default(), &node).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                created => {
                    created?;
                }
            }
            None
        }
    };
    let mut status = status(options, &shared.allocatable, network, old.as_ref(), now);
    // Addresses merge by their type, and a dual-stack node has two of one type.
    if let Some(addresses) = status["addresses"].as_array_mut() {
        addresses.push(json!({"$patch": "replace"}));
    }
    let patch = json!({"status": status});
    api.patch_status(
        &options.node,
        &PatchParams::default(),
        &Patch::Strategic(patch),
    )
    .await?;
    Ok(())
}

/// Renews the node's lease.
pub async fn keep_lease(shared: Arc<Shared>) {
    let api: Api<Lease> = Api::namespaced(shared.client.clone(), LEASE_NAMESPACE);
    let mut known = false;
    let (mut answered, mut failed) = (false, false);
    loop {
        let renewal = renew(&shared, &api, known);
        let wait = match tokio::time::timeout(LEASE_TIMEOUT, renewal).await {
            Ok(Ok(())) => {
                if std::mem::take(&mut failed) && answered {
                    shared.answered.notify_one();
                }
                (known, answered) = (true, true);
                LEASE_EVERY
            }
            Err(_) => {
                failed = true;
                tracing::debug!("renewing the node's lease: no answer; trying again");
                Duration::from_millis(200)
            }
            Ok(Err(error)) => {
                (known, failed) = (false, true);
                // At the very start the node is not registered yet.
                tracing::debug!(
                    cause = api::error::cause(&error),
                    "renewing the node's lease; trying again"
                );
                Duration::from_millis(200)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn renew(shared: &Shared, api: &Api<Lease>, known: bool) -> Result<(), kube::Error> {
    let node = &shared.options.node;
    let now = MicroTime(Timestamp::now());
    if known {
        let patch = json!({"spec": {"renewTime": now}});
        api.patch(node, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        return Ok(());
    }
    let spec = LeaseSpec {
        holder_identity: Some(node.clone()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(now),
        ..LeaseSpec::default()
    };
    if api.get_opt(node).await?.is_some() {
        let patch = json!({"spec": spec});
        api.patch(node, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        return Ok(());
    }
    let nodes: Api<Node> = Api::all(shared.client.clone());
    let uid = nodes.get(node).await?.metadata.uid.unwrap_or_default();
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.clone()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: node.clone(),
                uid,
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
    };
    api.create(&PostParams::default(), &lease).await?;
    Ok(())
}

/// Why pods cannot be given a network now; none where they can.
pub async fn network_problem(cni: &super::cni::Runner) -> Option<String> {
    match cni.status().await {
        Ok(()) => None,
        Err(super::cni::Error::NoConfig(_)) => Some(NOT_INITIALIZED.to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Looks whether pods can be given a network, often while they cannot.
pub async fn watch_network(shared: Arc<Shared>, state: watch::Sender<Option<String>>) {
    let mut backoff = api::Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let mut collected = false;
    loop {
        let cause = network_problem(&shared.cni).await;
        let ready = cause.is_none();
        state.send_if_modified(|old| {
            let changed = *old != cause;
            *old = cause;
            changed
        });
        if ready && !collected {
            collected = true;
            collect(&shared).await;
        }
        let wait = match ready {
            true => {
                backoff.reset();
                NETWORK_EVERY
            }
            false => backoff.wait(),
        };
        tokio::time::sleep(wait).await;
    }
}

/// Tells the network plugins once after a start which attachments there are.
async fn collect(shared: &Shared) {
    let mut valid = Vec::new();
    for entry in std::fs::read_dir(shared.options.paths.pods())
        .into_iter()
        .flatten()
        .flatten()
    {
        let attachment = super::cni::load(&entry.path().join(super::sandbox::CNI_FILE));
        valid.extend(attachment.map(|attachment| attachment.container));
    }
    if let Err(error) = shared.cni.collect(&valid).await {
        tracing::warn!(%error, "CNI GC");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_why_it_is_not_ready_and_keeps_its_times() {
        let options = super::super::server::tests::options(Path::new("/nowhere"));
        let capacity = capacity(110, Path::new("/"));
        assert_eq!(capacity["pods"], "110");
        let first: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
        let value = status(&options, &capacity, Some(NOT_INITIALIZED), None, first);
        assert_eq!(
            value["conditions"][3]["message"],
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"
        );
        let node = Node {
            status: serde_json::from_value(value).unwrap(),
            ..Node::default()
        };
        assert!(agrees(&node, Some(NOT_INITIALIZED)));
        assert!(!agrees(&node, None), "somebody else says it is not ready");
        let value = status(&options, &capacity, None, Some(&node), later);
        assert_eq!(value["conditions"][3]["status"], "True");
        assert_eq!(
            value["conditions"][3]["lastTransitionTime"],
            "2026-01-01T00:05:00Z"
        );
        assert_eq!(
            value["conditions"][0]["lastTransitionTime"],
            "2026-01-01T00:00:00Z"
        );
        assert_eq!(value["addresses"][0]["address"], "10.0.1.10");
    }
}
