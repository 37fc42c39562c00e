//! The server that stands for images nobody knows: it says what it was asked.

use std::fmt::Write as _;
use std::net::SocketAddr;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::serve::{self, Answer, Asked, Handler};

/// `echo-server PORT...`
pub(super) fn main(args: &[String]) -> i32 {
    let ports: Vec<u16> = args.iter().filter_map(|a| a.parse().ok()).collect();
    let ports = if ports.is_empty() { vec![8080] } else { ports };
    serve::run(async move {
        let handler = serve::handler(async |asked| answer(&asked));
        for port in ports {
            let listener = serve::listen(port).await?;
            tokio::spawn(accept(listener, handler.clone()));
            tokio::spawn(echo_datagrams(serve::listen_udp(port).await?));
            serve::say(&format!("echo server on port {port} (tcp, http, udp)"));
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, handler: Handler) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(converse(stream, peer, handler.clone()));
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

/// HTTP where the client speaks it, its own bytes otherwise.
async fn converse(mut stream: TcpStream, peer: SocketAddr, handler: Handler) {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"PATCH ",
        b"OPTIONS ",
        b"TRACE ",
        b"CONNECT ",
    ];
    let mut head = [0u8; 8];
    let Ok(count) = stream.peek(&mut head).await else {
        return;
    };
    if METHODS
        .iter()
        .any(|m| head[..count].starts_with(&m[..m.len().min(count)]))
        && count > 0
    {
        serve::converse(stream, peer, handler).await;
        return;
    }
    let mut chunk = vec![0u8; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        if stream.write_all(&chunk[..count]).await.is_err() {
            return;
        }
    }
}

async fn echo_datagrams(socket: UdpSocket) {
    let mut datagram = vec![0u8; 64 << 10];
    loop {
        if let Ok((count, peer)) = socket.recv_from(&mut datagram).await {
            // A client that has gone is no fault of the server's.
            let _ = socket.send_to(&datagram[..count], peer).await;
        }
    }
}

fn answer(asked: &Asked) -> Answer {
    let mut out = String::new();
    let _ = writeln!(out, "Hostname: {}", serve::host_name());
    let _ = writeln!(out, "Client: {}", asked.peer);
    let _ = writeln!(out, "Server: {}\n", asked.local);
    let _ = writeln!(out, "{} {} {:?}", asked.method, asked.uri, asked.version);
    for (name, value) in &asked.headers {
        let _ = writeln!(out, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    let mut out = out.into_bytes();
    if !asked.body.is_empty() {
        out.push(b'\n');
        out.extend_from_slice(&asked.body);
    }
    serve::say(&format!(
        "{} {} {}",
        asked.peer.ip(),
        asked.method,
        asked.uri
    ));
    serve::text(StatusCode::OK, "text/plain; charset=utf-8", out)
}
