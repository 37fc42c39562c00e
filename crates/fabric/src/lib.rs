//! Routes and tunnels between nodes.
//!
//! ```text
//! Cluster, Config, Underlay ──plan──▶ Plan ──render──▶ Objects ──apply──▶ kernel
//!                                      └──explain: the steps a packet takes
//! ```
//!
//! The agent owns one [`Fabric`] and drives it:
//!
//! ```no_run
//! # let (cluster, config) = (model::Cluster::default(), model::Config::default());
//! let mut kernel = linux::Host::open()?;       // inside the node's network namespace
//! let mut fabric = fabric::Fabric::new("node1");
//! // After each change of a node or of the configuration, when `report.again` has passed, and
//! // when `fabric.notice(&event)` of a `linux::Monitor` event says so:
//! let report = fabric.reconcile(&mut kernel, &cluster, &config, std::time::Instant::now());
//! // report.published: to be written to this node's flannel.alpha.coreos.com annotations
//! // report.problems: Events on the Node objects they name; report.errors: retried by itself
//! // fabric.plan(): the MTU of pods, and `explain` for `trace` and `show routes`
//! # Ok::<(), linux::Error>(())
//! ```
//!
//! A change of one node costs a few kernel calls, whatever the size of the cluster, and a change
//! of a pod none: what is there is read once and remembered, and read again only when somebody
//! else changed it.

mod apply;
pub mod explain;
mod have;
mod notice;
pub mod plan;
mod ranges;
pub mod render;
mod underlay;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use linux::{Kernel, Mac};
use model::{Cluster, Config};

pub use explain::{Step, explain};
pub use plan::{Path, Plan, Problem, Tunnel, Underlay, Uplink, Via, plan};

use have::Have;

/// A VXLAN end that is no longer wanted goes on receiving for this long: nodes change their mode
/// one after the other.
const LINGER: Duration = Duration::from_secs(30);
/// What was refused is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// What other nodes must know of this node's VXLAN ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// For `flannel.alpha.coreos.com/backend-data`; absent where the end is not there.
    pub v4: Option<Mac>,
    /// For `flannel.alpha.coreos.com/backend-v6-data`.
    pub v6: Option<Mac>,
}

/// What came of one [`Fabric::reconcile`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong with objects of the cluster.
    pub problems: Vec<Problem>,
    /// What the kernel refused; tried again.
    pub errors: Vec<linux::Error>,
    /// How many changes the kernel made.
    pub changes: usize,
    /// What is to be published; unchanged while there is no plan.
    pub published: Published,
    /// MTU of pods, where there is a plan.
    pub mtu: Option<u32>,
    /// When to call again if nothing else happens.
    pub again: Option<Duration>,
}

/// The fabric of one node: what it should be, and what is known to be there.
#[derive(Debug)]
pub struct Fabric {
    node: String,
    plan: Option<Plan>,
    have: Option<Have>,
    /// Since when a VXLAN end is no longer wanted.
    unwanted: BTreeMap<&'static str, Instant>,
    published: Published,
    last: Option<Last>,
}

/// What a finished reconcile was about: nothing is left to do for the same again.
#[derive(Debug)]
struct Last {
    cluster: Cluster,
    config: Config,
    report: Report,
}

impl Fabric {
    /// The fabric of the node called `node`; adopts what it finds at the first reconcile.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            plan: None,
            have: None,
            unwanted: BTreeMap::new(),
            published: Published::default(),
            last: None,
        }
    }

    /// The last plan.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Takes note of a change in the kernel; true where [`Fabric::reconcile`] is due because
    /// somebody else changed what is the fabric's, or what it depends on.
    pub fn notice(&mut self, event: &linux::Event) -> bool {
        let concerned = self
            .have
            .as_ref()
            .is_some_and(|have| notice::concerns(have, self.plan.as_ref(), event));
        if concerned {
            self.resync();
        }
        concerned
    }

    /// Forgets what is known to be there: the next reconcile reads the kernel.
    pub fn resync(&mut self) {
        self.have = None;
    }

    /// Makes the kernel as the cluster needs it. What fails is reported, and everything that
    /// does not depend on it is made all the same.
    pub fn reconcile(
        &mut self,
        kernel: &mut dyn Kernel,
        cluster: &Cluster,
        config: &Config,
        now: Instant,
    ) -> Report {
        // Most changes of a cluster are pods', which take no part here.
        if let (Some(last), true) = (&self.last, self.have.is_some())
            && (last.cluster.nodes.ptr_eq(&cluster.nodes) || last.cluster.nodes == cluster.nodes)
            && last.config == *config
        {
            return last.report.clone();
        }
        self.last = None;
        let mut report = Report::default();
        let mut have = match self.have.take() {
            Some(have) => have,
            None => match Have::read(kernel) {
                Ok(have) => have,
                Err(error) => {
                    report.errors.push(error);
                    report.published = self.published;
                    report.again = Some(RETRY);
                    return report;
                }
            },
        };
        let node = cluster.nodes.get(&self.node);
        let underlay = node.map(|node| underlay::underlay(&have, node));
        let Some(plan) = underlay.and_then(|underlay| plan(cluster, config, &self.node, &underlay))
        else {
            self.have = Some(have);
            report.published = self.published;
            report.problems.push(Problem::new(
                &self.node,
                "metadata.name",
                "this node is not in the cluster yet; everything stays as it is",
            ));
            return report;
        };
        let want = render::render(&plan);
        let keep = self.lingering(&have, &want, now);
        let done = apply::apply(kernel, &mut have, &want, &keep);
        self.published = Published {
            v4: published(&plan, &have, plan::VXLAN_V4),
            v6: published(&plan, &have, plan::VXLAN_V6),
        };
        report.again = self.next_end(now);
        if done.errors.is_empty() {
            self.have = Some(have);
        } else {
            // The kernel is not as thought: look again.
            report.again = Some(RETRY);
        }
        report.problems.clone_from(&plan.problems);
        report.errors = done.errors;
        report.changes = done.changes;
        report.published = self.published;
        report.mtu = Some(plan.mtu);
        self.plan = Some(plan);
        if report.again.is_none() {
            self.last = Some(Last {
                cluster: cluster.clone(),
                config: config.clone(),
                report: Report {
                    changes: 0,
                    ..report.clone()
                },
            });
        }
        report
    }

    /// The VXLAN ends that are there, no longer wanted, and still to receive.
    fn lingering(
        &mut self,
        have: &Have,
        want: &render::Objects,
        now: Instant,
    ) -> Vec<&'static str> {
        for link in [plan::VXLAN_V4, plan::VXLAN_V6] {
            if want.tunnels.contains_key(link) || !have.links.contains_key(link) {
                self.unwanted.remove(link);
            } else {
                self.unwanted.entry(link).or_insert(now);
            }
        }
        let young = |since: &Instant| now.saturating_duration_since(*since) < LINGER;
        self.unwanted
            .iter()
            .filter(|(_, since)| young(since))
            .map(|(link, _)| *link)
            .collect()
    }

    fn next_end(&self, now: Instant) -> Option<Duration> {
        self.unwanted
            .values()
            .map(|since| (*since + LINGER).saturating_duration_since(now))
            .filter(|left| !left.is_zero())
            .min()
    }
}

/// The hardware address of a VXLAN end that is wanted, there, and up.
fn published(plan: &Plan, have: &Have, link: &str) -> Option<Mac> {
    let tunnel = plan.tunnels.iter().find(|tunnel| tunnel.link == link)?;
    let there = have.links.get(link)?;
    (there.up && there.mac == Some(tunnel.mac)).then_some(tunnel.mac)
}
