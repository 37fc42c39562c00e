//! What is counted of policies.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

/// Policies in the kernel.
#[derive(Debug)]
pub(crate) struct PolicyMetrics {
    policies: Family<OfKind, Gauge>,
    pods: Gauge,
    subjects: Gauge,
    lists: Gauge,
    elements: Gauge,
    sync: Histogram,
    last: Gauge<f64, AtomicU64>,
    errors: Counter,
    problems: Gauge,
    wait: Histogram,
    unknown: Counter,
}

struct Adder<'a>(&'a mut Registry);

impl Adder<'_> {
    fn metric<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        let name = format!("flatnet_policy_{name}");
        self.0.register(name, help, metric.clone());
        metric
    }

    fn plain<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.metric(name, help, M::default())
    }
}

/// How many there are.
pub(crate) struct Counts {
    pub policies: usize,
    pub cluster_policies: usize,
    /// Pods of Kubernetes that are attached here.
    pub pods: usize,
    /// What they come to in the kernel.
    pub here: policy::Counts,
}

impl PolicyMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut add = Adder(registry);
        let from_half_a_millisecond = || Histogram::new(exponential_buckets(0.0005, 2.0, 15));
        Self {
            policies: add.plain("policies", "Policies of the cluster, by kind"),
            pods: add.plain("pods", "Pods of this node that policies can be about"),
            subjects: add.plain(
                "subjects",
                "Addresses of pods of this node that some policy is about",
            ),
            lists: add.plain("lists", "Lists of rules that these addresses use"),
            elements: add.plain("set_elements", "Peers and ports that the rules look up"),
            sync: add.metric(
                "sync_duration_seconds",
                "Time it took to bring changes to the kernel",
                from_half_a_millisecond(),
            ),
            last: add.plain(
                "sync_last_timestamp_seconds",
                "When all policies were last known to be in the kernel",
            ),
            errors: add.plain(
                "sync_errors",
                "Times that the kernel refused rules of policies",
            ),
            problems: add.plain(
                "problems",
                "Policies that are not understood, all of each or in part: what is not closes",
            ),
            wait: add.metric(
                "pod_start_wait_seconds",
                "Time that pods waited for their rules before they were started",
                from_half_a_millisecond(),
            ),
            unknown: add.plain(
                "unknown_pods",
                "Pods that were started closed, since the API server had not told of them",
            ),
        }
    }

    /// Changes were brought to the kernel, or refused.
    pub(crate) fn synced(&self, took: Duration, done: bool, now: SystemTime) {
        self.sync.observe(took.as_secs_f64());
        if done {
            let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last.set(now.as_secs_f64());
        } else {
            self.errors.inc();
        }
    }

    /// How many there are now.
    pub(crate) fn count(&self, counts: &Counts) {
        let set = |gauge: &Gauge, count: usize| gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        for (kind, count) in [
            ("NetworkPolicy", counts.policies),
            ("ClusterNetworkPolicy", counts.cluster_policies),
        ] {
            set(&self.policies.get_or_create(&OfKind { kind }), count);
        }
        set(&self.pods, counts.pods);
        set(&self.subjects, counts.here.subjects);
        set(&self.lists, counts.here.lists);
        set(&self.elements, counts.here.elements);
    }

    /// How many policies are not understood.
    pub(crate) fn set_problems(&self, problems: usize) {
        let problems = i64::try_from(problems).unwrap_or(i64::MAX);
        self.problems.set(problems);
    }

    /// A pod may start; `unknown` where it is closed, since its labels are not known.
    pub(crate) fn admitted(&self, waited: Duration, unknown: bool) {
        self.wait.observe(waited.as_secs_f64());
        if unknown {
            self.unknown.inc();
        }
    }
}
