//! create, get, update, patch and delete.

use http::Method;
use serde_json::{Value, json};

use crate::server::{Server, send};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let server = Server::start().await;
    let (code, made) = server.post(MAPS, &map("a")).await;
    assert_eq!(code, 201, "{made}");
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(made["metadata"][field].is_string(), "{field} of {made}");
    }
    assert_eq!(made["metadata"]["namespace"], "default");
    let (code, again) = server.post(MAPS, &map("a")).await;
    assert_eq!((code, &again["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(again["message"], "configmaps \"a\" already exists");
    let (_, got) = server.get(&format!("{MAPS}/a")).await;
    assert_eq!(got, made);
    let (code, gone) = server.delete(&format!("{MAPS}/a"), &json!({})).await;
    assert_eq!(
        (code, &gone["status"], &gone["details"]["uid"]),
        (200, &json!("Success"), &made["metadata"]["uid"])
    );
    let (code, missing) = server.get(&format!("{MAPS}/a")).await;
    assert_eq!(code, 404);
    assert_eq!(missing["message"], "configmaps \"a\" not found");
    assert_eq!(
        missing["details"],
        json!({"name": "a", "kind": "configmaps"})
    );
}

#[tokio::test]
async fn names_are_generated() {
    let server = Server::start().await;
    let mut object = map("");
    object["metadata"] = json!({"generateName": "web-"});
    let (code, made) = server.post(MAPS, &object).await;
    assert_eq!(code, 201, "{made}");
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    object["metadata"] = json!({});
    let (code, _) = server.post(MAPS, &object).await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn what_does_not_fit_its_path_is_refused() {
    let server = Server::start().await;
    let mut other = map("a");
    other["metadata"]["namespace"] = "kube-system".into();
    let (code, answer) = server.post(MAPS, &other).await;
    assert_eq!(code, 400);
    assert_eq!(
        answer["message"],
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    let mut wrong = map("a");
    wrong["apiVersion"] = "apps/v1".into();
    let (code, answer) = server.post(MAPS, &wrong).await;
    assert_eq!(code, 400);
    assert_eq!(
        answer["message"],
        "the API version in the data (apps/v1) does not match the expected API version (v1)"
    );
    let (code, answer) = server
        .post("/api/v1/namespaces/nowhere/configmaps", &map("a"))
        .await;
    assert_eq!(
        (code, &answer["message"]),
        (404, &json!("namespaces \"nowhere\" not found"))
    );
    let (code, _) = send(&server.client, Method::POST, MAPS, "text/csv", "a,b").await;
    assert_eq!(code, 415);
    let (code, _) = send(&server.client, Method::POST, MAPS, "application/json", "{").await;
    assert_eq!(code, 400);
    let big = "x".repeat(4 << 20);
    let (code, _) = send(&server.client, Method::POST, MAPS, "application/json", &big).await;
    assert_eq!(code, 413);
    let (code, _) = server.get("/apis/nothing.example/v1/things").await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn a_lost_race_is_a_conflict() {
    let server = Server::start().await;
    let (_, first) = server.post(MAPS, &map("a")).await;
    let mut second = first.clone();
    second["data"]["a"] = "2".into();
    let (code, stored) = server.put(&format!("{MAPS}/a"), &second).await;
    assert_eq!((code, &stored["data"]["a"]), (200, &json!("2")));
    let (code, lost) = server.put(&format!("{MAPS}/a"), &first).await;
    assert_eq!(code, 409);
    assert_eq!(
        lost["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // An update that changes nothing stores nothing.
    let (_, same) = server.put(&format!("{MAPS}/a"), &stored).await;
    assert_eq!(
        same["metadata"]["resourceVersion"],
        stored["metadata"]["resourceVersion"]
    );
    let wrong = json!({"preconditions": {"uid": "other"}});
    let (code, _) = server.delete(&format!("{MAPS}/a"), &wrong).await;
    assert_eq!(code, 409);
}

#[tokio::test]
async fn patches_of_every_kind_change_an_object() {
    let server = Server::start().await;
    server.post(MAPS, &map("a")).await;
    let path = format!("{MAPS}/a");
    let (code, merged) = server
        .patch(
            &path,
            "application/merge-patch+json",
            &json!({"data": {"b": "2"}}),
        )
        .await;
    assert_eq!((code, &merged["data"]), (200, &json!({"a": "1", "b": "2"})));
    let operations = json!([{"op": "remove", "path": "/data/a"}]);
    let (code, patched) = server
        .patch(&path, "application/json-patch+json", &operations)
        .await;
    assert_eq!((code, &patched["data"]), (200, &json!({"b": "2"})));
    let (code, strategic) = server
        .patch(
            &path,
            "application/strategic-merge-patch+json",
            &json!({"metadata": {"labels": {"x": "y"}}}),
        )
        .await;
    assert_eq!(
        (code, &strategic["metadata"]["labels"]),
        (200, &json!({"x": "y"}))
    );
    let (code, _) = server
        .patch(
            &path,
            "application/merge-patch+json",
            &json!({"metadata": {"resourceVersion": "1"}}),
        )
        .await;
    assert_eq!(code, 409);
    let (code, _) = server
        .patch(
            &format!("{MAPS}/none"),
            "application/merge-patch+json",
            &json!({}),
        )
        .await;
    assert_eq!(code, 404);
    let (code, _) = server.patch(&path, "application/json", &json!({})).await;
    assert_eq!(code, 415);
}

#[tokio::test]
async fn a_server_side_apply_creates_then_owns() {
    let server = Server::start().await;
    let path = format!("{MAPS}/a?fieldManager=one");
    let (code, made) = server
        .patch(&path, "application/apply-patch+yaml", &map("a"))
        .await;
    assert_eq!(code, 201, "{made}");
    let mut other = map("a");
    other["data"]["a"] = "2".into();
    let (code, conflict) = server
        .patch(
            &format!("{MAPS}/a?fieldManager=two"),
            "application/apply-patch+yaml",
            &other,
        )
        .await;
    assert_eq!(
        (code, &conflict["reason"]),
        (409, &json!("Conflict")),
        "{conflict}"
    );
    let (code, forced) = server
        .patch(
            &format!("{MAPS}/a?fieldManager=two&force=true"),
            "application/apply-patch+yaml",
            &other,
        )
        .await;
    assert_eq!((code, &forced["data"]["a"]), (200, &json!("2")));
    let (code, _) = server
        .patch(&format!("{MAPS}/a"), "application/apply-patch+yaml", &other)
        .await;
    assert_eq!(code, 400, "a field manager is required");
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let server = Server::start().await;
    let before = server.get(MAPS).await.1["items"].clone();
    let (code, _) = server.post(&format!("{MAPS}?dryRun=All"), &map("a")).await;
    assert_eq!(code, 201);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.0, 404);
    assert_eq!(server.get(MAPS).await.1["items"], before);
    let (code, _) = server.post(&format!("{MAPS}?dryRun=Some"), &map("a")).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn unknown_fields_are_warned_of_or_refused() {
    let server = Server::start().await;
    let mut object = map("a");
    object["dada"] = json!({});
    let (code, refused) = server
        .post(&format!("{MAPS}?fieldValidation=Strict"), &object)
        .await;
    assert_eq!(code, 400, "{refused}");
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("unknown field \"dada\""),
        "{refused}"
    );
    let request = http::Request::post(MAPS)
        .header("content-type", "application/json")
        .body(kube::client::Body::from(object.to_string().into_bytes()))
        .unwrap();
    let answer = server.client.send(request).await.unwrap();
    assert_eq!(
        answer.headers()["warning"],
        "299 - \"unknown field \\\"dada\\\"\""
    );
}

#[tokio::test]
async fn generation_counts_changes_of_what_is_wanted() {
    let server = Server::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}},
        "status": {"replicas": 9}});
    let (code, made) = server.post(path, &deployment).await;
    assert_eq!(
        (code, &made["metadata"]["generation"]),
        (201, &json!(1)),
        "{made}"
    );
    assert!(
        made["status"]["replicas"].is_null(),
        "a new object has no status of its author's"
    );
    let one = format!("{path}/web");
    let merge = "application/merge-patch+json";
    let (_, labelled) = server
        .patch(&one, merge, &json!({"metadata": {"labels": {"x": "y"}}}))
        .await;
    assert_eq!(labelled["metadata"]["generation"], 1);
    let (_, scaled) = server
        .patch(
            &format!("{one}/scale"),
            merge,
            &json!({"spec": {"replicas": 3}}),
        )
        .await;
    assert_eq!(
        (&scaled["kind"], &scaled["spec"]["replicas"]),
        (&json!("Scale"), &json!(3))
    );
    let status =
        json!({"spec": {"replicas": 7}, "status": {"replicas": 3, "observedGeneration": 2}});
    let (code, told) = server.patch(&format!("{one}/status"), merge, &status).await;
    assert_eq!(
        (code, &told["status"]["replicas"], &told["spec"]["replicas"]),
        (200, &json!(3), &json!(3))
    );
    assert_eq!(told["metadata"]["generation"], 2);
    let (_, kept) = server
        .patch(&one, merge, &json!({"status": {"replicas": 0}}))
        .await;
    assert_eq!(
        kept["status"]["replicas"], 3,
        "the status changes only by its subresource"
    );
    let (_, scale) = server.get(&format!("{one}/scale")).await;
    assert_eq!(scale["status"], json!({"replicas": 3, "selector": "a=b"}));
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = Server::start().await;
    let mut object = map("a");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, &object).await;
    let path = format!("{MAPS}/a");
    let (code, marked) = server.delete(&path, &json!({})).await;
    assert_eq!(code, 200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let merge = "application/merge-patch+json";
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    let (code, refused) = server.patch(&path, merge, &more).await;
    assert_eq!(code, 422, "{refused}");
    let (code, _) = server
        .patch(&path, merge, &json!({"metadata": {"finalizers": null}}))
        .await;
    assert_eq!(code, 200);
    assert_eq!(server.get(&path).await.0, 404);
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        let mut object = map(name);
        object["metadata"]["labels"] = json!({"keep": (name == "b").to_string()});
        server.post(MAPS, &object).await;
    }
    let (code, gone) = server
        .delete(&format!("{MAPS}?labelSelector=keep%3Dfalse"), &json!({}))
        .await;
    assert_eq!((code, gone["items"].as_array().unwrap().len()), (200, 2));
    assert_eq!(server.get(&format!("{MAPS}/b")).await.0, 200);
    assert_eq!(server.get(&format!("{MAPS}/a")).await.0, 404);
}

#[tokio::test]
async fn events_are_one_store_in_two_spellings() {
    let server = Server::start().await;
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "i",
        "action": "Start", "reason": "Started", "type": "Normal", "note": "it started",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let (code, made) = server
        .post("/apis/events.k8s.io/v1/namespaces/default/events", &event)
        .await;
    assert_eq!((code, &made["note"]), (201, &json!("it started")), "{made}");
    let (_, core) = server.get("/api/v1/namespaces/default/events/e").await;
    assert_eq!(
        (&core["message"], &core["involvedObject"]["name"]),
        (&json!("it started"), &json!("p"))
    );
}
