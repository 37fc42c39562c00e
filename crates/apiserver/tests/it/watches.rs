//! watch: what comes, in which order, and when it ends.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use http::Request;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use kube::client::Body;
use kube::runtime::watcher;
use serde_json::{Value, json};

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/kube-public/configmaps";

/// A watch read line by line.
struct Lines {
    body: Body,
    buffer: Vec<u8>,
}

impl Lines {
    async fn open(server: &Server, query: &str, accept: &str) -> Self {
        Self::of(server, MAPS, query, accept).await
    }

    async fn of(server: &Server, path: &str, query: &str, accept: &str) -> Self {
        let request = Request::get(format!("{path}?watch=true&{query}"))
            .header("accept", accept)
            .body(Body::empty())
            .unwrap();
        let answer = server.client.send(request).await.unwrap();
        Self {
            body: answer.into_body(),
            buffer: Vec::new(),
        }
    }

    /// The next event, or None at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(30), self.body.frame());
            self.buffer.extend_from_slice(
                frame
                    .await
                    .expect("an event in time")?
                    .unwrap()
                    .data_ref()
                    .unwrap(),
            );
        }
    }

    async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let event = self.next().await.expect("an event");
        assert_eq!(
            (
                event["type"].as_str(),
                event["object"]["metadata"]["name"].as_str()
            ),
            (Some(kind), Some(name)),
            "{event}"
        );
        event
    }
}

async fn make(server: &Server, name: &str, label: &str) -> Value {
    let object = json!({"metadata": {"name": name, "labels": {"app": label}}});
    let (code, made) = server.post(MAPS, &object).await;
    assert_eq!(code, 201, "{made}");
    made
}

async fn relabel(server: &Server, name: &str, label: &str) {
    let patch = json!({"metadata": {"labels": {"app": label}}});
    let (code, _) = server
        .patch(
            &format!("{MAPS}/{name}"),
            "application/merge-patch+json",
            &patch,
        )
        .await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn changes_after_a_version_come_in_order() {
    let server = Server::start().await;
    let first = make(&server, "a", "x").await;
    let rv = first["metadata"]["resourceVersion"].as_str().unwrap();
    make(&server, "b", "x").await;
    let mut lines = Lines::open(
        &server,
        &format!("resourceVersion={rv}"),
        "application/json",
    )
    .await;
    lines.expect("ADDED", "b").await;
    relabel(&server, "a", "y").await;
    lines.expect("MODIFIED", "a").await;
    server.delete(&format!("{MAPS}/a"), &json!({})).await;
    let gone = lines.expect("DELETED", "a").await;
    let rv = |v: &Value| {
        v["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert!(
        rv(&gone["object"]) > rv(&first),
        "the deletion has a version of its own"
    );
}

#[tokio::test]
async fn a_selector_turns_changes_into_comings_and_goings() {
    let server = Server::start().await;
    make(&server, "a", "x").await;
    make(&server, "b", "y").await;
    let mut lines = Lines::open(&server, "labelSelector=app%3Dx", "application/json").await;
    lines.expect("ADDED", "a").await;
    relabel(&server, "b", "x").await;
    lines.expect("ADDED", "b").await;
    relabel(&server, "a", "y").await;
    let left = lines.expect("DELETED", "a").await;
    assert_eq!(
        left["object"]["metadata"]["labels"]["app"], "x",
        "the last state that matched"
    );
}

#[tokio::test]
async fn initial_events_end_with_a_marked_bookmark() {
    let server = Server::start().await;
    make(&server, "a", "x").await;
    let query = "labelSelector=app&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = Lines::open(&server, query, "application/json").await;
    lines.expect("ADDED", "a").await;
    let mark = lines.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["kind"], "ConfigMap");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    make(&server, "b", "x").await;
    lines.expect("ADDED", "b").await;
    let (code, _) = server
        .get(&format!("{MAPS}?watch=true&sendInitialEvents=true"))
        .await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn a_watch_ends_after_its_time_with_a_bookmark() {
    let server = Server::start().await;
    let query = "timeoutSeconds=1&allowWatchBookmarks=true&labelSelector=none";
    let mut lines = Lines::open(&server, query, "application/json").await;
    assert_eq!(lines.next().await.unwrap()["type"], "BOOKMARK");
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn a_past_that_is_forgotten_is_410() {
    let server = Server::start().await;
    // After a restart the events before it are gone.
    let server = server.again().await;
    let (code, event) = crate::server::accept(
        &server.client,
        &format!("{MAPS}?watch=true&resourceVersion=2"),
        "application/json",
    )
    .await;
    assert_eq!((code, &event["type"]), (200, &json!("ERROR")), "{event}");
    assert_eq!(
        (&event["object"]["code"], &event["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
}

#[tokio::test]
async fn tables_are_watched_with_columns_once() {
    let server = Server::start().await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let mut lines = Lines::open(&server, "labelSelector=app", accept).await;
    make(&server, "a", "x").await;
    make(&server, "b", "x").await;
    let first = lines.next().await.unwrap();
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    let second = lines.next().await.unwrap();
    assert!(
        second["object"]["columnDefinitions"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test]
async fn the_watcher_of_kube_follows_both_ways() {
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let server = Server::start().await;
        let api: Api<ConfigMap> = Api::namespaced(server.client.clone(), "kube-system");
        let mut stream = watcher(api.clone(), config.labels("app")).boxed();
        let made = |name: &str| ConfigMap {
            metadata: serde_json::from_value(json!({"name": name, "labels": {"app": "x"}}))
                .unwrap(),
            ..ConfigMap::default()
        };
        api.create(&PostParams::default(), &made("before"))
            .await
            .unwrap();
        let mut seen = Vec::new();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !seen.contains(&"after".to_owned()) {
            match tokio::time::timeout_at(deadline, stream.try_next())
                .await
                .unwrap()
                .unwrap()
            {
                Some(watcher::Event::InitApply(map) | watcher::Event::Apply(map)) => {
                    seen.extend(map.metadata.name);
                }
                Some(watcher::Event::InitDone) => {
                    api.create(&PostParams::default(), &made("after"))
                        .await
                        .unwrap();
                }
                _ => {}
            }
        }
        assert!(seen.contains(&"before".to_owned()), "{seen:?}");
    }
}

#[tokio::test]
async fn a_watch_of_custom_objects_ends_with_their_definition() {
    let server = Server::start().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({"metadata": {"name": "gears.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"plural": "gears", "kind": "Gear"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let (code, made) = server.post(definitions, &definition).await;
    assert_eq!(code, 201, "{made}");
    let gears = "/apis/example.com/v1/namespaces/default/gears";
    server
        .post(gears, &json!({"metadata": {"name": "g"}}))
        .await;
    let mut watch = Lines::of(&server, gears, "", "application/json").await;
    watch.expect("ADDED", "g").await;
    // Any other change of the definition is no reason to end.
    let one = format!("{definitions}/gears.example.com");
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let merge = "application/merge-patch+json";
    assert_eq!(server.patch(&one, merge, &labels).await.0, 200);
    server
        .post(gears, &json!({"metadata": {"name": "h"}}))
        .await;
    watch.expect("ADDED", "h").await;
    server.delete(&one, &json!({})).await;
    let mut gone = Vec::new();
    while let Some(event) = watch.next().await {
        if event["type"] == "DELETED" {
            gone.push(event["object"]["metadata"]["name"].clone());
        }
    }
    gone.sort_by_key(|name| name.to_string());
    assert_eq!(gone, ["g", "h"]);
}
