//! Health and metrics over HTTP.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::names::Board;
use crate::proxy_health::{ProxyHealth, Told};
use crate::{Published, Snapshot};

/// Connections of one listener at once.
const CONNECTIONS: usize = 64;
/// A connection ends after this time, idle or not: nobody keeps a place for good.
const PATIENCE: Duration = Duration::from_secs(60);

/// What health is told from.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub published: Published,
    pub metrics: Arc<Metrics>,
    /// Of Services.
    pub proxy: Arc<ProxyHealth>,
    pub policies: Arc<ProxyHealth>,
    /// Of the node's own DNS server.
    pub board: Board,
}

/// One answer.
pub(crate) type Answer = Response<Full<Bytes>>;

/// A port in use is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);

/// Answers on the addresses given, until dropped. A port in use is the end where `hard` says so.
pub(crate) async fn serve(
    health: Health,
    healthz: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    hard: bool,
) -> Result<(), String> {
    let other = health.clone();
    tokio::try_join!(
        door(healthz, hard, move |path| health.health(path)),
        door(metrics, hard, move |path| other.metrics(path)),
    )
    .map(|_| ())
}

async fn door(
    address: Option<SocketAddr>,
    hard: bool,
    answer: impl Fn(&str) -> Answer + Clone + Send + Sync + 'static,
) -> Result<(), String> {
    let Some(address) = address else {
        return std::future::pending().await;
    };
    let listener = loop {
        match listen(address).await {
            Ok(listener) => break listener,
            Err(error) if hard => return Err(format!("listen on {address}: {error}")),
            Err(error) => {
                tracing::error!("listen on {address}: {error}; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    accept(listener, answer).await;
    Ok(())
}

/// Answers each GET by its path until dropped; connections end with it.
pub(crate) async fn accept(
    listener: TcpListener,
    answer: impl Fn(&str) -> Answer + Clone + Send + Sync + 'static,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: those in use come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answer = answer.clone();
        connections.spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = match *request.method() {
                    Method::GET | Method::HEAD => answer(request.uri().path()),
                    _ => plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
                };
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5))
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(PATIENCE, connection).await;
            drop(place);
        });
    }
}

/// An answer of this kind and content.
pub(crate) fn response(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let mut set = |name: HeaderName, value| {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    };
    set(CONTENT_TYPE, kind);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

fn plain(status: StatusCode, text: &str) -> Answer {
    response(status, "text/plain; charset=utf-8", text.to_owned())
}

fn verdict(healthy: bool) -> StatusCode {
    if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

impl Health {
    /// The door for balancers and probes, as kube-proxy has it on port 10256.
    fn health(&self, path: &str) -> Answer {
        let now = SystemTime::now();
        let at = Instant::now();
        let told = self.proxy.told(at, now).and(self.policies.told(at, now));
        match path {
            "/healthz" => {
                let cause = trouble(&self.published.load());
                let status = verdict(told.healthy && told.eligible && cause.is_none());
                self.metrics.proxy.healthz(status.as_u16());
                let body = healthz(told, now, cause.as_deref());
                response(status, "application/json", body)
            }
            "/livez" => {
                let status = verdict(told.healthy);
                self.metrics.proxy.livez(status.as_u16());
                response(status, "application/json", livez(told, now))
            }
            _ => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// The door for scrapers, as kube-proxy has it on port 10249.
    fn metrics(&self, path: &str) -> Answer {
        match path {
            "/metrics" => response(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                self.metrics.text() + &self.board.metrics().text(),
            ),
            "/healthz" => plain(StatusCode::OK, "ok"),
            "/proxyMode" => match &self.published.load().config {
                Some(config) => plain(StatusCode::OK, config.services.mode.word()),
                None => plain(StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n"),
            },
            "/configz" => self.configz(),
            _ => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// The configuration in force, keyed by its group as components do.
    fn configz(&self) -> Answer {
        let snapshot = self.published.load();
        let body = serde_json::json!({ "flatnet.io": snapshot.config.as_deref() });
        response(StatusCode::OK, "application/json", body.to_string())
    }
}

/// kube-proxy's answer; a cause of ours is a field more.
fn healthz(told: Told, now: SystemTime, cause: Option<&str>) -> String {
    let cause = cause.map_or_else(String::new, |cause| {
        format!(", \"cause\": {}", serde_json::Value::from(cause))
    });
    format!(
        r#"{{"lastUpdated": "{}","currentTime": "{}", "nodeEligible": {}{cause}}}"#,
        time(told.updated),
        time(Some(now)),
        told.eligible
    )
}

fn livez(told: Told, now: SystemTime) -> String {
    format!(
        r#"{{"lastUpdated": "{}","currentTime": "{}"}}"#,
        time(told.updated),
        time(Some(now))
    )
}

/// A time as Go writes it.
fn time(at: Option<SystemTime>) -> String {
    match at.map(Timestamp::try_from) {
        Some(Ok(at)) => at.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string(),
        _ => "0001-01-01 00:00:00 +0000 UTC".to_owned(),
    }
}

/// What is wrong with this node's own network. Another node's bad object is not; nor is an API
/// server that cannot be reached: what the agent before made is still there.
fn trouble(snapshot: &Snapshot) -> Option<String> {
    snapshot.cause.clone()
}

/// Listens; where the wildcard of IPv6 is asked for, IPv4 is served by the same socket, and
/// alone on a kernel without IPv6.
pub(crate) async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && error.kind() != std::io::ErrorKind::AddrInUse =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    fn health() -> Health {
        Health {
            published: Published::default(),
            metrics: Arc::default(),
            proxy: Arc::new(ProxyHealth::new(Duration::ZERO)),
            policies: Arc::new(ProxyHealth::new(Duration::ZERO)),
            board: Board::default(),
        }
    }

    async fn ask(answer: Answer) -> (u16, String) {
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_is_told_as_kube_proxy_tells_it() {
        let health = health();
        let (status, body) = ask(health.health("/healthz")).await;
        assert_eq!(status, 200);
        let told: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(told["nodeEligible"], true);
        assert_eq!(told["lastUpdated"], told["currentTime"]);
        assert!(
            body.starts_with("{\"lastUpdated\": \"20")
                && body.contains(" +0000 UTC\",\"currentTime\": \"")
        );

        // A node that goes gets nothing new, but lives.
        health.proxy.set_eligible(false);
        assert_eq!(ask(health.health("/healthz")).await.0, 503);
        assert_eq!(ask(health.health("/livez")).await.0, 200);
        health.proxy.set_eligible(true);

        // Late: the last success is told.
        let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        health.proxy.updated(past);
        health.proxy.queued(Instant::now());
        let (status, body) = ask(health.health("/livez")).await;
        assert_eq!(status, 503);
        assert!(body.contains("1970-01-01 00:00:01 +0000 UTC"), "{body}");
        let metrics = health.metrics.text();
        assert!(
            metrics.contains("kubeproxy_proxy_healthz_total{code=\"503\"} 1"),
            "{metrics}"
        );
        assert!(
            metrics.contains("# TYPE kubeproxy_proxy_livez_total counter"),
            "{metrics}"
        );
    }

    #[tokio::test]
    async fn health_is_of_this_node_alone() {
        let health = health();
        let of_another = Snapshot {
            synced: true,
            problems: Arc::new(vec!["Node node2: no address".into()]),
            ..Snapshot::default()
        };
        health.published.store(Arc::new(of_another));
        assert_eq!(ask(health.health("/healthz")).await.0, 200);
        let own = Snapshot {
            cause: Some("Node node1: \"no\" address".into()),
            ..Snapshot::default()
        };
        health.published.store(Arc::new(own));
        let (status, body) = ask(health.health("/healthz")).await;
        assert_eq!(status, 503);
        let told: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(told["cause"], "Node node1: \"no\" address");
    }

    #[tokio::test]
    async fn scrapers_find_mode_and_metrics() {
        let health = health();
        assert_eq!(ask(health.metrics("/proxyMode")).await.0, 503);
        health.published.store(Arc::new(Snapshot {
            config: Some(Arc::default()),
            ..Snapshot::default()
        }));
        assert_eq!(
            ask(health.metrics("/proxyMode")).await,
            (200, "nftables".into())
        );
        let configz: serde_json::Value =
            serde_json::from_str(&ask(health.metrics("/configz")).await.1).unwrap();
        assert_eq!(configz["flatnet.io"]["services"]["mode"], "nftables");
        let (status, text) = ask(health.metrics("/metrics")).await;
        assert_eq!(status, 200);
        for line in [
            "# TYPE kubeproxy_sync_proxy_rules_endpoint_changes_total counter",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 0",
            "kubeproxy_sync_proxy_rules_service_changes_pending 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert_eq!(ask(health.metrics("/nowhere")).await.0, 404);
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

    #[tokio::test]
    async fn a_port_in_use_is_the_end_only_where_it_is_asked_for() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = serve(health(), Some(address), None, true)
            .await
            .unwrap_err();
        assert!(
            error.starts_with(&format!("listen on {address}: ")),
            "{error}"
        );
        let soft = serve(health(), Some(address), None, false);
        let waits = tokio::time::timeout(Duration::from_millis(50), soft).await;
        assert!(waits.is_err(), "it ended");
    }
}
