//! The agent as a process of its own: this test binary, started once more.

use std::path::PathBuf;

use ::agent::{Options, Source, Update};
use model::{Change, Config};
use tokio::sync::mpsc;

/// Folder of the node; its presence in the environment makes [`serve`] an agent.
pub const DIR: &str = "FLATNET_TEST_AGENT_DIR";
/// A kubeconfig: the agent learns from that API server instead.
pub const KUBECONFIG: &str = "FLATNET_TEST_AGENT_KUBECONFIG";
/// `model::Config` and `model::Node` as JSON.
pub const CONFIG: &str = "FLATNET_TEST_AGENT_CONFIG";
pub const NODE: &str = "FLATNET_TEST_AGENT_NODE";

/// Not a test: the agent's process.
#[test]
#[ignore = "started by other tests"]
fn serve() {
    run_if_asked();
}

/// Runs an agent where the environment says so; returns only where it does not.
pub fn run_if_asked() {
    let Ok(dir) = std::env::var(DIR).map(PathBuf::from) else {
        return;
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let config: Config = serde_json::from_str(&std::env::var(CONFIG).unwrap()).unwrap();
    let node: model::Node = serde_json::from_str(&std::env::var(NODE).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (updates, source) = mpsc::channel(16);
        let name = node.name.clone();
        // A node without a range stands for a node the API server says nothing of.
        if !node.pod_cidrs.is_empty() {
            updates
                .send(Update::Config(Box::new(config)))
                .await
                .unwrap();
            updates
                .send(Update::Change(Change::Node(node)))
                .await
                .unwrap();
            updates.send(Update::Synced).await.unwrap();
            updates.send(Update::PoliciesSynced).await.unwrap();
        }
        let source = match std::env::var(KUBECONFIG) {
            Ok(file) => Source::Kubernetes {
                kubeconfig: Some(file.into()),
            },
            Err(_) => Source::Given(source),
        };
        let options = Options {
            socket: dir.join("agent.sock"),
            state: dir.join("state"),
            cni_conf: Some(dir.join("net.d")),
            healthz: None,
            metrics: None,
            ..Options::new(name, source)
        };
        ::agent::run(options).await.unwrap();
        drop(updates);
    });
}
