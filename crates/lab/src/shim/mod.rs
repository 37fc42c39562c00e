//! One shim process per pod: parent of the pause process and of the pod's containers.
//!
//! The shim outlives the kubelet, so that a restarted kubelet adopts its pods: it keeps
//! exit codes, writes the container logs, and answers on a socket in the pod's folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the pod's namespaces are made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The pod's UID.
    pub uid: String,
    /// Host name inside the pod's UTS namespace.
    pub hostname: String,
    /// True where the pod shares the node's network namespace.
    pub host_network: bool,
    /// True where containers share the machine's PID namespace.
    pub host_pid: bool,
    /// True where containers of the pod share one PID namespace (`shareProcessNamespace`).
    pub share_pid: bool,
    /// The pod's cgroup v2 folder, absolute.
    pub cgroup: PathBuf,
    /// `net.*` sysctls to set in the pod's network namespace.
    pub sysctls: BTreeMap<String, String>,
}

/// A bind mount into a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// Path on the machine.
    pub source: PathBuf,
    /// Path in the container.
    pub target: PathBuf,
    /// True where the container may not write.
    pub read_only: bool,
}

/// One container to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Unique in the pod: `NAME-ATTEMPT`.
    pub id: String,
    /// Program and arguments; the program is looked up in the container's PATH.
    pub argv: Vec<String>,
    /// Environment, complete.
    pub env: Vec<(String, String)>,
    /// Working directory in the container.
    pub cwd: PathBuf,
    /// Bind mounts, resolv.conf and hosts included.
    pub mounts: Vec<Mount>,
    /// CRI-format log file to append to.
    pub log: PathBuf,
    /// Terminal wanted.
    pub tty: bool,
    /// Standard input kept open for attach.
    pub stdin: bool,
    /// `securityContext.runAsUser`/`runAsGroup`.
    pub user: Option<(u32, u32)>,
    /// Root file system mounted read-only.
    pub read_only_root: bool,
    /// `terminationMessagePath` in the container; its content is returned on exit.
    pub termination_message: PathBuf,
}

/// How a container stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Running with this process id (as the machine sees it).
    Running {
        /// Process id.
        pid: i32,
        /// Start, seconds since the epoch.
        started: i64,
    },
    /// Ended.
    Exited {
        /// Exit code, 128 + signal where a signal ended it.
        code: i32,
        /// Signal, or 0.
        signal: i32,
        /// Start, seconds since the epoch.
        started: i64,
        /// End, seconds since the epoch.
        finished: i64,
        /// Termination message.
        message: String,
        /// True where the kernel ended it for memory.
        oom: bool,
    },
    /// Could not be started: the program is missing, a mount failed.
    Failed {
        /// The sentence, with its next step.
        message: String,
    },
}

/// A command run in a running container (exec, exec probe, lifecycle hook).
#[derive(Clone, Debug, Serialize, Deserialize)]
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
