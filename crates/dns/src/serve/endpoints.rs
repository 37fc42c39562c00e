//! Health, readiness and metrics over HTTP.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::socket;
use crate::metrics::Metrics;
use crate::plan::View;

/// Connections of one endpoint at once.
const CONNECTIONS: usize = 64;
/// A connection ends after this time, idle or not: nobody keeps a place for good.
const PATIENCE: Duration = Duration::from_secs(60);
/// A request's head has to arrive within this time.
const HEAD: Duration = Duration::from_secs(5);
/// The server asks itself for its health so often, and waits so long for the answer.
const SELF_CHECK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));

/// What an address answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// `/health`.
    pub health: bool,
    /// `/ready`.
    pub ready: bool,
    /// `/metrics`.
    pub metrics: bool,
}

/// What is told.
#[derive(Debug)]
pub(super) struct State {
    pub(super) metrics: Arc<Metrics>,
    /// The watched state; none before the first sync.
    pub(super) view: Arc<ArcSwapOption<View>>,
    /// Whether the Corefile has plugin `kubernetes`, which waits for that.
    pub(super) kubernetes: AtomicBool,
    /// The server is about to stop.
    pub(super) stopping: AtomicBool,
}

/// The endpoints that are open.
pub struct Endpoints {
    state: Arc<State>,
    open: BTreeMap<SocketAddr, Open>,
}

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.open.keys()).finish()
    }
}

struct Open {
    paths: watch::Sender<Paths>,
    /// Ends with it.
    _tasks: JoinSet<()>,
}

impl Endpoints {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            open: BTreeMap::new(),
        }
    }

    /// Opens and closes so that these are open.
    ///
    /// # Errors
    /// The address that cannot be listened at; all is as it was then.
    pub(super) fn set(
        &mut self,
        wanted: &BTreeMap<SocketAddr, Paths>,
    ) -> Result<(), (SocketAddr, io::Error)> {
        let mut opened = Vec::new();
        for (address, paths) in wanted {
            if !self.open.contains_key(address) {
                let open = self.listen(*address, *paths);
                opened.push((*address, open.map_err(|error| (*address, error))?));
            }
        }
        self.open.retain(|address, open| {
            let paths = wanted.get(address);
            if let Some(paths) = paths {
                open.paths.send_replace(*paths);
            }
            paths.is_some()
        });
        self.open.extend(opened);
        Ok(())
    }

    fn listen(&self, address: SocketAddr, paths: Paths) -> io::Result<Open> {
        let listener = socket::bind_tcp(address)?;
        let local = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let (sender, paths) = watch::channel(paths);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, paths.clone(), Arc::clone(&self.state)));
        tasks.spawn(check_self(local, paths, Arc::clone(&self.state)));
        Ok(Open {
            paths: sender,
            _tasks: tasks,
        })
    }
}

async fn accept(listener: TcpListener, paths: watch::Receiver<Paths>, state: Arc<State>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: those in use come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (paths, state) = (paths.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let service = hyper::service::service_fn(|request: Request<Incoming>| {
                let response = state.respond(&request, *paths.borrow());
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(PATIENCE, connection).await;
            drop(place);
        });
    }
}

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const EXPOSITION: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

impl State {
    fn respond(&self, request: &Request<Incoming>, paths: Paths) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, String::new());
        }
        match request.uri().path() {
            "/health" if paths.health => response(StatusCode::OK, PLAIN, "OK".to_owned()),
            "/ready" if paths.ready => self.ready(),
            "/metrics" if paths.metrics => {
                response(StatusCode::OK, EXPOSITION, self.metrics.text())
            }
            _ => {
                let text = "404 page not found\n".to_owned();
                response(StatusCode::NOT_FOUND, PLAIN, text)
            }
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        if self.stopping.load(Ordering::Relaxed) {
            return response(unavailable, PLAIN, "Shutting down".to_owned());
        }
        if self.kubernetes.load(Ordering::Relaxed) && self.view.load().is_none() {
            return response(unavailable, PLAIN, "kubernetes".to_owned());
        }
        response(StatusCode::OK, PLAIN, "OK".to_owned())
    }
}

fn response(status: StatusCode, kind: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Asks for the own health as others do: how long that takes tells whether the machine keeps up.
async fn check_self(local: SocketAddr, paths: watch::Receiver<Paths>, state: Arc<State>) {
    let (every, most) = SELF_CHECK;
    let address = match local {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, v6.port()).into()
        }
        address => address,
    };
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !paths.borrow().health {
            continue;
        }
        let start = Instant::now();
        let healthy = tokio::time::timeout(most, ask_health(address)).await;
        let took = start.elapsed();
        state.metrics.health_seconds.observe(took.as_secs_f64());
        match healthy {
            Ok(Ok(())) if took <= every => {}
            Ok(Ok(())) => {
                tracing::warn!(
                    "Local health request to \"http://{address}/health\" took more than 1s: {took:?}"
                );
            }
            failed => {
                state.metrics.health_failures.inc();
                let error = failed.map_or_else(
                    |late| late.to_string(),
                    |failed| match failed {
                        Ok(()) => String::new(),
                        Err(error) => error.to_string(),
                    },
                );
                tracing::warn!(
                    "Local health request to \"http://{address}/health\" failed: {error}"
                );
            }
        }
    }
}

async fn ask_health(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    if start != *b"HTTP/1.1 200" {
        return Err(io::Error::other("it does not say 200"));
    }
    Ok(())
}
