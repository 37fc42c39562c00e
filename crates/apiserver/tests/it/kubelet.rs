//! Logs, exec and proxies, through a kubelet made here.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::{Server, send};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Says what it was asked; echoes what is sent after an upgrade.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.headers().contains_key(header::UPGRADE) {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let mut buffer = [0; 64];
            loop {
                let length = stream.read(&mut buffer).await.unwrap();
                if length == 0 {
                    return;
                }
                stream.write_all(&buffer[..length]).await.unwrap();
            }
        });
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response
            .headers_mut()
            .insert(header::UPGRADE, "echo".parse().unwrap());
        response
            .headers_mut()
            .insert(header::CONNECTION, "Upgrade".parse().unwrap());
        return Ok(response);
    }
    let said = format!("{} {}", request.method(), request.uri());
    Ok(Response::new(Full::new(said.into())))
}

/// A kubelet that only believes in the cluster's authority; its port.
async fn kubelet(server: &Server) -> u16 {
    let authority = certs::Pki::open(server.dir.path()).unwrap().authority;
    let pair = authority
        .server("kubelet", None, &["node1"], &["127.0.0.1".parse().unwrap()])
        .unwrap();
    let pem = |text: &str| {
        rustls_pemfile::certs(&mut text.as_bytes())
            .map(Result::unwrap)
            .collect::<Vec<_>>()
    };
    let mut roots = RootCertStore::empty();
    roots.add(pem(authority.certificate()).remove(0)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let key = rustls_pemfile::private_key(&mut pair.key.as_bytes())
        .unwrap()
        .unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(pem(&pair.certificate), key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let stream = tls.accept(stream).await.unwrap();
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .with_upgrades()
                    .await;
            });
        }
    });
    port
}

async fn with_pod() -> Server {
    let server = Server::start().await;
    let port = kubelet(&server).await;
    let node = json!({"metadata": {"name": "node1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    assert_eq!(server.post("/api/v1/nodes", &node).await.0, 201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "node1", "containers": [{"name": "c", "image": "nginx"}]}});
    assert_eq!(server.post(PODS, &pod).await.0, 201);
    server
}

#[tokio::test]
async fn logs_and_node_proxies_come_from_the_kubelet() {
    let server = with_pod().await;
    assert_eq!(
        server
            .get(&format!("{PODS}/p/log?follow=true&tailLines=3&container=c"))
            .await,
        (
            200,
            json!("GET /containerLogs/default/p/c?follow=true&tailLines=3")
        )
    );
    assert_eq!(
        server
            .get("/api/v1/nodes/node1/proxy/stats/summary?a=b")
            .await,
        (200, json!("GET /stats/summary?a=b"))
    );
    let (_, said) = send(
        &server.client,
        http::Method::POST,
        "/api/v1/nodes/node1/proxy/run",
        "text/plain",
        "x",
    )
    .await;
    assert_eq!(said, "POST /run");
}

#[tokio::test]
async fn only_who_may_create_exec_reaches_the_kubelet() {
    let server = with_pod().await;
    let bob = server.client_of("bob", None).await;
    let (code, refused) = send(
        &bob,
        http::Method::POST,
        &format!("{PODS}/p/exec?command=ls"),
        "",
        "",
    )
    .await;
    assert_eq!(code, 403);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("cannot create resource \"pods/exec\""),
        "{refused}"
    );
}

#[tokio::test]
async fn after_an_upgrade_bytes_pass_both_ways() {
    let server = with_pod().await;
    // kube's own client has no upgrade to a protocol of no name, so TLS by hand.
    let pki = certs::Pki::open(server.dir.path()).unwrap();
    let admin = pki
        .authority
        .client("admin", Some("system:masters"))
        .unwrap();
    let certificates = |text: &str| {
        rustls_pemfile::certs(&mut text.as_bytes())
            .map(Result::unwrap)
            .collect::<Vec<_>>()
    };
    let mut roots = RootCertStore::empty();
    roots
        .add(certificates(pki.authority.certificate()).remove(0))
        .unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_client_auth_cert(
        certificates(&admin.certificate),
        rustls_pemfile::private_key(&mut admin.key.as_bytes())
            .unwrap()
            .unwrap(),
    )
    .unwrap();
    let address = server.url.trim_start_matches("https://");
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    let request = format!(
        "POST {PODS}/p/exec?command=cat&stdin=true&stdout=true HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    for word in ["one", "two"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut back = [0; 3];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, word.as_bytes());
    }
}

#[tokio::test]
async fn a_pod_is_reached_by_its_proxy() {
    let server = with_pod().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer)),
            );
        }
    });
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    let (code, _) = server
        .patch(
            &format!("{PODS}/p/status"),
            "application/merge-patch+json",
            &status,
        )
        .await;
    assert_eq!(code, 200);
    assert_eq!(
        server.get(&format!("{PODS}/p:{port}/proxy/a/b?c=d")).await,
        (200, json!("GET /a/b?c=d"))
    );
}
