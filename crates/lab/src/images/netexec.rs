//! `agnhost netexec`: the server that network tests ask questions, over HTTP and UDP.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UdpSocket};

use super::arguments::{Flags, duration};
use super::connect::{cause, resolve};
use super::serve::{self, Answer, Asked};

/// How long `/dial` waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// `netexec [--http-port N] [--udp-port N] [--http-override PATH] [--delay-shutdown N]`
pub(super) fn main(args: &[String]) -> Result<i32, String> {
    let values = [
        "http-port",
        "udp-port",
        "sctp-port",
        "http-override",
        "udp-listen-addresses",
        "delay-shutdown",
        "tls-cert-file",
        "tls-private-key-file",
    ];
    let flags = Flags::parse(args, &values, &[])?;
    let (http, udp) = (
        flags.number("http-port", 8080)?,
        flags.number("udp-port", 8081)?,
    );
    let delay = u64::try_from(flags.number("delay-shutdown", 0)?).unwrap_or(0);
    if flags.number("sctp-port", -1)? != -1 {
        return Err("--sctp-port: this machine's kernel has no SCTP; leave the flag away".into());
    }
    if !flags.text("tls-cert-file", "").is_empty() {
        return Err("--tls-cert-file: TLS is not part of the built-in netexec".into());
    }
    let port = |number: i32| u16::try_from(number).map_err(|_| format!("invalid port {number}"));
    let http = port(http)?;
    let udp = if udp == -1 { None } else { Some(port(udp)?) };
    let addresses = addresses(flags.text("udp-listen-addresses", ""))?;
    let forced = Some(flags.text("http-override", "").to_owned()).filter(|p| !p.is_empty());
    let code = serve::run_and_linger(Duration::from_secs(delay), async move {
        let ready = Arc::new(AtomicBool::new(udp.is_none()));
        if let Some(port) = udp {
            for socket in sockets(port, &addresses).await? {
                serve::log(&format!("Started UDP server on port {port}"));
                tokio::spawn(answer_datagrams(socket));
            }
            ready.store(true, Ordering::Relaxed);
        }
        let handler = serve::handler(move |mut asked: Asked| {
            let (ready, forced) = (ready.clone(), forced.clone());
            async move {
                if let Some(uri) = forced.and_then(|path| path.parse().ok()) {
                    asked.uri = uri;
                    asked.method = http::Method::GET;
                }
                answer(asked, ready.load(Ordering::Relaxed)).await
            }
        });
        serve::http(http, handler).await?;
        serve::log(&format!("Started HTTP server on port {http}"));
        Ok(())
    });
    Ok(code)
}

fn addresses(list: &str) -> Result<Vec<IpAddr>, String> {
    let parts = list.split(',').filter(|a| !a.is_empty());
    parts
        .map(|a| {
            a.parse()
                .map_err(|_| format!("parseAddress: invalid address {a}"))
        })
        .collect()
}

async fn sockets(port: u16, addresses: &[IpAddr]) -> Result<Vec<UdpSocket>, String> {
    if addresses.is_empty() {
        return Ok(vec![serve::listen_udp(port).await?]);
    }
    let mut sockets = Vec::new();
    for address in addresses {
        let bound = UdpSocket::bind(SocketAddr::new(*address, port)).await;
        sockets.push(bound.map_err(|e| format!("listen udp {address}:{port}: {}", cause(&e)))?);
    }
    Ok(sockets)
}

async fn answer_datagrams(socket: UdpSocket) {
    let mut buffer = [0u8; 2048];
    loop {
        let Ok((count, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let text = String::from_utf8_lossy(&buffer[..count])
            .trim()
            .to_lowercase();
        let peer_shown = serve::plain(peer);
        let answer = match text.as_str() {
            "hostname" => serve::host_name(),
            "clientip" => peer_shown.to_string(),
            _ => match text.strip_prefix("echo ") {
                Some(rest) => rest.to_owned(),
                None => {
                    if !text.is_empty() {
                        serve::log(&format!(
                            "Unknown UDP command received from {peer_shown}: {text}"
                        ));
                    }
                    continue;
                }
            },
        };
        let _ = socket.send_to(answer.as_bytes(), peer).await;
    }
}

async fn answer(asked: Asked, ready: bool) -> Answer {
    let path = asked.uri.path();
    let shown = asked.uri.path_and_query().map_or(path, |p| p.as_str());
    serve::log(&format!("{} {shown}", asked.method));
    match path {
        "/clientip" => plain(asked.peer.to_string()),
        "/serverport" => plain(asked.local.port().to_string()),
        "/hostname" | "/hostName" => plain(serve::host_name()),
        "/echo" => echo(&asked),
        "/healthz" if ready => plain(String::new()),
        "/healthz" => serve::text(StatusCode::PRECONDITION_FAILED, PLAIN, ""),
        "/header" => header(&asked),
        "/redirect" => redirect(&asked),
        "/dial" => dial(&asked).await,
        "/shell" => shell(&asked).await,
        "/exit" => exit(&asked).await,
        "/shutdown" => std::process::exit(0),
        "/upload" => upload(&asked),
        // As a Go server's root, it answers every other path.
        _ => plain(format!(
            "NOW: {}",
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S.%9f +0000 UTC")
        )),
    }
}

fn echo(asked: &Asked) -> Answer {
    let mut answer = plain(asked.form("msg"));
    let code = asked.form("code");
    if !code.is_empty() {
        match code.parse().ok().and_then(|n| StatusCode::from_u16(n).ok()) {
            Some(code) => *answer.status_mut() = code,
            None => return plain(not_a_number("code", &code)),
        }
    }
    answer
}

fn not_a_number(name: &str, text: &str) -> String {
    format!("argument '{name}' must be an integer or empty, got {text:?}\n")
}

fn header(asked: &Asked) -> Answer {
    let key = asked.form("key");
    if !key.is_empty() {
        return plain(asked.header(&key).unwrap_or_default().to_owned());
    }
    let mut all = serde_json::Map::new();
    for name in asked.headers.keys().filter(|n| *n != http::header::HOST) {
        let values: Vec<_> = asked
            .headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()))
            .collect();
        all.insert(canonical(name.as_str()), values.into());
    }
    plain(serde_json::Value::Object(all).to_string())
}

/// A header's name as Go writes it: `user-agent` is `User-Agent`.
pub(super) fn canonical(name: &str) -> String {
    let mut upper = true;
    name.chars()
        .map(|c| {
            let shown = if upper { c.to_ascii_uppercase() } else { c };
            upper = c == '-';
            shown
        })
        .collect()
}

fn redirect(asked: &Asked) -> Answer {
    let (location, code) = (asked.form("location"), asked.form("code"));
    let status = match code.as_str() {
        "" => StatusCode::FOUND,
        text => match text.parse().ok().and_then(|n| StatusCode::from_u16(n).ok()) {
            Some(status) => status,
            None => return plain(not_a_number("code", text)),
        },
    };
    let reason = status.canonical_reason().unwrap_or_default();
    let body = format!("<a href=\"{location}\">{reason}</a>.\n\n");
    let mut answer = serve::text(status, "text/html; charset=utf-8", body);
    if let Ok(location) = HeaderValue::from_str(&location) {
        answer
            .headers_mut()
            .insert(http::header::LOCATION, location);
    }
    answer
}

/// Asks another server, several times, and tells what came back.
async fn dial(asked: &Asked) -> Answer {
    let bad = |text: String| serve::text(StatusCode::BAD_REQUEST, PLAIN, text + "\n");
    let (host, port, request) = (
        asked.form("host"),
        asked.form("port"),
        asked.form("request"),
    );
    let tries = match asked.form("tries").as_str() {
        "" => 1,
        text => match text.parse::<u16>() {
            Ok(tries) => tries,
            Err(e) => return bad(format!("tries parameter is invalid. {e}")),
        },
    };
    if request.is_empty() {
        return bad("request parameter not specified. <nil>".to_owned());
    }
    let protocol = asked.form("protocol").to_lowercase();
    if !["", "http", "udp"].contains(&protocol.as_str()) {
        return bad(format!("unsupported protocol. {protocol}"));
    }
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    let target = format!("{host}:{port}");
    let resolved = tokio::task::spawn_blocking(move || resolve(&target)).await;
    let address = match resolved.unwrap_or_else(|e| Err(e.to_string())) {
        Ok(address) => address,
        Err(e) => return bad(format!("host and/or port param are invalid. {e}")),
    };
    let (mut responses, mut errors, mut last) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..tries {
        let done = match protocol.as_str() {
            "udp" => dial_udp(address, &request).await,
            _ => fetch(&address.to_string(), &request).await,
        };
        last = match done {
            Ok(text) => {
                responses.push(text.clone());
                text
            }
            Err(e) => {
                errors.push(e);
                String::new()
            }
        };
    }
    let mut output = serde_json::Map::new();
    if !errors.is_empty() {
        output.insert("errors".into(), errors.into());
    }
    // As the original: without an answer to the last try there are no responses.
    if !last.is_empty() {
        output.insert("responses".into(), responses.into());
    }
    plain(serde_json::Value::Object(output).to_string())
}

/// Gets `http://ADDRESS/PATH` and answers the body.
pub(super) async fn fetch(address: &str, path: &str) -> Result<String, String> {
    let url = format!("http://{address}/{path}");
    let get = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| format!("dial tcp {address}: connect: {}", cause(&e)))?;
        let broken = |e: hyper::Error| e.to_string();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        tokio::spawn(connection);
        let request = Request::get(format!("/{path}"))
            .header(http::header::HOST, address)
            .header(http::header::USER_AGENT, "Go-http-client/1.1")
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(broken)?
            .to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    };
    let done = tokio::time::timeout(PATIENCE, get).await;
    let done = done.unwrap_or_else(|_| {
        Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into())
    });
    done.map_err(|e: String| format!("Get {url:?}: {e}"))
}

async fn dial_udp(address: SocketAddr, request: &str) -> Result<String, String> {
    let any = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let failed = |e: std::io::Error| format!("udp dial failed. err:{}", cause(&e));
    let socket = UdpSocket::bind(any).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    let sent = socket.send(request.as_bytes()).await;
    sent.map_err(|e| format!("udp connection write failed. err:{}", cause(&e)))?;
    let mut buffer = [0; 2048];
    let silent = |e: String| format!("reading from udp connection failed. err:'{e}'");
    match tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await {
        Ok(Ok(count)) => Ok(String::from_utf8_lossy(&buffer[..count]).into_owned()),
        Ok(Err(e)) => Err(silent(format!("read udp {address}: {}", cause(&e)))),
        Err(_) => Err(silent(format!("read udp {address}: i/o timeout"))),
    }
}

/// What this image is there for: it runs what the test asks, inside the pod.
async fn shell(asked: &Asked) -> Answer {
    let command = Some(asked.form("shellCommand")).filter(|c| !c.is_empty());
    let command = command.unwrap_or_else(|| asked.form("cmd"));
    let run = tokio::task::spawn_blocking(move || -> std::io::Result<(Vec<u8>, String)> {
        let (mut reader, writer) = std::io::pipe()?;
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", &command])
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()?;
        let mut output = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut output)?;
        let status = child.wait()?;
        let error = match status.code() {
            Some(0) => String::new(),
            Some(code) => format!("exit status {code}"),
            None => status.to_string(),
        };
        Ok((output, error))
    });
    let (output, error) = match run.await {
        Ok(Ok(done)) => done,
        Ok(Err(e)) => (Vec::new(), e.to_string()),
        Err(e) => (Vec::new(), e.to_string()),
    };
    let mut answer = serde_json::Map::new();
    if !error.is_empty() {
        answer.insert("error".into(), error.into());
    }
    if !output.is_empty() {
        answer.insert("output".into(), String::from_utf8_lossy(&output).into());
    }
    plain(serde_json::Value::Object(answer).to_string())
}

async fn exit(asked: &Asked) -> Answer {
    let (wait, code) = (asked.form("wait"), asked.form("code"));
    let wait = match wait.as_str() {
        "" => Duration::ZERO,
        text => match duration(text) {
            Some(wait) => wait,
            None => {
                return plain(format!(
                    "argument 'wait' must be a valid golang duration or empty, got {text:?}\n"
                ));
            }
        },
    };
    let Ok(code) = (if code.is_empty() { Ok(0) } else { code.parse() }) else {
        return plain(format!(
            "argument 'code' must be an integer [0-127] or empty, got {code:?}\n"
        ));
    };
    tokio::time::sleep(wait).await;
    std::process::exit(code)
}

/// Writes the first file of a form to /uploads.
fn upload(asked: &Asked) -> Answer {
    let failed = |text: &str| plain(serde_json::json!({ "error": text }).to_string());
    let Some(content) = first_file(asked) else {
        return failed("Unable to upload file.");
    };
    let name = format!("/uploads/upload{}", rand::random::<u32>());
    if std::fs::create_dir_all("/uploads")
        .and_then(|()| std::fs::write(&name, content))
        .is_err()
    {
        return failed("Unable to open file for write");
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    if std::fs::set_permissions(&name, mode).is_err() {
        return failed("Unable to chmod file.");
    }
    let mut answer = plain(serde_json::json!({ "output": name }).to_string());
    *answer.status_mut() = StatusCode::CREATED;
    answer
}

/// The content of the first part of a multipart form.
fn first_file(asked: &Asked) -> Option<&[u8]> {
    let kind = asked.header("content-type")?;
    let boundary = kind
        .strip_prefix("multipart/form-data;")?
        .trim()
        .strip_prefix("boundary=")?;
    let end = format!("\r\n--{}", boundary.trim_matches('"'));
    let find = |hay: &[u8], needle: &[u8]| hay.windows(needle.len()).position(|w| w == needle);
    let body = &asked.body[..];
    let start = find(body, b"\r\n\r\n")? + 4;
    let length = find(&body[start..], end.as_bytes())?;
    Some(&body[start..start + length])
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn plain(body: String) -> Answer {
    serve::text(StatusCode::OK, PLAIN, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uri: &str) -> Asked {
        Asked {
            method: http::Method::GET,
            uri: uri.parse().unwrap(),
            version: http::Version::HTTP_11,
            headers: http::HeaderMap::new(),
            body: Bytes::new(),
            peer: "10.244.1.7:4000".parse().unwrap(),
            local: "10.244.2.3:8080".parse().unwrap(),
        }
    }

    async fn said(uri: &str) -> (u16, String) {
        let answer = answer(asked(uri), true).await;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn endpoints_answer_as_the_original() {
        assert_eq!(said("/clientip").await, (200, "10.244.1.7:4000".into()));
        assert_eq!(
            said("/echo?msg=hi%20there&code=418").await,
            (418, "hi there".into())
        );
        assert_eq!(said("/serverport").await, (200, "8080".into()));
        assert_eq!(
            said("/shell?cmd=echo+a;echo+b+1%3E%262;exit+3").await.1,
            "{\"error\":\"exit status 3\",\"output\":\"a\\nb\\n\"}"
        );
        assert_eq!(
            said("/redirect?location=/echo%3Fmsg=x&code=307").await.0,
            307
        );
        assert!(said("/anything").await.1.starts_with("NOW: "));
        assert_eq!(said("/dial?host=127.0.0.1&port=1").await.0, 400);
        let (status, text) = said("/dial?host=127.0.0.1&port=1&request=hostname&tries=2").await;
        assert_eq!(status, 200);
        let error = "Get \\\"http://127.0.0.1:1/hostname\\\": dial tcp 127.0.0.1:1: connect: connection refused";
        assert_eq!(text, format!("{{\"errors\":[\"{error}\",\"{error}\"]}}"));
    }

    #[tokio::test]
    async fn dial_reaches_http_and_udp_servers() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(answer_datagrams(socket));
        let uri =
            format!("/dial?host=127.0.0.1&port={port}&protocol=udp&request=echo%20Hello&tries=2");
        assert_eq!(said(&uri).await.1, "{\"responses\":[\"hello\",\"hello\"]}");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, peer) = listener.accept().await.unwrap();
            serve::converse(
                stream,
                peer,
                serve::handler(async |a| answer(a, true).await),
            )
            .await;
        });
        let uri = format!("/dial?host=127.0.0.1&port={port}&request=echo%3Fmsg%3Dover");
        assert_eq!(said(&uri).await.1, "{\"responses\":[\"over\"]}");
    }
}
