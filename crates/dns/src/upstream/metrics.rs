//! What forwarding counts, under `CoreDNS`'s names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// An answer of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// The plugin.
    pub proxy_name: &'static str,
    /// The upstream.
    pub to: String,
    /// The answer's code.
    pub rcode: String,
}

/// An upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfUpstream {
    /// The plugin.
    pub proxy_name: &'static str,
    /// The upstream.
    pub to: String,
}

/// The way to an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfWay {
    /// The plugin.
    pub proxy_name: &'static str,
    /// The upstream.
    pub to: String,
    /// `udp`, `tcp` or `tcp-tls`.
    pub proto: &'static str,
}

/// What forwarding counts, of all server blocks.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is the metric of that name")]
pub struct Metrics {
    pub max_concurrent_rejects: Counter,
    pub healthcheck_broken: Counter,
    pub request_duration: Family<Answered, Histogram, fn() -> Histogram>,
    pub healthcheck_failures: Family<OfUpstream, Counter>,
    pub conn_cache_hits: Family<OfWay, Counter>,
    pub conn_cache_misses: Family<OfWay, Counter>,
}

/// 0.25 ms to 8.192 s.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            max_concurrent_rejects: Counter::default(),
            healthcheck_broken: Counter::default(),
            request_duration: Family::new_with_constructor(times),
            healthcheck_failures: Family::default(),
            conn_cache_hits: Family::default(),
            conn_cache_misses: Family::default(),
        }
    }
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "coredns_forward_max_concurrent_rejects",
            "Counter of the number of queries rejected because the concurrent queries were at \
             maximum",
            self.max_concurrent_rejects.clone(),
        );
        registry.register(
            "coredns_forward_healthcheck_broken",
            "Counter of the number of complete failures of the healthchecks",
            self.healthcheck_broken.clone(),
        );
        registry.register(
            "coredns_proxy_request_duration_seconds",
            "Histogram of the time each request took",
            self.request_duration.clone(),
        );
        registry.register(
            "coredns_proxy_healthcheck_failures",
            "Counter of the number of failed healthchecks",
            self.healthcheck_failures.clone(),
        );
        registry.register(
            "coredns_proxy_conn_cache_hits",
            "Counter of connection cache hits per upstream and protocol",
            self.conn_cache_hits.clone(),
        );
        registry.register(
            "coredns_proxy_conn_cache_misses",
            "Counter of connection cache misses per upstream and protocol",
            self.conn_cache_misses.clone(),
        );
    }
}
