//! The loop that owns what is known of the cluster.

mod network;
mod updates;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fabric::Fabric;
use futures::StreamExt;
use futures::stream::BoxStream;
use linux::monitor::Event;
use linux::{Host, Monitor};
use model::config::ProxyConfig;
use model::{Cluster, Config};
use pods::Settings;
use pods::manager::Noticed;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::names::Names;
use crate::policing::Policing;
use crate::publish::Publisher;
use crate::serving::Serving;
use crate::worker::Worker;
use crate::{Published, Snapshot, Update, announce};

/// Changes of nodes within this time are taken in together.
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

/// What the loop drives.
pub(crate) struct Parts {
    pub conflist: Option<Conflist>,
    pub worker: Worker,
    pub publisher: Arc<Publisher>,
    pub published: Published,
    pub serving: Serving,
    pub policing: Policing,
    pub names: Names,
    pub proxy: Option<ProxyConfig>,
    pub announcer: announce::Handle,
}

/// The node, as its agent knows it.
pub(crate) struct Node {
    name: String,
    conflist: Option<Conflist>,
    worker: Worker,
    publisher: Arc<Publisher>,
    published: Published,
    host: Host,
    monitor: AsyncFd<Monitor>,
    fabric: Fabric,
    /// The fabric's last plan.
    plan: Option<Arc<fabric::Plan>>,
    serving: Serving,
    policing: Policing,
    names: Names,
    /// Put over the configuration.
    proxy: Option<ProxyConfig>,
    announcer: announce::Handle,
    cluster: Cluster,
    config: Option<Arc<Config>>,
    /// Nodes have been told.
    synced: bool,
    /// So have Services and their slices.
    services_synced: bool,
    /// So have pods, namespaces and policies.
    policies_synced: bool,
    /// Objects that cannot be understood, until they come again.
    bad: BTreeMap<String, String>,
    settings: Option<Settings>,
    fabric_problems: Vec<String>,
    /// All that is wrong.
    problems: Arc<Vec<String>>,
    /// The first that concerns this node's own network.
    cause: Option<String>,
    /// This node's problems, since when, and whether an Event tells of them.
    lasting: BTreeMap<String, (Instant, bool)>,
}

/// What is to be done, and when.
#[derive(Debug, Default)]
struct Due {
    converge: Option<Instant>,
    serve: Option<Instant>,
    police: Option<Instant>,
    names: Option<Instant>,
    look_at_pods: Option<Instant>,
    noticed: BTreeSet<Noticed>,
    /// What is wrong has changed.
    tell: bool,
    /// Readers have not seen the last change.
    publish: bool,
}

impl Due {
    fn converge_in(&mut self, wait: Duration) {
        sooner(&mut self.converge, wait);
    }

    fn serve_in(&mut self, wait: Duration) {
        sooner(&mut self.serve, wait);
    }

    fn police_in(&mut self, wait: Duration) {
        sooner(&mut self.police, wait);
    }

    fn names_in(&mut self, wait: Duration) {
        sooner(&mut self.names, wait);
    }

    fn look_at_pods_in(&mut self, wait: Duration) {
        self.look_at_pods.get_or_insert(Instant::now() + wait);
        if self.noticed.len() > MOST_NOTICED {
            self.noticed = BTreeSet::from([Noticed::Everything]);
        }
    }

    /// What is wrong with this object has changed.
    fn wrong(&mut self, object: &str) {
        self.tell = true;
        if object.starts_with("Node ") || object.starts_with("ConfigMap ") {
            self.converge_in(GATHER);
        }
    }
}

fn sooner(due: &mut Option<Instant>, wait: Duration) {
    let at = Instant::now() + wait;
    *due = Some(due.map_or(at, |earlier| earlier.min(at)));
}

async fn until(due: Option<Instant>) {
    match due {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Node {
    /// The node of the calling process's network namespace.
    pub(crate) fn open(name: String, parts: Parts) -> Result<Node, String> {
        let mut host = Host::open().map_err(|error| error.to_string())?;
        let mut monitor = Monitor::open().map_err(|error| error.to_string())?;
        let own = host.nftables.port();
        let ignored = own.and_then(|own| monitor.ignore(&[own]));
        host.ignored = Some(ignored.map_err(|error| error.to_string())?);
        Ok(Node {
            fabric: Fabric::new(name.clone()),
            name,
            conflist: parts.conflist,
            worker: parts.worker,
            publisher: parts.publisher,
            published: parts.published,
            serving: parts.serving,
            policing: parts.policing,
            names: parts.names,
            announcer: parts.announcer,
            proxy: parts.proxy,
            host,
            // SAFETY: the monitor owns its descriptor, keeps it as long as it lives, and is
            // neither replaced nor taken out of the AsyncFd.
            monitor: unsafe { AsyncFd::register(monitor) }
                .map_err(|error| format!("watch the kernel: {error}"))?,
            plan: None,
            cluster: Cluster::default(),
            config: None,
            synced: false,
            services_synced: false,
            policies_synced: false,
            bad: BTreeMap::new(),
            settings: None,
            fabric_problems: Vec::new(),
            problems: Arc::default(),
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
                        self.take(update, &mut due);
                        self.take_ready(&mut updates, &mut due);
                    }
                    None => return Err("the stream of updates ended".to_owned()),
                },
                events = kernel_events(&mut self.monitor) => self.notice(&events?, &mut due),
                () = self.policing.notified() => {
                    if self.policing.attachments() {
                        due.police_in(Duration::ZERO);
                    }
                }
                () = until(due.converge) => {
                    due.converge = None;
                    if let Some(again) = self.converge().await {
                        due.converge_in(again);
                    }
                    due.tell = true;
                }
                () = until(due.police) => {}
                () = until(due.serve) => {}
                () = until(due.names) => {}
                () = until(due.look_at_pods) => {
                    due.look_at_pods = None;
                    self.worker.notice(std::mem::take(&mut due.noticed).into_iter().collect());
                }
                () = sleep_until(compare) => {
                    compare = Instant::now() + COMPARE;
                    self.fabric.resync();
                    due.converge_in(Duration::ZERO);
                    self.worker.heal();
                    if self.serving.compare() {
                        due.serve_in(Duration::ZERO);
                    }
                    if self.policing.compare() {
                        due.police_in(Duration::ZERO);
                    }
                    self.names.compare();
                    due.names_in(Duration::ZERO);
                }
            }
            self.act(&mut due);
        }
    }

    /// Does what is due at once. Not behind a timer: its first tick would be most of the time
    /// that a change may take.
    fn act(&mut self, due: &mut Due) {
        let has_come = |at: &mut Option<Instant>| at.take_if(|at| *at <= Instant::now()).is_some();
        // Closed before it is served.
        if has_come(&mut due.police) {
            self.police(due);
        }
        // An answer of before is wrong from now on.
        if has_come(&mut due.names) {
            self.name(due);
        }
        if has_come(&mut due.serve) {
            self.serve(due);
        }
        if std::mem::take(&mut due.tell) {
            self.tell();
            due.publish = true;
        }
        if std::mem::take(&mut due.publish) {
            self.publish();
        }
    }

    /// This node's object.
    fn own(&self) -> String {
        format!("Node {}", self.name)
    }

    /// Brings Services to the kernel. On this thread: one change takes a fraction of a
    /// millisecond, and everything else that may not wait (sockets, health, attachments) has
    /// threads of its own.
    fn serve(&mut self, due: &mut Due) {
        // Before the whole view is there, what is missing in it would be taken away.
        if !self.services_synced || !self.cluster.nodes.contains_key(&self.name) {
            return;
        }
        let Some(config) = &self.config else {
            return;
        };
        let outcome = self
            .serving
            .reconcile(&mut self.host, &self.cluster, config);
        if let Some(again) = outcome.again {
            due.serve_in(again);
        }
        due.tell |= outcome.problems_changed;
    }

    /// Brings policies to the kernel, on this thread as well.
    fn police(&mut self, due: &mut Due) {
        // A half known cluster would open what the rest of it closes.
        if !self.policies_synced || !self.synced {
            return;
        }
        let outcome = self.policing.reconcile(&mut self.host, &self.cluster);
        for (admission, error) in outcome.refused {
            self.worker.undo(admission, error);
        }
        if let Some(again) = outcome.again {
            due.police_in(again);
        }
        due.tell |= outcome.problems_changed;
        due.publish |= outcome.started;
    }

    /// Has names answered from the cluster as it is now.
    fn name(&mut self, due: &mut Due) {
        // Before the whole view is there, what is missing in it would be denied.
        let whole = self.services_synced && self.policies_synced && self.synced;
        let netlink = &mut self.host.netlink;
        let outcome = self.names.turn(netlink, &self.cluster, whole);
        if let Some(again) = outcome.again {
            due.names_in(again);
        }
        due.tell |= outcome.problems_changed;
    }

    /// What changed in the kernel, and what that asks for.
    fn notice(&mut self, events: &[Event], due: &mut Due) {
        for event in events {
            if self.fabric.notice(event) {
                due.converge_in(SETTLE);
            }
            if self.serving.notice(event) {
                due.serve_in(SETTLE);
            }
            // Without its rules the node is open.
            if self.policing.notice(event) {
                due.police_in(Duration::ZERO);
            }
            if self.names.notice(event) {
                due.names_in(Duration::ZERO);
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

    /// Tells of all that is wrong: what is new in the log, all of it to readers.
    fn tell(&mut self) {
        let mut problems: Vec<String> = self.bad.values().cloned().collect();
        problems.extend(self.fabric_problems.iter().cloned());
        problems.extend(self.serving.problems());
        problems.extend(self.policing.problems());
        problems.extend(self.names.problems());
        if problems != *self.problems {
            let known: BTreeSet<&String> = self.problems.iter().collect();
            for problem in problems.iter().filter(|problem| !known.contains(problem)) {
                warn!("{problem}");
            }
            self.problems = Arc::new(problems);
        }
    }

    fn publish(&self) {
        let all = self.synced && self.services_synced;
        self.announcer
            .tell(&self.cluster, self.config.as_ref(), all);
        self.published.store(Arc::new(Snapshot {
            cluster: self.cluster.clone(),
            config: self.config.clone(),
            fabric: self.plan.clone(),
            problems: self.problems.clone(),
            cause: self.cause.clone(),
            synced: self.synced,
            policies_synced: self.policing.is_started(),
            complete: all && self.policies_synced && self.config.is_some(),
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
