//! Deployment: a ReplicaSet for each template there was, sized so that the new one takes
//! over without anybody noticing.

mod rollout;
mod sets;
mod status;

use std::sync::Arc;

use api::events::{Severity, reference};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use super::action::{Action, Plan, Step};
use super::amount;
use super::driver::Controller;
use super::pods;
use super::store::Key;
use super::world::{Changed, Kind, World};
use crate::scheduler::selector;
use rollout::{Bounds, Numbers, Share};
use sets::{Sets, replicas, size};
use status::NewSet;

/// The Deployment controller.
pub struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn affected(&mut self, world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        match changed {
            Changed::Deployment(change) => {
                if let Some(deployment) = change.any() {
                    mark(Key::of(deployment.as_ref()));
                }
            }
            Changed::ReplicaSet(change) => {
                for set in change.both() {
                    let namespace = set.namespace().unwrap_or_default();
                    match pods::controller_of(&set.metadata) {
                        Some(owner) => mark(Key::new(&namespace, &owner.name)),
                        None => {
                            for deployment in world.deployments.within(&namespace) {
                                mark(Key::of(deployment.as_ref()));
                            }
                        }
                    }
                }
            }
            // Recreate waits for the last old pod to end.
            Changed::Pod(change) if change.new.as_deref().is_none_or(api::convert::is_finished) => {
                let Some(pod) = change.any() else { return };
                let namespace = pod.namespace().unwrap_or_default();
                let set = pods::controller_of(&pod.metadata)
                    .and_then(|owner| world.replica_sets.get(&namespace, &owner.name));
                if let Some(owner) = set.and_then(|set| pods::controller_of(&set.metadata)) {
                    mark(Key::new(&namespace, &owner.name));
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, world: &World, key: &Key, now: Timestamp) -> Plan {
        match world.deployments.at(key) {
            Some(deployment) => plan(world, deployment, now),
            None => Plan::default(),
        }
    }
}

/// What to do about one Deployment.
pub fn plan(world: &World, deployment: &Deployment, now: Timestamp) -> Plan {
    let mut work = Work::new(world, deployment);
    let Some(spec) = &deployment.spec else {
        return work.plan;
    };
    let mut new = match &work.sets.new {
        Some(set) => NewSet::Found(set.name_any()),
        None => NewSet::None,
    };
    if deployment.metadata.deletion_timestamp.is_none() && work.plan.steps.is_empty() {
        if spec.paused == Some(true) || work.is_scaled() {
            work.refresh();
            work.scale();
        } else if work.rolling {
            work.refresh();
            new = work.roll(new);
        } else {
            new = work.recreate(new);
        }
    }
    work.finish(&new, now)
}

struct Work<'a> {
    world: &'a World,
    deployment: &'a Deployment,
    sets: Sets,
    bounds: Bounds,
    rolling: bool,
    collision: bool,
    plan: Plan,
}

impl<'a> Work<'a> {
    fn new(world: &'a World, deployment: &'a Deployment) -> Self {
        let spec = deployment.spec.clone().unwrap_or_default();
        let strategy = spec.strategy.unwrap_or_default();
        let rolling = strategy.type_.as_deref() != Some("Recreate");
        let total = replicas(deployment);
        let (surge, unavailable) = match strategy.rolling_update {
            Some(rolling_update) if rolling => amount::fence_posts(
                rolling_update.max_surge.as_ref(),
                rolling_update.max_unavailable.as_ref(),
                total,
            ),
            _ => (0, 0),
        };
        let (owned, claims) = claim(world, deployment);
        let mut plan = Plan::default();
        if !claims.is_empty() {
            plan.steps.push(Step::Each(claims));
        }
        Self {
            world,
            deployment,
            sets: Sets::sort(deployment, owned),
            bounds: Bounds {
                replicas: total,
                surge,
                unavailable: unavailable.min(total),
            },
            rolling,
            collision: false,
            plan,
        }
    }

    /// True where the Deployment was scaled since its sets were sized.
    fn is_scaled(&self) -> bool {
        let desired = self.bounds.replicas.to_string();
        self.sets.all().filter(|set| size(set) > 0).any(|set| {
            let known = set.annotations().get(sets::DESIRED);
            known.is_some_and(|known| *known != desired)
        })
    }

    /// Brings annotations of the new set and the Deployment's own revision up to date.
    fn refresh(&mut self) {
        let Some(new) = &self.sets.new else { return };
        let next = self.sets.next_revision();
        let revision = next.max(sets::revision(&new.metadata));
        if let Some(action) = sets::refresh(self.deployment, new, next) {
            // Its resourceVersion moves on: what else is to be done waits for the next plan.
            self.plan.push(action);
        }
        self.set_revision(revision);
    }

    fn set_revision(&mut self, revision: i64) {
        if sets::revision(&self.deployment.metadata) != revision {
            let patch =
                json!({"metadata": {"annotations": {sets::REVISION: revision.to_string()}}});
            let key = Key::of(self.deployment);
            self.plan.push(Action::patch(Kind::Deployment, &key, patch));
        }
    }

    /// A rolling update's next step.
    fn roll(&mut self, new: NewSet) -> NewSet {
        if !self.plan.steps.is_empty() {
            return new;
        }
        let old: Vec<Numbers> = self.sets.old.iter().map(numbers).collect();
        let Some(set) = self.sets.new.clone() else {
            let none = Numbers {
                wanted: 0,
                available: 0,
            };
            return self.make(rollout::new_size(self.bounds, none, &old));
        };
        let to = rollout::new_size(self.bounds, numbers(&set), &old);
        if to != size(&set) {
            self.resize(&set, to);
            return new;
        }
        let sizes = rollout::old_sizes(self.bounds, numbers(&set), &old);
        for (set, to) in self.sets.old.clone().iter().zip(sizes) {
            if size(set) != to {
                self.resize(set, to);
            }
        }
        new
    }

    /// Recreate: first all old pods go, then the new ones come.
    fn recreate(&mut self, new: NewSet) -> NewSet {
        self.refresh();
        if !self.plan.steps.is_empty() {
            return new;
        }
        let running: Vec<_> = self
            .sets
            .old
            .iter()
            .filter(|set| size(set) > 0)
            .cloned()
            .collect();
        if !running.is_empty() {
            for set in running {
                self.resize(&set, 0);
            }
            return new;
        }
        let uids = self
            .sets
            .old
            .iter()
            .filter_map(|set| set.metadata.uid.as_deref());
        let mut pods = uids.flat_map(|uid| self.world.pods_of(uid));
        if pods.any(|pod| !api::convert::is_finished(pod)) {
            return new;
        }
        match self.sets.new.clone() {
            None => self.make(self.bounds.replicas),
            Some(set) => {
                if size(&set) != self.bounds.replicas {
                    self.resize(&set, self.bounds.replicas);
                }
                new
            }
        }
    }

    /// Makes the new set.
    fn make(&mut self, replicas: i32) -> NewSet {
        let revision = self.sets.next_revision();
        let set = sets::make(self.deployment, replicas, self.bounds.surge, revision);
        let name = set.name_any();
        let namespace = self.deployment.namespace().unwrap_or_default();
        if self.world.replica_sets.get(&namespace, &name).is_some() {
            // Another template has this name: the next plan makes another one.
            self.collision = true;
            return NewSet::None;
        }
        self.plan
            .push(Action::create(Kind::ReplicaSet, &namespace, &set));
        if replicas > 0 {
            self.scaled(&name, 0, replicas);
        }
        self.set_revision(revision);
        NewSet::Created(name)
    }

    fn resize(&mut self, set: &ReplicaSet, to: i32) {
        if let Some(action) = sets::resize(self.deployment, set, to, self.bounds.surge) {
            self.plan.push(action);
            if size(set) != to {
                self.scaled(&set.name_any(), size(set), to);
            }
        }
    }

    fn scaled(&mut self, name: &str, from: i32, to: i32) {
        let way = if to > from { "up" } else { "down" };
        self.plan.push(Action::Event {
            on: reference(self.deployment),
            severity: Severity::Normal,
            reason: "ScalingReplicaSet",
            message: format!("Scaled {way} replica set {name} from {from} to {to}"),
        });
    }

    /// The Deployment's size changed, or it is paused: no set takes over from another,
    /// all keep their share.
    fn scale(&mut self) {
        if !self.plan.steps.is_empty() {
            return;
        }
        let active: Vec<Arc<ReplicaSet>> = self
            .sets
            .all()
            .filter(|set| size(set) > 0)
            .cloned()
            .collect();
        let only = match active.as_slice() {
            [] => self
                .sets
                .new
                .clone()
                .or_else(|| self.sets.old.last().cloned()),
            [one] => Some(one.clone()),
            _ => None,
        };
        if let Some(only) = only {
            self.resize(&only, self.bounds.replicas);
            return;
        }
        let saturated = self
            .sets
            .new
            .as_ref()
            .is_some_and(|new| self.is_saturated(new));
        if saturated || !self.rolling {
            for set in self.sets.old.clone() {
                if size(&set) > 0 {
                    self.resize(&set, 0);
                }
            }
            return;
        }
        let allowed = match self.bounds.replicas {
            0 => 0,
            replicas => replicas + self.bounds.surge,
        };
        self.scale_in_proportion(active, allowed);
    }

    fn scale_in_proportion(&mut self, mut active: Vec<Arc<ReplicaSet>>, allowed: i32) {
        let total: i32 = active.iter().map(|set| size(set)).sum();
        // Growth goes to the newest of the large ones, shrinking to the oldest.
        active.sort_by_key(|set| (-size(set), set.creation_timestamp()));
        if allowed > total {
            active.sort_by_key(|set| (-size(set), std::cmp::Reverse(set.creation_timestamp())));
        }
        let shares: Vec<Share> = active
            .iter()
            .map(|set| Share {
                size: size(set),
                of: set
                    .annotations()
                    .get(sets::MAX)
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(total),
            })
            .collect();
        for (set, to) in active.iter().zip(rollout::proportional(&shares, allowed)) {
            self.resize(set, to);
        }
    }

    fn is_saturated(&self, set: &ReplicaSet) -> bool {
        let desired = self.bounds.replicas;
        let known = set
            .annotations()
            .get(sets::DESIRED)
            .and_then(|text| text.parse().ok());
        let available = set.status.as_ref().and_then(|s| s.available_replicas);
        size(set) == desired && known == Some(desired) && available == Some(desired)
    }

    fn finish(mut self, new: &NewSet, now: Timestamp) -> Plan {
        let unavailable = self.bounds.unavailable;
        let (mut status, again) = status::of(self.deployment, &self.sets, new, unavailable, now);
        if self.collision {
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        }
        if let Some(again) = again {
            self.plan.again_at(again);
        }
        if status::is_complete(self.deployment, &status) && self.plan.steps.is_empty() {
            self.forget_history();
        }
        let key = Key::of(self.deployment);
        let old: Option<&DeploymentStatus> = self.deployment.status.as_ref();
        let write = Action::status(Kind::Deployment, &key, old, &status);
        self.plan.push_some(write);
        self.plan
    }

    /// Deletes the oldest empty sets beyond `revisionHistoryLimit`.
    fn forget_history(&mut self) {
        let spec = self.deployment.spec.as_ref();
        let limit = spec.and_then(|s| s.revision_history_limit).unwrap_or(10);
        let empty = |set: &&Arc<ReplicaSet>| {
            let status = set.status.clone().unwrap_or_default();
            size(set) == 0
                && status.replicas == 0
                && status.observed_generation >= set.metadata.generation
                && set.metadata.deletion_timestamp.is_none()
        };
        let mut empty: Vec<_> = self.sets.old.iter().filter(empty).cloned().collect();
        empty.sort_by_key(|set| sets::revision(&set.metadata));
        let limit = usize::try_from(limit).unwrap_or(0);
        for set in empty.iter().take(empty.len().saturating_sub(limit)) {
            let uid = set.uid().unwrap_or_default();
            self.plan.push(Action::delete(
                Kind::ReplicaSet,
                &Key::of(set.as_ref()),
                &uid,
            ));
        }
    }
}

fn numbers(set: &Arc<ReplicaSet>) -> Numbers {
    let status = set.status.as_ref();
    Numbers {
        wanted: size(set),
        available: status.and_then(|s| s.available_replicas).unwrap_or(0),
    }
}

/// The sets a Deployment has, and which it adopts and lets go.
fn claim(world: &World, deployment: &Deployment) -> (Vec<Arc<ReplicaSet>>, Vec<Action>) {
    let mut owned = Vec::new();
    let mut actions = Vec::new();
    let Some(spec) = &deployment.spec else {
        return (owned, actions);
    };
    let uid = deployment.metadata.uid.as_deref().unwrap_or("");
    let alive = deployment.metadata.deletion_timestamp.is_none();
    let namespace = deployment.namespace().unwrap_or_default();
    for set in world.replica_sets.within(&namespace) {
        let matches = selector::matches(&spec.selector, set.labels());
        match pods::controller_of(&set.metadata) {
            Some(owner) if owner.uid == uid && matches => owned.push(set.clone()),
            Some(owner) if owner.uid == uid && alive => {
                actions.push(pods::release(Kind::ReplicaSet, set.as_ref(), uid));
            }
            None if matches && alive && set.metadata.deletion_timestamp.is_none() => {
                actions.push(pods::adopt(Kind::ReplicaSet, set.as_ref(), deployment));
            }
            _ => {}
        }
    }
    (owned, actions)
}
