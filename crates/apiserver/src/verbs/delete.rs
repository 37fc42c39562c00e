//! delete and deletecollection.

use std::sync::Arc;

use objects::{Kind, Object, Status};
use serde_json::json;

use super::read::Selection;
use super::{Call, Reply, decode, meta};
use crate::admission;
use crate::context::{self, Ctx};
use crate::failure::Failure;
use crate::output;
use crate::registry;
use crate::store::{Change, Expect, WriteError};

/// What happens to dependents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards.
    #[default]
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Seconds a pod may take to end.
    pub grace: Option<i64>,
    /// Dependents.
    pub propagation: Propagation,
    /// Only this uid.
    pub uid: String,
    /// Only this resourceVersion.
    pub rv: String,
    /// Nothing is stored.
    pub dry_run: bool,
}

/// How far a deletion came.
pub struct Deleted {
    /// The last state.
    pub object: Object,
    /// True where it is gone now.
    pub gone: bool,
}

const ATTEMPTS: usize = 10;

/// Reads the options of body and query.
pub fn options(call: &Call) -> Result<Options, Status> {
    let body = if call.body.is_empty() {
        json!({})
    } else {
        decode::any(call)?
    };
    let grace = match (
        body["gracePeriodSeconds"].as_i64(),
        call.query.get("gracePeriodSeconds"),
    ) {
        (Some(grace), _) => Some(grace),
        (None, "") => None,
        (None, text) => Some(text.parse().map_err(|_| {
            Status::bad_request(format!(
                "invalid gracePeriodSeconds {text:?}: a whole number is expected"
            ))
        })?),
    };
    let policy = body["propagationPolicy"]
        .as_str()
        .unwrap_or_else(|| call.query.get("propagationPolicy"));
    let orphan =
        body["orphanDependents"].as_bool() == Some(true) || call.query.flag("orphanDependents");
    let propagation = match policy {
        "" if orphan => Propagation::Orphan,
        "" | "Background" => Propagation::Background,
        "Foreground" => Propagation::Foreground,
        "Orphan" => Propagation::Orphan,
        other => {
            return Err(Status::bad_request(format!(
                "invalid propagationPolicy {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
            )));
        }
    };
    let dry = body["dryRun"]
        .as_array()
        .is_some_and(|d| d.iter().any(|v| v == "All"));
    Ok(Options {
        grace,
        propagation,
        uid: body["preconditions"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        rv: body["preconditions"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        dry_run: dry || call.dry_run()?,
    })
}

/// delete.
pub async fn delete(call: &Call) -> Reply {
    let options = options(call)?;
    let (ctx, kind) = (&call.ctx, &call.kind);
    let done = delete_object(ctx, kind, &call.info.namespace, &call.info.name, &options).await?;
    if done.gone && !returns_object(kind) {
        let uid = meta::get(&done.object, "uid");
        let status = Status::deleted(&kind.group, &kind.plural, &call.info.name, uid);
        return Ok(output::value(200, &status, call.pretty));
    }
    call.answer(200, &done.object)
}

/// Kinds whose deletion answers with the object, as in Kubernetes.
fn returns_object(kind: &Kind) -> bool {
    kind.group.is_empty()
        && matches!(
            kind.plural.as_str(),
            "pods"
                | "services"
                | "serviceaccounts"
                | "podtemplates"
                | "resourcequotas"
                | "persistentvolumes"
                | "persistentvolumeclaims"
        )
}

/// deletecollection.
pub async fn collection(call: &Call) -> Reply {
    let options = options(call)?;
    let selection = Selection::parse(&call.query, &call.kind, "")?;
    let page = call
        .ctx
        .store
        .list(&registry::prefix(&call.kind, &call.info.namespace));
    let mut items = Vec::new();
    for (_, entry) in page.items.iter().filter(|(_, e)| selection.matches(e)) {
        let object = entry.slim();
        let (namespace, name) = (meta::get(object, "namespace"), meta::get(object, "name"));
        match delete_object(&call.ctx, &call.kind, namespace, name, &options).await {
            Ok(done) => items.push(done.object),
            Err(Failure(status)) if status.code == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    let list = json!({"kind": call.kind.list_kind(), "apiVersion": call.kind.api_version(),
        "metadata": {"resourceVersion": call.ctx.store.rev().to_string()}, "items": items});
    Ok(output::value(200, &list, call.pretty))
}

/// Deletes an object or begins to.
pub async fn delete_object(
    ctx: &Ctx,
    kind: &Arc<Kind>,
    namespace: &str,
    name: &str,
    options: &Options,
) -> Result<Deleted, Failure> {
    admission::may_delete(kind, name)?;
    let key = registry::key(kind, namespace, name);
    let guard = admission::guard(ctx, kind).await;
    for _ in 0..ATTEMPTS {
        let entry = ctx
            .store
            .get(&key)
            .ok_or_else(|| Status::not_found(&kind.group, &kind.plural, name))?;
        let old = output::object(kind, &entry);
        preconditions(kind, name, &old, options)?;
        let step = plan(kind, &old, options, jiff::Timestamp::now().as_second());
        let (mut object, gone) = match step {
            Step::Nothing => {
                return Ok(Deleted {
                    object: old,
                    gone: false,
                });
            }
            Step::Keep(object) => (object, false),
            Step::Remove(object) => (object, true),
        };
        if options.dry_run {
            return Ok(Deleted { object, gone });
        }
        kind.to_storage(&mut object);
        let mut changes = vec![if gone {
            Change::delete(&key, entry.rev, &mut object)
        } else {
            Change::put(&key, Expect::Rev(entry.rev), &mut object)
        }];
        if gone {
            changes.extend(admission::delete(ctx, kind, &object));
        }
        match ctx.store.commit(changes).await {
            Ok(entries) => {
                drop(guard);
                admission::after(ctx, kind);
                let object = entries
                    .first()
                    .map_or(Object::Null, |e| output::object(kind, e));
                return Ok(Deleted { object, gone });
            }
            Err(WriteError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Status::modified(&kind.group, &kind.plural, name).into())
}

fn preconditions(kind: &Kind, name: &str, old: &Object, options: &Options) -> Result<(), Status> {
    let check = |what: &str, wanted: &str, field: &str| {
        let found = meta::get(old, field);
        if wanted.is_empty() || wanted == found {
            return Ok(());
        }
        let cause = format!(
            "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
        );
        Err(Status::conflict(&kind.group, &kind.plural, name, &cause))
    };
    check("UID", &options.uid, "uid")?;
    check("ResourceVersion", &options.rv, "resourceVersion")
}

/// What a deletion does to an object now.
#[derive(Debug, PartialEq)]
enum Step {
    /// It is being deleted already.
    Nothing,
    /// It stays for now, in this state.
    Keep(Object),
    /// It goes, in this last state.
    Remove(Object),
}

/// Pure: from the object and the options to the next step.
fn plan(kind: &Kind, old: &Object, options: &Options, now: i64) -> Step {
    let mut object = old.clone();
    let mut finalizers: Vec<String> = meta::finalizers(old)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let begun = meta::deleting(old);
    let held = match options.propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some("foregroundDeletion"),
        Propagation::Orphan => Some("orphan"),
    };
    if let Some(name) = held {
        if !finalizers.iter().any(|f| f == name) {
            finalizers.retain(|f| f != "foregroundDeletion" && f != "orphan");
            finalizers.push(name.to_owned());
        }
    } else if !begun {
        finalizers.retain(|f| f != "foregroundDeletion" && f != "orphan");
    }
    if finalizers.len() == meta::finalizers(old).len() && held.is_none() {
        // unchanged
    } else {
        meta::set(
            &mut object,
            "finalizers",
            if finalizers.is_empty() {
                Object::Null
            } else {
                json!(finalizers)
            },
        );
    }
    let grace = grace(kind, old, options);
    let namespace = kind.group.is_empty() && kind.plural == "namespaces";
    let waits = !finalizers.is_empty()
        || (namespace
            && old["spec"]["finalizers"]
                .as_array()
                .is_some_and(|f| !f.is_empty()));
    if begun {
        let left = old["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        if grace < left {
            let until = seconds(meta::get(old, "deletionTimestamp")).unwrap_or(now) - left + grace;
            meta::set(
                &mut object,
                "deletionTimestamp",
                context::text_of(until.max(0)).into(),
            );
            meta::set(&mut object, "deletionGracePeriodSeconds", grace.into());
        } else if left > 0 || waits {
            return if object == *old {
                Step::Nothing
            } else {
                Step::Keep(object)
            };
        }
    } else {
        meta::set(
            &mut object,
            "deletionTimestamp",
            context::text_of(now + grace).into(),
        );
        meta::set(&mut object, "deletionGracePeriodSeconds", grace.into());
        if meta::counts_generation(kind) {
            let next = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            meta::set(&mut object, "generation", next.into());
        }
        if namespace {
            object["status"]["phase"] = "Terminating".into();
        }
    }
    if grace > 0 || waits {
        if object == *old {
            Step::Nothing
        } else {
            Step::Keep(object)
        }
    } else if begun || !pods(kind) {
        // What was never marked as being deleted leaves as it was.
        if begun {
            Step::Remove(object)
        } else {
            Step::Remove(old.clone())
        }
    } else {
        Step::Remove(object)
    }
}

fn pods(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "pods"
}

/// Seconds a pod gets to end; other kinds end at once.
fn grace(kind: &Kind, old: &Object, options: &Options) -> i64 {
    if !pods(kind) {
        return 0;
    }
    let phase = old["status"]["phase"].as_str().unwrap_or_default();
    if old["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .is_empty()
        || phase == "Succeeded"
        || phase == "Failed"
    {
        return 0;
    }
    let own = old["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(30);
    // A negative period of the pod itself means at once, but let the kubelet do it.
    options
        .grace
        .unwrap_or(if own < 0 { 1 } else { own })
        .max(0)
}

fn seconds(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(|t| t.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(plural: &str) -> Arc<Kind> {
        objects::kind::builtin()
            .into_iter()
            .find(|k| k.plural == plural)
            .unwrap()
    }

    fn pod() -> Object {
        json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30},
            "status": {"phase": "Running"}})
    }

    #[test]
    fn a_running_pod_gets_its_grace_period_and_force_ends_it() {
        let Step::Keep(marked) = plan(&kind("pods"), &pod(), &Options::default(), 100) else {
            panic!("kept")
        };
        assert_eq!(
            marked["metadata"]["deletionTimestamp"],
            "1970-01-01T00:02:10Z"
        );
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(
            plan(&kind("pods"), &marked, &Options::default(), 101),
            Step::Nothing
        );
        let now = Options {
            grace: Some(0),
            ..Options::default()
        };
        assert!(matches!(
            plan(&kind("pods"), &marked, &now, 101),
            Step::Remove(_)
        ));
        let Step::Keep(shorter) = plan(
            &kind("pods"),
            &marked,
            &Options {
                grace: Some(5),
                ..Options::default()
            },
            101,
        ) else {
            panic!("kept")
        };
        assert_eq!(
            shorter["metadata"]["deletionTimestamp"],
            "1970-01-01T00:01:45Z"
        );
    }

    #[test]
    fn a_pod_on_no_node_goes_at_once() {
        let mut pod = pod();
        pod["spec"]["nodeName"] = Object::Null;
        assert!(matches!(
            plan(&kind("pods"), &pod, &Options::default(), 100),
            Step::Remove(_)
        ));
    }

    #[test]
    fn finalizers_hold_an_object() {
        let map = json!({"metadata": {"name": "a", "finalizers": ["x/y"]}});
        let Step::Keep(marked) = plan(&kind("configmaps"), &map, &Options::default(), 100) else {
            panic!("kept")
        };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
        assert_eq!(
            plan(&kind("configmaps"), &marked, &Options::default(), 101),
            Step::Nothing
        );
        let bare = json!({"metadata": {"name": "a"}});
        let foreground = Options {
            propagation: Propagation::Foreground,
            ..Options::default()
        };
        let Step::Keep(marked) = plan(&kind("configmaps"), &bare, &foreground, 100) else {
            panic!("kept")
        };
        assert_eq!(
            marked["metadata"]["finalizers"],
            json!(["foregroundDeletion"])
        );
    }
}
