//! Names on this node: what the loop does about the node's own DNS server.
//!
//! It is there while there is a Corefile that it understands and a whole view of the cluster; the
//! node's questions come to it only while it is there. Without it the DNS Service answers.

mod peers;
mod probe;
mod server;
mod status;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use api::convert::{COREFILE_KEY, COREFILE_NAME, COREFILE_NAMESPACE};
use arc_swap::ArcSwapOption;
use dns::apply::{Interception, mark};
use dns::plan::{Names as Index, View};
use linux::{Event, Netlink};
use model::{Changed, Cluster, Config};
use tracing::info;

use crate::Corefile;
use crate::publish::Publisher;
use server::Running;
pub(crate) use server::Shared;
pub(crate) use status::{Board, Status};

/// Another process answers names on this node: it is seen after this time that it ended.
const TAKEN: Duration = Duration::from_secs(1);
/// What failed is tried again after this time.
const AGAIN: Duration = Duration::from_secs(10);
/// What was healed is looked at once more after this time.
const SOON: Duration = Duration::from_millis(200);

/// What came of one turn.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// When to come again although nothing happens.
    pub again: Option<Duration>,
    pub problems_changed: bool,
}

/// The node's own DNS server, and what leads to it.
pub(crate) struct Names {
    shared: Shared,
    publisher: Arc<Publisher>,
    board: Board,
    /// The cluster's names, and what has changed since they were taken in.
    index: Index,
    changed: Changed,
    view: Arc<ArcSwapOption<View>>,
    /// What is written; nothing before it is known whether there is any.
    corefile: Option<Option<Corefile>>,
    addresses: Vec<IpAddr>,
    /// The DNS Service's addresses.
    services: Vec<IpAddr>,
    /// Other ones may stand behind it.
    peers_due: bool,
    mark: u32,
    running: Option<Running>,
    /// The last Corefile that was tried, and what was wrong with it.
    tried: Option<(Corefile, Option<String>)>,
    /// Why there is no server though there should be one.
    trouble: Option<String>,
    /// When what failed is tried again.
    again: Option<Instant>,
    heal: bool,
}

impl Names {
    /// For the node called `node`, whose own resolver configuration is at `resolv_conf`.
    pub(crate) fn new(
        node: &str,
        resolv_conf: &Path,
        publisher: Arc<Publisher>,
        board: Board,
    ) -> Self {
        let view: Arc<ArcSwapOption<View>> = Arc::default();
        Self {
            shared: Shared::new(node, resolv_conf, Arc::clone(&view), &board),
            publisher,
            board,
            index: Index::default(),
            changed: Changed::default(),
            view,
            corefile: None,
            addresses: Vec::new(),
            services: Vec::new(),
            peers_due: true,
            mark: 0,
            running: None,
            tried: None,
            trouble: None,
            again: None,
            heal: false,
        }
    }

    /// The cluster changed.
    pub(crate) fn note(&mut self, touched: &Changed) {
        self.changed.extend(touched);
        self.peers_due |= !touched.services.is_empty() || !touched.nodes.is_empty();
    }

    /// What is written, or that nothing is.
    pub(crate) fn set_corefile(&mut self, corefile: Option<Corefile>) {
        self.corefile = Some(corefile);
        self.again = None;
    }

    /// A configuration comes into force.
    pub(crate) fn configure(&mut self, config: &Config) {
        self.addresses = config.node_dns();
        if self.services != config.cluster_dns {
            self.services.clone_from(&config.cluster_dns);
            self.peers_due = true;
        }
        self.mark = mark(config.services.masquerade_bit);
        self.again = None;
    }

    /// Takes note of a change in the kernel; true where a turn is due.
    pub(crate) fn notice(&mut self, event: &Event) -> bool {
        let running = self.running.as_ref();
        let due = running.is_some_and(|running| running.interception.notice(event));
        self.heal |= due;
        due
    }

    /// The time has come to look whether all is as it should be.
    pub(crate) fn compare(&mut self) {
        self.heal = self.running.is_some();
    }

    /// Answers from the cluster as it is now, and has a server where one should be. `whole`: the
    /// cluster's pods, Services and namespaces are all known.
    pub(crate) fn turn(
        &mut self,
        netlink: &mut Netlink,
        cluster: &Cluster,
        whole: bool,
    ) -> Outcome {
        if !whole {
            return Outcome::default();
        }
        self.take_in(cluster);
        if std::mem::take(&mut self.peers_due) {
            self.shared.set_peers(cluster, &self.services);
        }
        let before = (self.trouble.clone(), self.wrong().map(str::to_owned));
        let mut again = self.converge(netlink);
        if std::mem::take(&mut self.heal)
            && let Some(running) = &mut self.running
            && let Err(error) = running.interception.heal(netlink)
        {
            self.trouble = Some(format!("node DNS: {error}"));
            self.heal = true;
            again = Some(SOON);
        }
        let now = (self.trouble.clone(), self.wrong().map(str::to_owned));
        self.tell();
        Outcome {
            again,
            problems_changed: now != before,
        }
    }

    /// What is wrong, in sentences.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        let wrong = self.wrong().map(str::to_owned);
        wrong.into_iter().chain(self.trouble.clone())
    }

    fn wrong(&self) -> Option<&str> {
        self.tried.as_ref().and_then(|(_, wrong)| wrong.as_deref())
    }

    fn take_in(&mut self, cluster: &Cluster) {
        let first = self.view.load().is_none();
        if self.changed.is_empty() && !first {
            return;
        }
        let changed = std::mem::take(&mut self.changed);
        self.index.update(cluster, &changed, SystemTime::now());
        self.view.store(Some(Arc::new(View {
            names: self.index.clone(),
            cluster: cluster.clone(),
        })));
    }

    /// When to come again.
    fn converge(&mut self, netlink: &mut Netlink) -> Option<Duration> {
        let wanted = match &self.corefile {
            Some(Some(corefile)) if !self.addresses.is_empty() => corefile.clone(),
            // It is not known yet.
            None => return None,
            Some(_) => {
                self.stop("there is no Corefile, or the configuration wants no node DNS");
                self.tried = None;
                self.trouble = None;
                return None;
            }
        };
        if self
            .running
            .as_ref()
            .is_some_and(|running| running.addresses != self.addresses)
        {
            self.stop("it gets other addresses");
        }
        if let Some(ended) = self.running.as_ref().and_then(Running::failure) {
            self.stop(&ended);
            self.trouble = Some(format!("node DNS: {ended}; it is started again"));
        }
        if let Some(why) = self.running.as_ref().and_then(Running::looping) {
            let (why, same) = (why.to_owned(), self.is_tried(&wanted));
            self.stop("what it forwards comes back to it");
            if same {
                self.refuse(&wanted, &why);
                return None;
            }
        }
        if self.running.is_some() {
            self.reload(&wanted);
            return Some(probe::EVERY);
        }
        if let Some(at) = self.again.filter(|at| *at > Instant::now()) {
            return Some(at.saturating_duration_since(Instant::now()));
        }
        match self.start(netlink, &wanted) {
            Ok(true) => Some(probe::EVERY),
            Ok(false) => {
                self.trouble = Some(
                    "node DNS: another process answers on this node (nft table flatnet-dns is its own); end it first"
                        .to_owned(),
                );
                self.wait(TAKEN)
            }
            Err(error) => {
                self.trouble = Some(format!("node DNS: {error}"));
                self.wait(AGAIN)
            }
        }
    }

    fn wait(&mut self, wait: Duration) -> Option<Duration> {
        self.again = Some(Instant::now() + wait);
        Some(wait)
    }

    /// False where another process has the node's names. What is wrong with the Corefile is no
    /// trouble of the node's.
    fn start(&mut self, netlink: &mut Netlink, corefile: &Corefile) -> Result<bool, String> {
        if self
            .tried
            .as_ref()
            .is_some_and(|(tried, wrong)| tried == corefile && wrong.is_some())
        {
            return Ok(true);
        }
        let parsed = match self.shared.parse(&corefile.text) {
            Ok(parsed) => parsed,
            Err(wrong) => {
                self.refuse(corefile, &wrong);
                return Ok(true);
            }
        };
        let claimed = Interception::claim().map_err(|error| error.to_string())?;
        let Some(mut interception) = claimed else {
            return Ok(false);
        };
        let server = match self.shared.start(&parsed, &self.addresses)? {
            Ok(server) => server,
            Err(wrong) => {
                self.refuse(corefile, &wrong);
                return Ok(true);
            }
        };
        let led = interception.lead(netlink, &self.addresses, self.mark);
        led.map_err(|error| error.to_string())?;
        self.accept(corefile);
        self.trouble = None;
        info!(addresses = ?self.addresses, "names are answered on this node");
        self.running = Some(Running::new(interception, server, self.addresses.clone()));
        Ok(true)
    }

    /// Serves what is written now; what cannot be understood leaves the last one in force.
    fn reload(&mut self, corefile: &Corefile) {
        if self.is_tried(corefile) {
            return;
        }
        let Some(running) = &mut self.running else {
            return;
        };
        let parsed = self.shared.parse(&corefile.text);
        let reloaded = parsed.and_then(|parsed| Shared::reload(&mut running.server, &parsed));
        match reloaded {
            Ok(()) => {
                self.accept(corefile);
                info!("the Corefile changed");
            }
            Err(wrong) => self.refuse(corefile, &wrong),
        }
    }

    fn is_tried(&self, corefile: &Corefile) -> bool {
        let tried = self.tried.as_ref();
        tried.is_some_and(|(tried, _)| tried.text == corefile.text)
    }

    fn accept(&mut self, corefile: &Corefile) {
        self.tried = Some((corefile.clone(), None));
        self.board.set_corefile(SystemTime::now());
    }

    fn refuse(&mut self, corefile: &Corefile, wrong: &str) {
        let object = format!("ConfigMap {COREFILE_NAMESPACE}/{COREFILE_NAME}");
        let effect = match self.running {
            Some(_) => "the last good one stays in force on the nodes",
            None => "nodes do not answer names themselves, the DNS Service does",
        };
        let problem = format!("{object}: data[{COREFILE_KEY}]: {wrong}; {effect}");
        self.publisher.corefile(&corefile.uid, &problem);
        self.shared.count_failure();
        self.tried = Some((corefile.clone(), Some(problem)));
    }

    /// Questions go to the DNS Service from now on.
    fn stop(&mut self, why: &str) {
        if let Some(running) = self.running.take() {
            info!("names are no longer answered on this node: {why}");
            running.stop();
        }
        self.tried = None;
    }

    fn tell(&self) {
        let running = self.running.as_ref();
        let addresses = running.and_then(|running| running.interception.led());
        self.board.set(Status {
            addresses: addresses.map(<[IpAddr]>::to_vec).unwrap_or_default(),
            since: running.map(|running| running.since),
            problems: self.problems().collect(),
            wanted: self.addresses.clone(),
        });
    }
}
