//! The loop that owns what is known of the cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use model::{Cluster, Config};
use pods::{Readiness, Settings};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tracing::{info, warn};

use crate::worker::Worker;
use crate::{Published, Snapshot, Update, conflist};

/// Changes within this time are taken in together.
const GATHER: Duration = Duration::from_millis(20);
/// How often the node is compared with the plan although nothing changed.
const COMPARE: Duration = Duration::from_secs(10);

/// The node, as its agent knows it.
pub(crate) struct Node {
    name: String,
    cni_conf: Option<PathBuf>,
    socket: PathBuf,
    state: PathBuf,
    worker: Worker,
    published: Published,
    kubernetes: Option<kube::Client>,
    cluster: Cluster,
    config: Option<Config>,
    synced: bool,
    applied: Option<Settings>,
    problems: Vec<String>,
}

impl Node {
    pub(crate) fn new(
        name: String,
        cni_conf: Option<PathBuf>,
        socket: PathBuf,
        state: PathBuf,
        worker: Worker,
        published: Published,
        kubernetes: Option<kube::Client>,
    ) -> Node {
        Node {
            name,
            cni_conf,
            socket,
            state,
            worker,
            published,
            kubernetes,
            cluster: Cluster::default(),
            config: None,
            synced: false,
            applied: None,
            problems: Vec::new(),
        }
    }

    /// Takes updates in until dropped.
    pub(crate) async fn run(
        mut self,
        mut updates: BoxStream<'static, Update>,
    ) -> Result<(), String> {
        let mut compare = interval_at(Instant::now() + COMPARE, COMPARE);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due: Option<Instant> = None;
        loop {
            let settle = async {
                match due {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                update = updates.next() => match update {
                    Some(update) => {
                        if self.take(update) {
                            due.get_or_insert(Instant::now() + GATHER);
                        }
                    }
                    None => return Err("the stream of updates ended".to_owned()),
                },
                () = settle => {
                    due = None;
                    self.converge().await;
                }
                _ = compare.tick() => self.worker.heal(),
            }
        }
    }

    /// Takes one update in; true where something has to be done about it.
    fn take(&mut self, update: Update) -> bool {
        match update {
            Update::Change(change) => self.cluster.take(change),
            Update::Config(config) => {
                info!(fabric = ?config.fabric.mode, pods = ?config.pod_mode, "configuration");
                let changed = self.config.as_ref() != Some(&config);
                self.config = Some(*config);
                changed
            }
            Update::Synced => {
                self.synced = true;
                true
            }
            Update::Problem(problem) => {
                warn!("{problem}");
                false
            }
        }
    }

    /// Plans and applies everything that follows from what is known.
    async fn converge(&mut self) {
        self.problems.clear();
        if let Some(settings) = self.settings()
            && self.applied.as_ref() != Some(&settings)
        {
            match self.worker.set_settings(settings.clone()).await {
                Ok(()) => {
                    info!(ranges = ?settings.pod_cidrs, mode = ?settings.mode, mtu = settings.mtu, "pods");
                    self.applied = Some(settings);
                }
                Err(problem) => self.problems.push(problem),
            }
        }
        let readiness = match (&self.applied, self.problems.first()) {
            (None, None) => {
                Readiness::NotReady(format!("Node {} has no spec.podCIDRs yet", self.name))
            }
            (None, Some(problem)) => Readiness::NotReady(problem.clone()),
            (Some(_), Some(problem)) => Readiness::Limited(problem.clone()),
            (Some(_), None) => Readiness::Ready,
        };
        self.worker.set_readiness(readiness).await;
        if self.applied.is_some()
            && let Some(folder) = &self.cni_conf
            && let Err(problem) = conflist::write(folder, &self.socket, &self.state)
        {
            self.problems.push(problem);
        }
        for problem in &self.problems {
            warn!("{problem}");
        }
        self.publish();
    }

    /// What pods get on this node, once it is known.
    fn settings(&self) -> Option<Settings> {
        let config = self.config.as_ref()?;
        let node = self.cluster.nodes.get(&self.name)?;
        if node.pod_cidrs.is_empty() {
            return None;
        }
        Some(Settings {
            pod_cidrs: node.pod_cidrs.clone(),
            cluster_cidrs: config.cluster_cidrs.clone(),
            mode: config.pod_mode,
            mtu: config.fabric.mtu.unwrap_or(1450),
        })
    }

    fn publish(&self) {
        self.published.store(Arc::new(Snapshot {
            cluster: self.cluster.clone(),
            config: self.config.clone(),
            problems: self.problems.clone(),
            synced: self.synced,
        }));
        let _ = &self.kubernetes;
    }
}
