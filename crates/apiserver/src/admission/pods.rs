//! Pods: the service account and its token volume, default tolerations, priority, QoS.

use objects::{Object, Status};
use serde_json::json;

use crate::context;
use crate::store::Store;
use crate::verbs::meta;

/// Where a service-account token is found in a container.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds a projected token lasts, as Kubernetes asks for it.
const TOKEN_SECONDS: u32 = 3607;
/// Seconds a pod stays on a node that is not ready or unreachable.
const TOLERATION_SECONDS: u32 = 300;

/// Admits a new pod.
pub fn admit(store: &Store, pod: &mut Object) -> Result<(), Status> {
    if !pod["spec"].is_object() {
        return Ok(());
    }
    service_account(store, pod)?;
    tolerations(pod);
    priority(store, pod)?;
    pod["status"]["qosClass"] = qos(pod).into();
    gates(pod);
    Ok(())
}

/// A pod behind scheduling gates says that nobody will schedule it yet.
fn gates(pod: &mut Object) {
    let gates = pod["spec"]["schedulingGates"].as_array();
    if gates.is_none_or(Vec::is_empty) {
        return;
    }
    pod["status"]["conditions"] = json!([{
        "type": "PodScheduled",
        "status": "False",
        "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
    }]);
}

fn service_account(store: &Store, pod: &mut Object) -> Result<(), Status> {
    let mirror = pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string();
    if mirror {
        return Ok(());
    }
    let given = pod["spec"]["serviceAccountName"]
        .as_str()
        .unwrap_or_default();
    let name = if given.is_empty() {
        "default".to_owned()
    } else {
        given.to_owned()
    };
    let namespace = meta::get(pod, "namespace").to_owned();
    let Some(entry) = store.get(&format!("/serviceaccounts/{namespace}/{name}")) else {
        let cause = format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        );
        return Err(Status::forbidden(
            "",
            "pods",
            meta::get(pod, "name"),
            &cause,
        ));
    };
    pod["spec"]["serviceAccountName"] = name.clone().into();
    pod["spec"]["serviceAccount"] = name.into();
    let account = entry.object();
    if pod["spec"]["imagePullSecrets"]
        .as_array()
        .is_none_or(Vec::is_empty)
        && account["imagePullSecrets"].is_array()
    {
        pod["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let wanted = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or_else(|| account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if wanted {
        mount_token(pod);
    }
    Ok(())
}

fn mount_token(pod: &mut Object) {
    let volume = format!("kube-api-access-{}", context::suffix(5));
    let mut used = false;
    for field in ["initContainers", "containers"] {
        for container in meta::array_mut(pod, &["spec", field]).into_iter().flatten() {
            let mounts = container["volumeMounts"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if mounts.iter().any(|m| m["mountPath"] == MOUNT) {
                continue;
            }
            let mut mounts = mounts;
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT}));
            container["volumeMounts"] = mounts.into();
            used = true;
        }
    }
    if !used {
        return;
    }
    let source = json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}});
    match meta::array_mut(pod, &["spec", "volumes"]) {
        Some(volumes) => volumes.push(source),
        None => pod["spec"]["volumes"] = json!([source]),
    }
}

fn tolerations(pod: &mut Object) {
    let mut list = pod["spec"]["tolerations"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = list.iter().any(|t| {
            let effect = t["effect"].as_str().unwrap_or_default();
            let of = t["key"].as_str().unwrap_or_default();
            (of == key || of.is_empty()) && (effect.is_empty() || effect == "NoExecute")
        });
        if !tolerated {
            list.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS}),
            );
        }
    }
    pod["spec"]["tolerations"] = list.into();
}

fn priority(store: &Store, pod: &mut Object) -> Result<(), Status> {
    let class = pod["spec"]["priorityClassName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let (value, policy) = match class.as_str() {
        "" => (0, Object::Null),
        "system-node-critical" => (2_000_001_000, Object::Null),
        "system-cluster-critical" => (2_000_000_000, Object::Null),
        name => {
            let Some(entry) = store.get(&format!("scheduling.k8s.io/priorityclasses//{name}"))
            else {
                let cause = format!("no PriorityClass with name {name} was found");
                return Err(Status::forbidden(
                    "",
                    "pods",
                    meta::get(pod, "name"),
                    &cause,
                ));
            };
            let class = entry.object();
            (
                class["value"].as_i64().unwrap_or(0),
                class["preemptionPolicy"].clone(),
            )
        }
    };
    pod["spec"]["priority"] = value.into();
    if pod["spec"]["preemptionPolicy"].is_null() {
        pod["spec"]["preemptionPolicy"] = if policy.is_null() {
            "PreemptLowerPriority".into()
        } else {
            policy
        };
    }
    Ok(())
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from requests and limits.
pub fn qos(pod: &Object) -> &'static str {
    let mut any = false;
    let mut all = true;
    for field in ["initContainers", "containers"] {
        for container in pod["spec"][field].as_array().into_iter().flatten() {
            let resources = &container["resources"];
            for name in ["cpu", "memory"] {
                let (request, limit) = (&resources["requests"][name], &resources["limits"][name]);
                any |= !request.is_null() || !limit.is_null();
                all &= !limit.is_null() && (request.is_null() || request == limit);
            }
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let pod = |resources: Object| json!({"spec": {"containers": [{"resources": resources}]}});
        assert_eq!(qos(&pod(json!({}))), "BestEffort");
        assert_eq!(qos(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos(&pod(json!({"limits": both}))), "Guaranteed");
        assert_eq!(
            qos(&pod(json!({"limits": both, "requests": {"cpu": "2"}}))),
            "Burstable"
        );
    }

    #[test]
    fn a_gated_pod_says_so() {
        let mut pod = json!({"spec": {"schedulingGates": [{"name": "a/b"}]}});
        gates(&mut pod);
        assert_eq!(pod["status"]["conditions"][0]["reason"], "SchedulingGated");
        let mut free = json!({"spec": {}});
        gates(&mut free);
        assert_eq!(free, json!({"spec": {}}));
    }

    #[test]
    fn tolerations_of_the_author_are_kept() {
        let mut pod = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        tolerations(&mut pod);
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 1);
        let mut pod = json!({"spec": {}});
        tolerations(&mut pod);
        assert_eq!(pod["spec"]["tolerations"][1]["tolerationSeconds"], 300);
    }

    #[test]
    fn a_token_is_mounted_where_none_is() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "mine", "mountPath": MOUNT}]}]}});
        mount_token(&mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"],
            MOUNT
        );
        assert_eq!(
            pod["spec"]["containers"][1]["volumeMounts"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        assert_eq!(
            pod["spec"]["volumes"][0]["projected"]["sources"]
                .as_array()
                .unwrap()
                .len(),
            3
        );
    }
}
