//! ReplicaSet: so many pods of one template.

use std::collections::{BTreeMap, HashMap};

use api::Error;
use api::events::reference;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::action::{Action, Plan, Step};
use super::driver::Controller;
use super::pods::{self, Availability};
use super::store::Key;
use super::world::{Changed, Kind, World, node_of};

/// Pods made or deleted by one plan at most.
const BURST: usize = 500;

/// The ReplicaSet controller.
#[derive(Default)]
pub struct ReplicaSets {
    /// Why pods of a set could not be made or deleted.
    failures: HashMap<Key, String>,
}

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset-controller"
    }

    fn width(&self) -> usize {
        8
    }

    fn affected(&mut self, world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        match changed {
            Changed::ReplicaSet(change) => {
                if let Some(set) = change.any() {
                    mark(Key::of(set.as_ref()));
                }
                if change.new.is_none()
                    && let Some(old) = &change.old
                {
                    self.failures.remove(&Key::of(old.as_ref()));
                }
            }
            Changed::Pod(change) => pods::mark_owners(
                change,
                |namespace| world.replica_sets.within(namespace).collect(),
                |set: &ReplicaSet| set.spec.as_ref().map(|spec| &spec.selector),
                mark,
            ),
            _ => {}
        }
    }

    fn plan(&mut self, world: &World, key: &Key, now: Timestamp) -> Plan {
        match world.replica_sets.at(key) {
            Some(set) => plan(world, set, self.failures.get(key).map(String::as_str), now),
            None => Plan::default(),
        }
    }

    fn finished(&mut self, key: &Key, failure: Option<&Error>) {
        match failure {
            None => self.failures.remove(key),
            Some(error) if error.is_conflict() => None,
            Some(error) => self.failures.insert(key.clone(), error.to_string()),
        };
    }
}

/// What to do about one ReplicaSet. `failure` is why the last plan did not succeed.
pub fn plan(world: &World, set: &ReplicaSet, failure: Option<&str>, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let claimed = pods::claim(world, set, &spec.selector);
    let (active, rest): (Vec<_>, Vec<_>) = claimed
        .pods
        .into_iter()
        .partition(|pod| pods::is_active(pod));
    let terminating = rest.iter().filter(|pod| pods::is_terminating(pod)).count();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);

    let mut status = status(set, &active, terminating, now, &mut plan);
    let difference = wanted.abs_diff(active.len());
    status.conditions = conditions(set, failure, active.len() < wanted, difference != 0, now);
    let write = Action::status(
        Kind::ReplicaSet,
        &Key::of(set),
        set.status.as_ref(),
        &status,
    );
    plan.push_some(write);

    let adopting = !claimed.actions.is_empty();
    if adopting {
        plan.steps.push(Step::Each(claimed.actions));
    }
    // Whoever has just been adopted counts in the next plan.
    if set.metadata.deletion_timestamp.is_some() || adopting {
        return plan;
    }
    let on = reference(set);
    if active.len() < wanted {
        let Some(template) = &spec.template else {
            return plan;
        };
        let pod = pods::from_template(template, set);
        let namespace = set.namespace().unwrap_or_default();
        let create = Action::create(Kind::Pod, &namespace, &pod).noted(pods::creation(&on));
        plan.steps
            .push(Step::SlowStart(vec![create; difference.min(BURST)]));
    } else if active.len() > wanted {
        let crowd = crowd(world, set);
        let mut victims = active;
        pods::sort_for_deletion(&mut victims, &crowd, now);
        let deletes = victims.iter().take(difference.min(BURST));
        plan.steps.push(Step::Each(
            deletes.map(|pod| pods::delete(pod, &on)).collect(),
        ));
    }
    plan
}

/// How many active pods of the same owner (all ReplicaSets of a Deployment) each node has.
fn crowd(world: &World, set: &ReplicaSet) -> BTreeMap<String, usize> {
    let namespace = set.namespace().unwrap_or_default();
    let owner = pods::controller_of(&set.metadata).map(|owner| owner.uid.as_str());
    let related = world.replica_sets.within(&namespace).filter(|other| {
        other.metadata.uid == set.metadata.uid
            || (owner.is_some()
                && pods::controller_of(&other.metadata).map(|o| o.uid.as_str()) == owner)
    });
    let mut crowd = BTreeMap::new();
    for other in related {
        for pod in world.pods_of(other.metadata.uid.as_deref().unwrap_or("")) {
            if pods::is_active(pod) && !node_of(pod).is_empty() {
                *crowd.entry(node_of(pod).to_owned()).or_default() += 1;
            }
        }
    }
    crowd
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn status(
    set: &ReplicaSet,
    active: &[std::sync::Arc<k8s_openapi::api::core::v1::Pod>],
    terminating: usize,
    now: Timestamp,
    plan: &mut Plan,
) -> ReplicaSetStatus {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let template = spec.and_then(|s| s.template.as_ref());
    let labels = template
        .and_then(|t| t.metadata.as_ref())
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let (mut full, mut ready, mut available) = (0, 0, 0);
    for pod in active {
        let have = pod.labels();
        full += i32::from(labels.iter().all(|(k, v)| have.get(k) == Some(v)));
        ready += i32::from(pods::is_ready(pod));
        match pods::availability(pod, min_ready, now) {
            Availability::Yes => available += 1,
            Availability::From(when) => plan.again_at(when),
            Availability::No => {}
        }
    }
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(full),
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: None,
    }
}

/// `ReplicaFailure` while pods can be neither made nor deleted.
fn conditions(
    set: &ReplicaSet,
    failure: Option<&str>,
    creating: bool,
    differs: bool,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    const TYPE: &str = "ReplicaFailure";
    let have = set.status.as_ref().and_then(|s| s.conditions.clone());
    let mut others = have.clone().unwrap_or_default();
    others.retain(|condition| condition.type_ != TYPE);
    if let Some(message) = failure.filter(|_| differs) {
        let known = have.iter().flatten().find(|c| c.type_ == TYPE).cloned();
        others.push(known.unwrap_or_else(|| {
            ReplicaSetCondition {
                type_: TYPE.to_owned(),
                status: "True".to_owned(),
                reason: Some(
                    if creating {
                        "FailedCreate"
                    } else {
                        "FailedDelete"
                    }
                    .to_owned(),
                ),
                message: Some(message.to_owned()),
                last_transition_time: Some(Time(now)),
            }
        }));
    }
    // An absent list stays absent: it reads back as it was written.
    (!others.is_empty()).then_some(others)
}
