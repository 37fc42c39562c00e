//! The thread that owns the node's attachments.
//!
//! CNI operations are short and made of blocking kernel calls; one thread does them in order.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pods::attachment::Key;
use pods::cni::{Call, CniError, Command, code};
use pods::manager::{Noticed, Reconciled};
use pods::{Attachment, Manager, Readiness, Settings};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use crate::locals::{Admission, CniAnswer, Handle, Reply, Roster};
use crate::metrics::Metrics;

/// More operations than this waiting are refused with "try again later".
const QUEUE: usize = 1024;

/// One thing for the worker to do.
enum Job {
    Cni {
        call: Call,
        config: Box<RawValue>,
        answer: oneshot::Sender<CniAnswer>,
    },
    /// The rules of this pod are not in the kernel.
    Undo(Box<Admission>, CniError),
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

/// Starts the worker on what is in `state`. What is attached it tells `locals`, from the start.
pub(crate) fn start(
    state: &Path,
    locals: Handle,
    metrics: Arc<Metrics>,
) -> Result<(Worker, Reconciled), String> {
    let (jobs, queue) = mpsc::channel(QUEUE);
    let (manager, reconciled) = Manager::open(state, now())?;
    let mut pods = Pods {
        roster: Roster::new(locals, manager.ledger()),
        manager,
        metrics,
    };
    thread::Builder::new()
        .name("pods".to_owned())
        .spawn(move || pods.work(queue))
        .map_err(|error| format!("start the pods thread: {error}"))?;
    Ok((Worker(jobs), reconciled))
}

/// What the thread owns.
struct Pods {
    manager: Manager,
    roster: Roster,
    metrics: Arc<Metrics>,
}

impl Pods {
    fn work(&mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            match job {
                Job::Cni {
                    call,
                    config,
                    answer,
                } => {
                    let reply = Reply {
                        call,
                        begun: Instant::now(),
                        metrics: self.metrics.clone(),
                        answer,
                    };
                    self.cni(reply, &config);
                }
                Job::Undo(admission, error) => self.undo(*admission, error),
                Job::Settings(settings, answer) => {
                    let _ = answer.send(self.manager.set_settings(settings));
                }
                Job::Readiness(readiness) => self.manager.set_readiness(readiness),
                Job::Heal => self.manager.heal(),
                Job::Notice(changes) => self.manager.notice(&changes),
                Job::View(answer) => {
                    let _ = answer.send(view(&self.manager));
                }
            }
        }
    }

    /// One operation. An ADD of a pod is answered by the loop, once it has made the pod's rules;
    /// meanwhile this thread serves others.
    fn cni(&mut self, reply: Reply, config: &RawValue) {
        let refused = self.roster.handle().refusal(&reply.call);
        if let (Command::Add, Some(error)) = (reply.call.command, &refused) {
            let error = error.clone();
            return reply.send(Err(error));
        }
        let config = config.get().as_bytes();
        let result = match (self.manager.cni(&reply.call, config, now()), refused) {
            // The manager's own reason comes first.
            (Ok(_), Some(error)) => Err(error),
            (result, _) => result,
        };
        let attached = match (reply.call.command, &result) {
            (Command::Add, Ok(_)) => self.manager.ledger().get(&key(&reply.call)),
            _ => None,
        };
        let pod = attached.map(|attachment| attachment.pod.clone());
        match pod.filter(|pod| !pod.namespace.is_empty() && !pod.name.is_empty()) {
            Some(pod) => {
                let admission = Admission {
                    key: key(&reply.call),
                    pod,
                    since: Instant::now(),
                    result: result.unwrap_or_default(),
                    reply,
                };
                let ledger = self.manager.ledger();
                self.roster.update(ledger, Some(admission));
            }
            None => {
                self.roster.update(self.manager.ledger(), None);
                reply.send(result);
            }
        }
    }

    /// Takes an attachment back whose rules could not be made.
    fn undo(&mut self, admission: Admission, error: CniError) {
        let Admission { key, reply, .. } = admission;
        if let Err(error) = self.manager.detach(&key, &reply.call.netns, now()) {
            tracing::warn!(attachment = %key, %error, "it stays until the runtime removes it");
        }
        self.roster.update(self.manager.ledger(), None);
        reply.send(Err(error));
    }
}

fn key(call: &Call) -> Key {
    Key {
        container: call.container_id.clone(),
        ifname: call.ifname.clone(),
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
    pub(crate) async fn cni(&self, call: Call, config: Box<RawValue>) -> CniAnswer {
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

    /// Undoes an ADD, and answers it with this error.
    pub(crate) fn undo(&self, admission: Admission, error: CniError) {
        let jobs = self.0.clone();
        // The queue may be full, and the loop waits for nothing.
        tokio::spawn(async move {
            jobs.send(Job::Undo(Box::new(admission), error))
                .await
                .is_ok()
        });
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
