//! What a Service's slices say of its pods.

use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::controllers::action::Action;
use crate::controllers::world::Arrived;

/// Slices that are made for a Service with these pods: the bodies of what is created.
fn made(service: &Value, pods: &[Value]) -> Vec<Value> {
    let mut world = World::default();
    for (name, zone) in [("node1", "a"), ("node2", "b")] {
        let node = json!({"metadata": {"name": name, "labels": {ZONE: zone}}});
        let node: Node = serde_json::from_value(node).unwrap();
        world.take(Arrived::Node(Event::Apply(node)));
    }
    for pod in pods {
        let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
        world.take(Arrived::Pod(Event::Apply(pod)));
    }
    let mut object = json!({"metadata": {"name": "web", "namespace": "d", "uid": "s"}});
    object["spec"] = service.clone();
    let service: Service = serde_json::from_value(object).unwrap();
    let plan = plan(&world, &service);
    let bodies = plan.actions().map(|action| match action {
        Action::Create { body, .. } => body.clone(),
        other => panic!("{other:?}"),
    });
    bodies.collect()
}

/// A pod of the Service's on that node, with one port called `http`.
fn pod(name: &str, node: &str, ips: &[&str], port: u16, ready: bool) -> Value {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
    let ready = if ready { "True" } else { "False" };
    json!({"metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": node, "containers": [{"name": "c",
            "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIPs": ips,
            "conditions": [{"type": "Ready", "status": ready}]}})
}

fn service() -> Value {
    json!({"selector": {"app": "web"}, "ipFamilies": ["IPv4"],
        "ports": [{"name": "web", "port": 80, "protocol": "TCP", "targetPort": "http"}]})
}

/// Ready, serving and terminating of each endpoint.
fn conditions(slices: &[Value]) -> Vec<String> {
    let endpoints = slices
        .iter()
        .flat_map(|slice| slice["endpoints"].as_array().unwrap());
    let said = endpoints.map(|endpoint| {
        let says = |field: &str| endpoint["conditions"][field] == true;
        let words = ["ready", "serving", "terminating"];
        let words: Vec<&str> = words.into_iter().filter(|word| says(word)).collect();
        format!("{} {}", endpoint["addresses"][0], words.join(",")).replace('"', "")
    });
    said.collect()
}

#[test]
fn an_endpoint_says_whether_it_is_ready_serving_terminating() {
    let mut leaving = pod("c", "node1", &["10.0.0.3"], 80, true);
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let mut ended = pod("d", "node1", &["10.0.0.4"], 80, false);
    ended["status"]["phase"] = "Succeeded".into();
    let pods = [
        pod("a", "node1", &["10.0.0.1"], 80, true),
        pod("b", "node1", &["10.0.0.2"], 80, false),
        leaving,
        ended,
        pod("e", "", &[], 80, false),
    ];
    assert_eq!(
        conditions(&made(&service(), &pods)),
        [
            "10.0.0.1 ready,serving",
            "10.0.0.2 ",
            "10.0.0.3 serving,terminating"
        ]
    );
    let mut published = service();
    published["publishNotReadyAddresses"] = true.into();
    assert_eq!(
        conditions(&made(&published, &pods)),
        [
            "10.0.0.1 ready,serving",
            "10.0.0.2 ready",
            "10.0.0.3 ready,serving,terminating"
        ]
    );
}

#[test]
fn a_named_port_that_differs_from_pod_to_pod_makes_slices_of_their_own() {
    let slices = made(
        &service(),
        &[
            pod("a", "node1", &["10.0.0.1"], 80, true),
            pod("b", "node1", &["10.0.0.2"], 8080, true),
            pod("c", "node2", &["10.0.0.3"], 80, true),
        ],
    );
    let shown: Vec<(u64, usize)> = slices
        .iter()
        .map(|slice| {
            let port = slice["ports"][0]["port"].as_u64().unwrap();
            (port, slice["endpoints"].as_array().unwrap().len())
        })
        .collect();
    assert_eq!(shown, [(80, 2), (8080, 1)]);
    assert_eq!(slices[0]["ports"][0]["name"], "web");
}

#[test]
fn each_family_has_slices_of_its_own() {
    let mut both = service();
    both["ipFamilies"] = json!(["IPv6", "IPv4"]);
    let slices = made(
        &both,
        &[
            pod("a", "node1", &["10.0.0.1", "fd00::1"], 80, true),
            pod("b", "node1", &["10.0.0.2"], 80, true),
        ],
    );
    let shown: Vec<(&str, usize)> = slices
        .iter()
        .map(|slice| {
            let family = slice["addressType"].as_str().unwrap();
            (family, slice["endpoints"].as_array().unwrap().len())
        })
        .collect();
    assert_eq!(shown, [("IPv6", 1), ("IPv4", 2)]);
}

#[test]
fn a_slice_holds_a_hundred_endpoints() {
    let pods: Vec<Value> = (0..250)
        .map(|n| {
            pod(
                &format!("p{n:03}"),
                "node1",
                &[&format!("10.0.1.{n}")],
                80,
                true,
            )
        })
        .collect();
    let sizes: Vec<usize> = made(&service(), &pods)
        .iter()
        .map(|slice| slice["endpoints"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [100, 100, 50]);
}

#[test]
fn hints_follow_traffic_distribution() {
    let pods = [
        pod("a", "node1", &["10.0.0.1"], 80, true),
        pod("b", "node2", &["10.0.0.2"], 80, false),
    ];
    for (wish, hints) in [
        (Value::Null, Value::Null),
        ("PreferClose".into(), json!({"forZones": [{"name": "a"}]})),
        (
            "PreferSameZone".into(),
            json!({"forZones": [{"name": "a"}]}),
        ),
        (
            "PreferSameNode".into(),
            json!({"forZones": [{"name": "a"}], "forNodes": [{"name": "node1"}]}),
        ),
    ] {
        let mut service = service();
        service["trafficDistribution"] = wish;
        let slices = made(&service, &pods);
        let endpoints = slices[0]["endpoints"].as_array().unwrap();
        assert_eq!(endpoints[0]["hints"], hints);
        assert_eq!(endpoints[0]["zone"], "a");
        assert_eq!(endpoints[0]["nodeName"], "node1");
        // Nobody is sent to an endpoint that is not ready.
        assert_eq!(endpoints[1]["hints"], Value::Null);
    }
}
