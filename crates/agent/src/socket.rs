//! The agent's socket: one request a connection, root only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pods::cni::{CniError, code};
use pods::wire::{Answer, MOST_REQUEST, Request};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::Published;
use crate::drops::Drops;
use crate::names::Board;
use crate::worker::Worker;

/// A caller that does not finish its question in this time is cut off.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once.
const CONNECTIONS: usize = 512;

/// Binds the socket. A file left by an agent that ended is replaced; one that is in use is not.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        format!("socket {}: {what}: {error}", path.display())
    };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(|error| failed("make its folder", &error))?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(failed(
            "listen",
            &"another agent listens on it; end it first",
        ));
    }
    // Bound under another name and moved into place: there is no moment without a socket.
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(&new).map_err(|error| failed("listen", &error))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))
        .map_err(|error| failed("set its mode", &error))?;
    fs::rename(&new, path).map_err(|error| failed("put it in place", &error))?;
    Ok(listener)
}

/// What answers need.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub drops: Arc<Drops>,
    pub worker: Worker,
    pub published: Published,
    pub node: String,
    pub board: Board,
}

impl Server {
    /// Answers until dropped.
    pub(crate) async fn serve(self, listener: UnixListener) -> Result<(), String> {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return Ok(());
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors: those in use come back.
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let server = self.clone();
            tokio::spawn(async move {
                if let Err(error) = server.connection(stream).await {
                    tracing::debug!(%error, "connection");
                }
                drop(place);
            });
        }
    }

    async fn connection(&self, mut stream: UnixStream) -> std::io::Result<()> {
        if stream.peer_cred()?.uid() != 0 {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(2048);
        let mut limited = (&mut stream).take(MOST_REQUEST as u64 + 1);
        timeout(PATIENCE, limited.read_to_end(&mut bytes))
            .await
            .map_err(|_| std::io::ErrorKind::TimedOut)??;
        let answer = if bytes.len() > MOST_REQUEST {
            Answer::Error(CniError::new(
                code::IO,
                format!("the request has more than {MOST_REQUEST} bytes"),
            ))
        } else {
            match serde_json::from_slice(&bytes) {
                Ok(Request::Drops { place, past }) => {
                    return self.drops.serve(&mut stream, place, past).await;
                }
                Ok(request) => self.answer(request).await,
                Err(error) => {
                    Answer::Error(CniError::new(code::DECODE, format!("request: {error}")))
                }
            }
        };
        let bytes = serde_json::to_vec(&answer).map_err(std::io::Error::other)?;
        timeout(PATIENCE, stream.write_all(&bytes))
            .await
            .map_err(|_| std::io::ErrorKind::TimedOut)?
    }

    async fn answer(&self, request: Request) -> Answer {
        let result = match request {
            Request::Cni { call, config } => self
                .worker
                .cni(call, config)
                .await
                .map(|result| result.unwrap_or(Value::Null)),
            Request::Status => self.status().await,
            Request::Routes => self.routes().await,
            Request::Cluster => self.cluster(),
            Request::Dns => Ok(json!(self.board.shown())),
            // Answered with more than one line, before this.
            Request::Drops { .. } => Ok(Value::Null),
        };
        match result {
            Ok(value) => Answer::Ok(value),
            Err(error) => Answer::Error(error),
        }
    }

    async fn status(&self) -> Result<Value, CniError> {
        let view = self
            .worker
            .view()
            .await
            .map_err(|cause| CniError::new(code::NOT_AVAILABLE, cause))?;
        let snapshot = self.published.load();
        Ok(json!({
            "node": self.node,
            "version": env!("CARGO_PKG_VERSION"),
            "synced": snapshot.synced,
            "policiesSynced": snapshot.policies_synced,
            "complete": snapshot.complete,
            "problems": *snapshot.problems,
            "settings": view.settings,
            "pools": view.pools.iter().map(|(net, size, used)| json!({
                "cidr": net,
                "size": u64::try_from(*size).unwrap_or(u64::MAX),
                "used": u64::try_from(*used).unwrap_or(u64::MAX),
            })).collect::<Vec<_>>(),
            "attachments": view.attachments,
            "dns": self.board.shown(),
        }))
    }

    async fn routes(&self) -> Result<Value, CniError> {
        let view = self
            .worker
            .view()
            .await
            .map_err(|cause| CniError::new(code::NOT_AVAILABLE, cause))?;
        let pods: Vec<Value> = view
            .attachments
            .iter()
            .flat_map(|attachment| {
                attachment.ips().map(move |ip| {
                    json!({"dst": ip, "dev": attachment.host_link, "why": format!("pod {}", attachment.pod)})
                })
            })
            .collect();
        let snapshot = self.published.load();
        Ok(json!({ "node": self.node, "fabric": snapshot.fabric.as_deref(), "pods": pods }))
    }

    /// Of pods only the node's own: each node tells of its own.
    fn cluster(&self) -> Result<Value, CniError> {
        let snapshot = self.published.load();
        let pods = snapshot.cluster.pods.values();
        let own = pods.filter(|pod| pod.node == self.node);
        Ok(json!({
            "node": self.node,
            "config": snapshot.config.as_deref(),
            "fabric": snapshot.fabric.as_deref(),
            "services": snapshot.cluster.services.values().collect::<Vec<_>>(),
            "slices": snapshot.cluster.slices.values().collect::<Vec<_>>(),
            "nodes": snapshot.cluster.nodes.values().collect::<Vec<_>>(),
            "pods": own.collect::<Vec<_>>(),
        }))
    }
}
