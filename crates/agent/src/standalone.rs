//! The names of a cluster for a server that is no agent's: `flatnet dns`.
//!
//! It watches what a DNS server must see and nothing else, and publishes one consistent view
//! after each handful of changes. Where the API server is away, the last view stays.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use api::client::Access;
use api::watch::{Update, What};
use arc_swap::ArcSwapOption;
use dns::corefile::plugins::{Kubernetes, PodMode};
use dns::corefile::{Corefile, Error, ErrorKind};
use dns::plan::View;
use futures::StreamExt as _;
use kube::Client;
use model::{Changed, Cluster};
use tokio::sync::oneshot;

/// So many changes are taken in before they are published together, where they have come.
const TOGETHER: usize = 1024;

/// Which cluster a Corefile is about, and what of it is to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How to reach its API server.
    pub access: Access,
    /// Some plugin has to know whose an address is.
    pub pods: bool,
}

/// What to watch for a Corefile; nothing where it has no plugin `kubernetes`. `kubeconfig` is
/// taken where the Corefile says nothing of how to reach the API server.
///
/// # Errors
/// Blocks are about different clusters.
pub fn wanted(corefile: &Corefile, kubeconfig: Option<&PathBuf>) -> Result<Option<Wanted>, Error> {
    let mut wanted: Option<Wanted> = None;
    for server in &corefile.servers {
        if let Some(kubernetes) = &server.plugins.kubernetes {
            let access = access(kubernetes, kubeconfig);
            let pods = kubernetes.pods == PodMode::Verified || server.plugins.autopath.is_some();
            match &mut wanted {
                None => wanted = Some(Wanted { access, pods }),
                Some(first) if first.access == access => first.pods |= pods,
                Some(_) => {
                    return Err(Error {
                        at: server.at.clone(),
                        kind: ErrorKind::Plugin("kubernetes"),
                        message: "it is about another API server than the one before it, and a server watches one: run another one for this block".to_owned(),
                    });
                }
            }
        }
    }
    Ok(wanted)
}

fn access(kubernetes: &Kubernetes, kubeconfig: Option<&PathBuf>) -> Access {
    let tls = &kubernetes.tls;
    if let Some(url) = &kubernetes.endpoint {
        return Access::Endpoint {
            url: url.clone(),
            certificate: tls.certificate.clone(),
            ca: tls.ca.clone(),
        };
    }
    match (&kubernetes.kubeconfig, kubeconfig) {
        (Some(named), _) => Access::Kubeconfig {
            file: PathBuf::from(&named.file),
            context: named.context.clone(),
        },
        (None, Some(file)) => Access::Kubeconfig {
            file: file.clone(),
            context: None,
        },
        (None, None) => Access::Pod,
    }
}

/// Keeps `view` as the cluster is, for as long as it is polled. Before all is known nothing is
/// published; `told` hears of it.
pub async fn follow(
    client: Client,
    pods: bool,
    view: Arc<ArcSwapOption<View>>,
    told: oneshot::Sender<()>,
) {
    let mut told = Some(told);
    let what = What {
        pods,
        ..What::NAMES
    };
    let mut updates = api::watch::changes(&client, what).ready_chunks(TOGETHER);
    let mut now = View::default();
    let mut synced = false;
    while let Some(updates) = updates.next().await {
        let mut changed = Changed::default();
        for update in updates {
            synced |= take(update, &mut now.cluster, &mut changed);
        }
        now.names.update(&now.cluster, &changed, SystemTime::now());
        if synced {
            view.store(Some(Arc::new(now.clone())));
            // Nobody may be waiting.
            let _ = told.take().map(|told| told.send(()));
        }
    }
}

/// Takes one update in; true where it says that all has been told.
fn take(update: Update, cluster: &mut Cluster, changed: &mut Changed) -> bool {
    match update {
        Update::Change(change) => {
            cluster.note(change, changed);
        }
        Update::Synced => return true,
        Update::Bad { problem, .. } => tracing::warn!("{problem}"),
        Update::Good { object } => tracing::info!(%object, "understood again"),
        Update::Problem(error) => tracing::warn!("{error}"),
    }
    false
}

#[cfg(test)]
mod tests {
    use dns::corefile::{self, NoSources};

    use super::*;

    fn of(text: &str, kubeconfig: Option<&str>) -> Result<Option<Wanted>, Error> {
        let (corefile, _) = corefile::parse("Corefile", text, 53, &NoSources).unwrap();
        wanted(&corefile, kubeconfig.map(PathBuf::from).as_ref())
    }

    #[test]
    fn the_corefile_says_which_cluster_and_then_the_flag() {
        let plain = ". {\n kubernetes cluster.local\n}\n";
        let pod = Wanted {
            access: Access::Pod,
            pods: false,
        };
        assert_eq!(of(plain, None).unwrap(), Some(pod));
        let flag = of(plain, Some("/k")).unwrap().unwrap().access;
        let file = |file: &str, context: Option<&str>| Access::Kubeconfig {
            file: file.into(),
            context: context.map(str::to_owned),
        };
        assert_eq!(flag, file("/k", None));
        let own = ". {\n kubernetes {\n  kubeconfig /own other\n }\n}\n";
        assert_eq!(
            of(own, Some("/k")).unwrap().unwrap().access,
            file("/own", Some("other"))
        );
        assert_eq!(of(". {\n whoami\n}\n", None).unwrap(), None);
    }

    #[test]
    fn pods_are_watched_where_a_plugin_must_know_them() {
        let verified = ". {\n kubernetes {\n  pods verified\n }\n}\n";
        assert!(of(verified, None).unwrap().unwrap().pods);
        let autopath = ". {\n autopath @kubernetes\n kubernetes\n}\n";
        assert!(of(autopath, None).unwrap().unwrap().pods);
    }

    #[test]
    fn two_clusters_are_refused_with_the_place() {
        let text = "a.example {\n kubernetes a.example\n}\nb.example {\n kubernetes b.example {\n  endpoint http://10.0.0.1\n }\n}\n";
        let error = of(text, None).unwrap_err().to_string();
        assert!(
            error.starts_with("Corefile:4: kubernetes: it is about another"),
            "{error}"
        );
    }
}
