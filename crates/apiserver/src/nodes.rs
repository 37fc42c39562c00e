//! What a node's own identities may touch: their node, and what its pods use.
//!
//! Roles cannot say "your own": this is what Kubernetes' node authorizer and its
//! NodeRestriction admission add to them.

use objects::{Object, Status};

use crate::auth::User;
use crate::context::Ctx;
use crate::rbac::{self, Attributes};
use crate::request::Query;

/// The node an identity belongs to.
fn node_of(user: &User) -> Option<(&str, bool)> {
    let of = |group: &str, prefix: &str| {
        user.groups
            .iter()
            .any(|g| g == group)
            .then(|| user.name.strip_prefix(prefix))
            .flatten()
    };
    of("system:nodes", "system:node:")
        .map(|node| (node, true))
        .or_else(|| of("flatnet:agents", "flatnet-agent:").map(|node| (node, false)))
}

/// Refuses what belongs to other nodes.
pub fn check(ctx: &Ctx, user: &User, wanted: &Attributes, query: &Query) -> Result<(), Status> {
    let Some((node, kubelet)) = node_of(user) else {
        return Ok(());
    };
    if user.is_master() {
        return Ok(());
    }
    let changes = matches!(
        wanted.verb.as_str(),
        "create" | "update" | "patch" | "delete"
    );
    let refused = |cause: &str| {
        Err(Status::forbidden(
            &wanted.group,
            &wanted.resource,
            &wanted.name,
            cause,
        ))
    };
    match (wanted.group.as_str(), wanted.resource.as_str()) {
        ("", "nodes") if changes && !wanted.name.is_empty() && wanted.name != node => {
            refused(&format!(
                "node {node:?} is not allowed to modify node {:?}",
                wanted.name
            ))
        }
        _ if !kubelet => Ok(()),
        ("", "pods") if changes && !wanted.name.is_empty() => {
            let pod = ctx
                .store
                .get(&format!("/pods/{}/{}", wanted.namespace, wanted.name));
            // A pod that is not there is the business of the verb.
            if pod.is_none_or(|pod| pod.slim()["spec"]["nodeName"] == node) {
                return Ok(());
            }
            refused(&format!(
                "node {node:?} can only {} pods with spec.nodeName set to itself",
                wanted.verb
            ))
        }
        ("coordination.k8s.io", "leases") if !wanted.name.is_empty() && wanted.name != node => {
            refused("can only access node lease with the same name as the requesting node")
        }
        ("", "secrets" | "configmaps") | ("", "serviceaccounts")
            if !related(ctx, node, wanted, query) =>
        {
            let mut status = rbac::refused(user, wanted);
            status.message.push_str(&format!(
                ": no relationship found between node '{node}' and this object"
            ));
            Err(status)
        }
        _ => Ok(()),
    }
}

/// True where a pod of the node uses the object. A list is allowed of one object by name.
fn related(ctx: &Ctx, node: &str, wanted: &Attributes, query: &Query) -> bool {
    let name = if wanted.name.is_empty() {
        query
            .get("fieldSelector")
            .strip_prefix("metadata.name=")
            .unwrap_or_default()
    } else {
        &wanted.name
    };
    ctx.store
        .list(&format!("/pods/{}/", wanted.namespace))
        .items
        .iter()
        .filter(|(_, entry)| entry.slim()["spec"]["nodeName"] == node)
        .any(|(_, entry)| uses(&entry.object()["spec"], &wanted.resource, name))
}

/// True where a pod's spec names the object.
fn uses(spec: &Object, resource: &str, name: &str) -> bool {
    if resource == "serviceaccounts" {
        return spec["serviceAccountName"] == name;
    }
    let (volume, reference, env) = if resource == "secrets" {
        ("secret", "secretKeyRef", "secretRef")
    } else {
        ("configMap", "configMapKeyRef", "configMapRef")
    };
    let list = |value: &Object| value.as_array().cloned().unwrap_or_default();
    let named = |value: &Object| value["name"] == name || value["secretName"] == name;
    let volumes = list(&spec["volumes"]);
    let in_volumes = volumes.iter().any(|v| {
        named(&v[volume])
            || list(&v["projected"]["sources"])
                .iter()
                .any(|s| named(&s[volume]))
    });
    let pulls = resource == "secrets" && list(&spec["imagePullSecrets"]).iter().any(named);
    let in_containers = ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .any(|field| {
            list(&spec[*field]).iter().any(|c| {
                list(&c["env"])
                    .iter()
                    .any(|e| named(&e["valueFrom"][reference]))
                    || list(&c["envFrom"]).iter().any(|e| named(&e[env]))
            })
        });
    in_volumes || pulls || in_containers
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_uses_what_its_volumes_and_variables_name() {
        let spec = json!({
            "serviceAccountName": "sa",
            "volumes": [{"name": "v", "secret": {"secretName": "a"}},
                {"name": "w", "projected": {"sources": [{"configMap": {"name": "b"}}]}}],
            "containers": [{"env": [{"name": "x", "valueFrom": {"secretKeyRef": {"name": "c", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "d"}}]}],
            "imagePullSecrets": [{"name": "e"}],
        });
        for (resource, name, wanted) in [
            ("secrets", "a", true),
            ("configmaps", "b", true),
            ("secrets", "c", true),
            ("configmaps", "d", true),
            ("secrets", "e", true),
            ("serviceaccounts", "sa", true),
            ("secrets", "b", false),
            ("configmaps", "a", false),
        ] {
            assert_eq!(uses(&spec, resource, name), wanted, "{resource} {name}");
        }
    }
}
