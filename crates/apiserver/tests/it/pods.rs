//! Pods: admission, binding, eviction, graceful deletion, and the way to the kubelet.

use serde_json::{Value, json};

use crate::server::Server;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

async fn bind(server: &Server, name: &str, node: &str) -> (u16, Value) {
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
    server
        .post(&format!("{PODS}/{name}/binding"), &binding)
        .await
}

#[tokio::test]
async fn a_new_pod_has_its_token_tolerations_and_class() {
    let server = Server::start().await;
    let (code, made) = server.post(PODS, &pod("p")).await;
    assert_eq!(code, 201, "{made}");
    let spec = &made["spec"];
    assert_eq!(
        (&spec["serviceAccountName"], &spec["priority"]),
        (&json!("default"), &json!(0))
    );
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"));
    let mount = &spec["containers"][0]["volumeMounts"][0];
    assert_eq!(
        (&mount["name"], &mount["mountPath"]),
        (
            &json!(volume),
            &json!("/var/run/secrets/kubernetes.io/serviceaccount")
        )
    );
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&made["status"]["phase"], &made["status"]["qosClass"]),
        (&json!("Pending"), &json!("BestEffort"))
    );
    let mut other = pod("q");
    other["spec"]["serviceAccountName"] = "nobody".into();
    let (code, refused) = server.post(PODS, &other).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "pods \"q\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found"
    );
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = Server::start().await;
    server.post(PODS, &pod("p")).await;
    let (code, done) = bind(&server, "p", "node1").await;
    assert_eq!((code, &done["status"]), (201, &json!("Success")), "{done}");
    let (_, bound) = server.get(&format!("{PODS}/p")).await;
    assert_eq!(bound["spec"]["nodeName"], "node1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let (code, again) = bind(&server, "p", "node2").await;
    assert_eq!(code, 409);
    assert_eq!(
        again["message"],
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"node1\""
    );
    let (_, mine) = server
        .get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dnode1"))
        .await;
    assert_eq!(mine["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_bound_pod_is_deleted_gracefully_and_by_its_kubelet() {
    let server = Server::start().await;
    server.post(PODS, &pod("p")).await;
    bind(&server, "p", "node1").await;
    let path = format!("{PODS}/p");
    let (code, marked) = server.delete(&path, &json!({})).await;
    assert_eq!(
        (code, &marked["metadata"]["deletionGracePeriodSeconds"]),
        (200, &json!(30))
    );
    let (_, still) = server.get(&path).await;
    assert_eq!(
        still["metadata"]["deletionTimestamp"],
        marked["metadata"]["deletionTimestamp"]
    );
    let (code, gone) = server
        .delete(
            &path,
            &json!({"gracePeriodSeconds": 0, "preconditions": {"uid": marked["metadata"]["uid"]}}),
        )
        .await;
    assert_eq!((code, &gone["kind"]), (200, &json!("Pod")));
    assert_eq!(server.get(&path).await.0, 404);
}

#[tokio::test]
async fn an_eviction_deletes() {
    let server = Server::start().await;
    server.post(PODS, &pod("p")).await;
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let (code, done) = server.post(&format!("{PODS}/p/eviction"), &eviction).await;
    assert_eq!((code, &done["status"]), (201, &json!("Success")), "{done}");
    assert_eq!(server.get(&format!("{PODS}/p")).await.0, 404);
}

#[tokio::test]
async fn logs_and_exec_say_why_they_cannot() {
    let server = Server::start().await;
    server.post(PODS, &pod("p")).await;
    assert_eq!(server.get(&format!("{PODS}/p/log")).await, (200, json!("")));
    let (code, refused) = server.get(&format!("{PODS}/p/log?container=x")).await;
    assert_eq!(
        (code, &refused["message"]),
        (400, &json!("container x is not valid for pod p"))
    );
    let (code, refused) = server
        .post(&format!("{PODS}/p/exec?command=ls"), &json!({}))
        .await;
    assert_eq!(
        (code, &refused["message"]),
        (400, &json!("pod p does not have a host assigned"))
    );
    bind(&server, "p", "node1").await;
    let (code, refused) = server.get(&format!("{PODS}/p/log")).await;
    assert_eq!(
        (code, &refused["message"]),
        (404, &json!("nodes \"node1\" not found"))
    );
    let node = json!({"metadata": {"name": "node1"}, "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}});
    assert_eq!(server.post("/api/v1/nodes", &node).await.0, 201);
    let (code, refused) = server.get(&format!("{PODS}/p/log")).await;
    assert_eq!(code, 500);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("dial tcp 127.0.0.1:1"),
        "{refused}"
    );
}
