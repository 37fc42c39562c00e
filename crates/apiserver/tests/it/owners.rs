//! Owners and dependents, and namespaces that empty.

use serde_json::{Value, json};

use crate::server::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn make(server: &Server, name: &str, owner: Option<&Value>) -> Value {
    let mut object = json!({"metadata": {"name": name}});
    if let Some(owner) = owner {
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap",
            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true}]);
    }
    let (code, made) = server.post(MAPS, &object).await;
    assert_eq!(code, 201, "{made}");
    made
}

#[tokio::test]
async fn dependents_go_after_their_owner() {
    let server = Server::start().await;
    let owner = make(&server, "owner", None).await;
    let child = make(&server, "child", Some(&owner)).await;
    make(&server, "grandchild", Some(&child)).await;
    server.delete(&format!("{MAPS}/owner"), &json!({})).await;
    server
        .until(&format!("{MAPS}/grandchild"), |code, _| code == 404)
        .await;
}

#[tokio::test]
async fn dependents_go_before_their_owner_in_the_foreground() {
    let server = Server::start().await;
    let owner = make(&server, "owner", None).await;
    make(&server, "child", Some(&owner)).await;
    let (_, marked) = server
        .delete(
            &format!("{MAPS}/owner"),
            &json!({"propagationPolicy": "Foreground"}),
        )
        .await;
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    server
        .until(&format!("{MAPS}/owner"), |code, _| code == 404)
        .await;
    assert_eq!(server.get(&format!("{MAPS}/child")).await.0, 404);
}

#[tokio::test]
async fn orphans_stay() {
    let server = Server::start().await;
    let owner = make(&server, "owner", None).await;
    make(&server, "child", Some(&owner)).await;
    server
        .delete(
            &format!("{MAPS}/owner"),
            &json!({"propagationPolicy": "Orphan"}),
        )
        .await;
    server
        .until(&format!("{MAPS}/owner"), |code, _| code == 404)
        .await;
    let (code, child) = server.get(&format!("{MAPS}/child")).await;
    assert_eq!(code, 200);
    assert!(child["metadata"]["ownerReferences"].is_null());
}

#[tokio::test]
async fn an_owner_that_never_was_is_no_owner() {
    let server = Server::start().await;
    let nobody =
        json!({"metadata": {"name": "nobody", "uid": "00000000-0000-4000-8000-000000000000"}});
    make(&server, "child", Some(&nobody)).await;
    server
        .until(&format!("{MAPS}/child"), |code, _| code == 404)
        .await;
}

#[tokio::test]
async fn a_namespace_empties_before_it_goes() {
    let server = Server::start().await;
    let (_, made) = server
        .post("/api/v1/namespaces", &json!({"metadata": {"name": "shop"}}))
        .await;
    assert_eq!(
        made["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "shop"
    );
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(
        server
            .get("/api/v1/namespaces/shop/serviceaccounts/default")
            .await
            .0,
        200
    );
    let (_, ca) = server
        .get("/api/v1/namespaces/shop/configmaps/kube-root-ca.crt")
        .await;
    assert!(
        ca["data"]["ca.crt"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN CERTIFICATE")
    );
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}});
    server
        .post("/api/v1/namespaces/shop/configmaps", &held)
        .await;
    server.delete("/api/v1/namespaces/shop", &json!({})).await;
    let (_, waiting) = server
        .until("/api/v1/namespaces/shop", |_, ns| {
            ns["status"]["conditions"].is_array()
        })
        .await;
    assert_eq!(waiting["status"]["phase"], "Terminating");
    assert!(
        waiting
            .to_string()
            .contains("Some resources are remaining: configmaps has 1 resource instances"),
        "{waiting}"
    );
    let (code, refused) = server
        .post(
            "/api/v1/namespaces/shop/configmaps",
            &json!({"metadata": {"name": "late"}}),
        )
        .await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "configmaps \"late\" is forbidden: unable to create new content in namespace shop because it is being terminated"
    );
    server
        .patch(
            "/api/v1/namespaces/shop/configmaps/held",
            "application/merge-patch+json",
            &json!({"metadata": {"finalizers": null}}),
        )
        .await;
    server
        .until("/api/v1/namespaces/shop", |code, _| code == 404)
        .await;
    let (code, refused) = server
        .delete("/api/v1/namespaces/default", &json!({}))
        .await;
    assert_eq!(
        (code, &refused["message"]),
        (
            403,
            &json!("namespaces \"default\" is forbidden: this namespace may not be deleted")
        )
    );
}

#[tokio::test]
async fn what_every_namespace_has_comes_back() {
    let server = Server::start().await;
    server
        .delete(
            "/api/v1/namespaces/default/serviceaccounts/default",
            &json!({}),
        )
        .await;
    server
        .until(
            "/api/v1/namespaces/default/serviceaccounts/default",
            |code, _| code == 200,
        )
        .await;
}
