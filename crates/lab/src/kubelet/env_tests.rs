use super::*;
use serde_json::{Value, json};

struct Case {
    pod: Pod,
    services: Vec<ServiceLink>,
    sources: Sources,
}

impl Case {
    fn new() -> Self {
        let service = |namespace: &str, name: &str, ip: Option<&str>| ServiceLink {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            cluster_ip: ip.map(|ip| ip.parse().unwrap()),
            ports: vec![
                (Some("https-web".to_owned()), 443, "TCP".to_owned()),
                (None, 53, "UDP".to_owned()),
            ],
        };
        Self {
            pod: serde_json::from_value(json!({
                "metadata": {"name": "web-1", "namespace": "shop", "uid": "u",
                    "labels": {"app": "web"}, "annotations": {"note": "a \"b\"\nc"}},
                "spec": {"nodeName": "node1", "serviceAccountName": "sa", "containers": []}}))
            .unwrap(),
            services: vec![
                service("default", "kubernetes", Some("10.96.0.1")),
                service("shop", "my-db", Some("10.96.0.20")),
                service("shop", "headless", None),
                service("other", "secretive", Some("10.96.0.30")),
            ],
            sources: Sources {
                config_maps: BTreeMap::from([
                    (
                        "cfg".to_owned(),
                        serde_json::from_value(json!({"data": {"K": "v", "bad=key": "x"}})).ok(),
                    ),
                    ("none".to_owned(), None),
                ]),
                secrets: BTreeMap::from([(
                    "sec".to_owned(),
                    serde_json::from_value(json!({"data": {"P": "cHc="}})).ok(),
                )]),
            },
        }
    }

    fn env(&self, container: Value) -> Result<BTreeMap<String, String>, String> {
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).unwrap();
        let allocatable = BTreeMap::from([("memory".to_owned(), "1Gi".to_owned())]);
        let context = Context {
            pod: &self.pod,
            pod_ips: &["10.244.1.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            host_ips: &["10.0.1.10".parse().unwrap()],
            services: &self.services,
            sources: &self.sources,
            hostname: "web-1",
            allocatable: &allocatable,
        };
        Ok(environment(&container, &context)?.into_iter().collect())
    }
}

#[test]
fn values_expand_what_came_before() {
    let env = Case::new()
        .env(json!({"env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(MY_DB_SERVICE_HOST)-$(LATER)-$$(A)-$x"},
            {"name": "LATER", "value": "z"},
            {"name": "A", "value": "$(A)2"}]}))
        .unwrap();
    assert_eq!(env["B"], "1-10.96.0.20-$(LATER)-$(A)-$x");
    assert_eq!(env["A"], "12");
    assert_eq!(env["HOSTNAME"], "web-1");
    assert!(!env.contains_key("PATH"), "the image's own");
}

#[test]
fn fields_of_the_pod() {
    let case = Case::new();
    for (path, want) in [
        ("metadata.name", "web-1"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.labels", "app=\"web\""),
        ("metadata.annotations", "note=\"a \\\"b\\\"\\nc\""),
        ("spec.nodeName", "node1"),
        ("spec.serviceAccountName", "sa"),
        ("status.hostIP", "10.0.1.10"),
        ("status.hostIPs", "10.0.1.10"),
        ("status.podIP", "10.244.1.5"),
        ("status.podIPs", "10.244.1.5,fd00::5"),
    ] {
        let env = case
            .env(json!({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}))
            .unwrap();
        assert_eq!(env["X"], want, "{path}");
    }
    let refused = case
        .env(json!({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}));
    assert_eq!(refused.unwrap_err(), "unsupported fieldPath: spec.x");
}

#[test]
fn resources_of_the_container() {
    let case = Case::new();
    for (resource, divisor, want) in [
        ("limits.cpu", "1", "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1m", "1500"),
        ("limits.memory", "1Mi", "1024"),
    ] {
        let env = case
            .env(
                json!({"resources": {"limits": {"cpu": "1500m"}}, "env": [{"name": "X", "valueFrom":
                {"resourceFieldRef": {"resource": resource, "divisor": divisor}}}]}),
            )
            .unwrap();
        assert_eq!(env["X"], want, "{resource} by {divisor}");
    }
}

#[test]
fn maps_and_secrets_by_key_and_whole() {
    let case = Case::new();
    let env = case
        .env(json!({
            "envFrom": [{"prefix": "C_", "configMapRef": {"name": "cfg"}}, {"secretRef": {"name": "sec"}},
                {"configMapRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "K"}}},
                {"name": "P2", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "P"}}},
                {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "Q", "optional": true}}}]}))
        .unwrap();
    assert_eq!((env["C_K"].as_str(), env["P"].as_str()), ("v", "pw"));
    assert_eq!((env["K"].as_str(), env["P2"].as_str()), ("v", "pw"));
    assert!(!env.contains_key("GONE") && !env.contains_key("C_bad=key"));
    for (var, want) in [
        (
            json!({"configMapKeyRef": {"name": "none", "key": "K"}}),
            "configmap \"none\" not found",
        ),
        (
            json!({"configMapKeyRef": {"name": "cfg", "key": "Q"}}),
            "couldn't find key Q in ConfigMap shop/cfg",
        ),
        (
            json!({"secretKeyRef": {"name": "sec", "key": "Q"}}),
            "couldn't find key Q in Secret shop/sec",
        ),
        (
            json!({"secretKeyRef": {"name": "gone", "key": "Q"}}),
            "secret \"gone\" not found",
        ),
    ] {
        let refused = case.env(json!({"env": [{"name": "X", "valueFrom": var}]}));
        assert_eq!(refused.unwrap_err(), want);
    }
}

#[test]
fn services_are_linked_as_kubernetes_does() {
    let mut case = Case::new();
    let env = case.env(json!({})).unwrap();
    for (name, want) in [
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
        ("MY_DB_SERVICE_HOST", "10.96.0.20"),
        ("MY_DB_SERVICE_PORT_HTTPS_WEB", "443"),
        ("MY_DB_PORT", "tcp://10.96.0.20:443"),
        ("MY_DB_PORT_443_TCP", "tcp://10.96.0.20:443"),
        ("MY_DB_PORT_443_TCP_ADDR", "10.96.0.20"),
        ("MY_DB_PORT_53_UDP_PROTO", "udp"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(want), "{name}");
    }
    assert!(
        !env.keys()
            .any(|name| name.starts_with("SECRETIVE") || name.starts_with("HEADLESS"))
    );
    case.pod.spec.as_mut().unwrap().enable_service_links = Some(false);
    let env = case.env(json!({})).unwrap();
    assert_eq!(env["KUBERNETES_SERVICE_HOST"], "10.96.0.1", "always there");
    assert!(!env.contains_key("MY_DB_SERVICE_HOST"));
    let own = case
        .env(json!({"env": [{"name": "KUBERNETES_SERVICE_HOST", "value": "mine"}]}))
        .unwrap();
    assert_eq!(own["KUBERNETES_SERVICE_HOST"], "mine");
}

#[test]
fn expansion_leaves_what_it_does_not_know() {
    let known = |name: &str| (name == "A").then(|| "1".to_owned());
    for (text, want) in [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(B)", "$(B)"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("a$b", "a$b"),
    ] {
        assert_eq!(expand(text, known), want, "{text}");
    }
}

#[test]
fn what_is_referred_to_is_known_before() {
    let container: Container = serde_json::from_value(json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "a"}}],
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}}]}))
    .unwrap();
    let (maps, secrets) = references(&container);
    assert!(maps.contains("a") && secrets.contains("b"));
}
