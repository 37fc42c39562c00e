//! A Corefile, served.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::task::JoinSet;

use super::endpoints::{Paths, State};
use super::tls::{self, TlsError};
use super::{At, Endpoints, Limits, Listener, ServeError, Server, Sockets, address};
use crate::chain::{Chain, Resources, Router, Site};
use crate::corefile::plugins::{Bind, Listen, MaxTcpQueries, Plugins, ServerTls};
use crate::corefile::{Corefile, Error, Scheme, ServerBlock};
use crate::metrics::Metrics;

/// How a Corefile is served.
#[derive(Debug)]
pub struct Options {
    /// Threads that answer; each has sockets of its own.
    pub workers: usize,
    /// What is counted, by the server and by whoever has registered more.
    pub metrics: Arc<Metrics>,
    /// Where.
    pub bound: Bound,
}

/// Where a Corefile is served.
#[derive(Debug)]
pub enum Bound {
    /// Where the Corefile says, with its endpoints.
    Corefile,
    /// On a node, at addresses of its own, where sockets for each worker are bound already: the
    /// Corefile's blocks for plain DNS at port 53, without its endpoints and `bind`.
    Node(Vec<(SocketAddr, Vec<Sockets>)>),
}

/// Why a Corefile is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServedError {
    /// A plugin.
    #[error("{0}")]
    Plugin(#[from] Error),
    /// A listener.
    #[error("{0}")]
    Listen(#[from] ServeError),
    /// A certificate.
    #[error("{at}: plugin tls: {error}")]
    Tls {
        /// Where.
        at: At,
        /// Why.
        #[source]
        error: TlsError,
    },
    /// Two blocks want different certificates at one listener.
    #[error("{0}: server blocks with different certificates")]
    Certificates(At),
    /// An endpoint or an address of plugin `bind`.
    #[error("listen at {what}: {error}")]
    Endpoint {
        /// Where.
        what: String,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// A Corefile that is served.
#[derive(Debug)]
pub struct Served {
    server: Server<Router>,
    endpoints: Endpoints,
    state: Arc<State>,
    resources: Resources,
    /// Addresses of a node; none where the Corefile says where.
    node: Option<Vec<SocketAddr>>,
    chains: Vec<Arc<Chain>>,
    chores: JoinSet<()>,
    lameduck: Duration,
}

/// What a Corefile asks for.
struct Wanted {
    listeners: Vec<Listener<Router>>,
    endpoints: BTreeMap<SocketAddr, Paths>,
    chains: Vec<Arc<Chain>>,
    lameduck: Duration,
    kubernetes: bool,
}

impl Served {
    /// Serves a Corefile. To be called in a runtime, which does what is to be done beside
    /// answering.
    ///
    /// # Errors
    /// What cannot be done as the Corefile says.
    pub fn start(
        corefile: &Corefile,
        resources: Resources,
        options: Options,
    ) -> Result<Self, ServedError> {
        let (node, sockets) = match options.bound {
            Bound::Corefile => (None, BTreeMap::new()),
            Bound::Node(bound) => {
                let addresses = bound.iter().map(|(address, _)| *address).collect();
                let sockets: BTreeMap<_, _> = bound.into_iter().collect();
                (Some(addresses), sockets)
            }
        };
        let wanted = wanted(corefile, &resources, node.as_deref(), sockets)?;
        let state = Arc::new(State {
            metrics: Arc::clone(&options.metrics),
            view: Arc::clone(&resources.view),
            kubernetes: AtomicBool::new(wanted.kubernetes),
            stopping: AtomicBool::new(false),
        });
        let mut endpoints = Endpoints::new(Arc::clone(&state));
        open(&mut endpoints, &wanted.endpoints)?;
        let server = Server::start(options.workers, options.metrics, wanted.listeners)?;
        let mut served = Self {
            server,
            endpoints,
            state,
            resources,
            node,
            chains: Vec::new(),
            chores: JoinSet::new(),
            lameduck: wanted.lameduck,
        };
        served.tend(wanted.chains);
        Ok(served)
    }

    /// Serves another Corefile from now on, without a lost question.
    ///
    /// # Errors
    /// What cannot be done as it says; the one before is served on.
    pub async fn reload(&mut self, corefile: &Corefile) -> Result<(), ServedError> {
        let none = BTreeMap::new();
        let wanted = wanted(corefile, &self.resources, self.node.as_deref(), none)?;
        open(&mut self.endpoints, &wanted.endpoints)?;
        self.server.reload(wanted.listeners).await?;
        self.lameduck = wanted.lameduck;
        let kubernetes = &self.state.kubernetes;
        kubernetes.store(wanted.kubernetes, Ordering::Relaxed);
        self.tend(wanted.chains);
        Ok(())
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.state.metrics
    }

    /// A line of the log.
    pub(super) fn say(&self, line: &str) {
        self.resources.output.line(line);
    }

    /// Where it is served.
    pub fn listeners(&self) -> impl Iterator<Item = At> {
        self.server.listeners()
    }

    /// Stops: says so to whoever asks whether it is ready, goes on as long as plugin `health`
    /// says, then takes nothing new and answers what has come.
    pub async fn stop(mut self) {
        self.state.stopping.store(true, Ordering::Relaxed);
        if !self.lameduck.is_zero() {
            let lameduck = self.lameduck;
            self.say(&format!(
                "[INFO] plugin/health: Going into lameduck mode for {lameduck:?}"
            ));
        }
        self.server.stop(self.lameduck).await;
        self.chores.shutdown().await;
        for chain in &self.chains {
            chain.close();
        }
    }

    /// Does what these chains need beside answering, and no more what others needed.
    fn tend(&mut self, chains: Vec<Arc<Chain>>) {
        self.chores.abort_all();
        self.chores = JoinSet::new();
        for chain in &chains {
            self.chores.spawn(Arc::clone(chain).tend());
        }
        for chain in std::mem::replace(&mut self.chains, chains) {
            chain.close();
        }
    }
}

fn open(
    endpoints: &mut Endpoints,
    wanted: &BTreeMap<SocketAddr, Paths>,
) -> Result<(), ServedError> {
    endpoints
        .set(wanted)
        .map_err(|(address, error)| ServedError::Endpoint {
            what: address.to_string(),
            error,
        })
}

fn wanted(
    corefile: &Corefile,
    resources: &Resources,
    node: Option<&[SocketAddr]>,
    mut sockets: BTreeMap<SocketAddr, Vec<Sockets>>,
) -> Result<Wanted, ServedError> {
    let mut sites: BTreeMap<At, Vec<Site>> = BTreeMap::new();
    let mut certificates: BTreeMap<At, Option<&ServerTls>> = BTreeMap::new();
    let mut bounds: BTreeMap<At, Limits> = BTreeMap::new();
    let mut wanted = Wanted {
        listeners: Vec::new(),
        endpoints: BTreeMap::new(),
        chains: Vec::new(),
        lameduck: Duration::ZERO,
        kubernetes: false,
    };
    for block in &corefile.servers {
        let places = places(block, node)?;
        if places.is_empty() {
            continue;
        }
        let chain = Arc::new(Chain::new(block, resources)?);
        let plugins = enabled(block);
        for (at, zone) in places {
            let tls = block.plugins.tls.as_ref();
            if *certificates.entry(at).or_insert(tls) != tls {
                return Err(ServedError::Certificates(at));
            }
            limits(&block.plugins, bounds.entry(at).or_default());
            sites.entry(at).or_default().push(Site {
                zone,
                chain: Arc::clone(&chain),
                plugins: plugins.clone(),
            });
        }
        wanted.chains.push(chain);
        if node.is_none() {
            endpoints(block, &mut wanted.endpoints)?;
        }
        wanted.kubernetes |= block.plugins.kubernetes.is_some();
        if let Some(health) = &block.plugins.health {
            wanted.lameduck = wanted.lameduck.max(health.lameduck);
        }
    }
    for (at, sites) in sites {
        let bound = at.ip.map(|ip| SocketAddr::new(ip, at.port));
        let given = bound.and_then(|address| sockets.remove(&address));
        wanted.listeners.push(Listener {
            at,
            answers: Arc::new(Router::new(at.to_string(), sites)),
            sockets: given.unwrap_or_default(),
            tls: certificate(at, certificates.remove(&at).flatten())?,
            limits: bounds.remove(&at).unwrap_or_default(),
        });
    }
    Ok(wanted)
}

/// What a block says about connections; where several say it of one listener, the last does.
fn limits(plugins: &Plugins, limits: &mut Limits) {
    if let Some(timeouts) = &plugins.timeouts {
        limits.first = timeouts.read.unwrap_or(limits.first);
        limits.idle = timeouts.idle.unwrap_or(limits.idle);
        match timeouts.max_tcp_queries {
            Some(MaxTcpQueries::AtMost(most)) => limits.questions = Some(most),
            Some(MaxTcpQueries::Unlimited) => limits.questions = None,
            None => {}
        }
    }
    if let Some(streams) = plugins.https.and_then(|https| https.max_streams) {
        limits.streams = (streams > 0).then_some(streams);
    }
}

fn certificate(
    at: At,
    options: Option<&ServerTls>,
) -> Result<Option<Arc<ServerConfig>>, ServedError> {
    let Some(options) = options.filter(|_| at.scheme != Scheme::Dns) else {
        return Ok(None);
    };
    let config = tls::config(options, at.scheme);
    config
        .map(Some)
        .map_err(|error| ServedError::Tls { at, error })
}

/// The port of plain DNS.
const PORT: u16 = 53;

/// Where a block's zones are served.
fn places(
    block: &ServerBlock,
    node: Option<&[SocketAddr]>,
) -> Result<Vec<(At, crate::wire::Name)>, ServedError> {
    let mut places = Vec::new();
    let bound = match node {
        Some(_) => Vec::new(),
        None => bound(&block.plugins.bind)?,
    };
    for key in &block.addresses {
        let zone = &key.zone;
        if let Some(addresses) = node {
            if (key.scheme, key.port) == (Scheme::Dns, PORT) {
                let each = addresses.iter().map(|address| At {
                    scheme: Scheme::Dns,
                    ip: Some(address.ip()),
                    port: address.port(),
                });
                places.extend(each.map(|at| (at, zone.clone())));
            }
            continue;
        }
        let at = |ip| At {
            scheme: key.scheme,
            ip,
            port: key.port,
        };
        if bound.is_empty() {
            places.push((at(None), zone.clone()));
        }
        let each = bound.iter().map(|ip| (at(Some(*ip)), zone.clone()));
        places.extend(each);
    }
    Ok(places)
}

/// The addresses that `bind` names, by themselves or as an interface's.
fn bound(binds: &[Bind]) -> Result<Vec<IpAddr>, ServedError> {
    let mut all = BTreeSet::new();
    for bind in binds {
        let except: BTreeSet<IpAddr> = addresses(&bind.except)?.into_iter().collect();
        let named = addresses(&bind.addresses)?;
        all.extend(named.into_iter().filter(|ip| !except.contains(ip)));
    }
    Ok(all.into_iter().collect())
}

fn addresses(words: &[String]) -> Result<Vec<IpAddr>, ServedError> {
    let mut all = Vec::new();
    for word in words {
        if let Ok(ip) = word.parse() {
            all.push(ip);
            continue;
        }
        let failed = |error| ServedError::Endpoint {
            what: word.clone(),
            error,
        };
        let interfaces = nix::ifaddrs::getifaddrs();
        let interfaces = interfaces.map_err(|errno| failed(errno.into()))?;
        let mut found = false;
        for interface in interfaces.filter(|one| one.interface_name == *word) {
            found = true;
            let address = interface.address.as_ref();
            let v4 = address.and_then(|address| Some(address.as_sockaddr_in()?.ip().into()));
            let v6 = address.and_then(|address| Some(address.as_sockaddr_in6()?.ip().into()));
            // Addresses of one link need its number to be bound; nobody asks there.
            all.extend(v4.or(v6).filter(|ip: &IpAddr| !is_link_local(ip)));
        }
        if !found {
            return Err(failed(io::Error::other(
                "it is neither an address nor an interface of this host",
            )));
        }
    }
    Ok(all)
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The endpoints that a block asks for.
fn endpoints(
    block: &ServerBlock,
    all: &mut BTreeMap<SocketAddr, Paths>,
) -> Result<(), ServedError> {
    let plugins = &block.plugins;
    if let Some(health) = &plugins.health {
        all.entry(listen(&health.listen)?).or_default().health = true;
    }
    if let Some(ready) = &plugins.ready {
        all.entry(listen(&ready.listen)?).or_default().ready = true;
    }
    if let Some(prometheus) = &plugins.prometheus {
        all.entry(listen(&prometheus.listen)?).or_default().metrics = true;
    }
    Ok(())
}

fn listen(listen: &Listen) -> Result<SocketAddr, ServedError> {
    if listen.host.is_empty() {
        return Ok(address(At {
            scheme: Scheme::Dns,
            ip: None,
            port: listen.port,
        }));
    }
    let what = (listen.host.as_str(), listen.port);
    let failed = |error| ServedError::Endpoint {
        what: format!("{}:{}", listen.host, listen.port),
        error,
    };
    let mut found = what.to_socket_addrs().map_err(failed)?;
    let none = || failed(io::Error::other("the name has no address"));
    found.next().ok_or_else(none)
}

/// The names of the plugins that a block enables, for the metrics.
fn enabled(block: &ServerBlock) -> Vec<&'static str> {
    let plugins = &block.plugins;
    let all = [
        ("acl", !plugins.acl.is_empty()),
        ("any", plugins.any),
        ("autopath", plugins.autopath.is_some()),
        ("bufsize", plugins.bufsize.is_some()),
        ("cache", plugins.cache.is_some()),
        ("cancel", plugins.cancel.is_some()),
        ("chaos", plugins.chaos.is_some()),
        ("dns64", plugins.dns64.is_some()),
        ("erratic", plugins.erratic.is_some()),
        ("errors", plugins.errors.is_some()),
        ("file", plugins.file.is_some()),
        ("forward", !plugins.forward.is_empty()),
        ("header", plugins.header.is_some()),
        ("hosts", plugins.hosts.is_some()),
        ("k8s_external", plugins.k8s_external.is_some()),
        ("kubernetes", plugins.kubernetes.is_some()),
        ("loadbalance", plugins.loadbalance.is_some()),
        ("local", plugins.local.is_some()),
        ("log", !plugins.log.is_empty()),
        ("loop", plugins.loop_zone.is_some()),
        ("metadata", plugins.metadata.is_some()),
        ("minimal", plugins.minimal),
        ("nsid", plugins.nsid.is_some()),
        ("prometheus", plugins.prometheus.is_some()),
        ("rewrite", !plugins.rewrite.is_empty()),
        ("template", !plugins.template.is_empty()),
        ("transfer", !plugins.transfer.is_empty()),
        ("view", plugins.view.is_some()),
        ("whoami", plugins.whoami),
    ];
    let on = all.iter().filter(|(_, on)| *on);
    on.map(|(name, _)| *name).collect()
}
