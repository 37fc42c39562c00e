//! Health and metrics over HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::Published;
use crate::metrics::Metrics;

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
    let listener = TcpListener::bind(address)
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
        let snapshot = self.published.load();
        if snapshot.problems.is_empty() && snapshot.synced {
            (StatusCode::OK, "text/plain", "ok".to_owned())
        } else if snapshot.synced {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain",
                snapshot.problems.join("\n"),
            )
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain",
                "waiting for the API server".to_owned(),
            )
        }
    }
}
