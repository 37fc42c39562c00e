//! What a Deployment says of itself: counts and conditions with upstream's reasons and
//! messages, by which `kubectl rollout status` goes.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::sets::{Sets, replicas};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";
const DONE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// What happened to the new ReplicaSet in this plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewSet {
    /// It is being made, under this name.
    Created(String),
    /// It was there.
    Found(String),
    /// There is none.
    None,
}

/// The status to write, and when time alone will change it.
pub fn of(
    deployment: &Deployment,
    sets: &Sets,
    new: &NewSet,
    unavailable: i32,
    now: Timestamp,
) -> (DeploymentStatus, Option<Timestamp>) {
    let old = deployment.status.clone().unwrap_or_default();
    let mut status = counts(deployment, sets);
    let mut conditions = Conditions {
        list: old.conditions.clone().unwrap_or_default(),
        now,
    };
    let available = status.available_replicas.unwrap_or(0);
    if available >= replicas(deployment) - unavailable {
        let message = "Deployment has minimum availability.";
        conditions.set(
            AVAILABLE,
            "True",
            "MinimumReplicasAvailable",
            message.to_owned(),
        );
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.set(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            message.to_owned(),
        );
    }
    let deadline = deadline(deployment);
    let mut again = None;
    if let Some(deadline) = deadline {
        pausing(deployment, &mut conditions);
        found(new, &mut conditions);
        if deployment.spec.as_ref().and_then(|s| s.paused) != Some(true) {
            again = progress(deployment, sets, &old, &status, deadline, &mut conditions);
        }
    }
    failure(sets, &mut conditions);
    status.conditions = Some(conditions.list);
    (status, again)
}

/// Pods of all sets in numbers.
fn counts(deployment: &Deployment, sets: &Sets) -> DeploymentStatus {
    let sum = |field: &dyn Fn(&ReplicaSet) -> i32| sets.all().map(|set| field(set)).sum::<i32>();
    let status = |set: &ReplicaSet| set.status.clone().unwrap_or_default();
    let total = sum(&|set| status(set).replicas);
    let available = sum(&|set| status(set).available_replicas.unwrap_or(0));
    let terminating = sum(&|set| status(set).terminating_replicas.unwrap_or(0));
    DeploymentStatus {
        replicas: Some(total),
        updated_replicas: Some(sets.new.as_ref().map_or(0, |set| status(set).replicas)),
        ready_replicas: Some(sum(&|set| status(set).ready_replicas.unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((total - available).max(0)),
        terminating_replicas: Some(terminating),
        observed_generation: deployment.metadata.generation,
        collision_count: deployment.status.as_ref().and_then(|s| s.collision_count),
        conditions: None,
    }
}

/// True where all pods are new and available, and nothing else is left.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(replicas(deployment));
    let or_zero = |number: Option<i32>| Some(number.unwrap_or(0));
    or_zero(status.updated_replicas) == wanted
        && or_zero(status.replicas) == wanted
        && or_zero(status.available_replicas) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn deadline(deployment: &Deployment) -> Option<i32> {
    let spec = deployment.spec.as_ref()?;
    spec.progress_deadline_seconds
        .filter(|seconds| *seconds != i32::MAX)
}

fn pausing(deployment: &Deployment, conditions: &mut Conditions) {
    let reason = conditions.get(PROGRESSING).and_then(|c| c.reason.clone());
    // What has timed out stays so until something new happens.
    if reason.as_deref() == Some(TIMED_OUT) {
        return;
    }
    let paused = deployment.spec.as_ref().and_then(|s| s.paused) == Some(true);
    match (paused, reason.as_deref() == Some(PAUSED)) {
        (true, false) => {
            conditions.set(
                PROGRESSING,
                "Unknown",
                PAUSED,
                "Deployment is paused".to_owned(),
            );
        }
        (false, true) => {
            let message = "Deployment is resumed".to_owned();
            conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", message);
        }
        _ => {}
    }
}

fn found(new: &NewSet, conditions: &mut Conditions) {
    match new {
        NewSet::Created(name) => conditions.set(
            PROGRESSING,
            "True",
            "NewReplicaSetCreated",
            format!("Created new replica set {name:?}"),
        ),
        NewSet::Found(name) if conditions.get(PROGRESSING).is_none() => conditions.set(
            PROGRESSING,
            "True",
            "FoundNewReplicaSet",
            format!("Found new replica set {name:?}"),
        ),
        NewSet::Found(_) | NewSet::None => {}
    }
}

fn progress(
    deployment: &Deployment,
    sets: &Sets,
    old: &DeploymentStatus,
    status: &DeploymentStatus,
    deadline: i32,
    conditions: &mut Conditions,
) -> Option<Timestamp> {
    let current = conditions.get(PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|c| c.reason.as_deref());
    if status.replicas == status.updated_replicas && reason == Some(DONE) {
        return None;
    }
    let name = match &sets.new {
        Some(set) => format!("ReplicaSet {:?}", set.name_any()),
        None => format!("Deployment {:?}", deployment.name_any()),
    };
    if is_complete(deployment, status) {
        let message = format!("{name} has successfully progressed.");
        conditions.set(PROGRESSING, "True", DONE, message);
        return None;
    }
    if has_progressed(old, status) {
        conditions.renew(
            PROGRESSING,
            "True",
            "ReplicaSetUpdated",
            format!("{name} is progressing."),
        );
    }
    let since = conditions.get(PROGRESSING)?;
    if matches!(since.reason.as_deref(), Some(DONE | TIMED_OUT)) {
        return None;
    }
    let since = since.last_update_time.as_ref()?.0.as_second();
    let end = since.saturating_add(i64::from(deadline));
    if conditions.now.as_second() > end {
        let message = format!("{name} has timed out progressing.");
        conditions.set(PROGRESSING, "False", TIMED_OUT, message);
        return None;
    }
    Timestamp::from_second(end.saturating_add(1)).ok()
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let number = |field: Option<i32>| field.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| number(s.replicas) - number(s.updated_replicas);
    number(new.updated_replicas) > number(old.updated_replicas)
        || outdated(new) < outdated(old)
        || number(new.ready_replicas) > number(old.ready_replicas)
        || number(new.available_replicas) > number(old.available_replicas)
}

/// A ReplicaSet that cannot make its pods makes the Deployment say so.
fn failure(sets: &Sets, conditions: &mut Conditions) {
    let of = |set: &ReplicaSet| {
        let list = set.status.as_ref()?.conditions.as_ref()?;
        list.iter().find(|c| c.type_ == FAILURE).cloned()
    };
    let failed = sets.new.iter().chain(&sets.old).find_map(|set| of(set));
    match failed {
        Some(c) => conditions.set(
            FAILURE,
            &c.status,
            c.reason.as_deref().unwrap_or(""),
            c.message.unwrap_or_default(),
        ),
        None => conditions.list.retain(|c| c.type_ != FAILURE),
    }
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|c| c.type_ == kind)
    }

    /// Sets a condition; one that already has this status and reason stays as it is.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let same = self
            .get(kind)
            .is_some_and(|c| c.status == status && c.reason.as_deref() == Some(reason));
        if !same {
            self.renew(kind, status, reason, message);
        }
    }

    /// Sets a condition as of now.
    fn renew(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let since = self
            .get(kind)
            .filter(|c| c.status == status)
            .and_then(|c| c.last_transition_time.clone());
        let now = Some(Time(self.now));
        self.list.retain(|c| c.type_ != kind);
        self.list.push(DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: now.clone(),
            last_transition_time: since.or(now),
        });
    }
}
