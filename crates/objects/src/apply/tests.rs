use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn schema() -> Schema {
    Schema::builtin("apps", "v1", "Deployment")
}

fn manager(name: &'static str, now: &'static str) -> Manager<'static> {
    Manager {
        name,
        api_version: "apps/v1",
        subresource: "",
        now,
    }
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "default"}, "spec": spec})
}

fn applied(live: Option<&Value>, spec: Value, name: &'static str) -> Result<Value, Status> {
    apply(
        live,
        &deployment(spec),
        &schema(),
        &manager(name, "2026-01-01T00:00:00Z"),
        false,
    )
}

fn containers(list: Value) -> Value {
    json!({"template": {"spec": {"containers": list}}})
}

#[test]
fn an_applier_owns_what_it_sets() {
    let object = applied(None, json!({"replicas": 3, "template": {"spec": {"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80}]}]}}}), "kubectl").unwrap();
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{"manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}}}])
    );
}

#[test]
fn conflicts_name_the_manager_and_the_field() {
    let live = applied(None, json!({"replicas": 1}), "one").unwrap();
    let error = applied(Some(&live), json!({"replicas": 2}), "two").unwrap_err();
    assert_eq!(error.code, 409);
    assert_eq!(
        error.message,
        "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
    );
    assert_eq!(
        error.details["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.replicas"}])
    );
    // The same value is shared, not fought over.
    let shared = applied(Some(&live), json!({"replicas": 1}), "two").unwrap();
    assert_eq!(
        shared["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let forced = apply(
        Some(&live),
        &deployment(json!({"replicas": 2})),
        &schema(),
        &manager("two", "2026-01-01T00:00:00Z"),
        true,
    )
    .unwrap();
    let owners = forced["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(owners.len(), 1);
    assert_eq!(owners[0]["manager"], "two");
}

#[test]
fn what_is_no_longer_applied_goes_unless_another_owns_it() {
    let live = applied(
        None,
        containers(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}])),
        "one",
    )
    .unwrap();
    let live = applied(
        Some(&live),
        containers(json!([{"name": "b", "image": "y"}])),
        "two",
    )
    .unwrap();
    let after = applied(Some(&live), containers(json!([])), "one").unwrap();
    assert_eq!(
        after["spec"]["template"]["spec"]["containers"],
        json!([{"name": "b", "image": "y"}])
    );
}

#[test]
fn fields_nobody_owns_stay() {
    let mut live = applied(None, json!({"replicas": 1, "paused": true}), "one").unwrap();
    live["spec"]["revisionHistoryLimit"] = json!(10);
    let after = applied(Some(&live), json!({"replicas": 1}), "one").unwrap();
    assert_eq!(
        after["spec"],
        json!({"replicas": 1, "revisionHistoryLimit": 10})
    );
}

#[test]
fn updates_are_tracked() {
    let mut created = deployment(json!({"replicas": 1}));
    created["metadata"]["labels"] = json!({"app": "web"});
    track_update(
        None,
        &mut created,
        &schema(),
        &manager("kubectl-create", "2026-01-01T00:00:00Z"),
    );
    assert_eq!(
        created["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:replicas": {}}})
    );
    let mut scaled = created.clone();
    scaled["spec"]["replicas"] = json!(5);
    track_update(
        Some(&created),
        &mut scaled,
        &schema(),
        &manager("scaler", "2026-01-01T00:01:00Z"),
    );
    let owners = scaled["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(owners.len(), 2);
    assert_eq!(owners[1]["manager"], "scaler");
    assert_eq!(owners[1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(
        owners[0]["fieldsV1"],
        json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}})
    );
    // An update that changes nothing changes no time.
    let mut again = scaled.clone();
    track_update(
        Some(&scaled),
        &mut again,
        &schema(),
        &manager("scaler", "2026-01-01T00:09:00Z"),
    );
    assert_eq!(again, scaled);
    // Status belongs to its subresource.
    let mut status = scaled.clone();
    status["status"] = json!({"replicas": 5});
    let controller = Manager {
        subresource: "status",
        ..manager("controller", "2026-01-01T00:02:00Z")
    };
    track_update(Some(&scaled), &mut status, &schema(), &controller);
    let last = status["metadata"]["managedFields"][2].clone();
    assert_eq!(last["subresource"], "status");
    assert_eq!(
        last["fieldsV1"],
        json!({"f:status": {".": {}, "f:replicas": {}}})
    );
}

#[test]
fn managed_fields_can_be_reset() {
    let live = applied(None, json!({"replicas": 1}), "one").unwrap();
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track_update(
        Some(&live),
        &mut reset,
        &schema(),
        &manager("two", "2026-01-01T00:00:00Z"),
    );
    assert!(reset["metadata"].get("managedFields").is_none());
}

#[test]
fn a_configuration_must_fit_the_schema() {
    let error = applied(None, json!({"replicaz": 1}), "one").unwrap_err();
    assert_eq!(
        error.message,
        "failed to create typed patch object (default/a; apps/v1, Kind=Deployment): .spec.replicaz: field not declared in schema"
    );
    let twice = containers(json!([{"name": "a"}, {"name": "a"}]));
    assert!(
        applied(None, twice, "one")
            .unwrap_err()
            .message
            .ends_with(".spec.template.spec.containers: duplicate entries for key [name=\"a\"]")
    );
}

#[test]
fn atomic_structs_are_owned_whole() {
    let live = applied(
        None,
        json!({"selector": {"matchLabels": {"a": "1"}}}),
        "one",
    )
    .unwrap();
    let fields = &live["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!(*fields, json!({"f:spec": {"f:selector": {}}}));
}

fn specs() -> impl Strategy<Value = Value> {
    let container = ("[ab]", prop::option::of("[xy]")).prop_map(|(name, image)| {
        let mut container = json!({ "name": name });
        if let Some(image) = image {
            container["image"] = image.into();
        }
        container
    });
    let labels = prop::collection::btree_map("[a-c]", "[0-2]", 0..3);
    let list = prop::collection::vec(container, 0..3);
    (prop::option::of(0i64..3), list, labels).prop_map(|(replicas, mut list, labels)| {
        list.dedup_by_key(|c| c["name"].clone());
        if list.len() == 3 {
            list.pop();
        }
        let mut spec =
            json!({"template": {"metadata": {"labels": labels}, "spec": {"containers": list}}});
        if let Some(replicas) = replicas {
            spec["replicas"] = replicas.into();
        }
        spec
    })
}

fn force(live: Option<&Value>, spec: &Value, name: &'static str) -> Value {
    let manager = manager(name, "2026-01-01T00:00:00Z");
    apply(live, &deployment(spec.clone()), &schema(), &manager, true).unwrap()
}

/// A JSON object with one field of its own for each applier.
fn only(spec: &Value, label: &str) -> Value {
    json!({"template": {"metadata": {"labels": {label: "1"}}, "spec": {"containers": [{"name": label, "image": spec["replicas"].to_string()}]}}})
}

proptest! {
    #[test]
    fn applying_twice_is_applying_once(first in specs(), second in specs()) {
        let live = force(None, &first, "one");
        let once = force(Some(&live), &second, "two");
        let twice = force(Some(&once), &second, "two");
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn an_appliers_word_is_what_stands(first in specs(), second in specs()) {
        let live = force(None, &first, "one");
        let after = force(Some(&live), &second, "one");
        let fresh = force(None, &second, "one");
        prop_assert_eq!(&after["metadata"]["managedFields"], &fresh["metadata"]["managedFields"]);
        prop_assert_eq!(after["spec"].get("replicas"), fresh["spec"].get("replicas"));
        // Nothing of the first is left that only the first applier owned.
        let labels = |v: &Value| v["spec"]["template"]["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        prop_assert_eq!(labels(&after), labels(&fresh));
    }

    #[test]
    fn the_order_of_disjoint_appliers_does_not_matter(a in specs(), b in specs()) {
        let (a, b) = (only(&a, "a"), only(&b, "b"));
        let ab = force(Some(&force(None, &a, "one")), &b, "two");
        let ba = force(Some(&force(None, &b, "two")), &a, "one");
        prop_assert_eq!(&ab["metadata"], &ba["metadata"]);
        let sorted = |v: &Value| {
            let mut list = v["spec"]["template"]["spec"]["containers"].as_array().cloned().unwrap();
            list.sort_by_key(Value::to_string);
            list
        };
        prop_assert_eq!(sorted(&ab), sorted(&ba));
    }
}
