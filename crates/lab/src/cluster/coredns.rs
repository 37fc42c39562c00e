//! What every cluster has for names: the objects that `kubeadm` makes for CoreDNS. They are
//! made where they are missing; what somebody changed in them stays.

use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::PostParams;
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource};
use model::Config;
use serde_json::{Value, json};

use super::error::{Error, Result};

/// Their namespace.
pub const NAMESPACE: &str = "kube-system";
/// Name of the Deployment, of its ServiceAccount and of the ConfigMap with the Corefile.
pub const NAME: &str = "coredns";
/// Key of the ConfigMap, and name of the file in the pods.
pub const KEY: &str = "Corefile";
/// Name of the Service, and the label by which people find the pods.
pub const SERVICE: &str = "kube-dns";
/// The built-in image of that name runs `flatnet dns`.
const IMAGE: &str = "registry.k8s.io/coredns/coredns:v1.13.1";
const ROLE: &str = "system:coredns";

/// An object to make, and where.
struct Wanted {
    resource: ApiResource,
    namespaced: bool,
    object: Value,
}

fn wanted<K: Resource<DynamicType = ()>>(namespaced: bool, object: Value) -> Wanted {
    Wanted {
        resource: ApiResource::erase::<K>(&()),
        namespaced,
        object,
    }
}

/// Makes what the pods need before they start, where it is missing.
pub async fn prepare(client: &Client, config: &Config) -> Result<()> {
    let all = [
        wanted::<ConfigMap>(true, configuration(config)),
        wanted::<Service>(true, service(config)),
        wanted::<ServiceAccount>(true, json!({"metadata": {"name": NAME}})),
        wanted::<ClusterRole>(false, role()),
        wanted::<ClusterRoleBinding>(false, binding()),
    ];
    // Side by side, so that one sync of the API server's disk serves many.
    try_join_all(all.iter().map(|wanted| make(client, wanted))).await?;
    Ok(())
}

/// Makes the Deployment where it is missing. Nodes are there by then, so that its pods come to
/// lie on different ones.
pub async fn deploy(client: &Client) -> Result<()> {
    make(client, &wanted::<Deployment>(true, deployment())).await
}

async fn make(client: &Client, wanted: &Wanted) -> Result<()> {
    let kind = &wanted.resource.kind;
    let name = wanted.object["metadata"]["name"]
        .as_str()
        .unwrap_or_default();
    let what = || format!("{kind} {name}");
    let mut object: DynamicObject =
        serde_json::from_value(wanted.object.clone()).map_err(|error| Error::api(what(), error))?;
    object.types = Some(kube::core::TypeMeta {
        api_version: wanted.resource.api_version.clone(),
        kind: kind.clone(),
    });
    let api: Api<DynamicObject> = if wanted.namespaced {
        Api::namespaced_with(client.clone(), NAMESPACE, &wanted.resource)
    } else {
        Api::all_with(client.clone(), &wanted.resource)
    };
    let params = PostParams {
        field_manager: Some("flatnet".into()),
        ..PostParams::default()
    };
    match api.create(&params, &object).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(Error::api(what(), api::error::cause(&error))),
        Ok(_) => Ok(()),
    }
}

/// The Corefile that clusters start with.
fn corefile(domain: &str) -> String {
    format!(
        "\
.:53 {{
    errors
    health {{
        lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    prometheus :9153
    forward . /etc/resolv.conf {{
        max_concurrent 1000
    }}
    cache 30
    loop
    reload
    loadbalance
}}
"
    )
}

fn configuration(config: &Config) -> Value {
    json!({"metadata": {"name": NAME}, "data": {KEY: corefile(&config.cluster_domain)}})
}

fn service(config: &Config) -> Value {
    let addresses: Vec<String> = config.cluster_dns.iter().map(ToString::to_string).collect();
    let policy = if addresses.len() > 1 {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    let port = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol, "targetPort": port});
    json!({
        "metadata": {
            "name": SERVICE,
            "labels": {
                "k8s-app": SERVICE,
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
        },
        "spec": {
            "clusterIP": addresses.first(),
            "clusterIPs": addresses,
            "ipFamilyPolicy": policy,
            "selector": {"k8s-app": SERVICE},
            "ports": [
                port("dns", 53, "UDP"),
                port("dns-tcp", 53, "TCP"),
                port("metrics", 9153, "TCP"),
            ],
        },
    })
}

/// What a DNS server must see, and nothing else.
fn role() -> Value {
    json!({
        "metadata": {"name": ROLE},
        "rules": [
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"],
                "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
                "verbs": ["list", "watch"]},
        ],
    })
}

fn binding() -> Value {
    json!({
        "metadata": {"name": ROLE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
    })
}

fn deployment() -> Value {
    let labels = json!({"k8s-app": SERVICE});
    json!({
        "metadata": {"name": NAME, "labels": labels},
        "spec": {
            "replicas": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod(&labels)},
        },
    })
}

fn pod(labels: &Value) -> Value {
    json!({
        "priorityClassName": "system-cluster-critical",
        "serviceAccountName": NAME,
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "labelSelector": {"matchLabels": labels},
                "topologyKey": "kubernetes.io/hostname",
            },
        }]}},
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
        ],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        // Its own names come from the node's resolver, not from itself.
        "dnsPolicy": "Default",
        "containers": [container()],
        "volumes": [{
            "name": "config-volume",
            "configMap": {"name": NAME, "items": [{"key": KEY, "path": KEY}]},
        }],
    })
}

fn container() -> Value {
    let port = |name: &str, port: u16, protocol: &str| json!({"name": name, "containerPort": port, "protocol": protocol});
    json!({
        "name": NAME,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", format!("/etc/coredns/{KEY}")],
        "resources": {
            "limits": {"memory": "170Mi"},
            "requests": {"cpu": "100m", "memory": "70Mi"},
        },
        "volumeMounts": [
            {"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true},
        ],
        "ports": [
            port("dns", 53, "UDP"),
            port("dns-tcp", 53, "TCP"),
            port("metrics", 9153, "TCP"),
            port("liveness-probe", 8080, "TCP"),
            port("readiness-probe", 8181, "TCP"),
        ],
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "liveness-probe"},
            "initialDelaySeconds": 60,
            "timeoutSeconds": 5,
            "failureThreshold": 5,
        },
        // Each second: it answers within one of its start, and is not asked before its time.
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "readiness-probe"},
            "periodSeconds": 1,
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::spec::Request;

    fn config(dual_stack: bool) -> Config {
        let request = Request {
            dual_stack,
            ..Request::default()
        };
        request.create("t", 6443).unwrap().config()
    }

    #[test]
    fn the_service_has_the_address_that_pods_are_told() {
        let one = service(&config(false));
        assert_eq!(one["spec"]["clusterIPs"], json!(["10.96.0.10"]));
        let both = service(&config(true));
        assert_eq!(
            both["spec"]["clusterIPs"],
            json!(["10.96.0.10", "fd00:10:96::a"])
        );
        assert_eq!(both["spec"]["ipFamilyPolicy"], "RequireDualStack");
    }

    #[test]
    fn the_corefile_is_about_the_clusters_domain() {
        let map = configuration(&Config {
            cluster_domain: "corp.example".into(),
            ..config(false)
        });
        let text = map["data"][KEY].as_str().unwrap();
        assert!(
            text.contains("    kubernetes corp.example in-addr.arpa ip6.arpa {\n"),
            "{text}"
        );
    }
}
