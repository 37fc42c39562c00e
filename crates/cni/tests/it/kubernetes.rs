//! The agent against an API server: what it says there, and what holds while the server is away.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Event, Node as ApiNode};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use linux::{RouteFilter, run_in};
use serde_json::{Value, json};

use super::lab::{Node, Pod, can_run, ip_of};

struct Server {
    running: apiserver::Server,
    /// Where the node reaches it.
    inside: SocketAddr,
    client: Client,
}

async fn serve(node: &Node, dir: &Path, inside: &str) -> Server {
    let outer = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut inner = None;
    // Of the server before, a child that another test is just forking may have a copy.
    super::lab::until("the address is free", || {
        let bound = run_in(&node.netns, || TcpListener::bind(inside)).unwrap();
        inner = bound.ok();
        inner.is_some()
    });
    let inner = inner.unwrap();
    let (url, inside) = (
        format!("https://{}", outer.local_addr().unwrap()),
        inner.local_addr().unwrap(),
    );
    let running = apiserver::Server::start(apiserver::Options {
        data_dir: dir.to_owned(),
        listeners: vec![outer, inner],
        service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
        node_ports: 30000..=32767,
        advertise: vec!["10.0.1.1".parse().unwrap()],
        advertise_port: 6443,
        connect: apiserver::connect_directly(),
    })
    .await
    .unwrap();
    let text = kubeconfig(dir, &url, "admin", "system:masters");
    let parsed = Kubeconfig::from_yaml(&text).unwrap();
    let config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
        .await
        .unwrap();
    Server {
        running,
        inside,
        client: Client::try_from(config).unwrap(),
    }
}

fn kubeconfig(dir: &Path, url: &str, user: &str, group: &str) -> String {
    certs::Pki::open(dir)
        .unwrap()
        .kubeconfig("test", url, user, Some(group))
        .unwrap()
}

async fn make_node(client: &Client, name: &str, cidr: &str, address: &str) {
    let api: Api<ApiNode> = Api::all(client.clone());
    let node = json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
    api.create(
        &PostParams::default(),
        &serde_json::from_value(node).unwrap(),
    )
    .await
    .unwrap();
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

async fn configure(client: &Client, text: &str) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "flatnet"}, "data": {"config.yaml": text},
    });
    api.patch(
        "flatnet",
        &PatchParams::apply("test").force(),
        &Patch::Apply(map),
    )
    .await
    .unwrap();
}

/// Waits until an asynchronous question is answered with true.
async fn until<F: Future<Output = bool>>(what: &str, node: &Node, holds: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !holds().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "in vain: {what}\n{}",
            node.log()
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn condition(client: &Client) -> Option<(String, String)> {
    let node = Api::<ApiNode>::all(client.clone())
        .get("node1")
        .await
        .unwrap();
    let conditions = node.status?.conditions?;
    let found = conditions
        .into_iter()
        .find(|condition| condition.type_ == "NetworkUnavailable")?;
    Some((found.status, found.reason.unwrap_or_default()))
}

const GOOD: &str = "apiVersion: flatnet.io/v1alpha1\nkind: NetworkConfig\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_lives_with_and_without_its_api_server() {
    if !can_run("the_agent_lives_with_and_without_its_api_server") {
        return;
    }
    let mut node = Node::without_agent(&["10.244.1.0/24"]);
    let data = tempfile::tempdir().unwrap();
    let server = serve(&node, data.path(), "127.0.0.1:0").await;
    let inside = server.inside;
    let file = node.dir.path().join("kubeconfig");
    let text = kubeconfig(
        data.path(),
        &format!("https://{inside}"),
        "flatnet-agent:node1",
        "flatnet:agents",
    );
    std::fs::write(&file, text).unwrap();
    node.kubeconfig = Some(file);
    node.start_agent();
    assert!(!node.dir.path().join("net.d/10-flatnet.conflist").exists());

    // It becomes ready, and says so.
    make_node(&server.client, "node1", "10.244.1.0/24", "10.0.1.10").await;
    configure(&server.client, GOOD).await;
    until("the runtime's configuration is there", &node, || async {
        node.dir.path().join("net.d/10-flatnet.conflist").exists()
    })
    .await;
    until("the condition is written", &node, || async {
        condition(&server.client).await == Some(("False".to_owned(), "FlatnetIsUp".to_owned()))
    })
    .await;
    let api: Api<ApiNode> = Api::all(server.client.clone());
    until("the VXLAN end is published", &node, || async {
        let annotations = api.get("node1").await.unwrap().metadata.annotations;
        annotations.is_some_and(|all| all.contains_key("flannel.alpha.coreos.com/backend-data"))
    })
    .await;
    let annotations = api
        .get("node1")
        .await
        .unwrap()
        .metadata
        .annotations
        .unwrap();
    let data_of = &annotations["flannel.alpha.coreos.com/backend-data"];
    let mac = node.netlink().expect_link("fn-vxlan").unwrap().mac.unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(data_of).unwrap(),
        json!({"VNI": 1, "VtepMAC": mac.to_string()})
    );
    let first = Pod::new("first");
    node.add(&first);

    // A broken configuration is reported where it stands; the last good one holds.
    configure(&server.client, &format!("{GOOD}fabric: {{mode: hostgw}}\n")).await;
    let events: Api<Event> = Api::namespaced(server.client.clone(), "kube-system");
    until("an Event on the ConfigMap", &node, || async {
        let events = events.list(&Default::default()).await.unwrap();
        events.items.iter().any(|event| {
            event.involved_object.name.as_deref() == Some("flatnet")
                && event
                    .message
                    .as_deref()
                    .is_some_and(|message| message.contains(r#"did you mean "host-gw"?"#))
        })
    })
    .await;
    node.add(&Pod::new("second"));
    configure(&server.client, GOOD).await;

    // Without the API server, even over its own restart, pods are attached.
    server.running.stop().await;
    node.kill_agent();
    node.start_agent();
    let third = Pod::new("third");
    let ip = ip_of(&node.add(&third), 0);
    assert_eq!(ip.to_string(), "10.244.1.4");
    // But none that a policy could be about: nobody knows.
    let closed = Pod::new("closed");
    let refused = node.try_add_named(&closed);
    assert_eq!(refused.code(), 11, "{refused:?}");
    assert!(
        refused.msg().contains("policies are not known"),
        "{refused:?}"
    );
    let status = node.call("STATUS", "", "", &node.conf("1.1.0"));
    assert_eq!(status.code(), 50, "{status:?}");

    // And when the server is back, the agent is too.
    let server = serve(&node, data.path(), &inside.to_string()).await;
    make_node(&server.client, "node2", "10.244.2.0/24", "10.0.1.20").await;
    let route = || {
        node.netlink()
            .routes(RouteFilter::main())
            .unwrap()
            .iter()
            .any(|route| route.dst.to_string() == "10.244.2.0/24")
    };
    until("a route to the new node", &node, || async { route() }).await;
    until("pods of Kubernetes are attached again", &node, || async {
        node.call("STATUS", "", "", &node.conf("1.1.0")).ok
    })
    .await;
    node.add_named(&closed);
    // A node that is gone takes its route along.
    let api: Api<ApiNode> = Api::all(server.client.clone());
    api.delete("node2", &Default::default()).await.unwrap();
    until("no route to the node that is gone", &node, || async {
        !route()
    })
    .await;
    server.running.stop().await;
}
