//! The kinds served: names, scope, subresources.

use std::sync::{Arc, LazyLock};

use crate::{Object, Schema, Status};

/// One served kind at one version.
#[derive(Clone, Debug)]
pub struct Kind {
    /// API group, empty for core.
    pub group: String,
    /// API version, for example `v1`.
    pub version: String,
    /// Kind, for example `Pod`.
    pub kind: String,
    /// Resource name in paths, for example `pods`.
    pub plural: String,
    /// Singular name, for example `pod`.
    pub singular: String,
    /// Short names, for example `po`.
    pub short_names: Vec<String>,
    /// Categories, for example `all`.
    pub categories: Vec<String>,
    /// True where objects live in a namespace.
    pub namespaced: bool,
    /// Verbs of the resource itself.
    pub verbs: &'static [&'static str],
    /// Names of the subresources served, for example `status`, `scale`, `log`.
    pub subresources: Vec<String>,
    /// The structural schema, with defaults, list types and merge keys.
    pub schema: Arc<Schema>,
    /// The CustomResourceDefinition version this came from, for kinds not built in.
    pub custom: Option<Arc<crate::crd::CustomVersion>>,
}

/// What a subresource reads and writes: its own kind and verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// API group of its kind, empty for core.
    pub group: &'static str,
    /// API version of its kind.
    pub version: &'static str,
    /// Its kind, for example `Scale`; empty where it is the resource's own.
    pub kind: &'static str,
    /// Its verbs.
    pub verbs: &'static [&'static str],
}

/// Verbs of a stored resource, in the order discovery lists them.
pub const ALL_VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const NO_COLLECTION: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];
const CREATE: &[&str] = &["create"];
const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `deployments.apps`, as messages name the resource.
    pub fn resource(&self) -> String {
        crate::status::qualified(&self.group, &self.plural)
    }

    /// The list's kind, for example `PodList`.
    pub fn list_kind(&self) -> String {
        if let Some(custom) = &self.custom
            && !custom.list_kind.is_empty()
        {
            return custom.list_kind.clone();
        }
        format!("{}List", self.kind)
    }

    /// True where objects are kept (reviews and bindings are only answered).
    pub fn stored(&self) -> bool {
        self.verbs.contains(&"get")
    }

    /// What the named subresource reads and writes.
    pub fn subresource(&self, name: &str) -> Option<Subresource> {
        if !self.subresources.iter().any(|s| s == name) {
            return None;
        }
        let (group, version, kind, verbs) = match name {
            "scale" => ("autoscaling", "v1", "Scale", GET_PATCH_UPDATE),
            "binding" => ("", "v1", "Binding", CREATE),
            "eviction" => ("policy", "v1", "Eviction", CREATE),
            "exec" => ("", "v1", "PodExecOptions", &["create", "get"][..]),
            "attach" => ("", "v1", "PodAttachOptions", &["create", "get"][..]),
            "portforward" => ("", "v1", "PodPortForwardOptions", &["create", "get"][..]),
            "token" => ("authentication.k8s.io", "v1", "TokenRequest", CREATE),
            "log" => ("", "v1", "", &["get"][..]),
            "finalize" => ("", "v1", "", &["update"][..]),
            "proxy" => {
                let options = match self.kind.as_str() {
                    "Node" => "NodeProxyOptions",
                    "Service" => "ServiceProxyOptions",
                    _ => "PodProxyOptions",
                };
                ("", "v1", options, PROXY)
            }
            _ => ("", "", "", GET_PATCH_UPDATE),
        };
        Some(Subresource {
            group,
            version,
            kind,
            verbs,
        })
    }

    /// The group and resource under which objects are stored: both Event kinds share one.
    pub fn storage_resource(&self) -> (&str, &str) {
        if self.group == "events.k8s.io" {
            ("", "events")
        } else {
            (&self.group, &self.plural)
        }
    }

    /// Rewrites an object of this kind into the form that is stored.
    pub fn to_storage(&self, object: &mut Object) {
        if self.group == "events.k8s.io" {
            crate::event::to_core(object);
        } else if let Some(custom) = &self.custom {
            object["apiVersion"] = custom.storage_api_version.clone().into();
        }
    }

    /// Rewrites a stored object into the form this kind and version serves.
    pub fn from_storage(&self, object: &mut Object) {
        if self.group == "events.k8s.io" {
            crate::event::from_core(object);
        } else if self.custom.is_some() {
            object["apiVersion"] = self.api_version().into();
        }
    }
}

/// group, version, kind, plural, namespaced, short names, `all`?, subresources
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    bool,
    &'static [&'static str],
    bool,
    &'static [&'static str],
);

const AUTHN: &str = "authentication.k8s.io";
const AUTHZ: &str = "authorization.k8s.io";
const NET: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const SCALED: &[&str] = &["scale", "status"];
const STATUS: &[&str] = &["status"];
const POD: &[&str] = &[
    "attach",
    "binding",
    "eviction",
    "exec",
    "log",
    "portforward",
    "proxy",
    "status",
];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("", "v1", "Binding", "bindings", true, &[], false, &[]),
    ("", "v1", "ConfigMap", "configmaps", true, &["cm"], false, &[]),
    ("", "v1", "Endpoints", "endpoints", true, &["ep"], false, &[]),
    ("", "v1", "Event", "events", true, &["ev"], false, &[]),
    ("", "v1", "LimitRange", "limitranges", true, &["limits"], false, &[]),
    ("", "v1", "Namespace", "namespaces", false, &["ns"], false, &["finalize", "status"]),
    ("", "v1", "Node", "nodes", false, &["no"], false, &["proxy", "status"]),
    ("", "v1", "Pod", "pods", true, &["po"], true, POD),
    ("", "v1", "ResourceQuota", "resourcequotas", true, &["quota"], false, STATUS),
    ("", "v1", "Secret", "secrets", true, &[], false, &[]),
    ("", "v1", "Service", "services", true, &["svc"], true, &["proxy", "status"]),
    ("", "v1", "ServiceAccount", "serviceaccounts", true, &["sa"], false, &["token"]),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false, &["crd", "crds"], false, STATUS),
    ("apps", "v1", "ControllerRevision", "controllerrevisions", true, &[], false, &[]),
    ("apps", "v1", "DaemonSet", "daemonsets", true, &["ds"], true, STATUS),
    ("apps", "v1", "Deployment", "deployments", true, &["deploy"], true, SCALED),
    ("apps", "v1", "ReplicaSet", "replicasets", true, &["rs"], true, SCALED),
    ("apps", "v1", "StatefulSet", "statefulsets", true, &["sts"], true, SCALED),
    (AUTHN, "v1", "SelfSubjectReview", "selfsubjectreviews", false, &[], false, &[]),
    (AUTHN, "v1", "TokenReview", "tokenreviews", false, &[], false, &[]),
    (AUTHZ, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", true, &[], false, &[]),
    (AUTHZ, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", false, &[], false, &[]),
    (AUTHZ, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", false, &[], false, &[]),
    (AUTHZ, "v1", "SubjectAccessReview", "subjectaccessreviews", false, &[], false, &[]),
    ("coordination.k8s.io", "v1", "Lease", "leases", true, &[], false, &[]),
    ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true, &[], false, &[]),
    ("events.k8s.io", "v1", "Event", "events", true, &["ev"], false, &[]),
    (NET, "v1", "IPAddress", "ipaddresses", false, &["ip"], false, &[]),
    (NET, "v1", "Ingress", "ingresses", true, &["ing"], false, STATUS),
    (NET, "v1", "IngressClass", "ingressclasses", false, &[], false, &[]),
    (NET, "v1", "NetworkPolicy", "networkpolicies", true, &["netpol"], false, &[]),
    (NET, "v1", "ServiceCIDR", "servicecidrs", false, &[], false, STATUS),
    ("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", false, &[], false, &[]),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true, &["pdb"], false, STATUS),
    (RBAC, "v1", "ClusterRole", "clusterroles", false, &[], false, &[]),
    (RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", false, &[], false, &[]),
    (RBAC, "v1", "Role", "roles", true, &[], false, &[]),
    (RBAC, "v1", "RoleBinding", "rolebindings", true, &[], false, &[]),
    ("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", false, &["pc"], false, &[]),
];

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|s| (*s).to_owned()).collect()
}

fn from_row(row: &Row) -> Kind {
    let (group, version, kind, plural, namespaced, short, all, subresources) = *row;
    let verbs = match kind {
        "Binding" => CREATE,
        _ if group == AUTHN || group == AUTHZ => CREATE,
        "Namespace" => NO_COLLECTION,
        _ => ALL_VERBS,
    };
    let mut categories = Vec::new();
    if all {
        categories.push("all".to_owned());
    }
    if kind == "CustomResourceDefinition" {
        categories.push("api-extensions".to_owned());
    }
    Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        short_names: strings(short),
        categories,
        namespaced,
        verbs,
        subresources: strings(subresources),
        schema: Arc::new(Schema::builtin(group, version, kind)),
        custom: None,
    }
}

static BUILTIN: LazyLock<Vec<Arc<Kind>>> =
    LazyLock::new(|| ROWS.iter().map(|row| Arc::new(from_row(row))).collect());

/// Every built-in kind. Built once; schemas are shared.
pub fn builtin() -> Vec<Arc<Kind>> {
    BUILTIN.clone()
}

/// Fills defaults, as the API server does between decoding and admission.
pub fn default_object(kind: &Kind, object: &mut Object) {
    crate::defaults::fill(kind, object);
}

/// Checks a new object; an error is the 422 Status with its causes.
pub fn validate_create(kind: &Kind, object: &Object) -> Result<(), Status> {
    crate::validation::create(kind, object)
}

/// Checks a replacement against what is stored (immutable fields included).
pub fn validate_update(kind: &Kind, new: &Object, old: &Object) -> Result<(), Status> {
    crate::validation::update(kind, new, old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_complete() {
        let kinds = builtin();
        let mut seen = std::collections::BTreeSet::new();
        for kind in &kinds {
            assert!(seen.insert((kind.group.clone(), kind.plural.clone())));
            for name in &kind.subresources {
                assert!(kind.subresource(name).is_some(), "{name}");
            }
        }
        let pod = kinds.iter().find(|k| k.kind == "Pod").unwrap();
        assert_eq!(pod.subresource("exec").unwrap().kind, "PodExecOptions");
        assert!(pod.subresource("scale").is_none());
        assert_eq!(pod.list_kind(), "PodList");
    }
}
