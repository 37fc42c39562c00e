//! Whom a rule is about.

use model::selector::{Operator, Requirement};

use super::*;

#[test]
fn peers_select_pods() {
    let from = |peer: Peer| policy("shop/p", "app=api", Some(vec![peers([peer])]), None);
    holds(
        [from(own(""))],
        &["web api 1"],
        &["db api 1", "job api 1", "8.8.8.8 api 1"],
    );
    holds([from(own("app=web"))], &["web api 1"], &["db api 1"]);
    holds(
        [from(of("", ""))],
        &["web api 1", "db api 1"],
        &["8.8.8.8 api 1"],
    );
    holds(
        [from(of("team=b", ""))],
        &["db api 1", "job api 1"],
        &["web api 1"],
    );
    holds(
        [from(of("", "tier=front"))],
        &["web api 1", "job api 1"],
        &["db api 1"],
    );
    // Both in one item: AND. As two items: OR.
    holds(
        [from(of("team=b", "tier=front"))],
        &["job api 1"],
        &["web api 1", "db api 1"],
    );
    let either = peers([of("team=b", ""), own("tier=front")]);
    holds(
        [policy("shop/p", "app=api", Some(vec![either]), None)],
        &["job api 1", "db api 1", "web api 1"],
        &["8.8.8.8 api 1"],
    );
}

#[test]
fn expressions_select_as_everywhere() {
    let requirement = |key: &str, operator, values: &[&str]| Requirement {
        key: key.into(),
        operator,
        values: values.iter().map(|v| (*v).to_owned()).collect(),
    };
    let from = |one: Requirement| {
        let pods = LabelSelector {
            match_expressions: vec![one],
            ..LabelSelector::default()
        };
        let namespaces = Namespaces::Selected(LabelSelector::default());
        let rule = peers([Peer::Pods { namespaces, pods }]);
        policy("shop/p", "app=api", Some(vec![rule]), None)
    };
    let (web, job, db) = ("web api 1", "job api 1", "db api 1");
    holds(
        [from(requirement("app", Operator::In, &["web", "db"]))],
        &[web, db],
        &[job],
    );
    holds(
        [from(requirement("tier", Operator::NotIn, &["front"]))],
        &[db],
        &[web, job],
    );
    holds(
        [from(requirement("tier", Operator::Exists, &[]))],
        &[web, job],
        &[db],
    );
    holds(
        [from(requirement("tier", Operator::DoesNotExist, &[]))],
        &[db],
        &[web, job],
    );
}

#[test]
fn blocks_are_addresses_whoever_has_them() {
    let to = |peer| policy("shop/p", "app=web", None, Some(vec![peers([peer])]));
    holds(
        [to(block("10.0.0.0/8", &["10.244.2.6/32", "10.9.0.0/16"]))],
        &["web api 1", "web 10.0.1.20 1", "web 10.8.0.1 1"],
        &[
            "web db 1",
            "web 10.9.3.3 1",
            "web 8.8.8.8 1",
            "web fd00::1 1",
        ],
    );
    holds([to(block("::/0", &[]))], &["web fd00::1 1"], &["web api 1"]);
}

#[test]
fn nodes_and_pods_of_their_network_are_addresses_only() {
    // 10.0.1.10 is node1's own, and that of shop/host, which has the label of web.
    let own = policy(
        "shop/p",
        "app=api",
        Some(vec![peers([own(""), of("", "")])]),
        None,
    );
    holds(
        [own],
        &["web api 1", "10.0.1.20 api 1"],
        &["10.0.1.10 api 1", "10.244.1.1 api 1"],
    );
    let block = peers([block("10.0.1.10/32", &[])]);
    holds(
        [policy("shop/p", "app=api", Some(vec![block]), None)],
        &["10.0.1.10 api 1"],
        &["10.0.1.30 api 1"],
    );
    // It is no subject either: its policies are the node's, which has none.
    holds(
        [policy("shop/deny", "", DENY, DENY)],
        &["db 10.0.1.10 1", "10.0.1.10 db 1"],
        &[],
    );
}

#[test]
fn nodes_are_peers_of_egress_by_their_addresses() {
    let z1 = Peer::Nodes(labelled("zone=z1"));
    holds(
        [cnp(
            Tier::Admin,
            0,
            "p",
            [vec![], vec![does(Action::Deny, peers([z1]))]],
        )],
        &["api 10.0.1.20 80", "api web 80", "api 10.244.1.1 80"],
        &["api 10.0.1.10 80", "web 10.0.1.10 80"],
    );
}

#[test]
fn a_namespace_that_is_not_known_is_selected_by_nothing() {
    let mut cluster = cluster();
    let from_all = Some(vec![peers([of("", "")])]);
    cluster.take(policy("shop/p", "app=api", from_all, None));
    assert!(ask(&cluster, "db", "api", "80").allowed());
    cluster.take(Change::NamespaceGone("data".into()));
    assert!(!ask(&cluster, "db", "api", "80").allowed());
    assert!(ask(&cluster, "web", "api", "80").allowed());
}

#[test]
fn both_families_are_judged_by_the_same_pod() {
    let mut cluster = cluster();
    let mut dual = pod("shop", "web", "node1", "10.244.1.5", "app=web");
    dual.ips.push("fd00:10:244:1::5".parse().unwrap());
    cluster.take(Change::Pod(Arc::new(dual)));
    let mut api = pod("shop", "api", "node2", "10.244.2.5", "app=api");
    api.ips.push("fd00:10:244:2::5".parse().unwrap());
    cluster.take(Change::Pod(Arc::new(api)));
    let rule = peers([own("app=web")]);
    cluster.take(policy("shop/p", "app=api", Some(vec![rule]), None));
    assert!(ask(&cluster, "fd00:10:244:1::5", "fd00:10:244:2::5", "80").allowed());
    assert!(!ask(&cluster, "fd00::99", "fd00:10:244:2::5", "80").allowed());
}
