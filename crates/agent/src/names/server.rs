//! The server itself: a Corefile at the node's addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwapOption;
use dns::apply::Interception;
use dns::chain::Resources;
use dns::corefile::files::Files;
use dns::corefile::{Corefile, Scheme, Sources, parse};
use dns::plan::View;
use dns::plugins::output::Output;
use dns::serve::{Bound, Options, Served, ServedError, Sockets};
use futures::FutureExt as _;
use linux::transparent;
use tokio::task::JoinHandle;

use super::probe;
use super::status::Board;

const PORT: u16 = 53;
/// More threads than this a node's names hardly ever need.
const MOST_WORKERS: usize = 8;
/// So many mistakes of a Corefile are told.
const MOST_MISTAKES: usize = 5;

/// What servers have in common, one after the other.
pub(crate) struct Shared {
    resolv_conf: PathBuf,
    resources: Resources,
    metrics: Arc<dns::metrics::Metrics>,
    workers: usize,
}

/// Ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A server that questions are led to.
pub(crate) struct Running {
    /// Goes first: nothing leads to a server that is about to end.
    pub interception: Interception,
    pub server: Served,
    pub addresses: Vec<IpAddr>,
    pub since: SystemTime,
    deaf: Arc<AtomicBool>,
    _probe: Task,
}

impl Running {
    pub(super) fn new(interception: Interception, server: Served, addresses: Vec<IpAddr>) -> Self {
        let deaf = Arc::new(AtomicBool::new(false));
        let probe = probe::run(addresses.clone(), Arc::clone(&deaf));
        Self {
            interception,
            server,
            addresses,
            since: SystemTime::now(),
            deaf,
            _probe: Task(tokio::spawn(probe)),
        }
    }

    /// Why it is to be started anew.
    pub(super) fn failure(&self) -> Option<String> {
        let deaf = self.deaf.load(Ordering::Relaxed);
        deaf.then(|| "it does not answer any more".to_owned())
    }

    /// Nothing leads here any more; what has come is answered.
    pub(super) fn stop(self) {
        drop(self.interception);
        tokio::spawn(self.server.stop());
    }
}

/// The node's own files, where its resolver configuration may be elsewhere.
struct OfNode<'a>(&'a PathBuf);

impl Sources for OfNode<'_> {
    fn variable(&self, name: &str) -> String {
        Files.variable(name)
    }

    fn matching(&self, pattern: &str) -> io::Result<Vec<String>> {
        Files.matching(pattern)
    }

    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        match path {
            "/etc/resolv.conf" => Files.read(&self.0.to_string_lossy(), limit),
            other => Files.read(other, limit),
        }
    }
}

impl Shared {
    pub(super) fn new(
        node: &str,
        resolv_conf: PathBuf,
        view: Arc<ArcSwapOption<View>>,
        board: &Board,
    ) -> Self {
        let output = Output::to(io::stderr()).unwrap_or_else(|error| {
            tracing::warn!("lines of plugins log and errors are lost: {error}");
            Output::kept()
        });
        let plugins = Arc::new(dns::plugins::metrics::Metrics::default());
        board
            .metrics()
            .register(|registry| plugins.register(registry));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // Where the file cannot be read the pods' own search paths are all there is.
        let conf = std::fs::read_to_string(&resolv_conf).unwrap_or_default();
        let search = dns::plugins::autopath::searched(&conf);
        Self {
            resources: Resources {
                view,
                output: Arc::new(output),
                metrics: plugins,
                local: Vec::new(),
                search,
                host: node.to_owned(),
                upstream: dns::upstream::Resources {
                    resolv_conf: Some(resolv_conf.to_string_lossy().into_owned()),
                    ..Default::default()
                },
                looping: Default::default(),
                started: Instant::now(),
            },
            resolv_conf,
            metrics: Arc::clone(board.metrics()),
            workers: cores.min(MOST_WORKERS),
        }
    }

    /// What is written; else what is wrong with it.
    pub(super) fn parse(&self, text: &str) -> Result<Corefile, String> {
        let sources = OfNode(&self.resolv_conf);
        match parse("Corefile", text, PORT, &sources) {
            Ok((corefile, _)) if !is_plain(&corefile) => {
                Err(format!("nothing is served on port {PORT}"))
            }
            Ok((corefile, warnings)) => {
                for warning in warnings {
                    tracing::info!("{warning}");
                }
                Ok(corefile)
            }
            Err(errors) => {
                let mut told: Vec<String> = errors
                    .iter()
                    .take(MOST_MISTAKES)
                    .map(ToString::to_string)
                    .collect();
                if errors.len() > MOST_MISTAKES {
                    told.push(format!("and {} more", errors.len() - MOST_MISTAKES));
                }
                Err(told.join("; "))
            }
        }
    }

    /// The outer error is the node's, the inner one the Corefile's.
    pub(super) fn start(
        &self,
        corefile: &Corefile,
        addresses: &[IpAddr],
    ) -> Result<Result<Served, String>, String> {
        let mut bound = Vec::new();
        for ip in addresses {
            let at = SocketAddr::new(*ip, PORT);
            let mut sockets = Vec::new();
            for _ in 0..self.workers {
                let udp = transparent::udp(at).map_err(|error| error.to_string())?;
                let tcp = transparent::tcp(at).map_err(|error| error.to_string())?;
                let udp = Some(udp);
                sockets.push(Sockets { udp, tcp });
            }
            bound.push((at, sockets));
        }
        let options = Options {
            workers: self.workers,
            metrics: Arc::clone(&self.metrics),
            bound: Bound::Node(bound),
        };
        let resources = Resources {
            local: addresses.to_vec(),
            ..self.resources.clone()
        };
        match Served::start(corefile, resources, options) {
            Ok(served) => Ok(Ok(served)),
            Err(ServedError::Listen(error)) => Err(error.to_string()),
            Err(wrong) => Ok(Err(wrong.to_string())),
        }
    }

    /// Has a server that is there answer what is written now, at the same addresses.
    pub(super) fn reload(served: &mut Served, corefile: &Corefile) -> Result<(), String> {
        // The listeners are the same, so that there is none to wait for.
        match served.reload(corefile).now_or_never() {
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// A Corefile was not taken.
    pub(super) fn count_failure(&self) {
        self.metrics.reload_failed();
    }
}

/// Whether anything of it is the nodes' matter: what it says of other ports and transports is for
/// the pods of the DNS Service.
fn is_plain(corefile: &Corefile) -> bool {
    let mut all = corefile.servers.iter().flat_map(|block| &block.addresses);
    all.any(|one| (one.scheme, one.port) == (Scheme::Dns, PORT))
}
