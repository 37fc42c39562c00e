//! What a KubeProxyConfiguration file asks for, as far as it means something here.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Config, ConfigError, LocalDetection, NodePortAddresses, ServicesMode};

/// `apiVersion` of kube-proxy's configuration.
pub const PROXY_API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// Its `kind`.
pub const PROXY_KIND: &str = "KubeProxyConfiguration";

/// A KubeProxyConfiguration. What it does not say stays as the network's configuration has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// `mode`.
    pub mode: Option<ServicesMode>,
    /// `iptables`.
    pub iptables: ModeConfig,
    /// `nftables`.
    pub nftables: ModeConfig,
    /// `iptables.localhostNodePorts`, for both modes.
    pub localhost_node_ports: Option<bool>,
    /// `detectLocalMode` and `detectLocal`.
    pub local_detection: Option<LocalDetection>,
    /// `clusterCIDR`, empty where it is not given.
    pub cluster_cidrs: Vec<IpNet>,
    /// `nodePortAddresses`.
    pub node_port_addresses: Option<NodePortAddresses>,
    /// `clientConnection.kubeconfig`.
    pub kubeconfig: Option<String>,
    /// `hostnameOverride`.
    pub hostname: Option<String>,
    /// `healthzBindAddress`.
    pub healthz: Option<SocketAddr>,
    /// `metricsBindAddress`.
    pub metrics: Option<SocketAddr>,
    /// `bindAddressHardFail`.
    pub bind_hard_fail: bool,
    /// `oomScoreAdj`.
    pub oom_score_adj: Option<i16>,
    /// `conntrack`.
    pub conntrack: ConntrackConfig,
    /// Fields that are known and have no effect here, each with the reason.
    pub warnings: Vec<ConfigError>,
}

/// The section of one mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModeConfig {
    /// `masqueradeAll`.
    pub masquerade_all: Option<bool>,
    /// `masqueradeBit`.
    pub masquerade_bit: Option<u8>,
    /// `syncPeriod`.
    pub sync_period: Option<Duration>,
}

/// Connection tracking. As kube-proxy, values are raised and never lowered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConntrackConfig {
    /// Connections for each processor; 0 leaves the limit as it is.
    pub max_per_core: u32,
    /// At least so many in all.
    pub min: u32,
    /// Idle established TCP connections; zero leaves it as it is, like the others below.
    pub tcp_established_timeout: Duration,
    /// TCP connections in CLOSE_WAIT.
    pub tcp_close_wait_timeout: Duration,
    /// Packets out of a connection's window are not invalid.
    pub tcp_be_liberal: bool,
    /// UDP without an answer.
    pub udp_timeout: Duration,
    /// UDP with packets both ways.
    pub udp_stream_timeout: Duration,
}

impl Default for ConntrackConfig {
    fn default() -> Self {
        Self {
            max_per_core: 32 << 10,
            min: 128 << 10,
            tcp_established_timeout: Duration::from_secs(24 * 3600),
            tcp_close_wait_timeout: Duration::from_secs(3600),
            tcp_be_liberal: false,
            udp_timeout: Duration::ZERO,
            udp_stream_timeout: Duration::ZERO,
        }
    }
}

impl ConntrackConfig {
    /// The limit of a machine with so many processors; none where it is left as it is.
    pub fn max(&self, cores: u32) -> Option<u32> {
        let scaled = self.max_per_core.saturating_mul(cores);
        (self.max_per_core > 0).then_some(scaled.max(self.min))
    }
}

impl ProxyConfig {
    /// The network's configuration with what this one says of Services put over it.
    pub fn over(&self, config: &Config) -> Config {
        let mut config = config.clone();
        let services = &mut config.services;
        if let Some(mode) = self.mode {
            services.mode = mode;
        }
        let section = match services.mode {
            ServicesMode::Nftables => &self.nftables,
            ServicesMode::Iptables => &self.iptables,
        };
        if let Some(all) = section.masquerade_all {
            services.masquerade_all = all;
        }
        if let Some(bit) = section.masquerade_bit {
            services.masquerade_bit = bit;
        }
        if let Some(localhost) = self.localhost_node_ports {
            services.localhost_node_ports = localhost;
        }
        if let Some(addresses) = &self.node_port_addresses {
            services.node_port_addresses = addresses.clone();
        }
        if let Some(detection) = &self.local_detection {
            services.local_detection = detection.clone();
        }
        let by_cluster = services.local_detection == LocalDetection::ClusterCidr;
        if by_cluster && !self.cluster_cidrs.is_empty() {
            services.local_detection = LocalDetection::Ranges(self.cluster_cidrs.clone());
        }
        config
    }

    /// Half of the time that a change may wait, where it says so.
    pub fn sync_period(&self) -> Option<Duration> {
        let both = [self.nftables.sync_period, self.iptables.sync_period];
        let sections = match self.mode {
            Some(ServicesMode::Iptables) => &both[1..],
            _ => &both[..],
        };
        sections.iter().flatten().next().copied()
    }
}
