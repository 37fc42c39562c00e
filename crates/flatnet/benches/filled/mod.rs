//! The cluster whose names are asked, through its API.

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

const NAMESPACES: usize = 10;
/// Names asked in a round.
pub const NAMES: usize = 1_000;
/// How many requests are under way while the API server is filled.
const AT_ONCE: usize = 16;

/// A name of the cluster.
pub fn inside(number: usize) -> String {
    format!("svc{number}.ns{}.svc.cluster.local", number % NAMESPACES)
}

/// A name of the world.
pub fn outside(number: usize) -> String {
    format!("host{number}.example.org")
}

pub async fn namespaces(client: &Client) {
    let all: Api<Namespace> = Api::all(client.clone());
    for number in 0..NAMESPACES {
        let namespace = of(json!({"metadata": {"name": format!("ns{number}")}}));
        all.create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }
}

/// Services with so many endpoints each; one of ten is headless beyond those that are asked.
pub async fn fill(client: &Client, numbers: std::ops::Range<usize>, endpoints: usize) {
    let made = numbers.clone().map(|number| {
        let services: Api<Service> =
            Api::namespaced(client.clone(), &format!("ns{}", number % NAMESPACES));
        async move {
            let headless = number >= NAMES && number % 10 == 9;
            let service = of(service(&format!("svc{number}"), headless));
            let made = services.create(&PostParams::default(), &service).await;
            made.unwrap();
        }
    });
    stream::iter(made)
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
    slices(client, numbers, 0..endpoints).await;
}

/// A slice with these endpoints for each Service.
pub async fn slices(
    client: &Client,
    numbers: std::ops::Range<usize>,
    endpoints: std::ops::Range<usize>,
) {
    let made = numbers.map(|number| {
        let slices: Api<EndpointSlice> =
            Api::namespaced(client.clone(), &format!("ns{}", number % NAMESPACES));
        let slice = of(slice(number, endpoints.clone()));
        async move {
            let made = slices.create(&PostParams::default(), &slice).await;
            made.unwrap();
        }
    });
    stream::iter(made)
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
}

pub fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub fn service(name: &str, headless: bool) -> Value {
    let mut service = json!({"metadata": {"name": name},
        "spec": {"selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    if headless {
        service["spec"]["clusterIP"] = json!("None");
    }
    service
}

fn slice(number: usize, endpoints: std::ops::Range<usize>) -> Value {
    let service = format!("svc{number}");
    let each = endpoints.clone().map(|at| {
        let all = number * 10 + at;
        // Beyond the pods' range there are enough of them.
        let ip = format!(
            "10.{}.{}.{}",
            160 + all / 60_000,
            all % 60_000 / 250,
            1 + all % 250
        );
        json!({"addresses": [ip], "conditions": {"ready": true, "serving": true},
            "nodeName": format!("node{}", 1 + at % 2),
            "targetRef": {"kind": "Pod", "name": format!("{service}-{at}"),
                "namespace": format!("ns{}", number % NAMESPACES)}})
    });
    json!({"metadata": {"name": format!("{service}-{}", endpoints.start),
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": each.collect::<Vec<Value>>()})
}
