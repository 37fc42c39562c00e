//! A pod's task: owner of the pod's state. It asks the worker what to do, does it,
//! reports the status, and waits for what changes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::shim::{self, SandboxState, client::Sandbox};

use super::cni::Attachment;
use super::launch;
use super::prober::{Probes, Verdict};
use super::probes::Kind;
use super::report::{overruled, own_conditions, patch, same};
use super::state::{Ended, KillStage, Phase, PodState, Sandbox as SandboxPhase, is_sidecar};
use super::status::{self, Facts};
use super::volumes::{self, Tokens};
use super::worker::{self, Wanted};
use super::{PodView, Shared, reference};

/// What a pod's task is told.
#[derive(Debug)]
pub enum Message {
    /// The sandbox as its shim sees it now.
    Sandbox(Box<SandboxState>),
    /// The shim ended.
    SandboxGone,
    /// A probe's verdict.
    Verdict(Verdict),
    /// A preStop hook is through.
    HookDone {
        /// The runtime's id of the attempt.
        id: String,
    },
    /// A postStart hook is through; the sentence where it failed.
    Started {
        /// The runtime's id of the attempt.
        id: String,
        /// Why it failed.
        failure: Option<String>,
    },
}

/// A pod as the API has it now, and true where it is gone from there.
pub type Newest = (Arc<Pod>, bool);

/// Room in a pod's mailbox; senders wait when it is full.
pub const MAILBOX: usize = 64;

/// A pod's task.
pub(super) struct Task {
    pub shared: Arc<Shared>,
    pub pod: Arc<Pod>,
    pub gone: bool,
    pub finished: bool,
    pub dir: PathBuf,
    pub state: PodState,
    pub sandbox: Option<Sandbox>,
    pub attachment: Option<Attachment>,
    pub tokens: Tokens,
    pub probes: HashMap<String, Probes>,
    pub watcher: Option<AbortHandle>,
    pub sender: mpsc::Sender<Message>,
    /// The status last written, or the API's at the start.
    written: Option<PodStatus>,
    /// The pod's resourceVersion by that write.
    written_version: u64,
    retry_status: Option<Instant>,
    refresh_at: Instant,
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

impl Task {
    /// A task for a pod first seen now.
    pub fn new(shared: Arc<Shared>, pod: Arc<Pod>, sender: mpsc::Sender<Message>) -> Self {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        Self {
            dir: shared.pod_dir(&uid),
            written: None,
            written_version: 0,
            gone: false,
            finished: false,
            state: PodState::default(),
            sandbox: None,
            attachment: None,
            tokens: Tokens::default(),
            probes: HashMap::new(),
            watcher: None,
            retry_status: None,
            refresh_at: Instant::now() + volumes::REFRESH,
            sender,
            shared,
            pod,
        }
    }

    /// Runs until the pod is gone.
    pub async fn run(
        mut self,
        mut mailbox: mpsc::Receiver<Message>,
        mut newest: watch::Receiver<Newest>,
    ) {
        self.adopt().await;
        while !self.finished {
            let now = Timestamp::now();
            let wanted = Wanted {
                pod: &self.pod,
                gone: self.gone,
            };
            let step = worker::next(&wanted, &self.state, now);
            let idle = step.actions.is_empty();
            for action in step.actions {
                self.carry_out(action).await;
            }
            self.publish();
            self.report().await;
            if self.finished {
                break;
            }
            if idle {
                self.wait(&mut mailbox, &mut newest, step.wake).await;
            }
            if newest.has_changed().unwrap_or(false) {
                let (pod, gone) = newest.borrow_and_update().clone();
                self.gone |= gone;
                self.seen(pod);
            }
            while let Ok(message) = mailbox.try_recv() {
                self.take(message);
            }
        }
        self.shared.unpublish(&self.pod);
    }

    /// Waits for a message, a deadline of the worker's, or the volumes' turn.
    async fn wait(
        &mut self,
        mailbox: &mut mpsc::Receiver<Message>,
        newest: &mut watch::Receiver<Newest>,
        wake: Option<Timestamp>,
    ) {
        let far = Instant::now() + Duration::from_secs(3600);
        let mut until = match wake {
            Some(wake) => {
                let wait = wake.duration_since(Timestamp::now());
                Instant::now() + Duration::try_from(wait).unwrap_or_default()
            }
            None => far,
        };
        if let Some(retry) = self.retry_status {
            until = until.min(retry);
        }
        let refresh = self.sandbox.is_some() && volumes::refreshable(&self.pod);
        if refresh {
            until = until.min(self.refresh_at);
        }
        tokio::select! {
            message = mailbox.recv() => if let Some(message) = message {
                self.take(message);
            },
            // Taken over by the caller; a change seen here stays marked as one.
            true = changed(newest) => {}
            () = tokio::time::sleep_until(until) => {}
        }
        if refresh && Instant::now() >= self.refresh_at {
            self.refresh_volumes().await;
            self.refresh_at = Instant::now() + volumes::REFRESH;
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Sandbox(state) => self.see(&state),
            Message::SandboxGone => self.lost(),
            Message::Verdict(verdict) => self.judge(&verdict),
            Message::HookDone { id } => {
                if let Some(run) = self.run_of(&id)
                    && let Some(kill) = &mut run.kill
                    && kill.stage == KillStage::Hook
                {
                    kill.stage = KillStage::HookDone;
                }
            }
            Message::Started { id, failure } => self.post_start(&id, failure),
        }
    }

    fn run_of(&mut self, id: &str) -> Option<&mut super::state::Run> {
        self.state
            .containers
            .values_mut()
            .find(|run| match &run.phase {
                Phase::Running { id: running, .. } => running == id,
                _ => false,
            })
    }

    /// Takes over what the shim says of the containers.
    pub fn see(&mut self, seen: &SandboxState) {
        if self.sandbox.is_none() {
            return;
        }
        for (id, container) in &seen.containers {
            let Some(ended) = ended(id, &container.state) else {
                continue;
            };
            self.end(id, ended);
        }
        if seen.pause_pid == 0 {
            self.lost();
        }
    }

    /// An attempt ended.
    fn end(&mut self, id: &str, mut ended: Ended) {
        let Some(name) = self
            .state
            .containers
            .iter()
            .find_map(|(name, run)| match &run.phase {
                Phase::Running { id: running, .. } if running == id => Some(name.clone()),
                _ => None,
            })
        else {
            return;
        };
        self.fall_back_to_log(&name, &mut ended);
        self.probes.remove(&name);
        let run = self.state.run(&name);
        run.phase = Phase::Ended(ended);
        run.kill = None;
        run.must_stop = None;
        run.started = false;
        run.ready = false;
        run.refused = None;
        run.backoff_said = false;
    }

    /// `terminationMessagePolicy: FallbackToLogsOnError`.
    fn fall_back_to_log(&self, name: &str, ended: &mut Ended) {
        let policy = super::state::find(&self.pod, name)
            .and_then(|container| container.termination_message_policy.as_deref());
        if policy != Some("FallbackToLogsOnError") || !ended.message.is_empty() || ended.code == 0 {
            return;
        }
        let attempt = self
            .state
            .containers
            .get(name)
            .map_or(0, super::state::Run::restarts);
        let log = launch::log(&self.dir, name, attempt);
        ended.message = super::server::logs::last_lines(&log, 80, 2048);
    }

    /// The pause process or the shim ended without being asked to.
    fn lost(&mut self) {
        if self.state.sandbox != SandboxPhase::Ready {
            return;
        }
        self.state.sandbox = SandboxPhase::Lost;
        let message = "Pod sandbox changed, it will be killed and re-created.";
        let on = reference(&self.pod, None);
        self.shared.recorder.normal(on, "SandboxChanged", message);
        self.end_all();
    }

    /// Counts every running container as ended with its sandbox.
    pub fn end_all(&mut self) {
        let now = Timestamp::now();
        let running: Vec<(String, Timestamp)> = self
            .state
            .containers
            .values()
            .filter_map(|run| match &run.phase {
                Phase::Running { id, started } => Some((id.clone(), *started)),
                _ => None,
            })
            .collect();
        for (id, started) in running {
            let ended = Ended {
                id: id.clone(),
                code: 137,
                signal: 9,
                reason: "Error".to_owned(),
                message: String::new(),
                started,
                finished: now,
            };
            self.end(&id, ended);
        }
    }

    fn judge(&mut self, verdict: &Verdict) {
        let name = &verdict.container;
        let grace = super::state::find(&self.pod, name)
            .and_then(|container| verdict.kind.of(container))
            .and_then(|probe| probe.termination_grace_period_seconds);
        let Some(run) = self.run_of(&verdict.id) else {
            return;
        };
        match (verdict.kind, verdict.success) {
            (Kind::Readiness, success) => run.ready = success,
            (Kind::Startup, true) => {
                run.started = true;
                if let Some(probes) = self.probes.get(name) {
                    probes.startup_passed();
                }
                self.note_initialized();
            }
            (Kind::Startup | Kind::Liveness, false) => {
                let word = verdict.kind.word();
                let message = format!("Container {name} failed {word} probe, will be restarted");
                run.must_stop = Some((message, grace));
            }
            (Kind::Liveness, true) => {}
        }
    }

    fn post_start(&mut self, id: &str, failure: Option<String>) {
        let Some(failure) = failure else { return };
        let Some((name, _)) = id.rsplit_once('-') else {
            return;
        };
        let on = reference(&self.pod, Some(name));
        self.shared
            .recorder
            .warning(on, "FailedPostStartHook", failure);
        if let Some(run) = self.run_of(id) {
            run.must_stop = Some(("FailedPostStartHook".to_owned(), None));
        }
    }

    /// Remembers that the init containers of this sandbox are through: a regular container
    /// was started.
    pub fn note_initialized(&mut self) {
        let Some(spec) = self.pod.spec.as_ref() else {
            return;
        };
        let through = super::state::inits(spec).iter().all(|init| {
            let run = self.state.containers.get(&init.name);
            match is_sidecar(init) {
                true => run.is_some_and(|run| run.running() && run.started),
                false => run
                    .and_then(|run| run.ended())
                    .is_some_and(|ended| ended.code == 0),
            }
        });
        self.state.initialized |= through;
    }

    /// Tells the server of logs and exec how the pod stands.
    fn publish(&self) {
        let containers = self.state.containers.iter();
        self.shared.publish(PodView {
            pod: self.pod.clone(),
            dir: self.dir.clone(),
            sandbox: self.sandbox.clone(),
            containers: containers
                .map(|(name, run)| (name.clone(), (run.attempts, run.running())))
                .collect(),
        });
    }

    /// The status to report now.
    fn status(&self, now: Timestamp) -> PodStatus {
        let deleted = self.pod.metadata.deletion_timestamp.is_some();
        let facts = Facts {
            host_ips: &self.shared.options.addresses,
            image_id: &launch::image_id,
            ending: deleted && !self.state.any_running(),
            now,
        };
        // What this task wrote last stands for what the API has: the watch lags behind.
        let mut known = Pod::clone(&self.pod);
        if let (Some(written), Some(seen)) = (&self.written, &mut known.status) {
            own_conditions(written, seen);
        }
        status::status(&known, &self.state, &facts)
    }

    /// Takes in the pod as the API has it. Where somebody else wrote after us that it is
    /// not ready (the node controller, while nothing was heard of this node), the next
    /// report says again how it is.
    fn seen(&mut self, pod: Arc<Pod>) {
        if let (Some(written), Some(seen)) = (&self.written, &pod.status)
            && version(&pod) > self.written_version
            && overruled(written, seen)
        {
            self.written = None;
        }
        self.pod = pod;
    }

    /// Writes the status where it differs from the one written last.
    pub async fn report(&mut self) {
        if self.gone || self.finished || self.retry_status.is_some_and(|at| at > Instant::now()) {
            return;
        }
        self.retry_status = None;
        let status = self.status(Timestamp::now());
        let known = self.written.as_ref().or(self.pod.status.as_ref());
        if known.is_some_and(|known| same(known, &status)) {
            return;
        }
        let patch = patch(&self.pod, known, &status);
        let (namespace, name) = super::key(&self.pod);
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &namespace);
        let result = api
            .patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch))
            .await;
        match result {
            Ok(pod) => {
                self.written_version = version(&pod);
                self.written = Some(status);
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => {
                // Gone, or another pod of that name: the watch will say so.
                tracing::debug!(pod = name, "status not written: {}", answer.message);
                self.written = Some(status);
            }
            Err(error) => {
                tracing::warn!(
                    pod = name,
                    cause = api::error::cause(&error),
                    "writing the pod's status; trying again"
                );
                self.retry_status = Some(Instant::now() + Duration::from_secs(1));
            }
        }
    }
}

fn version(pod: &Pod) -> u64 {
    let version = pod.metadata.resource_version.as_deref();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Waits for a newer pod, without taking it; false where none will come.
async fn changed(newest: &mut watch::Receiver<Newest>) -> bool {
    let there = newest.changed().await.is_ok();
    newest.mark_changed();
    there
}

/// How an attempt ended, where it did.
pub fn ended(id: &str, state: &shim::ContainerState) -> Option<Ended> {
    let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or_default();
    match state {
        shim::ContainerState::Starting | shim::ContainerState::Running { .. } => None,
        shim::ContainerState::Exited {
            code,
            signal,
            started,
            finished,
            message,
            oom,
        } => Some(Ended {
            id: id.to_owned(),
            code: *code,
            signal: *signal,
            reason: match (oom, code) {
                (true, _) => "OOMKilled",
                (false, 0) => "Completed",
                (false, _) => "Error",
            }
            .to_owned(),
            message: message.clone(),
            started: time(*started),
            finished: time(*finished),
        }),
        shim::ContainerState::Failed { message, at } => Some(Ended {
            id: id.to_owned(),
            code: 128,
            signal: 0,
            reason: "StartError".to_owned(),
            message: message.clone(),
            started: Timestamp::UNIX_EPOCH,
            finished: time(*at),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shims_states_become_ends() {
        let exited = |code, oom| shim::ContainerState::Exited {
            code,
            signal: 0,
            started: 1000,
            finished: 2000,
            message: String::new(),
            oom,
        };
        assert_eq!(ended("c-0", &exited(0, false)).unwrap().reason, "Completed");
        assert_eq!(ended("c-0", &exited(1, false)).unwrap().reason, "Error");
        assert_eq!(
            ended("c-0", &exited(137, true)).unwrap().reason,
            "OOMKilled"
        );
        let failed = shim::ContainerState::Failed {
            message: "no such program".to_owned(),
            at: 5,
        };
        let failed = ended("c-0", &failed).unwrap();
        assert_eq!((failed.code, failed.reason.as_str()), (128, "StartError"));
    }
}
