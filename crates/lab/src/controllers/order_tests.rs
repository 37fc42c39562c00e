//! Watch events may come in any order between kinds and objects, in pieces and twice: what
//! is decided in the end is the same.

use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Event;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::action::value;
use super::driver::Controller;
use super::endpoints::Slices;
use super::replicaset::ReplicaSets;
use super::store::Key;
use super::world::{Arrived, Changed, World};
use crate::scheduler::Scheduler;

/// One version of one object.
#[derive(Clone, Debug)]
struct Told {
    kind: &'static str,
    object: Value,
    gone: bool,
}

impl Told {
    fn name(&self) -> (&'static str, String) {
        (self.kind, self.object["metadata"]["name"].to_string())
    }

    fn arrive(&self) -> Arrived {
        macro_rules! event {
            ($kind:ident) => {{
                let object = serde_json::from_value(self.object.clone()).unwrap();
                Arrived::$kind(if self.gone {
                    Event::Delete(object)
                } else {
                    Event::Apply(object)
                })
            }};
        }
        match self.kind {
            "Node" => event!(Node),
            "Pod" => event!(Pod),
            "Service" => event!(Service),
            _ => event!(ReplicaSet),
        }
    }
}

/// How one pod fares: whose it is, its versions' states, and whether it is deleted.
type Fate = (bool, Vec<(bool, bool)>, bool);

fn fate() -> impl Strategy<Value = Fate> {
    let states = prop::collection::vec((any::<bool>(), any::<bool>()), 1..4);
    (any::<bool>(), states, any::<bool>())
}

fn pod(number: usize, owned: bool, node: Option<usize>, ready: bool) -> Value {
    let mut pod = json!({"metadata": {"namespace": "d", "name": format!("p{number}"),
            "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]},
        "status": {"phase": "Pending"}});
    if owned {
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1",
            "kind": "ReplicaSet", "name": "web", "uid": "web", "controller": true}]);
    }
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(format!("n{node}"));
        pod["status"] = json!({"phase": "Running", "podIP": format!("10.244.0.{number}"),
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
                "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    }
    pod
}

/// The history of a small world, each object's versions in order.
fn history(replicas: i32, nodes: usize, pods: &[Fate]) -> Vec<Told> {
    let mut all = Vec::new();
    let mut version = 0;
    let mut tell = |kind: &'static str, mut object: Value, gone: bool| {
        version += 1;
        let name = object["metadata"]["name"].clone();
        object["metadata"]["uid"] = name;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        all.push(Told { kind, object, gone });
    };
    for number in 0..nodes {
        for cpu in ["1", "4"] {
            tell(
                "Node",
                json!({"metadata": {"name": format!("n{number}")}, "status": {"allocatable":
                    {"cpu": cpu, "memory": "8Gi", "pods": "3"}}}),
                false,
            );
        }
    }
    for replicas in [1, replicas] {
        tell(
            "ReplicaSet",
            json!({"metadata": {"namespace": "d", "name": "web"}, "spec": {"replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c"}]}}}}),
            false,
        );
    }
    tell(
        "Service",
        json!({"metadata": {"namespace": "d", "name": "web"}, "spec": {"clusterIP": "10.96.0.9",
            "selector": {"app": "web"}, "ports": [{"port": 80, "protocol": "TCP"}]}}),
        false,
    );
    for (number, (owned, states, ends)) in pods.iter().enumerate() {
        let mut bound = false;
        let mut ready = false;
        for (bind, become_ready) in states {
            // Nothing unbinds a pod.
            bound |= bind;
            ready = *become_ready;
            tell(
                "Pod",
                pod(number, *owned, bound.then_some(number % nodes), ready),
                false,
            );
        }
        if *ends {
            tell(
                "Pod",
                pod(number, *owned, bound.then_some(number % nodes), ready),
                true,
            );
        }
    }
    all
}

/// The same history in another order, with events told twice and some left out that a
/// later one makes superfluous. What concerns one object stays in order, as in a watch.
fn disorder(history: &[Told], keys: &[u16]) -> Vec<Told> {
    let key =
        |index: usize| keys[index % keys.len()].rotate_left(u32::try_from(index % 16).unwrap());
    let mut objects: Vec<Vec<Told>> = Vec::new();
    for told in history {
        match objects.iter_mut().find(|one| one[0].name() == told.name()) {
            Some(one) => one.push(told.clone()),
            None => objects.push(vec![told.clone()]),
        }
    }
    let mut out = Vec::new();
    for step in 0.. {
        objects.retain(|one| !one.is_empty());
        if objects.is_empty() {
            return out;
        }
        let choice = key(step);
        let at = usize::from(choice >> 4) % objects.len();
        let told = objects[at].remove(0);
        let again = choice & 1 == 1;
        let later = !objects[at].is_empty();
        // A watch that was broken lists anew: versions between are never seen.
        if choice & 6 == 6 && later && !told.gone {
            continue;
        }
        if again {
            out.push(told.clone());
        }
        out.push(told);
    }
    out
}

/// What a controller decides of the world in the end.
fn decided(controller: &mut dyn Controller, events: &[Told], batch: usize) -> Value {
    let mut world = World::default();
    let mut keys = std::collections::BTreeSet::new();
    for some in events.chunks(batch) {
        let changes: Vec<Changed> = some
            .iter()
            .flat_map(|told| world.take(told.arrive()))
            .collect();
        for change in &changes {
            controller.affected(&world, change, &mut |key: Key| {
                keys.insert(key);
            });
        }
    }
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let plans = keys.iter().flat_map(|key| {
        let plan = controller.plan(&world, key, now);
        plan.actions().map(shown).collect::<Vec<_>>()
    });
    value(&plans.collect::<Vec<_>>())
}

fn shown(action: &super::action::Action) -> String {
    format!("{action:?}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn the_order_of_what_is_told_changes_nothing(
        replicas in 0_i32..6,
        nodes in 1_usize..4,
        pods in prop::collection::vec(fate(), 0..7),
        keys in prop::collection::vec(any::<u16>(), 8..40),
        batch in 1_usize..9,
    ) {
        let history = history(replicas, nodes, &pods);
        let other = disorder(&history, &keys);
        // There is always a slice to make: the comparison is not one of nothings.
        prop_assert_ne!(decided(&mut Slices, &other, batch), json!([]));
        prop_assert_eq!(
            decided(&mut ReplicaSets::default(), &history, 1),
            decided(&mut ReplicaSets::default(), &other, batch)
        );
        prop_assert_eq!(
            decided(&mut Slices, &history, 1),
            decided(&mut Slices, &other, batch)
        );
        prop_assert_eq!(
            decided(&mut Scheduler::default(), &history, 1),
            decided(&mut Scheduler::default(), &other, batch)
        );
    }
}
