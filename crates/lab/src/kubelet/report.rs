//! From one status to the next: whether they differ, and the patch that says how. Pure.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

/// Carries the conditions this kubelet wrote into a status the watch brought earlier.
pub fn own_conditions(written: &PodStatus, seen: &mut PodStatus) {
    const OWN: [&str; 4] = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
    ];
    let conditions = seen.conditions.get_or_insert_default();
    for condition in written.conditions.iter().flatten() {
        if OWN.contains(&condition.type_.as_str()) {
            conditions.retain(|other| other.type_ != condition.type_);
            conditions.push(condition.clone());
        }
    }
    seen.start_time = written.start_time.clone().or(seen.start_time.take());
    seen.phase = written.phase.clone().or(seen.phase.take());
}

/// True where the API says something else of the pod's readiness than was written.
pub fn overruled(written: &PodStatus, seen: &PodStatus) -> bool {
    let ready = |status: &PodStatus| {
        let mut conditions = status.conditions.iter().flatten();
        conditions
            .find(|condition| condition.type_ == "Ready")
            .map(|condition| condition.status.clone())
    };
    ready(written) != ready(seen)
}

/// True where nothing a user sees differs.
pub fn same(a: &PodStatus, b: &PodStatus) -> bool {
    let plain = |status: &PodStatus| serde_json::to_value(status).unwrap_or_default();
    normalized(plain(a)) == normalized(plain(b))
}

/// A status without the order of its conditions.
fn normalized(mut status: Value) -> Value {
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.sort_by_key(|condition| condition["type"].as_str().map(str::to_owned));
    }
    status
}

/// The strategic merge patch that brings `known` to `status`: what it does not name stays,
/// what went away is null, and the pod must be this one.
pub fn patch(pod: &Pod, known: Option<&PodStatus>, status: &PodStatus) -> Value {
    let old = known
        .and_then(|known| serde_json::to_value(known).ok())
        .unwrap_or(json!({}));
    let mut new = serde_json::to_value(status).unwrap_or(json!({}));
    for gone in [
        "podIP",
        "podIPs",
        "reason",
        "message",
        "initContainerStatuses",
        "containerStatuses",
    ] {
        if old.get(gone).is_some() && new.get(gone).is_none() {
            new[gone] = Value::Null;
        }
    }
    changed_conditions(&old, &mut new);
    // Addresses merge by key: old ones would stay beside the new.
    for list in ["podIPs", "hostIPs"] {
        let differs = old.get(list).is_some() && old.get(list) != new.get(list);
        if let (true, Some(items)) = (differs, new.get_mut(list).and_then(Value::as_array_mut)) {
            items.push(json!({"$patch": "replace"}));
        }
    }
    if let Some(fields) = new.as_object_mut() {
        fields.retain(|field, value| value.is_null() || old.get(field) != Some(value));
    }
    json!({"metadata": {"uid": pod.metadata.uid}, "status": new})
}

/// Leaves the conditions that changed; what one of them no longer says is null, for
/// conditions merge by type.
fn changed_conditions(old: &Value, new: &mut Value) {
    let known = old.get("conditions").and_then(Value::as_array);
    let Some(conditions) = new.get_mut("conditions").and_then(Value::as_array_mut) else {
        return;
    };
    let same_type = |condition: &Value| {
        let mut known = known.into_iter().flatten();
        known.find(|other| other["type"] == condition["type"])
    };
    conditions.retain(|condition| same_type(condition) != Some(condition));
    for condition in conditions {
        for field in ["reason", "message"] {
            let had = same_type(condition).is_some_and(|other| other.get(field).is_some());
            if had && condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
    }
    let all = new.as_object_mut();
    if let Some(all) = all.filter(|all| all["conditions"].as_array().is_some_and(Vec::is_empty)) {
        all.remove("conditions");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_only_what_changed() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}})).unwrap();
        let of = |value: Value| -> PodStatus { serde_json::from_value(value).unwrap() };
        let old = of(
            json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "reason": "x", "qosClass": "Burstable"}),
        );
        let new = of(
            json!({"phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}],
            "qosClass": "Burstable"}),
        );
        assert_eq!(
            patch(&pod, Some(&old), &new),
            json!({"metadata": {"uid": "u"}, "status": {"podIP": "10.0.0.2", "reason": null,
                "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "replace"}]}})
        );
        assert!(same(&new, &new.clone()));
        assert!(!same(&old, &new));
    }

    #[test]
    fn conditions_are_patched_one_by_one() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}})).unwrap();
        let of = |value: Value| -> PodStatus { serde_json::from_value(value).unwrap() };
        let scheduled = json!({"type": "PodScheduled", "status": "True"});
        let old = of(json!({"conditions": [scheduled,
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"}]}));
        let new = of(json!({"conditions": [{"type": "Ready", "status": "True"}, scheduled]}));
        assert_eq!(
            patch(&pod, Some(&old), &new)["status"],
            json!({"conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}]})
        );
        assert_eq!(patch(&pod, Some(&new), &new)["status"], json!({}));
    }
}
