//! The node's daemon: one loop that owns what is known of the cluster and drives the node's
//! network from it.
//!
//! ```text
//! watches ─▶ loop (owns Cluster and Config) ─▶ pods worker (owns attachments, one thread)
//!                 │                                    ▲
//!                 └─▶ snapshot (arc-swap) ◀─ socket ───┘ CNI plugin, command line
//! ```

mod announce;
mod conflist;
mod conntrack;
mod drops;
mod health_ports;
mod http;
mod locals;
mod metrics;
mod names;
mod node;
mod options;
mod policing;
mod proxy_health;
mod publish;
mod serving;
mod socket;
mod source;
pub mod standalone;
mod worker;

pub use options::{Options, Source};
pub use source::{Corefile, Update};

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use model::config::ProxyConfig;
use tokio::task::JoinSet;

/// Why the agent cannot run.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// What readers get: one consistent view, replaced as a whole.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Nodes, pods, Services and their endpoints.
    pub cluster: model::Cluster,
    /// The configuration in force, once there is one.
    pub config: Option<Arc<model::Config>>,
    /// The fabric as planned, once there is a plan.
    pub fabric: Option<Arc<fabric::Plan>>,
    /// What is wrong now, with other nodes' objects too; empty where nothing is.
    pub problems: Arc<Vec<String>>,
    /// The first of them that concerns this node's own network: what its health is told from.
    pub cause: Option<String>,
    /// Whether the first view of the cluster's nodes is complete.
    pub synced: bool,
    /// Whether pods, namespaces and policies are known, and have been in the kernel.
    pub policies_synced: bool,
    /// Whether the first view of all the node needs is.
    pub complete: bool,
}

/// A published snapshot.
type Published = Arc<ArcSwap<Snapshot>>;

/// Runs the agent of one node until the future is dropped. The calling process must be in the
/// node's network namespace, and stay in it.
///
/// Nothing is torn down at the end: links, routes, rules and the CNI configuration stay for
/// the next agent, which adopts them.
pub async fn run(options: Options) -> Result<(), Error> {
    if let Some(proxy) = &options.proxy {
        settle(proxy)?;
    }
    let metrics = Arc::new(metrics::Metrics::default());
    let board = names::Board::default();
    let published: Published = Arc::default();
    let locals = locals::Handle::default();
    let (worker, reconciled) =
        worker::start(&options.state, locals.clone(), metrics.clone()).map_err(Error)?;
    tracing::info!(
        adopted = reconciled.adopted,
        released = ?reconciled.released,
        found = ?reconciled.found,
        "attachments taken over"
    );
    let drops = Arc::new(drops::Drops::new(&options.node));
    let server = socket::Server {
        drops: drops.clone(),
        worker: worker.clone(),
        published: published.clone(),
        node: options.node.clone(),
        board: board.clone(),
    };
    // Listening from the start: pods can be attached with what the last run knew.
    let listener = socket::listen(&options.socket).map_err(Error)?;
    let (updates, kubernetes) = source::open(options.source).await.map_err(Error)?;
    let conflist = options.cni_conf.map(|folder| node::Conflist {
        folder,
        socket: options.socket,
        state: options.state,
    });
    let announcer = announce::Handle::default();
    let mut doors = JoinSet::new();
    if let Some(client) = kubernetes.clone() {
        let (node, handle) = (options.node.clone(), announcer.clone());
        doors.spawn(announce::run(client, node, handle));
    }
    let publisher = Arc::new(publish::Publisher::start(kubernetes, &options.node));
    let proxy = Arc::new(proxy_health::ProxyHealth::new(options.sync_period * 2));
    let serving = serving::Serving::new(
        &options.node,
        publisher.clone(),
        proxy.clone(),
        metrics.proxy.clone(),
    );
    let policies = Arc::new(proxy_health::ProxyHealth::new(options.sync_period * 2));
    let policing = policing::Policing::new(
        &options.node,
        locals,
        policies.clone(),
        metrics.policy.clone(),
    );
    let names = names::Names::new(
        &options.node,
        &options.resolv_conf,
        publisher.clone(),
        board.clone(),
    );
    let parts = node::Parts {
        names,
        conflist,
        worker,
        publisher,
        published: published.clone(),
        serving,
        policing,
        proxy: options.proxy,
        announcer,
    };
    let node = node::Node::open(options.node, parts).map_err(Error)?;
    doors.spawn(drops::run(drops, published.clone(), metrics.drops.clone()));
    let health = http::Health {
        published,
        metrics,
        proxy,
        policies,
        board,
    };
    // Threads of their own: the loop's is busy while it changes the kernel.
    doors.spawn(server.serve(listener));
    doors.spawn(http::serve(
        health,
        options.healthz,
        options.metrics,
        options.bind_hard_fail,
    ));
    tokio::select! {
        ended = node.run(updates) => ended.map_err(Error),
        Some(ended) = doors.join_next() => match ended {
            Ok(ended) => ended.map_err(Error),
            Err(error) => Err(Error(error.to_string())),
        },
    }
}

/// Removes all rules of Services, policies and names from the kernel of the calling thread's namespace:
/// what `kube-proxy --cleanup` does, and more. All that could not be removed is named.
pub fn cleanup() -> Result<(), Error> {
    let mut host = linux::Host::open().map_err(|error| Error(error.to_string()))?;
    let mut errors = services::Services::remove_all(&mut host);
    errors.extend(policy::Policies::remove_all(&mut host));
    errors.extend(dns::apply::remove_all(&mut host.netlink));
    if errors.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(Error(lines.join("\n")))
}

/// Gives memory that is free back to the machine: what the first list and the first transaction
/// took for a moment would otherwise stay with the process.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no preconditions, and locks each arena it looks at.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// What a KubeProxyConfiguration says of the process and the machine.
fn settle(proxy: &ProxyConfig) -> Result<(), Error> {
    for warning in &proxy.warnings {
        tracing::warn!("KubeProxyConfiguration: {warning}");
    }
    if let Some(score) = proxy.oom_score_adj
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        tracing::warn!("oomScoreAdj {score} is not set: {error}");
    }
    let mut host = linux::Host::open().map_err(|error| Error(error.to_string()))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = u32::try_from(cores).unwrap_or(u32::MAX);
    conntrack::raise(&mut host, &proxy.conntrack, cores);
    Ok(())
}
