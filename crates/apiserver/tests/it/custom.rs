//! CustomResourceDefinitions and what they serve.

use serde_json::{Value, json};

use crate::server::{Server, accept};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "required": ["replicas"], "properties": {
                    "size": {"type": "integer", "default": 3, "maximum": 10}, "replicas": {"type": "integer"}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}})
}

#[tokio::test]
async fn a_definition_is_served_at_once_and_goes_with_its_objects() {
    let server = Server::start().await;
    assert_eq!(server.get(WIDGETS).await.0, 404);
    let (code, made) = server.post(CRDS, &definition()).await;
    assert_eq!(code, 201, "{made}");
    let states: Vec<&Value> = made["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["status"])
        .collect();
    assert_eq!(states, ["True", "True"]);
    assert_eq!(made["status"]["acceptedNames"]["listKind"], "WidgetList");

    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"},
        "spec": {"replicas": 1, "unknown": true}, "status": {"replicas": 5}});
    let (code, made) = server.post(WIDGETS, &widget).await;
    assert_eq!(
        (code, &made["spec"]),
        (201, &json!({"replicas": 1, "size": 3})),
        "{made}"
    );
    assert!(made["status"].is_null());
    assert_eq!(made["metadata"]["generation"], 1);
    let merge = "application/merge-patch+json";
    let one = format!("{WIDGETS}/w");
    let (code, refused) = server
        .patch(&one, merge, &json!({"spec": {"size": 11}}))
        .await;
    assert_eq!(code, 422, "{refused}");
    let (_, scaled) = server
        .patch(
            &format!("{one}/scale"),
            merge,
            &json!({"spec": {"replicas": 4}}),
        )
        .await;
    assert_eq!(scaled["spec"]["replicas"], 4);
    let (_, told) = server
        .patch(
            &format!("{one}/status"),
            merge,
            &json!({"status": {"replicas": 4}}),
        )
        .await;
    assert_eq!(
        (&told["status"]["replicas"], &told["metadata"]["generation"]),
        (&json!(4), &json!(2))
    );
    let (_, table) = accept(
        &server.client,
        WIDGETS,
        "application/json;as=Table;v=v1;g=meta.k8s.io",
    )
    .await;
    assert_eq!(
        (
            &table["columnDefinitions"][1]["name"],
            &table["rows"][0]["cells"]
        ),
        (&json!("Size"), &json!(["w", 3]))
    );

    let (code, _) = server
        .delete(&format!("{CRDS}/widgets.example.com"), &json!({}))
        .await;
    assert_eq!(code, 200);
    server
        .until(&format!("{CRDS}/widgets.example.com"), |code, _| {
            code == 404
        })
        .await;
    assert_eq!(server.get(WIDGETS).await.0, 404);
    // Applied again it starts empty.
    server.post(CRDS, &definition()).await;
    let (code, list) = server.get(WIDGETS).await;
    assert_eq!(
        (code, &list["items"], &list["kind"]),
        (200, &json!([]), &json!("WidgetList"))
    );
}

#[tokio::test]
async fn an_update_of_a_custom_object_needs_its_version() {
    let server = Server::start().await;
    server.post(CRDS, &definition()).await;
    let widget = json!({"metadata": {"name": "w"}, "spec": {"replicas": 1}});
    server.post(WIDGETS, &widget).await;
    let (code, refused) = server.put(&format!("{WIDGETS}/w"), &widget).await;
    assert_eq!(
        (code, &refused["details"]["causes"][0]["field"]),
        (422, &json!("metadata.resourceVersion")),
        "{refused}"
    );
}
