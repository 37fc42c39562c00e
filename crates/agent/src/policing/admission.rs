//! When an ADD is answered.

use std::time::{Duration, Instant};

use model::Cluster;
use pods::cni::{CniError, code};
use policy::Locals;

use crate::locals::Admission;

/// The API server may be slower in telling this agent of a pod than the kubelet: so long an ADD
/// waits for the pod's labels. After that the pod starts closed, and opens when they come.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What becomes of an ADD.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its pod's rules are in the kernel.
    Admit {
        /// Its labels did not come, and policies may be about it: it is closed.
        unknown: bool,
    },
    /// The pod's labels are not known yet.
    Wait(Duration),
    /// They are not, and will not be soon.
    Refuse(CniError),
}

/// The verdict after a reconcile that left these errors.
pub(super) fn judge(
    admission: &Admission,
    cluster: &Cluster,
    locals: &Locals,
    errors: &[String],
    now: Instant,
) -> Verdict {
    let key = (
        admission.key.container.clone(),
        admission.key.ifname.clone(),
    );
    if !locals.contains_key(&key) {
        let gone = CniError::new(code::UNKNOWN_CONTAINER, "it was removed meanwhile");
        return Verdict::Refuse(gone);
    }
    if let Some(error) = errors.first() {
        let failed = CniError::new(code::KERNEL, "the pod's network policies are not in force");
        return Verdict::Refuse(failed.details(error.clone()));
    }
    let pod = &admission.pod;
    let key = (pod.namespace.clone(), pod.name.clone());
    let there = cluster.pods.get(&key);
    let known = there.is_some_and(|there| pod.uid.is_empty() || there.uid == pod.uid);
    let unknown = !known && is_selectable(cluster, &pod.namespace);
    let waits = now.saturating_duration_since(admission.since);
    if unknown && waits < PATIENCE {
        return Verdict::Wait(PATIENCE.saturating_sub(waits));
    }
    Verdict::Admit { unknown }
}

/// Whether there is a policy that could be about a pod of this namespace.
fn is_selectable(cluster: &Cluster, namespace: &str) -> bool {
    let first = (namespace.to_owned(), String::new());
    let mut own = cluster.policies.range(first..);
    !cluster.cluster_policies.is_empty()
        || own.next().is_some_and(|((other, _), _)| other == namespace)
}
