//! The server itself: a Corefile at the node's addresses.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwapOption;
use dns::apply::Interception;
use dns::chain::Resources;
use dns::corefile::files::Files;
use dns::corefile::{Corefile, Scheme, Sources, parse};
use dns::plan::View;
use dns::plugins::looping::Finding;
use dns::plugins::output::Output;
use dns::serve::{Bound, Options, Served, ServedError, Sockets};
use dns::upstream::Peers;
use futures::FutureExt as _;
use linux::transparent;
use model::Cluster;
use tokio::task::JoinHandle;

use super::peers::peers;
use super::probe;
use super::status::Board;

const PORT: u16 = 53;
/// Where the text is from, in what is said about it.
const PLACE: &str = "Corefile";
/// More threads than this a node's names hardly ever need.
const MOST_WORKERS: usize = 8;
/// So many mistakes of a Corefile are told.
const MOST_MISTAKES: usize = 5;

/// What servers have in common, one after the other.
pub(crate) struct Shared {
    resources: Resources,
    peers: Arc<Peers>,
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
    looping: Arc<OnceLock<String>>,
    _tasks: [Task; 2],
}

impl Running {
    pub(super) fn new(
        interception: Interception,
        (server, finding): (Served, Finding),
        addresses: Vec<IpAddr>,
    ) -> Self {
        let deaf = Arc::new(AtomicBool::new(false));
        let probe = probe::run(addresses.clone(), Arc::clone(&deaf));
        let looping = Arc::new(OnceLock::new());
        let found = Arc::clone(&looping);
        let listen = async move {
            let why = finding.found().await;
            let _ = found.set(why);
        };
        Self {
            interception,
            server,
            addresses,
            since: SystemTime::now(),
            deaf,
            looping,
            _tasks: [Task(tokio::spawn(probe)), Task(tokio::spawn(listen))],
        }
    }

    /// Why it is to be started anew.
    pub(super) fn failure(&self) -> Option<String> {
        let deaf = self.deaf.load(Ordering::Relaxed);
        deaf.then(|| "it does not answer any more".to_owned())
    }

    /// What it forwards comes back to it: with this Corefile it must not run.
    pub(super) fn looping(&self) -> Option<&str> {
        self.looping.get().map(String::as_str)
    }

    /// Nothing leads here any more; what has come is answered.
    pub(super) fn stop(self) {
        drop(self.interception);
        tokio::spawn(self.server.stop());
    }
}

/// The node's own files.
#[derive(Default)]
struct OfNode {
    /// What is not on the node: in the DNS Service's pods, which have volumes, it may be.
    missing: RefCell<Option<String>>,
}

impl Sources for OfNode {
    fn variable(&self, name: &str) -> String {
        Files.variable(name)
    }

    fn matching(&self, pattern: &str) -> io::Result<Vec<String>> {
        let found = Files.matching(pattern)?;
        if found.is_empty() {
            self.missing.replace(Some(pattern.to_owned()));
        }
        Ok(found)
    }

    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        Files.read(path, limit)
    }
}

impl Shared {
    pub(super) fn new(
        node: &str,
        resolv_conf: &Path,
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
        let conf = std::fs::read_to_string(resolv_conf).unwrap_or_default();
        let search = dns::plugins::autopath::searched(&conf);
        let peers = Arc::new(Peers::default());
        Self {
            peers: Arc::clone(&peers),
            resources: Resources {
                view,
                output: Arc::new(output),
                metrics: plugins,
                local: Vec::new(),
                search,
                host: node.to_owned(),
                upstream: dns::upstream::Resources {
                    resolv_conf: Some(resolv_conf.to_string_lossy().into_owned()),
                    peers: Some(peers),
                    ..Default::default()
                },
                looping: Finding::default(),
                started: Instant::now(),
            },
            metrics: Arc::clone(board.metrics()),
            workers: cores.min(MOST_WORKERS),
        }
    }

    /// Who is asked where the upstreams have no answer: the pods of the Service at one of these
    /// addresses.
    pub(super) fn set_peers(&self, cluster: &Cluster, services: &[IpAddr]) {
        self.peers
            .set(peers(cluster, services, &self.resources.host));
    }

    /// What is written; else what is wrong with it.
    pub(super) fn parse(&self, text: &str) -> Result<Corefile, String> {
        let sources = OfNode::default();
        let parsed = parse(PLACE, text, PORT, &sources);
        if let Some(missing) = sources.missing.take() {
            return Err(absent("import", &missing));
        }
        let (corefile, warnings) = parsed.map_err(|errors| told(&errors))?;
        let corefile = of_node(corefile)?;
        for warning in warnings {
            tracing::info!("{warning}");
        }
        Ok(corefile)
    }

    /// The outer error is the node's, the inner one the Corefile's.
    pub(super) fn start(
        &self,
        corefile: &Corefile,
        addresses: &[IpAddr],
    ) -> Result<Result<(Served, Finding), String>, String> {
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
        // Each server's own: what one finds is nothing against the next.
        let looping = Finding::default();
        let resources = Resources {
            local: addresses.to_vec(),
            looping: looping.clone(),
            ..self.resources.clone()
        };
        match Served::start(corefile, resources, options) {
            Ok(served) => Ok(Ok((served, looping))),
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

/// What of a Corefile holds on a node as it does in the DNS Service's pods; else what does not.
/// Other ports and transports are the pods' matter.
fn of_node(mut corefile: Corefile) -> Result<Corefile, String> {
    let mut all = corefile.servers.iter().flat_map(|block| &block.addresses);
    if !all.any(|one| (one.scheme, one.port) == (Scheme::Dns, PORT)) {
        return Err(format!("nothing is served on port {PORT}"));
    }
    let kubernetes = corefile.servers.iter();
    for options in kubernetes.filter_map(|block| block.plugins.kubernetes.as_ref()) {
        if options.endpoint.is_some() || options.kubeconfig.is_some() {
            return Err("kubernetes: it is about an API server of its own, and the agent knows its own cluster".to_owned());
        }
    }
    let blocks = corefile.servers.iter_mut();
    for hosts in blocks.filter_map(|block| block.plugins.hosts.as_mut()) {
        if hosts.file == "/etc/hosts" {
            // That of a pod names the pod. A node's own names are not for pods.
            hosts.file = "/dev/null".to_owned();
        } else if !Path::new(&hosts.file).exists() {
            return Err(absent("hosts", &hosts.file));
        }
    }
    Ok(corefile)
}

fn absent(plugin: &str, file: &str) -> String {
    format!("{plugin}: {file} is not on the node")
}

fn told(errors: &[dns::corefile::Error]) -> String {
    let some = errors.iter().take(MOST_MISTAKES);
    let mut told: Vec<String> = some.map(ToString::to_string).collect();
    if errors.len() > MOST_MISTAKES {
        told.push(format!("and {} more", errors.len() - MOST_MISTAKES));
    }
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Corefile, String> {
        let board = Board::default();
        let resolv_conf = Path::new("/etc/resolv.conf");
        Shared::new("node1", resolv_conf, Arc::default(), &board).parse(text)
    }

    #[test]
    fn what_holds_only_in_pods_is_refused() {
        let wrong = |text| parsed(text).unwrap_err();
        assert_eq!(
            wrong(". {\n import /etc/coredns/custom/*.override\n}"),
            "import: /etc/coredns/custom/*.override is not on the node"
        );
        assert_eq!(
            wrong(". {\n hosts /etc/coredns/NodeHosts\n}"),
            "hosts: /etc/coredns/NodeHosts is not on the node"
        );
        assert_eq!(
            wrong("tls://. {\n whoami\n}"),
            "nothing is served on port 53"
        );
        assert!(wrong(". {\n whoami2\n}").starts_with("Corefile:2: "));
    }

    #[test]
    fn a_nodes_own_names_are_not_for_pods() {
        let corefile = parsed(". {\n hosts\n}").unwrap();
        let plugins = &corefile.servers[0].plugins;
        assert_eq!(plugins.hosts.as_ref().unwrap().file, "/dev/null");
    }
}
