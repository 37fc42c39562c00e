//! The node's own network: the fabric, and what pods are attached by.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fabric::Report;
use pods::{Readiness, Settings};
use tokio::time::Instant;
use tracing::info;

use super::{LASTING, Node};
use crate::conflist;
use crate::publish::{Said, annotations};

impl Node {
    /// Plans and applies everything that follows from what is known; when to do it again.
    pub(super) async fn converge(&mut self) -> Option<Duration> {
        let mut problems = Vec::new();
        // What concerns this node's own network, and not only the way to another. A wrong
        // configuration does so only where no good one is in force.
        let own = |object: &String| {
            (object.starts_with("ConfigMap ") && self.config.is_none()) || *object == self.own()
        };
        let mut cause = self
            .bad
            .iter()
            .find(|(object, _)| own(object))
            .map(|(_, problem)| problem.clone());
        let mut again = None;
        // A cluster half told would take routes to the other half away.
        if self.synced
            && let Some(config) = self.config.clone()
            && let Some(node) = self.cluster.nodes.get(&self.name).cloned()
        {
            let report = self.fabric.reconcile(
                &mut self.host,
                &self.cluster,
                &config,
                std::time::Instant::now(),
            );
            again = report.again;
            let lasting = self.tell_lasting(&report);
            again = [again, lasting].into_iter().flatten().min();
            cause = cause.or(self.report(&report, &mut problems));
            if let Some(mtu) = report.mtu.filter(|_| !node.pod_cidrs.is_empty()) {
                let settings = Settings {
                    pod_cidrs: node.pod_cidrs.clone(),
                    cluster_cidrs: config.cluster_cidrs.clone(),
                    mode: config.pod_mode,
                    mtu,
                };
                if let Err(problem) = self.settle_pods(settings).await {
                    cause.get_or_insert(problem.clone());
                    problems.push(problem);
                    again = Some(Duration::from_secs(1));
                }
            }
            self.publisher.say(Said {
                annotations: Some(annotations(&node, &config, &report.published)),
                network: Some(match (&cause, &self.settings) {
                    (Some(cause), _) => Err(cause.clone()),
                    (None, None) => Err(format!("Node {} has no spec.podCIDRs yet", self.name)),
                    (None, Some(_)) => Ok(()),
                }),
            });
        }
        self.cause.clone_from(&cause);
        self.worker.set_readiness(self.readiness(cause)).await;
        self.plan = self.fabric.plan().cloned().map(Arc::new);
        self.fabric_problems = problems;
        again
    }

    /// Collects what the fabric reports.
    /// The first that concerns this node's own network is returned.
    fn report(&self, report: &Report, problems: &mut Vec<String>) -> Option<String> {
        let mut cause = report.errors.first().map(ToString::to_string);
        for problem in &report.problems {
            let text = problem.to_string();
            if problem.node == self.name {
                cause.get_or_insert(text.clone());
            }
            problems.push(text);
        }
        problems.extend(report.errors.iter().map(ToString::to_string));
        if report.changes > 0 {
            info!(changes = report.changes, "fabric");
        }
        cause
    }

    /// Makes Events of this node's problems that last; when the next one will have lasted.
    fn tell_lasting(&mut self, report: &Report) -> Option<Duration> {
        let own = report
            .problems
            .iter()
            .filter(|problem| problem.node == self.name);
        let now: BTreeSet<String> = own.map(ToString::to_string).collect();
        self.lasting.retain(|text, _| now.contains(text));
        let mut next = None;
        for text in now {
            let (since, told) = self
                .lasting
                .entry(text.clone())
                .or_insert((Instant::now(), false));
            let age = since.elapsed();
            if *told {
                continue;
            }
            if age >= LASTING {
                *told = true;
                self.publisher.node_event("NetworkProblem", &text);
            } else {
                let left = LASTING.saturating_sub(age);
                next = Some(next.map_or(left, |earlier: Duration| earlier.min(left)));
            }
        }
        next
    }

    /// Gives the pods' side its settings, and the runtime its configuration once they hold.
    async fn settle_pods(&mut self, settings: Settings) -> Result<(), String> {
        if self.settings.as_ref() != Some(&settings) {
            self.worker.set_settings(settings.clone()).await?;
            info!(ranges = ?settings.pod_cidrs, mode = ?settings.mode, mtu = settings.mtu, "pods");
            self.settings = Some(settings);
        }
        match &self.conflist {
            Some(conflist) => conflist::write(&conflist.folder, &conflist.socket, &conflist.state),
            None => Ok(()),
        }
    }

    fn readiness(&self, cause: Option<String>) -> Option<Readiness> {
        match (&self.settings, cause) {
            // Nothing new is known: what the last run knew holds.
            (None, None) if !self.synced => None,
            (None, None) => Some(Readiness::NotReady(match self.config {
                Some(_) => format!("Node {} has no spec.podCIDRs yet", self.name),
                None => "there is no network configuration yet (ConfigMap kube-system/flatnet)"
                    .to_owned(),
            })),
            (None, Some(cause)) => Some(Readiness::NotReady(cause)),
            (Some(_), Some(cause)) => Some(Readiness::Limited(cause)),
            (Some(_), None) => Some(Readiness::Ready),
        }
    }
}
