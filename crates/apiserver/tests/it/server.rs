//! A server for one test, and requests to it.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

/// A running server with an administrator's client.
pub struct Server {
    pub dir: tempfile::TempDir,
    pub url: String,
    pub client: Client,
    running: Option<apiserver::Server>,
}

/// The options of a test's server.
pub fn options(dir: &Path, listener: TcpListener) -> apiserver::Options {
    apiserver::Options {
        data_dir: dir.to_owned(),
        listeners: vec![listener],
        service_cidrs: vec![
            "10.96.0.0/12".parse().unwrap(),
            "fd00:10:96::/112".parse().unwrap(),
        ],
        node_ports: 30000..=32767,
        advertise: vec!["10.0.1.1".parse().unwrap()],
        advertise_port: 6443,
        connect: apiserver::connect_directly(),
    }
}

impl Server {
    /// Starts one in a fresh folder.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let running = apiserver::Server::start(options(dir.path(), listener))
            .await
            .unwrap();
        let client = client(dir.path(), &url, "admin", Some("system:masters")).await;
        Self {
            dir,
            url,
            client,
            running: Some(running),
        }
    }

    /// The text of a kubeconfig for somebody.
    pub fn kubeconfig(&self, user: &str, group: Option<&str>) -> String {
        kubeconfig(self.dir.path(), &self.url, user, group)
    }

    /// A client for somebody.
    pub async fn client_of(&self, user: &str, group: Option<&str>) -> Client {
        client(self.dir.path(), &self.url, user, group).await
    }

    /// Stops and waits.
    pub async fn stop(mut self) -> tempfile::TempDir {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
        self.dir
    }

    /// Stops, and starts again in the same folder.
    pub async fn again(self) -> Self {
        let dir = self.stop().await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let running = loop {
            let listener = listener.try_clone().unwrap();
            match apiserver::Server::start(options(dir.path(), listener)).await {
                Ok(server) => break server,
                // The last connections still hold the store.
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let client = client(dir.path(), &url, "admin", Some("system:masters")).await;
        Self {
            dir,
            url,
            client,
            running: Some(running),
        }
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        send(&self.client, Method::GET, path, "application/json", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        send(
            &self.client,
            Method::POST,
            path,
            "application/json",
            &body.to_string(),
        )
        .await
    }

    pub async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        send(
            &self.client,
            Method::PUT,
            path,
            "application/json",
            &body.to_string(),
        )
        .await
    }

    pub async fn patch(&self, path: &str, media: &str, body: &Value) -> (u16, Value) {
        send(&self.client, Method::PATCH, path, media, &body.to_string()).await
    }

    pub async fn delete(&self, path: &str, body: &Value) -> (u16, Value) {
        send(
            &self.client,
            Method::DELETE,
            path,
            "application/json",
            &body.to_string(),
        )
        .await
    }

    /// Asks until the answer satisfies `good`.
    pub async fn until(&self, path: &str, good: impl Fn(u16, &Value) -> bool) -> (u16, Value) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let (code, value) = self.get(path).await;
            if good(code, &value) {
                return (code, value);
            }
            assert!(Instant::now() < deadline, "{path} stayed {code} {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub fn kubeconfig(dir: &Path, url: &str, user: &str, group: Option<&str>) -> String {
    certs::Pki::open(dir)
        .unwrap()
        .kubeconfig("test", url, user, group)
        .unwrap()
}

pub async fn client(dir: &Path, url: &str, user: &str, group: Option<&str>) -> Client {
    client_from(&kubeconfig(dir, url, user, group)).await
}

pub async fn client_from(kubeconfig: &str) -> Client {
    let parsed = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
        .await
        .unwrap();
    // Failures are what is looked at here: none is tried again.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// Any request; a body that is no JSON comes back as a string.
pub async fn send(
    client: &Client,
    method: Method,
    path: &str,
    media: &str,
    body: &str,
) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .body(Body::from(body.as_bytes().to_vec()))
        .unwrap();
    request_with(client, request).await
}

/// A GET with an Accept header.
pub async fn accept(client: &Client, path: &str, accept: &str) -> (u16, Value) {
    let request = Request::builder()
        .uri(path)
        .header("accept", accept)
        .body(Body::empty())
        .unwrap();
    request_with(client, request).await
}

async fn request_with(client: &Client, request: Request<Body>) -> (u16, Value) {
    let answer = client.send(request).await.unwrap();
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let value = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    (code, value)
}
