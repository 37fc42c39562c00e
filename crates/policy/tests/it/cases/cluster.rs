//! ClusterNetworkPolicies: tiers, priorities, actions, peers, and what they make of
//! NetworkPolicies.

use serde_json::{Value as Json, json};

use super::{Case, parts};
use crate::objects::{cluster_policy, policy};

fn namespaces(ns: &str) -> Json {
    json!({"namespaces": {"matchLabels": {"ns": ns}}})
}

fn pods(namespace: &Json, pod: &Json) -> Json {
    json!({"pods": {"namespaceSelector": namespace, "podSelector": pod}})
}

fn label(value: &str) -> Json {
    json!({"matchLabels": {"pod": value}})
}

fn everybody() -> Json {
    json!({"namespaces": {}})
}

/// A rule of a direction.
fn rule(direction: &str, action: &str, peers: Json, protocols: Option<Json>) -> Json {
    let field = if direction == "ingress" { "from" } else { "to" };
    let mut rule = json!({"action": action, field: peers});
    if let Some(protocols) = protocols {
        rule["protocols"] = protocols;
    }
    rule
}

fn one(name: &str, tier: &str, priority: u16, subject: Json, direction: &str, rules: Json) -> Json {
    let spec = json!({"tier": tier, "priority": priority, "subject": subject, direction: rules});
    cluster_policy(name, &spec)
}

const DIRECTIONS: [&str; 2] = ["ingress", "egress"];
const TIERS: [&str; 2] = ["Admin", "Baseline"];
const ACTIONS: [&str; 3] = ["Accept", "Deny", "Pass"];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    actions(&mut cases);
    orders(&mut cases);
    subjects(&mut cases);
    peers(&mut cases);
    protocols(&mut cases);
    cases
}

/// NetworkPolicies below or above: x lets in from y, and its pods out to y.
fn network_policy() -> Json {
    let peer = json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]);
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": peer.clone()}], "egress": [{"to": peer}]});
    policy("x", "only-y", &spec)
}

fn actions(cases: &mut Vec<Case>) {
    for direction in DIRECTIONS {
        for tier in TIERS {
            for action in ACTIONS {
                for (words, peers) in [("all", everybody()), ("y", namespaces("y"))] {
                    for below in [false, true] {
                        let rules = json!([rule(direction, action, json!([peers.clone()]), None)]);
                        let subject = namespaces("x");
                        let mut objects = vec![one("one", tier, 10, subject, direction, rules)];
                        let mut name = format!("{tier} {direction} {action} {words}");
                        if below {
                            objects.push(network_policy());
                            name.push_str(" with a NetworkPolicy");
                        }
                        cases.push(Case::new(name, objects));
                    }
                }
            }
        }
    }
}

fn orders(cases: &mut Vec<Case>) {
    let mut add = |name: &str, objects: Vec<Json>| cases.push(Case::new(name, objects));
    let all = |action: &str| json!([rule("ingress", action, json!([everybody()]), None)]);
    let y = |action: &str| json!([rule("ingress", action, json!([namespaces("y")]), None)]);
    let x = || namespaces("x");
    let ingress =
        |name: &str, tier: &str, priority, rules| one(name, tier, priority, x(), "ingress", rules);
    for (first, second) in [("Accept", "Deny"), ("Deny", "Accept"), ("Pass", "Deny")] {
        add(
            &format!("the lower priority decides: {first} before {second}"),
            vec![
                ingress("z", "Admin", 1, y(first)),
                ingress("a", "Admin", 2, all(second)),
            ],
        );
        add(
            &format!("of the same priority the first by name: {first} before {second}"),
            vec![
                ingress("b", "Admin", 5, all(second)),
                ingress("a", "Admin", 5, y(first)),
            ],
        );
        add(
            &format!("the first rule decides: {first} before {second}"),
            vec![ingress(
                "one",
                "Admin",
                5,
                json!([y(first)[0].clone(), all(second)[0].clone()]),
            )],
        );
        add(
            &format!("Baseline in order: {first} before {second}"),
            vec![
                ingress("z", "Baseline", 1, y(first)),
                ingress("a", "Baseline", 2, all(second)),
            ],
        );
        add(
            &format!("Admin {first} before Baseline {second}"),
            vec![
                ingress("z", "Admin", 1000, y(first)),
                ingress("a", "Baseline", 0, all(second)),
            ],
        );
    }
    add(
        "Pass leaves all of its tier, not the NetworkPolicy",
        vec![
            ingress("first", "Admin", 1, y("Pass")),
            ingress("second", "Admin", 2, all("Accept")),
            network_policy(),
        ],
    );
    add(
        "Pass leaves all of its tier for Baseline",
        vec![
            ingress("first", "Admin", 1, y("Pass")),
            ingress("second", "Admin", 2, y("Accept")),
            ingress("third", "Baseline", 1, all("Deny")),
        ],
    );
    add(
        "Baseline is not asked where a NetworkPolicy is about the pod",
        vec![
            ingress("base", "Baseline", 1, all("Accept")),
            policy("x", "deny", &json!({"podSelector": label("a")})),
        ],
    );
    add(
        "both directions of one",
        vec![cluster_policy(
            "both",
            &json!({"tier": "Admin", "priority": 3, "subject": x(),
                "ingress": [rule("ingress", "Deny", json!([namespaces("y")]), None)],
                "egress": [rule("egress", "Deny", json!([pods(&json!({}), &label("c"))]), None)]}),
        )],
    );
    add(
        "no rules",
        vec![cluster_policy(
            "none",
            &json!({"tier": "Admin", "priority": 3, "subject": everybody()}),
        )],
    );
    add(
        "no way at all, but one",
        vec![
            one("never", "Admin", 9, everybody(), "ingress", all("Deny")),
            ingress("but", "Admin", 8, y("Accept")),
        ],
    );
}

fn subjects(cases: &mut Vec<Case>) {
    let deny = |subject: Json| {
        let rules = json!([rule("ingress", "Deny", json!([everybody()]), None)]);
        vec![one("one", "Admin", 10, subject, "ingress", rules)]
    };
    for (name, selector) in parts::namespaces() {
        let subject = json!({ "namespaces": selector });
        cases.push(Case::new(format!("about {name}"), deny(subject)));
    }
    for (name, selector) in parts::pods().into_iter().step_by(2) {
        let subject = pods(&json!({"matchLabels": {"team": "red"}}), &selector);
        cases.push(Case::new(format!("about {name} of red"), deny(subject)));
    }
    let subject = pods(&json!({}), &label("a"));
    cases.push(Case::new("about a of all namespaces", deny(subject)));
}

fn peers(cases: &mut Vec<Case>) {
    let networks = |nets: &[&str]| json!({ "networks": nets });
    let egress: Vec<(&str, Json)> = vec![
        ("a network", json!([networks(&["10.244.1.0/24"])])),
        (
            "networks of both families",
            json!([networks(&["10.244.0.0/16", "fd00:10:244:2::/64"])]),
        ),
        ("outside", json!([networks(&["203.0.113.0/24"])])),
        ("everywhere", json!([networks(&["0.0.0.0/0", "::/0"])])),
        ("all nodes", json!([{"nodes": {}}])),
        (
            "a node",
            json!([{"nodes": {"matchLabels": {"rack": "r2"}}}]),
        ),
        (
            "nodes no node is",
            json!([{"nodes": {"matchLabels": {"rack": "r3"}}}]),
        ),
        (
            "nodes and pods and networks",
            json!([
                {"nodes": {"matchExpressions": [{"key": "rack", "operator": "NotIn", "values": ["r1"]}]}},
                pods(&json!({}), &label("b")),
                networks(&["2001:db8:113::10/128"])
            ]),
        ),
    ];
    for (name, peers) in egress {
        for action in ["Accept", "Deny"] {
            let mut rules = vec![rule("egress", action, peers.clone(), None)];
            if action == "Accept" {
                rules.push(rule(
                    "egress",
                    "Deny",
                    json!([networks(&["0.0.0.0/0", "::/0"])]),
                    None,
                ));
            }
            let rules = Json::from(rules);
            let object = one("one", "Admin", 10, namespaces("x"), "egress", rules);
            cases.push(Case::new(format!("{action} to {name}"), vec![object]));
        }
    }
    for direction in DIRECTIONS {
        let list = json!([
            namespaces("y"),
            pods(&json!({"matchLabels": {"ns": "x"}}), &label("c"))
        ]);
        let rules = json!([rule(direction, "Deny", list, None)]);
        let object = one("one", "Admin", 10, namespaces("x"), direction, rules);
        let name = format!("{direction} peers of a list are OR");
        cases.push(Case::new(name, vec![object]));
    }
}

fn protocols(cases: &mut Vec<Case>) {
    let number =
        |protocol: &str, port: u16| json!({protocol: {"destinationPort": {"number": port}}});
    let range = |protocol: &str, start: u16, end: u16| json!({protocol: {"destinationPort": {"range": {"start": start, "end": end}}}});
    let lists = [
        ("a port of TCP", json!([number("tcp", 80)])),
        ("a port of UDP", json!([number("udp", 81)])),
        ("a port of SCTP", json!([number("sctp", 80)])),
        ("a range", json!([range("tcp", 80, 81)])),
        (
            "several",
            json!([number("tcp", 81), number("udp", 80), range("udp", 81, 90)]),
        ),
        (
            "a named port",
            json!([{"destinationNamedPort": "serve-81-udp"}]),
        ),
        (
            "a name that means another port in each pod",
            json!([{"destinationNamedPort": "web"}]),
        ),
        (
            "a name and a port",
            json!([{"destinationNamedPort": "web"}, number("udp", 80)]),
        ),
    ];
    for (name, list) in lists {
        for direction in DIRECTIONS {
            for action in ["Accept", "Deny"] {
                let peers = json!([everybody()]);
                let mut rules = vec![rule(direction, action, peers.clone(), Some(list.clone()))];
                if action == "Accept" {
                    rules.push(rule(direction, "Deny", peers, None));
                }
                let subject = pods(&json!({}), &label("a"));
                let object = one("one", "Admin", 10, subject, direction, rules.into());
                cases.push(Case::new(
                    format!("{direction} {action} {name}"),
                    vec![object],
                ));
            }
        }
    }
}
