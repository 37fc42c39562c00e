//! One shim process per pod: parent of the pause process and of the pod's containers.
//!
//! The shim outlives the kubelet, so that a restarted kubelet adopts its pods: it keeps
//! exit codes, writes the container logs, and answers on a socket in the pod's folder.
//! [`client`] is the kubelet's side, [`server`] the process itself (`flatnet lab shim`).
//!
//! Nothing of a pod outlives its shim: pause and containers ask the kernel to be killed
//! with it, and every mount lives in a container's own mount namespace. What is left of a
//! shim that was killed is its cgroup folder and its facts (`state.json`), which
//! [`client::stop`] clears away.

mod caps;
mod cgroup;
pub mod client;
mod container;
mod logs;
mod mounts;
mod pause;
mod process;
mod rootfs;
pub mod server;
mod stream;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use stream::{Stream, Terminal};

/// What the pod's namespaces are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// The pod's UID.
    pub uid: String,
    /// Host name inside the pod's UTS namespace.
    pub hostname: String,
    /// True where the pod shares the node's network namespace.
    pub host_network: bool,
    /// True where containers share the machine's PID namespace.
    pub host_pid: bool,
    /// True where the pod shares the machine's IPC namespace.
    pub host_ipc: bool,
    /// True where containers of the pod share one PID namespace (`shareProcessNamespace`).
    pub share_pid: bool,
    /// The pod's cgroup v2 folder, absolute; made by the shim, removed by `stop`.
    pub cgroup: PathBuf,
    /// `net.*`, `kernel.shm*`, `kernel.msg*` and `kernel.sem` sysctls of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// What the caller wants to find again after its own restart; echoed in the state.
    pub labels: BTreeMap<String, String>,
}

/// A bind mount into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path on the machine; a folder or a file, which must be there.
    pub source: PathBuf,
    /// Path in the container; made where it is missing.
    pub target: PathBuf,
    /// True where the container may not write.
    pub read_only: bool,
}

/// One container to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Unique in the pod: `NAME-ATTEMPT`.
    pub id: String,
    /// Program and arguments; the program is looked up in the container's PATH.
    pub argv: Vec<String>,
    /// Environment; PATH, HOSTNAME, HOME and TERM (with a terminal) are added where missing.
    pub env: Vec<(String, String)>,
    /// Working directory in the container, made where it is missing; empty is `/`.
    pub cwd: PathBuf,
    /// Bind mounts, resolv.conf and hosts included; parents before children.
    pub mounts: Vec<Mount>,
    /// Symbolic links to make in the container: where, to what.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// CRI-format log file to append to; its folder is made.
    pub log: PathBuf,
    /// Terminal wanted.
    pub tty: bool,
    /// Standard input kept open for attach.
    pub stdin: bool,
    /// Standard input ends with the first attached client (`stdinOnce`).
    pub stdin_once: bool,
    /// `securityContext.runAsUser`/`runAsGroup`; none is root.
    pub user: Option<(u32, u32)>,
    /// Supplementary groups (`fsGroup`, `supplementalGroups`).
    pub groups: Vec<u32>,
    /// Every capability, all devices, nothing masked.
    pub privileged: bool,
    /// `capabilities.add`, with or without `CAP_`; `ALL` is known.
    pub cap_add: Vec<String>,
    /// `capabilities.drop`.
    pub cap_drop: Vec<String>,
    /// `allowPrivilegeEscalation: true`, Kubernetes' default: set-uid programs work.
    pub allow_privilege_escalation: bool,
    /// Root file system mounted read-only.
    pub read_only_root: bool,
    /// `oom_score_adj`, by the pod's quality of service.
    pub oom_score_adj: i32,
    /// `terminationMessagePath` in the container; its content is returned on exit.
    pub termination_message: PathBuf,
    /// What the caller wants to find again after its own restart; echoed in the state.
    pub labels: BTreeMap<String, String>,
}

/// How a container stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Between the order to start it and its program.
    Starting,
    /// Running with this process id (as the machine sees it).
    Running {
        /// Process id.
        pid: i32,
        /// Start, milliseconds since the epoch.
        started: i64,
    },
    /// Ended.
    Exited {
        /// Exit code, 128 + signal where a signal ended it.
        code: i32,
        /// Signal, or 0.
        signal: i32,
        /// Start, milliseconds since the epoch.
        started: i64,
        /// End, milliseconds since the epoch.
        finished: i64,
        /// Termination message, at most 4 KiB.
        message: String,
        /// True where the kernel ended it for memory.
        oom: bool,
    },
    /// Could not be started: the program is missing, a mount failed. Kubernetes shows it
    /// as `StartError` with exit code 128.
    Failed {
        /// The sentence, with its next step.
        message: String,
        /// When, milliseconds since the epoch.
        at: i64,
    },
}

/// A container as the shim knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// How it stands.
    pub state: ContainerState,
    /// Its log file.
    pub log: PathBuf,
    /// The labels it was started with.
    pub labels: BTreeMap<String, String>,
}

/// A pod as its shim knows it; also the content of `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxState {
    /// The shim's process id.
    pub shim_pid: i32,
    /// The pause process, which holds the namespaces; 0 once it has ended.
    pub pause_pid: i32,
    /// What the sandbox was started with.
    pub spec: SandboxSpec,
    /// Start, milliseconds since the epoch.
    pub started: i64,
    /// The containers by id, ended ones too until they are removed.
    pub containers: BTreeMap<String, ContainerStatus>,
}

/// A command run in a running container (exec, exec probe, lifecycle hook).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// The container's id.
    pub container: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Terminal wanted.
    pub tty: bool,
    /// Standard input wanted.
    pub stdin: bool,
}

/// Why the shim did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No shim answers for this pod: it was stopped, killed or never started.
    #[error("the pod's shim is gone ({0}): the sandbox has to be made again")]
    Gone(PathBuf),
    /// The program could not be started; the text is what users are shown.
    #[error("{0}")]
    Start(String),
    /// No such container, or it is not running.
    #[error("{0}")]
    NotFound(String),
    /// `exec_sync` took longer than it may.
    #[error("command timed out after {0:?}")]
    Timeout(std::time::Duration),
    /// Anything else, with what was being done.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl Error {
    fn io(what: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Io {
            what: what.into(),
            source: source.into(),
        }
    }
}

/// The facts a shim, running or dead, left in the pod's folder; none where there are none.
pub fn read_state(dir: &Path) -> Option<SandboxState> {
    let text = std::fs::read(dir.join(STATE)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// File of the sandbox's spec in the pod's folder.
const SPEC: &str = "sandbox.json";
/// File of the facts in the pod's folder.
const STATE: &str = "state.json";
/// The shim's socket in the pod's folder.
const SOCKET: &str = "shim.sock";
