//! A rolling update that adds pods before it takes any away.

use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::controllers::world::Arrived;

/// A pod beside others: of which template, and whether it is ready.
#[derive(Clone, Copy)]
enum Have {
    Old,
    OldBroken,
    New,
    NewPending,
}

/// What is tried, `maxSurge`, the pods of each node, and what is done.
type Case<'a> = (&'a str, Value, &'a [&'a [Have]], &'a [&'a str]);

fn daemon(surge: &Value) -> DaemonSet {
    let set = json!({"metadata": {"namespace": "d", "name": "ds", "uid": "ds",
            "resourceVersion": "1", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "ds"}},
            "updateStrategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": "ds"}},
                "spec": {"containers": [{"name": "c", "image": "b"}]}}}});
    serde_json::from_value(set).unwrap()
}

/// What the plan does to pods: `+n1` makes one for that node, `-n1-old` deletes one.
fn steps(surge: Value, nodes: &[&[Have]]) -> Vec<String> {
    let set = daemon(&surge);
    let mut world = World::default();
    let template = &set.spec.as_ref().unwrap().template;
    let hash = revision::of(&world, &set, template, None).hash;
    for (index, pods) in nodes.iter().enumerate() {
        let name = format!("n{}", index + 1);
        let node = json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1"}});
        let node = serde_json::from_value(node).unwrap();
        world.take(Arrived::Node(Event::Apply(node)));
        for (serial, have) in pods.iter().enumerate() {
            let (age, ready) = match have {
                Have::Old => ("old", true),
                Have::OldBroken => ("old", false),
                Have::New => ("new", true),
                Have::NewPending => ("new", false),
            };
            let pod = format!("{name}-{age}");
            let hash = if age == "new" { &hash } else { "before" };
            let status = if ready { "True" } else { "False" };
            let pod = json!({"metadata": {"namespace": "d", "name": pod, "uid": pod,
                    "resourceVersion": "1", "labels": {"app": "ds", HASH: hash},
                    "creationTimestamp": format!("2026-01-01T00:00:0{serial}Z"),
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet",
                        "name": "ds", "uid": "ds", "controller": true}]},
                "spec": {"nodeName": name, "containers": []},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status,
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
            let pod = serde_json::from_value(pod).unwrap();
            world.take(Arrived::Pod(Event::Apply(pod)));
        }
    }
    let now = "2026-01-02T00:00:00Z".parse().unwrap();
    let plan = plan(&world, &set, now);
    let mut did: Vec<String> = plan.actions().filter_map(on_pods).collect();
    did.sort();
    did
}

fn on_pods(action: &Action) -> Option<String> {
    match action {
        Action::Create {
            kind: Kind::Pod,
            body,
            ..
        } => {
            let pod: Pod = serde_json::from_value(body.clone()).unwrap();
            Some(format!("+{}", target(&pod).unwrap()))
        }
        Action::Delete {
            kind: Kind::Pod,
            key,
            ..
        } => Some(format!("-{}", key.name)),
        _ => None,
    }
}

#[test]
fn a_surge_adds_first_and_takes_the_old_when_the_new_is_there() {
    use Have::{New, NewPending, Old, OldBroken};
    let cases: &[Case<'_>] = &[
        ("one at once", json!(1), &[&[Old], &[Old], &[Old]], &["+n1"]),
        (
            "two at once",
            json!(2),
            &[&[Old], &[Old], &[Old]],
            &["+n1", "+n2"],
        ),
        (
            "a half, rounded up",
            json!("50%"),
            &[&[Old], &[Old], &[Old]],
            &["+n1", "+n2"],
        ),
        (
            "both stay while the new one starts",
            json!(1),
            &[&[Old, NewPending], &[Old]],
            &[],
        ),
        (
            "the old one goes",
            json!(1),
            &[&[Old, New], &[Old]],
            &["-n1-old"],
        ),
        ("then the next node", json!(1), &[&[New], &[Old]], &["+n2"]),
        (
            "what is broken does not use up the surge",
            json!(1),
            &[&[Old], &[OldBroken]],
            &["+n1", "+n2"],
        ),
        (
            "a broken one beside its successor goes at once",
            json!(1),
            &[&[OldBroken, NewPending]],
            &["-n1-old"],
        ),
        (
            "a node without one gets the new one",
            json!(1),
            &[&[], &[Old]],
            &["+n1"],
        ),
        ("done", json!(1), &[&[New], &[New]], &[]),
    ];
    for (what, surge, nodes, want) in cases {
        assert_eq!(steps(surge.clone(), nodes), *want, "{what}");
    }
}
