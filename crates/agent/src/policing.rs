//! Policies on this node: what the loop does about who may talk to whom.

mod admission;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use api::Backoff;
use linux::{Event, Kernel};
use model::{Change, Changed, Cluster, Config};
use pods::attachment::Key;
use pods::cni::CniError;
use policy::{Local, Locals, NodeDns, Policies, Report};
use tracing::info;

use crate::give_back;
use crate::locals::{Admission, Handle};
use crate::metrics::policy::{Counts, PolicyMetrics};
use crate::proxy_health::ProxyHealth;
use admission::Verdict;

/// How often rules are compared with the plan although nothing is known to have changed: changes
/// of nftables are told by the kernel.
const COMPARE: Duration = Duration::from_secs(600);

/// What came of one reconcile.
#[derive(Default)]
pub(crate) struct Outcome {
    /// When to come again although nothing happens.
    pub again: Option<Duration>,
    pub problems_changed: bool,
    /// For the first time all rules are in the kernel.
    pub started: bool,
    /// Attachments to be taken back, for their rules are not in the kernel.
    pub refused: Vec<(Admission, CniError)>,
}

/// The policies of this node and what is waiting for the kernel.
pub(crate) struct Policing {
    node: String,
    policies: Policies,
    health: Arc<ProxyHealth>,
    metrics: Arc<PolicyMetrics>,
    pods: Handle,
    /// The pods that are attached here.
    locals: Locals,
    /// Attachments that only their addresses tell the pods of.
    found: BTreeMap<Key, Vec<IpAddr>>,
    /// ADDs that wait for their pods' rules.
    waiting: Vec<Admission>,
    changed: Changed,
    /// Something is to be brought to the kernel, or compared with it.
    due: bool,
    /// The rules have been in the kernel once.
    started: bool,
    compared: Instant,
    backoff: Backoff,
    errors: Vec<String>,
    /// Policies that the watch could not understand, all of each or in part.
    bad: BTreeSet<String>,
}

impl Policing {
    /// For the node called `node`, with the pods that `pods` tells of.
    pub(crate) fn new(
        node: &str,
        pods: Handle,
        health: Arc<ProxyHealth>,
        metrics: Arc<PolicyMetrics>,
    ) -> Self {
        Self {
            node: node.to_owned(),
            policies: Policies::new(node),
            health,
            metrics,
            pods,
            locals: Locals::new(),
            found: BTreeMap::new(),
            waiting: Vec::new(),
            changed: Changed::default(),
            due: true,
            started: false,
            compared: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            errors: Vec::new(),
            bad: BTreeSet::new(),
        }
    }

    /// Takes a change of a pod, namespace, policy or node in; what it touched, where it changed
    /// anything.
    pub(crate) fn take(&mut self, cluster: &mut Cluster, change: Change) -> Option<Changed> {
        let mut touched = Changed::default();
        if !cluster.note(change, &mut touched) {
            return None;
        }
        self.changed.extend(&touched);
        self.queued();
        Some(touched)
    }

    /// Where the node answers questions for names itself; true where a reconcile is due.
    pub(crate) fn configure(&mut self, config: &Config) -> bool {
        let news = self.policies.set_resolver(NodeDns::of(config));
        if news {
            self.queued();
        }
        news
    }

    /// Services changed, or their endpoints; true where that is about names, and a reconcile due.
    pub(crate) fn services_changed(&mut self, cluster: &Cluster, changed: &Changed) -> bool {
        let asked = |key: &&model::Key| self.policies.plan().asks(cluster, key);
        let asked: Vec<model::Key> = changed.services.iter().filter(asked).cloned().collect();
        if asked.is_empty() {
            return false;
        }
        self.changed.services.extend(asked);
        self.queued();
        true
    }

    fn queued(&mut self) {
        self.due = true;
        self.health.queued(Instant::now());
    }

    /// A policy cannot be understood, all of it or in part; or it can again.
    pub(crate) fn understood(&mut self, object: &str, understood: bool) {
        if !object.starts_with("NetworkPolicy ") && !object.starts_with("ClusterNetworkPolicy ") {
            return;
        }
        if understood {
            self.bad.remove(object);
        } else {
            self.bad.insert(object.to_owned());
        }
        self.metrics.set_problems(self.bad.len());
    }

    /// Pods came or went.
    pub(crate) async fn notified(&self) {
        self.pods.notified().await;
    }

    /// Takes in which pods came and went; true where a reconcile is due.
    pub(crate) fn attachments(&mut self) -> bool {
        let (changes, admissions) = self.pods.take();
        if changes.is_empty() && admissions.is_empty() {
            return false;
        }
        for (key, attached) in changes {
            let local = (key.container.clone(), key.ifname.clone());
            self.locals.remove(&local);
            self.found.remove(&key);
            match attached {
                Some(attached) if attached.is_named() => {
                    let pod = attached.pod;
                    let is = Local {
                        pod: (pod.namespace, pod.name),
                        uid: pod.uid,
                        ips: attached.ips,
                    };
                    self.locals.insert(local, is);
                }
                Some(attached) if attached.found => {
                    self.found.insert(key, attached.ips);
                }
                Some(_) | None => {}
            }
        }
        self.waiting.extend(admissions);
        self.queued();
        true
    }

    /// Whether the rules have been in the kernel once.
    pub(crate) fn is_started(&self) -> bool {
        self.started
    }

    /// Takes note of a change in the kernel; true where a reconcile is due.
    pub(crate) fn notice(&mut self, event: &Event) -> bool {
        let others = self.policies.notice(event);
        self.due |= others;
        others
    }

    /// Whether the time has come to read the kernel again.
    pub(crate) fn compare(&mut self) -> bool {
        let due = self.compared.elapsed() >= COMPARE;
        if due {
            self.compared = Instant::now();
            self.due = true;
            self.policies.resync();
        }
        due
    }

    /// Brings what changed to the kernel, and answers the ADDs that waited for it.
    pub(crate) fn reconcile(&mut self, kernel: &mut dyn Kernel, cluster: &Cluster) -> Outcome {
        let mut outcome = Outcome::default();
        if std::mem::take(&mut self.due) {
            self.name_found(cluster);
            let changed = std::mem::take(&mut self.changed);
            let begun = Instant::now();
            let report = self
                .policies
                .reconcile(kernel, cluster, &changed, &self.locals);
            let done = report.errors.is_empty();
            self.metrics
                .synced(begun.elapsed(), done, SystemTime::now());
            if done {
                self.health.updated(SystemTime::now());
            } else {
                self.due = true;
            }
            if done && !self.started {
                outcome.started = true;
                self.start(cluster, &report, begun.elapsed());
            }
            self.count(cluster, report.counts);
            self.note(report, &mut outcome);
        }
        self.admit(cluster, &mut outcome);
        outcome
    }

    /// The rules of what there was at the start are in the kernel.
    fn start(&mut self, cluster: &Cluster, report: &Report, took: Duration) {
        self.started = true;
        self.pods.set_judged();
        info!(
            pods = cluster.pods.len(),
            policies = cluster.policies.len() + cluster.cluster_policies.len(),
            local = self.locals.len(),
            changes = report.changes,
            ?took,
            "policies are in the kernel"
        );
        give_back();
    }

    fn note(&mut self, report: Report, outcome: &mut Outcome) {
        let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
        if errors.is_empty() {
            self.backoff.reset();
        } else {
            outcome.again = Some(self.backoff.wait());
        }
        outcome.problems_changed = errors != self.errors;
        if outcome.problems_changed {
            self.errors = errors;
        }
    }

    /// Whose addresses those are that a lost journal says nothing of: else an agent that lost it
    /// would open the pods that are there.
    fn name_found(&mut self, cluster: &Cluster) {
        for (key, ips) in &self.found {
            let local = (key.container.clone(), key.ifname.clone());
            let pod = ips.iter().find_map(|ip| cluster.pod_at(*ip));
            match pod.filter(|pod| pod.node == self.node) {
                Some(pod) => {
                    let is = Local {
                        pod: (pod.namespace.clone(), pod.name.clone()),
                        uid: pod.uid.clone(),
                        ips: ips.clone(),
                    };
                    self.locals.insert(local, is);
                }
                None => {
                    self.locals.remove(&local);
                }
            }
        }
    }

    /// Answers the ADDs whose pods' rules are in the kernel.
    fn admit(&mut self, cluster: &Cluster, outcome: &mut Outcome) {
        let now = Instant::now();
        for admission in std::mem::take(&mut self.waiting) {
            match admission::judge(&admission, cluster, &self.locals, &self.errors, now) {
                Verdict::Admit { unknown } => {
                    self.metrics.admitted(admission.since.elapsed(), unknown);
                    admission.admit();
                }
                Verdict::Wait(left) => {
                    outcome.again = Some(outcome.again.map_or(left, |again| again.min(left)));
                    self.waiting.push(admission);
                }
                Verdict::Refuse(error) => outcome.refused.push((admission, error)),
            }
        }
    }

    /// What the kernel refused, in sentences.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        self.errors.iter().cloned()
    }

    fn count(&self, cluster: &Cluster, here: policy::Counts) {
        self.metrics.count(&Counts {
            policies: cluster.policies.len(),
            cluster_policies: cluster.cluster_policies.len(),
            pods: self.locals.len(),
            here,
        });
    }
}

#[cfg(test)]
mod tests;
