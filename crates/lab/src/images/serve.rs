//! What the built-in servers share: one thread, HTTP/1.1 and UDP on both address
//! families, and an end in good order when the pod is deleted.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};

/// The longest request body that is read.
const MAX_BODY: usize = 16 << 20;

/// An HTTP request, read to its end.
pub(super) struct Asked {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

impl Asked {
    /// A parameter of the query or, in a form, of the body.
    pub fn form(&self, name: &str) -> String {
        let query = self.uri.query().unwrap_or_default();
        let kind = self.headers.get(http::header::CONTENT_TYPE);
        let is_form = kind.is_some_and(|k| k == "application/x-www-form-urlencoded");
        let body = if is_form {
            std::str::from_utf8(&self.body).unwrap_or("")
        } else {
            ""
        };
        parameter(body, name)
            .or_else(|| parameter(query, name))
            .unwrap_or_default()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

/// An HTTP response.
pub(super) type Answer = Response<Full<Bytes>>;
/// What answers requests.
pub(super) type Handler =
    Arc<dyn Fn(Asked) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// A handler out of an asynchronous function.
pub(super) fn handler<F, A>(answer: F) -> Handler
where
    F: Fn(Asked) -> A + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    Arc::new(move |asked| Box::pin(answer(asked)))
}

/// An answer of text.
pub(super) fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let kind = http::HeaderValue::from_static(kind);
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    answer
}

/// Runs a server: `start` sets it up; it ends with 0 on TERM, INT or QUIT, as the first
/// process of a container has to by itself.
pub(super) fn run<F>(start: F) -> i32
where
    F: Future<Output = Result<(), String>>,
{
    run_and_linger(Duration::ZERO, start)
}

/// The same, and serves on for a time after it was asked to end: callers that do not know yet
/// are not turned away.
pub(super) fn run_and_linger<F>(linger: Duration, start: F) -> i32
where
    F: Future<Output = Result<(), String>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("starting: {e}");
            return 1;
        }
    };
    runtime.block_on(async {
        let end = stopped();
        match start.await {
            Ok(()) => {
                let code = end.await;
                if !linger.is_zero() {
                    let seconds = linger.as_secs();
                    log(&format!("Sleeping {seconds} seconds before terminating..."));
                    tokio::time::sleep(linger).await;
                }
                code
            }
            Err(text) => {
                eprintln!("{text}");
                1
            }
        }
    })
}

async fn stopped() -> i32 {
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::quit(),
    ];
    let signals: io::Result<Vec<_>> = kinds.into_iter().map(signal).collect();
    match signals {
        Ok(mut signals) => {
            futures::future::select_all(signals.iter_mut().map(|s| Box::pin(s.recv()))).await;
            0
        }
        Err(e) => {
            eprintln!("waiting for signals: {e}");
            1
        }
    }
}

/// Listens on a port, on every address of both families where there are two.
pub(super) async fn listen(port: u16) -> Result<TcpListener, String> {
    let both = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await;
    match both {
        Ok(listener) => Ok(listener),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(in_use(port, "tcp")),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
            .await
            .map_err(|e| format!("listen tcp :{port}: {e}")),
    }
}

/// The same for UDP.
pub(super) async fn listen_udp(port: u16) -> Result<UdpSocket, String> {
    let both = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await;
    match both {
        Ok(socket) => Ok(socket),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(in_use(port, "udp")),
        Err(_) => UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
            .await
            .map_err(|e| format!("listen udp :{port}: {e}")),
    }
}

fn in_use(port: u16, protocol: &str) -> String {
    format!("listen {protocol} :{port}: bind: address already in use")
}

/// Answers HTTP on a port, from now on.
pub(super) async fn http(port: u16, handler: Handler) -> Result<(), String> {
    let listener = listen(port).await?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    tokio::spawn(converse(stream, peer, handler.clone()));
                }
                // Out of descriptors: those that are open have to end first.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    Ok(())
}

/// Answers one client's requests.
pub(super) async fn converse(stream: TcpStream, peer: SocketAddr, handler: Handler) {
    let _ = stream.set_nodelay(true);
    let peer = plain(peer);
    let local = stream.local_addr().map_or(peer, plain);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
                let too_long = StatusCode::PAYLOAD_TOO_LARGE;
                return Ok::<_, std::convert::Infallible>(text(too_long, "text/plain", ""));
            };
            let asked = Asked {
                method: head.method,
                uri: head.uri,
                version: head.version,
                headers: head.headers,
                body: body.to_bytes(),
                peer,
                local,
            };
            Ok(handler(asked).await)
        }
    });
    // A client that breaks off is no fault of the server's.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// An IPv4 client of a socket for both families, as IPv4.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The pod's host name.
pub(super) fn host_name() -> String {
    nix::unistd::gethostname()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// A line on standard error, with the time as Go's log writes it.
pub(super) fn log(line: &str) {
    let now = jiff::Timestamp::now()
        .strftime("%Y/%m/%d %H:%M:%S")
        .to_string();
    eprintln!("{now} {line}");
}

/// Standard output as a container's log expects it: a line at once, no error where nobody
/// reads any more.
pub(super) fn say(line: &str) {
    use std::io::Write;
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A named parameter of a query, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query
        .split('&')
        .map(|p| p.split_once('=').unwrap_or((p, "")));
    pairs
        .into_iter()
        .find(|(n, _)| decode(n) == name)
        .map(|(_, v)| decode(v))
}

/// Percent-decoding, with `+` as a blank.
pub(super) fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = || {
            bytes
                .get(at + 1..at + 3)
                .and_then(|h| std::str::from_utf8(h).ok())
        };
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' if hex().is_some_and(|h| u8::from_str_radix(h, 16).is_ok()) => {
                let value = hex().and_then(|h| u8::from_str_radix(h, 16).ok());
                out.extend(value);
                at += 2;
            }
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = "msg=a%20b+c%2&shellCommand=echo%20%26&empty";
        assert_eq!(parameter(query, "msg").unwrap(), "a b c%2");
        assert_eq!(parameter(query, "shellCommand").unwrap(), "echo &");
        assert_eq!(parameter(query, "empty").unwrap(), "");
        assert_eq!(parameter(query, "other"), None);
    }
}
