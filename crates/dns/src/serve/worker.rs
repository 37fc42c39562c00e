//! A worker: a thread with a runtime of its own, that answers at each listener by sockets of
//! its own, so that workers have nothing to wait for each other.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio_rustls::TlsAcceptor;

use super::desk::{Desk, Line, Shared};
use super::lifeline::{Close, Closing, Guests, lifeline};
use super::places::{Place, Places};
use super::site::Answers;
use super::{At, doh, tcp, udp};
use crate::corefile::Scheme;
use crate::query::Transport;

/// Questions of a worker that wait for something at once. A forwarded question takes a few
/// kilobytes, so this is some 20 MB at the worst.
const QUESTIONS: usize = 4096;
/// Connections of a worker at once.
const CONNECTIONS: usize = 1024;
/// Questions in flight may take this long to be answered when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// A client has this long to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Without a free descriptor, this long until the next connection is tried.
const BREATH: Duration = Duration::from_millis(10);

/// A worker's sockets of one listener.
#[derive(Debug)]
pub struct Sockets {
    /// None where only connections are served.
    pub udp: Option<UdpSocket>,
    /// For connections.
    pub tcp: TcpListener,
}

/// What a worker is told.
pub(super) enum Order<A> {
    /// To answer at a listener.
    Open(At, Arc<Shared<A>>, Sockets),
    /// To do so no more, and to tell when what had come is answered.
    Close(At, oneshot::Sender<()>),
}

/// Starts a worker. It ends when no more orders can come.
pub(super) fn start<A: Answers>(
    number: usize,
) -> io::Result<(mpsc::UnboundedSender<Order<A>>, std::thread::JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (orders, received) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new()
        .name(format!("dns-{number}"))
        .spawn(move || {
            let local = LocalSet::new();
            let worker = Worker {
                number,
                guests: Guests::new(QUESTIONS),
                places: Places::new(CONNECTIONS),
                listeners: BTreeMap::new(),
            };
            local.block_on(&runtime, worker.run(received));
        })?;
    Ok((orders, thread))
}

struct Worker {
    number: usize,
    guests: Guests,
    places: Rc<Places>,
    listeners: BTreeMap<At, Listener>,
}

/// A listener that is open here.
struct Listener {
    close: Close,
    tasks: Vec<JoinHandle<()>>,
}

impl Worker {
    async fn run<A: Answers>(mut self, mut orders: mpsc::UnboundedReceiver<Order<A>>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Open(at, shared, sockets) => {
                    let listener = self.open(shared, sockets, at);
                    self.listeners.insert(at, listener);
                }
                Order::Close(at, closed) => {
                    if let Some(listener) = self.listeners.remove(&at) {
                        spawn_local(async move {
                            listener.close().await;
                            let _ = closed.send(());
                        });
                    }
                }
            }
        }
        let listeners = std::mem::take(&mut self.listeners).into_values();
        futures::future::join_all(listeners.map(Listener::close)).await;
        let _ = tokio::time::timeout(GRACE, self.guests.gone()).await;
    }

    fn open<A: Answers>(&self, shared: Arc<Shared<A>>, sockets: Sockets, at: At) -> Listener {
        let (close, closing) = lifeline();
        let desk = Rc::new(Desk::new(shared, self.number));
        let mut tasks = Vec::new();
        if let Some(socket) = sockets.udp {
            let served = udp::serve(
                socket,
                Rc::clone(&desk),
                self.guests.clone(),
                closing.clone(),
            );
            tasks.push(spawn_local(told(at, served)));
        }
        let door = Door {
            at,
            desk,
            guests: self.guests.clone(),
            places: Rc::clone(&self.places),
            closing,
        };
        tasks.push(spawn_local(told(at, door.accept(sockets.tcp))));
        Listener { close, tasks }
    }
}

impl Listener {
    async fn close(self) {
        self.close.close();
        futures::future::join_all(self.tasks).await;
    }
}

async fn told(at: At, served: impl Future<Output = io::Result<()>>) {
    if let Err(error) = served.await {
        tracing::error!(%error, "listener {at}");
    }
}

/// Where connections come in.
struct Door<A> {
    at: At,
    desk: Rc<Desk<A>>,
    guests: Guests,
    places: Rc<Places>,
    closing: Closing,
}

impl<A: Answers> Door<A> {
    async fn accept(mut self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.closing.wait() => return Ok(()),
            };
            match accepted {
                Ok((stream, client)) => self.connected(stream, client),
                Err(error) if is_full(&error) => {
                    self.places.evict();
                    tokio::time::sleep(BREATH).await;
                }
                // That connection was gone already.
                Err(error) => tracing::debug!(%error, "accepting a connection at {}", self.at),
            }
        }
    }

    fn connected(&self, stream: TcpStream, client: SocketAddr) {
        let Ok(server) = stream.local_addr() else {
            return;
        };
        // Without it answers only come later.
        let _ = stream.set_nodelay(true);
        let (place, closing) = (self.places.enter(), self.closing.clone());
        let connection = Connection {
            line: Line {
                client,
                server,
                transport: self.at.scheme.into(),
            },
            desk: Rc::clone(&self.desk),
            guests: self.guests.clone(),
            place,
            closing,
        };
        let scheme = self.at.scheme;
        spawn_local(async move {
            if let Err(error) = connection.serve(scheme, stream).await {
                tracing::debug!(%error, %client, "a connection");
            }
        });
    }
}

impl From<Scheme> for Transport {
    /// Of connections.
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Dns => Self::Tcp,
            Scheme::Tls => Self::Tls,
            Scheme::Https => Self::Https,
        }
    }
}

/// A client's connection.
struct Connection<A> {
    line: Line,
    desk: Rc<Desk<A>>,
    guests: Guests,
    place: Place,
    closing: Closing,
}

impl<A: Answers> Connection<A> {
    async fn serve(self, scheme: Scheme, stream: TcpStream) -> io::Result<()> {
        let tls = self.desk.how().tls.clone();
        let tls = tls.filter(|_| scheme != Scheme::Dns);
        let Some(tls) = tls else {
            return self.speak(scheme, stream).await;
        };
        let shaken = tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream));
        let stream = tokio::select! {
            shaken = shaken => shaken.map_err(io::Error::from)??,
            () = self.place.evicted() => return Ok(()),
        };
        self.speak(scheme, stream).await
    }

    async fn speak<S>(self, scheme: Scheme, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let Self {
            line,
            desk,
            guests,
            place,
            closing,
        } = self;
        match scheme {
            Scheme::Dns | Scheme::Tls => {
                tcp::serve(stream, line, desk, guests, place, closing).await
            }
            Scheme::Https => doh::serve(stream, line, desk, guests, place, closing).await,
        }
    }
}

/// Whether there is no descriptor left for a connection.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
