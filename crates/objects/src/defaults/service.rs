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

/// A NetworkPolicy: what it isolates follows from the rules it has. What is empty is left out,
/// as Kubernetes stores it; `{}` as a selector is none of that.
pub(super) fn network_policy(object: &mut Value) {
    let spec = object_in(object, "spec");
    tidy_selector(object_in(spec, "podSelector"));
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in items(spec, list) {
            for port in items(rule, "ports") {
                // An empty word is a wrong one.
                if port["protocol"].is_null() {
                    set(port, "protocol", "TCP");
                }
            }
            for peer in items(rule, peers) {
                for selector in ["podSelector", "namespaceSelector"] {
                    if let Some(selector) = peer.get_mut(selector) {
                        tidy_selector(selector);
                    }
                }
                if let Some(block) = peer.get_mut("ipBlock") {
                    drop_empty(block, &["except"]);
                }
            }
            drop_empty(rule, &[peers, "ports"]);
        }
    }
    drop_empty(spec, &["ingress", "egress", "policyTypes"]);
    if spec["policyTypes"].is_null() {
        let egress = spec["egress"].is_array();
        spec["policyTypes"] = if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
    }
}

fn tidy_selector(selector: &mut Value) {
    for expression in items(selector, "matchExpressions") {
        drop_empty(expression, &["values"]);
    }
    drop_empty(selector, &["matchExpressions", "matchLabels"]);
}

/// Leaves out those of the fields that are empty lists or maps.
fn drop_empty(object: &mut Value, fields: &[&str]) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for field in fields {
        let empty = match map.get(*field) {
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(inner)) => inner.is_empty(),
            _ => false,
        };
        if empty {
            map.remove(*field);
        }
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
        assert_eq!(
            types(json!({"egress": [], "policyTypes": []})),
            json!(["Ingress"])
        );
        assert_eq!(types(json!({"policyTypes": ["Egress"]})), json!(["Egress"]));
    }

    #[test]
    fn what_is_empty_in_a_policy_is_left_out() {
        let spec = filled(
            "networking.k8s.io",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {"matchLabels": {}, "matchExpressions": []},
                "egress": [], "ingress": [{"from": [], "ports": [{"protocol": ""}, {}]},
                    {"from": [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {}}},
                        {"ipBlock": {"cidr": "10.0.0.0/8", "except": []}}]}]}}),
        );
        assert_eq!(
            spec["spec"],
            json!({"podSelector": {}, "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"protocol": ""}, {"protocol": "TCP"}]},
                    {"from": [{"podSelector": {}}, {"namespaceSelector": {}},
                        {"ipBlock": {"cidr": "10.0.0.0/8"}}]}]})
        );
    }
}
