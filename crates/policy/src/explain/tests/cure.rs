//! What is said about a denied connection.

use super::*;

/// What the server's side says about it, and what would have to change.
fn told(policies: impl IntoIterator<Item = Change>, from: &str, port: &str) -> (String, Cure) {
    let mut cluster = cluster();
    for policy in policies {
        cluster.take(policy);
    }
    let question = question(&cluster, from, "api", port);
    let answer = explain(&cluster, &question);
    let why = words::why(&cluster, &question, Direction::Ingress, &answer.ingress);
    let cure = cure(&cluster, &question, Direction::Ingress, &answer.ingress);
    (why, cure.expect("it is denied"))
}

#[test]
fn a_denial_names_who_isolates_and_what_to_write() {
    let (why, cure) = told([policy("shop/deny", "", DENY, None)], "web", "8080");
    assert_eq!(
        why,
        "NetworkPolicy shop/deny isolates pod shop/api for ingress, and no rule of it allows it"
    );
    assert!(cure.near.is_empty());
    assert_eq!(
        cure.add,
        "write a NetworkPolicy in namespace shop with podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress] and ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{protocol: TCP, port: 8080}]}]"
    );
}

#[test]
fn a_rule_that_lacks_the_port_is_to_have_it() {
    let mut rule = peers([own("app=web")]);
    rule.ports = Some(vec![tcp(80, 80), tcp(8000, 8079)]);
    let (_, cure) = told(
        [policy("shop/p", "app=api", Some(vec![rule]), None)],
        "web",
        "8080",
    );
    assert_eq!(
        cure.near[0].message,
        "is about pod shop/web, but only on TCP 80, TCP 8000-8079, not on TCP 8080"
    );
    assert_eq!(
        cure.add,
        "add {protocol: TCP, port: 8080} to spec.ingress[0].ports of NetworkPolicy shop/p"
    );
}

#[test]
fn a_rule_that_lacks_the_peer_says_what_the_peer_has() {
    let rule = Rule {
        ports: Some(vec![tcp(80, 80)]),
        ..peers([of("team=b", "app=web")])
    };
    let deny = policy("shop/p", "app=api", Some(vec![rule]), None);
    let (_, cure) = told([deny.clone()], "job", "80");
    assert_eq!(
        cure.near[0].message,
        "is about TCP 80, but only for pods with app=web of namespaces with team=b; pod data/job has app=job,tier=front, its namespace team=b"
    );
    assert!(
        cure.add.contains("kubernetes.io/metadata.name: data"),
        "{}",
        cure.add
    );
    assert!(
        cure.add
            .ends_with("to spec.ingress of NetworkPolicy shop/p"),
        "{}",
        cure.add
    );
    let (_, node) = told([deny.clone()], "10.0.1.10", "80");
    assert!(
        node.near[0].message.contains("a node's address"),
        "{node:?}"
    );
    assert!(
        node.add.contains("ipBlock: {cidr: 10.0.1.10/32}"),
        "{node:?}"
    );
    let (_, outside) = told([deny], "203.0.113.10", "80");
    assert!(
        outside.near[0].message.contains("no pod has 203.0.113.10"),
        "{outside:?}"
    );
}

#[test]
fn what_the_cluster_denies_is_to_be_accepted_before() {
    let mut deny = does(Action::Deny, Rule::default());
    deny.name = "nobody".into();
    let (why, cure) = told(
        [cnp(Tier::Admin, 10, "edge", [vec![deny], vec![]])],
        "web",
        "80",
    );
    assert_eq!(
        why,
        "ClusterNetworkPolicy edge (tier Admin) spec.ingress[0] \"nobody\" denies it"
    );
    assert!(
        cure.add.contains("with a priority below 10"),
        "{}",
        cure.add
    );
}
