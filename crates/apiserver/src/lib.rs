//! The embedded Kubernetes API server.
//!
//! [`Server::start`] serves the API on listeners the caller has bound, from a folder that
//! holds everything: `state.redb` (the objects) and `pki/` (the authority `ca.crt`/`ca.key`
//! and the token key `sa.crt`/`sa.key`). [`certs::Pki::open`] on the same folder issues client
//! certificates and kubeconfig texts, before or while the server runs.
//!
//! What objects mean is the crate `objects`; here are storage, protocol and state.
//!
//! The way of a request:
//!
//! ```text
//! server (TLS) -> route: auth -> rbac, nodes -> verbs ---------> store: writer -> redb
//!                        |                      | ^ admission      |  one sync for many
//!                        |                      v |                v
//!                        |                     objects        memory, past events
//!                        +-> connect (kubelets), discovery, openapi, reviews, health, metrics
//! ```
//!
//! Four tasks follow the store's events and act through the same verbs as clients:
//! `gc` (owners), `namespaces` (what empties before it goes), `aggregate` (ClusterRoles) and
//! `expiry` (Events).

mod accept;
mod admission;
mod aggregate;
mod auth;
mod bootstrap;
mod cluster_policies;
mod connect;
mod context;
mod discovery;
mod expiry;
mod failure;
mod gc;
mod health;
mod metrics;
mod namespaces;
mod nodes;
mod openapi;
mod output;
mod protobuf;
mod rbac;
mod registry;
mod request;
mod reviews;
mod roles;
mod route;
mod server;
mod store;
mod token;
mod verbs;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::sync::watch;

use context::{Context, Settings};
use registry::Registry;

/// Opens a TCP connection to a kubelet (or a pod), in whichever namespace reaches it.
pub type Connect =
    Arc<dyn Fn(IpAddr, u16) -> BoxFuture<'static, std::io::Result<TcpStream>> + Send + Sync>;

/// A [`Connect`] from the caller's own namespace.
pub fn connect_directly() -> Connect {
    Arc::new(|address, port| Box::pin(TcpStream::connect((address, port))))
}

/// How a server is started.
pub struct Options {
    /// Folder of everything that lasts; made if missing.
    pub data_dir: PathBuf,
    /// Bound listeners; the caller may have made them in other network namespaces.
    pub listeners: Vec<std::net::TcpListener>,
    /// Service ranges, the first one of the primary family.
    pub service_cidrs: Vec<IpNet>,
    /// Range of nodePorts.
    pub node_ports: RangeInclusive<u16>,
    /// Addresses at which pods and nodes reach this server: the endpoints of the Service
    /// `kubernetes`. The server's certificate covers them.
    pub advertise: Vec<IpAddr>,
    /// Port of those addresses.
    pub advertise_port: u16,
    /// Reaches kubelets.
    pub connect: Connect,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] certs::PkiError),
    /// The data folder or the store in it.
    #[error("opening the store in {path}: {cause}")]
    Store {
        /// The data folder.
        path: PathBuf,
        /// The cause.
        cause: String,
    },
    /// A listener.
    #[error("taking over a listener: {0}")]
    Listener(std::io::Error),
    /// The first objects.
    #[error("creating the first objects: {0}")]
    Bootstrap(String),
}

/// A running server. Dropping it does not stop it; [`Server::stop`] does.
pub struct Server {
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Names under which the server is reached, for its certificate.
const NAMES: [&str; 5] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
];

/// Connections open at once.
const CONNECTIONS: usize = 2048;
/// Requests handled at once, watches and streams aside.
const IN_FLIGHT: usize = 400;

impl Server {
    /// Opens the store, creates what every cluster has, and serves. Ready when it returns.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let pki = certs::Pki::open(&options.data_dir)?;
        let store = store::Store::open(&options.data_dir).map_err(|e| StartError::Store {
            path: options.data_dir.clone(),
            cause: e.to_string(),
        })?;
        let mut addresses = vec![
            IpAddr::from([127, 0, 0, 1]),
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ];
        addresses.extend(&options.advertise);
        addresses.extend(
            options
                .service_cidrs
                .iter()
                .filter_map(|cidr| cidr.hosts().next()),
        );
        addresses.extend(
            options
                .listeners
                .iter()
                .filter_map(|l| l.local_addr().ok())
                .map(|a| a.ip()),
        );
        addresses.sort();
        addresses.dedup();
        let pair = pki
            .authority
            .server("kube-apiserver", Some("system:masters"), &NAMES, &addresses)
            .map_err(certs::PkiError::from)?;
        let ca = pki.authority.certificate().to_owned();
        let tls = server::tls(&pair, &ca)?;
        let client = pki
            .authority
            .client("kube-apiserver-kubelet-client", Some("system:masters"))
            .map_err(certs::PkiError::from)?;
        let ctx = Arc::new(Context {
            tokens: token::Tokens::new(&pki.token_key()?)?,
            rbac: rbac::Cache::new(&store),
            kubelets: connect::Kubelets::new(&client, &ca, options.connect)?,
            metrics: metrics::Metrics::default(),
            in_flight: tokio::sync::Semaphore::new(IN_FLIGHT),
            connections: Arc::new(tokio::sync::Semaphore::new(CONNECTIONS)),
            documents: openapi::Documents::default(),
            store,
            registry: ArcSwap::from_pointee(Registry::new(objects::kind::builtin())),
            settings: Settings {
                service_cidrs: options.service_cidrs,
                node_ports: options.node_ports,
                advertise: options.advertise,
                advertise_port: options.advertise_port,
                ca,
            },
            services: tokio::sync::Mutex::new(()),
        });
        bootstrap::run(&ctx)
            .await
            .map_err(|e| StartError::Bootstrap(e.0.message))?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![
            until(gc::run(ctx.clone()), &stopped),
            until(namespaces::run(ctx.clone()), &stopped),
            until(expiry::run(ctx.clone()), &stopped),
            until(aggregate::run(ctx.clone()), &stopped),
        ];
        for listener in options.listeners {
            listener
                .set_nonblocking(true)
                .map_err(StartError::Listener)?;
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(StartError::Listener)?;
            tasks.push(tokio::spawn(server::listen(
                ctx.clone(),
                listener,
                tls.clone(),
                stopped.clone(),
            )));
        }
        Ok(Self { stop, tasks })
    }

    /// Ends every connection and task. What was acknowledged is on disk already.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// Runs a task until the server stops.
fn until(
    task: impl Future<Output = ()> + Send + 'static,
    stopped: &watch::Receiver<bool>,
) -> tokio::task::JoinHandle<()> {
    let mut stopped = stopped.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = task => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    })
}
