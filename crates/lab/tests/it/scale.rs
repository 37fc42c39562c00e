//! How long the control plane takes for many pods.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::json;

use crate::api_server::Cluster;

/// Kubelets here start pods at once: what is measured is API server, scheduler and
/// controllers, all in this process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test --release -p lab --test it -- --ignored thousand --nocapture"]
async fn a_thousand_pods_on_fifty_nodes() {
    let mut cluster = Cluster::start().await;
    for number in 1..=50 {
        cluster.node(&format!("node{number}"), json!({})).await;
    }
    let start = std::time::Instant::now();
    let many = json!({"metadata": {"name": "many"}, "spec": {"replicas": 1000,
        "selector": {"matchLabels": {"app": "many"}},
        "template": {"metadata": {"labels": {"app": "many"}},
            "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}});
    cluster.create::<Deployment>("default", many).await;
    cluster
        .until(
            "1000 available",
            "default",
            |deployments: &[Deployment]| {
                let status = deployments.first()?.status.as_ref()?;
                (status.available_replicas == Some(1000)).then_some(())
            },
        )
        .await;
    println!(
        "1000 pods on 50 nodes: {:.1} s",
        start.elapsed().as_secs_f64()
    );
}
