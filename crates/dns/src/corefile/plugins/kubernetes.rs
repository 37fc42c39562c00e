//! `kubernetes` and `k8s_external`.

use std::collections::BTreeSet;
use std::time::Duration;

use model::selector::LabelSelector;

use super::ClientTls;
use crate::corefile::Zone;

/// The cluster's names.
#[derive(Debug, Clone, PartialEq)]
pub struct Kubernetes {
    /// The zones, reverse zones among them.
    pub zones: Vec<Zone>,
    /// The API server's URL; `None` is that of the pod's own cluster.
    pub endpoint: Option<String>,
    /// Certificates for `endpoint`.
    pub tls: ClientTls,
    /// The cluster of a kubeconfig.
    pub kubeconfig: Option<Kubeconfig>,
    /// Only these namespaces; empty is all.
    pub namespaces: BTreeSet<String>,
    /// Only namespaces with these labels.
    pub namespace_labels: Option<LabelSelector>,
    /// Only Services and endpoints with these labels.
    pub labels: Option<LabelSelector>,
    /// Names of pods.
    pub pods: PodMode,
    /// An endpoint without a hostname is named after its pod, not after its address.
    pub endpoint_pod_names: bool,
    /// The TTL of answers.
    pub ttl: u32,
    /// Endpoints are watched; without them there are no headless Services.
    pub endpoints: bool,
    /// Zones in which the next plugin is asked for a name that is not here; empty is none.
    pub fallthrough: Vec<Zone>,
    /// NXDOMAIN for a Service without ready endpoints.
    pub ignore_empty_service: bool,
    /// Names of headless Services by topology zone.
    pub zonal: bool,
    /// The zones that are multi-cluster zones.
    pub multicluster: Vec<Zone>,
    /// How long the start waits for the first sync.
    pub startup_timeout: Duration,
    /// Requests per second to the API server; 0 is the client's default.
    pub apiserver_qps: f32,
    /// Requests at once; 0 is the client's default.
    pub apiserver_burst: u32,
    /// Requests in flight; 0 is no bound.
    pub apiserver_max_inflight: u32,
}

/// A kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// The file.
    pub file: String,
    /// The context; `None` is the current one.
    pub context: Option<String>,
}

/// What is answered for `1-2-3-4.ns.pod.zone`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodMode {
    /// Nothing.
    #[default]
    Disabled,
    /// The address in the name.
    Insecure,
    /// The address in the name if such a pod exists in the namespace.
    Verified,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            endpoint: None,
            tls: ClientTls::default(),
            kubeconfig: None,
            namespaces: BTreeSet::new(),
            namespace_labels: None,
            labels: None,
            pods: PodMode::default(),
            endpoint_pod_names: false,
            ttl: 5,
            endpoints: true,
            fallthrough: Vec::new(),
            ignore_empty_service: false,
            zonal: false,
            multicluster: Vec::new(),
            startup_timeout: Duration::from_secs(5),
            apiserver_qps: 0.0,
            apiserver_burst: 0,
            apiserver_max_inflight: 0,
        }
    }
}

impl Kubernetes {
    /// The first zone that is no reverse zone: the one names of PTR answers are in.
    pub fn primary_zone(&self) -> Option<&Zone> {
        self.zones.iter().find(|zone| !is_reverse(zone))
    }
}

/// Whether a zone is one of addresses.
pub(super) fn is_reverse(zone: &Zone) -> bool {
    let of = |family: &[u8]| {
        Zone::from_labels([family, b"arpa"]).is_ok_and(|apex| zone.is_within(&apex))
    };
    of(b"in-addr") || of(b"ip6")
}

/// Services by their external addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct K8sExternal {
    /// The zones.
    pub zones: Vec<Zone>,
    /// The label under which the zone's own names (`ns1.dns`, ...) are.
    pub apex: String,
    /// The TTL of answers.
    pub ttl: u32,
    /// Headless Services too.
    pub headless: bool,
    /// Zones in which the next plugin is asked for a name that is not here; empty is none.
    pub fallthrough: Vec<Zone>,
}

impl Default for K8sExternal {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            apex: "dns".to_owned(),
            ttl: 5,
            headless: false,
            fallthrough: Vec::new(),
        }
    }
}
