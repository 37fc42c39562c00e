//! Rows of nodes, events and the kinds with little to show.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{NONE, age, ago, count, int_or_string, list, text};
use crate::Kind;

fn roles(node: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in node["metadata"]["labels"].as_object().into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/") {
            roles.insert(role);
        } else if key == "kubernetes.io/role" {
            roles.insert(text(value));
        }
    }
    roles.remove("");
    if roles.is_empty() {
        NONE.to_owned()
    } else {
        roles.into_iter().collect::<Vec<_>>().join(",")
    }
}

pub(super) fn node(object: &Value, now: i64, row: &mut Vec<Value>) {
    let status = &object["status"];
    let ready = list(&status["conditions"])
        .iter()
        .rfind(|c| c["type"] == "Ready");
    let mut words = match ready {
        None => "Unknown".to_owned(),
        Some(c) if c["status"] == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
    };
    if object["spec"]["unschedulable"] == true {
        words.push_str(",SchedulingDisabled");
    }
    let info = &status["nodeInfo"];
    row.push(words.into());
    row.push(roles(object).into());
    row.push(age(object, now));
    row.push(text(&info["kubeletVersion"]).into());
    for kind in ["InternalIP", "ExternalIP"] {
        let address = list(&status["addresses"])
            .iter()
            .find(|a| a["type"] == kind);
        row.push(address.map_or(NONE, |a| text(&a["address"])).into());
    }
    let known = |field: &str| match text(&info[field]) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    };
    row.push(known("osImage").into());
    let mut kernel = known("kernelVersion");
    if !text(&info["architecture"]).is_empty() {
        kernel.push_str(&format!(" ({})", text(&info["architecture"])));
    }
    row.push(kernel.into());
    row.push(known("containerRuntimeVersion").into());
}

fn first<'a>(a: &'a Value, b: &'a Value) -> &'a str {
    match text(a) {
        "" => text(b),
        text => text,
    }
}

/// A row of either Event kind; events.k8s.io spells the same fields its own way.
pub(super) fn event(object: &Value, now: i64, row: &mut Vec<Value>) {
    let mut core;
    let mut event = object;
    if object.get("regarding").is_some() || object.get("note").is_some() {
        core = object.clone();
        crate::event::to_core(&mut core);
        event = &core;
    }
    row.clear();
    let first_seen = if event["firstTimestamp"].is_null() {
        ago(&event["eventTime"], now)
    } else {
        ago(&event["firstTimestamp"], now)
    };
    let series = &event["series"];
    let (last_seen, times) = if series.is_object() {
        (
            ago(&series["lastObservedTime"], now),
            count(&series["count"]),
        )
    } else {
        let last = if event["lastTimestamp"].is_null() {
            first_seen.clone()
        } else {
            ago(&event["lastTimestamp"], now)
        };
        (last, count(&event["count"]).max(1))
    };
    let about = &event["involvedObject"];
    let mut target = text(&about["kind"]).to_lowercase();
    if !text(&about["name"]).is_empty() {
        target.push_str(&format!("/{}", text(&about["name"])));
    }
    let component = first(&event["source"]["component"], &event["reportingComponent"]);
    let instance = first(&event["source"]["host"], &event["reportingInstance"]);
    let source = if instance.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {instance}")
    };
    row.push(last_seen.into());
    row.push(text(&event["type"]).into());
    row.push(text(&event["reason"]).into());
    row.push(target.into());
    row.push(text(&about["fieldPath"]).into());
    row.push(source.into());
    row.push(text(&event["message"]).trim().into());
    row.push(first_seen.into());
    row.push(times.into());
    row.push(text(&event["metadata"]["name"]).into());
}

fn subjects(object: &Value, kind: &str) -> String {
    let subjects = list(&object["subjects"])
        .iter()
        .filter(|s| s["kind"] == kind);
    let names = subjects.map(|s| {
        if kind == "ServiceAccount" {
            format!("{}/{}", text(&s["namespace"]), text(&s["name"]))
        } else {
            text(&s["name"]).to_owned()
        }
    });
    names.collect::<Vec<_>>().join(", ")
}

fn quota(object: &Value, limits: bool) -> String {
    let status = &object["status"];
    let hard = status["hard"].as_object().into_iter().flatten();
    let hard = hard.filter(|(name, _)| name.starts_with("limits.") == limits);
    let texts = hard.map(|(name, hard)| {
        let used = match text(&status["used"][name]) {
            "" => "0",
            used => used,
        };
        format!("{name}: {used}/{}", text(hard))
    });
    texts.collect::<Vec<_>>().join(", ")
}

pub(super) fn cells(kind: &Kind, object: &Value, now: i64, row: &mut Vec<Value>) {
    let size = |field: &str| object[field].as_object().map_or(0, serde_json::Map::len);
    match kind.kind.as_str() {
        "Namespace" => row.push(text(&object["status"]["phase"]).into()),
        "Secret" => {
            row.push(text(&object["type"]).into());
            row.push(size("data").into());
        }
        "ConfigMap" => row.push((size("data") + size("binaryData")).into()),
        "ServiceAccount" => {}
        "ResourceQuota" => {
            row.push(quota(object, false).into());
            row.push(quota(object, true).into());
        }
        "PodDisruptionBudget" => {
            for field in ["minAvailable", "maxUnavailable"] {
                row.push(int_or_string(&object["spec"][field], "N/A").into());
            }
            row.push(count(&object["status"]["disruptionsAllowed"]).into());
        }
        "Lease" => row.push(text(&object["spec"]["holderIdentity"]).into()),
        "RuntimeClass" => row.push(text(&object["handler"]).into()),
        "PriorityClass" => {
            row.push(count(&object["value"]).into());
            row.push((object["globalDefault"] == true).into());
            row.push(age(object, now));
            row.push(text(&object["preemptionPolicy"]).into());
            return;
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let role = &object["roleRef"];
            row.push(format!("{}/{}", text(&role["kind"]), text(&role["name"])).into());
            row.push(age(object, now));
            for kind in ["User", "Group", "ServiceAccount"] {
                row.push(subjects(object, kind).into());
            }
            return;
        }
        _ => {
            row.push(object["metadata"]["creationTimestamp"].clone());
            return;
        }
    }
    row.push(age(object, now));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::tests::line;

    #[test]
    fn nodes_and_events() {
        let node = json!({"metadata": {"name": "node1", "labels": {"node-role.kubernetes.io/control-plane": ""}, "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.1.10"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "architecture": "amd64", "kernelVersion": "6.1"}}});
        assert_eq!(
            line("Node", &node, 90),
            "node1|Ready,SchedulingDisabled|control-plane|90s|v1.36.0|10.0.1.10|<none>|Debian|6.1 (amd64)|<unknown>"
        );
        let event = json!({"metadata": {"name": "a.1"}, "involvedObject": {"kind": "Pod", "name": "a"}, "type": "Normal", "reason": "Started",
            "message": " Started container\n", "lastTimestamp": "1970-01-01T00:01:00Z", "firstTimestamp": "1970-01-01T00:00:00Z", "count": 2, "source": {"component": "kubelet", "host": "n"}});
        assert_eq!(
            line("Event", &event, 90),
            "30s|Normal|Started|pod/a||kubelet, n|Started container|90s|2|a.1"
        );
    }
}
