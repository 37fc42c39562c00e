//! Policies that no API server of ours lets in: what cannot be understood closes, and is told.

use serde_json::{Value as Json, json};

use super::Case;
use crate::objects::{cluster_policy, policy};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, objects: Vec<Json>| {
        cases.push(Case {
            name: format!("broken: {name}"),
            objects,
            broken: true,
        });
    };
    let specs = [
        (
            "an operator of podSelector",
            json!({"podSelector": {"matchExpressions": [{"key": "pod", "operator": "Like", "values": ["a"]}]}}),
        ),
        (
            "podSelector In without values",
            json!({"podSelector": {"matchExpressions": [{"key": "pod", "operator": "In"}]},
                "ingress": [{"from": [{"podSelector": {}}]}]}),
        ),
        (
            "a word of policyTypes",
            json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Inwards"]}),
        ),
        (
            "a CIDR",
            json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}},
                {"podSelector": {"matchLabels": {"pod": "b"}}}]}]}),
        ),
        (
            "except outside its cidr",
            json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock":
                {"cidr": "10.244.1.0/24", "except": ["10.244.2.0/24"]}}]}]}),
        ),
        (
            "an item of except",
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock":
                {"cidr": "10.244.0.0/16", "except": ["10.244.2.300/32"]}}]}]}),
        ),
        (
            "the only peer of a rule",
            json!({"podSelector": {}, "ingress": [{"from": [{}]}]}),
        ),
        (
            "a selector of a peer",
            json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector":
                {"matchExpressions": [{"key": "ns", "operator": "Exists", "values": ["x"]}]}}]}, {"from": [{"podSelector": {}}]}]}),
        ),
        (
            "a block beside a selector",
            json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}, "ipBlock": {"cidr": "0.0.0.0/0"}}]}]}),
        ),
        (
            "a protocol",
            json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "TCPP", "port": 80}]}]}),
        ),
        (
            "a port number",
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": 70000}, {"port": 81}]}]}),
        ),
        (
            "endPort below port",
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": 81, "endPort": 80}]}]}),
        ),
        (
            "endPort of a name",
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": "web", "endPort": 81}]}]}),
        ),
        (
            "ports are no list",
            json!({"podSelector": {}, "ingress": [{"ports": "80"}]}),
        ),
        (
            "ingress is no list",
            json!({"podSelector": {}, "ingress": {"from": []}}),
        ),
    ];
    for (name, spec) in specs {
        // The others of the namespace mean what they say.
        let other = json!({"podSelector": {"matchLabels": {"pod": "c"}},
            "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"ns": "z"}}}]}]});
        add(
            name,
            vec![policy("x", "broken", &spec), policy("y", "whole", &other)],
        );
    }
    let cluster = |rules: Json| {
        let spec = json!({"tier": "Admin", "priority": 1,
            "subject": {"namespaces": {"matchLabels": {"ns": "x"}}}, "egress": rules});
        vec![cluster_policy("broken", &spec)]
    };
    let all = json!([{"networks": ["0.0.0.0/0", "::/0"]}]);
    add(
        "domainNames of an Accept rule",
        cluster(json!([
            {"action": "Accept", "to": [{"domainNames": ["example.org"]}]},
            {"action": "Deny", "to": all.clone()}
        ])),
    );
    add(
        "a peer of a Deny rule",
        cluster(json!([{"action": "Deny", "to": [{"planets": {}}]}])),
    );
    add(
        "an action",
        cluster(json!([{"action": "Perhaps", "to": all.clone()}])),
    );
    add(
        "a network of an Accept rule",
        cluster(json!([
            {"action": "Accept", "to": [{"networks": ["10.244.0.0/16", "10.0.0.0/99"]}]},
            {"action": "Deny", "to": all}
        ])),
    );
    for (name, spec) in [
        (
            "a tier",
            json!({"tier": "Middle", "priority": 1, "subject": {"namespaces": {}},
                "ingress": [{"action": "Accept", "from": [{"namespaces": {}}]}]}),
        ),
        (
            "a priority",
            json!({"tier": "Baseline", "priority": 1001, "subject": {"namespaces": {}},
                "ingress": [{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"ns": "y"}}}]}]}),
        ),
        (
            "a subject",
            json!({"tier": "Admin", "priority": 1, "subject": {},
                "ingress": [{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"ns": "y"}}}]}]}),
        ),
    ] {
        add(name, vec![cluster_policy("broken", &spec)]);
    }
    cases
}
