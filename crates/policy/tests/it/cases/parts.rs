//! Parts of rules, each with words that say what it is.

use serde_json::{Value as Json, json};

pub type Part = (&'static str, Json);

fn labels(key: &str, value: &str) -> Json {
    json!({"matchLabels": {key: value}})
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Json {
    if values.is_empty() {
        json!({"matchExpressions": [{"key": key, "operator": operator}]})
    } else {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }
}

/// Selectors of pods.
pub fn pods() -> Vec<Part> {
    vec![
        ("all pods", json!({})),
        ("pods of a label", labels("pod", "b")),
        (
            "pods of two labels",
            json!({"matchLabels": {"pod": "a", "tier": "front"}}),
        ),
        ("pods of a label no pod has", labels("pod", "d")),
        (
            "pods of two labels no pod has both",
            json!({"matchLabels": {"pod": "a", "tier": "back"}}),
        ),
        ("pods In", expression("pod", "In", &["a", "c", "d"])),
        ("pods In none of them", expression("pod", "In", &["d"])),
        ("pods NotIn", expression("pod", "NotIn", &["a"])),
        (
            "pods NotIn of a label some lack",
            expression("tier", "NotIn", &["front"]),
        ),
        ("pods Exists", expression("tier", "Exists", &[])),
        ("pods DoesNotExist", expression("tier", "DoesNotExist", &[])),
        (
            "pods of a label and an expression",
            json!({"matchLabels": {"tier": "front"},
                "matchExpressions": [{"key": "pod", "operator": "In", "values": ["a", "b"]}]}),
        ),
        (
            "pods of two expressions",
            json!({"matchExpressions": [
                {"key": "tier", "operator": "Exists"},
                {"key": "pod", "operator": "NotIn", "values": ["b"]}]}),
        ),
    ]
}

/// Selectors of namespaces.
pub fn namespaces() -> Vec<Part> {
    vec![
        ("all namespaces", json!({})),
        ("namespaces of a label", labels("ns", "y")),
        (
            "namespace by its name",
            labels("kubernetes.io/metadata.name", "z"),
        ),
        ("namespaces of a label none has", labels("ns", "w")),
        ("namespaces In", expression("ns", "In", &["x", "y"])),
        ("namespaces NotIn", expression("ns", "NotIn", &["x"])),
        ("namespaces Exists", expression("team", "Exists", &[])),
        (
            "namespaces DoesNotExist",
            expression("team", "DoesNotExist", &[]),
        ),
        (
            "namespaces of a label and an expression",
            json!({"matchLabels": {"ns": "y"},
                "matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["red"]}]}),
        ),
    ]
}

fn block(cidr: &str, except: &[&str]) -> Json {
    if except.is_empty() {
        json!({"ipBlock": {"cidr": cidr}})
    } else {
        json!({"ipBlock": {"cidr": cidr, "except": except}})
    }
}

/// Lists of blocks.
fn blocks() -> Vec<Part> {
    vec![
        ("one IPv4 address", json!([block("10.244.2.13/32", &[])])),
        (
            "one IPv6 address",
            json!([block("fd00:10:244:1::c/128", &[])]),
        ),
        ("all of IPv4", json!([block("0.0.0.0/0", &[])])),
        ("all of IPv6", json!([block("::/0", &[])])),
        (
            "all addresses",
            json!([block("0.0.0.0/0", &[]), block("::/0", &[])]),
        ),
        ("a node's pods", json!([block("10.244.1.0/24", &[])])),
        (
            "all but one address",
            json!([block("0.0.0.0/0", &["10.244.1.12/32"])]),
        ),
        (
            "all but ranges",
            json!([block(
                "10.0.0.0/8",
                &["10.244.1.0/24", "10.0.1.0/24", "10.244.2.13/32"]
            )]),
        ),
        (
            "all but ranges that meet",
            json!([block(
                "10.244.0.0/16",
                &["10.244.1.0/28", "10.244.1.8/29", "10.244.1.16/28"]
            )]),
        ),
        (
            "all but itself",
            json!([block("10.244.0.0/16", &["10.244.0.0/16"])]),
        ),
        (
            "all of IPv6 but ranges",
            json!([block(
                "fd00:10:244::/56",
                &["fd00:10:244:1::/64", "fd00:10:244:2::d/128"]
            )]),
        ),
        (
            "what one block leaves out another has",
            json!([
                block("10.244.0.0/16", &["10.244.2.0/24"]),
                block("10.244.2.11/32", &[])
            ]),
        ),
        (
            "blocks that meet",
            json!([block("10.244.2.8/30", &[]), block("10.244.2.12/30", &[])]),
        ),
        (
            "blocks within blocks",
            json!([block("10.244.2.0/24", &[]), block("10.244.2.13/32", &[])]),
        ),
        ("outside", json!([block("203.0.113.0/24", &[])])),
        (
            "outside but the one there",
            json!([block("203.0.113.0/24", &["203.0.113.10/32"])]),
        ),
        (
            "nodes",
            json!([
                block("10.0.1.0/24", &[]),
                block("fd00:10:0:1::/64", &["fd00:10:0:1::1/128"])
            ]),
        ),
        (
            "a block and pods",
            json!([block("203.0.113.10/32", &[]), {"podSelector": labels("pod", "b")}]),
        ),
        (
            "a block and namespaces",
            json!([block("10.244.2.13/32", &[]), {"namespaceSelector": labels("ns", "y")}]),
        ),
    ]
}

/// What `from` and `to` may be; none where it is not written.
pub fn peers() -> Vec<(String, Option<Json>)> {
    let mut all: Vec<(String, Option<Json>)> = vec![
        ("anybody (no list)".into(), None),
        ("anybody (empty list)".into(), Some(json!([]))),
    ];
    let mut add = |name: String, peers: Json| all.push((name, Some(peers)));
    for (name, selector) in pods() {
        add(
            format!("{name} of its own namespace"),
            json!([{ "podSelector": selector }]),
        );
    }
    for (name, selector) in namespaces() {
        add(
            name.to_owned(),
            json!([{"namespaceSelector": selector.clone()}]),
        );
        let both = json!([{"namespaceSelector": selector, "podSelector": expression("pod", "NotIn", &["a"])}]);
        add(format!("{name} AND pods"), both);
    }
    add(
        "namespaces OR pods".into(),
        json!([{"namespaceSelector": labels("ns", "y")}, {"podSelector": labels("pod", "b")}]),
    );
    add(
        "namespaces AND pods OR pods".into(),
        json!([
            {"namespaceSelector": labels("ns", "y"), "podSelector": labels("pod", "a")},
            {"podSelector": labels("pod", "c")}
        ]),
    );
    add(
        "all namespaces AND all pods".into(),
        json!([{"namespaceSelector": {}, "podSelector": {}}]),
    );
    for (name, blocks) in blocks() {
        add(name.to_owned(), blocks);
    }
    all
}

fn ports(items: &[(&str, Json)]) -> Json {
    let item = |(protocol, port): &(&str, Json)| match port {
        Json::Null => json!({ "protocol": protocol }),
        port => json!({"protocol": protocol, "port": port}),
    };
    items.iter().map(item).collect()
}

fn range(protocol: &str, from: u16, to: u16) -> Json {
    json!({"protocol": protocol, "port": from, "endPort": to})
}

/// What `ports` may be; none where it is not written.
pub fn all_ports() -> Vec<(&'static str, Option<Json>)> {
    let none = Json::Null;
    let many: Json = (60..80)
        .chain(82..90)
        .map(|port| json!({"port": port}))
        .collect();
    vec![
        ("any port (no list)", None),
        ("any port (empty list)", Some(json!([]))),
        ("TCP 80", Some(ports(&[("TCP", 80.into())]))),
        ("80, no protocol", Some(json!([{"port": 80}]))),
        ("UDP 81", Some(ports(&[("UDP", 81.into())]))),
        ("SCTP 80", Some(ports(&[("SCTP", 80.into())]))),
        ("all of TCP", Some(ports(&[("TCP", none.clone())]))),
        ("all of UDP", Some(ports(&[("UDP", none.clone())]))),
        ("all of SCTP", Some(ports(&[("SCTP", none.clone())]))),
        ("all of no protocol", Some(json!([{}]))),
        (
            "all of every protocol",
            Some(ports(&[
                ("TCP", none.clone()),
                ("UDP", none.clone()),
                ("SCTP", none.clone()),
            ])),
        ),
        (
            "two ports",
            Some(ports(&[("TCP", 80.into()), ("UDP", 81.into())])),
        ),
        (
            "four ports",
            Some(ports(&[
                ("TCP", 80.into()),
                ("TCP", 81.into()),
                ("UDP", 80.into()),
                ("SCTP", 81.into()),
            ])),
        ),
        (
            "a port and all of a protocol",
            Some(ports(&[("TCP", 81.into()), ("UDP", none)])),
        ),
        ("a port nobody serves", Some(ports(&[("TCP", 82.into())]))),
        ("many ports nobody serves", Some(many)),
        ("a range", Some(json!([range("TCP", 80, 81)]))),
        ("a range of one", Some(json!([range("UDP", 81, 81)]))),
        ("a range up to a port", Some(json!([range("TCP", 1, 80)]))),
        (
            "a range from a port on",
            Some(json!([range("UDP", 81, 65535)])),
        ),
        ("a range beside", Some(json!([range("TCP", 82, 90)]))),
        (
            "a range and a port",
            Some(json!([range("TCP", 79, 80), {"protocol": "UDP", "port": 81}])),
        ),
        (
            "ranges that overlap",
            Some(json!([
                range("TCP", 70, 80),
                range("TCP", 75, 81),
                range("UDP", 81, 82)
            ])),
        ),
        (
            "a named port",
            Some(ports(&[("TCP", "serve-80-tcp".into())])),
        ),
        (
            "a named port of UDP",
            Some(ports(&[("UDP", "serve-81-udp".into())])),
        ),
        (
            "a named port of SCTP",
            Some(ports(&[("SCTP", "serve-81-sctp".into())])),
        ),
        (
            "a named port with another protocol",
            Some(ports(&[("TCP", "serve-80-udp".into())])),
        ),
        (
            "a name that means another port in each pod",
            Some(ports(&[("TCP", "web".into())])),
        ),
        (
            "a name nobody has",
            Some(ports(&[("TCP", "nobody-has".into())])),
        ),
        (
            "names and numbers",
            Some(ports(&[
                ("TCP", "web".into()),
                ("UDP", "serve-80-udp".into()),
                ("UDP", 81.into()),
            ])),
        ),
    ]
}
