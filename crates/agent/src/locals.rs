//! The pods that are attached here: from the thread that attaches them to the loop, which brings
//! their rules to the kernel.
//!
//! ```text
//! worker: interface is made ─▶ loop: rules are in the kernel ─▶ plugin is answered
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pods::attachment::Key;
use pods::cni::{Call, CniError, code};
use pods::ipam::Ledger;
use pods::{Attachment, PodRef};
use serde_json::Value;
use tokio::sync::{Notify, oneshot};

use crate::metrics::Metrics;

/// What the plugin hears.
pub(crate) type CniAnswer = Result<Option<Value>, CniError>;

/// What is attached, as far as policies need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    /// Empty where it is no pod of Kubernetes, and where that is not known.
    pub pod: PodRef,
    pub ips: Vec<IpAddr>,
    /// It was found by its link: whose it is, nobody wrote down.
    pub found: bool,
}

impl Attached {
    fn of(attachment: &Attachment) -> Self {
        Self {
            pod: attachment.pod.clone(),
            ips: attachment.ips().collect(),
            found: attachment.network.is_empty(),
        }
    }

    /// Whether it is a pod of Kubernetes.
    pub(crate) fn is_named(&self) -> bool {
        !self.pod.namespace.is_empty() && !self.pod.name.is_empty()
    }
}

/// The place where a CNI operation's answer goes.
pub(crate) struct Reply {
    pub call: Call,
    pub begun: Instant,
    pub metrics: Arc<Metrics>,
    pub answer: oneshot::Sender<CniAnswer>,
}

impl Reply {
    /// Answers, and counts the operation.
    pub(crate) fn send(self, result: CniAnswer) {
        let error = result.as_ref().err();
        self.metrics
            .cni(self.call.command, error, self.begun.elapsed());
        if let Some(error) = error {
            tracing::warn!(command = ?self.call.command, container = %self.call.container_id, %error, "CNI");
        }
        let _ = self.answer.send(result);
    }
}

/// An ADD whose interface is made: it is answered once the pod's rules are in the kernel.
pub(crate) struct Admission {
    pub key: Key,
    pub pod: PodRef,
    /// When its interface was there.
    pub since: Instant,
    /// What the plugin shall hear then.
    pub result: Option<Value>,
    pub reply: Reply,
}

impl Admission {
    /// The pod may run.
    pub(crate) fn admit(self) {
        self.reply.send(Ok(self.result));
    }
}

#[derive(Default)]
struct Told {
    /// What came, went or changed since the last look, as it is now.
    changes: BTreeMap<Key, Option<Attached>>,
    admissions: Vec<Admission>,
}

#[derive(Default)]
struct Shared {
    told: Mutex<Told>,
    news: Notify,
    judged: AtomicBool,
}

/// Both ends of it.
#[derive(Clone, Default)]
pub(crate) struct Handle(Arc<Shared>);

impl Handle {
    /// Rules are known and in the kernel: from now on pods of Kubernetes can be attached.
    pub(crate) fn set_judged(&self) {
        self.0.judged.store(true, Ordering::Release);
    }

    /// Why this call cannot be served before policies are known.
    pub(crate) fn refusal(&self, call: &Call) -> Option<CniError> {
        use pods::cni::{Command, PodArgs};
        if self.0.judged.load(Ordering::Acquire) {
            return None;
        }
        let named = || {
            PodArgs::parse(&call.args)
                .is_ok_and(|args| !args.namespace.is_empty() && !args.name.is_empty())
        };
        let code = match call.command {
            Command::Add if named() => code::TRY_AGAIN,
            Command::Status => code::NOT_AVAILABLE,
            _ => return None,
        };
        let cause = "the network policies are not known yet: the agent waits for the API server";
        Some(CniError::new(code, "pods cannot be attached yet").details(cause))
    }

    /// What is different now, and who waits for it.
    pub(crate) fn tell(
        &self,
        changes: BTreeMap<Key, Option<Attached>>,
        admission: Option<Admission>,
    ) {
        let mut told = self.lock();
        told.changes.extend(changes);
        told.admissions.extend(admission);
        drop(told);
        self.0.news.notify_one();
    }

    /// Something came since the last look.
    pub(crate) async fn notified(&self) {
        self.0.news.notified().await;
    }

    /// What came since the last look. The changes hold the pods of all admissions.
    pub(crate) fn take(&self) -> (BTreeMap<Key, Option<Attached>>, Vec<Admission>) {
        let mut told = self.lock();
        let told = std::mem::take(&mut *told);
        (told.changes, told.admissions)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker's end.
pub(crate) struct Roster {
    handle: Handle,
    /// What the loop has been told.
    told: BTreeMap<Key, Attached>,
}

impl Roster {
    /// With what is attached now.
    pub(crate) fn new(handle: Handle, ledger: &Ledger) -> Self {
        let mut roster = Self {
            handle,
            told: BTreeMap::new(),
        };
        roster.update(ledger, None);
        roster
    }

    /// The handle it tells.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Tells what is different, and who waits for it.
    pub(crate) fn update(&mut self, ledger: &Ledger, admission: Option<Admission>) {
        let mut changes: BTreeMap<Key, Option<Attached>> = BTreeMap::new();
        for key in self.told.keys() {
            if ledger.get(key).is_none() {
                changes.insert(key.clone(), None);
            }
        }
        for attachment in ledger.attachments() {
            let is = Attached::of(attachment);
            if self.told.get(&attachment.key) != Some(&is) {
                changes.insert(attachment.key.clone(), Some(is));
            }
        }
        if changes.is_empty() && admission.is_none() {
            return;
        }
        for (key, change) in &changes {
            match change {
                Some(is) => self.told.insert(key.clone(), is.clone()),
                None => self.told.remove(key),
            };
        }
        self.handle.tell(changes, admission);
    }
}
