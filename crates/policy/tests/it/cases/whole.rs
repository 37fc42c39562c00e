//! Whole policies: whom they are about, in which direction, and what several say together.

use serde_json::{Value as Json, json};

use super::{Case, parts};
use crate::objects::policy;

fn label(value: &str) -> Json {
    json!({"matchLabels": {"pod": value}})
}

fn from_pods(value: &str) -> Json {
    json!({"from": [{"podSelector": label(value)}]})
}

fn to_pods(value: &str) -> Json {
    json!({"to": [{"podSelector": label(value)}]})
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    subjects(&mut cases);
    types(&mut cases);
    unions(&mut cases);
    cases
}

fn subjects(cases: &mut Vec<Case>) {
    for (name, selector) in parts::pods() {
        for direction in ["ingress", "egress"] {
            let types = if direction == "ingress" {
                "Ingress"
            } else {
                "Egress"
            };
            let spec = json!({"podSelector": selector.clone(), "policyTypes": [types]});
            cases.push(Case::new(
                format!("{direction} about {name}"),
                vec![policy("x", "one", &spec)],
            ));
        }
    }
    for namespace in ["y", "z", "nowhere"] {
        let spec = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]});
        cases.push(Case::new(
            format!("about all pods of {namespace}"),
            vec![policy(namespace, "one", &spec)],
        ));
    }
}

/// What `policyTypes` and the sections make of each other.
fn types(cases: &mut Vec<Case>) {
    let sections: [(&str, Json); 9] = [
        ("no section", json!({})),
        ("empty ingress", json!({"ingress": []})),
        ("empty egress", json!({"egress": []})),
        ("ingress", json!({"ingress": [from_pods("b")]})),
        ("egress", json!({"egress": [to_pods("b")]})),
        (
            "both",
            json!({"ingress": [from_pods("b")], "egress": [to_pods("c")]}),
        ),
        ("ingress from all", json!({"ingress": [{}]})),
        ("egress to all", json!({"egress": [{}]})),
        ("both all", json!({"ingress": [{}], "egress": [{}]})),
    ];
    let types: [(&str, Option<Json>); 5] = [
        ("no policyTypes", None),
        ("empty policyTypes", Some(json!([]))),
        ("Ingress", Some(json!(["Ingress"]))),
        ("Egress", Some(json!(["Egress"]))),
        ("Ingress, Egress", Some(json!(["Ingress", "Egress"]))),
    ];
    for (section, spec) in &sections {
        for (name, types) in &types {
            let mut spec = spec.clone();
            spec["podSelector"] = label("a");
            if let Some(types) = types {
                spec["policyTypes"] = types.clone();
            }
            cases.push(Case::new(
                format!("{name} with {section}"),
                vec![policy("x", "one", &spec)],
            ));
        }
    }
}

/// What several rules and policies let through together.
fn unions(cases: &mut Vec<Case>) {
    let deny = |namespace: &str| {
        let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        policy(namespace, "deny-all", &spec)
    };
    let deny_in = |namespace: &str| {
        let spec = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
        policy(namespace, "deny-ingress", &spec)
    };
    let allow = |namespace: &str| {
        let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{}], "egress": [{}]});
        policy(namespace, "allow-all", &spec)
    };
    let one = |name: &str, spec: Json| policy("x", name, &spec);
    let ingress = |name: &str, pod: &str, rules: Json| {
        one(name, json!({"podSelector": label(pod), "ingress": rules}))
    };
    let egress = |name: &str, pod: &str, rules: Json| {
        let spec = json!({"podSelector": label(pod), "policyTypes": ["Egress"], "egress": rules});
        one(name, spec)
    };
    let from_ns = |ns: &str| json!({"from": [{"namespaceSelector": {"matchLabels": {"ns": ns}}}]});
    let to_ns = |ns: &str| json!({"to": [{"namespaceSelector": {"matchLabels": {"ns": ns}}}]});
    let tcp = |port: u16| json!([{"protocol": "TCP", "port": port}]);
    let web = |from: Json, port: u16| json!({"from": [from], "ports": tcp(port)});
    let mut add = |name: &str, objects: Vec<Json>| cases.push(Case::new(name, objects));
    add("no policy at all", vec![]);
    add("deny all", vec![deny("x")]);
    add("deny all in two namespaces", vec![deny("x"), deny("y")]);
    add("deny all everywhere", vec![deny("x"), deny("y"), deny("z")]);
    add("allow all", vec![allow("x")]);
    add("deny all and allow all", vec![deny("x"), allow("x")]);
    add(
        "deny all, allow all of the other namespace",
        vec![deny("x"), allow("y")],
    );
    add(
        "two rules",
        vec![ingress("two", "a", json!([from_pods("b"), from_ns("y")]))],
    );
    add(
        "two policies about a pod",
        vec![
            ingress("first", "a", json!([from_pods("b")])),
            ingress("second", "a", json!([from_ns("y")])),
        ],
    );
    add(
        "two policies of different ports",
        vec![
            ingress("first", "a", json!([web(json!({"podSelector": {}}), 80)])),
            ingress(
                "second",
                "a",
                json!([web(json!({"namespaceSelector": {}}), 81)]),
            ),
        ],
    );
    add(
        "rules of a policy do not mix peers and ports",
        vec![ingress(
            "two",
            "a",
            json!([
                web(json!({"podSelector": label("b")}), 80),
                web(json!({"podSelector": label("c")}), 81)
            ]),
        )],
    );
    add(
        "policies about different pods",
        vec![
            ingress("a", "a", json!([from_pods("b")])),
            ingress("b", "b", json!([from_pods("c")])),
            ingress("c", "c", json!([])),
        ],
    );
    add(
        "policies of both directions about a pod",
        vec![
            ingress("in", "a", json!([from_ns("y")])),
            egress("out", "a", json!([to_ns("y")])),
        ],
    );
    add(
        "egress and ingress must both agree",
        vec![
            egress("out", "b", json!([to_pods("a")])),
            ingress("in", "a", json!([from_pods("c")])),
        ],
    );
    add(
        "egress and ingress agree on a port",
        vec![
            egress("out", "b", json!([{"ports": [{"port": 80}, {"port": 81}]}])),
            ingress(
                "in",
                "a",
                json!([{"ports": [{"port": 81}, {"protocol": "UDP"}]}]),
            ),
        ],
    );
    add(
        "deny all, then one way from a to b",
        vec![
            deny("x"),
            egress("out", "a", json!([to_pods("b")])),
            ingress("in", "b", json!([from_pods("a")])),
        ],
    );
    add(
        "deny ingress, then one way with a port",
        vec![
            deny_in("x"),
            ingress(
                "in",
                "b",
                json!([web(json!({"podSelector": label("a")}), 80)]),
            ),
        ],
    );
    add(
        "three of the same",
        vec![
            ingress("one", "a", json!([from_pods("b")])),
            ingress("two", "a", json!([from_pods("b")])),
            ingress("three", "a", json!([from_pods("b")])),
        ],
    );
    add(
        "one of everything in each namespace",
        ["x", "y", "z"]
            .iter()
            .flat_map(|ns| {
                let spec = json!({"podSelector": {"matchLabels": {"tier": "back"}},
                    "policyTypes": ["Ingress", "Egress"],
                    "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}},
                        {"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": "web"}]},
                        {"from": [{"podSelector": {}}], "ports": [{"protocol": "UDP", "port": 80, "endPort": 90}]}],
                    "egress": [{"to": [{"namespaceSelector": {}, "podSelector": label("c")}]},
                        {"to": [{"ipBlock": {"cidr": "::/0", "except": ["2001:db8::/32"]}}]}]});
                [policy(ns, "everything", &spec), policy(ns, "again", &json!({"podSelector": label("b"),
                    "ingress": [{"ports": [{"protocol": "SCTP", "port": 80}]}]}))]
            })
            .collect(),
    );
}
