//! What an agent is started with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use model::config::ProxyConfig;
use tokio::sync::mpsc;

use crate::Update;

/// kube-proxy's default for `iptables.syncPeriod` and its siblings.
const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// Where the agent learns of nodes, pods and the configuration.
#[derive(Debug)]
pub enum Source {
    /// A Kubernetes API server: that of the kubeconfig, or of the cluster this pod runs in.
    Kubernetes {
        /// File with address and credentials.
        kubeconfig: Option<PathBuf>,
    },
    /// Updates given by the caller; nothing is written back. For tests and for nodes that
    /// are told what they need.
    Given(mpsc::Receiver<Update>),
}

/// What an agent is started with.
#[derive(Debug)]
pub struct Options {
    /// Name of the Node object this agent serves.
    pub node: String,
    /// Where it learns of the cluster.
    pub source: Source,
    /// Socket for the CNI plugin and the command line; its folder is made.
    pub socket: PathBuf,
    /// Folder of the journal of addresses; one agent at a time uses it.
    pub state: PathBuf,
    /// Folder for `10-flatnet.conflist`, written once pods can be attached; none is written
    /// where absent.
    pub cni_conf: Option<PathBuf>,
    /// Where `/healthz` and `/livez` are answered; `[::]` means IPv4 too.
    pub healthz: Option<SocketAddr>,
    /// Where `/metrics` is answered.
    pub metrics: Option<SocketAddr>,
    /// Whether an agent whose port for health or metrics is in use ends; else it tries again.
    pub bind_hard_fail: bool,
    /// kube-proxy's configuration, put over what the network's says of Services.
    pub proxy: Option<ProxyConfig>,
    /// Where the node's own resolver configuration is: whom a Corefile's
    /// `forward . /etc/resolv.conf` asks.
    pub resolv_conf: PathBuf,
    /// Changes of Services that wait for twice this long make the node unhealthy.
    pub sync_period: Duration,
}

impl Options {
    /// The paths and ports of a real node.
    pub fn new(node: impl Into<String>, source: Source) -> Options {
        Options {
            node: node.into(),
            source,
            socket: PathBuf::from("/run/flatnet/agent.sock"),
            state: PathBuf::from("/var/lib/flatnet"),
            cni_conf: Some(PathBuf::from("/etc/cni/net.d")),
            healthz: Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 10256)),
            metrics: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249)),
            bind_hard_fail: false,
            proxy: None,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            sync_period: SYNC_PERIOD,
        }
    }

    /// Takes from a KubeProxyConfiguration what it says.
    #[must_use]
    pub fn with_proxy(mut self, proxy: ProxyConfig) -> Options {
        self.healthz = proxy.healthz.or(self.healthz);
        self.metrics = proxy.metrics.or(self.metrics);
        self.bind_hard_fail = proxy.bind_hard_fail;
        self.sync_period = proxy.sync_period().unwrap_or(self.sync_period);
        self.proxy = Some(proxy);
        self
    }
}
