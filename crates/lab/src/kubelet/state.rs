//! What a kubelet knows about one pod's running parts: the value its worker decides on.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// A pod's running parts.
#[derive(Clone, Debug, Default)]
pub struct PodState {
    /// When this kubelet (or its predecessor) first saw the pod.
    pub start: Option<Timestamp>,
    /// The pod's namespaces.
    pub sandbox: Sandbox,
    /// Sandboxes that could not be made, in a row.
    pub sandbox_failures: u32,
    /// Addresses the network plugin gave; kept after the pod ended.
    pub ips: Vec<IpAddr>,
    /// Containers by name, init containers included.
    pub containers: BTreeMap<String, Run>,
    /// True once every init container of this sandbox is through.
    pub initialized: bool,
    /// Why the pod ended, or was never taken, for a reason of its own.
    pub failure: Option<PodFailure>,
}

/// The end of a pod by decision of the kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFailure {
    /// CamelCase reason (`OutOfpods`, `DeadlineExceeded`).
    pub reason: String,
    /// The sentence.
    pub message: String,
}

/// A pod's namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// None yet, or taken down.
    #[default]
    Absent,
    /// Could not be made; try again then.
    Failed {
        /// Not before.
        retry_at: Timestamp,
    },
    /// Made, with a network.
    Ready,
    /// The pause process ended under us: to be taken down and made anew.
    Lost,
}

/// One container of a pod over its restarts.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Starts so far; the restart count is one less.
    pub attempts: u32,
    /// Now.
    pub phase: Phase,
    /// The end before the current attempt.
    pub last: Option<Ended>,
    /// A start that was refused: reason and message of the waiting state.
    pub refused: Option<Refused>,
    /// Crash-loop back-off.
    pub backoff: Backoff,
    /// True once the startup probe passed, or there is none.
    pub started: bool,
    /// True while the readiness probe passes, or there is none.
    pub ready: bool,
    /// A stop under way.
    pub kill: Option<Kill>,
    /// Asked to be stopped: the sentence of the Event, and a probe's own grace period.
    pub must_stop: Option<(String, Option<i64>)>,
    /// The image it was last started with.
    pub image: String,
    /// True from the moment the kernel or a user saw this attempt backed off, so that
    /// it is said once per attempt.
    pub backoff_said: bool,
}

/// A refused start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Reason of the waiting state (`CreateContainerConfigError`).
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// Not before.
    pub retry_at: Timestamp,
}

/// Where a container stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Never started in this sandbox.
    #[default]
    Waiting,
    /// Running.
    Running {
        /// The runtime's name for it.
        id: String,
        /// When it started.
        started: Timestamp,
    },
    /// Ended.
    Ended(Ended),
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The runtime's name for it.
    pub id: String,
    /// Exit code.
    pub code: i32,
    /// Signal, or 0.
    pub signal: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, ...
    pub reason: String,
    /// Termination message.
    pub message: String,
    /// Start.
    pub started: Timestamp,
    /// End.
    pub finished: Timestamp,
}

/// A stop under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// When the grace period began.
    pub since: Timestamp,
    /// When SIGKILL falls.
    pub deadline: Timestamp,
    /// What was done so far.
    pub stage: KillStage,
}

/// Steps of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillStage {
    /// The preStop hook runs.
    Hook,
    /// The hook is through; SIGTERM comes next.
    HookDone,
    /// SIGTERM was sent.
    Term,
    /// SIGKILL was sent.
    Killed,
}

/// Crash-loop back-off of one container: 10 s doubling to 5 min, forgotten after 10 min.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    delay: Option<SignedDuration>,
    updated: Option<Timestamp>,
}

impl Backoff {
    const FIRST: SignedDuration = SignedDuration::from_secs(10);
    const LONGEST: SignedDuration = SignedDuration::from_secs(300);

    fn expired(&self, event: Timestamp) -> bool {
        self.updated
            .is_none_or(|updated| event.duration_since(updated) > Self::LONGEST * 2)
    }

    /// The delay in force, and when a container that ended at `finished` may start again,
    /// where that is still ahead.
    pub fn blocks(
        &self,
        finished: Timestamp,
        now: Timestamp,
    ) -> Option<(SignedDuration, Timestamp)> {
        let delay = self.delay?;
        if self.expired(finished) {
            return None;
        }
        let until = finished.checked_add(delay).ok()?;
        (until > now).then_some((delay, until))
    }

    /// Counts a restart of a container that ended at `finished`.
    pub fn restart(&mut self, finished: Timestamp, now: Timestamp) {
        self.delay = Some(match self.delay {
            Some(delay) if !self.expired(finished) => (delay * 2).min(Self::LONGEST),
            _ => Self::FIRST,
        });
        self.updated = Some(now);
    }

    /// Rebuilt from a restart count, for an adopted container: as if it restarted just now.
    pub fn adopted(restarts: u32, now: Timestamp) -> Self {
        let mut backoff = Self::default();
        for _ in 0..restarts.min(6) {
            backoff.restart(now, now);
        }
        backoff
    }
}

impl Run {
    /// The attempt's end, where it ended.
    pub fn ended(&self) -> Option<&Ended> {
        match &self.phase {
            Phase::Ended(ended) => Some(ended),
            _ => None,
        }
    }

    /// True while its process lives.
    pub fn running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// Restarts, as `restartCount` shows them.
    pub fn restarts(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }
}

impl PodState {
    /// A container's record; an empty one where there is none yet.
    pub fn run(&mut self, name: &str) -> &mut Run {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// True where any container's process lives.
    pub fn any_running(&self) -> bool {
        self.containers.values().any(Run::running)
    }
}

/// True for an init container that keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The pod's init containers.
pub fn inits(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

/// Every container of the pod, init containers first.
pub fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    inits(spec).iter().chain(&spec.containers)
}

/// A container by name.
pub fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    all(pod.spec.as_ref()?).find(|container| container.name == name)
}

/// True where a regular container that ended with `code` starts again.
pub fn restarts_after(spec: &PodSpec, code: i32) -> bool {
    match spec.restart_policy.as_deref() {
        Some("Never") => false,
        Some("OnFailure") => code != 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn back_off_doubles_to_five_minutes_and_is_forgotten() {
        let mut backoff = Backoff::default();
        assert_eq!(
            backoff.blocks(at(0), at(0)),
            None,
            "the first restart is at once"
        );
        let mut now = 0;
        let mut delays = Vec::new();
        for _ in 0..7 {
            backoff.restart(at(now), at(now));
            let (delay, until) = backoff.blocks(at(now), at(now)).unwrap();
            delays.push(delay.as_secs());
            now = until.as_second();
            assert_eq!(backoff.blocks(at(now - delay.as_secs()), at(now)), None);
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(
            backoff.blocks(at(now + 601), at(now + 602)),
            None,
            "ran for ten minutes"
        );
        backoff.restart(at(now + 601), at(now + 602));
        let (delay, _) = backoff.blocks(at(now + 603), at(now + 603)).unwrap();
        assert_eq!(delay.as_secs(), 10);
    }
}
