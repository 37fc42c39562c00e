//! Whose policies are asked, and what needs none.

use super::*;

#[test]
fn what_nobody_forbids_is_allowed() {
    let cluster = cluster();
    let answer = ask(&cluster, "web", "db", "5432");
    assert!(answer.allowed());
    assert_eq!(answer.egress.reason, Reason::Nothing);
    assert_eq!(answer.ingress.reason, Reason::Nothing);
    let outside = ask(&cluster, "web", "8.8.8.8", "443");
    assert_eq!(outside.ingress.reason, Reason::NotAPod);
}

#[test]
fn a_policy_isolates_the_pods_it_selects_in_the_directions_it_is_about() {
    holds(
        [policy("shop/deny", "app=api", DENY, None)],
        &["api web 80", "web db 80", "db web 80", "api 8.8.8.8 53/UDP"],
        &["web api 8080", "db api 8080", "8.8.8.8 api 80", "web api"],
    );
    holds(
        [policy("shop/deny", "app=web", None, DENY)],
        &["api web 80", "db web"],
        &["web api 8080", "web db 53/UDP", "web 8.8.8.8 443", "web db"],
    );
    holds(
        [policy("shop/deny", "", DENY, None)],
        &["web db 80", "job db 80"],
        &["web api 80", "db web 80"],
    );
}

#[test]
fn a_policy_is_about_its_own_namespace_only() {
    holds(
        [policy("data/deny", "app=web", DENY, DENY)],
        &["api web 80", "web api 80"],
        &[],
    );
    holds(
        [policy("nowhere/deny", "", DENY, DENY)],
        &["api web 80", "db api 80"],
        &[],
    );
}

#[test]
fn policies_are_a_union() {
    let by_web = policy(
        "shop/a",
        "app=api",
        Some(vec![peers([own("app=web")])]),
        None,
    );
    let by_team = policy(
        "shop/b",
        "app=api",
        Some(vec![peers([of("team=b", "app=db")])]),
        None,
    );
    holds(
        [by_web, by_team, policy("shop/deny", "", DENY, None)],
        &["web api 1", "db api 1"],
        &["job api 1", "8.8.8.8 api 1", "api web 1"],
    );
}

#[test]
fn the_own_node_is_let_in_and_not_more() {
    let mut cluster = cluster();
    cluster.take(policy("shop/deny", "", DENY, DENY));
    // api is on node2: by any address of the node, whatever the port.
    for from in ["10.0.1.20", "10.244.2.1", "10.244.2.0"] {
        for port in ["80", "53/UDP", ""] {
            let answer = ask(&cluster, from, "api", port);
            assert_eq!(answer.ingress.reason, Reason::OwnNode, "{from}");
            assert_eq!(answer.egress.reason, Reason::NotAPod, "{from}");
        }
    }
    assert!(!ask(&cluster, "10.0.1.10", "api", "80").allowed());
    assert!(
        !ask(&cluster, "api", "10.0.1.20", "80").allowed(),
        "out is judged"
    );
    assert!(
        !ask(&cluster, "db", "api", "80").allowed(),
        "a neighbour on the node is judged"
    );
}

#[test]
fn a_pod_may_talk_to_itself() {
    let mut cluster = cluster();
    cluster.take(policy("shop/deny", "", DENY, DENY));
    let deny = does(Action::Deny, Rule::default());
    cluster.take(cnp(
        Tier::Admin,
        0,
        "deny",
        [vec![deny.clone()], vec![deny]],
    ));
    let answer = ask(&cluster, "web", "web", "80");
    assert_eq!(answer.egress.reason, Reason::Itself);
    assert_eq!(answer.ingress.reason, Reason::Itself);
    assert!(answer.allowed());
}

#[test]
fn both_sides_must_allow() {
    let out = policy(
        "shop/out",
        "app=web",
        None,
        Some(vec![peers([own("app=api")])]),
    );
    let deny = policy("shop/deny", "", DENY, None);
    holds([out.clone(), deny.clone()], &[], &["web api 80"]);
    let into = policy(
        "shop/in",
        "app=api",
        Some(vec![peers([own("app=web")])]),
        None,
    );
    holds(
        [out, deny, into],
        &["web api 80"],
        &["web db 80", "api web 80"],
    );
}

#[test]
fn a_pod_that_is_not_known_is_closed_where_a_policy_may_be_about_it() {
    let mut cluster = cluster();
    let new = End {
        ip: "10.244.1.77".parse().unwrap(),
        pod: Some(("shop".into(), "new".into())),
        node: Some("node1".into()),
    };
    let into = |cluster: &Cluster| {
        let from = End::at(cluster, "10.244.2.6".parse().unwrap());
        let to = new.clone();
        let port = Some((Protocol::Tcp, 80));
        explain(cluster, &Question { from, to, port }).ingress
    };
    cluster.take(policy("data/in", "", DENY, None));
    cluster.take(policy("shop/out", "", None, DENY));
    assert!(into(&cluster).allowed);
    cluster.take(policy("shop/in", "app=other", DENY, None));
    let by = vec![("shop".into(), "in".into())];
    assert_eq!(into(&cluster), Side::by(Reason::NotKnown { by }));
}
