//! kube-proxy's metrics, under its names, with what is true here.
//!
//! Left out, because nothing here has the meaning: `sync_proxy_rules_iptables_total` and
//! `_iptables_last` count rules of a layout nftables mode does not have,
//! `..._partial_restore_failures_total` a retry that is not made, `iptables_ct_state_invalid_*`
//! and `iptables_localhost_nodeports_*` rules that are not written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use model::config::ServicesMode;
use model::{Key, Protocol, TrafficPolicy};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};
use services::{FrontendKind, Plan, PortName};

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFamily {
    ip_family: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPolicy {
    ip_family: &'static str,
    traffic_policy: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCode {
    code: u16,
}

fn of(v6: bool) -> OfFamily {
    OfFamily {
        ip_family: if v6 { "IPv6" } else { "IPv4" },
    }
}

type PerFamily<T> = Family<OfFamily, T>;

/// Services in the kernel, as kube-proxy counts them.
#[derive(Debug)]
pub(crate) struct ProxyMetrics {
    sync: PerFamily<Histogram>,
    full: PerFamily<Histogram>,
    partial: PerFamily<Histogram>,
    programming: PerFamily<Histogram>,
    last: PerFamily<Seconds>,
    last_queued: PerFamily<Seconds>,
    endpoints_pending: Gauge,
    endpoints_total: Counter,
    services_pending: Gauge,
    services_total: Counter,
    nftables_failures: PerFamily<Counter>,
    iptables_failures: PerFamily<Counter>,
    no_local: Family<OfPolicy, Gauge>,
    flows_took: PerFamily<Histogram>,
    flows_forgotten: PerFamily<Counter>,
    healthz: Family<OfCode, Counter>,
    livez: Family<OfCode, Counter>,
    problems: Gauge,
    counts: Mutex<NoLocal>,
}

/// One reconcile.
pub(crate) struct Synced<'a> {
    /// Everything was compared, not only what changed.
    pub whole: bool,
    /// It succeeded.
    pub done: bool,
    pub took: Duration,
    pub mode: ServicesMode,
    /// Families that Services have; true is IPv6.
    pub families: &'a [bool],
    /// When its changes were caused, in milliseconds since 1970, and their family.
    pub triggers: &'a [(i64, bool)],
    /// The same clock, now.
    pub now: i64,
    /// Stale flows that were forgotten, of IPv4 and of IPv6, and how long that took.
    pub forgotten: [usize; 2],
    pub flows_took: Duration,
}

fn sync_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// 0.25 and 0.5 s, each second to a minute, each 5 s to two, each 30 s to five.
fn programming_buckets() -> Histogram {
    let seconds = (1..60)
        .chain((60..120).step_by(5))
        .chain((120..=300).step_by(30));
    Histogram::new([0.25, 0.5].into_iter().chain(seconds.map(f64::from)))
}

impl ProxyMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut add = Adder(registry);
        Self {
            sync: add.histogram(
                "sync_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds",
                sync_buckets,
            ),
            full: add.histogram(
                "sync_full_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for full resyncs",
                sync_buckets,
            ),
            partial: add.histogram(
                "sync_partial_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for partial resyncs",
                sync_buckets,
            ),
            programming: add.histogram(
                "network_programming_duration_seconds",
                "In Cluster Network Programming Latency in seconds",
                programming_buckets,
            ),
            last: add.plain(
                "sync_proxy_rules_last_timestamp_seconds",
                "The last time proxy rules were successfully synced",
            ),
            last_queued: add.plain(
                "sync_proxy_rules_last_queued_timestamp_seconds",
                "The last time a sync of proxy rules was queued",
            ),
            endpoints_pending: add.plain(
                "sync_proxy_rules_endpoint_changes_pending",
                "Pending proxy rules Endpoint changes",
            ),
            endpoints_total: add.plain(
                "sync_proxy_rules_endpoint_changes",
                "Cumulative proxy rules Endpoint changes",
            ),
            services_pending: add.plain(
                "sync_proxy_rules_service_changes_pending",
                "Pending proxy rules Service changes",
            ),
            services_total: add.plain(
                "sync_proxy_rules_service_changes",
                "Cumulative proxy rules Service changes",
            ),
            nftables_failures: add.plain(
                "sync_proxy_rules_nftables_sync_failures",
                "Cumulative proxy nftables sync failures",
            ),
            iptables_failures: add.plain(
                "sync_proxy_rules_iptables_restore_failures",
                "Cumulative proxy iptables restore failures",
            ),
            no_local: add.plain(
                "sync_proxy_rules_no_local_endpoints_total",
                "Number of services with a Local traffic policy and no endpoints",
            ),
            flows_took: add.histogram(
                "conntrack_reconciler_sync_duration_seconds",
                "ReconcileConntrackFlowsLatency latency in seconds",
                sync_buckets,
            ),
            flows_forgotten: add.plain(
                "conntrack_reconciler_deleted_entries",
                "Cumulative conntrack flows deleted by conntrack reconciler",
            ),
            healthz: add.plain("proxy_healthz", "Cumulative proxy healthz HTTP status"),
            livez: add.plain("proxy_livez", "Cumulative proxy livez HTTP status"),
            problems: {
                let problems = Gauge::default();
                add.0.register(
                    "flatnet_service_problems",
                    "Services and slices that cannot be served as written",
                    problems.clone(),
                );
                problems
            },
            counts: Mutex::default(),
        }
    }

    /// A change came.
    pub(crate) fn took(&self, slice: bool) {
        if slice {
            self.endpoints_pending.inc();
            self.endpoints_total.inc();
        } else {
            self.services_pending.inc();
            self.services_total.inc();
        }
    }

    /// All that came is in the kernel.
    pub(crate) fn nothing_waits(&self) {
        self.endpoints_pending.set(0);
        self.services_pending.set(0);
    }

    /// A sync was asked for.
    pub(crate) fn queued(&self, families: &[bool], now: i64) {
        for v6 in families {
            self.last_queued.get_or_create(&of(*v6)).set(seconds(now));
        }
    }

    /// A sync was made.
    pub(crate) fn synced(&self, synced: &Synced<'_>) {
        let took = synced.took.as_secs_f64();
        for v6 in synced.families {
            let family = of(*v6);
            self.sync.get_or_create(&family).observe(took);
            let kind = if synced.whole {
                &self.full
            } else {
                &self.partial
            };
            kind.get_or_create(&family).observe(took);
            let flows_took = synced.flows_took.as_secs_f64();
            self.flows_took.get_or_create(&family).observe(flows_took);
            let forgotten = synced.forgotten[usize::from(*v6)];
            self.flows_forgotten
                .get_or_create(&family)
                .inc_by(u64::try_from(forgotten).unwrap_or(u64::MAX));
            if synced.done {
                self.last.get_or_create(&family).set(seconds(synced.now));
                continue;
            }
            let failures = match synced.mode {
                ServicesMode::Nftables => &self.nftables_failures,
                ServicesMode::Iptables => &self.iptables_failures,
            };
            failures.get_or_create(&family).inc();
        }
        if synced.done {
            for (at, v6) in synced.triggers {
                let latency = seconds(synced.now.saturating_sub(*at).max(0));
                self.programming.get_or_create(&of(*v6)).observe(latency);
            }
        }
    }

    /// `/healthz` was answered.
    pub(crate) fn healthz(&self, code: u16) {
        self.healthz.get_or_create(&OfCode { code }).inc();
    }

    /// `/livez` was answered.
    pub(crate) fn livez(&self, code: u16) {
        self.livez.get_or_create(&OfCode { code }).inc();
    }

    /// How many objects cannot be served as written.
    pub(crate) fn set_problems(&self, problems: usize) {
        self.problems
            .set(i64::try_from(problems).unwrap_or(i64::MAX));
    }

    /// Counts Services whose Local policy leads nowhere on this node; looks at those that changed
    /// only.
    pub(crate) fn count_local(&self, plan: &Plan, whole: bool, changed: &BTreeSet<Key>) {
        let Ok(mut counts) = self.counts.lock() else {
            return;
        };
        counts.update(plan, whole, changed);
        for (at, (ip_family, traffic_policy)) in PLACES.into_iter().enumerate() {
            let place = OfPolicy {
                ip_family,
                traffic_policy,
            };
            self.no_local.get_or_create(&place).set(counts.totals[at]);
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds since 1970 to the millisecond"
)]
fn seconds(milliseconds: i64) -> f64 {
    milliseconds as f64 / 1000.0
}

struct Adder<'a>(&'a mut Registry);

impl Adder<'_> {
    fn plain<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0
            .register(format!("kubeproxy_{name}"), help, metric.clone());
        metric
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        make: fn() -> Histogram,
    ) -> PerFamily<Histogram> {
        let metric = PerFamily::new_with_constructor(make);
        self.0
            .register(format!("kubeproxy_{name}"), help, metric.clone());
        metric
    }
}

const PLACES: [(&str, &str); 4] = [
    ("IPv4", "internal"),
    ("IPv4", "external"),
    ("IPv6", "internal"),
    ("IPv6", "external"),
];

/// Services with a Local policy that have endpoints, but none on this node.
#[derive(Debug, Default)]
struct NoLocal {
    /// Those that are so anywhere in [`PLACES`].
    of: BTreeMap<Key, [bool; 4]>,
    totals: [i64; 4],
}

impl NoLocal {
    fn update(&mut self, plan: &Plan, whole: bool, changed: &BTreeSet<Key>) {
        if whole {
            *self = Self::default();
            let all = plan.ports().keys();
            let all: BTreeSet<Key> = all
                .map(|(port, _)| (port.namespace.clone(), port.name.clone()))
                .collect();
            all.iter().for_each(|key| self.look(plan, key));
        } else {
            changed.iter().for_each(|key| self.look(plan, key));
        }
    }

    fn look(&mut self, plan: &Plan, key: &Key) {
        let old = self.of.remove(key).unwrap_or_default();
        let new = nowhere(plan, key);
        for at in 0..PLACES.len() {
            self.totals[at] += i64::from(new[at]) - i64::from(old[at]);
        }
        if new != [false; 4] {
            self.of.insert(key.clone(), new);
        }
    }
}

fn nowhere(plan: &Plan, (namespace, name): &Key) -> [bool; 4] {
    let first = PortName {
        namespace: namespace.clone(),
        name: name.clone(),
        port: String::new(),
        protocol: Protocol::Tcp,
    };
    let mut found = [false; 4];
    let ports = plan.ports().range((first, false)..);
    for (_, port) in ports
        .take_while(|((port, _), _)| port.namespace == *namespace && port.name == *name)
        .filter(|(_, port)| port.local.is_empty() && !port.cluster.is_empty())
    {
        for frontend in &port.frontends {
            if frontend.policy == TrafficPolicy::Local {
                let external = frontend.kind != FrontendKind::ClusterIp;
                found[usize::from(port.v6) * 2 + usize::from(external)] = true;
            }
        }
    }
    found
}
