//! What plugins count, under `CoreDNS`'s names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::cache::Caches;
use crate::upstream;

/// Where something happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Place {
    /// The listener, such as `dns://:53`.
    pub server: String,
    /// The zone.
    pub zone: String,
    /// The view.
    pub view: String,
}

/// Where a query was let through.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServerView {
    /// The listener.
    pub server: String,
    /// The view.
    pub view: String,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfServer {
    /// The listener.
    pub server: String,
}

/// What a template matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Matched {
    /// The listener.
    pub server: String,
    /// The zone.
    pub zone: String,
    /// The view.
    pub view: String,
    /// The class asked for.
    pub class: String,
    /// The type asked for.
    pub r#type: String,
}

/// What went wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Mistaken {
    /// The listener.
    pub server: String,
    /// The zone.
    pub zone: String,
    /// The view.
    pub view: String,
    /// The class asked for.
    pub class: String,
    /// The type asked for.
    pub r#type: String,
    /// The section.
    pub section: &'static str,
    /// The template.
    pub template: String,
}

/// A hosts file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfHostsFile {
    /// Its path.
    pub hostsfile: String,
}

/// The counters of all plugins of all server blocks.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each is the metric of that name")]
pub struct Metrics {
    pub caches: Caches,
    pub upstream: Arc<upstream::Metrics>,
    pub acl_allowed: Family<ServerView, Counter>,
    pub acl_blocked: Family<Place, Counter>,
    pub acl_filtered: Family<Place, Counter>,
    pub acl_dropped: Family<Place, Counter>,
    pub autopath_success: Family<OfServer, Counter>,
    pub dns64_translated: Family<OfServer, Counter>,
    pub hosts_entries: Family<OfHostsFile, Gauge>,
    pub hosts_reloaded: Gauge<f64, AtomicU64>,
    pub local_localhost: Counter,
    pub template_matches: Family<Matched, Counter>,
    pub template_failures: Family<Mistaken, Counter>,
    pub template_rr_failures: Family<Mistaken, Counter>,
}

impl Metrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.caches.clone()));
        self.upstream.register(registry);
        let acl = [
            ("blocked", &self.acl_blocked),
            ("filtered", &self.acl_filtered),
            ("dropped", &self.acl_dropped),
        ];
        for (what, family) in acl {
            registry.register(
                format!("coredns_acl_{what}_requests"),
                format!("Counter of DNS requests being {what}"),
                family.clone(),
            );
        }
        registry.register(
            "coredns_acl_allowed_requests",
            "Counter of DNS requests being allowed",
            self.acl_allowed.clone(),
        );
        registry.register(
            "coredns_autopath_success",
            "Counter of requests that did autopath",
            self.autopath_success.clone(),
        );
        registry.register(
            "coredns_dns64_requests_translated",
            "Counter of DNS requests translated by dns64",
            self.dns64_translated.clone(),
        );
        registry.register(
            "coredns_hosts_entries",
            "The combined number of entries in hosts and Corefile",
            self.hosts_entries.clone(),
        );
        registry.register(
            "coredns_hosts_reload_timestamp_seconds",
            "The timestamp of the last reload of hosts file",
            self.hosts_reloaded.clone(),
        );
        registry.register(
            "coredns_local_localhost_requests",
            "Counter of special localhost subdomain requests",
            self.local_localhost.clone(),
        );
        registry.register(
            "coredns_template_matches",
            "Counter of template regex matches",
            self.template_matches.clone(),
        );
        registry.register(
            "coredns_template_template_failures",
            "Counter of go template failures",
            self.template_failures.clone(),
        );
        registry.register(
            "coredns_template_rr_failures",
            "Counter of mis-templated RRs",
            self.template_rr_failures.clone(),
        );
    }
}
