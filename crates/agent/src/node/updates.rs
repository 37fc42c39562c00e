//! Updates of the cluster, taken in.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use model::Change;
use tracing::{info, warn};

use super::{Due, GATHER, Node};
use crate::Update;

/// At most this many updates are taken in before something is done about them.
const MOST_AT_ONCE: usize = 4096;

impl Node {
    /// Takes in what has come meanwhile: under a flood, many changes become one transaction.
    pub(super) fn take_ready(&mut self, updates: &mut BoxStream<'static, Update>, due: &mut Due) {
        for _ in 0..MOST_AT_ONCE {
            match updates.next().now_or_never() {
                Some(Some(update)) => self.take(update, due),
                Some(None) | None => return,
            }
        }
    }

    /// Takes one update in, and notes what has to be done about it.
    pub(super) fn take(&mut self, update: Update, due: &mut Due) {
        match update {
            Update::Change(change) => self.change(change, due),
            Update::Config(config) => {
                let config = match &self.proxy {
                    Some(proxy) => Box::new(proxy.over(&config)),
                    None => config,
                };
                self.bad
                    .retain(|object, _| !object.starts_with("ConfigMap "));
                if self.config.as_deref() != Some(&*config) {
                    info!(
                        fabric = ?config.fabric.mode,
                        pods = ?config.pod_mode,
                        services = ?config.services.mode,
                        "configuration"
                    );
                    self.serving.configure(&config);
                    self.names.configure(&config);
                    due.names_in(Duration::ZERO);
                    if self.policing.configure(&config) {
                        due.police_in(Duration::ZERO);
                    }
                    self.config = Some(Arc::from(config));
                    due.serve_in(Duration::ZERO);
                }
                due.converge_in(GATHER);
            }
            Update::Synced => {
                self.synced = true;
                due.names_in(Duration::ZERO);
                due.converge_in(GATHER);
                due.police_in(Duration::ZERO);
            }
            Update::ServicesSynced => {
                self.services_synced = true;
                due.names_in(Duration::ZERO);
                due.serve_in(Duration::ZERO);
            }
            Update::PoliciesSynced => {
                self.policies_synced = true;
                due.names_in(Duration::ZERO);
                due.police_in(Duration::ZERO);
            }
            Update::Bad {
                object,
                uid,
                problem,
            } => {
                self.publisher
                    .invalid(&object, &uid, &problem, object == self.own());
                due.wrong(&object);
                self.policing.understood(&object, false);
                self.bad.insert(object, problem);
            }
            Update::Good { object } => {
                if self.bad.remove(&object).is_some() {
                    self.policing.understood(&object, true);
                    info!("{object}: understood, or gone");
                    due.wrong(&object);
                }
            }
            Update::Corefile(corefile) => {
                self.names.set_corefile(corefile);
                due.names_in(Duration::ZERO);
            }
            Update::Problem(problem) => warn!("{problem}"),
        }
    }

    fn change(&mut self, change: Change, due: &mut Due) {
        self.announcer.note(&self.cluster, &change);
        let touched = match &change {
            Change::Service(_)
            | Change::ServiceGone(..)
            | Change::Slice(_)
            | Change::SliceGone(..) => {
                let touched = self.serving.take(&mut self.cluster, change);
                if let Some(touched) = &touched {
                    due.serve_in(Duration::ZERO);
                    due.publish = true;
                    if self.policing.services_changed(&self.cluster, touched) {
                        due.police_in(Duration::ZERO);
                    }
                }
                touched
            }
            Change::Node(node) => {
                let own = node.name == self.name;
                if own {
                    self.serving.eligible(!node.leaving);
                }
                let touched = self.policing.take(&mut self.cluster, change);
                if touched.is_some() {
                    due.converge_in(GATHER);
                    due.police_in(Duration::ZERO);
                    if own {
                        due.serve_in(Duration::ZERO);
                    }
                }
                touched
            }
            Change::NodeGone(name) => {
                if *name == self.name {
                    self.serving.eligible(false);
                }
                let touched = self.policing.take(&mut self.cluster, change);
                if touched.is_some() {
                    due.converge_in(GATHER);
                    due.police_in(Duration::ZERO);
                }
                touched
            }
            Change::Pod(_)
            | Change::PodGone(..)
            | Change::Namespace(_)
            | Change::NamespaceGone(_)
            | Change::Policy(_)
            | Change::PolicyGone(..)
            | Change::ClusterPolicy(_)
            | Change::ClusterPolicyGone(_) => {
                let touched = self.policing.take(&mut self.cluster, change);
                if touched.is_some() {
                    due.police_in(Duration::ZERO);
                    due.publish = true;
                }
                touched
            }
        };
        if let Some(touched) = touched {
            self.names.note(&touched);
            due.names_in(Duration::ZERO);
        }
    }
}
