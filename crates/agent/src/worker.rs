//! The thread that owns the node's attachments.
//!
//! CNI operations are short and made of blocking kernel calls; one thread does them in order.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pods::cni::{Call, CniError, code};
use pods::manager::{Noticed, Reconciled};
use pods::{Attachment, Manager, Readiness, Settings};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;

/// More operations than this waiting are refused with "try again later".
const QUEUE: usize = 1024;

/// One thing for the worker to do.
enum Job {
    Cni {
        call: Call,
        config: Box<RawValue>,
        answer: oneshot::Sender<Result<Option<Value>, CniError>>,
    },
    Settings(Settings, oneshot::Sender<Result<(), String>>),
    Readiness(Readiness),
    Heal,
    Notice(Vec<Noticed>),
    View(oneshot::Sender<View>),
}

/// How the attachments stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub settings: Option<Settings>,
    pub attachments: Vec<Attachment>,
    /// Range, addresses for pods, addresses held.
    pub pools: Vec<(ipnet::IpNet, u128, u128)>,
}

/// A handle to the worker.
#[derive(Clone, Debug)]
pub(crate) struct Worker(mpsc::Sender<Job>);

/// Starts the worker on what is in `state`.
pub(crate) fn start(state: &Path, metrics: Arc<Metrics>) -> Result<(Worker, Reconciled), String> {
    let (jobs, queue) = mpsc::channel(QUEUE);
    let (mut manager, reconciled) = Manager::open(state, now())?;
    thread::Builder::new()
        .name("pods".to_owned())
        .spawn(move || work(&mut manager, queue, &metrics))
        .map_err(|error| format!("start the pods thread: {error}"))?;
    Ok((Worker(jobs), reconciled))
}

fn work(manager: &mut Manager, mut queue: mpsc::Receiver<Job>, metrics: &Metrics) {
    while let Some(job) = queue.blocking_recv() {
        match job {
            Job::Cni {
                call,
                config,
                answer,
            } => {
                let begun = Instant::now();
                let result = manager.cni(&call, config.get().as_bytes(), now());
                metrics.cni(call.command, result.as_ref().err(), begun.elapsed());
                if let Err(error) = &result {
                    tracing::warn!(command = ?call.command, container = %call.container_id, %error, "CNI");
                }
                let _ = answer.send(result);
            }
            Job::Settings(settings, answer) => {
                let _ = answer.send(manager.set_settings(settings));
            }
            Job::Readiness(readiness) => manager.set_readiness(readiness),
            Job::Heal => manager.heal(),
            Job::Notice(changes) => manager.notice(&changes),
            Job::View(answer) => {
                let _ = answer.send(view(manager));
            }
        }
    }
}

fn view(manager: &Manager) -> View {
    let ledger = manager.ledger();
    View {
        settings: manager.settings().cloned(),
        attachments: ledger.attachments().cloned().collect(),
        pools: ledger
            .pools()
            .iter()
            .map(|pool| {
                let (size, used) = pool.counts();
                (pool.net(), size, used)
            })
            .collect(),
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn ended() -> String {
    "the pods thread has ended; restart the agent".to_owned()
}

impl Worker {
    /// One CNI operation.
    pub(crate) async fn cni(
        &self,
        call: Call,
        config: Box<RawValue>,
    ) -> Result<Option<Value>, CniError> {
        let (answer, answered) = oneshot::channel();
        self.0
            .try_send(Job::Cni {
                call,
                config,
                answer,
            })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => {
                    CniError::new(code::TRY_AGAIN, "the agent is busy")
                }
                mpsc::error::TrySendError::Closed(_) => CniError::new(code::NOT_AVAILABLE, ended()),
            })?;
        answered
            .await
            .map_err(|_| CniError::new(code::NOT_AVAILABLE, ended()))?
    }

    /// New settings for pods.
    pub(crate) async fn set_settings(&self, settings: Settings) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.0
            .send(Job::Settings(settings, answer))
            .await
            .map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// What STATUS says from now on.
    pub(crate) async fn set_readiness(&self, readiness: Option<Readiness>) {
        if let Some(readiness) = readiness {
            let _ = self.0.send(Job::Readiness(readiness)).await;
        }
    }

    /// Looks for what others changed. Not queued behind a full queue: the next one will do.
    pub(crate) fn heal(&self) {
        let _ = self.0.try_send(Job::Heal);
    }

    /// What changed in the kernel.
    pub(crate) fn notice(&self, changes: Vec<Noticed>) {
        if self.0.try_send(Job::Notice(changes)).is_err() {
            tracing::debug!("changes are not looked at: the pods thread is busy");
        }
    }

    /// How the attachments stand.
    pub(crate) async fn view(&self) -> Result<View, String> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Job::View(answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())
    }
}
