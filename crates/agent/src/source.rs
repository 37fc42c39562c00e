//! Updates of the cluster, from wherever they come.

use futures::stream::{self, BoxStream, StreamExt};
use model::{Change, Config};

use crate::options::Source;

/// One thing the agent learns.
#[derive(Debug)]
pub enum Update {
    /// A node or pod changed.
    Change(Change),
    /// The configuration, first or changed.
    Config(Box<Config>),
    /// Everything there was at the start has been told.
    Synced,
    /// An object cannot be understood; what was known of it stays.
    Bad {
        /// Kind and name, for example `Node node1`.
        object: String,
        /// `metadata.uid`, empty where it is not known.
        uid: String,
        /// Object, field and cause in one sentence.
        problem: String,
    },
    /// An object that was bad no longer is.
    Good {
        /// As it was named then.
        object: String,
    },
    /// Something could not be learned; what was known stays.
    Problem(String),
}

/// The stream of updates, and the client to write back with where there is an API server.
pub(crate) async fn open(
    source: Source,
    node: &str,
) -> Result<(BoxStream<'static, Update>, Option<kube::Client>), String> {
    match source {
        Source::Given(receiver) => {
            let updates = stream::unfold(receiver, |mut receiver| async {
                receiver.recv().await.map(|update| (update, receiver))
            });
            // The end of the sender is not the end of the agent.
            Ok((updates.chain(stream::pending()).boxed(), None))
        }
        Source::Kubernetes { kubeconfig } => {
            let client = api::client(kubeconfig.as_deref(), "flatnet-agent")
                .await
                .map_err(|error| error.to_string())?;
            let changes =
                api::watch::changes(&client, node, api::watch::What::FABRIC).map(|update| {
                    match update {
                        api::watch::Update::Change(change) => Update::Change(change),
                        api::watch::Update::Synced => Update::Synced,
                        api::watch::Update::Problem(error) => problem(&error),
                    }
                });
            let config = api::watch::config(&client).map(|update| match update {
                api::watch::ConfigUpdate::Config(config) => Update::Config(config),
                api::watch::ConfigUpdate::Missing => Update::Problem(format!(
                    "ConfigMap {}/{} is not there; apply one (`flatnet install` writes it)",
                    api::convert::CONFIG_NAMESPACE,
                    api::convert::CONFIG_NAME
                )),
                api::watch::ConfigUpdate::Problem(error) => problem(&error),
            });
            Ok((stream::select(changes, config).boxed(), Some(client)))
        }
    }
}

fn problem(error: &api::Error) -> Update {
    match error {
        api::Error::Field { object, .. } => Update::Bad {
            object: object.clone(),
            problem: error.to_string(),
        },
        _ => Update::Problem(error.to_string()),
    }
}
