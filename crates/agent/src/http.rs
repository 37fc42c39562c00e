//! Health and metrics over HTTP.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::{Published, Snapshot};

const CONNECTIONS: usize = 64;

/// What health is told from.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub published: Published,
    pub metrics: Arc<Metrics>,
}

#[derive(Clone, Copy, Debug)]
enum Door {
    Health,
    Metrics,
}

/// Answers on the addresses given, until dropped.
pub(crate) async fn serve(
    health: Health,
    healthz: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
) -> Result<(), String> {
    let health_door = door(health.clone(), healthz, Door::Health);
    let metrics_door = door(health, metrics, Door::Metrics);
    tokio::try_join!(health_door, metrics_door).map(|_| ())
}

async fn door(health: Health, address: Option<SocketAddr>, door: Door) -> Result<(), String> {
    let Some(address) = address else {
        return std::future::pending().await;
    };
    let listener = listen(address)
        .await
        .map_err(|error| format!("listen on {address}: {error}"))?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return Ok(());
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let health = health.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let answer = health.answer(door, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

impl Health {
    fn answer(&self, door: Door, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, kind, body) = match (door, request.uri().path()) {
            (Door::Health, "/livez") => (StatusCode::OK, "text/plain", "ok".to_owned()),
            (Door::Health, "/healthz") => self.healthz(),
            (Door::Metrics, "/metrics") => (
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                self.metrics.text(),
            ),
            _ => (StatusCode::NOT_FOUND, "text/plain", "not found".to_owned()),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        if let Ok(kind) = hyper::header::HeaderValue::from_str(kind) {
            response
                .headers_mut()
                .insert(hyper::header::CONTENT_TYPE, kind);
        }
        response
    }

    fn healthz(&self) -> (StatusCode, &'static str, String) {
        match trouble(&self.published.load()) {
            None => (StatusCode::OK, "text/plain", "ok".to_owned()),
            Some(cause) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", cause),
        }
    }
}

/// Why this node is not healthy. Another node's bad object does not make it so.
fn trouble(snapshot: &Snapshot) -> Option<String> {
    if snapshot.synced {
        snapshot.cause.clone()
    } else {
        Some("waiting for the API server".to_owned())
    }
}

/// Listens; where the wildcard of IPv6 is asked for, IPv4 is served by the same socket, and
/// alone on a kernel without IPv6.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_of_this_node_alone() {
        let waiting = Snapshot::default();
        assert_eq!(trouble(&waiting).unwrap(), "waiting for the API server");
        let of_another = Snapshot {
            synced: true,
            problems: vec!["Node node2: no address".into()],
            ..Snapshot::default()
        };
        assert_eq!(trouble(&of_another), None);
        let own = Snapshot {
            cause: Some("Node node1: no address".into()),
            ..of_another
        };
        assert_eq!(trouble(&own).unwrap(), "Node node1: no address");
    }

    #[tokio::test]
    async fn health_is_told_to_both_families() {
        let wildcard = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
        let listener = listen(wildcard).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let v4 = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        v4.await.unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            let v6 = tokio::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port));
            v6.await.unwrap();
        }
    }
}
