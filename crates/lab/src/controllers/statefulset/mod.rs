//! StatefulSet: pods with numbers that keep their names, one after the other.

mod identity;
mod steps;

use std::sync::Arc;

use api::events::{Severity, reference};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::action::{Action, Plan, Step};
use super::driver::Controller;
use super::pods::{self, Availability};
use super::revision::{self, HASH, History};
use super::store::Key;
use super::world::{Changed, Kind, World};

/// The StatefulSet controller.
pub struct StatefulSets;

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn affected(&mut self, world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        match changed {
            Changed::StatefulSet(change) => {
                if let Some(set) = change.any() {
                    mark(Key::of(set.as_ref()));
                }
            }
            Changed::ControllerRevision(change) => {
                for revision in change.both() {
                    if let Some(owner) = pods::controller_of(&revision.metadata)
                        && owner.kind == "StatefulSet"
                    {
                        mark(Key::new(
                            &revision.namespace().unwrap_or_default(),
                            &owner.name,
                        ));
                    }
                }
            }
            Changed::Pod(change) => pods::mark_owners(
                change,
                |namespace| world.stateful_sets.within(namespace).collect(),
                |set: &StatefulSet| set.spec.as_ref().map(|spec| &spec.selector),
                mark,
            ),
            _ => {}
        }
    }

    fn plan(&mut self, world: &World, key: &Key, now: Timestamp) -> Plan {
        match world.stateful_sets.at(key) {
            Some(set) => plan(world, set, now),
            None => Plan::default(),
        }
    }
}

/// Everything a step looks at.
struct View<'a> {
    set: &'a StatefulSet,
    /// Name of the revision pods had before the update that is under way.
    current: String,
    /// Its template.
    current_template: PodTemplateSpec,
    /// Name of the revision of the template as it is.
    update: String,
    /// Pods by number: wanted ones (some missing), then those to go, highest first.
    wanted: Vec<(i32, Option<Arc<Pod>>)>,
    condemned: Vec<Arc<Pod>>,
    now: Timestamp,
}

/// What to do about one StatefulSet.
pub fn plan(world: &World, set: &StatefulSet, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let claimed = pods::claim(world, set, &spec.selector);
    // Only a pod with one of our names can be ours.
    let adoptions: Vec<Action> = claimed
        .actions
        .into_iter()
        .filter(|action| match action {
            Action::Patch { key, .. } => identity::ordinal(set, &key.name).is_some(),
            _ => true,
        })
        .collect();
    if !adoptions.is_empty() {
        plan.steps.push(Step::Each(adoptions));
        return plan;
    }
    let collisions = set.status.as_ref().and_then(|s| s.collision_count);
    let mut history = revision::of(world, set, &spec.template, collisions);
    if let Some(action) = history.action.take() {
        plan.push(action);
    }
    let view = view(set, &history, claimed.pods, now);
    let status = status(&view, &mut plan);
    let write = Action::status(
        Kind::StatefulSet,
        &Key::of(set),
        set.status.as_ref(),
        &status,
    );
    plan.push_some(write);
    // After the status is written: the next plan sees that this has been said.
    plan.push_some(stand_in(set));
    if set.metadata.deletion_timestamp.is_none() {
        steps::next(&view, status.current_replicas.unwrap_or(0), &mut plan);
    }
    let limit = spec.revision_history_limit.unwrap_or(10);
    let is_live = |revision: &k8s_openapi::api::apps::v1::ControllerRevision| {
        let name = revision.name_any();
        let pods = view.wanted.iter().filter_map(|(_, pod)| pod.as_ref());
        name == view.current
            || pods
                .chain(&view.condemned)
                .any(|pod| pod.labels().get(HASH) == Some(&name))
    };
    for action in history.forget(limit, is_live) {
        plan.push(action);
    }
    plan
}

/// Says, when the set is first seen, what its claims become here.
fn stand_in(set: &StatefulSet) -> Option<Action> {
    let seen = set.status.as_ref().and_then(|s| s.observed_generation);
    let claims = set.spec.as_ref()?.volume_claim_templates.as_deref()?;
    if seen.unwrap_or(0) > 0 || claims.is_empty() {
        return None;
    }
    let names: Vec<String> = claims.iter().map(ResourceExt::name_any).collect();
    Some(Action::Event {
        on: reference(set),
        severity: Severity::Warning,
        reason: "VolumeClaimsNotPersistent",
        message: format!(
            "There are no persistent volumes in this cluster: an emptyDir stands in for each of volumeClaimTemplates {}; its content does not outlive the pod",
            names.join(", ")
        ),
    })
}

fn view<'a>(
    set: &'a StatefulSet,
    history: &History,
    pods: Vec<Arc<Pod>>,
    now: Timestamp,
) -> View<'a> {
    let spec = set.spec.clone().unwrap_or_default();
    let stated = set.status.as_ref().and_then(|s| s.current_revision.clone());
    let current = history
        .all
        .iter()
        .find(|revision| Some(revision.name_any()) == stated);
    let start = identity::start(set);
    let end = start.saturating_add(spec.replicas.unwrap_or(1).max(0));
    let mut wanted: Vec<(i32, Option<Arc<Pod>>)> = (start..end).map(|n| (n, None)).collect();
    let mut condemned: Vec<(i32, Arc<Pod>)> = Vec::new();
    for pod in pods {
        let Some(ordinal) = identity::ordinal(set, &pod.name_any()) else {
            continue;
        };
        match usize::try_from(ordinal - start)
            .ok()
            .and_then(|i| wanted.get_mut(i))
        {
            Some(slot) => slot.1 = Some(pod),
            None => condemned.push((ordinal, pod)),
        }
    }
    condemned.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    View {
        set,
        current: current.map_or_else(|| history.name.clone(), |revision| revision.name_any()),
        current_template: current
            .and_then(|revision| revision::template(revision))
            .unwrap_or(spec.template),
        update: history.name.clone(),
        wanted,
        condemned: condemned.into_iter().map(|(_, pod)| pod).collect(),
        now,
    }
}

impl View<'_> {
    fn availability(&self, pod: &Pod) -> Availability {
        let spec = self.set.spec.as_ref();
        let min_ready = spec.and_then(|s| s.min_ready_seconds).unwrap_or(0);
        if pods::phase(pod) != "Running" {
            return Availability::No;
        }
        pods::availability(pod, min_ready, self.now)
    }

    fn is_of(pod: &Pod, revision: &str) -> bool {
        pod.labels().get(HASH).map(String::as_str) == Some(revision)
    }

    fn is_rolling(&self) -> bool {
        let strategy = self
            .set
            .spec
            .as_ref()
            .and_then(|s| s.update_strategy.as_ref());
        strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete")
    }

    fn partition(&self) -> i32 {
        let strategy = self
            .set
            .spec
            .as_ref()
            .and_then(|s| s.update_strategy.as_ref());
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        rolling.and_then(|r| r.partition).unwrap_or(0)
    }
}

fn status(view: &View<'_>, plan: &mut Plan) -> StatefulSetStatus {
    let old = view.set.status.clone().unwrap_or_default();
    let mut status = StatefulSetStatus {
        observed_generation: view.set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
        current_revision: Some(view.current.clone()),
        update_revision: Some(view.update.clone()),
        ..StatefulSetStatus::default()
    };
    let (mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0);
    let wanted = view.wanted.iter().filter_map(|(_, pod)| pod.as_ref());
    for pod in wanted.chain(&view.condemned) {
        status.replicas += 1;
        if pods::phase(pod) == "Running" && pods::is_ready(pod) {
            ready += 1;
            match view.availability(pod) {
                Availability::Yes => available += 1,
                Availability::From(when) => plan.again_at(when),
                Availability::No => {}
            }
        }
        if pod.metadata.deletion_timestamp.is_none() {
            current += i32::from(View::is_of(pod, &view.current));
            updated += i32::from(View::is_of(pod, &view.update));
        }
    }
    let wanted = i32::try_from(view.wanted.len()).unwrap_or(i32::MAX);
    let all_new = updated == wanted && ready == wanted && status.replicas == wanted;
    if view.is_rolling() && all_new {
        current = updated;
        status.current_revision = Some(view.update.clone());
    }
    status.ready_replicas = Some(ready);
    status.available_replicas = Some(available);
    status.current_replicas = Some(current);
    status.updated_replicas = Some(updated);
    status
}

#[cfg(test)]
mod tests;
