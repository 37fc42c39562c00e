//! The order in which a StatefulSet does things.

use serde_json::{Value, json};

use super::*;
use crate::controllers::world::Arrived;
use kube::runtime::watcher::Event;

/// A world that carries out what is planned.
struct Simulation {
    world: World,
    serial: u64,
}

impl Simulation {
    fn new(set: Value) -> Self {
        let mut simulation = Self {
            world: World::default(),
            serial: 0,
        };
        simulation.put_set(set);
        simulation
    }

    fn put_set(&mut self, mut set: Value) {
        self.serial += 1;
        set["metadata"]["namespace"] = json!("d");
        set["metadata"]["uid"] = json!("set");
        set["metadata"]["resourceVersion"] = json!(self.serial.to_string());
        let old = self.set().and_then(|old| old.status.clone());
        let mut set: StatefulSet = serde_json::from_value(set).unwrap();
        set.status = old;
        self.world.take(Arrived::StatefulSet(Event::Apply(set)));
    }

    fn set(&self) -> Option<&Arc<StatefulSet>> {
        self.world.stateful_sets.iter().next()
    }

    /// One plan carried out; what it did to pods.
    fn step(&mut self) -> Vec<String> {
        let now = Timestamp::from_second(1000).unwrap();
        let set = self.set().unwrap().clone();
        let mut did = Vec::new();
        for action in plan(&self.world, &set, now).actions() {
            self.serial += 1;
            let version = json!(self.serial.to_string());
            match action {
                Action::Create {
                    kind,
                    namespace,
                    body,
                    ..
                } => {
                    let mut body = body.clone();
                    body["metadata"]["namespace"] = json!(namespace);
                    body["metadata"]["resourceVersion"] = version;
                    body["metadata"]["uid"] = json!(format!("u{}", self.serial));
                    if *kind == Kind::Pod {
                        did.push(format!("+{}", body["metadata"]["name"].as_str().unwrap()));
                    }
                    self.world.written(*kind, body).unwrap();
                }
                Action::Delete { kind, key, uid, .. } => {
                    if *kind == Kind::Pod {
                        did.push(format!("-{}", key.name));
                    }
                    self.world.ended(*kind, key, uid);
                }
                Action::Patch {
                    kind,
                    sub: "status",
                    body,
                    ..
                } => {
                    let mut value = crate::controllers::action::value(set.as_ref());
                    value["status"] = body["status"].clone();
                    value["metadata"]["resourceVersion"] = version;
                    self.world.written(*kind, value).unwrap();
                }
                _ => {}
            }
        }
        did
    }

    fn ready(&mut self, name: &str) {
        self.serial += 1;
        let pod = self.world.pods.get("d", name).unwrap();
        let mut value = crate::controllers::action::value(pod.as_ref());
        value["metadata"]["resourceVersion"] = json!(self.serial.to_string());
        value["status"] =
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        self.world.written(Kind::Pod, value).unwrap();
    }

    /// Steps until nothing more happens, everything made becoming ready at once.
    fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..40 {
            let did = self.step();
            for name in did.iter().filter_map(|what| what.strip_prefix('+')) {
                self.ready(name);
            }
            all.extend(did);
        }
        all
    }
}

fn set(replicas: i32, image: &str, more: Value) -> Value {
    let mut set = json!({"metadata": {"name": "db", "generation": 1}, "spec": {
        "replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}},
            "spec": {"containers": [{"name": "c", "image": image}]}}}});
    for (key, value) in more.as_object().unwrap() {
        set["spec"][key] = value.clone();
    }
    set
}

#[test]
fn pods_come_one_after_the_other_and_go_in_reverse() {
    let mut it = Simulation::new(set(3, "a", json!({})));
    assert_eq!(it.step(), ["+db-0"]);
    assert!(it.step().is_empty());
    it.ready("db-0");
    assert_eq!(it.step(), ["+db-1"]);
    it.ready("db-1");
    assert_eq!(it.settle(), ["+db-2"]);
    let pod = it.world.pods.get("d", "db-1").unwrap();
    assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], "db-1");
    assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(pod.spec.as_ref().unwrap().hostname.as_deref(), Some("db-1"));
    assert_eq!(pod.spec.as_ref().unwrap().subdomain.as_deref(), Some("db"));
    it.put_set(set(1, "a", json!({})));
    assert_eq!(it.settle(), ["-db-2", "-db-1"]);
}

#[test]
fn a_parallel_set_does_all_at_once() {
    let mut it = Simulation::new(set(3, "a", json!({"podManagementPolicy": "Parallel"})));
    assert_eq!(it.step(), ["+db-0", "+db-1", "+db-2"]);
}

#[test]
fn an_update_goes_from_the_top_down_to_the_partition() {
    let mut it = Simulation::new(set(3, "a", json!({})));
    it.settle();
    let partition =
        json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}});
    it.put_set(set(3, "b", partition));
    assert_eq!(it.settle(), ["-db-2", "+db-2", "-db-1", "+db-1"]);
    let status = it.set().unwrap().status.clone().unwrap();
    assert_ne!(status.current_revision, status.update_revision);
    assert_eq!(
        (status.current_replicas, status.updated_replicas),
        (Some(1), Some(2))
    );
    it.put_set(set(3, "b", json!({})));
    assert_eq!(it.settle(), ["-db-0", "+db-0"]);
    let status = it.set().unwrap().status.clone().unwrap();
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!(it.world.revisions.len(), 2);
}

#[test]
fn on_delete_updates_only_what_people_delete() {
    let on_delete = || json!({"updateStrategy": {"type": "OnDelete"}});
    let mut it = Simulation::new(set(2, "a", on_delete()));
    it.settle();
    it.put_set(set(2, "b", on_delete()));
    assert!(it.settle().is_empty());
    let uid = it.world.pods.get("d", "db-1").unwrap().uid().unwrap();
    it.world.ended(Kind::Pod, &Key::new("d", "db-1"), &uid);
    assert_eq!(it.settle(), ["+db-1"]);
    let update = it
        .set()
        .unwrap()
        .status
        .as_ref()
        .unwrap()
        .update_revision
        .clone();
    assert_eq!(
        it.world.pods.get("d", "db-1").unwrap().labels().get(HASH),
        update.as_ref()
    );
}

#[test]
fn what_stands_in_for_claims_is_said_once() {
    let claims = json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]});
    let mut it = Simulation::new(set(1, "a", claims));
    let now = Timestamp::from_second(1000).unwrap();
    let mut said = Vec::new();
    for _ in 0..5 {
        let set = it.set().unwrap().clone();
        let warnings = plan(&it.world, &set, now);
        said.extend(warnings.actions().filter_map(|action| match action {
            Action::Event {
                severity: Severity::Warning,
                message,
                ..
            } => Some(message.clone()),
            _ => None,
        }));
        it.settle();
    }
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("volumeClaimTemplates data;")
            && said[0].ends_with("does not outlive the pod"),
        "{said:?}"
    );
    let spec = it
        .world
        .pods
        .get("d", "db-0")
        .unwrap()
        .spec
        .clone()
        .unwrap();
    // The cache drops volumes; the pod as it was planned has them.
    assert!(spec.volumes.is_none());
    let set = it.set().unwrap();
    let template = set.spec.as_ref().unwrap().template.clone();
    let pod = identity::pod(set, &template, "r", 0);
    let volumes = pod.spec.unwrap().volumes.unwrap();
    assert!(volumes[0].name == "data" && volumes[0].empty_dir.is_some());
}
