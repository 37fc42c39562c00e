//! What the plan asks for, to the kernel: the only I/O of Services.

mod backend;
mod flows;
mod inspect;
mod iptables;
mod nftables;

use std::fmt;
use std::time::{Duration, Instant};

use linux::{Error, Event, Kernel};
use model::config::ServicesMode;
use model::{Changed, Cluster, Config, Key};
use serde::Serialize;

use self::backend::{Backend, Done};
pub use self::inspect::{Inspection, State, inspect};
use self::iptables::Iptables;
use self::nftables::Nftables;
use crate::plan::{Plan, Settings};

/// What was refused is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// What is wrong with a Service or its slices; the rest is served all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Kind of the object that is wrong: `Service` or `EndpointSlice`.
    pub kind: &'static str,
    /// Its namespace and name.
    pub object: Key,
    /// Path of the field.
    pub field: String,
    /// Cause and next step.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = &self.object;
        write!(
            f,
            "{} {namespace}/{name}: {}: {}",
            self.kind, self.field, self.message
        )
    }
}

/// What came of one [`Services::reconcile`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong with objects of the cluster, all of it, sorted.
    pub problems: Vec<Problem>,
    /// What the kernel refused; tried again.
    pub errors: Vec<Error>,
    /// How many changes the kernel made.
    pub changes: usize,
    /// When to call again if nothing else happens.
    pub again: Option<Duration>,
    /// Stale flows that were forgotten, of IPv4 and of IPv6.
    pub forgotten: [usize; 2],
    /// How long it took to look for them.
    pub flows_took: Duration,
}

/// The Services of one node: what they should be, and what is known to be in the kernel.
#[derive(Debug)]
pub struct Services {
    node: String,
    plan: Option<Plan>,
    nftables: Nftables,
    iptables: Iptables,
    /// The mode whose rules are in the kernel, and as the plan is; absent where that is not known.
    current: Option<ServicesMode>,
    /// The mode that is known to have nothing in the kernel.
    absent: Option<ServicesMode>,
    /// No flow is stale, as far as is known.
    flows: bool,
}

impl Services {
    /// The Services of the node called `node`; adopts what it finds at the first reconcile.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            plan: None,
            nftables: Nftables::default(),
            iptables: Iptables::default(),
            current: None,
            absent: None,
            flows: false,
        }
    }

    /// The last plan.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Takes note of a change in the kernel; true where [`Services::reconcile`] is due because
    /// somebody else changed what belongs to Services.
    pub fn notice(&mut self, event: &Event) -> bool {
        let concerned = match self.current {
            Some(mode) => *event == Event::Lost || self.backend(mode).concerns(event),
            None => false,
        };
        if concerned {
            self.resync();
        }
        concerned
    }

    /// Forgets what is known to be there: the next reconcile reads the kernel.
    pub fn resync(&mut self) {
        self.current = None;
    }

    /// Makes the kernel serve the cluster's Services. `changed` names what differs from the last
    /// call; the first call takes the whole cluster.
    pub fn reconcile(
        &mut self,
        kernel: &mut dyn Kernel,
        cluster: &Cluster,
        changed: &Changed,
        config: &Config,
    ) -> Report {
        // A node that is not in the cluster yet keeps what it has; the fabric tells of it.
        let Some(settings) = Settings::of(cluster, config, &self.node) else {
            return Report::default();
        };
        let (plan, delta) = match self.plan.take() {
            Some(mut plan) if *plan.settings() == settings => {
                let delta = plan.update(cluster, &changed.services);
                (plan, Some(delta))
            }
            _ => (Plan::of(settings, cluster), None),
        };
        let mode = config.services.mode;
        let current = self.current == Some(mode);
        let mut done = match delta.as_ref().filter(|_| current) {
            Some(delta) => self.backend(mode).update(kernel, &plan, delta),
            None => self.backend(mode).sync(kernel, &plan),
        };
        self.current = done.errors.is_empty().then_some(mode);
        let mut forgotten = [0; 2];
        let mut flows_took = Duration::ZERO;
        if self.current.is_some() {
            self.remove_other(kernel, mode, &mut done);
            let served = match delta {
                Some(delta) if self.flows => {
                    flows::of_change(&plan, cluster, &changed.services, &delta)
                }
                _ => flows::of_all(&plan, cluster),
            };
            let begun = Instant::now();
            match flows::forget(kernel, &served) {
                Ok(flows) => forgotten = flows,
                Err(error) => done.errors.push(error),
            }
            flows_took = begun.elapsed();
            done.changes += forgotten.iter().sum::<usize>();
        }
        self.flows = done.errors.is_empty();
        let report = Report {
            forgotten,
            flows_took,
            ..report(&plan, done)
        };
        self.plan = Some(plan);
        report
    }

    /// Removes all rules of Services, of both modes: for `flatnet agent --cleanup`.
    pub fn remove_all(kernel: &mut dyn Kernel) -> Vec<Error> {
        let mut services = Self::new("");
        let closed = [
            nftables::close_loopback(kernel),
            iptables::close_loopback(kernel),
        ];
        let modes = [ServicesMode::Nftables, ServicesMode::Iptables];
        let removed = modes
            .into_iter()
            .flat_map(|mode| services.backend(mode).remove(kernel).errors);
        let closed = closed.into_iter().filter_map(Result::err);
        closed.chain(removed).collect()
    }

    /// With the rules of one mode in place, those of the other go.
    fn remove_other(&mut self, kernel: &mut dyn Kernel, mode: ServicesMode, done: &mut Done) {
        let other = match mode {
            ServicesMode::Nftables => ServicesMode::Iptables,
            ServicesMode::Iptables => ServicesMode::Nftables,
        };
        if self.absent == Some(other) {
            return;
        }
        let removed = self.backend(other).remove(kernel);
        self.absent = removed.errors.is_empty().then_some(other);
        done.changes += removed.changes;
        done.errors.extend(removed.errors);
    }

    fn backend(&mut self, mode: ServicesMode) -> &mut dyn Backend {
        match mode {
            ServicesMode::Nftables => &mut self.nftables,
            ServicesMode::Iptables => &mut self.iptables,
        }
    }
}

fn report(plan: &Plan, done: Done) -> Report {
    let refused = done.refused.iter().map(|((name, _), error)| Problem {
        kind: "Service",
        object: (name.namespace.clone(), name.name.clone()),
        field: format!("spec.ports[{}/{}]", name.port, name.protocol),
        message: format!("the kernel refuses its rules, all others work: {error}"),
    });
    let mut problems: Vec<Problem> = plan.problems().cloned().chain(refused).collect();
    problems.sort();
    Report {
        problems,
        again: (!done.errors.is_empty()).then_some(RETRY),
        errors: done.errors,
        changes: done.changes,
        ..Report::default()
    }
}
