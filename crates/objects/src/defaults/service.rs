//! Defaults of Services and NetworkPolicies.

use serde_json::{Value, json};

use super::{items, object_in, set};

/// A Service; addresses and node ports are allocated by the API server afterwards.
pub(super) fn service(object: &mut Value) {
    let spec = object_in(object, "spec");
    set(spec, "sessionAffinity", "None");
    set(spec, "type", "ClusterIP");
    if spec["sessionAffinity"] == "ClientIP" {
        let client = object_in(object_in(spec, "sessionAffinityConfig"), "clientIP");
        set(client, "timeoutSeconds", json!(10800));
    } else if spec["sessionAffinity"] == "None"
        && let Some(map) = spec.as_object_mut()
    {
        map.remove("sessionAffinityConfig");
    }
    for port in items(spec, "ports") {
        set(port, "protocol", "TCP");
        if port["targetPort"].is_null() || port["targetPort"] == 0 || port["targetPort"] == "" {
            port["targetPort"] = port["port"].clone();
        }
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    let external_ips = spec["externalIPs"]
        .as_array()
        .is_some_and(|l| !l.is_empty());
    let outside =
        kind == "LoadBalancer" || kind == "NodePort" || (kind == "ClusterIP" && external_ips);
    if outside {
        set(spec, "externalTrafficPolicy", "Cluster");
    }
    if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&kind.as_str()) {
        set(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
    let balancer = object_in(object_in(object, "status"), "loadBalancer");
    if kind == "LoadBalancer" {
        for ingress in items(balancer, "ingress") {
            if ingress["ip"].as_str().is_some_and(|ip| !ip.is_empty()) {
                set(ingress, "ipMode", "VIP");
            }
        }
    }
}

/// A NetworkPolicy: what it isolates follows from the rules it has.
pub(super) fn network_policy(object: &mut Value) {
    let spec = object_in(object, "spec");
    object_in(spec, "podSelector");
    for list in ["ingress", "egress"] {
        for rule in items(spec, list) {
            for port in items(rule, "ports") {
                set(port, "protocol", "TCP");
            }
        }
    }
    if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
        let egress = spec["egress"].as_array().is_some_and(|l| !l.is_empty());
        spec["policyTypes"] = if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::tests::filled;

    #[test]
    fn services() {
        let service = filled(
            "",
            "Service",
            json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}}),
        );
        assert_eq!(
            service,
            json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}], "externalTrafficPolicy": "Cluster",
                "internalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true},
                "status": {"loadBalancer": {}}})
        );
    }

    #[test]
    fn policy_types_follow_the_rules() {
        let types = |spec: Value| {
            filled(
                "networking.k8s.io",
                "NetworkPolicy",
                json!({ "spec": spec }),
            )["spec"]["policyTypes"]
                .clone()
        };
        assert_eq!(types(json!({})), json!(["Ingress"]));
        assert_eq!(types(json!({"egress": [{}]})), json!(["Ingress", "Egress"]));
        assert_eq!(types(json!({"policyTypes": ["Egress"]})), json!(["Egress"]));
    }
}
