//! Asking a probe's question over the network: HTTP, TCP and gRPC health checks.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;

use super::probes::{Outcome, Target};

/// The most that is read of an answer.
const MAX_BODY: usize = 10 * 1024;

/// Tries a network target once. `Exec` and `Sleep` are not network targets.
pub async fn ask(target: &Target, timeout: Duration) -> Outcome {
    let address = |host: &str, port: u16| match host.parse() {
        Ok(std::net::IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        _ => format!("{host}:{port}"),
    };
    match target {
        Target::Tcp { host, port } => {
            let to = address(host, *port);
            match tokio::time::timeout(timeout, TcpStream::connect(&to)).await {
                Ok(Ok(_)) => Outcome::Success,
                Ok(Err(error)) => Outcome::Failure(format!("dial tcp {to}: {}", go_error(&error))),
                Err(_) => Outcome::Failure(format!("dial tcp {to}: i/o timeout")),
            }
        }
        Target::Http {
            https,
            host,
            port,
            path,
            headers,
        } => {
            let to = address(host, *port);
            let scheme = if *https { "https" } else { "http" };
            let url = format!("{scheme}://{to}{path}");
            let tried = tokio::time::timeout(timeout, get(*https, &to, path, headers)).await;
            match tried {
                Ok(Ok(status)) if (200..400).contains(&status) => Outcome::Success,
                Ok(Ok(status)) => {
                    Outcome::Failure(format!("HTTP probe failed with statuscode: {status}"))
                }
                Ok(Err(error)) => Outcome::Failure(format!("Get \"{url}\": {error}")),
                Err(_) => Outcome::Failure(format!(
                    "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                )),
            }
        }
        Target::Grpc {
            host,
            port,
            service,
        } => {
            let to = address(host, *port);
            match tokio::time::timeout(timeout, grpc_health(&to, service)).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::Failure(format!(
                    "timeout: failed to connect service \"{to}\" within {}s: context deadline exceeded",
                    timeout.as_secs()
                )),
            }
        }
        Target::Exec(_) | Target::Sleep(_) => Outcome::Error("not a network probe".to_owned()),
    }
}

/// An I/O error in the words of Go's net package.
fn go_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// One GET; its status code.
async fn get(
    https: bool,
    to: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<u16, String> {
    let stream = TcpStream::connect(to)
        .await
        .map_err(|error| format!("dial tcp {to}: {}", go_error(&error)))?;
    let request = request(to, path, headers)?;
    if !https {
        return exchange(TokioIo::new(stream), request).await;
    }
    let connector = tokio_rustls::TlsConnector::from(trusting_tls()?);
    let host = to.rsplit_once(':').map_or(to, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| error.to_string())?;
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    exchange(TokioIo::new(stream), request).await
}

fn request(
    to: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .body(Full::default())
        .map_err(|error| error.to_string())?;
    let map = request.headers_mut();
    map.insert(USER_AGENT, HeaderValue::from_static("kube-probe/1.36"));
    map.insert(ACCEPT, HeaderValue::from_static("*/*"));
    map.insert(CONNECTION, HeaderValue::from_static("close"));
    let host = HeaderValue::from_str(to).map_err(|error| error.to_string())?;
    map.insert(HOST, host);
    let mut named = Vec::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
        let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
        named.push((name, value));
    }
    // A header given replaces the default of its name; given twice, both are sent.
    for (name, _) in &named {
        map.remove(name);
    }
    for (name, value) in named {
        map.append(name, value);
    }
    if !map.contains_key(HOST) {
        return Err("the Host header was removed".to_owned());
    }
    Ok(request)
}

async fn exchange<S>(stream: TokioIo<S>, request: Request<Full<Bytes>>) -> Result<u16, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await;
    let status = match response {
        Ok(response) => {
            let status = response.status().as_u16();
            // The body is read, within bounds, so that the server sees its answer taken.
            let _ = Limited::new(response.into_body(), MAX_BODY).collect().await;
            Ok(status)
        }
        Err(error) if error.is_incomplete_message() => Err("EOF".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    driver.abort();
    status
}

/// `grpc.health.v1.Health/Check` over clear-text HTTP/2.
async fn grpc_health(to: &str, service: &str) -> Outcome {
    match health_answer(to, service).await {
        Ok(1) => Outcome::Success,
        Ok(status) => {
            let name = match status {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "INVALID",
            };
            Outcome::Failure(format!("service unhealthy (responded with \"{name}\")"))
        }
        Err(error) => Outcome::Failure(error),
    }
}

async fn health_answer(to: &str, service: &str) -> Result<u64, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| {
        format!(
            "error: failed to connect service \"{to}\": {}",
            go_error(&error)
        )
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let result = async {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{to}/grpc.health.v1.Health/Check"))
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            .header(USER_AGENT, "kube-probe/1.36")
            .body(Full::new(health_request(service)))
            .map_err(|error| error.to_string())?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map_err(|error| error.to_string())?;
        let status = body.trailers().and_then(|t| t.get("grpc-status").cloned());
        let bytes = body.to_bytes();
        match status.as_ref().and_then(|value| value.to_str().ok()) {
            Some("0") => Ok(health_status(&bytes)),
            Some("12") => Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned()),
            Some("5") => Ok(3),
            other => Err(format!("error: health rpc failed with gRPC status {}", other.unwrap_or("missing"))),
        }
    };
    let result = result.await;
    driver.abort();
    result
}

/// A length-prefixed `HealthCheckRequest`.
fn health_request(service: &str) -> Bytes {
    let service = &service.as_bytes()[..service.len().min(127)];
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        message.push(service.len() as u8);
        message.extend_from_slice(service);
    }
    let mut frame = vec![0, 0, 0, 0, message.len() as u8];
    frame.extend(message);
    frame.into()
}

/// The status of a length-prefixed `HealthCheckResponse`.
fn health_status(frame: &[u8]) -> u64 {
    match frame.get(5..) {
        Some([0x08, status, ..]) => u64::from(*status),
        _ => 0,
    }
}

/// TLS that takes any certificate: a probe asks whether something answers, not who.
fn trusting_tls() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
        .with_no_client_auth();
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
}

#[derive(Debug)]
struct Trusting(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn answering(text: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                let seen = String::from_utf8_lossy(&buffer[..read]).to_string();
                assert!(seen.to_lowercase().contains("user-agent: kube-probe/"));
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        port
    }

    fn http(port: u16) -> Target {
        Target::Http {
            https: false,
            host: "127.0.0.1".to_owned(),
            port,
            path: "/healthz".to_owned(),
            headers: vec![],
        }
    }

    #[tokio::test]
    async fn http_status_codes_decide() {
        let second = Duration::from_secs(1);
        let good = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(ask(&http(good), second).await, Outcome::Success);
        let bad = answering("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(
            ask(&http(bad), second).await,
            Outcome::Failure("HTTP probe failed with statuscode: 503".to_owned())
        );
    }

    #[tokio::test]
    async fn nobody_listening_is_a_refused_connection_in_gos_words() {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let second = Duration::from_secs(1);
        assert_eq!(
            ask(&http(port), second).await,
            Outcome::Failure(format!(
                "Get \"http://127.0.0.1:{port}/healthz\": dial tcp 127.0.0.1:{port}: connect: connection refused"
            ))
        );
        let tcp = Target::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        };
        assert_eq!(
            ask(&tcp, second).await,
            Outcome::Failure(format!(
                "dial tcp 127.0.0.1:{port}: connect: connection refused"
            ))
        );
    }

    #[tokio::test]
    async fn a_silent_server_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let outcome = ask(&http(port), Duration::from_millis(50)).await;
        let Outcome::Failure(message) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(
            message.ends_with("(Client.Timeout exceeded while awaiting headers)"),
            "{message}"
        );
    }

    #[test]
    fn health_messages_are_framed() {
        assert_eq!(&health_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&health_request("a")[..], [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
        assert_eq!(health_status(&[0, 0, 0, 0, 2, 8, 1]), 1);
        assert_eq!(health_status(&[0, 0, 0, 0, 0]), 0);
    }
}
