//! Addresses of Services of type LoadBalancer, against a real API with the controllers' own
//! rights.

use std::time::Instant;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Service};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::api_server::Cluster;

/// A cluster with controllers and a pool of these addresses.
async fn cluster(addresses: &[&str]) -> Cluster {
    let mut cluster = Cluster::bare().await;
    assert!(api::pool::define(&cluster.client, "test").await.unwrap());
    assert!(!api::pool::define(&cluster.client, "test").await.unwrap());
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    api::pool::create(&cluster.client, "lan", &addresses)
        .await
        .unwrap();
    cluster.run_controllers();
    cluster
}

fn service(name: &str, annotations: Value) -> Value {
    json!({"metadata": {"name": name, "annotations": annotations},
        "spec": {"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80}]}})
}

fn shown(service: &Service) -> Vec<String> {
    let status = service.status.clone().unwrap_or_default();
    let ingress = status.load_balancer.unwrap_or_default().ingress;
    let all = ingress.unwrap_or_default().into_iter();
    all.map(|one| {
        format!(
            "{} {}",
            one.ip.unwrap_or_default(),
            one.ip_mode.unwrap_or_default()
        )
    })
    .collect()
}

/// Waits until the Service shows exactly these.
async fn until_shown(cluster: &Cluster, name: &str, want: &[&str]) {
    let what = format!("{name} shows {want:?}");
    cluster
        .until(&what, "default", |services: &[Service]| {
            let service = services.iter().find(|s| s.name_any() == name)?;
            (shown(service) == want).then_some(())
        })
        .await;
}

async fn until_event(cluster: &Cluster, name: &str, reason: &str, words: &str) {
    let what = format!("Event {reason} on {name} with {words:?}");
    cluster
        .until(&what, "default", |events: &[Event]| {
            let found = events.iter().any(|event| {
                event.involved_object.name.as_deref() == Some(name)
                    && event.reason.as_deref() == Some(reason)
                    && event.message.as_deref().is_some_and(|m| m.contains(words))
            });
            found.then_some(())
        })
        .await;
}

async fn until_pool(cluster: &Cluster, what: &str, good: impl Fn(&Value) -> bool) {
    let pools = api::pool::all(&cluster.client);
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let pool: DynamicObject = pools.get("lan").await.unwrap();
        if good(&pool.data["status"]) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {}", pool.data["status"]);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn services_get_addresses_share_them_lose_them_and_get_others() {
    let mut cluster = cluster(&["10.0.1.200-10.0.1.201"]).await;
    cluster
        .create::<Service>("default", service("a", json!({})))
        .await;
    until_shown(&cluster, "a", &["10.0.1.200 VIP"]).await;
    until_event(
        &cluster,
        "a",
        "AddressAssigned",
        "10.0.1.200 of LoadBalancerPool lan",
    )
    .await;
    let wish = json!({"metallb.io/loadBalancerIPs": "10.0.1.201"});
    cluster
        .create::<Service>("default", service("b", wish))
        .await;
    until_shown(&cluster, "b", &["10.0.1.201 VIP"]).await;
    cluster
        .create::<Service>("default", service("c", json!({})))
        .await;
    let full = "no IPv4 address is free in LoadBalancerPool lan (2 assigned)";
    until_event(&cluster, "c", "FailedAllocation", full).await;
    until_pool(&cluster, "all given out", |status| {
        status["available"] == 0 && status["assigned"] == 2 && status["capacity"] == 2
    })
    .await;

    // What one gives back another gets, also where it only changes its type.
    cluster
        .patch::<Service>("default", "a", json!({"spec": {"type": "ClusterIP"}}))
        .await;
    until_shown(&cluster, "c", &["10.0.1.200 VIP"]).await;
    until_shown(&cluster, "a", &[]).await;

    // The controllers start anew, and everybody keeps what they had.
    cluster.stop_tasks();
    cluster.delete::<Service>("default", "b").await;
    cluster.run_controllers();
    cluster
        .create::<Service>("default", service("d", json!({})))
        .await;
    until_shown(&cluster, "d", &["10.0.1.201 VIP"]).await;
    until_shown(&cluster, "c", &["10.0.1.200 VIP"]).await;

    // The pool moves, and its Services with it.
    let pools = api::pool::all(&cluster.client);
    let spec = json!({"spec": {"addresses": ["10.0.1.210/31"]}});
    let params = PatchParams::default();
    pools
        .patch("lan", &params, &Patch::Merge(spec))
        .await
        .unwrap();
    until_shown(&cluster, "c", &["10.0.1.210 VIP"]).await;
    until_shown(&cluster, "d", &["10.0.1.211 VIP"]).await;
    let why = "10.0.1.200 is in no LoadBalancerPool";
    until_event(&cluster, "c", "AddressWithdrawn", why).await;

    // The pool tells when a Service is gone, also where nobody waits for its address.
    cluster.delete::<Service>("default", "d").await;
    until_pool(&cluster, "one given back", |status| status["assigned"] == 1).await;

    // Without any pool they wait; somebody else's status is left alone.
    pools.delete("lan", &DeleteParams::default()).await.unwrap();
    until_shown(&cluster, "c", &[]).await;
    let condition = cluster
        .until("c says why", "default", |services: &[Service]| {
            let service = services.iter().find(|s| s.name_any() == "c")?;
            let conditions = service.status.as_ref()?.conditions.clone()?;
            conditions.into_iter().find(|one| one.status == "False")
        })
        .await;
    assert_eq!(condition.type_, "flatnet.io/LoadBalancerAddress");
    assert_eq!(condition.reason, "FailedAllocation");
    assert!(
        condition
            .message
            .starts_with("there is no LoadBalancerPool")
    );
}

#[tokio::test]
async fn a_pool_says_what_is_wrong_with_it_and_others_addresses_are_left_alone() {
    let mut cluster = cluster(&["10.0.1.200/31"]).await;
    cluster.stop_tasks();
    // An address that another balancer gave.
    cluster
        .create::<Service>("default", service("cloud", json!({})))
        .await;
    let services: kube::Api<Service> = kube::Api::namespaced(cluster.client.clone(), "default");
    let cloud =
        json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1", "ipMode": "VIP"}]}}});
    let cloud = Patch::Strategic(cloud);
    services
        .patch_status("cloud", &PatchParams::default(), &cloud)
        .await
        .unwrap();
    cluster.run_controllers();
    cluster
        .create::<Service>("default", service("web", json!({})))
        .await;
    until_shown(&cluster, "web", &["10.0.1.200 VIP"]).await;
    until_shown(&cluster, "cloud", &["198.51.100.1 VIP"]).await;
    let mut other = service("other", json!({}));
    other["spec"]["loadBalancerClass"] = "example.com/other".into();
    cluster.create::<Service>("default", other).await;

    let pools = api::pool::all(&cluster.client);
    let spec = |addresses: Value| Patch::Merge(json!({"spec": {"addresses": addresses}}));
    let params = PatchParams::default();
    let change = spec(json!(["10.0.1.210-10.0.1.200"]));
    pools.patch("lan", &params, &change).await.unwrap();
    until_pool(&cluster, "refused", |status| {
        let condition = &status["conditions"][0];
        condition["status"] == "False"
            && condition["reason"] == "Invalid"
            && condition["message"]
                == "LoadBalancerPool lan: spec.addresses[0]: 10.0.1.210 comes after 10.0.1.200; write 10.0.1.200-10.0.1.210"
    })
    .await;
    // The last good one stays in force.
    until_shown(&cluster, "web", &["10.0.1.200 VIP"]).await;
    let change = spec(json!(["10.0.1.200/31"]));
    pools.patch("lan", &params, &change).await.unwrap();
    until_pool(&cluster, "good again", |status| {
        status["conditions"][0]["status"] == "True" && status["assigned"] == 1
    })
    .await;

    // What the schema refuses does not get that far.
    let mut object = DynamicObject::new("bad", &api::pool::resource());
    object.data = json!({"spec": {"addresses": ["everything"]}});
    let refused = pools.create(&PostParams::default(), &object).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("spec.addresses[0]"), "{refused}");
    object.data = json!({"spec": {"addresses": []}});
    assert!(pools.create(&PostParams::default(), &object).await.is_err());

    until_shown(&cluster, "other", &[]).await;
}

/// Prints what 2,000 Services cost; run with `--ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn two_thousand_services() {
    let cluster = cluster(&["10.64.0.0/17"]).await;
    let begun = Instant::now();
    futures::stream::iter(0..2000)
        .for_each_concurrent(16, |n| {
            let cluster = &cluster;
            async move {
                let name = format!("s{n:04}");
                cluster
                    .create::<Service>("default", service(&name, json!({})))
                    .await;
            }
        })
        .await;
    println!("created after {:?}", begun.elapsed());
    cluster
        .until("all have one", "default", |services: &[Service]| {
            let all = services.iter().filter(|s| !shown(s).is_empty());
            (all.count() == 2000).then_some(())
        })
        .await;
    println!("all have an address after {:?}", begun.elapsed());
    let one = Instant::now();
    cluster
        .create::<Service>("default", service("last", json!({})))
        .await;
    until_shown(&cluster, "last", &["10.64.7.208 VIP"]).await;
    println!("one more after {:?}", one.elapsed());
}
