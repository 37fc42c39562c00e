//! What becomes of nodes and their pods as time goes by.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn node(ready: &str, taints: Value) -> Node {
    serde_json::from_value(
        json!({"metadata": {"name": "n1"}, "spec": {"taints": taints},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}}),
    )
    .unwrap()
}

fn pod(tolerations: Value) -> Arc<Pod> {
    let value = json!({"metadata": {"namespace": "d", "name": "p", "uid": "u"},
        "spec": {"nodeName": "n1", "containers": [], "tolerations": tolerations},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn text(plan: &Plan) -> Vec<String> {
    plan.actions()
        .map(|action| match action {
            Action::Patch {
                kind: Kind::Node,
                sub: "status",
                body,
                ..
            } => {
                let ready = &body["status"]["conditions"][0];
                format!("{} {}", ready["status"], ready["reason"]).replace('"', "")
            }
            Action::Patch {
                kind: Kind::Node,
                body,
                ..
            } => {
                let taints = body["spec"]["taints"].as_array().unwrap().iter();
                let taints = taints.map(|t| format!("{}:{}", t["key"], t["effect"]));
                format!("taints {}", taints.collect::<Vec<_>>().join(" ")).replace('"', "")
            }
            Action::Patch { body, .. } => {
                let condition = &body["status"]["conditions"][0];
                format!("pod {}={}", condition["type"], condition["status"]).replace('"', "")
            }
            Action::Delete { .. } => "delete pod".to_owned(),
            Action::Event { reason, .. } => (*reason).to_owned(),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_new_node_is_freed_of_its_taint_when_it_is_ready() {
    let taint = json!([{"key": NOT_READY, "effect": "NoSchedule"}, {"key": "mine", "effect": "NoSchedule"}]);
    let none = std::iter::empty();
    let waiting = plan(&node("", taint.clone()), none.clone(), at(10), at(0));
    assert!(text(&waiting).is_empty(), "{waiting:?}");
    assert_eq!(waiting.again, Some(at(10)));
    let ready = plan(&node("True", taint), none, at(10), at(0));
    assert_eq!(text(&ready), ["taints mine:NoSchedule"]);
}

#[test]
fn a_silent_node_becomes_unknown_and_its_pods_not_ready() {
    let pods = [pod(json!([]))];
    let mut silent = node("True", json!([]));
    silent.metadata.resource_version = Some("7".to_owned());
    let lost = plan(&silent, pods.iter(), at(10), at(10));
    // A kubelet that is back by then must not be contradicted.
    let Some(Action::Patch { body, .. }) = lost.actions().next() else {
        panic!("{lost:?}");
    };
    assert_eq!(body["metadata"]["resourceVersion"], "7");
    assert_eq!(
        text(&lost)[..3],
        [
            "Unknown NodeStatusUnknown",
            "NodeNotReady",
            "pod Ready=False"
        ]
    );
    let tainted = plan(
        &node("Unknown", json!([])),
        std::iter::empty(),
        at(10),
        at(11),
    );
    assert_eq!(
        text(&tainted),
        [format!(
            "taints {UNREACHABLE}:NoSchedule {UNREACHABLE}:NoExecute"
        )]
    );
}

#[test]
fn pods_leave_after_the_time_they_bear_the_taint() {
    let taints = json!([{"key": UNREACHABLE, "effect": "NoSchedule"},
        {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "1970-01-01T00:01:40Z"}]);
    let lost = node("Unknown", taints);
    let bears = |seconds: Value| {
        pod(
            json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]),
        )
    };
    let leaves_at = |pod: Arc<Pod>, now| {
        let plan = plan(&lost, [pod].iter(), at(0), at(now));
        (text(&plan).contains(&"delete pod".to_owned()), plan.again)
    };
    assert_eq!(leaves_at(bears(json!(300)), 110), (false, Some(at(400))));
    assert_eq!(leaves_at(bears(json!(300)), 400), (true, None));
    assert_eq!(leaves_at(bears(json!(null)), 9999), (false, None));
    assert_eq!(leaves_at(pod(json!([])), 101), (true, None));
}
