//! Requests that are passed on: logs, exec, attach and port-forward to the kubelet of the
//! pod's node, and the proxies of nodes, pods and services.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use objects::{Object, Status};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::Connect;
use crate::context::Ctx;
use crate::output::Answer;
use crate::request::{Info, Query};
use crate::server;
use crate::verbs::Reply;
use certs::{Pair, PkiError};

/// The most that is read of a kubelet's refusal.
const REFUSAL: usize = 4 << 10;
/// Port of kubelets that do not say theirs.
const KUBELET: u16 = 10250;

/// Reaches kubelets with the server's own client certificate.
pub struct Kubelets {
    tls: TlsConnector,
    connect: Connect,
}

impl Kubelets {
    /// With a client certificate of the authority, whose servers alone are trusted.
    pub fn new(pair: &Pair, ca: &str, connect: Connect) -> Result<Self, PkiError> {
        let bad = |e: rustls::Error| PkiError::Certificate {
            what: "client certificate for kubelets".into(),
            cause: e.to_string(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_root_certificates(server::roots(ca)?)
            .with_client_auth_cert(
                server::certificates(&pair.certificate)?,
                server::key(&pair.key)?,
            )
            .map_err(bad)?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            connect,
        })
    }
}

/// Where a request goes.
struct Target {
    address: IpAddr,
    port: u16,
    tls: bool,
    path: String,
    /// For messages.
    name: String,
}

/// True for a subresource that is passed on.
pub fn is_passed_on(subresource: &str) -> bool {
    matches!(
        subresource,
        "log" | "exec" | "attach" | "portforward" | "proxy"
    )
}

/// Passes a request on and the answer back.
pub async fn pass_on(ctx: &Ctx, info: &Info, query: &Query, request: Request<Incoming>) -> Reply {
    let Some(target) = target(ctx, info, query, request.uri().query().unwrap_or_default())? else {
        // Logs of a pod that no node has yet are empty.
        return Ok(crate::output::typed(200, "text/plain", ""));
    };
    let failed = |cause: String| {
        Status::internal(format!("error dialing backend: {}: {cause}", target.name))
    };
    let kubelets = &ctx.kubelets;
    let stream = (kubelets.connect)(target.address, target.port)
        .await
        .map_err(|e| failed(format!("dial tcp {}:{}: {e}", target.address, target.port)))?;
    let _ = stream.set_nodelay(true);
    if target.tls {
        let name = ServerName::IpAddress(target.address.into());
        let stream = kubelets
            .tls
            .connect(name, stream)
            .await
            .map_err(|e| failed(e.to_string()))?;
        let answer = exchange(stream, &target, request)
            .await
            .map_err(|e| failed(e.to_string()))?;
        match info.resource.as_str() {
            "pods" => of_kubelet(answer, &info.subresource, &info.name).await,
            _ => Ok(answer),
        }
    } else {
        exchange(stream, &target, request)
            .await
            .map_err(|e| failed(e.to_string()).into())
    }
}

/// A kubelet refuses in plain words; a client is told by a Status.
async fn of_kubelet(answer: Answer, subresource: &str, pod: &str) -> Reply {
    let code = answer.status();
    if code.is_success() || code == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    let body = http_body_util::Limited::new(answer.into_body(), REFUSAL);
    let words = match body.collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(match (subresource, code) {
        ("log", StatusCode::NOT_FOUND) => Status::not_found("", "pods/log", pod),
        ("log", _) | (_, StatusCode::BAD_REQUEST) => Status::bad_request(words),
        _ => Status::internal(words),
    }
    .into())
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    target: &Target,
    mut request: Request<Incoming>,
) -> Result<Answer, hyper::Error> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a backend ended");
        }
    });
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    parts.uri = target
        .path
        .parse()
        .unwrap_or_else(|_| Uri::from_static("/"));
    parts.version = http::Version::HTTP_11;
    parts.headers.remove(header::AUTHORIZATION);
    if let Ok(host) = HeaderValue::from_str(&host(target)) {
        parts.headers.insert(header::HOST, host);
    }
    let mut answer = sender
        .send_request(Request::from_parts(parts, body))
        .await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let backend = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            // The client's half is there once the 101 has been sent.
            if let (Ok(client), Ok(backend)) = futures::future::join(client, backend).await {
                let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
            }
        });
        let (parts, _) = answer.into_parts();
        return Ok(Answer::from_parts(parts, crate::output::full("")));
    }
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove(header::CONNECTION);
    parts.headers.remove(header::TRANSFER_ENCODING);
    Ok(Answer::from_parts(
        parts,
        body.map_err(std::io::Error::other).boxed_unsync(),
    ))
}

fn host(target: &Target) -> String {
    match target.address {
        IpAddr::V6(address) => format!("[{address}]:{}", target.port),
        IpAddr::V4(address) => format!("{address}:{}", target.port),
    }
}

fn target(ctx: &Ctx, info: &Info, query: &Query, raw: &str) -> Result<Option<Target>, Status> {
    match (info.resource.as_str(), info.subresource.as_str()) {
        ("nodes", _) => {
            let (name, port) = name_and_port(&info.name);
            let mut target = kubelet(ctx, &name)?;
            if let Some(port) = port.parse().ok().filter(|p| *p != 0) {
                target.port = port;
            }
            target.path = with_query(&format!("/{}", info.rest), raw);
            Ok(Some(target))
        }
        ("pods", "proxy") => pod_proxy(ctx, info, raw).map(Some),
        ("services", "proxy") => service_proxy(ctx, info, raw).map(Some),
        ("pods", _) => pod(ctx, info, query, raw),
        _ => Err(Status::no_such_path()),
    }
}

fn with_query(path: &str, raw: &str) -> String {
    if raw.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{raw}")
    }
}

fn get(ctx: &Ctx, plural: &str, namespace: &str, name: &str) -> Result<Object, Status> {
    ctx.store
        .get(&format!("/{plural}/{namespace}/{name}"))
        .map(|entry| entry.object())
        .ok_or_else(|| Status::not_found("", plural, name))
}

/// The kubelet of a node.
fn kubelet(ctx: &Ctx, name: &str) -> Result<Target, Status> {
    let node = get(ctx, "nodes", "", name)?;
    let addresses = node["status"]["addresses"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let of = |kind: &str| {
        addresses
            .iter()
            .filter(|a| a["type"] == kind)
            .find_map(|a| a["address"].as_str()?.parse::<IpAddr>().ok())
    };
    let address = of("InternalIP")
        .or_else(|| of("ExternalIP"))
        .ok_or_else(|| {
            Status::internal(format!(
                "no preferred addresses found for node {name}; known addresses: {addresses:?}"
            ))
        })?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        .as_u64()
        .and_then(|p| u16::try_from(p).ok())
        .filter(|p| *p != 0)
        .unwrap_or(KUBELET);
    Ok(Target {
        address,
        port,
        tls: true,
        path: "/".into(),
        name: format!("node {name}"),
    })
}

/// log, exec, attach and portforward.
fn pod(ctx: &Ctx, info: &Info, query: &Query, raw: &str) -> Result<Option<Target>, Status> {
    let pod = get(ctx, "pods", &info.namespace, &info.name)?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let container = match info.subresource.as_str() {
        "portforward" => String::new(),
        _ => container(&pod, &info.name, query.get("container"))?,
    };
    if node.is_empty() {
        return match info.subresource.as_str() {
            "log" => Ok(None),
            _ => Err(Status::bad_request(format!(
                "pod {} does not have a host assigned",
                info.name
            ))),
        };
    }
    let mut target = kubelet(ctx, node)?;
    let place = format!("{}/{}", info.namespace, info.name);
    target.path = match info.subresource.as_str() {
        "log" => with_query(
            &format!("/containerLogs/{place}/{container}"),
            &without(raw, "container"),
        ),
        "exec" => with_query(&format!("/exec/{place}/{container}"), &streams(raw)),
        "attach" => with_query(&format!("/attach/{place}/{container}"), &streams(raw)),
        _ => with_query(&format!("/portForward/{place}"), &ports(raw)),
    };
    Ok(Some(target))
}

fn without(raw: &str, name: &str) -> String {
    let keep = |pair: &&str| pair.split('=').next() != Some(name);
    raw.split('&').filter(keep).collect::<Vec<_>>().join("&")
}

/// The API's stream options in the kubelet's names.
fn streams(raw: &str) -> String {
    let renamed = raw.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let on = value != "false" && value != "0" && !value.is_empty();
        match key {
            "stdin" => on.then(|| "input=1".to_owned()),
            "stdout" => on.then(|| "output=1".to_owned()),
            "stderr" => on.then(|| "error=1".to_owned()),
            "tty" => on.then(|| "tty=1".to_owned()),
            "command" => Some(pair.to_owned()),
            _ => None,
        }
    });
    renamed.collect::<Vec<_>>().join("&")
}

/// The API's `ports` in the kubelet's name.
fn ports(raw: &str) -> String {
    raw.split('&')
        .filter_map(|pair| pair.strip_prefix("ports="))
        .map(|list| format!("port={list}"))
        .collect::<Vec<_>>()
        .join("&")
}

/// The container meant: the one asked for or the only one.
fn container(pod: &Object, name: &str, asked: &str) -> Result<String, Status> {
    let names = |field: &str| -> Vec<String> {
        let list = pod["spec"][field].as_array().cloned().unwrap_or_default();
        list.iter()
            .filter_map(|c| c["name"].as_str())
            .map(str::to_owned)
            .collect()
    };
    let (main, init, debug) = (
        names("containers"),
        names("initContainers"),
        names("ephemeralContainers"),
    );
    if asked.is_empty() {
        if let [one] = main.as_slice() {
            return Ok(one.clone());
        }
        let mut message = format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            main.join(" ")
        );
        if !init.is_empty() {
            message.push_str(&format!(
                " or one of the init containers: [{}]",
                init.join(" ")
            ));
        }
        return Err(Status::bad_request(message));
    }
    if [&main, &init, &debug]
        .iter()
        .any(|list| list.iter().any(|n| n == asked))
    {
        return Ok(asked.to_owned());
    }
    Err(Status::bad_request(format!(
        "container {asked} is not valid for pod {name}"
    )))
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
fn name_and_port(text: &str) -> (String, String) {
    match text.split(':').collect::<Vec<_>>().as_slice() {
        [_, name, port] | [name, port] => ((*name).to_owned(), (*port).to_owned()),
        _ => (text.to_owned(), String::new()),
    }
}

fn pod_proxy(ctx: &Ctx, info: &Info, raw: &str) -> Result<Target, Status> {
    let (name, port) = name_and_port(&info.name);
    let pod = get(ctx, "pods", &info.namespace, &name)?;
    let address = pod["status"]["podIP"]
        .as_str()
        .and_then(|a| a.parse().ok())
        .ok_or_else(|| Status::service_unavailable(format!("pod {name} has no address yet")))?;
    let declared = || {
        let first = pod["spec"]["containers"]
            .as_array()?
            .iter()
            .find_map(|c| c["ports"][0]["containerPort"].as_u64());
        u16::try_from(first?).ok()
    };
    let port = if port.is_empty() {
        declared()
    } else {
        port.parse().ok()
    };
    Ok(Target {
        address,
        port: port.unwrap_or(80),
        tls: false,
        path: with_query(&format!("/{}", info.rest), raw),
        name: format!("pod {name}"),
    })
}

fn service_proxy(ctx: &Ctx, info: &Info, raw: &str) -> Result<Target, Status> {
    let (name, port) = name_and_port(&info.name);
    let service = get(ctx, "services", &info.namespace, &name)?;
    let ports = service["spec"]["ports"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let wanted = ports
        .iter()
        .find(|p| {
            port.is_empty() || p["name"] == port.as_str() || p["port"].as_u64() == port.parse().ok()
        })
        .ok_or_else(|| {
            Status::service_unavailable(format!(
                "no service port {port:?} found for service {name:?}"
            ))
        })?;
    let slices = ctx.store.list(&format!(
        "discovery.k8s.io/endpointslices/{}/",
        info.namespace
    ));
    let found = slices
        .items
        .iter()
        .map(|(_, e)| e.object())
        .find_map(|slice| {
            if slice["metadata"]["labels"]["kubernetes.io/service-name"] != name.as_str() {
                return None;
            }
            let port = slice["ports"].as_array()?.iter().find(|p| {
                p["name"].as_str().unwrap_or_default()
                    == wanted["name"].as_str().unwrap_or_default()
            })?;
            let ready = slice["endpoints"]
                .as_array()?
                .iter()
                .find(|e| e["conditions"]["ready"] != false)?;
            let address = ready["addresses"][0].as_str()?.parse().ok()?;
            Some((address, u16::try_from(port["port"].as_u64()?).ok()?))
        });
    let (address, port) = found.ok_or_else(|| {
        Status::service_unavailable(format!("no endpoints available for service {name:?}"))
    })?;
    Ok(Target {
        address,
        port,
        tls: false,
        path: with_query(&format!("/{}", info.rest), raw),
        name: format!("service {name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_reach_the_kubelet_in_its_own_names() {
        assert_eq!(
            streams(
                "command=sh&command=-c&container=a&stdin=true&stdout=true&stderr=false&tty=true"
            ),
            "command=sh&command=-c&input=1&output=1&tty=1"
        );
        assert_eq!(ports("ports=80&ports=443"), "port=80&port=443");
        assert_eq!(
            without("container=a&follow=true", "container"),
            "follow=true"
        );
    }

    #[test]
    fn a_container_must_be_chosen_where_there_are_several() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&pod, "p", "b").unwrap(), "b");
        assert_eq!(
            container(&pod, "p", "").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b]"
        );
        assert_eq!(
            container(&pod, "p", "c").unwrap_err().message,
            "container c is not valid for pod p"
        );
    }
}
