//! The kubelet's own API: logs, exec, attach and port-forward, for the API server only.

mod exec;
pub mod logs;
mod portforward;
mod remote;
mod spdy;
mod spdy_headers;
mod upgrade;
mod websocket;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::FromDer;

use super::{Error, Options, PodView, Shared};

/// Connections at once.
const CONNECTIONS: usize = 512;
/// A client has this long to get through TLS, and to say what it wants.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Who may use the kubelet, beside the group `system:masters`: the API server.
const API_SERVERS: [&str; 2] = ["kube-apiserver", "kube-apiserver-kubelet-client"];

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Answer = Response<Body>;

/// A bound port with its keys.
pub struct Listener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

/// Binds the kubelet's port and reads its keys.
pub async fn listen(options: &Options) -> Result<Listener, Error> {
    let tls = TlsAcceptor::from(Arc::new(tls(options)?));
    let any = |ip: std::net::IpAddr| SocketAddr::new(ip, options.port);
    // Both families where the machine has IPv6, otherwise IPv4.
    let tcp = match TcpListener::bind(any(Ipv6Addr::UNSPECIFIED.into())).await {
        Ok(tcp) => tcp,
        Err(_) => TcpListener::bind(any(Ipv4Addr::UNSPECIFIED.into()))
            .await
            .map_err(|source| Error::Listen {
                port: options.port,
                source,
            })?,
    };
    Ok(Listener { tcp, tls })
}

fn tls(options: &Options) -> Result<ServerConfig, Error> {
    let bad = |path: &Path, cause: String| Error::Tls(format!("{}: {cause}", path.display()));
    let certificates = read_certificates(&options.certificate)?;
    let text = read(&options.key)?;
    let key: PrivateKeyDer<'static> = rustls_pemfile::private_key(&mut text.as_slice())
        .map_err(|error| bad(&options.key, error.to_string()))?
        .ok_or_else(|| bad(&options.key, "no private key in it".to_owned()))?;
    let mut roots = RootCertStore::empty();
    for authority in read_certificates(&options.client_ca)? {
        roots
            .add(authority)
            .map_err(|error| bad(&options.client_ca, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| bad(&options.client_ca, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates, key)
        .map_err(|error| bad(&options.certificate, error.to_string()))?;
    // Upgrades (exec, port-forward) exist in HTTP/1.1 only.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File {
        path: path.clone(),
        source,
    })
}

fn read_certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = rustls_pemfile::certs(&mut text.as_slice()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::Tls(format!(
            "{}: no certificate in it",
            path.display()
        ))),
        Err(error) => Err(Error::Tls(format!("{}: {error}", path.display()))),
    }
}

/// Serves until the kubelet ends.
pub async fn serve(shared: Arc<Shared>, listener: Listener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.tcp.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accepting on the kubelet's port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (shared, tls) = (shared.clone(), listener.tls.clone());
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else {
                return;
            };
            let (_, session) = stream.get_ref();
            let allowed = session
                .peer_certificates()
                .and_then(<[_]>::first)
                .is_some_and(|certificate| may_use(certificate));
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move {
                    Ok::<_, Infallible>(match allowed {
                        true => route(&shared, request).await,
                        false => text(
                            StatusCode::FORBIDDEN,
                            "Forbidden: only the API server and system:masters may use the kubelet\n",
                        ),
                    })
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HANDSHAKE)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            if let Err(error) = connection.await {
                tracing::debug!(%error, "kubelet connection");
            }
        });
    }
}

/// True for the API server and for administrators.
fn may_use(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = x509_parser::certificate::X509Certificate::from_der(certificate)
    else {
        return false;
    };
    let subject = certificate.subject();
    let administrator = subject
        .iter_organization()
        .any(|group| group.as_str().is_ok_and(|group| group == "system:masters"));
    let server = subject
        .iter_common_name()
        .any(|name| name.as_str().is_ok_and(|name| API_SERVERS.contains(&name)));
    administrator || server
}

fn text(status: StatusCode, message: impl Into<String>) -> Answer {
    let mut answer = Response::new(full(message.into()));
    *answer.status_mut() = status;
    answer
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

fn as_json(value: &Value) -> Answer {
    let mut answer = text(StatusCode::OK, value.to_string());
    let json = http::HeaderValue::from_static("application/json");
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    answer
}

/// A request's query, decoded.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`.
    pub fn parse(query: Option<&str>) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        };
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        Self(pairs.map(pair).collect())
    }

    /// The last value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter().rev();
        all.find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// `1`, `true`.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
    }
}

/// Undoes the percent encoding of a path or query.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn route(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let parts: Vec<String> = path.split('/').skip(1).map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let query = Query::parse(request.uri().query());
    let get_or_post = matches!(*request.method(), Method::GET | Method::POST);
    match parts.as_slice() {
        _ if !get_or_post => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"),
        ["healthz"] => text(StatusCode::OK, "ok"),
        ["pods"] => as_json(&pods(shared)),
        ["stats", "summary"] => as_json(&summary(shared)),
        ["metrics"] => text(StatusCode::OK, metrics(shared)),
        ["containerLogs", namespace, pod, container] => match shared.pod(namespace, pod) {
            Some(view) => logs::answer(shared, &view, container, &query).await,
            None => no_pod(pod),
        },
        [verb @ ("exec" | "attach"), namespace, pod, rest @ ..] if matches!(rest.len(), 1 | 2) => {
            // With two words left the first is the pod's UID.
            let container = rest.last().copied().unwrap_or_default();
            match shared.pod(namespace, pod) {
                Some(view) => exec::answer(&view, *verb == "attach", container, &query, request),
                None => no_pod(pod),
            }
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            match shared.pod(namespace, pod) {
                Some(view) => portforward::answer(&view, &query, request),
                None => no_pod(pod),
            }
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn no_pod(name: &str) -> Answer {
    text(StatusCode::NOT_FOUND, format!("pod {name:?} not found\n"))
}

fn views(shared: &Shared) -> Vec<Arc<PodView>> {
    let pods = shared.pods.lock().unwrap_or_else(PoisonError::into_inner);
    let mut views: Vec<Arc<PodView>> = pods.values().cloned().collect();
    drop(pods);
    views.sort_by_key(|view| super::key(&view.pod));
    views
}

fn pods(shared: &Shared) -> Value {
    let items: Vec<Value> = views(shared)
        .iter()
        .map(|view| serde_json::to_value(&*view.pod).unwrap_or_default())
        .collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

/// The numbers of a cgroup's folder.
fn cgroup_number(folder: &Path, file: &str, field: Option<&str>) -> Option<u64> {
    let text = std::fs::read_to_string(folder.join(file)).ok()?;
    match field {
        None => text.trim().parse().ok(),
        Some(field) => text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(' '))
            .and_then(|value| value.trim().parse().ok()),
    }
}

fn usage(folder: &Path, now: &str) -> (Value, Value) {
    let cpu = cgroup_number(folder, "cpu.stat", Some("usage_usec")).unwrap_or(0) * 1000;
    let memory = cgroup_number(folder, "memory.current", None).unwrap_or(0);
    (
        json!({"time": now, "usageCoreNanoSeconds": cpu}),
        json!({"time": now, "usageBytes": memory, "workingSetBytes": memory}),
    )
}

fn summary(shared: &Shared) -> Value {
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let pods: Vec<Value> = views(shared)
        .iter()
        .map(|view| {
            let meta = &view.pod.metadata;
            let folder = shared.pod_cgroup(meta.uid.as_deref().unwrap_or_default());
            let (cpu, memory) = usage(&folder, &now);
            json!({
                "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
                "cpu": cpu,
                "memory": memory,
                "containers": view.containers.keys().map(|name| json!({"name": name})).collect::<Vec<_>>(),
            })
        })
        .collect();
    let (cpu, memory) = usage(&shared.options.cgroup, &now);
    json!({
        "node": {"nodeName": shared.options.node, "cpu": cpu, "memory": memory},
        "pods": pods,
    })
}

fn metrics(shared: &Shared) -> String {
    let views = views(shared);
    let containers: usize = views
        .iter()
        .map(|view| {
            view.containers
                .values()
                .filter(|(_, running)| *running)
                .count()
        })
        .sum();
    let running = views.iter().filter(|view| view.sandbox.is_some()).count();
    format!(
        "# HELP kubelet_running_pods Number of pods that have a running pod sandbox\n\
         # TYPE kubelet_running_pods gauge\n\
         kubelet_running_pods {running}\n\
         # HELP kubelet_running_containers Number of containers currently running\n\
         # TYPE kubelet_running_containers gauge\n\
         kubelet_running_containers{{container_state=\"running\"}} {containers}\n\
         # HELP kubelet_node_name The node's name. The count is always 1.\n\
         # TYPE kubelet_node_name gauge\n\
         kubelet_node_name{{node=\"{}\"}} 1\n",
        shared.options.node
    )
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Options of a kubelet that is not run.
    pub fn options(dir: &Path) -> Options {
        Options {
            node: "node1".to_owned(),
            addresses: vec!["10.0.1.10".parse().unwrap()],
            kubeconfig: dir.join("kubeconfig"),
            paths: crate::paths::NodePaths {
                state: dir.join("state"),
                run: dir.join("run"),
            },
            cgroup: dir.join("cgroup"),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".to_owned(),
            program: dir.join("flatnet"),
            images: dir.join("images"),
            cni_path: vec![dir.to_owned()],
            port: 10250,
            certificate: dir.join("kubelet.crt"),
            key: dir.join("kubelet.key"),
            client_ca: dir.join("ca.crt"),
            max_pods: 110,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse(Some(
            "command=sh&command=-c&command=echo%20a%26b+c&tty=true&input=1",
        ));
        let command: Vec<&str> = query.all("command").collect();
        assert_eq!(command, ["sh", "-c", "echo a&b c"]);
        assert!(query.is_set("tty") && query.is_set("input") && !query.is_set("output"));
        assert_eq!(decode("100%"), "100%");
    }

    #[test]
    fn only_the_api_server_and_administrators_may() {
        let pair = certs::Authority::create("ca").unwrap();
        let authority = certs::Authority::load(&pair).unwrap();
        let allowed = |user: &str, group: Option<&str>| {
            let pair = authority.client(user, group).unwrap();
            let certificate = rustls_pemfile::certs(&mut pair.certificate.as_bytes()).next();
            may_use(&certificate.unwrap().unwrap())
        };
        assert!(allowed("admin", Some("system:masters")));
        assert!(allowed("kube-apiserver", None));
        assert!(!allowed("system:node:node2", Some("system:nodes")));
    }
}
