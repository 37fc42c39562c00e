//! The node's daemon: one loop that owns what is known of the cluster and drives the node's
//! network from it.
//!
//! ```text
//! watches ─▶ loop (owns Cluster and Config) ─▶ pods worker (owns attachments, one thread)
//!                 │                                    ▲
//!                 └─▶ snapshot (arc-swap) ◀─ socket ───┘ CNI plugin, command line
//! ```

mod conflist;
mod http;
mod metrics;
mod node;
mod options;
mod publish;
mod socket;
mod source;
mod worker;

pub use options::{Options, Source};
pub use source::Update;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

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
    /// Nodes and pods.
    pub cluster: model::Cluster,
    /// The configuration in force, once there is one.
    pub config: Option<model::Config>,
    /// The fabric as planned, once there is a plan.
    pub fabric: Option<fabric::Plan>,
    /// What is wrong now, with other nodes' objects too; empty where nothing is.
    pub problems: Vec<String>,
    /// The first of them that concerns this node's own network: what its health is told from.
    pub cause: Option<String>,
    /// Whether the first view of the cluster is complete.
    pub synced: bool,
}

/// A published snapshot.
type Published = Arc<ArcSwap<Snapshot>>;

/// Runs the agent of one node until the future is dropped. The calling process must be in the
/// node's network namespace, and stay in it.
///
/// Nothing is torn down at the end: links, routes, rules and the CNI configuration stay for
/// the next agent, which adopts them.
pub async fn run(options: Options) -> Result<(), Error> {
    let metrics = Arc::new(metrics::Metrics::default());
    let published: Published = Arc::default();
    let (worker, reconciled) = worker::start(&options.state, metrics.clone()).map_err(Error)?;
    tracing::info!(
        adopted = reconciled.adopted,
        released = ?reconciled.released,
        found = ?reconciled.found,
        "attachments taken over"
    );
    let server = socket::Server {
        worker: worker.clone(),
        published: published.clone(),
        node: options.node.clone(),
    };
    // Listening from the start: pods can be attached with what the last run knew.
    let listener = socket::listen(&options.socket).map_err(Error)?;
    let (updates, kubernetes) = source::open(options.source, &options.node)
        .await
        .map_err(Error)?;
    let conflist = options.cni_conf.map(|folder| node::Conflist {
        folder,
        socket: options.socket,
        state: options.state,
    });
    let publisher = publish::Publisher::start(kubernetes, &options.node);
    let node = node::Node::open(options.node, conflist, worker, publisher, published.clone())
        .map_err(Error)?;
    let health = http::Health { published, metrics };
    tokio::select! {
        ended = server.serve(listener) => ended.map_err(Error),
        ended = node.run(updates) => ended.map_err(Error),
        ended = http::serve(health, options.healthz, options.metrics) => ended.map_err(Error),
    }
}
