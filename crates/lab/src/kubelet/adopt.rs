//! Taking over a pod that ran before this kubelet did.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};

use crate::shim::{self, SandboxState, client::Sandbox};

use super::cni;
use super::pod::{Task, ended};
use super::sandbox::CNI_FILE;
use super::state::{Backoff, Ended, Phase, PodFailure, Run, Sandbox as SandboxPhase, find, inits};

impl Task {
    /// Finds what there is of the pod: a running sandbox, or what the API last knew of it.
    pub async fn adopt(&mut self) {
        let now = Timestamp::now();
        let status = self.pod.status.clone().unwrap_or_default();
        self.state.start = status.start_time.map(|time| time.0).or(Some(now));
        self.state.ips = status
            .pod_ips
            .iter()
            .flatten()
            .filter_map(|ip| ip.ip.parse().ok())
            .collect();
        if status.phase.as_deref() == Some("Failed")
            && let Some(reason) = status.reason.clone().filter(|reason| !reason.is_empty())
        {
            let message = status.message.clone().unwrap_or_default();
            self.state.failure = Some(PodFailure { reason, message });
        }
        self.attachment = cni::load(&self.dir.join(CNI_FILE));
        if let Some(attachment) = self.attachment.as_ref().filter(|a| a.result.is_some()) {
            self.state.ips = attachment.ips();
        }
        match Sandbox::connect(&self.dir).await {
            Ok((sandbox, seen)) if seen.pause_pid != 0 && self.has_network() => {
                self.state.sandbox = SandboxPhase::Ready;
                self.sandbox = Some(sandbox);
                self.take_over(&seen, now);
                self.watch_sandbox();
            }
            _ => {
                self.remember(now);
                // What was left of a sandbox is taken down before a new one is made.
                if self.dir.exists() {
                    self.state.sandbox = SandboxPhase::Lost;
                }
            }
        }
    }

    /// True where the sandbox has the network it should have: a kubelet that was killed
    /// between the sandbox and its network leaves one without.
    fn has_network(&self) -> bool {
        let host = self
            .pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.host_network == Some(true));
        host || self
            .attachment
            .as_ref()
            .is_some_and(|attachment| attachment.result.is_some())
    }

    /// The containers of a running shim.
    fn take_over(&mut self, seen: &SandboxState, now: Timestamp) {
        let pod = self.pod.clone();
        let mut attempts: Vec<(&str, u32, &String, &shim::ContainerStatus)> = seen
            .containers
            .iter()
            .filter_map(|(id, container)| {
                let name = container.labels.get("name")?;
                let attempt = container.labels.get("attempt")?.parse().ok()?;
                Some((name.as_str(), attempt, id, container))
            })
            .collect();
        attempts.sort_by_key(|(_, attempt, ..)| *attempt);
        for (name, attempt, id, container) in attempts {
            let known = status_of(&pod, name);
            let run = self.state.run(name);
            if let Some(ended) = run.ended().cloned() {
                run.last = Some(ended);
            } else if let Some(last) =
                known.and_then(|k| k.last_state.as_ref()?.terminated.as_ref())
            {
                run.last = Some(from_api(last));
            }
            run.attempts = attempt + 1;
            run.backoff = Backoff::adopted(attempt, now);
            run.image = container.labels.get("image").cloned().unwrap_or_default();
            run.phase = match (ended(id, &container.state), started_at(&container.state)) {
                (Some(ended), _) => Phase::Ended(ended),
                (None, started) => Phase::Running {
                    id: id.clone(),
                    started: started.unwrap_or(now),
                },
            };
            let same = known.is_some_and(|known| u32::try_from(known.restart_count) == Ok(attempt));
            let spec = find(&pod, name);
            run.started = spec.is_none_or(|spec| spec.startup_probe.is_none())
                || same && known.is_some_and(|known| known.started == Some(true));
            run.ready = spec.is_none_or(|spec| spec.readiness_probe.is_none())
                || same && known.is_some_and(|known| known.ready);
        }
        self.note_initialized();
        let spec = pod.spec.as_ref();
        let regular = spec.iter().flat_map(|spec| &spec.containers);
        self.state.initialized |= regular
            .into_iter()
            .any(|container| self.state.containers.contains_key(&container.name));
        let running: Vec<(String, bool)> = self
            .state
            .containers
            .iter()
            .filter(|(_, run)| run.running())
            .map(|(name, run)| (name.clone(), run.started))
            .collect();
        for (name, started) in running {
            self.begin_probes(&name, started);
        }
    }

    /// Without a sandbox: what the API last knew, so that counts go on and ends stay known.
    fn remember(&mut self, now: Timestamp) {
        let pod = self.pod.clone();
        let finished = matches!(
            pod.status
                .as_ref()
                .and_then(|status| status.phase.as_deref()),
            Some("Succeeded" | "Failed")
        );
        let status = pod.status.as_ref();
        let statuses = status.into_iter().flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            init.chain(status.container_statuses.iter().flatten())
        });
        for known in statuses {
            let Some(run) = remembered(known, now) else {
                continue;
            };
            self.state.containers.insert(known.name.clone(), run);
        }
        self.state.initialized = finished
            && pod.spec.as_ref().is_some_and(|spec| {
                inits(spec).iter().all(|init| {
                    let run = self.state.containers.get(&init.name);
                    run.and_then(Run::ended)
                        .is_some_and(|ended| ended.code == 0)
                })
            });
    }
}

/// A container's record from the API's status; none where it never started.
fn remembered(known: &ContainerStatus, now: Timestamp) -> Option<Run> {
    let state = known.state.as_ref()?;
    let last = known
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref());
    let ended = match (&state.terminated, &state.running) {
        (Some(ended), _) => from_api(ended),
        (None, Some(running)) => Ended {
            id: id_of(known.container_id.as_deref()),
            code: 137,
            signal: 9,
            reason: "Error".to_owned(),
            message: String::new(),
            started: running.started_at.as_ref().map_or(now, |time| time.0),
            finished: now,
        },
        (None, None) => from_api(last?),
    };
    let restarts = u32::try_from(known.restart_count).unwrap_or(0);
    Some(Run {
        attempts: restarts + 1,
        phase: Phase::Ended(ended),
        last: last.map(from_api),
        ..Run::default()
    })
}

fn from_api(ended: &ContainerStateTerminated) -> Ended {
    Ended {
        id: id_of(ended.container_id.as_deref()),
        code: ended.exit_code,
        signal: ended.signal.unwrap_or(0),
        reason: ended.reason.clone().unwrap_or_default(),
        message: ended.message.clone().unwrap_or_default(),
        started: ended
            .started_at
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        finished: ended
            .finished_at
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    }
}

/// The runtime's id in a `containerID`.
fn id_of(id: Option<&str>) -> String {
    let id = id
        .and_then(|id| id.split_once("://"))
        .map_or("", |(_, id)| id);
    id.split_once('.').map_or(id, |(_, id)| id).to_owned()
}

fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    let mut all = init.chain(status.container_statuses.iter().flatten());
    all.find(|container| container.name == name)
}

/// When a container started, as the shim knows it.
pub fn started_at(state: &shim::ContainerState) -> Option<Timestamp> {
    let (shim::ContainerState::Running { started, .. }
    | shim::ContainerState::Exited { started, .. }) = state
    else {
        return None;
    };
    Timestamp::from_millisecond(*started).ok()
}
