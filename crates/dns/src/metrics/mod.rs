//! What is counted, under CoreDNS's names: dashboards and alerts go on as they are.

mod count;
mod process;
mod requests;
mod text;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub(crate) use requests::{Counters, Served, SiteLabels};
pub use text::prometheus_text;

/// All metrics of a DNS server. Plugins register theirs with [`Metrics::register`].
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Arc<requests::Requests>,
    pub(crate) panics: Counter,
    pub(crate) plugins: Family<PluginLabels, Gauge>,
    pub(crate) reload_failures: Counter,
    pub(crate) reload_version: Family<VersionLabels, Gauge>,
    pub(crate) health_seconds: Histogram,
    pub(crate) health_failures: Counter,
    pub(crate) https: Family<HttpsLabels, Counter>,
}

/// A plugin of a site.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct PluginLabels {
    pub name: &'static str,
    pub server: String,
    pub view: String,
    pub zone: String,
}

/// The Corefile that is served.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct VersionLabels {
    pub hash: &'static str,
    pub value: String,
}

/// Answers of DNS over HTTPS.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct HttpsLabels {
    pub server: String,
    pub status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    goversion: &'static str,
    revision: &'static str,
    version: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            requests: Arc::default(),
            panics: Counter::default(),
            plugins: Family::default(),
            reload_failures: Counter::default(),
            reload_version: Family::default(),
            // 0.25 ms to 2.5 s.
            health_seconds: Histogram::new([0.000_25, 0.002_5, 0.025, 0.25, 2.5]),
            health_failures: Counter::default(),
            https: Family::default(),
        };
        metrics.register(|registry| metrics.describe(registry));
        metrics
    }
}

impl Metrics {
    /// Registers metrics of a plugin; once for each, not once for each Corefile.
    pub fn register(&self, metrics: impl FnOnce(&mut Registry)) {
        metrics(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn describe(&self, registry: &mut Registry) {
        let build: Family<BuildLabels, Gauge> = Family::default();
        let version = BuildLabels {
            goversion: "",
            revision: "",
            version: env!("CARGO_PKG_VERSION"),
        };
        build.get_or_create(&version).set(1);
        registry.register(
            "coredns_build_info",
            "A metric with a constant '1' value labeled by version, revision, and goversion from \
             which CoreDNS was built",
            build,
        );
        registry.register_collector(Box::new(Arc::clone(&self.requests)));
        registry.register(
            "coredns_panics",
            "A metrics that counts the number of panics",
            self.panics.clone(),
        );
        registry.register(
            "coredns_plugin_enabled",
            "A metric that indicates whether a plugin is enabled on per server and zone basis",
            self.plugins.clone(),
        );
        registry.register(
            "coredns_reload_failed",
            "Counter of the number of failed reload attempts",
            self.reload_failures.clone(),
        );
        registry.register(
            "coredns_reload_version_info",
            "A metric with a constant '1' value labeled by hash, and value which type of hash \
             generated",
            self.reload_version.clone(),
        );
        registry.register(
            "coredns_health_request_duration_seconds",
            "Histogram of the time (in seconds) each request took",
            self.health_seconds.clone(),
        );
        registry.register(
            "coredns_health_request_failures",
            "The number of times the health check failed",
            self.health_failures.clone(),
        );
        registry.register(
            "coredns_dns_https_responses",
            "Counter of DoH responses per server and http status code",
            self.https.clone(),
        );
        registry.register_collector(Box::new(process::Process));
    }

    /// The counters of a site that this worker, and no other, counts up.
    pub(crate) fn counters(&self, site: SiteLabels, worker: usize) -> Arc<Counters> {
        self.requests.of(site, worker)
    }

    /// A Corefile was not taken.
    pub fn reload_failed(&self) {
        self.reload_failures.inc();
    }

    /// All of them, in Prometheus' text form.
    pub fn text(&self) -> String {
        let mut open_metrics = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut open_metrics, &registry);
        prometheus_text(&open_metrics)
    }
}
