//! The roles and bindings every cluster has: Kubernetes' own names for people, and least
//! privilege for the identities of flatnet.

use objects::Object;
use serde_json::json;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL: &[&str] = &["*"];

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Object {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn paths(paths: &[&str]) -> Object {
    json!({"nonResourceURLs": paths, "verbs": ["get"]})
}

fn role(name: &str, rules: Vec<Object>) -> Object {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "rules": rules})
}

/// A role whose rules others join by a label.
fn joined(name: &str, rules: Vec<Object>, to: &str) -> Object {
    let mut role = role(name, rules);
    role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{to}")] =
        "true".into();
    role
}

/// A role that gathers the rules of others.
fn gathering(name: &str, labels: &[&str]) -> Object {
    let mut role = role(name, Vec::new());
    let selectors: Vec<Object> = labels
        .iter()
        .map(|l| json!({"matchLabels": {format!("rbac.authorization.k8s.io/aggregate-to-{l}"): "true"}}))
        .collect();
    if let Some(map) = role.as_object_mut() {
        // They are gathered, not written: a renewal at the start leaves them alone.
        map.remove("rules");
    }
    role["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
    role
}

fn binding(name: &str, role: &str, groups: &[&str]) -> Object {
    let subjects: Vec<Object> = groups
        .iter()
        .map(|g| json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": g}))
        .collect();
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": subjects})
}

/// Every role and binding.
pub fn all() -> Vec<Object> {
    let mut all = people();
    all.extend(machines());
    all.extend([
        binding("cluster-admin", "cluster-admin", &["system:masters"]),
        binding(
            "system:discovery",
            "system:discovery",
            &["system:authenticated"],
        ),
        binding(
            "system:basic-user",
            "system:basic-user",
            &["system:authenticated"],
        ),
        binding(
            "system:public-info-viewer",
            "system:public-info-viewer",
            &["system:authenticated", "system:unauthenticated"],
        ),
        binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            &["system:serviceaccounts"],
        ),
        binding("system:node", "system:node", &["system:nodes"]),
        binding("flatnet-agent", "flatnet-agent", &["flatnet:agents"]),
        binding(
            "flatnet-controller",
            "flatnet-controller",
            &["flatnet:controllers"],
        ),
    ]);
    all
}

/// What is allowed in one namespace only; the namespace comes first.
pub fn of_namespaces() -> Vec<Object> {
    let metadata = json!({"name": "flatnet-announce", "namespace": "kube-system"});
    // Leases say which node announces which address of a LoadBalancerPool.
    let leases = rule(
        &["coordination.k8s.io"],
        &["leases"],
        &["create", "get", "list", "patch", "update", "watch"],
    );
    let group = "rbac.authorization.k8s.io";
    vec![
        json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": metadata,
            "rules": [leases]}),
        json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "flatnet-announce"},
            "subjects": [{"kind": "Group", "apiGroup": group, "name": "flatnet:agents"}]}),
    ]
}

fn people() -> Vec<Object> {
    let workloads = [
        "daemonsets",
        "deployments",
        "deployments/scale",
        "replicasets",
        "replicasets/scale",
        "statefulsets",
        "statefulsets/scale",
    ];
    let mut seen_workloads = workloads.to_vec();
    seen_workloads.extend([
        "controllerrevisions",
        "daemonsets/status",
        "deployments/status",
        "replicasets/status",
        "statefulsets/status",
    ]);
    let network = ["ingresses", "networkpolicies"];
    let seen_core = [
        "bindings",
        "configmaps",
        "endpoints",
        "events",
        "limitranges",
        "namespaces",
        "namespaces/status",
        "pods",
        "pods/log",
        "pods/status",
        "resourcequotas",
        "resourcequotas/status",
        "serviceaccounts",
        "services",
        "services/status",
    ];
    vec![
        role(
            "cluster-admin",
            vec![
                rule(ALL, ALL, ALL),
                json!({"nonResourceURLs": ALL, "verbs": ALL}),
            ],
        ),
        role(
            "system:discovery",
            vec![paths(&[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ])],
        ),
        role(
            "system:public-info-viewer",
            vec![paths(&[
                "/healthz",
                "/livez",
                "/readyz",
                "/version",
                "/version/",
            ])],
        ),
        role(
            "system:basic-user",
            vec![
                rule(
                    &["authorization.k8s.io"],
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    &["create"],
                ),
                rule(
                    &["authentication.k8s.io"],
                    &["selfsubjectreviews"],
                    &["create"],
                ),
            ],
        ),
        role(
            "system:service-account-issuer-discovery",
            vec![paths(&[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ])],
        ),
        gathering("admin", &["admin", "edit", "view"]),
        gathering("edit", &["edit", "view"]),
        gathering("view", &["view"]),
        joined(
            "system:aggregate-to-view",
            vec![
                rule(&[""], &seen_core, READ),
                rule(&["discovery.k8s.io"], &["endpointslices"], READ),
                rule(&["apps"], &seen_workloads, READ),
                rule(
                    &["networking.k8s.io"],
                    &["ingresses", "ingresses/status", "networkpolicies"],
                    READ,
                ),
                rule(
                    &["policy"],
                    &["poddisruptionbudgets", "poddisruptionbudgets/status"],
                    READ,
                ),
            ],
            "view",
        ),
        joined(
            "system:aggregate-to-edit",
            vec![
                rule(
                    &[""],
                    &[
                        "pods/attach",
                        "pods/exec",
                        "pods/portforward",
                        "pods/proxy",
                        "secrets",
                        "services/proxy",
                    ],
                    READ,
                ),
                rule(&[""], &["serviceaccounts"], &["impersonate"]),
                rule(
                    &[""],
                    &[
                        "pods",
                        "pods/attach",
                        "pods/exec",
                        "pods/portforward",
                        "pods/proxy",
                        "configmaps",
                        "events",
                        "secrets",
                        "serviceaccounts",
                        "services",
                        "services/proxy",
                    ],
                    WRITE,
                ),
                rule(
                    &[""],
                    &["pods/eviction", "serviceaccounts/token"],
                    &["create"],
                ),
                rule(&["apps"], &workloads, WRITE),
                rule(&["networking.k8s.io"], &network, WRITE),
                rule(&["policy"], &["poddisruptionbudgets"], WRITE),
                rule(
                    &["coordination.k8s.io"],
                    &["leases"],
                    &[
                        "create",
                        "delete",
                        "deletecollection",
                        "get",
                        "list",
                        "patch",
                        "update",
                        "watch",
                    ],
                ),
            ],
            "edit",
        ),
        joined(
            "system:aggregate-to-admin",
            vec![
                rule(
                    &["authorization.k8s.io"],
                    &["localsubjectaccessreviews"],
                    &["create"],
                ),
                rule(
                    &["rbac.authorization.k8s.io"],
                    &["rolebindings", "roles"],
                    &[
                        "create",
                        "delete",
                        "deletecollection",
                        "get",
                        "list",
                        "patch",
                        "update",
                        "watch",
                    ],
                ),
            ],
            "admin",
        ),
    ]
}

fn machines() -> Vec<Object> {
    let everything = &[
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ];
    vec![
        role(
            "system:node",
            vec![
                rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
                rule(
                    &["authorization.k8s.io"],
                    &["localsubjectaccessreviews", "subjectaccessreviews"],
                    &["create"],
                ),
                rule(
                    &[""],
                    &[
                        "services",
                        "endpoints",
                        "configmaps",
                        "secrets",
                        "serviceaccounts",
                        "namespaces",
                    ],
                    READ,
                ),
                rule(
                    &[""],
                    &["nodes"],
                    &["create", "get", "list", "watch", "patch", "update"],
                ),
                rule(&[""], &["nodes/status"], &["get", "patch", "update"]),
                rule(
                    &["", "events.k8s.io"],
                    &["events"],
                    &["create", "patch", "update"],
                ),
                rule(
                    &[""],
                    &["pods"],
                    &["create", "delete", "get", "list", "watch"],
                ),
                rule(&[""], &["pods/status"], &["get", "patch", "update"]),
                rule(
                    &[""],
                    &["pods/eviction", "serviceaccounts/token"],
                    &["create"],
                ),
                rule(
                    &["coordination.k8s.io"],
                    &["leases"],
                    &["create", "delete", "get", "patch", "update"],
                ),
                rule(&["node.k8s.io"], &["runtimeclasses"], READ),
            ],
        ),
        role(
            "flatnet-agent",
            vec![
                rule(
                    &[""],
                    &[
                        "configmaps",
                        "endpoints",
                        "namespaces",
                        "nodes",
                        "pods",
                        "services",
                    ],
                    READ,
                ),
                rule(&[""], &["nodes"], &["patch", "update"]),
                rule(&[""], &["nodes/status"], &["get", "patch", "update"]),
                rule(
                    &["", "events.k8s.io"],
                    &["events"],
                    &["create", "patch", "update"],
                ),
                rule(&["discovery.k8s.io"], &["endpointslices"], READ),
                rule(&["flatnet.io"], &["loadbalancerpools"], READ),
                rule(
                    &["policy.networking.k8s.io"],
                    &["clusternetworkpolicies"],
                    READ,
                ),
                rule(
                    &["networking.k8s.io"],
                    &[
                        "ingresses",
                        "ingressclasses",
                        "networkpolicies",
                        "servicecidrs",
                    ],
                    READ,
                ),
            ],
        ),
        role(
            "flatnet-controller",
            vec![
                rule(
                    &[""],
                    &[
                        "configmaps",
                        "endpoints",
                        "events",
                        "nodes",
                        "pods",
                        "serviceaccounts",
                        "services",
                    ],
                    everything,
                ),
                rule(
                    &[""],
                    &["namespaces", "secrets", "limitranges", "resourcequotas"],
                    READ,
                ),
                rule(
                    &[""],
                    &["namespaces", "namespaces/finalize", "namespaces/status"],
                    &["delete", "patch", "update"],
                ),
                // Tokens of service accounts are filled in and go with their account.
                rule(&[""], &["secrets"], &["delete", "patch"]),
                rule(
                    &[""],
                    &[
                        "nodes/status",
                        "pods/status",
                        "services/status",
                        "resourcequotas/status",
                    ],
                    &["get", "patch", "update"],
                ),
                rule(
                    &[""],
                    &[
                        "pods/binding",
                        "bindings",
                        "pods/eviction",
                        "serviceaccounts/token",
                    ],
                    &["create"],
                ),
                rule(
                    &["apps"],
                    &[
                        "controllerrevisions",
                        "daemonsets",
                        "deployments",
                        "replicasets",
                        "statefulsets",
                    ],
                    everything,
                ),
                rule(
                    &["apps"],
                    &[
                        "daemonsets/status",
                        "daemonsets/finalizers",
                        "deployments/status",
                        "deployments/scale",
                        "deployments/finalizers",
                        "replicasets/status",
                        "replicasets/scale",
                        "replicasets/finalizers",
                        "statefulsets/status",
                        "statefulsets/scale",
                        "statefulsets/finalizers",
                    ],
                    &["get", "patch", "update"],
                ),
                rule(&["coordination.k8s.io"], &["leases"], everything),
                rule(&["discovery.k8s.io"], &["endpointslices"], everything),
                rule(&["events.k8s.io"], &["events"], everything),
                rule(
                    &["networking.k8s.io"],
                    &[
                        "ingresses",
                        "ingressclasses",
                        "ipaddresses",
                        "networkpolicies",
                        "servicecidrs",
                    ],
                    READ,
                ),
                rule(
                    &["networking.k8s.io"],
                    &["ingresses/status"],
                    &["get", "patch", "update"],
                ),
                rule(&["policy"], &["poddisruptionbudgets"], READ),
                rule(
                    &["policy"],
                    &["poddisruptionbudgets/status"],
                    &["get", "patch", "update"],
                ),
                rule(&["scheduling.k8s.io"], &["priorityclasses"], READ),
                rule(
                    &["apiextensions.k8s.io"],
                    &["customresourcedefinitions"],
                    READ,
                ),
                rule(&["flatnet.io"], &["loadbalancerpools"], READ),
                rule(
                    &["flatnet.io"],
                    &["loadbalancerpools/status"],
                    &["get", "patch", "update"],
                ),
            ],
        ),
    ]
}
