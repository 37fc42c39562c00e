//! What k8s-openapi's schemas leave out: list types, map types, merge keys and
//! patch strategies, by type and field. Lists not named here are atomic, and
//! strategic merge replaces them.

use super::{ListType, Strategy};

/// The list type of a field, in constant form.
#[derive(Clone, Copy)]
enum List {
    Plain,
    Atomic,
    Set,
    Map(&'static [&'static str]),
}
use List::{Atomic, Map, Plain, Set};

/// type, field, list type, patch merge key, patch strategy
#[rustfmt::skip]
const FIELDS: &[(&str, &str, List, Option<&str>, &str)] = &[
    ("apps.v1.DaemonSetStatus", "conditions", Map(&["type"]), Some("type"), "merge"),
    ("apps.v1.DeploymentSpec", "strategy", Plain, None, "retainKeys"),
    ("apps.v1.DeploymentStatus", "conditions", Map(&["type"]), Some("type"), "merge"),
    ("apps.v1.ReplicaSetStatus", "conditions", Map(&["type"]), Some("type"), "merge"),
    ("apps.v1.StatefulSetStatus", "conditions", Map(&["type"]), Some("type"), "merge"),
    ("core.v1.Container", "env", Map(&["name"]), Some("name"), "merge"),
    ("core.v1.Container", "ports", Map(&["containerPort", "protocol"]), Some("containerPort"), "merge"),
    ("core.v1.Container", "volumeDevices", Map(&["devicePath"]), Some("devicePath"), "merge"),
    ("core.v1.Container", "volumeMounts", Map(&["mountPath"]), Some("mountPath"), "merge"),
    ("core.v1.ContainerRestartRuleOnExitCodes", "values", Set, None, ""),
    ("core.v1.ContainerStatus", "allocatedResourcesStatus", Map(&["name"]), Some("name"), "merge"),
    ("core.v1.ContainerStatus", "volumeMounts", Map(&["mountPath"]), Some("mountPath"), "merge"),
    ("core.v1.EphemeralContainer", "env", Map(&["name"]), Some("name"), "merge"),
    ("core.v1.EphemeralContainer", "ports", Map(&["containerPort", "protocol"]), Some("containerPort"), "merge"),
    ("core.v1.EphemeralContainer", "volumeDevices", Map(&["devicePath"]), Some("devicePath"), "merge"),
    ("core.v1.EphemeralContainer", "volumeMounts", Map(&["mountPath"]), Some("mountPath"), "merge"),
    ("core.v1.NamespaceStatus", "conditions", Map(&["type"]), Some("type"), "merge"),
    ("core.v1.NodeAllocatableResourceClaimStatus", "containers", Set, None, ""),
    ("core.v1.NodeSpec", "podCIDRs", Set, None, "merge"),
    ("core.v1.NodeStatus", "addresses", Map(&["type"]), Some("type"), "merge"),
    ("core.v1.NodeStatus", "conditions", Map(&["type"]), Some("type"), "merge"),
    ("core.v1.PodSpec", "containers", Map(&["name"]), Some("name"), "merge"),
    ("core.v1.PodSpec", "ephemeralContainers", Map(&["name"]), Some("name"), "merge"),
    ("core.v1.PodSpec", "hostAliases", Map(&["ip"]), Some("ip"), "merge"),
    ("core.v1.PodSpec", "imagePullSecrets", Map(&["name"]), Some("name"), "merge"),
    ("core.v1.PodSpec", "initContainers", Map(&["name"]), Some("name"), "merge"),
    ("core.v1.PodSpec", "resourceClaims", Map(&["name"]), Some("name"), "merge,retainKeys"),
    ("core.v1.PodSpec", "schedulingGates", Map(&["name"]), Some("name"), "merge"),
    ("core.v1.PodSpec", "topologySpreadConstraints", Map(&["topologyKey", "whenUnsatisfiable"]), Some("topologyKey"), "merge"),
    ("core.v1.PodSpec", "volumes", Map(&["name"]), Some("name"), "merge,retainKeys"),
    ("core.v1.PodStatus", "conditions", Map(&["type"]), Some("type"), "merge"),
    ("core.v1.PodStatus", "hostIPs", Atomic, Some("ip"), "merge"),
    ("core.v1.PodStatus", "podIPs", Map(&["ip"]), Some("ip"), "merge"),
    ("core.v1.PodStatus", "resourceClaimStatuses", Map(&["name"]), Some("name"), "merge,retainKeys"),
    ("core.v1.ResourceRequirements", "claims", Map(&["name"]), None, ""),
    ("core.v1.ResourceStatus", "resources", Map(&["resourceID"]), None, ""),
    ("core.v1.ServiceAccount", "secrets", Map(&["name"]), Some("name"), "merge"),
    ("core.v1.ServiceSpec", "ports", Map(&["port", "protocol"]), Some("port"), "merge"),
    ("core.v1.ServiceStatus", "conditions", Map(&["type"]), Some("type"), "merge"),
    ("discovery.v1.Endpoint", "addresses", Set, None, ""),
    ("networking.v1.ServiceCIDRStatus", "conditions", Map(&["type"]), Some("type"), "merge"),
    ("policy.v1.PodDisruptionBudgetSpec", "selector", Plain, None, "replace"),
    ("policy.v1.PodDisruptionBudgetStatus", "conditions", Map(&["type"]), Some("type"), "merge"),
    ("apiextensions.v1.CustomResourceDefinitionStatus", "conditions", Map(&["type"]), None, ""),
    ("apiextensions.v1.JSONSchemaProps", "x-kubernetes-validations", Map(&["rule"]), Some("rule"), "merge"),
    ("meta.v1.ObjectMeta", "finalizers", Set, None, "merge"),
    ("meta.v1.ObjectMeta", "ownerReferences", Map(&["uid"]), Some("uid"), "merge"),
];

/// Structs that are replaced whole.
const ATOMIC_TYPES: &[&str] = &[
    "autoscaling.v1.CrossVersionObjectReference",
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.ScopeSelector",
    "core.v1.SecretKeySelector",
    "core.v1.SecretReference",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "networking.v1.ServiceBackendPort",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
    "meta.v1.LabelSelector",
    "meta.v1.OwnerReference",
];

/// Maps that are replaced whole.
const ATOMIC_MAPS: &[(&str, &str)] = &[
    ("core.v1.PodSpec", "nodeSelector"),
    ("core.v1.ServiceSpec", "selector"),
    ("node.v1.Scheduling", "nodeSelector"),
];

/// What a field adds to its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    /// None where the field is no list.
    pub list: Option<ListType>,
    pub merge_key: Option<&'static str>,
    pub strategy: Strategy,
    /// `x-kubernetes-patch-strategy` as written.
    pub words: &'static str,
}

/// The fact of a field of a type named in the short form, for example `core.v1.PodSpec`.
pub(crate) fn field_fact(name: &str, field: &str) -> Option<Fact> {
    let row = FIELDS.iter().find(|r| r.0 == name && r.1 == field)?;
    let list = match row.2 {
        Plain => None,
        Atomic => Some(ListType::Atomic),
        Set => Some(ListType::Set),
        Map(keys) => Some(ListType::Map(
            keys.iter().map(|k| (*k).to_owned()).collect(),
        )),
    };
    let has = |word: &str| row.4.split(',').any(|w| w == word);
    Some(Fact {
        list,
        merge_key: row.3,
        strategy: Strategy {
            merge: has("merge"),
            replace: has("replace"),
            retain_keys: has("retainKeys"),
        },
        words: row.4,
    })
}

/// True for structs that server-side apply replaces whole.
pub(crate) fn is_atomic_type(name: &str) -> bool {
    ATOMIC_TYPES.contains(&name)
}

/// True for maps that server-side apply replaces whole.
pub(crate) fn is_atomic_map(name: &str, field: &str) -> bool {
    ATOMIC_MAPS.contains(&(name, field))
}

/// The default of a field that is part of a list's key.
pub(crate) fn key_default(name: &str, field: &str) -> Option<&'static str> {
    match (name, field) {
        ("core.v1.ContainerPort" | "core.v1.ServicePort", "protocol") => Some("TCP"),
        _ => None,
    }
}

/// Structs that Go writes even when they are empty, by field:
/// whoever creates an object did not add these.
const ALWAYS: &[(&str, &[&str])] = &[
    ("acceptedNames", &["CustomResourceDefinitionStatus"]),
    ("conditions", &["Endpoint"]),
    ("daemonEndpoints", &["NodeStatus"]),
    ("deprecatedSource", &["Event"]),
    ("involvedObject", &["Event"]),
    ("kubeletEndpoint", &["NodeDaemonEndpoints"]),
    ("lastState", &["ContainerStatus"]),
    ("loadBalancer", &["IngressStatus", "ServiceStatus"]),
    ("names", &["CustomResourceDefinitionSpec"]),
    ("nodeInfo", &["NodeStatus"]),
    ("podAffinityTerm", &["WeightedPodAffinityTerm"]),
    ("podSelector", &["NetworkPolicySpec"]),
    ("port", &["IngressServiceBackend"]),
    ("preference", &["PreferredSchedulingTerm"]),
    ("regarding", &["Event"]),
    ("resources", &["Container", "EphemeralContainer"]),
    ("roleRef", &["ClusterRoleBinding", "RoleBinding"]),
    ("source", &["Event"]),
    (
        "spec",
        &[
            "CustomResourceDefinition",
            "DaemonSet",
            "Deployment",
            "IPAddress",
            "Ingress",
            "IngressClass",
            "Lease",
            "LimitRange",
            "Namespace",
            "NetworkPolicy",
            "Node",
            "Pod",
            "PodDisruptionBudget",
            "PodTemplateSpec",
            "ReplicaSet",
            "ResourceQuota",
            "Service",
            "ServiceCIDR",
            "StatefulSet",
        ],
    ),
    ("state", &["ContainerStatus"]),
    (
        "status",
        &[
            "CustomResourceDefinition",
            "DaemonSet",
            "Deployment",
            "Ingress",
            "Namespace",
            "Node",
            "Pod",
            "PodDisruptionBudget",
            "ReplicaSet",
            "ResourceQuota",
            "Service",
            "ServiceCIDR",
            "StatefulSet",
        ],
    ),
    ("strategy", &["DeploymentSpec"]),
    (
        "template",
        &[
            "DaemonSetSpec",
            "DeploymentSpec",
            "ReplicaSetSpec",
            "StatefulSetSpec",
        ],
    ),
    ("updateStrategy", &["DaemonSetSpec", "StatefulSetSpec"]),
];

/// True for a struct field that is never missing in what Go writes.
pub(crate) fn is_always_there(name: &str, field: &str) -> bool {
    ALWAYS
        .iter()
        .any(|(known, names)| *known == field && names.contains(&name))
}
