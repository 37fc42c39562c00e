//! ClusterNetworkPolicies before and behind NetworkPolicies, and who decided.

use super::*;

#[test]
fn tiers_are_asked_in_order() {
    let rules = |action| [vec![does(action, peers([of("team=a", "")]))], vec![]];
    let np_deny = || policy("shop/deny", "app=api", DENY, None);
    let np_allow = || policy("shop/allow", "app=api", Some(vec![Rule::default()]), None);
    let (accept, deny, pass) = (
        rules(Action::Accept),
        rules(Action::Deny),
        rules(Action::Pass),
    );
    let admin = |rules: &[Vec<ClusterRule>; 2]| cnp(Tier::Admin, 5, "m", rules.clone());
    let baseline = |rules: &[Vec<ClusterRule>; 2]| cnp(Tier::Baseline, 5, "m", rules.clone());
    let (web, db) = ("web api 80", "db api 80");
    // Admin decides before NetworkPolicies.
    holds([admin(&accept), np_deny()], &[web], &[db]);
    holds([admin(&deny), np_allow()], &[db], &[web]);
    holds([admin(&deny)], &[db], &[web]);
    holds([admin(&pass), np_deny()], &[], &[web, db]);
    // Baseline is asked only where no NetworkPolicy is about the pod.
    holds([baseline(&deny)], &[db], &[web]);
    holds([baseline(&deny), np_allow()], &[web, db], &[]);
    holds([baseline(&accept), np_deny()], &[], &[web, db]);
    let elsewhere = policy("shop/other", "app=web", DENY, None);
    holds([baseline(&deny), elsewhere], &[db], &[web]);
    let egress_only = policy("shop/egress", "app=api", None, DENY);
    holds([baseline(&deny), egress_only], &[db], &[web]);
}

#[test]
fn the_lowest_priority_then_the_first_name_then_the_first_rule_decides() {
    let says = |action| [vec![does(action, Rule::default())], vec![]];
    let (yes, no, skip) = (Action::Accept, Action::Deny, Action::Pass);
    let admin = |priority, name: &str, action| cnp(Tier::Admin, priority, name, says(action));
    let line = &["web api 80"];
    holds([admin(1, "z", yes), admin(2, "a", no)], line, &[]);
    holds([admin(2, "a", yes), admin(1, "z", no)], &[], line);
    holds([admin(1, "a", yes), admin(1, "b", no)], line, &[]);
    let both = [
        vec![does(no, ports([tcp(80, 80)])), does(yes, Rule::default())],
        vec![],
    ];
    holds([cnp(Tier::Admin, 0, "p", both)], &["web api 81"], line);
    // Pass leaves the tier, also all its later policies; the next tier is asked.
    holds([admin(1, "a", skip), admin(2, "b", no)], line, &[]);
    let base = cnp(Tier::Baseline, 0, "b", says(no));
    holds([admin(1, "a", skip), base.clone()], &[], line);
    let pass = cnp(Tier::Baseline, 0, "a", says(skip));
    holds([pass, base], line, &[]);
}

#[test]
fn a_cluster_policy_has_subjects_and_directions() {
    let deny = || does(Action::Deny, Rule::default());
    let mut about = match cnp(Tier::Admin, 0, "p", [vec![deny()], vec![]]) {
        Change::ClusterPolicy(policy) => ClusterPolicy::clone(&policy),
        other => panic!("{other:?}"),
    };
    about.namespaces = labelled("team=a");
    about.pods = labelled("app=api");
    holds(
        [Change::ClusterPolicy(Arc::new(about))],
        &["api web 80", "api db 80", "web db 80", "10.0.1.20 api 80"],
        &["web api 80", "db api 80", "8.8.8.8 api 80", "web api"],
    );
    holds(
        [cnp(Tier::Admin, 0, "p", [vec![], vec![deny()]])],
        &["8.8.8.8 api 80", "10.0.1.10 api 80"],
        &["api 8.8.8.8 80", "api 10.0.1.20 80"],
    );
}

#[test]
fn the_deciding_policy_and_rule_are_named() {
    let mut cluster = cluster();
    cluster.take(policy("shop/b", "", DENY, None));
    cluster.take(policy("shop/a", "app=api", DENY, None));
    cluster.take(policy("data/a", "", DENY, None));
    let reason = |cluster: &Cluster, from: &str| ask(cluster, from, "api", "80").ingress.reason;
    assert_eq!(reason(&cluster, "web"), isolated(&["shop/a", "shop/b"]));
    let rules = vec![peers([own("app=nobody")]), peers([own("app=web")])];
    cluster.take(policy("shop/c", "", Some(rules.clone()), None));
    cluster.take(policy("shop/d", "", Some(rules), None));
    assert_eq!(reason(&cluster, "web"), rule(("shop", "c"), 1));
    let all = ["shop/a", "shop/b", "shop/c", "shop/d"];
    assert_eq!(reason(&cluster, "db"), isolated(&all));
    let pass = does(Action::Pass, peers([own("app=web")]));
    let deny = does(Action::Deny, peers([of("team=a", "")]));
    cluster.take(cnp(Tier::Admin, 9, "edge", [vec![pass, deny], vec![]]));
    let edge = Reason::Cluster {
        tier: Tier::Admin,
        policy: "edge".into(),
        rule: 1,
        action: Action::Deny,
    };
    assert_eq!(
        reason(&cluster, "web"),
        edge,
        "a cluster's policy has no namespace of its own"
    );
}
