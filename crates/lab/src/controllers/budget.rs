//! PodDisruptionBudget: how many pods may be evicted now.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::action::{Action, Plan};
use super::amount::resolve;
use super::driver::Controller;
use super::pods::{controller_of, is_active, is_ready};
use super::store::Key;
use super::world::{Changed, Kind, World};
use crate::scheduler::selector;

/// Seconds an eviction may take to be seen as a deletion.
const EVICTION: i64 = 120;

/// The disruption controller.
pub struct Budgets;

impl Controller for Budgets {
    fn name(&self) -> &'static str {
        "controllermanager"
    }

    fn affected(&mut self, world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        let namespace = match changed {
            Changed::PodDisruptionBudget(change) => {
                if let Some(budget) = &change.new {
                    mark(Key::of(budget.as_ref()));
                }
                return;
            }
            Changed::Pod(change) => change.any().and_then(|o| o.namespace()),
            Changed::ReplicaSet(change) => change.any().and_then(|o| o.namespace()),
            Changed::StatefulSet(change) => change.any().and_then(|o| o.namespace()),
            _ => None,
        };
        for budget in namespace.iter().flat_map(|n| world.budgets.within(n)) {
            mark(Key::of(budget.as_ref()));
        }
    }

    fn plan(&mut self, world: &World, key: &Key, now: Timestamp) -> Plan {
        match world.budgets.at(key) {
            Some(budget) => plan(world, budget, now),
            None => Plan::default(),
        }
    }
}

/// The status of one budget.
pub fn plan(world: &World, budget: &PodDisruptionBudget, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &budget.spec else {
        return plan;
    };
    let namespace = budget.namespace().unwrap_or_default();
    let Some(wanted) = &spec.selector else {
        return plan;
    };
    let pods: Vec<_> = world
        .pods
        .within(&namespace)
        .filter(|pod| selector::matches(wanted, pod.labels()) && !api::convert::is_finished(pod))
        .collect();
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(amount), _) => {
            let expected = scale(world, &namespace, pods.iter().map(|pod| pod.as_ref()));
            let missing = resolve(amount, expected, true).unwrap_or(0);
            (expected, (expected - missing).max(0))
        }
        (None, Some(amount)) => {
            let counted = i32::try_from(pods.len()).unwrap_or(i32::MAX);
            let percent = matches!(
                amount,
                k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(_)
            );
            let expected = if percent {
                scale(world, &namespace, pods.iter().map(|pod| pod.as_ref()))
            } else {
                counted
            };
            (expected, resolve(amount, expected, true).unwrap_or(0))
        }
        (None, None) => return plan,
    };
    let old = budget.status.clone().unwrap_or_default();
    let mut disrupted = old.disrupted_pods.clone().unwrap_or_default();
    disrupted.retain(|name, since| {
        let alive = pods
            .iter()
            .any(|pod| pod.name_any() == *name && is_active(pod));
        alive && now.as_second() - since.0.as_second() < EVICTION
    });
    if !disrupted.is_empty() {
        let later = Timestamp::from_second(now.as_second() + EVICTION);
        plan.again_at(later.unwrap_or(Timestamp::MAX));
    }
    let healthy = pods
        .iter()
        .filter(|pod| is_active(pod) && is_ready(pod) && !disrupted.contains_key(&pod.name_any()));
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if expected > 0 {
        (healthy - desired).max(0)
    } else {
        0
    };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(vec![condition(
            &old,
            allowed,
            budget.metadata.generation,
            now,
        )]),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
    };
    let key = Key::of(budget);
    let write = Action::status(
        Kind::PodDisruptionBudget,
        &key,
        budget.status.as_ref(),
        &status,
    );
    plan.push_some(write);
    plan
}

/// How many pods their controllers want together.
fn scale<'a>(world: &World, namespace: &str, pods: impl Iterator<Item = &'a Pod>) -> i32 {
    let mut sizes: BTreeMap<String, i32> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = controller_of(&pod.metadata) else {
            continue;
        };
        let size = match owner.kind.as_str() {
            "ReplicaSet" => world
                .replica_sets
                .get(namespace, &owner.name)
                .and_then(|set| set.spec.as_ref()?.replicas),
            "StatefulSet" => world
                .stateful_sets
                .get(namespace, &owner.name)
                .and_then(|set| set.spec.as_ref()?.replicas),
            _ => None,
        };
        sizes.insert(owner.uid.clone(), size.unwrap_or(0));
    }
    sizes.values().sum()
}

fn condition(
    old: &PodDisruptionBudgetStatus,
    allowed: i32,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    const TYPE: &str = "DisruptionAllowed";
    let (status, reason) = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let known = old.conditions.iter().flatten().find(|c| c.type_ == TYPE);
    let since = known
        .filter(|c| c.status == status)
        .map(|c| c.last_transition_time.clone());
    Condition {
        type_: TYPE.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    }
}
