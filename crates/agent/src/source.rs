//! Updates of the cluster, from wherever they come.

use futures::stream::{self, BoxStream, StreamExt};
use model::{Change, Config};

use crate::options::Source;

/// One thing the agent learns.
#[derive(Debug)]
pub enum Update {
    /// A node, pod, namespace, policy, Service or slice of endpoints changed.
    Change(Change),
    /// The configuration, first or changed.
    Config(Box<Config>),
    /// All nodes there were at the start have been told.
    Synced,
    /// So have all Services and slices: before, nothing of theirs is touched in the kernel.
    ServicesSynced,
    /// So have all pods, namespaces and policies: before, no rule of theirs is touched in the
    /// kernel, and no pod of Kubernetes is attached.
    PoliciesSynced,
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
    /// The cluster's Corefile, first, changed or once more; none where there is none.
    Corefile(Option<Corefile>),
    /// Something could not be learned; what was known stays.
    Problem(String),
}

/// The cluster's Corefile, as its ConfigMap has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corefile {
    /// The ConfigMap's `metadata.uid`.
    pub uid: String,
    /// What is written.
    pub text: String,
}

/// The stream of updates, and the client to write back with where there is an API server.
pub(crate) async fn open(
    source: Source,
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
            let changes = |what, synced: fn() -> Update| {
                let updates = api::watch::changes(&client, what);
                updates.map(move |update| match update {
                    api::watch::Update::Change(change) => Update::Change(change),
                    api::watch::Update::Synced => synced(),
                    api::watch::Update::Bad {
                        object,
                        uid,
                        problem,
                    } => Update::Bad {
                        object,
                        uid,
                        problem,
                    },
                    api::watch::Update::Good { object } => Update::Good { object },
                    api::watch::Update::Problem(error) => problem(&error),
                })
            };
            // Apart from each other: the fabric does not wait for thousands of Services or pods.
            let fabric = changes(api::watch::What::FABRIC, || Update::Synced);
            let services = changes(api::watch::What::SERVICES, || Update::ServicesSynced);
            let policies = changes(api::watch::What::POLICIES, || Update::PoliciesSynced);
            let config = api::watch::config(&client).map(|update| match update {
                api::watch::ConfigUpdate::Config(config) => Update::Config(config),
                api::watch::ConfigUpdate::Missing => Update::Problem(format!(
                    "ConfigMap {}/{} is not there; apply one (`flatnet install` writes it)",
                    api::convert::CONFIG_NAMESPACE,
                    api::convert::CONFIG_NAME
                )),
                api::watch::ConfigUpdate::Bad { uid, error } => Update::Bad {
                    object: format!(
                        "ConfigMap {}/{}",
                        api::convert::CONFIG_NAMESPACE,
                        api::convert::CONFIG_NAME
                    ),
                    uid,
                    problem: error.to_string(),
                },
                api::watch::ConfigUpdate::Problem(error) => problem(&error),
            });
            let corefile = api::watch::corefile(&client).map(|update| match update {
                api::watch::CorefileUpdate::Corefile { uid, text } => {
                    Update::Corefile(Some(Corefile { uid, text }))
                }
                api::watch::CorefileUpdate::Missing => Update::Corefile(None),
                api::watch::CorefileUpdate::Problem(error) => problem(&error),
            });
            let many = stream::select(services, policies);
            let few = stream::select(config, corefile);
            let all = stream::select(many, stream::select(fabric, few));
            Ok((all.boxed(), Some(client)))
        }
    }
}

fn problem(error: &api::Error) -> Update {
    match error {
        api::Error::Field { object, .. } => Update::Bad {
            object: object.clone(),
            uid: String::new(),
            problem: error.to_string(),
        },
        _ => Update::Problem(error.to_string()),
    }
}
