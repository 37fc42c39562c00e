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

/// What a change of a service becomes, or why it is refused.
async fn changed(server: &Server, name: &str, change: Value) -> (u16, Value) {
    let path = format!("{SERVICES}/{name}");
    let (_, mut service) = server.get(&path).await;
    for (field, value) in change.as_object().unwrap() {
        if value.is_null() {
            service["spec"].as_object_mut().unwrap().remove(field);
        } else {
            service["spec"][field] = value.clone();
        }
    }
    server.put(&path, &service).await
}

#[tokio::test]
async fn a_type_gives_up_what_the_next_does_not_have() {
    let server = Server::start().await;
    let (_, made) = server.post(SERVICES, &service("a", json!({}))).await;
    let address = made["spec"]["clusterIP"].clone();
    let (_, ported) = changed(&server, "a", json!({"type": "NodePort"})).await;
    let port = ported["spec"]["ports"][0]["nodePort"].clone();
    assert!(port.is_u64(), "{ported}");
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let (_, balanced) = changed(&server, "a", local).await;
    assert_eq!(balanced["spec"]["ports"][0]["nodePort"], port);
    assert!(
        balanced["spec"]["healthCheckNodePort"].is_u64(),
        "{balanced}"
    );
    assert_eq!(balanced["spec"]["allocateLoadBalancerNodePorts"], true);
    let (_, plain) = changed(&server, "a", json!({"type": "ClusterIP"})).await;
    let spec = plain["spec"].as_object().unwrap();
    for gone in [
        "healthCheckNodePort",
        "allocateLoadBalancerNodePorts",
        "externalTrafficPolicy",
    ] {
        assert!(!spec.contains_key(gone), "{gone} in {plain}");
    }
    assert!(spec["ports"][0]["nodePort"].is_null());
    assert_eq!(spec["clusterIP"], address);
    let named = json!({"type": "ExternalName", "externalName": "db.example.com"});
    let (code, named) = changed(&server, "a", named).await;
    assert_eq!(code, 200, "{named}");
    for gone in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert!(named["spec"][gone].is_null(), "{gone} in {named}");
    }
    let held = format!("{ADDRESSES}/{}", address.as_str().unwrap());
    assert_eq!(server.get(&held).await.0, 404);
    let back = json!({"type": "NodePort", "externalName": null});
    let (code, back) = changed(&server, "a", back).await;
    assert_eq!(code, 200, "{back}");
    assert!(back["spec"]["clusterIP"].is_string() && back["spec"]["ports"][0]["nodePort"].is_u64());
}

#[tokio::test]
async fn ports_of_one_number_share_a_node_port_and_others_may_not() {
    let server = Server::start().await;
    let both = json!({"type": "NodePort", "ports": [
        {"name": "udp", "port": 53, "protocol": "UDP"}, {"name": "tcp", "port": 53}]});
    let (_, dns) = server.post(SERVICES, &service("dns", both)).await;
    let port = dns["spec"]["ports"][0]["nodePort"].clone();
    assert_eq!(dns["spec"]["ports"][1]["nodePort"], port);
    assert!(
        port.as_u64().unwrap() >= 30086,
        "{port} is in the part for static use"
    );
    for protocol in ["TCP", "SCTP"] {
        let taken = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": port, "protocol": protocol}]});
        let (code, refused) = server.post(SERVICES, &service("b", taken)).await;
        assert_eq!(code, 422);
        assert_eq!(
            refused["message"],
            format!(
                "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated"
            )
        );
    }
    // A port keeps its node port by its name, whatever else of it changes.
    let moved = json!({"ports": [{"name": "tcp", "port": 5353}, {"name": "new", "port": 54}]});
    let (_, moved) = changed(&server, "dns", moved).await;
    assert_eq!(moved["spec"]["ports"][0]["nodePort"], port);
    assert_ne!(moved["spec"]["ports"][1]["nodePort"], port);
}

#[tokio::test]
async fn a_balancer_without_node_ports_keeps_those_asked_for() {
    let server = Server::start().await;
    let spec = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
        "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30001}]});
    let (_, made) = server.post(SERVICES, &service("a", spec)).await;
    assert!(made["spec"]["ports"][0]["nodePort"].is_null(), "{made}");
    assert_eq!(made["spec"]["ports"][1]["nodePort"], 30001);
    let class = json!({"loadBalancerClass": "example.com/x"});
    let (code, refused) = changed(&server, "a", class).await;
    assert_eq!(code, 422);
    assert!(
        refused["message"].as_str().unwrap().contains(
            "spec.loadBalancerClass: Invalid value: \"example.com/x\": may not change once set"
        ),
        "{refused}"
    );
    // Its health check port is its own once given.
    let (_, local) = changed(&server, "a", json!({"externalTrafficPolicy": "Local"})).await;
    let health = local["spec"]["healthCheckNodePort"].as_u64().unwrap();
    let (code, refused) = changed(&server, "a", json!({"healthCheckNodePort": health - 1})).await;
    assert_eq!(code, 422, "{refused}");
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("field is immutable")
    );
}

#[tokio::test]
async fn a_service_gains_and_gives_back_its_second_family() {
    let server = Server::start().await;
    let (_, made) = server.post(SERVICES, &service("a", json!({}))).await;
    let first = made["spec"]["clusterIP"].clone();
    let (code, both) = changed(&server, "a", json!({"ipFamilyPolicy": "PreferDualStack"})).await;
    assert_eq!(code, 200, "{both}");
    assert_eq!(both["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(both["spec"]["clusterIPs"][0], first);
    let second = both["spec"]["clusterIPs"][1].as_str().unwrap().to_owned();
    let (_, refused) = changed(&server, "a", json!({"clusterIPs": [first]})).await;
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("must be 'SingleStack' to release the secondary cluster IP"),
        "{refused}"
    );
    let (code, one) = changed(&server, "a", json!({"ipFamilyPolicy": "SingleStack"})).await;
    assert_eq!(code, 200, "{one}");
    assert_eq!(
        (&one["spec"]["clusterIPs"], &one["spec"]["ipFamilies"]),
        (&json!([first]), &json!(["IPv4"]))
    );
    assert_eq!(server.get(&format!("{ADDRESSES}/{second}")).await.0, 404);
    // Only the order the addresses were asked for in decides which is the first.
    let six = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]});
    let (_, six) = server.post(SERVICES, &service("six", six)).await;
    assert!(
        six["spec"]["clusterIP"].as_str().unwrap().contains(':'),
        "{six}"
    );
    let bare = json!({"metadata": {"name": "bare"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    let (_, bare) = server.post(SERVICES, &bare).await;
    assert_eq!(bare["spec"]["ipFamilyPolicy"], "RequireDualStack");
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_kubernetes_words() {
    let server = Server::start().await;
    let long = "a".repeat(64);
    for (name, spec, says) in [
        (
            "a",
            json!({"ports": [{"port": 0}]}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "a",
            json!({"ports": [{"port": 65536}]}),
            "spec.ports[0].port: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            "a",
            json!({"clusterIP": "10.244.0.1"}),
            "spec.clusterIPs: Invalid value: [\"10.244.0.1\"]: failed to allocate IP 10.244.0.1: the provided network does not match the current range",
        ),
        (
            "a",
            json!({"clusterIP": "10.96.0.1"}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP 10.96.0.1: provided IP is already allocated",
        ),
        (
            "a",
            json!({"clusterIP": "ten"}),
            "spec.clusterIPs[0]: Invalid value: \"ten\": must be a valid IP address",
        ),
        (
            "a",
            json!({"ipFamilies": ["IPv5"]}),
            "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
        ),
        (
            "a",
            json!({"externalIPs": ["300.1.2.3"]}),
            "spec.externalIPs[0]: Invalid value: \"300.1.2.3\": must be a valid IP address",
        ),
        (
            "a",
            json!({"internalTrafficPolicy": "Near"}),
            "spec.internalTrafficPolicy: Unsupported value: \"Near\"",
        ),
        (
            long.as_str(),
            json!({}),
            "must be no more than 63 characters",
        ),
    ] {
        let (code, refused) = server.post(SERVICES, &service(name, spec)).await;
        assert_eq!(code, 422, "{refused}");
        assert!(
            refused["message"].as_str().unwrap().contains(says),
            "{says}\n{refused}"
        );
    }
    let most = "a".repeat(63);
    assert_eq!(
        server.post(SERVICES, &service(&most, json!({}))).await.0,
        201
    );
}
