//! Addresses and ports of Services.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::server::Server;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec["ports"].is_null() {
        spec["ports"] = json!([{"port": 80}]);
    }
    spec["selector"] = json!({"a": "b"});
    json!({"metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn the_way_to_the_server_is_there_from_the_start() {
    let server = Server::start().await;
    let (_, found) = server.get(&format!("{SERVICES}/kubernetes")).await;
    assert_eq!(found["spec"]["clusterIP"], "10.96.0.1");
    let (_, endpoints) = server
        .get("/api/v1/namespaces/default/endpoints/kubernetes")
        .await;
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "10.0.1.1");
    let (_, slice) = server
        .get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
        .await;
    assert_eq!(slice["ports"][0]["port"], 6443);
    assert_eq!(server.get(&format!("{ADDRESSES}/10.96.0.1")).await.0, 200);
    let (_, range) = server
        .get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
        .await;
    assert_eq!(
        range["status"]["conditions"][0]["status"], "True",
        "{range}"
    );
}

#[tokio::test]
async fn the_way_to_the_server_comes_back() {
    let server = Server::start().await;
    server
        .delete(&format!("{SERVICES}/kubernetes"), &json!({}))
        .await;
    let (_, found) = server
        .until(&format!("{SERVICES}/kubernetes"), |code, _| code == 200)
        .await;
    assert_eq!(found["spec"]["clusterIP"], "10.96.0.1");
}

#[tokio::test]
async fn a_service_that_is_no_node_port_any_more_gives_its_ports_up() {
    let server = Server::start().await;
    let (_, made) = server
        .post(SERVICES, &service("a", json!({"type": "NodePort"})))
        .await;
    assert!(made["spec"]["ports"][0]["nodePort"].is_u64());
    let mut plain = made.clone();
    plain["spec"]["type"] = "ClusterIP".into();
    let (code, kept) = server.put(&format!("{SERVICES}/a"), &plain).await;
    assert_eq!(code, 200, "{kept}");
    assert!(kept["spec"]["ports"][0]["nodePort"].is_null());
}

#[tokio::test]
async fn an_address_is_given_kept_and_given_back() {
    let server = Server::start().await;
    let (code, made) = server.post(SERVICES, &service("a", json!({}))).await;
    assert_eq!(code, 201, "{made}");
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    assert_eq!(made["spec"]["clusterIPs"], json!([address]));
    assert_eq!(
        (&made["spec"]["ipFamilies"], &made["spec"]["ipFamilyPolicy"]),
        (&json!(["IPv4"]), &json!("SingleStack"))
    );
    let (_, held) = server.get(&format!("{ADDRESSES}/{address}")).await;
    assert_eq!(held["spec"]["parentRef"]["name"], "a");
    // An update that does not name the address keeps it.
    let (code, kept) = server
        .put(
            &format!("{SERVICES}/a"),
            &service("a", json!({"type": "NodePort"})),
        )
        .await;
    assert_eq!(
        (code, &kept["spec"]["clusterIP"]),
        (200, &json!(address)),
        "{kept}"
    );
    let port = kept["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&port));
    let (code, refused) = server
        .post(SERVICES, &service("b", json!({"clusterIP": address})))
        .await;
    assert_eq!(code, 422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("provided IP is already allocated"),
        "{refused}"
    );
    let (code, _) = server
        .post(SERVICES, &service("b", json!({"clusterIP": "192.0.2.1"})))
        .await;
    assert_eq!(code, 422);
    let taken = service(
        "b",
        json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port}]}),
    );
    let (code, refused) = server.post(SERVICES, &taken).await;
    assert_eq!(
        (code, &refused["details"]["causes"][0]["field"]),
        (422, &json!("spec.ports[0].nodePort")),
        "{refused}"
    );
    let low = service(
        "b",
        json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}),
    );
    let (code, refused) = server.post(SERVICES, &low).await;
    assert_eq!(code, 422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("The range of valid ports is 30000-32767")
    );
    server.delete(&format!("{SERVICES}/a"), &json!({})).await;
    assert_eq!(server.get(&format!("{ADDRESSES}/{address}")).await.0, 404);
    assert_eq!(
        server
            .post(SERVICES, &service("b", json!({"clusterIP": address})))
            .await
            .0,
        201
    );
}

#[tokio::test]
async fn two_families_are_given_where_they_are_asked_for() {
    let server = Server::start().await;
    let (code, made) = server
        .post(
            SERVICES,
            &service("a", json!({"ipFamilyPolicy": "PreferDualStack"})),
        )
        .await;
    assert_eq!(
        (code, &made["spec"]["ipFamilies"]),
        (201, &json!(["IPv4", "IPv6"])),
        "{made}"
    );
    assert!(
        made["spec"]["clusterIPs"][1]
            .as_str()
            .unwrap()
            .starts_with("fd00:10:96::")
    );
    let (_, six) = server
        .post(SERVICES, &service("b", json!({"ipFamilies": ["IPv6"]})))
        .await;
    assert!(six["spec"]["clusterIP"].as_str().unwrap().contains(':'));
    let (_, none) = server
        .post(SERVICES, &service("c", json!({"clusterIP": "None"})))
        .await;
    assert_eq!(none["spec"]["clusterIPs"], json!(["None"]));
    let (code, name) = server.post(SERVICES, &json!({"metadata": {"name": "d"}, "spec": {"type": "ExternalName", "externalName": "db.example.com"}})).await;
    assert_eq!(code, 201, "{name}");
    assert!(name["spec"]["clusterIP"].is_null());
}

#[tokio::test]
async fn many_at_once_never_share_an_address_or_a_port() {
    let server = Server::start().await;
    let bodies: Vec<(String, Value)> = (0..60)
        .map(|n| {
            (
                SERVICES.to_owned(),
                service(&format!("s{n}"), json!({"type": "NodePort"})),
            )
        })
        .collect();
    let made =
        futures::future::join_all(bodies.iter().map(|(path, body)| server.post(path, body))).await;
    let mut seen = HashSet::new();
    for (code, service) in made {
        assert_eq!(code, 201, "{service}");
        assert!(seen.insert(service["spec"]["clusterIP"].to_string()));
        assert!(seen.insert(service["spec"]["ports"][0]["nodePort"].to_string()));
    }
}
