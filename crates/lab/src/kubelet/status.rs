//! A pod's status as the kubelet reports it: phase, conditions, container statuses.
//! Pure: pod and state in, `PodStatus` out.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::state::{Ended, Phase, PodState, Run, Sandbox, all, inits, is_sidecar};

/// The name of this runtime in container ids.
pub const RUNTIME: &str = "flatnet";

/// What the status needs beside the pod and its state.
pub struct Facts<'a> {
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// The image's identity, as the image table tells it.
    pub image_id: &'a dyn Fn(&str) -> String,
    /// True where the pod is being deleted and all its containers have ended.
    pub ending: bool,
    /// Now.
    pub now: Timestamp,
}

/// The status to report, given the one the API has.
pub fn status(pod: &Pod, state: &PodState, facts: &Facts<'_>) -> PodStatus {
    let Some(spec) = pod.spec.as_ref() else {
        return PodStatus::default();
    };
    let old = pod.status.as_ref();
    let statuses = |containers: &[Container], init: bool| -> Option<Vec<ContainerStatus>> {
        (!containers.is_empty() && (state.failure.is_none() || !state.containers.is_empty())).then(
            || {
                containers
                    .iter()
                    .map(|container| container_status(pod, spec, container, init, state, facts))
                    .collect()
            },
        )
    };
    let init_statuses = statuses(inits(spec), true);
    let main_statuses = statuses(&spec.containers, false);
    let phase = phase(spec, state, facts.ending, old);
    let ips: Vec<String> = if spec.host_network == Some(true) {
        facts.host_ips.iter().map(IpAddr::to_string).collect()
    } else {
        state.ips.iter().map(IpAddr::to_string).collect()
    };
    let mut status = PodStatus {
        conditions: None,
        phase: Some(phase.to_owned()),
        observed_generation: pod.metadata.generation,
        host_ip: facts.host_ips.first().map(IpAddr::to_string),
        host_ips: Some(
            facts
                .host_ips
                .iter()
                .map(|ip| HostIP { ip: ip.to_string() })
                .collect(),
        ),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: old
            .and_then(|old| old.start_time.clone())
            .or_else(|| state.start.map(Time)),
        qos_class: Some(qos_class(spec).to_owned()),
        reason: state.failure.as_ref().map(|failure| failure.reason.clone()),
        message: state
            .failure
            .as_ref()
            .map(|failure| failure.message.clone()),
        init_container_statuses: init_statuses,
        container_statuses: main_statuses,
        ..PodStatus::default()
    };
    status.conditions = Some(conditions(pod, spec, state, &status, facts.now));
    status
}

/// The pod's phase.
fn phase(spec: &PodSpec, state: &PodState, ending: bool, old: Option<&PodStatus>) -> &'static str {
    // A pod that ended stays ended.
    match old.and_then(|old| old.phase.as_deref()) {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    if state.failure.is_some() {
        return "Failed";
    }
    let never = spec.restart_policy.as_deref() == Some("Never");
    let run = |container: &Container| state.containers.get(&container.name);
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for container in &spec.containers {
        match run(container).map(|run| (&run.phase, run.last.is_some())) {
            Some((Phase::Running { .. }, _)) => running += 1,
            Some((Phase::Ended(ended), _)) => {
                stopped += 1;
                succeeded += i32::from(ended.code == 0);
            }
            Some((Phase::Waiting, true)) => stopped += 1,
            _ => waiting += 1,
        }
    }
    if ending {
        // Nothing starts again: what did not succeed has failed.
        return if waiting == 0 && stopped == succeeded {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    // With the sandbox goes what is known of its init containers; what ran after them still tells.
    let begun = spec.containers.iter().any(|container| {
        let phase = run(container).map(|run| &run.phase);
        matches!(phase, Some(Phase::Running { .. } | Phase::Ended(_)))
    });
    if !state.initialized && !begun && !inits(spec).is_empty() {
        let failed = inits(spec).iter().any(|init| {
            let code = run(init).and_then(Run::ended).map(|ended| ended.code);
            !is_sidecar(init) && code.is_some_and(|code| code != 0)
        });
        return if failed && never { "Failed" } else { "Pending" };
    }
    let again = match spec.restart_policy.as_deref() {
        Some("Never") => false,
        Some("OnFailure") => stopped != succeeded,
        _ => true,
    };
    if waiting > 0 {
        "Pending"
    } else if running > 0 || again {
        "Running"
    } else if stopped == succeeded {
        "Succeeded"
    } else {
        "Failed"
    }
}

fn container_status(
    pod: &Pod,
    spec: &PodSpec,
    container: &Container,
    init: bool,
    state: &PodState,
    facts: &Facts<'_>,
) -> ContainerStatus {
    let empty = Run::default();
    let run = state.containers.get(&container.name).unwrap_or(&empty);
    let image = container.image.clone().unwrap_or_default();
    let (current, last) = states(pod, spec, container, run, facts);
    let running = run.running();
    let ready = if init && !is_sidecar(container) {
        run.ended().is_some_and(|ended| ended.code == 0)
    } else {
        running && run.started && run.ready
    };
    let id = match &run.phase {
        Phase::Running { id, .. } => Some(id),
        Phase::Ended(ended) => Some(&ended.id),
        Phase::Waiting => run.last.as_ref().map(|ended| &ended.id),
    };
    let id = id.filter(|id| !id.is_empty());
    ContainerStatus {
        name: container.name.clone(),
        image_id: if id.is_some() {
            (facts.image_id)(&image)
        } else {
            String::new()
        },
        image,
        container_id: id.and_then(|id| container_id(pod, id)),
        ready,
        started: Some(running && run.started),
        restart_count: i32::try_from(run.restarts()).unwrap_or(i32::MAX),
        state: Some(current),
        last_state: Some(last),
        resources: (running && container.resources.is_some())
            .then(|| container.resources.clone())
            .flatten(),
        ..ContainerStatus::default()
    }
}

/// A container's state and last state.
fn states(
    pod: &Pod,
    spec: &PodSpec,
    container: &Container,
    run: &Run,
    facts: &Facts<'_>,
) -> (ContainerState, ContainerState) {
    let last = run
        .last
        .as_ref()
        .map(|ended| terminated(pod, ended))
        .unwrap_or_default();
    match &run.phase {
        Phase::Running { started, .. } => {
            let running = ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: Some(Time(*started)),
                }),
                ..ContainerState::default()
            };
            (running, last)
        }
        Phase::Waiting => {
            if facts.ending {
                return (never_ran(), last);
            }
            let (reason, message) = match &run.refused {
                Some(refused) => (refused.reason.clone(), Some(refused.message.clone())),
                None if inits(spec).is_empty() => ("ContainerCreating".to_owned(), None),
                None => ("PodInitializing".to_owned(), None),
            };
            (waiting(reason, message), last)
        }
        Phase::Ended(ended) => {
            if let (Some(refused), false) = (&run.refused, facts.ending) {
                let state = waiting(refused.reason.clone(), Some(refused.message.clone()));
                return (state, terminated(pod, ended));
            }
            let blocked = run.backoff.blocks(ended.finished, facts.now);
            match blocked {
                Some((delay, _)) if run.backoff_said && !facts.ending => {
                    let message = format!(
                        "back-off {} restarting failed container={} pod={}",
                        go_duration(delay.as_secs()),
                        container.name,
                        pod_full_name(pod),
                    );
                    let state = waiting("CrashLoopBackOff".to_owned(), Some(message));
                    (state, terminated(pod, ended))
                }
                _ => (terminated(pod, ended), last),
            }
        }
    }
}

/// Seconds as Go prints a duration: `10s`, `2m40s`, `5m0s`.
pub fn go_duration(seconds: i64) -> String {
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    }
}

/// `NAME_NAMESPACE(UID)`, as the kubelet's sentences name a pod.
pub fn pod_full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!(
        "{}_{}({})",
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default()
    )
}

/// A container's id for users: unique among all pods.
fn container_id(pod: &Pod, id: &str) -> Option<String> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    (!id.is_empty()).then(|| format!("{RUNTIME}://{uid}.{id}"))
}

fn waiting(reason: String, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason),
            message,
        }),
        ..ContainerState::default()
    }
}

/// The state of a container whose pod went before it could run.
fn never_ran() -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some(
                "The container could not be located when the pod was terminated".to_owned(),
            ),
            exit_code: 137,
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn terminated(pod: &Pod, ended: &Ended) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: container_id(pod, &ended.id),
            exit_code: ended.code,
            signal: None,
            reason: Some(ended.reason.clone()),
            message: (!ended.message.is_empty()).then(|| ended.message.clone()),
            started_at: Some(Time(ended.started)),
            finished_at: Some(Time(ended.finished)),
        }),
        ..ContainerState::default()
    }
}

/// A condition's value: status, reason, message.
type Verdict = (bool, Option<&'static str>, Option<String>);

fn conditions(
    pod: &Pod,
    spec: &PodSpec,
    state: &PodState,
    status: &PodStatus,
    now: Timestamp,
) -> Vec<PodCondition> {
    let old = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or_default();
    let containers_ready = containers_ready(spec, status, phase);
    let ready = ready(spec, old, &containers_ready);
    let verdicts = [
        (
            "PodReadyToStartContainers",
            (state.sandbox == Sandbox::Ready, None, None),
        ),
        ("Initialized", initialized(spec, state, status, phase)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
    ];
    let mut conditions: Vec<PodCondition> = verdicts
        .into_iter()
        .map(|(type_, verdict)| condition(pod, old, type_, verdict, now))
        .collect();
    let foreign =
        |condition: &&PodCondition| !conditions.iter().any(|c| c.type_ == condition.type_);
    let mut others: Vec<PodCondition> = old.iter().filter(foreign).cloned().collect();
    if !others
        .iter()
        .any(|condition| condition.type_ == "PodScheduled")
    {
        others.push(condition(pod, old, "PodScheduled", (true, None, None), now));
    }
    conditions.extend(others);
    conditions
}

fn condition(
    pod: &Pod,
    old: &[PodCondition],
    type_: &str,
    (value, reason, message): Verdict,
    now: Timestamp,
) -> PodCondition {
    let status = if value { "True" } else { "False" };
    let since = old
        .iter()
        .find(|condition| condition.type_ == type_ && condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: Some(since.unwrap_or(Time(now))),
        last_probe_time: None,
        observed_generation: pod.metadata.generation,
    }
}

fn listed(label: &str, names: &[&str]) -> String {
    format!("containers with {label} status: [{}]", names.join(" "))
}

fn containers_ready(spec: &PodSpec, status: &PodStatus, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return (false, Some("PodCompleted"), None),
        "Failed" => return (false, Some("PodFailed"), None),
        _ => {}
    }
    let statuses = status.container_statuses.iter().flatten();
    let statuses: Vec<_> = statuses
        .chain(status.init_container_statuses.iter().flatten())
        .collect();
    if statuses.is_empty() {
        return (false, Some("UnknownContainerStatuses"), None);
    }
    let unready: Vec<&str> = all(spec)
        .filter(|c| is_sidecar(c) || !inits(spec).iter().any(|init| init.name == c.name))
        .filter(|c| !statuses.iter().any(|s| s.name == c.name && s.ready))
        .map(|c| c.name.as_str())
        .collect();
    if unready.is_empty() {
        (true, None, None)
    } else {
        (
            false,
            Some("ContainersNotReady"),
            Some(listed("unready", &unready)),
        )
    }
}

fn ready(spec: &PodSpec, old: &[PodCondition], containers: &Verdict) -> Verdict {
    if !containers.0 {
        return containers.clone();
    }
    let mut unready = Vec::new();
    for gate in spec.readiness_gates.iter().flatten() {
        let type_ = &gate.condition_type;
        match old.iter().find(|condition| &condition.type_ == type_) {
            None => unready.push(format!(
                "corresponding condition of pod readiness gate \"{type_}\" does not exist."
            )),
            Some(condition) if condition.status != "True" => unready.push(format!(
                "the status of pod readiness gate \"{type_}\" is not \"True\", but {}",
                condition.status
            )),
            Some(_) => {}
        }
    }
    if unready.is_empty() {
        (true, None, None)
    } else {
        (
            false,
            Some("ReadinessGatesNotReady"),
            Some(unready.join(", ")),
        )
    }
}

fn initialized(spec: &PodSpec, state: &PodState, status: &PodStatus, phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return (true, Some("PodCompleted"), None);
    }
    if state.initialized || inits(spec).is_empty() {
        return (true, None, None);
    }
    let statuses = status
        .init_container_statuses
        .as_deref()
        .unwrap_or_default();
    let incomplete: Vec<&str> = inits(spec)
        .iter()
        .filter(|init| {
            let status = statuses.iter().find(|status| status.name == init.name);
            !status.is_some_and(|status| {
                if is_sidecar(init) {
                    status.started == Some(true)
                } else {
                    status.ready
                }
            })
        })
        .map(|init| init.name.as_str())
        .collect();
    if incomplete.is_empty() {
        return (true, None, None);
    }
    (
        false,
        Some("ContainersNotInitialized"),
        Some(listed("incomplete", &incomplete)),
    )
}

/// The quality-of-service class of a pod.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in all(spec) {
        let resources = container.resources.as_ref();
        let of = |name: &str, limits: bool| {
            let map = resources.and_then(|r| {
                if limits {
                    r.limits.as_ref()
                } else {
                    r.requests.as_ref()
                }
            });
            map.and_then(|map| map.get(name))
                .and_then(|quantity| super::quantity::milli(&quantity.0))
                .filter(|milli| *milli > 0)
        };
        for name in ["cpu", "memory"] {
            let (request, limit) = (of(name, false), of(name, true));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
