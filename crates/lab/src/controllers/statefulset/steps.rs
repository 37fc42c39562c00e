//! The next step of a StatefulSet: in order by default, all at once where it is Parallel.

use std::sync::Arc;

use api::events::{Severity, reference};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{View, identity};
use crate::controllers::action::{Action, Note, Plan};
use crate::controllers::amount;
use crate::controllers::pods::Availability;
use crate::controllers::store::Key;
use crate::controllers::world::Kind;

/// Adds the next step. `current` is how many pods there are of the revision before the
/// update.
pub(super) fn next(view: &View<'_>, current: i32, plan: &mut Plan) {
    let spec = view.set.spec.as_ref();
    let ordered = spec.and_then(|s| s.pod_management_policy.as_deref()) != Some("Parallel");
    for (ordinal, pod) in &view.wanted {
        let waits = match pod {
            None => {
                create(view, current, *ordinal, plan);
                true
            }
            Some(pod) if api::convert::is_finished(pod) => {
                // It is made anew when it is gone.
                if pod.metadata.deletion_timestamp.is_none() {
                    delete(view, pod, plan);
                }
                true
            }
            Some(pod) => !is_available(view, pod),
        };
        if waits && ordered {
            return;
        }
    }
    let unhealthy = first_unhealthy(view);
    for pod in &view.condemned {
        let terminating = pod.metadata.deletion_timestamp.is_some();
        if terminating {
            if ordered {
                return;
            }
            continue;
        }
        // Scaling down waits for what is broken, unless that is what goes.
        let is_broken = unhealthy
            .as_ref()
            .is_some_and(|broken| broken == &pod.metadata.uid);
        if ordered && !is_available(view, pod) && !is_broken {
            return;
        }
        delete(view, pod, plan);
        if ordered {
            return;
        }
    }
    if view.condemned.is_empty() || !ordered {
        update(view, plan);
    }
}

fn is_available(view: &View<'_>, pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && view.availability(pod) == Availability::Yes
}

fn first_unhealthy(view: &View<'_>) -> Option<Option<String>> {
    let wanted = view.wanted.iter().filter_map(|(_, pod)| pod.as_ref());
    let mut all = wanted.chain(view.condemned.iter().rev());
    all.find(|pod| !is_available(view, pod))
        .map(|pod| pod.metadata.uid.clone())
}

/// Deletes pods of an older revision, from the highest number down; each has to be back
/// before the next goes.
fn update(view: &View<'_>, plan: &mut Plan) {
    if !view.is_rolling() || view.update.is_empty() {
        return;
    }
    let first = identity::start(view.set).saturating_add(view.partition());
    let total = i32::try_from(view.wanted.len()).unwrap_or(i32::MAX);
    let rolling = view
        .set
        .spec
        .as_ref()
        .and_then(|s| s.update_strategy.clone());
    let limit = rolling.and_then(|s| s.rolling_update?.max_unavailable);
    let limit = limit.and_then(|limit| amount::resolve(&limit, total, true));
    let mut room = limit.unwrap_or(1).max(1);
    for (ordinal, pod) in view.wanted.iter().rev() {
        let Some(pod) = pod else {
            room -= 1;
            continue;
        };
        if *ordinal < first || room <= 0 {
            return;
        }
        let is_new = View::is_of(pod, &view.update);
        if !is_new && pod.metadata.deletion_timestamp.is_none() {
            delete(view, pod, plan);
            room -= 1;
        } else if !is_available(view, pod) {
            room -= 1;
        }
    }
}

/// The revision a new pod of that number is of: what the update has not reached yet
/// comes back as it was.
fn create(view: &View<'_>, current: i32, ordinal: i32, plan: &mut Plan) {
    let start = identity::start(view.set);
    let strategy = view
        .set
        .spec
        .as_ref()
        .and_then(|s| s.update_strategy.as_ref());
    let partition = strategy
        .and_then(|s| s.rolling_update.as_ref())
        .and_then(|r| r.partition)
        .filter(|partition| *partition > 0);
    let below = partition.unwrap_or(current);
    let old = view.is_rolling() && ordinal < start.saturating_add(below);
    let pod = if old && view.current != view.update {
        identity::pod(view.set, &view.current_template, &view.current, ordinal)
    } else {
        let template = view.set.spec.as_ref().map(|s| s.template.clone());
        identity::pod(
            view.set,
            &template.unwrap_or_default(),
            &view.update,
            ordinal,
        )
    };
    let namespace = view.set.namespace().unwrap_or_default();
    let what = format!(
        "Pod {} in StatefulSet {}",
        pod.name_any(),
        view.set.name_any()
    );
    plan.push(Action::create(Kind::Pod, &namespace, &pod).noted(Note {
        on: reference(view.set),
        done: None,
        failed: ("FailedCreate", format!("create {what} failed error: ")),
    }));
    say(
        view,
        plan,
        "SuccessfulCreate",
        format!("create {what} successful"),
    );
}

fn delete(view: &View<'_>, pod: &Arc<Pod>, plan: &mut Plan) {
    let uid = pod.uid().unwrap_or_default();
    let what = format!(
        "Pod {} in StatefulSet {}",
        pod.name_any(),
        view.set.name_any()
    );
    plan.push(
        Action::delete(Kind::Pod, &Key::of(pod.as_ref()), &uid).noted(Note {
            on: reference(view.set),
            done: None,
            failed: ("FailedDelete", format!("delete {what} failed error: ")),
        }),
    );
    say(
        view,
        plan,
        "SuccessfulDelete",
        format!("delete {what} successful"),
    );
}

fn say(view: &View<'_>, plan: &mut Plan, reason: &'static str, message: String) {
    plan.push(Action::Event {
        on: reference(view.set),
        severity: Severity::Normal,
        reason,
        message,
    });
}
