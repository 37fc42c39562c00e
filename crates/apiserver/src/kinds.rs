//! The table of kinds until the crate `objects` gives one.

use std::sync::Arc;

use objects::Kind;

const TABLE: &[(&str, &str, &str, &str, &str, bool, &str)] = &[
    (
        "",
        "v1",
        "Namespace",
        "namespaces",
        "ns",
        false,
        "status finalize",
    ),
    ("", "v1", "Node", "nodes", "no", false, "status proxy"),
    (
        "",
        "v1",
        "Pod",
        "pods",
        "po",
        true,
        "status binding eviction log exec attach portforward proxy",
    ),
    ("", "v1", "Service", "services", "svc", true, "status proxy"),
    ("", "v1", "Endpoints", "endpoints", "ep", true, ""),
    ("", "v1", "ConfigMap", "configmaps", "cm", true, ""),
    ("", "v1", "Secret", "secrets", "", true, ""),
    (
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        "sa",
        true,
        "token",
    ),
    ("", "v1", "Event", "events", "ev", true, ""),
    (
        "apps",
        "v1",
        "Deployment",
        "deployments",
        "deploy",
        true,
        "status scale",
    ),
    (
        "apps",
        "v1",
        "ReplicaSet",
        "replicasets",
        "rs",
        true,
        "status scale",
    ),
    (
        "apps",
        "v1",
        "StatefulSet",
        "statefulsets",
        "sts",
        true,
        "status scale",
    ),
    (
        "apps",
        "v1",
        "DaemonSet",
        "daemonsets",
        "ds",
        true,
        "status",
    ),
    (
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "",
        true,
        "",
    ),
    ("events.k8s.io", "v1", "Event", "events", "ev", true, ""),
    (
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        "netpol",
        true,
        "",
    ),
    (
        "networking.k8s.io",
        "v1",
        "Ingress",
        "ingresses",
        "ing",
        true,
        "status",
    ),
    (
        "networking.k8s.io",
        "v1",
        "IngressClass",
        "ingressclasses",
        "",
        false,
        "",
    ),
    (
        "networking.k8s.io",
        "v1",
        "IPAddress",
        "ipaddresses",
        "ip",
        false,
        "",
    ),
    (
        "networking.k8s.io",
        "v1",
        "ServiceCIDR",
        "servicecidrs",
        "",
        false,
        "status",
    ),
    ("coordination.k8s.io", "v1", "Lease", "leases", "", true, ""),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "Role",
        "roles",
        "",
        true,
        "",
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "RoleBinding",
        "rolebindings",
        "",
        true,
        "",
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRole",
        "clusterroles",
        "",
        false,
        "",
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        "",
        false,
        "",
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "crd",
        false,
        "status",
    ),
];

/// Every built-in kind.
pub fn builtin() -> Vec<Arc<Kind>> {
    let given = objects::kind::builtin();
    if !given.is_empty() {
        return given;
    }
    TABLE
        .iter()
        .map(
            |(group, version, kind, plural, short, namespaced, subresources)| {
                Arc::new(Kind {
                    group: (*group).to_owned(),
                    version: (*version).to_owned(),
                    kind: (*kind).to_owned(),
                    plural: (*plural).to_owned(),
                    singular: kind.to_lowercase(),
                    short_names: short.split_whitespace().map(str::to_owned).collect(),
                    categories: Vec::new(),
                    namespaced: *namespaced,
                    subresources: subresources.split_whitespace().map(str::to_owned).collect(),
                    schema: Arc::default(),
                    custom: None,
                })
            },
        )
        .collect()
}
