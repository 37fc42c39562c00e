//! Where a cluster keeps its files. One place knows every path.

use std::path::PathBuf;

/// Where clusters keep what must survive the machine's restart.
pub const STATE: &str = "/var/lib/flatnet/clusters";
/// Where clusters keep sockets and locks.
pub const RUN: &str = "/run/flatnet/clusters";

/// The folders of one cluster.
#[derive(Clone, Debug)]
pub struct ClusterPaths {
    /// The cluster's name (`--name`).
    pub name: String,
    /// Durable state, `/var/lib/flatnet/clusters/NAME`.
    pub state: PathBuf,
    /// Sockets and locks, `/run/flatnet/clusters/NAME`.
    pub run: PathBuf,
}

impl ClusterPaths {
    /// The paths of the cluster called `name`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: PathBuf::from(STATE).join(name),
            run: PathBuf::from(RUN).join(name),
        }
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// The controllers' kubeconfig.
    pub fn controllers_kubeconfig(&self) -> PathBuf {
        self.state.join("controllers.kubeconfig")
    }

    /// The certificate authority and the API server's own certificate.
    pub fn pki(&self) -> PathBuf {
        self.apiserver().join("pki")
    }

    /// The API server's data folder.
    pub fn apiserver(&self) -> PathBuf {
        self.state.join("apiserver")
    }

    /// The programs of the built-in images, laid out for containers of every node.
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// The nodes' `resolv.conf`.
    pub fn resolv_conf(&self) -> PathBuf {
        self.state.join("resolv.conf")
    }

    /// A daemon's log file.
    pub fn log(&self, process: &str) -> PathBuf {
        self.state.join("logs").join(format!("{process}.log"))
    }

    /// The folders of one node.
    pub fn node(&self, node: &str) -> NodePaths {
        NodePaths {
            state: self.state.join("nodes").join(node),
            run: self.run.join("nodes").join(node),
        }
    }

    /// Name of a node's network namespace, as `ip netns` shows it.
    pub fn netns(&self, node: &str) -> String {
        format!("fn-{}-{node}", self.name)
    }

    /// The cluster's folder below the cgroup v2 mount.
    pub fn cgroup(&self) -> PathBuf {
        PathBuf::from("flatnet").join(&self.name)
    }

    /// A node's folder below the cgroup v2 mount.
    pub fn node_cgroup(&self, node: &str) -> PathBuf {
        self.cgroup().join("nodes").join(node)
    }
}

/// The folders of one node.
#[derive(Clone, Debug)]
pub struct NodePaths {
    /// Durable state of the node.
    pub state: PathBuf,
    /// Sockets of the node.
    pub run: PathBuf,
}

impl NodePaths {
    /// The agent's socket, for the CNI plugin and the command line.
    pub fn agent_socket(&self) -> PathBuf {
        self.run.join("agent.sock")
    }

    /// The agent's state: addresses given out.
    pub fn agent_state(&self) -> PathBuf {
        self.state.join("agent")
    }

    /// The kubelet's kubeconfig.
    pub fn kubelet_kubeconfig(&self) -> PathBuf {
        self.state.join("kubelet.kubeconfig")
    }

    /// The kubelet's serving certificate.
    pub fn kubelet_certificate(&self) -> PathBuf {
        self.state.join("kubelet.crt")
    }

    /// Its key.
    pub fn kubelet_key(&self) -> PathBuf {
        self.state.join("kubelet.key")
    }

    /// The agent's kubeconfig.
    pub fn agent_kubeconfig(&self) -> PathBuf {
        self.state.join("agent.kubeconfig")
    }

    /// CNI configuration folder.
    pub fn cni_conf(&self) -> PathBuf {
        self.state.join("cni/net.d")
    }

    /// The kubelet's pods: `pods/UID/...`.
    pub fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }
}
