//! The controllers against a real API.

use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Node, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api_server::Cluster;

fn ready(pods: &[Pod]) -> usize {
    pods.iter()
        .filter(|pod| lab::controllers::pods::is_ready(pod))
        .count()
}

fn replica_set(name: &str, replicas: i32) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}})
}

#[tokio::test]
async fn a_replica_set_has_as_many_pods_as_it_says() {
    let mut cluster = Cluster::start().await;
    cluster.node("node1", json!({})).await;
    cluster
        .create::<ReplicaSet>("default", replica_set("web", 5))
        .await;
    cluster
        .until("five ready", "default", |pods: &[Pod]| {
            (ready(pods) == 5 && pods.len() == 5).then_some(())
        })
        .await;
    cluster
        .until("status says so", "default", |sets: &[ReplicaSet]| {
            let status = sets.first()?.status.clone()?;
            (status.available_replicas == Some(5) && status.observed_generation == Some(1))
                .then_some(())
        })
        .await;
    cluster
        .patch::<ReplicaSet>("default", "web", json!({"spec": {"replicas": 2}}))
        .await;
    cluster
        .until("two left", "default", |pods: &[Pod]| {
            (pods.len() == 2).then_some(())
        })
        .await;
    // A pod whose labels no longer match is let go and replaced.
    let name = cluster.list::<Pod>("default").await[0].name_any();
    cluster
        .patch::<Pod>(
            "default",
            &name,
            json!({"metadata": {"labels": {"app": "other"}}}),
        )
        .await;
    cluster
        .until("released and replaced", "default", |pods: &[Pod]| {
            let free = pods.iter().find(|pod| pod.name_any() == name)?;
            (free.owner_references().is_empty() && pods.len() == 3).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_namespace_gets_its_account() {
    let cluster = Cluster::start().await;
    cluster
        .until("account", "default", |accounts: &[ServiceAccount]| {
            accounts
                .iter()
                .any(|account| account.name_any() == "default")
                .then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_token_comes_and_goes_with_its_account() {
    let cluster = Cluster::start().await;
    // The Secret first, as an alphabetical folder of manifests has it.
    cluster
        .create::<Secret>(
            "default",
            json!({"metadata": {"name": "robot-token", "annotations":
                    {"kubernetes.io/service-account.name": "robot"}},
                "type": "kubernetes.io/service-account-token"}),
        )
        .await;
    cluster
        .create::<ServiceAccount>("default", json!({"metadata": {"name": "robot"}}))
        .await;
    let fields = cluster
        .until("filled", "default", |secrets: &[Secret]| {
            let data = secrets.first()?.data.as_ref()?;
            Some(data.keys().cloned().collect::<Vec<_>>())
        })
        .await;
    assert_eq!(fields, ["ca.crt", "namespace", "token"]);
    cluster.delete::<ServiceAccount>("default", "robot").await;
    cluster
        .until("gone", "default", |secrets: &[Secret]| {
            secrets.is_empty().then_some(())
        })
        .await;
}

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn rolled_out(deployments: &[Deployment], generation: i64, replicas: i32) -> Option<()> {
    let status = deployments.first()?.status.clone()?;
    (status.observed_generation == Some(generation)
        && status.updated_replicas == Some(replicas)
        && status.replicas == Some(replicas)
        && status.available_replicas == Some(replicas))
    .then_some(())
}

#[tokio::test]
async fn a_deployment_rolls_out_and_back_with_revisions() {
    let mut cluster = Cluster::start().await;
    cluster.node("node1", json!({})).await;
    cluster.node("node2", json!({})).await;
    cluster
        .create::<Deployment>("default", deployment("web", 3, "nginx:1"))
        .await;
    cluster
        .until("rolled out", "default", |d: &[Deployment]| {
            rolled_out(d, 1, 3)
        })
        .await;
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    cluster
        .patch::<Deployment>("default", "web", image("nginx:2"))
        .await;
    cluster
        .until("second revision", "default", |d: &[Deployment]| {
            rolled_out(d, 2, 3)
        })
        .await;
    let message = cluster
        .until("Progressing says so", "default", |d: &[Deployment]| {
            let conditions = d.first()?.status.as_ref()?.conditions.as_ref()?;
            let c = conditions.iter().find(|c| c.type_ == "Progressing")?;
            (c.reason.as_deref() == Some("NewReplicaSetAvailable")).then(|| c.message.clone())?
        })
        .await;
    assert!(
        message.ends_with("has successfully progressed."),
        "{message}"
    );
    let revisions = |sets: &[ReplicaSet]| {
        let mut all: Vec<(String, i32)> = sets
            .iter()
            .map(|set| {
                let revision = set.annotations()["deployment.kubernetes.io/revision"].clone();
                (
                    revision,
                    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0),
                )
            })
            .collect();
        all.sort();
        all
    };
    let sets = cluster.list::<ReplicaSet>("default").await;
    assert_eq!(revisions(&sets), [("1".to_owned(), 0), ("2".to_owned(), 3)]);
    // Going back makes the first set the third revision.
    cluster
        .patch::<Deployment>("default", "web", image("nginx:1"))
        .await;
    cluster
        .until("back", "default", |d: &[Deployment]| rolled_out(d, 3, 3))
        .await;
    let sets = cluster.list::<ReplicaSet>("default").await;
    assert_eq!(revisions(&sets), [("2".to_owned(), 0), ("3".to_owned(), 3)]);
    let deployments = cluster.list::<Deployment>("default").await;
    assert_eq!(
        deployments[0].annotations()["deployment.kubernetes.io/revision"],
        "3"
    );
}

#[tokio::test]
async fn a_service_has_slices_and_endpoints_of_its_ready_pods() {
    let mut cluster = Cluster::start().await;
    cluster
        .node("node1", json!({"topology.kubernetes.io/zone": "a"}))
        .await;
    let service = json!({"metadata": {"name": "web", "labels": {"team": "x"}}, "spec": {"selector": {"app": "web"},
        "trafficDistribution": "PreferClose",
        "ports": [{"name": "http", "port": 80, "targetPort": "named"}]}});
    cluster.create::<Service>("default", service).await;
    let slices_of_web = |slices: &[EndpointSlice]| -> Vec<EndpointSlice> {
        let of_web = |s: &&EndpointSlice| {
            s.labels()
                .get("kubernetes.io/service-name")
                .map(String::as_str)
                == Some("web")
        };
        slices.iter().filter(of_web).cloned().collect()
    };
    cluster
        .until("an empty slice", "default", |slices: &[EndpointSlice]| {
            let mine = slices_of_web(slices);
            (mine.len() == 1 && mine[0].endpoints.iter().flatten().count() == 0).then_some(())
        })
        .await;
    let mut web = deployment("web", 2, "nginx");
    web["spec"]["template"]["spec"]["containers"][0]["ports"] =
        json!([{"name": "named", "containerPort": 8080}]);
    cluster.create::<Deployment>("default", web).await;
    let slice = cluster
        .until(
            "two ready endpoints",
            "default",
            |slices: &[EndpointSlice]| {
                let mine = slices_of_web(slices);
                let endpoints = mine.iter().flat_map(|s| s.endpoints.iter().flatten());
                let ready = endpoints
                    .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true))
                    .count();
                (ready == 2 && mine.len() == 1).then(|| mine[0].clone())
            },
        )
        .await;
    assert_eq!(
        slice.labels()["endpointslice.kubernetes.io/managed-by"],
        "endpointslice-controller.k8s.io"
    );
    assert_eq!(slice.labels()["team"], "x");
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!(
        (port.name.as_deref(), port.port),
        (Some("http"), Some(8080))
    );
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!(endpoint.zone.as_deref(), Some("a"));
    assert_eq!(endpoint.node_name.as_deref(), Some("node1"));
    let hints = endpoint
        .hints
        .as_ref()
        .and_then(|h| h.for_zones.as_ref())
        .unwrap();
    assert_eq!(hints[0].name, "a");
    let subsets = cluster
        .until("endpoints", "default", |endpoints: &[Endpoints]| {
            let web = endpoints.iter().find(|e| e.name_any() == "web")?;
            let subsets = web.subsets.clone()?;
            (subsets.first()?.addresses.as_ref()?.len() == 2).then_some(subsets)
        })
        .await;
    assert_eq!(subsets[0].ports.as_ref().unwrap()[0].port, 8080);
    cluster
        .patch::<Deployment>("default", "web", json!({"spec": {"replicas": 0}}))
        .await;
    cluster
        .until("empty again", "default", |slices: &[EndpointSlice]| {
            let mine = slices_of_web(slices);
            (mine.len() == 1 && mine[0].endpoints.iter().flatten().count() == 0).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_node_that_falls_silent_is_noticed_and_comes_back() {
    let mut cluster = Cluster::start().await;
    let alive = cluster.node("node1", json!({})).await;
    cluster
        .create::<ReplicaSet>("default", replica_set("web", 1))
        .await;
    cluster
        .until("ready", "default", |pods: &[Pod]| {
            (ready(pods) == 1).then_some(())
        })
        .await;
    let taints = |nodes: &[Node]| -> Option<usize> {
        let spec = nodes.first()?.spec.clone().unwrap_or_default();
        Some(spec.taints.unwrap_or_default().len())
    };
    cluster
        .until("no taints", "", |nodes: &[Node]| {
            (taints(nodes)? == 0).then_some(())
        })
        .await;
    alive.store(false, std::sync::atomic::Ordering::Relaxed);
    let reason = cluster
        .until("Ready is Unknown", "", |nodes: &[Node]| {
            let conditions = nodes.first()?.status.as_ref()?.conditions.as_ref()?;
            let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
            (ready.status == "Unknown").then(|| ready.message.clone())?
        })
        .await;
    assert_eq!(reason, "Kubelet stopped posting node status.");
    cluster
        .until("tainted", "", |nodes: &[Node]| {
            (taints(nodes)? == 2).then_some(())
        })
        .await;
    cluster
        .until("not ready", "default", |pods: &[Pod]| {
            (ready(pods) == 0).then_some(())
        })
        .await;
    cluster.revive("node1").await;
    cluster
        .until("no taints again", "", |nodes: &[Node]| {
            (taints(nodes)? == 0).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_stateful_set_has_numbered_pods_and_revisions() {
    let mut cluster = Cluster::start().await;
    cluster.node("node1", json!({})).await;
    let mut set = replica_set("db", 3);
    set["spec"]["serviceName"] = json!("db");
    cluster.create::<StatefulSet>("default", set).await;
    let settled = |generation: i64| {
        move |sets: &[StatefulSet]| {
            let status = sets.first()?.status.clone()?;
            (status.observed_generation == Some(generation)
                && status.available_replicas == Some(3)
                && status.updated_replicas == Some(3)
                && status.current_revision == status.update_revision)
                .then_some(())
        }
    };
    cluster.until("three pods", "default", settled(1)).await;
    let names: Vec<String> = cluster
        .list::<Pod>("default")
        .await
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    assert_eq!(names, ["db-0", "db-1", "db-2"]);
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}});
    cluster.patch::<StatefulSet>("default", "db", image).await;
    cluster.until("updated", "default", settled(2)).await;
    assert_eq!(cluster.list::<ControllerRevision>("default").await.len(), 2);
}

#[tokio::test]
async fn a_daemon_set_is_on_every_node_that_will_have_it() {
    let mut cluster = Cluster::start().await;
    for name in ["node1", "node2"] {
        cluster.node(name, json!({})).await;
    }
    let mut set = replica_set("log", 0);
    set["spec"].as_object_mut().unwrap().remove("replicas");
    cluster.create::<DaemonSet>("default", set).await;
    let settled = |generation: i64, nodes: i32| {
        move |sets: &[DaemonSet]| {
            let status = sets.first()?.status.clone()?;
            (status.observed_generation == Some(generation)
                && status.desired_number_scheduled == nodes
                && status.number_available == Some(nodes)
                && status.updated_number_scheduled == Some(nodes))
            .then_some(())
        }
    };
    cluster.until("on two", "default", settled(1, 2)).await;
    cluster.node("node3", json!({})).await;
    cluster.until("on three", "default", settled(1, 3)).await;
    let mut nodes: Vec<String> = cluster
        .list::<Pod>("default")
        .await
        .iter()
        .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
        .collect();
    nodes.sort();
    assert_eq!(nodes, ["node1", "node2", "node3"]);
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}});
    cluster.patch::<DaemonSet>("default", "log", image).await;
    cluster.until("updated", "default", settled(2, 3)).await;
    let selector = json!({"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": "node2"}}}}});
    cluster.patch::<DaemonSet>("default", "log", selector).await;
    cluster.until("on one", "default", settled(3, 1)).await;
    cluster
        .until("one pod", "default", |pods: &[Pod]| {
            (pods.len() == 1).then_some(())
        })
        .await;
}

#[tokio::test]
async fn nodes_get_their_ranges_and_the_wrong_configuration_changes_nothing() {
    let mut cluster = Cluster::start().await;
    let config =
        |text: &str| json!({"metadata": {"name": "flatnet"}, "data": {"config.yaml": text}});
    cluster
        .create::<ConfigMap>(
            "kube-system",
            config("apiVersion: flatnet.io/v1alpha1\nkind: NetworkConfig\nclusterCIDRs: [10.244.0.0/22]\n"),
        )
        .await;
    cluster.node("node2", json!({})).await;
    cluster.node("node1", json!({})).await;
    let ranges = |nodes: &[Node]| -> Vec<String> {
        let of = |node: &Node| node.spec.as_ref().and_then(|s| s.pod_cidrs.clone());
        nodes
            .iter()
            .filter_map(of)
            .map(|cidrs| cidrs.join(" "))
            .collect()
    };
    let have = cluster
        .until("two ranges", "", |nodes: &[Node]| {
            let ranges = ranges(nodes);
            (ranges.len() == 2).then_some(ranges)
        })
        .await;
    assert_eq!(have, ["10.244.1.0/24", "10.244.2.0/24"]);
    cluster
        .patch::<ConfigMap>(
            "kube-system",
            "flatnet",
            config("clusterCIDRs: [10.0.0.0/99]\n"),
        )
        .await;
    for name in ["node3", "alpha", "beta"] {
        cluster.node(name, json!({})).await;
    }
    // Three more ask, two ranges are left.
    let message = cluster
        .until(
            "an Event says the range is used up",
            "default",
            |events: &[Event]| {
                let full = events
                    .iter()
                    .find(|e| e.reason.as_deref() == Some("CIDRNotAvailable"))?;
                full.message.clone()
            },
        )
        .await;
    assert!(message.contains("10.244.0.0/22"), "{message}");
    cluster
        .until("four ranges", "", |nodes: &[Node]| {
            (ranges(nodes).len() == 4).then_some(())
        })
        .await;
}

#[tokio::test]
async fn controllers_that_start_again_go_on_where_they_were() {
    let mut cluster = Cluster::start().await;
    cluster.node("node1", json!({})).await;
    cluster
        .create::<ReplicaSet>("default", replica_set("web", 3))
        .await;
    cluster
        .until("three ready", "default", |pods: &[Pod]| {
            (ready(pods) == 3).then_some(())
        })
        .await;
    cluster.stop_tasks();
    let mut names: Vec<String> = cluster
        .list::<Pod>("default")
        .await
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    let gone = names.remove(0);
    cluster.delete::<Pod>("default", &gone).await;
    cluster.run_controllers();
    cluster.revive("node1").await;
    cluster
        .until("one replaced, two kept", "default", |pods: &[Pod]| {
            let there = |name: &String| pods.iter().any(|pod| pod.name_any() == *name);
            (pods.len() == 3 && ready(pods) == 3 && names.iter().all(there) && !there(&gone))
                .then_some(())
        })
        .await;
}
