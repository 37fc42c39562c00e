//! A DaemonSet's rolling update.

use std::sync::Arc;

use api::events::reference;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::{Place, Wish, create};
use crate::controllers::action::{Action, Plan, Step};
use crate::controllers::amount::fence_posts;
use crate::controllers::pods::{self, Availability};
use crate::controllers::revision::{HASH, History};

fn is_new(pod: &Pod, history: &History) -> bool {
    pod.labels().get(HASH) == Some(&history.hash)
}

fn min_ready(set: &DaemonSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|s| s.min_ready_seconds)
        .unwrap_or(0)
}

fn is_available(set: &DaemonSet, pod: &Pod, now: Timestamp) -> bool {
    pods::availability(pod, min_ready(set), now) == Availability::Yes
}

/// How many may be added and how many may be missing at once; None where pods are
/// replaced only as people delete them.
fn bounds(set: &DaemonSet, nodes: usize) -> Option<(i32, i32)> {
    let strategy = set
        .spec
        .as_ref()?
        .update_strategy
        .clone()
        .unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let nodes = i32::try_from(nodes).unwrap_or(i32::MAX);
    Some(fence_posts(
        rolling.max_surge.as_ref(),
        rolling.max_unavailable.as_ref(),
        nodes,
    ))
}

/// Pods of one node beyond the one there should be. While a new one surges beside an old
/// one both stay, until the new one is available or the old one is ready no more.
pub fn superfluous<'a>(
    set: &DaemonSet,
    running: &[&'a Arc<Pod>],
    history: &History,
    now: Timestamp,
) -> impl Iterator<Item = &'a Arc<Pod>> + use<'a> {
    let mut running = running.to_vec();
    running.sort_by_key(|pod| (pod.creation_timestamp(), pod.metadata.name.clone()));
    let surges = bounds(set, 100).is_some_and(|(surge, _)| surge > 0);
    let new = running.iter().position(|pod| is_new(pod, history));
    let keep: Vec<usize> = match new {
        Some(new) if surges && !is_available(set, running[new], now) => {
            let old = running.iter().position(|pod| !is_new(pod, history));
            let old = old.filter(|old| pods::is_ready(running[*old]));
            [Some(new), old].into_iter().flatten().collect()
        }
        Some(new) if surges => vec![new],
        _ => vec![0],
    };
    running
        .into_iter()
        .enumerate()
        .filter(move |(index, _)| !keep.contains(index))
        .map(|(_, pod)| pod)
}

/// Replaces old pods, so many at once as the strategy allows.
pub(super) fn roll(
    set: &DaemonSet,
    pattern: &Pod,
    places: &[Place<'_>],
    history: &History,
    now: Timestamp,
    plan: &mut Plan,
) {
    let wanted: Vec<&Place<'_>> = places.iter().filter(|p| p.wish == Wish::Run).collect();
    let Some((surge, unavailable)) = bounds(set, wanted.len()) else {
        return;
    };
    let on = reference(set);
    let available = |pod: &Arc<Pod>| pods::is_active(pod) && is_available(set, pod, now);
    let mut missing = 0;
    let mut surging = 0;
    let mut broken = Vec::new();
    let mut good = Vec::new();
    for place in &wanted {
        let new = place
            .pods
            .iter()
            .find(|pod| is_new(pod, history) && pods::is_active(pod));
        let old = place
            .pods
            .iter()
            .find(|pod| !is_new(pod, history) && pods::is_active(pod));
        missing += i32::from(!place.pods.iter().any(available));
        match (new, old) {
            (Some(_), Some(_)) => surging += 1,
            (None, Some(old)) if available(old) => good.push((place, old)),
            (None, Some(old)) => broken.push((place, old)),
            _ => {}
        }
    }
    if surge > 0 {
        let room = usize::try_from(surge - surging).unwrap_or(0);
        // An old pod that does not work is replaced at once: that takes nothing away.
        let creates: Vec<Action> = broken
            .iter()
            .chain(good.iter().take(room))
            .map(|(place, _)| create(set, pattern, place.node))
            .collect();
        if !creates.is_empty() {
            plan.steps.push(Step::SlowStart(creates));
        }
        return;
    }
    let room = usize::try_from(unavailable - missing).unwrap_or(0);
    let deletes: Vec<Action> = broken
        .iter()
        .chain(good.iter().take(room))
        .map(|(_, old)| pods::delete(old, &on))
        .collect();
    if !deletes.is_empty() {
        plan.steps.push(Step::Each(deletes));
    }
}
