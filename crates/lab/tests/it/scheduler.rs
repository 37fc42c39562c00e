//! The scheduler against a real API.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use serde_json::json;

use crate::api_server::Cluster;

fn node_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

#[tokio::test]
async fn a_pod_waits_with_its_reason_until_a_node_will_do() {
    let mut cluster = Cluster::start().await;
    cluster.node("node1", json!({})).await;
    let pod = json!({"metadata": {"name": "picky"},
        "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "c", "image": "nginx"}]}});
    cluster.create::<Pod>("default", pod).await;
    let message = cluster
        .until("PodScheduled is False", "default", |pods: &[Pod]| {
            let conditions = pods.first()?.status.as_ref()?.conditions.as_ref()?;
            let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled")?;
            let refused = scheduled.message.as_ref()?.starts_with("0/1 nodes");
            refused.then(|| scheduled.message.clone())?
        })
        .await;
    assert_eq!(
        message,
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. \
         preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    cluster.node("node2", json!({"disk": "ssd"})).await;
    let node = cluster
        .until("bound", "default", |pods: &[Pod]| node_of(pods.first()?))
        .await;
    assert_eq!(node, "node2");
    let reasons = cluster
        .until("both Events", "default", |events: &[Event]| {
            let mut reasons: Vec<String> = events
                .iter()
                .filter(|e| e.involved_object.name.as_deref() == Some("picky"))
                .filter_map(|e| e.reason.clone())
                .filter(|reason| reason.contains("Schedul"))
                .collect();
            reasons.sort();
            reasons.dedup();
            (reasons.len() == 2).then_some(reasons)
        })
        .await;
    assert_eq!(reasons, ["FailedScheduling", "Scheduled"]);
}

#[tokio::test]
async fn pods_are_spread_and_a_bound_one_is_left_alone() {
    let mut cluster = Cluster::start().await;
    for name in ["node1", "node2", "node3"] {
        cluster.node(name, json!({})).await;
    }
    let pod = json!({"metadata": {"name": "fixed"},
        "spec": {"nodeName": "node9", "containers": [{"name": "c", "image": "nginx"}]}});
    cluster.create::<Pod>("kube-public", pod).await;
    for i in 0..9 {
        let pod = json!({"metadata": {"name": format!("p{i}")},
            "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
        cluster.create::<Pod>("default", pod).await;
    }
    let mut nodes = cluster
        .until("nine bound", "default", |pods: &[Pod]| {
            let nodes: Vec<String> = pods.iter().filter_map(node_of).collect();
            (nodes.len() == 9).then_some(nodes)
        })
        .await;
    nodes.sort();
    assert_eq!(
        nodes.concat(),
        "node1node1node1node2node2node2node3node3node3"
    );
    for pod in cluster.list::<Pod>("kube-public").await {
        assert_eq!(
            node_of(&pod).as_deref(),
            Some("node9"),
            "{}",
            pod.name_any()
        );
    }
}
