//! The Leases of elections, in the API.

use std::time::Duration;

use api::Error;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

/// Label of all Leases of elections; its value says of which sort.
const LABEL: &str = "flatnet.io/announce";
const HEART: &str = "heart";
const SLOT: &str = "slot";
/// Where they are.
const NAMESPACE: &str = "kube-system";
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a Lease says.
#[derive(Debug)]
pub(super) enum Said {
    /// Who holds the slot of this Lease; nobody where the name is empty.
    Holder(String, String),
    /// The heart of this node has beaten, as of this version.
    Beat(String, String),
}

/// The Leases, as one node handles them.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    api: Api<Lease>,
    me: String,
}

impl Leases {
    pub(super) fn new(client: &Client, me: &str) -> Self {
        Self {
            api: Api::namespaced(client.clone(), NAMESPACE),
            me: me.to_owned(),
        }
    }

    pub(super) fn api(&self) -> Api<Lease> {
        self.api.clone()
    }

    /// Which of them to watch.
    pub(super) fn selector() -> &'static str {
        LABEL
    }

    /// Shows that this node lives.
    pub(super) async fn beat(&self) -> Result<(), Error> {
        let name = heart(&self.me);
        let what = || format!("renew Lease {NAMESPACE}/{name}");
        let patch = json!({"spec": {"renewTime": MicroTime(Timestamp::now())}});
        let patch = Patch::Merge(patch);
        let params = PatchParams::default();
        let patched = self.api.patch(&name, &params, &patch);
        match within(patched).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let lease = self.lease(&name, HEART);
                within(self.api.create(&PostParams::default(), &lease))
                    .await
                    .map(|_| ())
            }
            other => other.map(|_| ()),
        }
        .map_err(Error::request(what()))
    }

    /// Becomes the holder if it is still `from` whose heart has not beaten since; what the
    /// Leases say after it.
    pub(super) async fn take(
        &self,
        name: &str,
        from: Option<(String, Option<String>)>,
    ) -> Result<Vec<Said>, Error> {
        let what = || format!("take Lease {NAMESPACE}/{name}");
        let failed = |error| Error::request(what())(error);
        let (holder, version) = from.unwrap_or_default();
        let heart_of = heart(&holder);
        let heart = async {
            if holder.is_empty() {
                return Ok(None);
            }
            within(self.api.get_opt(&heart_of)).await
        };
        let (heart, live) = futures::future::join(heart, within(self.api.get_opt(name))).await;
        let (heart, live) = (heart.map_err(failed)?, live.map_err(failed)?);
        if let Some(heart) = heart
            && heart.resource_version() != version
        {
            // The watch is behind: it lives.
            return Ok(said(&heart).into_iter().collect());
        }
        let Some(mut lease) = live else {
            let lease = self.lease(name, SLOT);
            let created = within(self.api.create(&PostParams::default(), &lease)).await;
            return self.outcome(created, failed);
        };
        if holder_of(&lease) != holder {
            return Ok(said(&lease).into_iter().collect());
        }
        let old = lease.spec.take().unwrap_or_default();
        let mut new = self.lease(name, SLOT).spec.unwrap_or_default();
        new.lease_transitions = Some(old.lease_transitions.unwrap_or(0).saturating_add(1));
        lease.spec = Some(new);
        let replaced = within(self.api.replace(name, &PostParams::default(), &lease)).await;
        self.outcome(replaced, failed)
    }

    fn outcome(
        &self,
        written: Result<Lease, kube::Error>,
        failed: impl FnOnce(kube::Error) -> Error,
    ) -> Result<Vec<Said>, Error> {
        match written {
            Ok(lease) => Ok(said(&lease).into_iter().collect()),
            // Somebody was quicker: the watch will tell who.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Gives a Lease back, where this node holds it.
    pub(super) async fn release(&self, name: &str) -> Result<Vec<Said>, Error> {
        let failed = |error| Error::request(format!("release Lease {NAMESPACE}/{name}"))(error);
        let live = within(self.api.get_opt(name)).await.map_err(failed)?;
        let Some(mut lease) = live.filter(|lease| holder_of(lease) == self.me) else {
            return Ok(Vec::new());
        };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        let replaced = within(self.api.replace(name, &PostParams::default(), &lease)).await;
        self.outcome(replaced, failed)
    }

    /// What all of them say now.
    pub(super) async fn read(&self) -> Result<Vec<Said>, Error> {
        let all = within(self.api.list(&ListParams::default().labels(LABEL))).await;
        let all = all.map_err(Error::request("list Leases"))?;
        Ok(all.items.iter().filter_map(said).collect())
    }

    fn lease(&self, name: &str, sort: &str) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(NAMESPACE.to_owned()),
                labels: Some([(LABEL.to_owned(), sort.to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                // The API knows whole seconds only.
                lease_duration_seconds: Some(2),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        }
    }
}

async fn within<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(result) => result,
        Err(_) => Err(kube::Error::Service("no answer within a second".into())),
    }
}

fn heart(node: &str) -> String {
    format!("flatnet-announcer-{node}")
}

fn holder_of(lease: &Lease) -> String {
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.clone());
    holder.unwrap_or_default()
}

/// What a Lease of elections says.
pub(super) fn said(lease: &Lease) -> Option<Said> {
    match lease.labels().get(LABEL)?.as_str() {
        SLOT => Some(Said::Holder(lease.name_any(), holder_of(lease))),
        HEART => {
            let version = lease.resource_version().unwrap_or_default();
            Some(Said::Beat(holder_of(lease), version))
        }
        _ => None,
    }
}
