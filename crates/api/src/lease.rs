//! Leader election on a Lease, with client-go's rules: whoever holds the Lease leads;
//! whoever sees it unrenewed for its duration, by its own clock, may take it.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::Error;

/// Which Lease, and who asks for it.
#[derive(Clone, Debug)]
pub struct Election {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who holds it; unique among those who ask.
    pub identity: String,
    /// How long others wait after the last renewal.
    pub duration: Duration,
    /// How long to try to renew before giving up leading; less than `duration`.
    pub deadline: Duration,
    /// How often to try.
    pub retry: Duration,
}

impl Election {
    /// With client-go's times: 15 s, 10 s, 2 s.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// How leading ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// The work was done.
    Done(T),
    /// The Lease could not be renewed in time, or somebody else has it. The work was dropped.
    Lost,
}

/// What the Lease last said, and when (by the own clock) it began to say so.
#[derive(Clone, Debug, Default)]
struct Observed {
    spec: Option<LeaseSpec>,
    since: Option<Timestamp>,
}

impl Observed {
    fn see(&mut self, spec: Option<&LeaseSpec>, now: Timestamp) {
        if self.spec.as_ref() != spec || self.since.is_none() {
            self.spec = spec.cloned();
            self.since = Some(now);
        }
    }
}

/// The record to write, or None while somebody else leads. Pure.
fn step(election: &Election, observed: &Observed, now: Timestamp) -> Option<LeaseSpec> {
    let seconds = i32::try_from(election.duration.as_secs()).unwrap_or(i32::MAX);
    let mine = |acquired: MicroTime, transitions: i32| LeaseSpec {
        holder_identity: Some(election.identity.clone()),
        lease_duration_seconds: Some(seconds),
        acquire_time: Some(acquired),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    };
    let Some(spec) = &observed.spec else {
        return Some(mine(MicroTime(now), 0));
    };
    let transitions = spec.lease_transitions.unwrap_or(0);
    let holder = spec.holder_identity.as_deref().unwrap_or("");
    if holder == election.identity {
        let acquired = spec.acquire_time.clone().unwrap_or(MicroTime(now));
        return Some(mine(acquired, transitions));
    }
    let stated = i64::from(spec.lease_duration_seconds.unwrap_or(seconds));
    let silent = observed
        .since
        .map_or(0, |since| now.as_millisecond() - since.as_millisecond());
    (holder.is_empty() || silent >= stated * 1000)
        .then(|| mine(MicroTime(now), transitions.saturating_add(1)))
}

/// Waits until this process leads, then runs `work` while it does. The Lease is given
/// back when the work is done.
pub async fn lead<F, T>(
    client: &Client,
    election: &Election,
    work: impl FnOnce() -> F,
) -> Result<Ended<T>, Error>
where
    F: Future<Output = T>,
{
    let api: Api<Lease> = Api::namespaced(client.clone(), &election.namespace);
    let mut observed = Observed::default();
    loop {
        match attempt(&api, election, &mut observed).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => tracing::warn!("leader election: {error}"),
        }
        tokio::time::sleep(election.retry).await;
    }
    tracing::info!(
        lease = election.name,
        identity = election.identity,
        "leading"
    );
    tokio::select! {
        done = work() => {
            release(&api, election).await;
            Ok(Ended::Done(done))
        }
        () = renew(&api, election, &mut observed) => Ok(Ended::Lost),
    }
}

/// Renews until the deadline passes without success.
async fn renew(api: &Api<Lease>, election: &Election, observed: &mut Observed) {
    let mut renewed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(election.retry).await;
        let result =
            tokio::time::timeout(election.deadline, attempt(api, election, observed)).await;
        match result {
            Ok(Ok(true)) => renewed = tokio::time::Instant::now(),
            Ok(Ok(false)) => return,
            Ok(Err(error)) => tracing::warn!("renewing the leader's lease: {error}"),
            Err(_) => tracing::warn!("renewing the leader's lease: no answer"),
        }
        if renewed.elapsed() >= election.deadline {
            return;
        }
    }
}

/// One try; true where this process leads after it.
async fn attempt(
    api: &Api<Lease>,
    election: &Election,
    observed: &mut Observed,
) -> Result<bool, Error> {
    let what = || format!("Lease {}/{}", election.namespace, election.name);
    let live = api
        .get_opt(&election.name)
        .await
        .map_err(Error::request(format!("get {}", what())))?;
    let now = Timestamp::now();
    observed.see(live.as_ref().and_then(|lease| lease.spec.as_ref()), now);
    let Some(spec) = step(election, observed, now) else {
        return Ok(false);
    };
    let written = match live {
        Some(mut lease) => {
            lease.spec = Some(spec.clone());
            api.replace(&election.name, &PostParams::default(), &lease)
                .await
        }
        None => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(election.name.clone()),
                    namespace: Some(election.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(spec.clone()),
            };
            api.create(&PostParams::default(), &lease).await
        }
    };
    match written {
        Ok(_) => {
            observed.see(Some(&spec), now);
            Ok(true)
        }
        // Somebody else was quicker: look again.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(Error::request(format!("write {}", what()))(error)),
    }
}

/// Gives the Lease back, so that the next one need not wait.
async fn release(api: &Api<Lease>, election: &Election) {
    let Ok(mut lease) = api.get(&election.name).await else {
        return;
    };
    let Some(spec) = &mut lease.spec else { return };
    if spec.holder_identity.as_deref() != Some(&election.identity) {
        return;
    }
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    if let Err(error) = api
        .replace(&election.name, &PostParams::default(), &lease)
        .await
    {
        tracing::debug!("lease not given back: {}", crate::error::cause(&error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_free_lease_is_taken_a_held_one_only_after_its_duration_of_silence() {
        let a = Election::new("kube-system", "flatnet", "a");
        let b = Election::new("kube-system", "flatnet", "b");
        let mut seen = Observed::default();
        seen.see(None, at(0));
        let taken = step(&a, &seen, at(0)).unwrap();
        assert_eq!(taken.lease_transitions, Some(0));

        seen.see(Some(&taken), at(1));
        assert_eq!(step(&b, &seen, at(15)), None);
        let renewed = step(&a, &seen, at(10)).unwrap();
        assert_eq!(renewed.acquire_time, Some(MicroTime(at(0))));

        // The renewal starts b's wait again, whatever the holder's clock says.
        seen.see(Some(&renewed), at(11));
        assert_eq!(step(&b, &seen, at(25)), None);
        let stolen = step(&b, &seen, at(26)).unwrap();
        assert_eq!(stolen.lease_transitions, Some(1));
        assert_eq!(stolen.holder_identity.as_deref(), Some("b"));
    }

    #[test]
    fn a_returned_lease_is_free_at_once() {
        let b = Election::new("kube-system", "flatnet", "b");
        let mut seen = Observed::default();
        let returned = LeaseSpec {
            holder_identity: Some(String::new()),
            ..LeaseSpec::default()
        };
        seen.see(Some(&returned), at(5));
        assert!(step(&b, &seen, at(5)).is_some());
    }
}
