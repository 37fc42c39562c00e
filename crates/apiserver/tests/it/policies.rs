//! NetworkPolicies and ClusterNetworkPolicies: what is taken, refused and shown.

use http::{Method, Request};
use kube::client::Body;
use serde_json::{Value, json};

use crate::server::{Server, accept};

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
const CLUSTER: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// The fields that are wrong, and why.
fn causes(status: &Value) -> Vec<String> {
    let causes = status["details"]["causes"].as_array().unwrap();
    let text = |cause: &Value, field: &str| cause[field].as_str().unwrap().to_owned();
    causes
        .iter()
        .map(|cause| format!("{}: {}", text(cause, "field"), text(cause, "message")))
        .collect()
}

#[tokio::test]
async fn a_policy_is_completed_shown_and_held_to_its_rules() {
    let server = Server::start().await;
    let policy = json!({"metadata": {"name": "web"}, "spec": {
        "podSelector": {"matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}]},
        "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}], "egress": []}});
    let (code, made) = server.post(POLICIES, &policy).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"]["policyTypes"], json!(["Ingress"]));
    assert_eq!(made["spec"]["ingress"][0]["ports"][0]["protocol"], "TCP");
    assert!(made["spec"].get("egress").is_none());
    let (_, table) = accept(&server.client, POLICIES, TABLE).await;
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[1], "app=web,tier in (a,b)");

    let bad = json!({"metadata": {"name": "bad"}, "spec": {
        "podSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]},
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/8"}}, {}],
            "ports": [{"port": "http", "endPort": 90}]}]}});
    let (code, refused) = server.post(POLICIES, &bad).await;
    assert_eq!(code, 422, "{refused}");
    assert_eq!(
        causes(&refused),
        [
            "spec.podSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric",
            "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
            "spec.ingress[0].from[1]: Required value: must specify a peer",
        ]
    );
}

#[tokio::test]
async fn a_range_in_an_unusual_form_is_warned_of() {
    let server = Server::start().await;
    let policy = json!({"metadata": {"name": "v6"}, "spec": {"podSelector": {},
        "egress": [{"to": [{"ipBlock": {"cidr": "FD00::/8"}}]}]}});
    let request = Request::builder()
        .method(Method::POST)
        .uri(POLICIES)
        .header("content-type", "application/json")
        .body(Body::from(policy.to_string().into_bytes()))
        .unwrap();
    let response = server.client.send(request).await.unwrap();
    assert_eq!(response.status(), 201);
    let warning = response.headers()["warning"].to_str().unwrap();
    assert_eq!(
        warning,
        "299 - \"spec.egress[0].to[0].ipBlock.cidr: IPv6 CIDR value \\\"FD00::/8\\\" should be in RFC 5952 canonical format (\\\"fd00::/8\\\")\""
    );
}

#[tokio::test]
async fn cluster_policies_are_there_from_the_start_and_held_to_their_rules() {
    let server = Server::start().await;
    let policy = |name: &str, egress: Value| {
        json!({"metadata": {"name": name}, "spec": {"tier": "Admin", "priority": 10,
            "subject": {"namespaces": {}}, "egress": [egress]}})
    };
    let networks = json!([{"networks": ["10.0.0.0/8"]}]);
    let good = policy("deny", json!({"action": "Deny", "to": networks}));
    let (code, made) = server.post(CLUSTER, &good).await;
    assert_eq!(code, 201, "{made}");
    let (_, table) = accept(&server.client, CLUSTER, TABLE).await;
    let columns = table["columnDefinitions"].as_array().unwrap();
    let names: Vec<&Value> = columns.iter().map(|column| &column["name"]).collect();
    assert_eq!(names, ["Name", "Tier", "Priority", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!((&cells[1], &cells[2]), (&json!("Admin"), &json!("10")));

    let range = json!([{"tcp": {"destinationPort": {"range": {"start": 9, "end": 9}}}},
        {"destinationNamedPort": "http"}]);
    let bad = policy(
        "bad",
        json!({"action": "Deny", "to": [{"networks": ["10.0.0.0"]}], "protocols": range}),
    );
    let (code, refused) = server.post(CLUSTER, &bad).await;
    assert_eq!(code, 422, "{refused}");
    assert_eq!(
        causes(&refused),
        [
            "spec.egress[0]: Invalid value: networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for networks/nodes/domainNames",
            "spec.egress[0].protocols[0].tcp.destinationPort.range: Invalid value: Start port must be less than End port",
            "spec.egress[0].to[0].networks[0]: Invalid value: \"10.0.0.0\": Invalid CIDR format provided",
        ]
    );
    let two = json!({"metadata": {"name": "two"}, "spec": {"tier": "Other", "priority": 1001,
        "subject": {"namespaces": {}, "pods": {"podSelector": {}}}}});
    let (code, refused) = server.post(CLUSTER, &two).await;
    assert_eq!(code, 422, "{refused}");
    let fields: Vec<String> = causes(&refused)
        .iter()
        .filter_map(|cause| Some(cause.split_once(": ")?.0.to_owned()))
        .collect();
    assert_eq!(
        fields,
        ["spec.priority", "spec.subject", "spec.tier", "<nil>"]
    );
}

#[tokio::test]
async fn agents_read_policies_and_write_none() {
    let server = Server::start().await;
    let agent = server
        .client_of("flatnet-agent:node1", Some("flatnet:agents"))
        .await;
    for path in [
        "/api/v1/pods",
        "/api/v1/namespaces",
        "/apis/networking.k8s.io/v1/networkpolicies",
        CLUSTER,
    ] {
        let (code, _) = accept(&agent, path, "application/json").await;
        assert_eq!(code, 200, "{path}");
    }
    let request = Request::builder()
        .method(Method::DELETE)
        .uri(format!("{CLUSTER}/deny"))
        .body(Body::empty())
        .unwrap();
    assert_eq!(agent.send(request).await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_definition_that_was_applied_stays_over_a_restart() {
    const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/clusternetworkpolicies.policy.networking.k8s.io";
    const CHANNEL: &str = "policy.networking.k8s.io/channel";
    let server = Server::start().await;
    let standard = json!({"metadata": {"annotations": {CHANNEL: "standard"}}});
    let merge = "application/merge-patch+json";
    let (code, said) = server.patch(DEFINITION, merge, &standard).await;
    assert_eq!(code, 200, "{said}");
    let server = server.again().await;
    let (_, found) = accept(&server.client, DEFINITION, "application/json").await;
    assert_eq!(found["metadata"]["annotations"][CHANNEL], "standard");
}
