//! list: pages, selectors, forms.

use serde_json::{Value, json};

use crate::server::{Server, accept};

const MAPS: &str = "/api/v1/namespaces/kube-public/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PARTIAL: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

async fn ten(server: &Server) {
    for n in 0..10 {
        let object = json!({"metadata": {"name": format!("m{n}"), "labels": {"even": (n % 2 == 0).to_string()}}});
        assert_eq!(server.post(MAPS, &object).await.0, 201);
    }
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned())
        .filter(|n| n.starts_with('m'))
        .collect()
}

#[tokio::test]
async fn pages_are_of_one_moment() {
    let server = Server::start().await;
    ten(&server).await;
    let (_, first) = server.get(&format!("{MAPS}?limit=4")).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 7);
    // What happens between pages does not show in them.
    server.delete(&format!("{MAPS}/m9"), &json!({})).await;
    server
        .post(MAPS, &json!({"metadata": {"name": "m5b"}}))
        .await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = server
        .get(&format!("{MAPS}?limit=4&continue={token}"))
        .await;
    let token = second["metadata"]["continue"].as_str().unwrap();
    let (_, third) = server
        .get(&format!("{MAPS}?limit=4&continue={token}"))
        .await;
    assert!(third["metadata"]["continue"].is_null());
    let all: Vec<String> = [&first, &second, &third]
        .into_iter()
        .flat_map(names)
        .collect();
    assert_eq!(all, (0..10).map(|n| format!("m{n}")).collect::<Vec<_>>());
    assert_eq!(
        first["metadata"]["resourceVersion"],
        third["metadata"]["resourceVersion"]
    );
    let (code, _) = server
        .get(&format!("{MAPS}?limit=4&continue=nonsense"))
        .await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn an_exact_version_of_the_past_is_listed() {
    let server = Server::start().await;
    ten(&server).await;
    let (_, now) = server.get(MAPS).await;
    let then = now["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    server.delete(&format!("{MAPS}/m3"), &json!({})).await;
    let (_, past) = server
        .get(&format!(
            "{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact"
        ))
        .await;
    assert_eq!(names(&past).len(), 10);
    let (code, future) = server.get(&format!("{MAPS}?resourceVersion=999999")).await;
    assert_eq!((code, &future["reason"]), (504, &json!("Timeout")));
    let (code, _) = server.get(&format!("{MAPS}?resourceVersion=x")).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn selectors_narrow_a_list() {
    let server = Server::start().await;
    ten(&server).await;
    let (_, even) = server
        .get(&format!("{MAPS}?labelSelector=even%20in%20(true)"))
        .await;
    assert_eq!(names(&even), ["m0", "m2", "m4", "m6", "m8"]);
    let (_, one) = server
        .get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm3"))
        .await;
    assert_eq!(names(&one), ["m3"]);
    let (code, wrong) = server
        .get(&format!("{MAPS}?fieldSelector=data.x%3Dm3"))
        .await;
    assert_eq!(code, 400, "{wrong}");
    let (code, _) = server.get(&format!("{MAPS}?labelSelector=%3D%3D")).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn lists_come_as_tables_and_as_metadata() {
    let server = Server::start().await;
    ten(&server).await;
    let (_, table) = accept(&server.client, MAPS, TABLE).await;
    assert_eq!(
        (&table["kind"], &table["columnDefinitions"][0]["name"]),
        (&json!("Table"), &json!("Name"))
    );
    let row = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["cells"][0] == "m3")
        .unwrap();
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(row["cells"][1], 0);
    let (_, whole) = accept(
        &server.client,
        &format!("{MAPS}?includeObject=Object"),
        TABLE,
    )
    .await;
    assert_eq!(whole["rows"][0]["object"]["kind"], "ConfigMap");
    let (_, partial) = accept(&server.client, MAPS, PARTIAL).await;
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][0]["kind"], "PartialObjectMetadata");
    assert!(partial["items"][0]["data"].is_null());
    let (code, _) = accept(&server.client, MAPS, "application/cbor").await;
    assert_eq!(code, 406);
}

#[tokio::test]
async fn every_path_of_discovery_answers() {
    let server = Server::start().await;
    let (_, api) = server.get("/api").await;
    assert_eq!(api["versions"], json!(["v1"]));
    let (_, groups) = server.get("/apis").await;
    let apps = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["name"] == "apps")
        .unwrap();
    assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
    for group in groups["groups"].as_array().unwrap() {
        let version = group["preferredVersion"]["groupVersion"].as_str().unwrap();
        let (code, list) = server.get(&format!("/apis/{version}")).await;
        assert_eq!(
            (code, &list["kind"]),
            (200, &json!("APIResourceList")),
            "{version}"
        );
    }
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, found) = accept(&server.client, "/api", aggregated).await;
    let pods = found["items"][0]["versions"][0]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["resource"] == "pods")
        .unwrap();
    assert!(
        pods["subresources"]
            .as_array()
            .unwrap()
            .iter()
            .any(|s| s["subresource"] == "log")
    );
    let (_, version) = server.get("/version").await;
    assert_eq!(version["gitVersion"], "v1.36.0+flatnet");
    let (_, ready) = server.get("/readyz?verbose").await;
    assert!(ready.as_str().unwrap().ends_with("readyz check passed\n"));
    let (_, metrics) = server.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("apiserver_request_total{"), "{metrics}");
    assert!(
        metrics.contains("apiserver_storage_objects{resource=\"namespaces\"} 4"),
        "{metrics}"
    );
    let (_, index) = server.get("/openapi/v3").await;
    for (_, path) in index["paths"].as_object().unwrap() {
        let (code, _) = server
            .get(path["serverRelativeURL"].as_str().unwrap())
            .await;
        assert_eq!(code, 200);
    }
}
