//! The server's life: start, follow the Corefile and the cluster, stop.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::agent::standalone::{self, Wanted};
use ::dns::chain::Resources;
use ::dns::corefile::Corefile;
use ::dns::metrics::Metrics;
use ::dns::plan::View;
use ::dns::plugins;
use ::dns::plugins::output::Output;
use ::dns::serve::{Bound, Options, Served};
use arc_swap::ArcSwapOption;
use kube::Client;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::Source;
use crate::cli::DnsServe;
use crate::commands::{Failure, Outcome};
use crate::output;

/// How the server calls itself to the API server.
const COMPONENT: &str = "flatnet-dns";

/// Serves until the process is told to end.
pub async fn run(source: &Source, corefile: Corefile, words: &DnsServe) -> Outcome {
    let mut signals = Signals::new()?;
    let (metrics, resources) = resources()?;
    let mut names = Names::new(Arc::clone(&resources.view));
    let wanted = source
        .wanted(&corefile)
        .map_err(|error| error.to_string())?;
    let synced = match &wanted {
        None => names.follow_nothing(),
        Some(wanted) => {
            let client = api::client::client_by(wanted.access.clone(), COMPONENT).await?;
            names.follow(client, wanted)
        }
    };
    tokio::select! {
        // As with CoreDNS: the first answers are whole ones where that is a matter of moments.
        () = sync(synced, patience(&corefile)) => {}
        () = signals.end() => return Ok(()),
    }
    let options = Options {
        workers: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        metrics,
        bound: Bound::Corefile,
    };
    let looping = resources.looping.clone();
    let started = Served::start(&corefile, resources, options);
    let served = started.map_err(|error| Failure::Failed(error.to_string()))?;
    if !words.quiet {
        greet(&corefile);
    }
    let (changed, changes) = watch::channel(wanted);
    let follower = tokio::spawn(names.keep(changes));
    let load = || {
        let corefile = source.read()?;
        let wanted = source.wanted(&corefile).map_err(|error| vec![error])?;
        changed.send_if_modified(|known| {
            let differs = *known != wanted;
            *known = wanted;
            differs
        });
        Ok(corefile)
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = served.run(corefile, load, async {
        // The sender is there until it is time.
        let _ = stopped.await;
    });
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        // As CoreDNS does: every question would go round and round.
        why = looping.found() => return Err(Failure::Failed(why)),
        () = signals.end() => {
            tracing::info!("Shutting down servers then terminating");
            drop(stop);
            tokio::select! {
                () = &mut serving => {}
                // Told twice: at once.
                () = signals.end() => {}
            }
        }
    }
    follower.abort();
    Ok(())
}

fn resources() -> Result<(Arc<Metrics>, Resources), Failure> {
    let failed = |what: &str, error: std::io::Error| Failure::Failed(format!("{what}: {error}"));
    let metrics = Arc::new(Metrics::default());
    let counted = Arc::new(plugins::metrics::Metrics::default());
    metrics.register(|registry| counted.register(registry));
    let output = Output::stdout().map_err(|error| failed("start the log's thread", error))?;
    let host = nix::unistd::gethostname()
        .map_err(|errno| failed("this host's name", errno.into()))?
        .to_string_lossy()
        .into_owned();
    let resources = Resources {
        view: Arc::default(),
        output: Arc::new(output),
        metrics: counted,
        local: own_addresses(),
        search: searched(),
        host,
        upstream: Default::default(),
        looping: Default::default(),
        started: Instant::now(),
    };
    Ok((metrics, resources))
}

/// This host's search path, which is the end of its pods'; none where its file cannot be read.
fn searched() -> Vec<::dns::wire::Name> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    ::dns::plugins::autopath::searched(&text)
}

/// This host's addresses, by which the server finds itself among the cluster's Services.
fn own_addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    };
    let all = interfaces.filter_map(address);
    all.filter(|ip| !ip.is_loopback()).collect()
}

/// What is served, a line for each zone, as CoreDNS prints it.
fn greet(corefile: &Corefile) {
    let keys: BTreeSet<String> = corefile
        .servers
        .iter()
        .flat_map(|server| &server.addresses)
        .map(|address| match address.scheme.as_str() {
            "dns" => format!("{}:{}", address.zone, address.port),
            scheme => format!("{scheme}://{}:{}", address.zone, address.port),
        })
        .collect();
    let mut text: String = keys.into_iter().map(|key| key + "\n").collect();
    text.push_str(&format!("flatnet dns {}\n", env!("CARGO_PKG_VERSION")));
    output::print(&text);
}

/// How long the start waits for the cluster's names.
fn patience(corefile: &Corefile) -> Duration {
    let all = corefile.servers.iter();
    let each = all.filter_map(|server| server.plugins.kubernetes.as_ref());
    each.map(|kubernetes| kubernetes.startup_timeout)
        .max()
        .unwrap_or_default()
}

/// Waits until all names are known, or so long.
async fn sync(synced: Option<oneshot::Receiver<()>>, patience: Duration) {
    let Some(synced) = synced else { return };
    if tokio::time::timeout(patience, synced).await.is_err() {
        tracing::warn!(
            "plugin/kubernetes: starting server with unsynced Kubernetes API: SERVFAIL until its names are known"
        );
    }
}

/// The cluster's names, followed as the Corefile says.
struct Names {
    view: Arc<ArcSwapOption<View>>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Names {
    fn drop(&mut self) {
        self.end();
    }
}

impl Names {
    fn new(view: Arc<ArcSwapOption<View>>) -> Self {
        Self { view, task: None }
    }

    /// Nobody asks about a cluster: all of it is known.
    fn follow_nothing(&mut self) -> Option<oneshot::Receiver<()>> {
        self.end();
        self.view.store(Some(Arc::default()));
        None
    }

    fn follow(&mut self, client: Client, wanted: &Wanted) -> Option<oneshot::Receiver<()>> {
        self.end();
        let (told, synced) = oneshot::channel();
        let follow = standalone::follow(client, wanted.pods, Arc::clone(&self.view), told);
        self.task = Some(tokio::spawn(follow));
        Some(synced)
    }

    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Follows what changed Corefiles are about. What was known is told until the new cluster's
    /// names are.
    async fn keep(mut self, mut changes: watch::Receiver<Option<Wanted>>) {
        while changes.changed().await.is_ok() {
            let wanted = changes.borrow_and_update().clone();
            let Some(wanted) = wanted else {
                self.follow_nothing();
                continue;
            };
            match api::client::client_by(wanted.access.clone(), COMPONENT).await {
                Ok(client) => {
                    self.follow(client, &wanted);
                }
                Err(error) => tracing::error!("plugin/kubernetes: {error}"),
            }
        }
        // The server ends; until then names are followed.
        std::future::pending::<()>().await;
    }
}

/// The signals that end the process.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let told = |kind| {
            signal(kind).map_err(|error| Failure::Failed(format!("watch for signals: {error}")))
        };
        Ok(Self {
            term: told(SignalKind::terminate())?,
            int: told(SignalKind::interrupt())?,
        })
    }

    /// The next of them.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
