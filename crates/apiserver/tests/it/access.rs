//! Who may do what: 401, 403, roles, tokens and reviews.

use serde_json::{Value, json};

use crate::server::{Server, accept, client_from};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A kubeconfig that shows a token instead of a certificate.
fn with_token(server: &Server, token: Option<&str>) -> String {
    let mut config: Value = serde_json::from_str(&server.kubeconfig("nobody", None)).unwrap();
    config["users"][0]["user"] = match token {
        Some(token) => json!({"token": token}),
        None => json!({}),
    };
    config.to_string()
}

async fn get(client: &kube::Client, path: &str) -> (u16, Value) {
    accept(client, path, "application/json").await
}

#[tokio::test]
async fn anyone_else_is_401_but_may_ask_for_health() {
    let server = Server::start().await;
    let client = client_from(&with_token(&server, None)).await;
    let (code, answer) = get(&client, "/api/v1/pods").await;
    assert_eq!((code, &answer["reason"]), (401, &json!("Unauthorized")));
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(get(&client, path).await.0, 200, "{path}");
    }
    let client = client_from(&with_token(&server, Some("e30.e30.e30"))).await;
    assert_eq!(get(&client, "/api/v1/pods").await.0, 401);
    assert_eq!(get(&client, "/metrics").await.0, 401);
}

#[tokio::test]
async fn a_user_without_a_role_reads_the_sentence_of_kubernetes() {
    let server = Server::start().await;
    let client = server.client_of("bob", Some("people")).await;
    let (code, answer) = get(&client, "/api/v1/namespaces/default/pods").await;
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        "pods is forbidden: User \"bob\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let (_, answer) = get(&client, "/apis/apps/v1/deployments").await;
    assert_eq!(
        answer["message"],
        "deployments.apps is forbidden: User \"bob\" cannot list resource \"deployments\" in API group \"apps\" at the cluster scope"
    );
    let (code, answer) = get(&client, "/metrics").await;
    assert_eq!(
        (code, &answer["message"]),
        (
            403,
            &json!("forbidden: User \"bob\" cannot get path \"/metrics\"")
        )
    );
    assert_eq!(
        get(&client, "/apis").await.0,
        200,
        "discovery is for everyone known"
    );
}

#[tokio::test]
async fn a_binding_gives_a_role_in_its_namespace_only() {
    let server = Server::start().await;
    let binding = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"}});
    let (code, made) = server
        .post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding)
        .await;
    assert_eq!(code, 201, "{made}");
    let client = server.client_of("bob", None).await;
    assert_eq!(get(&client, "/api/v1/namespaces/default/pods").await.0, 200);
    assert_eq!(
        get(&client, "/api/v1/namespaces/default/secrets").await.0,
        403,
        "view shows no secrets"
    );
    assert_eq!(
        get(&client, "/api/v1/namespaces/kube-system/pods").await.0,
        403
    );
    let (_, review) = crate::server::send(
        &client, http::Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "application/json",
        &json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}}).to_string(),
    ).await;
    assert_eq!(review["status"]["allowed"], true, "{review}");
    server
        .delete(
            &format!("{RBAC}/namespaces/default/rolebindings/b"),
            &json!({}),
        )
        .await;
    assert_eq!(get(&client, "/api/v1/namespaces/default/pods").await.0, 403);
}

#[tokio::test]
async fn nobody_gives_away_more_than_they_have() {
    let server = Server::start().await;
    let binding = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "bob"}],
        "roleRef": {"kind": "ClusterRole", "name": "admin", "apiGroup": "rbac.authorization.k8s.io"}});
    server
        .post(&format!("{RBAC}/namespaces/default/rolebindings"), &binding)
        .await;
    let client = server.client_of("bob", None).await;
    let role = |resource: &str| json!({"metadata": {"name": resource}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]});
    let path = format!("{RBAC}/namespaces/default/roles");
    let post = |body: Value| {
        let (client, path) = (client.clone(), path.clone());
        async move {
            crate::server::send(
                &client,
                http::Method::POST,
                &path,
                "application/json",
                &body.to_string(),
            )
            .await
        }
    };
    assert_eq!(post(role("pods")).await.0, 201);
    let (code, refused) = post(role("nodes")).await;
    assert_eq!(code, 403);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("attempting to grant RBAC permissions not currently held")
    );
}

#[tokio::test]
async fn a_service_accounts_token_authenticates_until_its_pod_is_gone() {
    let server = Server::start().await;
    let (code, pod) = server
        .post(
            "/api/v1/namespaces/default/pods",
            &json!({"metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]}}),
        )
        .await;
    assert_eq!(code, 201, "{pod}");
    let request = json!({"spec": {"audiences": [], "expirationSeconds": 3600, "boundObjectRef":
        {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]}}});
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let (code, made) = server.post(path, &request).await;
    assert_eq!(code, 201, "{made}");
    let token = made["status"]["token"].as_str().unwrap();
    let client = client_from(&with_token(&server, Some(token))).await;
    let (code, answer) = get(&client, "/api/v1/namespaces/default/pods").await;
    assert_eq!(code, 403);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("system:serviceaccount:default:default"),
        "{answer}"
    );
    let (_, review) = server
        .post(
            "/apis/authentication.k8s.io/v1/tokenreviews",
            &json!({"spec": {"token": token}}),
        )
        .await;
    assert_eq!(review["status"]["authenticated"], true);
    assert_eq!(
        review["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["p"])
    );
    let (_, other) = server
        .post(
            "/apis/authentication.k8s.io/v1/tokenreviews",
            &json!({"spec": {"token": token, "audiences": ["vault"]}}),
        )
        .await;
    assert!(other["status"]["authenticated"].is_null());
    server
        .delete("/api/v1/namespaces/default/pods/p", &json!({}))
        .await;
    assert_eq!(get(&client, "/api/v1/namespaces/default/pods").await.0, 401);
    let (code, _) = server
        .post(path, &json!({"spec": {"expirationSeconds": 10}}))
        .await;
    assert_eq!(code, 422);
}

/// A Secret that asks for a token of `account`.
fn token_secret(name: &str, account: &str) -> serde_json::Value {
    json!({"metadata": {"name": name, "annotations":
            {"kubernetes.io/service-account.name": account}},
        "type": "kubernetes.io/service-account-token"})
}

#[tokio::test]
async fn a_secret_of_a_service_account_holds_its_token_while_both_are_there() {
    let server = Server::start().await;
    let (accounts, secrets) = (
        "/api/v1/namespaces/default/serviceaccounts",
        "/api/v1/namespaces/default/secrets",
    );
    let (_, account) = server
        .post(accounts, &json!({"metadata": {"name": "robot"}}))
        .await;
    let (code, made) = server.post(secrets, &token_secret("one", "robot")).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/service-account.uid"],
        account["metadata"]["uid"]
    );
    let text = |secret: &serde_json::Value, field: &str| {
        let data = secret["data"][field].as_str().unwrap();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data);
        String::from_utf8(bytes.unwrap()).unwrap()
    };
    assert_eq!(text(&made, "namespace"), "default");
    assert!(text(&made, "ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    let client = client_from(&with_token(&server, Some(&text(&made, "token")))).await;
    let (code, answer) = get(&client, secrets).await;
    assert_eq!(code, 403);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("system:serviceaccount:default:robot"),
        "{message}"
    );
    // Written again without its data it is filled again.
    let (code, _) = server
        .put(&format!("{secrets}/one"), &token_secret("one", "robot"))
        .await;
    assert_eq!(code, 200);
    let (_, again) = server.get(&format!("{secrets}/one")).await;
    assert!(!text(&again, "token").is_empty());
    server.delete(&format!("{secrets}/one"), &json!({})).await;
    assert_eq!(get(&client, secrets).await.0, 401);
    // Neither an account that is not there nor another one of its name gives a token.
    let (_, early) = server.post(secrets, &token_secret("early", "nobody")).await;
    assert!(early["data"].is_null(), "{early}");
    let mut other = token_secret("other", "robot");
    other["metadata"]["annotations"]["kubernetes.io/service-account.uid"] = json!("another");
    let (_, other) = server.post(secrets, &other).await;
    assert!(other["data"].is_null(), "{other}");
}

#[tokio::test]
async fn the_identities_of_flatnet_have_what_they_need_and_no_more() {
    let server = Server::start().await;
    let kubelet = server
        .client_of("system:node:node1", Some("system:nodes"))
        .await;
    let agent = server
        .client_of("flatnet-agent:node1", Some("flatnet:agents"))
        .await;
    let controller = server
        .client_of("flatnet-controller", Some("flatnet:controllers"))
        .await;
    for (client, path, code) in [
        (&kubelet, "/api/v1/pods", 200),
        (&kubelet, "/api/v1/namespaces/default/secrets", 403),
        (&kubelet, "/apis/apps/v1/deployments", 403),
        (&agent, "/api/v1/nodes", 200),
        (&agent, "/apis/discovery.k8s.io/v1/endpointslices", 200),
        (&agent, "/api/v1/namespaces/default/secrets", 403),
        (&controller, "/apis/apps/v1/deployments", 200),
        (
            &controller,
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            403,
        ),
    ] {
        assert_eq!(get(client, path).await.0, code, "{path}");
    }
}

#[tokio::test]
async fn the_keys_of_tokens_are_published() {
    let server = Server::start().await;
    let (_, keys) = server.get("/openid/v1/jwks").await;
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    let (_, document) = server.get("/.well-known/openid-configuration").await;
    assert_eq!(
        document["issuer"],
        "https://kubernetes.default.svc.cluster.local"
    );
}

#[tokio::test]
async fn a_node_touches_only_what_is_its_own() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    for (name, node) in [("mine", "node1"), ("other", "node2")] {
        server
            .post("/api/v1/nodes", &json!({"metadata": {"name": node}}))
            .await;
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "nginx", "envFrom": [{"secretRef": {"name": name}}]}]});
        let (code, made) = server
            .post(pods, &json!({"metadata": {"name": name}, "spec": spec}))
            .await;
        assert_eq!(code, 201, "{made}");
        server
            .post(
                "/api/v1/namespaces/default/secrets",
                &json!({"metadata": {"name": name}}),
            )
            .await;
    }
    let kubelet = server
        .client_of("system:node:node1", Some("system:nodes"))
        .await;
    let agent = server
        .client_of("flatnet-agent:node1", Some("flatnet:agents"))
        .await;
    let patch = |client: &kube::Client, path: String| {
        let client = client.clone();
        async move {
            let body = json!({"metadata": {"annotations": {"a": "b"}}}).to_string();
            crate::server::send(
                &client,
                http::Method::PATCH,
                &path,
                "application/merge-patch+json",
                &body,
            )
            .await
        }
    };
    assert_eq!(
        get(&kubelet, "/api/v1/namespaces/default/secrets/mine")
            .await
            .0,
        200
    );
    let (code, refused) = get(&kubelet, "/api/v1/namespaces/default/secrets/other").await;
    assert_eq!(code, 403);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .ends_with("no relationship found between node 'node1' and this object")
    );
    assert_eq!(patch(&kubelet, format!("{pods}/mine/status")).await.0, 200);
    assert_eq!(patch(&kubelet, format!("{pods}/other/status")).await.0, 403);
    assert_eq!(
        patch(&kubelet, "/api/v1/nodes/node1/status".into()).await.0,
        200
    );
    let (code, refused) = patch(&kubelet, "/api/v1/nodes/node2/status".into()).await;
    assert_eq!(
        (code, &refused["message"]),
        (
            403,
            &json!(
                "nodes \"node2\" is forbidden: node \"node1\" is not allowed to modify node \"node2\""
            )
        )
    );
    assert_eq!(patch(&agent, "/api/v1/nodes/node1".into()).await.0, 200);
    assert_eq!(patch(&agent, "/api/v1/nodes/node2".into()).await.0, 403);
}

#[tokio::test]
async fn a_role_shows_what_it_gathered() {
    let server = Server::start().await;
    let role = json!({"metadata": {"name": "widgets", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"]}]});
    assert_eq!(
        server.post(&format!("{RBAC}/clusterroles"), &role).await.0,
        201
    );
    for name in ["view", "edit", "admin"] {
        let gathered = |_: u16, value: &Value| {
            value["rules"]
                .as_array()
                .is_some_and(|r| r.contains(&role["rules"][0]))
        };
        server
            .until(&format!("{RBAC}/clusterroles/{name}"), gathered)
            .await;
    }
}
