//! The loop that owns what is known of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fabric::{Fabric, Report};
use futures::StreamExt;
use futures::stream::BoxStream;
use linux::monitor::Event;
use linux::{Host, Monitor};
use model::{Change, Cluster, Config};
use pods::manager::Noticed;
use pods::{Readiness, Settings};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::publish::{Publisher, Said, annotations};
use crate::worker::Worker;
use crate::{Published, Snapshot, Update, conflist};

/// Changes within this time are taken in together.
const GATHER: Duration = Duration::from_millis(10);
/// What another program did is answered after this time: its next changes come right behind.
const SETTLE: Duration = Duration::from_millis(100);
/// A problem that lasts this long becomes an Event: a new node has no range for a moment.
const LASTING: Duration = Duration::from_secs(3);
/// With more to look at than this, everything is.
const MOST_NOTICED: usize = 256;
/// How often the node is compared with the plan although nothing is known to have changed.
const COMPARE: Duration = Duration::from_secs(30);

/// Where the CNI configuration goes and what it names.
#[derive(Debug)]
pub(crate) struct Conflist {
    pub folder: PathBuf,
    pub socket: PathBuf,
    pub state: PathBuf,
}

/// The node, as its agent knows it.
pub(crate) struct Node {
    name: String,
    conflist: Option<Conflist>,
    worker: Worker,
    publisher: Publisher,
    published: Published,
    host: Host,
    monitor: AsyncFd<Monitor>,
    fabric: Fabric,
    cluster: Cluster,
    config: Option<Config>,
    synced: bool,
    /// Objects that cannot be understood, until they come again.
    bad: BTreeMap<String, String>,
    settings: Option<Settings>,
    problems: Vec<String>,
    /// The first that concerns this node's own network.
    cause: Option<String>,
    /// This node's problems, since when, and whether an Event tells of them.
    lasting: BTreeMap<String, (Instant, bool)>,
}

/// What is to be done, and when.
#[derive(Debug, Default)]
struct Due {
    converge: Option<Instant>,
    look_at_pods: Option<Instant>,
    noticed: BTreeSet<Noticed>,
}

impl Due {
    fn converge_in(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        self.converge = Some(self.converge.map_or(at, |earlier| earlier.min(at)));
    }

    fn look_at_pods_in(&mut self, wait: Duration) {
        self.look_at_pods.get_or_insert(Instant::now() + wait);
        if self.noticed.len() > MOST_NOTICED {
            self.noticed = BTreeSet::from([Noticed::Everything]);
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Node {
    /// The node of the calling process's network namespace.
    pub(crate) fn open(
        name: String,
        conflist: Option<Conflist>,
        worker: Worker,
        publisher: Publisher,
        published: Published,
    ) -> Result<Node, String> {
        let host = Host::open().map_err(|error| error.to_string())?;
        let mut monitor = Monitor::open().map_err(|error| error.to_string())?;
        let own = host.nftables.port();
        own.and_then(|own| monitor.ignore(&[own]))
            .map_err(|error| error.to_string())?;
        Ok(Node {
            fabric: Fabric::new(name.clone()),
            name,
            conflist,
            worker,
            publisher,
            published,
            host,
            // SAFETY: the monitor owns its descriptor, keeps it as long as it lives, and is
            // neither replaced nor taken out of the AsyncFd.
            monitor: unsafe { AsyncFd::register(monitor) }
                .map_err(|error| format!("watch the kernel: {error}"))?,
            cluster: Cluster::default(),
            config: None,
            synced: false,
            bad: BTreeMap::new(),
            settings: None,
            problems: Vec::new(),
            cause: None,
            lasting: BTreeMap::new(),
        })
    }

    /// Takes updates in until dropped.
    pub(crate) async fn run(
        mut self,
        mut updates: BoxStream<'static, Update>,
    ) -> Result<(), String> {
        let mut due = Due::default();
        let mut compare = Instant::now() + COMPARE;
        loop {
            tokio::select! {
                update = updates.next() => match update {
                    Some(update) => {
                        if self.take(update) {
                            due.converge_in(GATHER);
                        }
                    }
                    None => return Err("the stream of updates ended".to_owned()),
                },
                events = kernel_events(&mut self.monitor) => self.notice(&events?, &mut due),
                () = until(due.converge) => {
                    due.converge = None;
                    if let Some(again) = self.converge().await {
                        due.converge_in(again);
                    }
                }
                () = until(due.look_at_pods) => {
                    due.look_at_pods = None;
                    self.worker.notice(std::mem::take(&mut due.noticed).into_iter().collect());
                }
                () = sleep_until(compare) => {
                    compare = Instant::now() + COMPARE;
                    self.fabric.resync();
                    due.converge_in(Duration::ZERO);
                    self.worker.heal();
                }
            }
        }
    }

    /// Takes one update in; true where something has to be done about it.
    fn take(&mut self, update: Update) -> bool {
        match update {
            Update::Change(change) => {
                let recovered = match &change {
                    Change::Node(node) => self.bad.remove(&format!("Node {}", node.name)).is_some(),
                    Change::NodeGone(name) => self.bad.remove(&format!("Node {name}")).is_some(),
                    _ => false,
                };
                self.cluster.take(change) || recovered
            }
            Update::Config(config) => {
                self.bad
                    .retain(|object, _| !object.starts_with("ConfigMap "));
                if self.config.as_ref() != Some(&config) {
                    info!(fabric = ?config.fabric.mode, pods = ?config.pod_mode, "configuration");
                    self.config = Some(*config);
                }
                true
            }
            Update::Synced => {
                self.synced = true;
                true
            }
            Update::Bad { object, problem } => {
                warn!("{problem}");
                if object == format!("Node {}", self.name) {
                    self.publisher.node_event("InvalidNode", &problem);
                } else if object.starts_with("ConfigMap ") {
                    self.publisher
                        .config_event("InvalidConfiguration", &problem);
                }
                self.bad.insert(object, problem);
                true
            }
            Update::Problem(problem) => {
                warn!("{problem}");
                false
            }
        }
    }

    /// What changed in the kernel, and what that asks for.
    fn notice(&mut self, events: &[Event], due: &mut Due) {
        for event in events {
            if self.fabric.notice(event) {
                due.converge_in(SETTLE);
            }
            let noticed = match event {
                Event::Link { link, gone: false } if !link.up => Noticed::Link(link.index),
                Event::Address {
                    address,
                    gone: true,
                } => Noticed::Link(address.dev),
                Event::Route { route, gone: true } => Noticed::Route(route.dst.addr()),
                Event::Nftables { table, name } if of_host_ports(table, name.as_deref()) => {
                    Noticed::Everything
                }
                Event::Lost => Noticed::Everything,
                _ => continue,
            };
            due.noticed.insert(noticed);
            due.look_at_pods_in(SETTLE);
        }
    }

    /// Plans and applies everything that follows from what is known; when to do it again.
    async fn converge(&mut self) -> Option<Duration> {
        let mut problems: Vec<String> = self.bad.values().cloned().collect();
        // What concerns this node's own network, and not only the way to another. A wrong
        // configuration does so only where no good one is in force.
        let own = |object: &String| {
            (object.starts_with("ConfigMap ") && self.config.is_none())
                || *object == format!("Node {}", self.name)
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
            for process in self.host.processes.drain(..) {
                self.monitor.get_mut().ignore_process(process);
            }
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
        if problems != self.problems {
            for problem in problems
                .iter()
                .filter(|problem| !self.problems.contains(problem))
            {
                warn!("{problem}");
            }
            self.problems = problems;
        }
        self.publish();
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

    fn publish(&self) {
        self.published.store(Arc::new(Snapshot {
            cluster: self.cluster.clone(),
            config: self.config.clone(),
            fabric: self.fabric.plan().cloned(),
            problems: self.problems.clone(),
            cause: self.cause.clone(),
            synced: self.synced,
        }));
    }
}

/// Whether a change of the table may concern host ports. Every change of theirs tells one of the
/// chain or the table; what this agent does itself is answered with one look and no change.
fn of_host_ports(table: &str, name: Option<&str>) -> bool {
    table == pods::ports::TABLE && name.is_none_or(|name| name.starts_with("pods-"))
}

async fn kernel_events(monitor: &mut AsyncFd<Monitor>) -> Result<Vec<Event>, String> {
    loop {
        let mut ready = monitor
            .readable_mut()
            .await
            .map_err(|error| format!("watch the kernel: {error}"))?;
        let events = ready
            .get_inner_mut()
            .read()
            .map_err(|error| error.to_string())?;
        if events.is_empty() {
            ready.clear_ready();
        } else {
            return Ok(events);
        }
    }
}
