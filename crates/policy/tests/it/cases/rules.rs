//! One rule about the pods a of namespace x: every kind of peer, every kind of port, and some of
//! both.

use serde_json::{Value as Json, json};

use super::{Case, parts};
use crate::objects::policy;

/// A rule of a direction; `None` is left out.
pub fn rule(direction: &str, peers: Option<&Json>, ports: Option<&Json>) -> Json {
    let mut rule = json!({});
    if let Some(peers) = peers {
        let field = if direction == "ingress" { "from" } else { "to" };
        rule[field] = peers.clone();
    }
    if let Some(ports) = ports {
        rule["ports"] = ports.clone();
    }
    rule
}

fn case(direction: &str, name: String, rule: &Json) -> Case {
    let word = if direction == "ingress" {
        "Ingress"
    } else {
        "Egress"
    };
    let spec = json!({
        "podSelector": {"matchLabels": {"pod": "a"}},
        "policyTypes": [word],
        direction: [rule],
    });
    Case::new(
        format!("{direction}: {name}"),
        vec![policy("x", "one", &spec)],
    )
}

pub fn cases(direction: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let peers = parts::peers();
    let ports = parts::all_ports();
    for (name, list) in &peers {
        cases.push(case(
            direction,
            name.clone(),
            &rule(direction, list.as_ref(), None),
        ));
    }
    for (name, list) in &ports {
        cases.push(case(
            direction,
            (*name).to_owned(),
            &rule(direction, None, list.as_ref()),
        ));
    }
    // Of both, those where sets, ranges and names meet pods and blocks.
    let some_peers = [
        "all pods of its own namespace",
        "namespaces AND pods OR pods",
        "all but ranges",
        "a block and pods",
        "all of IPv6",
    ];
    let some_ports = [
        "TCP 80",
        "UDP 81",
        "four ports",
        "a range and a port",
        "a port and all of a protocol",
        "a named port",
        "a name that means another port in each pod",
        "names and numbers",
    ];
    for (peer, list) in peers
        .iter()
        .filter(|(name, _)| some_peers.contains(&&**name))
    {
        for (port, numbers) in ports.iter().filter(|(name, _)| some_ports.contains(name)) {
            let rule = rule(direction, list.as_ref(), numbers.as_ref());
            cases.push(case(direction, format!("{peer}, {port}"), &rule));
        }
    }
    cases
}
