//! Listeners, workers, and what becomes of a message: the edge where questions come in.

mod cookie;
mod desk;
mod doh;
mod endpoints;
mod lifeline;
mod message;
mod packets;
mod places;
mod reload;
mod respond;
mod served;
mod siphash;
mod site;
mod socket;
mod tcp;
mod tls;
mod udp;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::{mpsc, oneshot};

pub use crate::corefile::Scheme;
use crate::metrics::{Metrics, PluginLabels};
use cookie::Cookies;
use desk::{How, Shared};
pub use endpoints::Endpoints;
pub use respond::Respond;
pub use served::{Bound, Options, Served, ServedError};
pub use site::{Answers, Site};
pub use tls::TlsError;
use worker::Order;
pub use worker::Sockets;

/// Where a listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// What is spoken there.
    pub scheme: Scheme,
    /// The address; none for all of the machine's.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// As `CoreDNS` writes it: `dns://:53`, `dns://10.0.0.1:53`, `dns://[::1]:53`.
impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => write!(
                f,
                "{}://{}",
                self.scheme.as_str(),
                SocketAddr::new(ip, self.port)
            ),
            None => write!(f, "{}://:{}", self.scheme.as_str(), self.port),
        }
    }
}

/// A listener, and what is served there.
#[derive(Debug)]
pub struct Listener<A> {
    /// Where.
    pub at: At,
    /// What answers.
    pub answers: Arc<A>,
    /// Sockets that are bound there already, one pair for each worker; they are taken where the
    /// listener is not open yet. Without any the server binds its own.
    pub sockets: Vec<Sockets>,
    /// The certificate, for TLS and HTTPS; without one both are spoken in the clear.
    pub tls: Option<Arc<ServerConfig>>,
    /// Bounds of its connections.
    pub limits: Limits,
}

/// Bounds of a listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection's first question is there.
    pub first: Duration,
    /// Until the next one is.
    pub idle: Duration,
    /// Questions of one connection.
    pub questions: Option<u32>,
    /// Requests of one HTTP/2 connection at once; nothing where that is not bounded.
    pub streams: Option<u32>,
}

/// Those of `CoreDNS`.
impl Default for Limits {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(3),
            idle: Duration::from_secs(10),
            questions: None,
            streams: Some(250),
        }
    }
}

/// Why a server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket.
    #[error("listen at {at}: {error}")]
    Listen {
        /// Where.
        at: At,
        /// What the kernel says.
        #[source]
        error: io::Error,
    },
    /// A thread.
    #[error("start a worker: {0}")]
    Worker(#[source] io::Error),
    /// Two listeners in one place.
    #[error("{0} is given twice")]
    Twice(At),
}

/// A DNS server.
#[derive(Debug)]
pub struct Server<A> {
    workers: Vec<Worker<A>>,
    open: BTreeMap<At, Arc<Shared<A>>>,
    metrics: Arc<Metrics>,
    cookies: Arc<Cookies>,
}

#[derive(Debug)]
struct Worker<A> {
    orders: mpsc::UnboundedSender<Order<A>>,
    thread: std::thread::JoinHandle<()>,
}

impl<A: Answers> Server<A> {
    /// Starts so many workers and opens listeners.
    ///
    /// # Errors
    /// A listener that cannot be; none is open then.
    pub fn start(
        workers: usize,
        metrics: Arc<Metrics>,
        listeners: Vec<Listener<A>>,
    ) -> Result<Self, ServeError> {
        let start = |number| {
            let (orders, thread) = worker::start(number).map_err(ServeError::Worker)?;
            Ok(Worker { orders, thread })
        };
        let mut server = Self {
            workers: (0..workers.max(1)).map(start).collect::<Result<_, _>>()?,
            open: BTreeMap::new(),
            metrics,
            cookies: Arc::default(),
        };
        // What is not open needs no closing, so that nothing is to be awaited.
        server.swap(listeners)?;
        Ok(server)
    }

    /// Serves something else from now on. Listeners that stay lose no question: what is in
    /// flight is answered as it was, the next one by what is new. Those that are new are open
    /// when this returns, those that are gone have answered what had come.
    ///
    /// # Errors
    /// A listener that cannot be; all is as it was then.
    pub async fn reload(&mut self, listeners: Vec<Listener<A>>) -> Result<(), ServeError> {
        let closed = self.swap(listeners)?;
        futures::future::join_all(closed).await;
        Ok(())
    }

    fn swap(
        &mut self,
        listeners: Vec<Listener<A>>,
    ) -> Result<Vec<oneshot::Receiver<()>>, ServeError> {
        let mut sockets = BTreeMap::new();
        let mut served = BTreeMap::new();
        for listener in listeners {
            let at = listener.at;
            let how = How {
                tls: listener.tls,
                limits: listener.limits,
            };
            let what = (listener.answers, Arc::new(how));
            if !self.open.contains_key(&at) {
                let bound = self.bind(at, listener.sockets);
                sockets.insert(at, bound.map_err(|error| ServeError::Listen { at, error })?);
            }
            if served.insert(at, what).is_some() {
                return Err(ServeError::Twice(at));
            }
        }
        // From here on nothing fails.
        let gone: Vec<At> = self.open.keys().copied().collect();
        let gone = gone.into_iter().filter(|at| !served.contains_key(at));
        let closed = gone.flat_map(|at| self.close(at)).collect();
        self.metrics.plugins.clear();
        for (at, (answers, how)) in served {
            self.tell_plugins(at, &answers);
            match sockets.remove(&at) {
                None => {
                    if let Some(shared) = self.open.get(&at) {
                        shared.how.store(how);
                        shared.answers.store(answers);
                    }
                }
                Some(sockets) => self.open(at, answers, how, sockets),
            }
        }
        Ok(closed)
    }

    fn tell_plugins(&self, at: At, answers: &A) {
        for site in answers.sites() {
            for name in &site.plugins {
                let labels = PluginLabels {
                    name,
                    server: at.to_string(),
                    view: site.view.clone(),
                    zone: site.zone.lower().to_string(),
                };
                self.metrics.plugins.get_or_create(&labels).set(1);
            }
        }
    }

    fn open(&mut self, at: At, answers: Arc<A>, how: Arc<How>, sockets: Vec<Sockets>) {
        let shared = Arc::new(Shared {
            server: at.to_string(),
            answers: ArcSwap::new(answers),
            metrics: Arc::clone(&self.metrics),
            cookies: Arc::clone(&self.cookies),
            how: ArcSwap::new(how),
        });
        for (worker, sockets) in self.workers.iter().zip(sockets) {
            let order = Order::Open(at, Arc::clone(&shared), sockets);
            // A worker ends only with the server.
            let _ = worker.orders.send(order);
        }
        self.open.insert(at, shared);
    }

    fn close(&mut self, at: At) -> Vec<oneshot::Receiver<()>> {
        self.open.remove(&at);
        let each = self.workers.iter();
        each.map(|worker| {
            let (closed, receiver) = oneshot::channel();
            let _ = worker.orders.send(Order::Close(at, closed));
            receiver
        })
        .collect()
    }

    /// Sockets for each worker.
    fn bind(&self, at: At, given: Vec<Sockets>) -> io::Result<Vec<Sockets>> {
        let all = if given.is_empty() {
            sockets(at.scheme, address(at), self.workers.len())?
        } else {
            given
        };
        for udp in all.iter().filter_map(|sockets| sockets.udp.as_ref()) {
            udp.set_nonblocking(true)?;
            socket::tune_udp(udp, udp.local_addr()?)?;
        }
        Ok(all)
    }

    /// Where it listens.
    pub fn listeners(&self) -> impl Iterator<Item = At> {
        self.open.keys().copied()
    }

    /// Stops: goes on for a while (lameduck), while others learn not to ask here any more, then
    /// takes nothing new and answers what has come.
    pub async fn stop(self, lameduck: Duration) {
        tokio::time::sleep(lameduck).await;
        let threads: Vec<_> = self
            .workers
            .into_iter()
            .map(|worker| worker.thread)
            .collect();
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }
}

/// Sockets on one address for so many workers. Port 0 takes a free one.
///
/// # Errors
/// The address is in use or not this machine's.
pub fn sockets(
    scheme: Scheme,
    mut address: SocketAddr,
    workers: usize,
) -> io::Result<Vec<Sockets>> {
    let mut all = Vec::with_capacity(workers);
    for _ in 0..workers {
        let (udp, tcp) = match scheme {
            Scheme::Dns => {
                let (udp, tcp) = socket::bind(address)?;
                (Some(udp), tcp)
            }
            Scheme::Tls | Scheme::Https => (None, socket::bind_tcp(address)?),
        };
        address = tcp.local_addr()?;
        all.push(Sockets { udp, tcp });
    }
    Ok(all)
}

/// The address to bind. All addresses are those of both families, or of IPv4 where there is no
/// IPv6.
fn address(at: At) -> SocketAddr {
    let any = || match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(at.ip.unwrap_or_else(any), at.port)
}
