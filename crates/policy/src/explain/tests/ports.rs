//! Ports of a rule.

use super::*;

#[test]
fn a_rule_without_peers_or_ports_matches_all_and_an_empty_list_nothing() {
    let with = |rule: Rule| policy("shop/p", "app=api", Some(vec![rule]), None);
    let all = &[
        "web api 80",
        "db api 53/UDP",
        "8.8.8.8 api 9/SCTP",
        "web api",
    ];
    holds([with(Rule::default())], all, &[]);
    holds([with(peers([]))], &[], all);
    holds([with(ports([]))], &[], all);
}

#[test]
fn ports_are_matched_with_their_protocol() {
    let with = |port: PortMatch| policy("shop/p", "app=api", Some(vec![ports([port])]), None);
    holds(
        [with(tcp(80, 80))],
        &["web api 80"],
        &["web api 80/UDP", "web api 80/SCTP", "web api 81", "web api"],
    );
    holds(
        [with(tcp(8000, 8100))],
        &["web api 8000", "web api 8050", "web api 8100"],
        &["web api 7999", "web api 8101", "web api 8050/UDP"],
    );
    let any = PortMatch {
        protocol: Some(Protocol::Sctp),
        port: PortNumbers::Any,
    };
    holds(
        [with(any)],
        &["web api 1/SCTP"],
        &["web api 1", "web api 1/UDP", "web api"],
    );
}

#[test]
fn a_rule_matches_peers_and_ports() {
    let both = Rule {
        peers: Some(vec![own("app=web")]),
        ports: Some(vec![tcp(80, 80), tcp(443, 443)]),
    };
    holds(
        [policy("shop/p", "app=api", Some(vec![both]), None)],
        &["web api 80", "web api 443"],
        &["web api 81", "db api 80", "web api 80/UDP"],
    );
    let apart = vec![peers([own("app=web")]), ports([tcp(80, 80)])];
    holds(
        [policy("shop/p", "app=api", Some(apart), None)],
        &["web api 81", "db api 80", "web api"],
        &["db api 81", "db api"],
    );
}

#[test]
fn named_ports_are_those_of_the_pod_connected_to() {
    let http = || named(Some(Protocol::Tcp), "http");
    holds(
        [policy(
            "shop/p",
            "app=api",
            Some(vec![ports([http()])]),
            None,
        )],
        &["web api 8080"],
        &["web api 9090", "web api 8080/UDP", "web api 80"],
    );
    // Out: of each destination its own, and of what is no pod none.
    holds(
        [policy(
            "shop/p",
            "app=web",
            None,
            Some(vec![ports([http()])]),
        )],
        &["web api 8080", "web db 9090"],
        &[
            "web api 9090",
            "web db 8080",
            "web 8.8.8.8 8080",
            "web job 8080",
            "web 10.0.1.20 8080",
        ],
    );
    holds(
        [policy(
            "shop/p",
            "app=api",
            Some(vec![ports([named(Some(Protocol::Tcp), "dns")])]),
            None,
        )],
        &[],
        &["web api 53/UDP", "web api 53"],
    );
    // Only of a ClusterNetworkPolicy: the port's own protocol.
    let any = does(Action::Accept, ports([named(None, "dns")]));
    let deny = does(Action::Deny, Rule::default());
    holds(
        [cnp(Tier::Admin, 0, "p", [vec![any, deny], vec![]])],
        &["web api 53/UDP"],
        &["web api 53", "web api 8080"],
    );
}
