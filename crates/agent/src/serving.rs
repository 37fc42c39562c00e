//! Services on this node: what the loop does about them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::Backoff;
use linux::{Event, Kernel};
use model::config::ServicesMode;
use model::{Change, Changed, Cluster, Config};
use services::{Plan, Problem, Report, Services};
use tracing::info;

use crate::give_back;
use crate::health_ports::HealthPorts;
use crate::metrics::proxy::{ProxyMetrics, Synced};
use crate::proxy_health::ProxyHealth;
use crate::publish::Publisher;

/// How often rules are compared with the plan although nothing is known to have changed. Changes
/// of nftables are told by the kernel; those of the old iptables are not.
const COMPARE_NFTABLES: Duration = Duration::from_secs(600);
const COMPARE_IPTABLES: Duration = Duration::from_secs(60);
/// Trigger times kept for one transaction.
const MOST_TRIGGERS: usize = 10_000;

/// What came of one reconcile.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub again: Option<Duration>,
    pub problems_changed: bool,
}

/// The Services of this node and what is waiting for the kernel.
pub(crate) struct Serving {
    services: Services,
    publisher: Arc<Publisher>,
    health: Arc<ProxyHealth>,
    health_ports: HealthPorts,
    metrics: Arc<ProxyMetrics>,
    compared: Instant,
    /// The next reconcile reads the kernel.
    reads: bool,
    mode: ServicesMode,
    /// Families that Services have; true is IPv6.
    families: Vec<bool>,
    changed: Changed,
    /// When what waits was caused, in milliseconds since 1970, and its family.
    triggers: Vec<(i64, bool)>,
    started: i64,
    backoff: Backoff,
    problems: Vec<Problem>,
    errors: Vec<String>,
}

impl Serving {
    /// For the node called `node`.
    pub(crate) fn new(
        node: &str,
        publisher: Arc<Publisher>,
        health: Arc<ProxyHealth>,
        metrics: Arc<ProxyMetrics>,
    ) -> Self {
        Self {
            services: Services::new(node),
            health_ports: HealthPorts::start(node, publisher.clone(), health.clone()),
            publisher,
            health,
            metrics,
            compared: Instant::now(),
            reads: true,
            mode: ServicesMode::default(),
            families: Vec::new(),
            changed: Changed::default(),
            triggers: Vec::new(),
            started: milliseconds(SystemTime::now()),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            problems: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Takes a change of a Service or slice in; what it touched, where it changed anything.
    pub(crate) fn take(&mut self, cluster: &mut Cluster, change: Change) -> Option<Changed> {
        let slice = matches!(change, Change::Slice(_) | Change::SliceGone(..));
        let trigger = match &change {
            Change::Slice(slice) => slice.triggered.map(|at| (at, slice.v6)),
            _ => None,
        };
        let mut touched = Changed::default();
        if !cluster.note(change, &mut touched) {
            return None;
        }
        self.changed.extend(&touched);
        // What was caused before this agent ran says nothing of how long it takes.
        let trigger = trigger.filter(|(at, _)| *at >= self.started);
        if self.triggers.len() < MOST_TRIGGERS {
            self.triggers.extend(trigger);
        }
        self.metrics.took(slice);
        self.queued();
        Some(touched)
    }

    fn queued(&mut self) {
        self.health.queued(Instant::now());
        self.metrics
            .queued(&self.families, milliseconds(SystemTime::now()));
    }

    /// A configuration comes into force.
    pub(crate) fn configure(&mut self, config: &Config) {
        self.mode = config.services.mode;
        self.families = families(config);
        self.queued();
    }

    /// Whether balancers may send this node new connections.
    pub(crate) fn eligible(&self, eligible: bool) {
        self.health.set_eligible(eligible);
    }

    /// Takes note of a change in the kernel; true where a reconcile is due.
    pub(crate) fn notice(&mut self, event: &Event) -> bool {
        let address = matches!(event, Event::Address { .. } | Event::Lost);
        let moved = address && self.health_ports.addresses_changed();
        let others = self.services.notice(event);
        self.reads |= others;
        others || moved
    }

    /// Whether the time has come to read the kernel again.
    pub(crate) fn compare(&mut self) -> bool {
        let every = match self.mode {
            ServicesMode::Nftables => COMPARE_NFTABLES,
            ServicesMode::Iptables => COMPARE_IPTABLES,
        };
        let due = self.compared.elapsed() >= every;
        if due {
            self.compared = Instant::now();
            self.reads = true;
            self.services.resync();
        }
        due
    }

    /// Brings what changed to the kernel.
    pub(crate) fn reconcile(
        &mut self,
        kernel: &mut dyn Kernel,
        cluster: &Cluster,
        config: &Config,
    ) -> Outcome {
        let changed = std::mem::take(&mut self.changed);
        let triggers = std::mem::take(&mut self.triggers);
        let before = self.services.plan().map(|plan| plan.settings().clone());
        let begun = Instant::now();
        let report = self.services.reconcile(kernel, cluster, &changed, config);
        let took = begun.elapsed();
        let after = self.services.plan().map(Plan::settings);
        let whole = before.as_ref() != after;
        if whole {
            self.compared = begun;
            info!(
                services = cluster.services.len(),
                slices = cluster.slices.len(),
                changes = report.changes,
                ?took,
                "Services are in the kernel"
            );
        }
        let done = report.errors.is_empty();
        self.metrics.synced(&Synced {
            whole: std::mem::take(&mut self.reads) || whole,
            done,
            took,
            mode: config.services.mode,
            families: &self.families,
            triggers: &triggers,
            now: milliseconds(SystemTime::now()),
            forgotten: report.forgotten,
            flows_took: report.flows_took,
        });
        if done {
            self.health.updated(SystemTime::now());
            self.metrics.nothing_waits();
        } else {
            self.reads = true;
            self.triggers = triggers;
        }
        if let Some(plan) = self.services.plan() {
            self.health_ports
                .update(kernel, cluster, plan, whole, &changed.services);
            self.metrics.count_local(plan, whole, &changed.services);
        }
        if whole {
            give_back();
        }
        self.outcome(cluster, report)
    }

    fn outcome(&mut self, cluster: &Cluster, report: Report) -> Outcome {
        let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
        let again = if errors.is_empty() {
            self.backoff.reset();
            report.again
        } else {
            Some(self.backoff.wait())
        };
        let problems_changed = errors != self.errors || report.problems != self.problems;
        if problems_changed {
            self.tell(cluster, &report.problems);
            self.metrics.set_problems(report.problems.len());
            self.errors = errors;
            self.problems = report.problems;
        }
        Outcome {
            again,
            problems_changed,
        }
    }

    /// Events of problems that are new. Each node sees the same ones: what the recorder writes
    /// is of this node, and only what it did not see before.
    fn tell(&self, cluster: &Cluster, problems: &[Problem]) {
        for problem in problems {
            if self.problems.binary_search(problem).is_ok() {
                continue;
            }
            let (namespace, name) = &problem.object;
            let uid = match problem.kind {
                "Service" => cluster.services.get(&problem.object),
                _ => None,
            };
            let uid = uid.map(|service| service.uid.clone()).unwrap_or_default();
            let object = format!("{} {namespace}/{name}", problem.kind);
            let text = problem.to_string();
            self.publisher.invalid(&object, &uid, &text, true);
        }
    }

    /// All that is wrong, in sentences.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        let problems = self.problems.iter().map(ToString::to_string);
        problems.chain(self.errors.iter().cloned())
    }
}

fn families(config: &Config) -> Vec<bool> {
    let v6 = |v6: bool| {
        let mut ranges = config.service_cidrs.iter();
        ranges.any(|range| range.addr().is_ipv6() == v6)
    };
    [false, true]
        .into_iter()
        .filter(|family| v6(*family))
        .collect()
}

fn milliseconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
