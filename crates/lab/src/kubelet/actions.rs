//! Carrying out what the worker decided; stopping containers and ending pods.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use crate::shim::{self, client::Sandbox};

use super::pod::{Message, Task};
use super::probes::{Outcome, Target, http_target, port};
use super::reference;
use super::sandbox::STEP_RETRY;
use super::state::{Kill, KillStage, Phase, find};
use super::status::pod_full_name;
use super::volumes;
use super::worker::{self, Action};

impl Task {
    /// Does one action; what comes of it is in the state.
    pub async fn carry_out(&mut self, action: Action) {
        match action {
            Action::StartSandbox => self.start_sandbox().await,
            Action::StopSandbox => self.stop_sandbox().await,
            Action::Start { name } => self.start(&name).await,
            Action::SayBackOff { name } => self.say_back_off(&name),
            Action::Stop {
                name,
                grace,
                message,
            } => self.stop(&name, grace, message),
            Action::Term { name } => self.term(&name).await,
            Action::Kill { name } => self.kill(&name).await,
            Action::Shorten { name, deadline } => {
                if let Some(kill) = &mut self.state.run(&name).kill {
                    kill.deadline = deadline;
                    kill.since = deadline.min(kill.since);
                }
            }
            Action::Fail(failure) => {
                let on = reference(&self.pod, None);
                self.shared
                    .recorder
                    .warning(on, &failure.reason, failure.message.clone());
                self.state.failure = Some(failure);
            }
            Action::Finish => self.finish().await,
        }
    }

    pub(super) fn post_start_hook(&self, container: &Container, id: &str) {
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.clone());
        let (Some(hook), Some(sandbox)) = (hook, self.sandbox.clone()) else {
            return;
        };
        let target = self.hook_target(&hook, container);
        let (sender, id) = (self.sender.clone(), id.to_owned());
        tokio::spawn(async move {
            let outcome = run_hook(target, &sandbox, &id, Duration::from_secs(3600)).await;
            let failure = outcome
                .err()
                .map(|error| format!("PostStartHook failed: {error}"));
            let _ = sender.send(Message::Started { id, failure }).await;
        });
    }

    fn hook_target(
        &self,
        hook: &LifecycleHandler,
        container: &Container,
    ) -> Result<Target, String> {
        let host_network = self
            .pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.host_network == Some(true));
        let ips = if host_network {
            &self.shared.options.addresses
        } else {
            &self.state.ips
        };
        let ip = ips.first().copied();
        if let Some(exec) = &hook.exec {
            return Ok(Target::Exec(exec.command.clone().unwrap_or_default()));
        }
        if let Some(get) = &hook.http_get {
            return http_target(get, container, ip);
        }
        if let Some(sleep) = &hook.sleep {
            let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
            return Ok(Target::Sleep(Duration::from_secs(seconds)));
        }
        if let Some(tcp) = &hook.tcp_socket {
            let host = tcp
                .host
                .clone()
                .or(ip.map(|ip| ip.to_string()))
                .unwrap_or_default();
            return Ok(Target::Tcp {
                host,
                port: port(&tcp.port, container)?,
            });
        }
        Err("invalid handler: it names no action".to_owned())
    }

    fn say_back_off(&mut self, name: &str) {
        self.state.run(name).backoff_said = true;
        let message = format!(
            "Back-off restarting failed container {name} in pod {}",
            pod_full_name(&self.pod)
        );
        self.shared
            .recorder
            .warning(reference(&self.pod, Some(name)), "BackOff", message);
    }

    /// Begins to stop a container: the preStop hook, or straight to SIGTERM.
    fn stop(&mut self, name: &str, grace: i64, message: String) {
        let pod = self.pod.clone();
        self.shared
            .recorder
            .normal(reference(&pod, Some(name)), "Killing", message);
        let now = Timestamp::now();
        let deadline = now
            .checked_add(SignedDuration::from_secs(grace))
            .unwrap_or(now);
        let hook = find(&pod, name)
            .and_then(|container| {
                Some((container, container.lifecycle.as_ref()?.pre_stop.clone()?))
            })
            .filter(|_| grace > 0);
        let run = self.state.run(name);
        let Phase::Running { id, .. } = run.phase.clone() else {
            return;
        };
        let stage = if hook.is_some() {
            KillStage::Hook
        } else {
            KillStage::HookDone
        };
        run.kill = Some(Kill {
            since: now,
            deadline,
            stage,
        });
        // No liveness or startup probe shall restart what is being stopped.
        run.must_stop = None;
        let (Some((container, hook)), Some(sandbox)) = (hook, self.sandbox.clone()) else {
            return;
        };
        let target = self.hook_target(&hook, container);
        let (sender, recorder) = (self.sender.clone(), self.shared.recorder.clone());
        let on = reference(&pod, Some(name));
        let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        tokio::spawn(async move {
            if let Err(error) = run_hook(target, &sandbox, &id, limit).await {
                recorder.warning(
                    on,
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {error}"),
                );
            }
            let _ = sender.send(Message::HookDone { id }).await;
        });
    }

    async fn term(&mut self, name: &str) {
        let signal = find(&self.pod, name)
            .and_then(|container| container.lifecycle.as_ref()?.stop_signal.as_deref())
            .and_then(|signal| signal.parse::<nix::sys::signal::Signal>().ok())
            .map_or(libc::SIGTERM, |signal| signal as i32);
        let now = Timestamp::now();
        let run = self.state.run(name);
        let Phase::Running { id, .. } = run.phase.clone() else {
            return;
        };
        if let Some(kill) = &mut run.kill {
            kill.deadline = worker::deadline_after_term(kill, now);
            kill.stage = KillStage::Term;
        }
        self.signal(&id, Some(signal)).await;
    }

    async fn kill(&mut self, name: &str) {
        let run = self.state.run(name);
        let Phase::Running { id, .. } = run.phase.clone() else {
            return;
        };
        if let Some(kill) = &mut run.kill {
            kill.stage = KillStage::Killed;
        }
        self.signal(&id, None).await;
    }

    /// Signals an attempt's first process, or kills all of it.
    async fn signal(&mut self, id: &str, signal: Option<i32>) {
        let Some(sandbox) = self.sandbox.clone() else {
            return;
        };
        let sent = match signal {
            Some(signal) => sandbox.signal(id, signal).await,
            None => sandbox.kill(id).await,
        };
        match sent {
            Err(shim::Error::Gone(_)) => self.sandbox_gone(),
            Err(error) => tracing::debug!(%error, container = id, "signalling"),
            Ok(()) => {}
        }
    }

    async fn finish(&mut self) {
        self.report().await;
        let dir = self.dir.clone();
        let removed = tokio::task::spawn_blocking(move || volumes::remove(&dir)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(dir = %self.dir.display(), %error, "removing a pod's folder; trying again");
            tokio::time::sleep(STEP_RETRY).await;
            return;
        }
        if !self.gone {
            let (namespace, name) = super::key(&self.pod);
            let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &namespace);
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions {
                    uid: self.pod.metadata.uid.clone(),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            match api.delete(&name, &params).await {
                Ok(_) => {}
                Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => {}
                Err(error) => {
                    tracing::warn!(
                        pod = name,
                        cause = api::error::cause(&error),
                        "confirming a pod's end; trying again"
                    );
                    tokio::time::sleep(STEP_RETRY).await;
                    return;
                }
            }
        }
        self.finished = true;
    }
}

/// Runs a lifecycle hook to its end, or to the limit.
async fn run_hook(
    target: Result<Target, String>,
    sandbox: &Sandbox,
    id: &str,
    limit: Duration,
) -> Result<(), String> {
    match super::prober::ask(&target?, sandbox, id, limit).await {
        Outcome::Success => Ok(()),
        Outcome::Failure(text) | Outcome::Error(text) => Err(text),
    }
}
