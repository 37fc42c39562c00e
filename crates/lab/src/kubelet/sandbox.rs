//! A pod's sandbox: its namespaces, its network, its network files.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::shim::{self, SandboxSpec, client::Sandbox};

use super::cni::{self, Attachment, Conflist};
use super::dns::{self, ClusterDns, Names, Resolv};
use super::launch;
use super::pod::{Message, Task};
use super::reference;
use super::state::Sandbox as SandboxPhase;

/// File of the network attachment in a pod's folder.
pub const CNI_FILE: &str = "cni.json";
/// Name of the network namespace's owner in the shim's labels.
const SANDBOX_ID: &str = "sandbox-id";
/// Waits between tries to make a sandbox, in seconds: doubling up to the last.
const SANDBOX_RETRY: (i64, i64) = (1, 10);
/// A step that failed for a reason outside is tried again after this.
pub const STEP_RETRY: Duration = Duration::from_secs(1);

impl Task {
    pub(super) async fn start_sandbox(&mut self) {
        match self.try_sandbox().await {
            Ok(()) => {
                self.state.sandbox = SandboxPhase::Ready;
                self.state.sandbox_failures = 0;
                self.state.initialized = false;
                self.watch_sandbox();
            }
            Err((reason, message)) => {
                let on = reference(&self.pod, None);
                self.shared.recorder.warning(on, reason, message);
                let (first, last) = SANDBOX_RETRY;
                let wait = (first << self.state.sandbox_failures.min(8)).min(last);
                self.state.sandbox_failures += 1;
                let wait = SignedDuration::from_secs(wait);
                let now = Timestamp::now();
                self.state.sandbox = SandboxPhase::Failed {
                    retry_at: now.checked_add(wait).unwrap_or(now),
                };
            }
        }
    }

    pub(super) async fn try_sandbox(&mut self) -> Result<(), (&'static str, String)> {
        let pod = self.pod.clone();
        let host_network = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.host_network == Some(true));
        if !host_network && let Some(cause) = self.shared.network.borrow().clone() {
            return Err((
                "NetworkNotReady",
                format!(
                    "network is not ready: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: {cause}"
                ),
            ));
        }
        let setup = |error: String| {
            (
                "FailedCreatePodSandBox",
                format!("Failed to create pod sandbox: {error}"),
            )
        };
        let options = &self.shared.options;
        std::fs::create_dir_all(&self.dir)
            .map_err(|e| setup(format!("{}: {e}", self.dir.display())))?;
        let names = dns::names(&pod, &options.node, &options.cluster_domain)
            .map_err(|error| ("FailedCreatePodSandBox", error))?;
        let resolv = self.resolv(&pod);
        let id = random_id();
        let sandbox = Sandbox::start(&options.program, &self.dir, &self.sandbox_spec(&names, &id))
            .await
            .map_err(|error| setup(error.to_string()))?;
        if !host_network {
            match self.attach(&sandbox, &id, &resolv).await {
                Ok(attachment) => {
                    self.state.ips = attachment.ips();
                    self.attachment = Some(attachment);
                }
                Err(error) => {
                    if let Err(stop) = sandbox.stop().await {
                        tracing::warn!(%stop, "stopping a sandbox that got no network");
                    }
                    return Err(setup(format!(
                        "rpc error: code = Unknown desc = failed to setup network for sandbox \"{id}\": {error}"
                    )));
                }
            }
        }
        self.write_network_files(&names, &resolv)
            .map_err(|e| setup(e.to_string()))?;
        self.sandbox = Some(sandbox);
        Ok(())
    }

    /// The pod's `resolv.conf`; what had to be cut is told in Events.
    pub(super) fn resolv(&self, pod: &Pod) -> Resolv {
        let options = &self.shared.options;
        let node = std::fs::read_to_string(&options.resolv_conf).unwrap_or_default();
        let cluster = ClusterDns {
            servers: options.cluster_dns.clone(),
            domain: options.cluster_domain.clone(),
        };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        let (resolv, warnings) = dns::resolv(&spec, namespace, &cluster, &Resolv::parse(&node));
        for warning in warnings {
            self.shared
                .recorder
                .warning(reference(pod, None), "DNSConfigForming", warning);
        }
        resolv
    }

    pub(super) fn sandbox_spec(&self, names: &Names, id: &str) -> SandboxSpec {
        let pod = &self.pod;
        let empty = Default::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let sysctls = spec
            .security_context
            .iter()
            .flat_map(|s| s.sysctls.iter().flatten());
        let (namespace, name) = super::key(pod);
        SandboxSpec {
            hostname: names.kernel.clone(),
            host_network: spec.host_network == Some(true),
            host_pid: spec.host_pid == Some(true),
            host_ipc: spec.host_ipc == Some(true),
            share_pid: spec.share_process_namespace == Some(true),
            cgroup: self.shared.pod_cgroup(&uid),
            sysctls: sysctls.map(|s| (s.name.clone(), s.value.clone())).collect(),
            labels: [
                ("namespace".to_owned(), namespace),
                ("name".to_owned(), name),
                (SANDBOX_ID.to_owned(), id.to_owned()),
            ]
            .into(),
            uid,
        }
    }

    pub(super) async fn attach(
        &self,
        sandbox: &Sandbox,
        id: &str,
        resolv: &Resolv,
    ) -> Result<Attachment, String> {
        let (namespace, name) = super::key(&self.pod);
        let attachment = Attachment {
            container: id.to_owned(),
            pod: (
                namespace,
                name,
                self.pod.metadata.uid.clone().unwrap_or_default(),
            ),
            conflist: Conflist::load(&self.shared.cni.conf).map_err(|e| e.to_string())?,
            capabilities: cni::capabilities(&self.pod, resolv)?,
            result: None,
        };
        let cache = self.dir.join(CNI_FILE);
        let added = self
            .shared
            .cni
            .add(&cache, &sandbox.netns(), attachment)
            .await;
        added.map_err(|error| error.to_string())
    }

    pub(super) fn write_network_files(
        &self,
        names: &Names,
        resolv: &Resolv,
    ) -> std::io::Result<()> {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let node_hosts = match spec.host_network {
            Some(true) => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            _ => String::new(),
        };
        let hosts = dns::hosts(&spec, &self.state.ips, names, &node_hosts);
        std::fs::write(self.dir.join(launch::HOSTS_FILE), hosts)?;
        std::fs::write(self.dir.join(launch::RESOLV_FILE), resolv.render())
    }

    /// Listens to the sandbox's shim.
    pub fn watch_sandbox(&mut self) {
        let Some(sandbox) = self.sandbox.clone() else {
            return;
        };
        let mailbox = self.sender.clone();
        let task = tokio::spawn(async move {
            if let Ok(mut watch) = sandbox.watch().await {
                while let Ok(state) = watch.next().await {
                    if mailbox
                        .send(Message::Sandbox(Box::new(state)))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
            let _ = mailbox.send(Message::SandboxGone).await;
        });
        if let Some(old) = self.watcher.replace(task.abort_handle()) {
            old.abort();
        }
    }

    pub(super) async fn stop_sandbox(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
        self.probes.clear();
        let cache = self.dir.join(CNI_FILE);
        if let Some(attachment) = self.attachment.clone().or_else(|| cni::load(&cache)) {
            let netns = self
                .sandbox
                .as_ref()
                .map(Sandbox::netns)
                .filter(|netns| netns.exists());
            if let Err(error) = self.shared.cni.delete(&attachment, netns.as_deref()).await {
                let message = format!(
                    "error killing pod: failed to \"KillPodSandbox\" for {:?} with KillPodSandboxError: {error}",
                    attachment.pod.2
                );
                self.shared
                    .recorder
                    .warning(reference(&self.pod, None), "FailedKillPod", message);
                tokio::time::sleep(STEP_RETRY).await;
                return;
            }
            let _ = std::fs::remove_file(&cache);
            self.attachment = None;
        }
        if let Err(error) = shim::client::stop(&self.dir).await {
            tracing::warn!(%error, "stopping a pod's shim; trying again");
            tokio::time::sleep(STEP_RETRY).await;
            return;
        }
        self.sandbox = None;
        self.state.sandbox = SandboxPhase::Absent;
        self.state.initialized = false;
        self.end_all();
    }
}

/// A sandbox's id: 64 hexadecimal digits, as container runtimes give them.
fn random_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
