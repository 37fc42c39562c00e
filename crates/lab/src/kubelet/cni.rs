//! The kubelet's side of the CNI protocol: reads the conflist, runs its plugins one
//! after another, keeps the result on disk for DEL.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::dns::Resolv;
use super::quantity;
use super::state::all;

/// The pod's interface.
const INTERFACE: &str = "eth0";
/// A plugin that has not answered by then is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// CNI's own code for "plugin not available" (STATUS).
const NOT_AVAILABLE: u64 = 50;

/// Why the network could not be made, in the words of an Event.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No configuration yet.
    #[error("cni config uninitialized: no *.conflist in {0}")]
    NoConfig(PathBuf),
    /// The configuration cannot be used.
    #[error("cni config {path}: {cause}")]
    BadConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A plugin refused.
    #[error("plugin type=\"{plugin}\" name=\"{network}\" failed ({command}): {message}")]
    Plugin {
        /// Plugin.
        plugin: String,
        /// Network.
        network: String,
        /// ADD, DEL, ...
        command: String,
        /// CNI error code, 0 where the plugin gave none.
        code: u64,
        /// The plugin's sentence.
        message: String,
    },
    /// A file of ours.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// A network configuration list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflist {
    /// Version of the protocol.
    #[serde(rename = "cniVersion", default)]
    pub version: String,
    /// The network's name.
    pub name: String,
    /// The plugins, in order.
    pub plugins: Vec<Map<String, Value>>,
}

impl Conflist {
    /// The first `*.conflist` of a folder, by name.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let none = || Error::NoConfig(folder.to_owned());
        let entries = std::fs::read_dir(folder).map_err(|_| none())?;
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|ext| ext == "conflist"))
            .collect();
        files.sort();
        let path = files.into_iter().next().ok_or_else(none)?;
        let bad = |cause: String| Error::BadConfig {
            path: path.clone(),
            cause,
        };
        let text = std::fs::read(&path).map_err(|error| bad(error.to_string()))?;
        let list: Self = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if list.plugins.is_empty() {
            return Err(bad(
                "plugins: the list is empty; name at least one plugin".to_owned()
            ));
        }
        for (index, plugin) in list.plugins.iter().enumerate() {
            let kind = plugin
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if kind.is_empty() || kind.contains('/') {
                return Err(bad(format!(
                    "plugins[{index}].type: not the name of a plugin"
                )));
            }
        }
        Ok(list)
    }

    /// True for protocol versions that know STATUS and GC.
    fn is_1_1(&self) -> bool {
        let mut parts = self
            .version
            .split('.')
            .map(|part| part.parse().unwrap_or(0));
        let (major, minor): (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        (major, minor) >= (1, 1)
    }

    /// One plugin's configuration, as it is handed to the plugin.
    fn for_plugin(
        &self,
        plugin: &Map<String, Value>,
        capabilities: &Map<String, Value>,
        previous: Option<&Value>,
    ) -> Value {
        let mut conf = plugin.clone();
        conf.insert("cniVersion".to_owned(), json!(self.version));
        conf.insert("name".to_owned(), json!(self.name));
        let asked = conf.remove("capabilities");
        let mut runtime = Map::new();
        for (name, wanted) in asked
            .as_ref()
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if let (Some(true), Some(value)) = (wanted.as_bool(), capabilities.get(name)) {
                runtime.insert(name.clone(), value.clone());
            }
        }
        if !runtime.is_empty() {
            conf.insert("runtimeConfig".to_owned(), Value::Object(runtime));
        }
        if let Some(previous) = previous {
            conf.insert("prevResult".to_owned(), previous.clone());
        }
        Value::Object(conf)
    }
}

/// One attachment of a pod, as kept on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The sandbox's id.
    pub container: String,
    /// Namespace, name and UID of the pod.
    pub pod: (String, String, String),
    /// The configuration it was made with.
    pub conflist: Conflist,
    /// Values of `runtimeConfig`.
    pub capabilities: Map<String, Value>,
    /// The last plugin's result, once there is one.
    pub result: Option<Value>,
}

impl Attachment {
    /// The addresses of the result.
    pub fn ips(&self) -> Vec<IpAddr> {
        let ips = self.result.as_ref().and_then(|result| result.get("ips"));
        ips.and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok())
            .collect()
    }
}

/// Runs plugins.
#[derive(Clone, Debug)]
pub struct Runner {
    /// Folder of the conflists.
    pub conf: PathBuf,
    /// Folders of the plugins.
    pub path: Vec<PathBuf>,
}

impl Runner {
    /// Whether pods can be given a network now.
    pub async fn status(&self) -> Result<(), Error> {
        let list = Conflist::load(&self.conf)?;
        for plugin in &list.plugins {
            let conf = list.for_plugin(plugin, &Map::new(), None);
            if list.is_1_1() {
                self.run(&list, plugin, "STATUS", &conf, None).await?;
            } else {
                self.find(&list, plugin, "STATUS")?;
            }
        }
        Ok(())
    }

    /// Gives a pod its network. On failure everything made so far is taken back. The
    /// attachment is written to `cache` before the first plugin runs.
    pub async fn add(
        &self,
        cache: &Path,
        netns: &Path,
        mut attachment: Attachment,
    ) -> Result<Attachment, Error> {
        save(cache, &attachment)?;
        let list = attachment.conflist.clone();
        let mut previous: Option<Value> = None;
        for plugin in &list.plugins {
            let conf = list.for_plugin(plugin, &attachment.capabilities, previous.as_ref());
            match self
                .run(
                    &list,
                    plugin,
                    "ADD",
                    &conf,
                    Some((&attachment, Some(netns))),
                )
                .await
            {
                Ok(result) => previous = Some(result),
                Err(error) => {
                    attachment.result = previous;
                    if let Err(undo) = self.delete(&attachment, Some(netns)).await {
                        tracing::warn!(%undo, "taking back a failed CNI ADD");
                    } else {
                        let _ = std::fs::remove_file(cache);
                    }
                    return Err(error);
                }
            }
        }
        attachment.result = previous;
        save(cache, &attachment)?;
        Ok(attachment)
    }

    /// Takes a pod's network away, last plugin first; all are tried, the first error is told.
    pub async fn delete(&self, attachment: &Attachment, netns: Option<&Path>) -> Result<(), Error> {
        let list = &attachment.conflist;
        let mut first = None;
        for plugin in list.plugins.iter().rev() {
            let result = attachment.result.as_ref();
            let conf = list.for_plugin(plugin, &attachment.capabilities, result);
            let run = self
                .run(list, plugin, "DEL", &conf, Some((attachment, netns)))
                .await;
            first = first.or(run.err());
        }
        first.map_or(Ok(()), Err)
    }

    /// Tells the plugins which attachments exist, so that they drop all others.
    pub async fn collect(&self, valid: &[String]) -> Result<(), Error> {
        let list = Conflist::load(&self.conf)?;
        if !list.is_1_1() {
            return Ok(());
        }
        let valid: Vec<Value> = valid
            .iter()
            .map(|container| json!({"containerID": container, "ifname": INTERFACE}))
            .collect();
        for plugin in &list.plugins {
            let mut conf = list.for_plugin(plugin, &Map::new(), None);
            conf["cni.dev/valid-attachments"] = json!(valid);
            self.run(&list, plugin, "GC", &conf, None).await?;
        }
        Ok(())
    }

    fn find(
        &self,
        list: &Conflist,
        plugin: &Map<String, Value>,
        command: &str,
    ) -> Result<(String, PathBuf), Error> {
        let kind = plugin
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let mut folders = self.path.iter();
        match folders.find(|folder| folder.join(&kind).is_file()) {
            Some(folder) => Ok((kind.clone(), folder.join(kind))),
            None => Err(Error::Plugin {
                message: format!("failed to find plugin \"{kind}\" in path {:?}", self.path),
                plugin: kind,
                network: list.name.clone(),
                command: command.to_owned(),
                code: NOT_AVAILABLE,
            }),
        }
    }

    async fn run(
        &self,
        list: &Conflist,
        plugin: &Map<String, Value>,
        command: &str,
        conf: &Value,
        on: Option<(&Attachment, Option<&Path>)>,
    ) -> Result<Value, Error> {
        let (kind, program) = self.find(list, plugin, command)?;
        let failed = |code: u64, message: String| Error::Plugin {
            plugin: kind.clone(),
            network: list.name.clone(),
            command: command.to_lowercase(),
            code,
            message,
        };
        let output = tokio::time::timeout(PATIENCE, self.exec(&program, command, conf, on))
            .await
            .map_err(|_| failed(0, format!("no answer within {} s", PATIENCE.as_secs())))?
            .map_err(|error| failed(0, error.to_string()))?;
        let answer = serde_json::from_slice::<Value>(&output.stdout).ok();
        if output.status.success() {
            return Ok(answer.unwrap_or(Value::Null));
        }
        let field = |name: &str| answer.as_ref().and_then(|answer| answer.get(name));
        let code = field("code").and_then(Value::as_u64).unwrap_or(0);
        let text = |name| {
            field(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (msg, details) = (text("msg"), text("details"));
        let message = match (msg.is_empty(), details.is_empty()) {
            (false, true) => msg,
            (false, false) => format!("{msg}; {details}"),
            _ => {
                let said = String::from_utf8_lossy(&output.stderr);
                format!("netplugin failed ({}): {}", output.status, said.trim())
            }
        };
        Err(failed(code, message))
    }

    async fn exec(
        &self,
        program: &Path,
        command: &str,
        conf: &Value,
        on: Option<(&Attachment, Option<&Path>)>,
    ) -> std::io::Result<std::process::Output> {
        let folders = std::env::join_paths(&self.path).unwrap_or_default();
        let mut process = Command::new(program);
        process
            .env_clear()
            .env("PATH", super::env::DEFAULT_PATH)
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", folders)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some((attachment, netns)) = on {
            let (namespace, name, uid) = &attachment.pod;
            process
                .env("CNI_CONTAINERID", &attachment.container)
                .env("CNI_IFNAME", INTERFACE)
                .env("CNI_NETNS", netns.unwrap_or(Path::new("")))
                .env(
                    "CNI_ARGS",
                    format!(
                        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={uid}",
                        attachment.container
                    ),
                );
        }
        let mut child = process.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that does not read its input closes the pipe: its exit code says more.
            let _ = stdin.write_all(conf.to_string().as_bytes()).await;
        }
        child.wait_with_output().await
    }
}

/// Reads an attachment back; none where there is none or it cannot be read.
pub fn load(cache: &Path) -> Option<Attachment> {
    serde_json::from_slice(&std::fs::read(cache).ok()?).ok()
}

fn save(cache: &Path, attachment: &Attachment) -> Result<(), Error> {
    let file = |source| Error::File {
        path: cache.to_owned(),
        source,
    };
    let text = serde_json::to_vec(attachment).map_err(|error| file(error.into()))?;
    let temporary = cache.with_extension("new");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, cache))
        .map_err(file)
}

/// The capability arguments of a pod.
pub fn capabilities(pod: &Pod, resolv: &Resolv) -> Result<Map<String, Value>, String> {
    let mut capabilities = Map::new();
    let mappings: Vec<Value> = pod
        .spec
        .iter()
        .flat_map(all)
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| port.host_port.is_some_and(|port| port > 0))
        .map(|port| {
            let mut mapping = json!({
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
            });
            if let Some(ip) = port.host_ip.as_deref().filter(|ip| !ip.is_empty()) {
                mapping["hostIP"] = json!(ip);
            }
            mapping
        })
        .collect();
    if !mappings.is_empty() {
        capabilities.insert("portMappings".to_owned(), json!(mappings));
    }
    capabilities.insert(
        "dns".to_owned(),
        json!({"servers": resolv.nameservers, "searches": resolv.searches, "options": resolv.options}),
    );
    if let Some(bandwidth) = bandwidth(pod.metadata.annotations.as_ref())? {
        capabilities.insert("bandwidth".to_owned(), bandwidth);
    }
    Ok(capabilities)
}

/// The bandwidth annotations, in bits per second.
fn bandwidth(annotations: Option<&BTreeMap<String, String>>) -> Result<Option<Value>, String> {
    let mut value = Map::new();
    for (annotation, rate, burst) in [
        (
            "kubernetes.io/ingress-bandwidth",
            "ingressRate",
            "ingressBurst",
        ),
        (
            "kubernetes.io/egress-bandwidth",
            "egressRate",
            "egressBurst",
        ),
    ] {
        let Some(text) = annotations.and_then(|map| map.get(annotation)) else {
            continue;
        };
        let bits = quantity::milli(text).map(|milli| milli / 1000);
        // The limits of Kubernetes: 1 kbit/s to 1 Pbit/s.
        let bits = bits.filter(|bits| (1_000..=1_000_000_000_000_000).contains(bits));
        let bits = bits.and_then(|bits| u64::try_from(bits).ok()).ok_or_else(|| {
            format!("annotation {annotation}: {text:?} is not a rate between 1k and 1P (bits per second), as in \"10M\"")
        })?;
        value.insert(rate.to_owned(), json!(bits));
        value.insert(burst.to_owned(), json!(i32::MAX));
    }
    Ok((!value.is_empty()).then_some(Value::Object(value)))
}

#[cfg(test)]
#[path = "cni_tests.rs"]
mod tests;
