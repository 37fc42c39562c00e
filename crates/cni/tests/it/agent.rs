//! The agent as a process of its own: this test binary, started once more.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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
/// Pods, namespaces and policies there are: JSON of [`World`].
pub const WORLD: &str = "FLATNET_TEST_AGENT_WORLD";
/// A file in the folder: while it is there, the agent hears of no pod and no policy.
pub const UNAWARE: &str = "unaware";

/// What an agent is told of policies and what they are about.
#[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct World {
    pub namespaces: Vec<model::Namespace>,
    pub pods: Vec<model::Pod>,
    pub policies: Vec<model::NetworkPolicy>,
}

impl World {
    fn changes(self) -> impl Iterator<Item = Change> {
        let namespaces = self.namespaces.into_iter().map(Arc::new);
        let pods = self.pods.into_iter().map(Arc::new);
        let policies = self.policies.into_iter().map(Arc::new);
        (namespaces.map(Change::Namespace))
            .chain(pods.map(Change::Pod))
            .chain(policies.map(Change::Policy))
    }
}

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
        let nothing = node.pod_cidrs.is_empty();
        if !nothing {
            updates
                .send(Update::Config(Box::new(config)))
                .await
                .unwrap();
            updates
                .send(Update::Change(Change::Node(node)))
                .await
                .unwrap();
            updates.send(Update::Synced).await.unwrap();
        }
        let world = std::env::var(WORLD).unwrap_or_else(|_| "null".into());
        let world: Option<World> = serde_json::from_str(&world).unwrap();
        let unaware = dir.join(UNAWARE);
        tokio::spawn(async move {
            while unaware.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let changes = world.unwrap_or_default().changes().map(Update::Change);
            let synced = (!nothing).then_some(Update::PoliciesSynced);
            for update in changes.chain(synced) {
                updates.send(update).await.unwrap();
            }
            // Until the end of the agent.
            std::future::pending::<()>().await;
            drop(updates);
        });
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
    });
}
