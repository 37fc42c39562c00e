//! The timers of a container's probes: each asks on time and sends verdicts to the pod's task.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::shim::{self, client::Sandbox};

use super::pod::Message;
use super::probe_io;
use super::probes::{Kind, Outcome, Tally, Target, Timing, target};
use super::{Shared, reference};

/// A verdict or a failed try, for the pod's task.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Container.
    pub container: String,
    /// The runtime's id of the attempt probed.
    pub id: String,
    /// Which probe.
    pub kind: Kind,
    /// Passed or failed.
    pub success: bool,
}

/// What the probes of one attempt are aimed at.
pub struct Probed {
    /// The kubelet.
    pub shared: Arc<Shared>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// The container.
    pub container: Container,
    /// The runtime's id of the attempt.
    pub id: String,
    /// The pod's sandbox.
    pub sandbox: Sandbox,
    /// The pod's address.
    pub ip: Option<std::net::IpAddr>,
    /// When the attempt started.
    pub started: Timestamp,
}

/// The probes of one attempt; they end when this is dropped.
pub struct Probes {
    tasks: Vec<AbortHandle>,
    passed_startup: watch::Sender<bool>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Probes {
    /// Starts the timers. `startup_passed` holds for an adopted container.
    pub fn start(probed: Probed, startup_passed: bool, mailbox: mpsc::Sender<Message>) -> Self {
        let has_startup = probed.container.startup_probe.is_some();
        let (passed_startup, gate) = watch::channel(startup_passed || !has_startup);
        let probed = Arc::new(probed);
        let mut tasks = Vec::new();
        for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
            if kind.of(&probed.container).is_none() || (kind == Kind::Startup && *gate.borrow()) {
                continue;
            }
            let (probed, gate, mailbox) = (probed.clone(), gate.clone(), mailbox.clone());
            let task = tokio::spawn(keep_asking(probed, kind, gate, mailbox));
            tasks.push(task.abort_handle());
        }
        Self {
            tasks,
            passed_startup,
        }
    }

    /// The startup probe passed: the others may begin.
    pub fn startup_passed(&self) {
        self.passed_startup.send_replace(true);
    }
}

async fn keep_asking(
    probed: Arc<Probed>,
    kind: Kind,
    mut gate: watch::Receiver<bool>,
    mailbox: mpsc::Sender<Message>,
) {
    let Some(probe) = kind.of(&probed.container) else {
        return;
    };
    let timing = Timing::of(probe);
    if kind != Kind::Startup && gate.wait_for(|passed| *passed).await.is_err() {
        return;
    }
    let begin = probed
        .started
        .checked_add(timing.initial_delay)
        .unwrap_or(probed.started);
    let wait = begin.duration_since(Timestamp::now());
    tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
    let mut tally = Tally::new(probe);
    let mut ticks = tokio::time::interval(timing.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = match target(probe, &probed.container, probed.ip) {
            Ok(target) => ask(&target, &probed.sandbox, &probed.id, timing.timeout).await,
            Err(error) => Outcome::Error(error),
        };
        tell(&probed, kind, &outcome);
        let success = outcome == Outcome::Success;
        // An error to ask is a failure, except for readiness, which it leaves as it is.
        let Some(success) = tally.observe(success) else {
            continue;
        };
        let verdict = Verdict {
            container: probed.container.name.clone(),
            id: probed.id.clone(),
            kind,
            success,
        };
        if mailbox.send(Message::Verdict(verdict)).await.is_err() {
            return;
        }
        if settled(kind, success) {
            return;
        }
    }
}

/// True where nothing more is asked of this container: it is up, or on its way out.
fn settled(kind: Kind, success: bool) -> bool {
    match kind {
        Kind::Startup => true,
        Kind::Liveness => !success,
        Kind::Readiness => false,
    }
}

fn tell(probed: &Probed, kind: Kind, outcome: &Outcome) {
    let on = || reference(&probed.pod, Some(&probed.container.name));
    let title = kind.title();
    match outcome {
        Outcome::Success => {}
        Outcome::Failure(text) => {
            let message = format!("{title} probe failed: {text}");
            probed.shared.recorder.warning(on(), "Unhealthy", message);
        }
        Outcome::Error(text) => {
            let message = format!("{title} probe errored and resulted in unknown state: {text}");
            probed.shared.recorder.warning(on(), "Unhealthy", message);
        }
    }
}

/// Tries a target once, in the container where it is a command.
pub async fn ask(target: &Target, sandbox: &Sandbox, id: &str, timeout: Duration) -> Outcome {
    match target {
        Target::Exec(argv) => match sandbox.exec_sync(id, argv, timeout).await {
            Ok(output) if output.code == 0 => Outcome::Success,
            Ok(output) => {
                let mut text = output.stdout;
                text.extend(output.stderr);
                text.truncate(10 * 1024);
                Outcome::Failure(String::from_utf8_lossy(&text).into_owned())
            }
            Err(shim::Error::Timeout(after)) => Outcome::Failure(format!(
                "command timed out: {:?} timed out after {}s",
                argv.join(" "),
                after.as_secs()
            )),
            Err(error) => Outcome::Error(error.to_string()),
        },
        Target::Sleep(time) => {
            tokio::time::sleep((*time).min(timeout)).await;
            Outcome::Success
        }
        network => probe_io::ask(network, timeout).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_is_being_killed_is_asked_no_more() {
        assert!(settled(Kind::Liveness, false) && settled(Kind::Startup, false));
        assert!(!settled(Kind::Liveness, true) && !settled(Kind::Readiness, false));
    }
}
