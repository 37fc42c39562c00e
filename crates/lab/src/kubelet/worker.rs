//! A pod worker's decision: the pod wanted, the state seen and the time give the next
//! actions. Pure; the driver carries them out and reports back into the state.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::state::{
    Kill, KillStage, Phase, PodFailure, PodState, Run, Sandbox, all, inits, is_sidecar,
    restarts_after,
};

/// What the driver is to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's namespaces and give them a network.
    StartSandbox,
    /// Take the network and the namespaces away.
    StopSandbox,
    /// Start a container.
    Start {
        /// Container.
        name: String,
    },
    /// Say that a restart waits (`CrashLoopBackOff`).
    SayBackOff {
        /// Container.
        name: String,
    },
    /// Begin to stop a container: run its preStop hook.
    Stop {
        /// Container.
        name: String,
        /// Seconds until SIGKILL.
        grace: i64,
        /// The Killing Event's sentence.
        message: String,
    },
    /// Send SIGTERM (or the container's own stop signal).
    Term {
        /// Container.
        name: String,
    },
    /// Send SIGKILL.
    Kill {
        /// Container.
        name: String,
    },
    /// The grace period was cut short.
    Shorten {
        /// Container.
        name: String,
        /// The new end.
        deadline: Timestamp,
    },
    /// Fail the pod for a reason of the kubelet.
    Fail(PodFailure),
    /// Nothing of the pod is left: remove its folders and the API object.
    Finish,
}

/// The actions, and when to ask again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// In order.
    pub actions: Vec<Action>,
    /// Ask again then.
    pub wake: Option<Timestamp>,
}

impl Step {
    fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// The pod as it is wanted.
pub struct Wanted<'a> {
    /// The newest object seen.
    pub pod: &'a Pod,
    /// True where the object is gone from the API (force deletion).
    pub gone: bool,
}

/// The shortest time between SIGTERM and SIGKILL after a preStop hook, in seconds.
const MINIMUM_AFTER_HOOK: i64 = 2;

/// What to do next.
pub fn next(wanted: &Wanted<'_>, state: &PodState, now: Timestamp) -> Step {
    let mut step = Step::default();
    let Some(spec) = wanted.pod.spec.as_ref() else {
        return step;
    };
    if let Some(grace) = termination(wanted) {
        stop_all(spec, state, grace, now, &mut step);
        if !state.any_running() {
            step.push(match state.sandbox {
                Sandbox::Ready | Sandbox::Lost => Action::StopSandbox,
                _ => Action::Finish,
            });
        }
        return step;
    }
    if state.failure.is_some() || completed(spec, state) {
        let grace = spec.termination_grace_period_seconds.unwrap_or(30);
        stop_all(spec, state, grace, now, &mut step);
        if !state.any_running() && matches!(state.sandbox, Sandbox::Ready | Sandbox::Lost) {
            step.push(Action::StopSandbox);
        }
        return step;
    }
    if deadline(spec, state, now, &mut step) {
        return step;
    }
    match state.sandbox {
        Sandbox::Absent => step.push(Action::StartSandbox),
        Sandbox::Failed { retry_at } if retry_at <= now => step.push(Action::StartSandbox),
        Sandbox::Failed { retry_at } => step.wake_at(retry_at),
        Sandbox::Lost => step.push(Action::StopSandbox),
        Sandbox::Ready => containers(spec, state, now, &mut step),
    }
    step
}

/// The grace period of a pod that is to go, in seconds.
fn termination(wanted: &Wanted<'_>) -> Option<i64> {
    let meta = &wanted.pod.metadata;
    if wanted.gone && meta.deletion_timestamp.is_none() {
        return Some(0);
    }
    meta.deletion_timestamp.as_ref()?;
    Some(meta.deletion_grace_period_seconds.unwrap_or(30).max(0))
}

/// True where every container ended and none starts again.
pub fn completed(spec: &PodSpec, state: &PodState) -> bool {
    let never = spec.restart_policy.as_deref() == Some("Never");
    let init_failed = inits(spec).iter().any(|init| {
        let run = state.containers.get(&init.name);
        let code = run.and_then(Run::ended).map(|ended| ended.code);
        never && !is_sidecar(init) && !state.initialized && code.is_some_and(|code| code != 0)
    });
    init_failed
        || spec.containers.iter().all(|container| {
            let run = state.containers.get(&container.name);
            run.and_then(Run::ended)
                .is_some_and(|ended| !restarts_after(spec, ended.code))
        })
}

/// `activeDeadlineSeconds`; true where it has passed.
fn deadline(spec: &PodSpec, state: &PodState, now: Timestamp, step: &mut Step) -> bool {
    let (Some(seconds), Some(start)) = (spec.active_deadline_seconds, state.start) else {
        return false;
    };
    let Ok(end) = start.checked_add(SignedDuration::from_secs(seconds)) else {
        return false;
    };
    if end > now {
        step.wake_at(end);
        return false;
    }
    step.push(Action::Fail(PodFailure {
        reason: "DeadlineExceeded".to_owned(),
        message: "Pod was active on the node longer than the specified deadline".to_owned(),
    }));
    true
}

/// Init containers in their order, then the others.
fn containers(spec: &PodSpec, state: &PodState, now: Timestamp, step: &mut Step) {
    let empty = Run::default();
    let run = |container: &Container| state.containers.get(&container.name).unwrap_or(&empty);
    for init in inits(spec) {
        let current = run(init);
        if is_sidecar(init) {
            keep_running(spec, init, current, true, now, step);
            let up = current.running() && current.started;
            if !(state.initialized || up) {
                return;
            }
            continue;
        }
        if state.initialized {
            continue;
        }
        match current.ended() {
            Some(ended) if ended.code == 0 => {}
            _ => {
                let again = spec.restart_policy.as_deref() != Some("Never");
                keep_running(spec, init, current, again, now, step);
                return;
            }
        }
    }
    for container in &spec.containers {
        let current = run(container);
        let again = current
            .ended()
            .is_none_or(|ended| restarts_after(spec, ended.code));
        keep_running(spec, container, current, again, now, step);
    }
}

/// Starts a container that is down, stops one that must go.
fn keep_running(
    spec: &PodSpec,
    container: &Container,
    run: &Run,
    again: bool,
    now: Timestamp,
    step: &mut Step,
) {
    let name = container.name.clone();
    match &run.phase {
        Phase::Running { .. } => {
            let image = container.image.as_deref().unwrap_or_default();
            if let Some(kill) = &run.kill {
                advance_kill(&name, kill, now, step);
            } else if let Some((message, grace)) = &run.must_stop {
                let grace = grace.or(spec.termination_grace_period_seconds);
                step.push(Action::Stop {
                    name,
                    grace: grace.unwrap_or(30),
                    message: message.clone(),
                });
            } else if run.image != image {
                step.push(Action::Stop {
                    grace: spec.termination_grace_period_seconds.unwrap_or(30),
                    message: format!("Container {name} definition changed, will be restarted"),
                    name,
                });
            }
        }
        Phase::Waiting => start_unless_refused(name, run, now, step),
        Phase::Ended(_) if !again => {}
        Phase::Ended(ended) => match run.backoff.blocks(ended.finished, now) {
            Some((_, until)) => {
                step.wake_at(until);
                if !run.backoff_said {
                    step.push(Action::SayBackOff { name });
                }
            }
            None => start_unless_refused(name, run, now, step),
        },
    }
}

fn start_unless_refused(name: String, run: &Run, now: Timestamp, step: &mut Step) {
    match &run.refused {
        Some(refused) if refused.retry_at > now => step.wake_at(refused.retry_at),
        _ => step.push(Action::Start { name }),
    }
}

/// Stops every container: the regular ones first, then the sidecars, last one first.
fn stop_all(spec: &PodSpec, state: &PodState, grace: i64, now: Timestamp, step: &mut Step) {
    let running = |container: &&Container| {
        let run = state.containers.get(&container.name);
        run.is_some_and(Run::running)
    };
    let regular_left = all(spec).filter(|c| !is_sidecar(c)).any(|c| running(&c));
    let last_sidecar = inits(spec).iter().rev().find(running).map(|c| &c.name);
    for container in all(spec).filter(running) {
        if is_sidecar(container) && grace > 0 {
            // A sidecar outlives the containers it serves, up to the pod's grace period.
            if regular_left || Some(&container.name) != last_sidecar {
                continue;
            }
        }
        let Some(run) = state.containers.get(&container.name) else {
            continue;
        };
        stop_one(container, run, grace, now, step);
    }
    // A container that is no longer in the spec cannot be: specs keep their containers.
}

fn stop_one(container: &Container, run: &Run, grace: i64, now: Timestamp, step: &mut Step) {
    let name = container.name.clone();
    let Some(kill) = &run.kill else {
        step.push(Action::Stop {
            message: format!("Stopping container {name}"),
            name,
            grace,
        });
        return;
    };
    let wanted = kill.since.checked_add(SignedDuration::from_secs(grace));
    match wanted {
        Ok(deadline) if deadline < kill.deadline && kill.stage != KillStage::Killed => {
            step.push(Action::Shorten { name, deadline });
        }
        _ => advance_kill(&name, kill, now, step),
    }
}

/// The next step of a stop under way.
fn advance_kill(name: &str, kill: &Kill, now: Timestamp, step: &mut Step) {
    let name = name.to_owned();
    match kill.stage {
        KillStage::HookDone => step.push(Action::Term { name }),
        KillStage::Hook if kill.deadline <= now => step.push(Action::Term { name }),
        KillStage::Term if kill.deadline <= now => step.push(Action::Kill { name }),
        KillStage::Hook | KillStage::Term => step.wake_at(kill.deadline),
        KillStage::Killed => {}
    }
}

/// When SIGKILL follows a SIGTERM sent at `now`: after a hook there is always a little time.
pub fn deadline_after_term(kill: &Kill, now: Timestamp) -> Timestamp {
    if kill.stage == KillStage::Term || kill.since == kill.deadline {
        return kill.deadline;
    }
    let least = SignedDuration::from_secs(MINIMUM_AFTER_HOOK);
    let least = now.checked_add(least).unwrap_or(kill.deadline);
    kill.deadline.max(least)
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
