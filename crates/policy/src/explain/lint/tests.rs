//! Each mistake is found, with its field; and what is well written is not spoken of.

use std::sync::Arc;

use model::policy::{PortMatch, PortNumbers};
use model::{
    Change, Endpoint, EndpointSlice, Labels, Namespace, Protocol, Service, ServicePort,
    ServiceType, SlicePort,
};

use super::*;
use crate::explain::tests::{
    block, cluster, cnp, does, labelled, of, own, peers, pod, policy, ports, tcp,
};

/// Code and field of what is found, and all of the first.
fn found(policies: impl IntoIterator<Item = Change>) -> (Vec<String>, Vec<Finding>) {
    let mut cluster = cluster();
    for policy in policies {
        cluster.take(policy);
    }
    let mut declared = Declared::new();
    declared.insert(
        ("shop".into(), "web".into()),
        [(Protocol::Tcp, 8080)].into(),
    );
    let findings = lint(&cluster, &declared);
    let line = |one: &Finding| format!("{} {}", one.code, one.field);
    (findings.iter().map(line).collect(), findings)
}

fn finds(policy: Change, code: &str, field: &str, says: &str) {
    let (lines, findings) = found([policy]);
    assert!(lines.contains(&format!("{code} {field}")), "{lines:?}");
    let one = findings.iter().find(|one| one.code == code).unwrap();
    let text = format!("{}; {}", one.message, one.cure);
    assert!(text.contains(says), "{text}");
}

fn ingress(rules: impl Into<Vec<Rule>>) -> Change {
    policy("shop/p", "app=api", Some(rules.into()), None)
}

fn egress(rules: impl Into<Vec<Rule>>) -> Change {
    policy("shop/p", "app=api", None, Some(rules.into()))
}

fn named(name: &str) -> PortMatch {
    PortMatch {
        protocol: Some(Protocol::Tcp),
        port: PortNumbers::Named(name.into()),
    }
}

fn udp53() -> PortMatch {
    PortMatch {
        protocol: Some(Protocol::Udp),
        port: PortNumbers::Range(53, 53),
    }
}

#[test]
fn good_policies_are_not_spoken_of() {
    let web = Rule {
        ports: Some(vec![tcp(8080, 8080), named("http")]),
        ..peers([own("app=web"), of("team=b", "app=db")])
    };
    let (lines, _) = found([
        policy("shop/deny", "", Some(vec![]), None),
        policy("shop/deny-out", "", None, Some(vec![])),
        policy("shop/in", "app=api", Some(vec![web]), None),
        policy("shop/dns", "", None, Some(vec![ports([udp53()])])),
        policy(
            "shop/out",
            "app=api",
            None,
            Some(vec![peers([own("app=web")])]),
        ),
        policy(
            "shop/world",
            "app=api",
            None,
            Some(vec![peers([block("0.0.0.0/0", &["10.0.0.0/8"])])]),
        ),
        cnp(
            Tier::Admin,
            1,
            "c",
            [
                vec![does(model::policy::Action::Deny, peers([of("team=b", "")]))],
                vec![],
            ],
        ),
    ]);
    assert!(lines.is_empty(), "{lines:?}");
}

#[test]
fn an_egress_policy_that_forgets_dns() {
    let out = egress([peers([own("app=web")])]);
    finds(
        out.clone(),
        "egress-forgets-dns",
        "spec.egress",
        "pod shop/api",
    );
    let outside = egress([peers([block("0.0.0.0/0", &["10.0.0.0/8"])])]);
    finds(
        outside,
        "egress-forgets-dns",
        "spec.egress",
        "k8s-app: kube-dns",
    );
    // Another policy of the same pod opens it.
    let (lines, _) = found([
        out,
        policy("shop/dns", "", None, Some(vec![ports([udp53()])])),
    ]);
    assert!(lines.is_empty(), "{lines:?}");
    let kube_system = Rule {
        ports: Some(vec![udp53()]),
        ..peers([of(
            "kubernetes.io/metadata.name=kube-system",
            "k8s-app=kube-dns",
        )])
    };
    let (lines, _) = found([egress([kube_system, peers([own("app=web")])])]);
    assert!(
        !lines.iter().any(|line| line.starts_with("egress-forgets")),
        "{lines:?}"
    );
}

#[test]
fn selectors_that_match_nobody_name_the_near_ones() {
    let typo = policy("shop/p", "app=wep", Some(vec![]), None);
    finds(
        typo,
        "selects-no-pod",
        "spec.podSelector",
        "there are app=web and app=api",
    );
    finds(
        ingress([peers([own("app=wep")])]),
        "matches-no-pod",
        "spec.ingress[0].from[0].podSelector",
        "app=web",
    );
    let key = ingress([peers([own("application=web")])]);
    finds(
        key,
        "matches-no-pod",
        "spec.ingress[0].from[0].podSelector",
        "nobody has a label application; there are app and tier",
    );
    let elsewhere = ingress([peers([own("app=db")])]);
    finds(
        elsewhere,
        "matches-no-pod",
        "spec.ingress[0].from[0].podSelector",
        "kubernetes.io/metadata.name: data",
    );
    let by_name = ingress([peers([of("name=data", "")])]);
    finds(
        by_name,
        "matches-no-namespace",
        "spec.ingress[0].from[0].namespaceSelector",
        "kubectl label namespace data name=data",
    );
    let team = ingress([peers([of("team=c", "")])]);
    finds(
        team,
        "matches-no-namespace",
        "spec.ingress[0].from[0].namespaceSelector",
        "there are team=a and team=b",
    );
    let monitoring = ingress([peers([of("name=monitoring", "")])]);
    finds(
        monitoring,
        "matches-no-namespace",
        "spec.ingress[0].from[0].namespaceSelector",
        "write kubernetes.io/metadata.name: monitoring",
    );
    let lost = policy("shpo/p", "", Some(vec![]), None);
    finds(
        lost,
        "no-such-namespace",
        "metadata.namespace",
        "there are shop and data",
    );
    let name = "empty".to_owned();
    let labels = Labels::default();
    let (lines, _) = found([
        Change::Namespace(Arc::new(Namespace { name, labels })),
        policy("empty/p", "app=web", Some(vec![]), None),
    ]);
    assert_eq!(lines, ["namespace-without-pods metadata.namespace"]);
}

#[test]
fn two_items_where_one_was_meant() {
    let either = peers([of("team=b", ""), own("app=web")]);
    finds(
        ingress([either]),
        "and-was-meant",
        "spec.ingress[0].from[1]",
        "leave out the `-` before podSelector",
    );
    let apart = [peers([own("app=web")]), ports([tcp(8080, 8080)])];
    finds(
        ingress(apart),
        "and-was-meant",
        "spec.ingress[1].ports",
        "two rules are two ways in",
    );
}

#[test]
fn empty_rules_and_forgotten_directions() {
    let (_, alone) = found([ingress([Rule::default()])]);
    assert_eq!(
        (alone[0].code, alone[0].severity),
        ("allows-everything", Severity::Note)
    );
    let (_, beside) = found([ingress([peers([own("app=web")]), Rule::default()])]);
    assert_eq!(
        (beside[0].code, beside[0].severity),
        ("allows-everything", Severity::Warning)
    );
    let both = policy(
        "shop/p",
        "app=api",
        Some(vec![peers([own("app=web")])]),
        Some(vec![]),
    );
    finds(
        both,
        "egress-without-rules",
        "spec.policyTypes",
        "take Egress out of policyTypes",
    );
    let dns = Some(vec![ports([udp53()])]);
    let reverse = policy("shop/p", "app=api", Some(vec![]), dns);
    finds(
        reverse,
        "ingress-without-rules",
        "spec.policyTypes",
        "policyTypes: [Egress]",
    );
    finds(
        policy("shop/p", "app=api", None, None),
        "isolates-nothing",
        "spec.policyTypes",
        "neither direction",
    );
}

#[test]
fn ports_that_nobody_has() {
    finds(
        ingress([ports([tcp(9090, 9090)])]),
        "port-nobody-has",
        "spec.ingress[0].ports[0].port",
        "they serve TCP 8080 and UDP 53",
    );
    finds(
        ingress([ports([named("htpp")])]),
        "named-port-nobody-has",
        "spec.ingress[0].ports[0].port",
        "they have http and dns",
    );
    finds(
        ingress([ports([named("dns")])]),
        "port-nobody-has",
        "spec.ingress[0].ports[0].port",
        "write protocol: UDP",
    );
    let outside = Rule {
        ports: Some(vec![named("http")]),
        ..peers([block("203.0.113.0/24", &[])])
    };
    finds(
        egress([outside]),
        "named-port-outside",
        "spec.egress[0].ports[0].port",
        "write the number",
    );
    let to_api = Rule {
        ports: Some(vec![tcp(80, 80)]),
        ..peers([own("app=api")])
    };
    finds(
        policy("shop/p", "app=web", None, Some(vec![to_api])),
        "port-nobody-has",
        "spec.egress[0].ports[0].port",
        "they serve TCP 8080",
    );
    // A pod that declares nothing may serve anything.
    let (lines, _) = found([policy("data/p", "", Some(vec![ports([tcp(80, 80)])]), None)]);
    assert!(lines.is_empty(), "{lines:?}");
}

/// `shop/api` behind a Service of port 80 and node port.
fn service() -> [Change; 2] {
    let service = Service {
        namespace: "shop".into(),
        name: "api".into(),
        kind: ServiceType::NodePort,
        cluster_ips: vec!["10.96.0.5".parse().unwrap()],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30080),
        }],
        ..Service::default()
    };
    let slice = EndpointSlice {
        namespace: "shop".into(),
        name: "api-1".into(),
        service: "api".into(),
        v6: false,
        ports: vec![SlicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: Some(8080),
        }],
        endpoints: vec![Endpoint {
            ip: "10.244.2.5".parse().unwrap(),
            more: Box::default(),
            ready: true,
            serving: true,
            terminating: false,
            node: Some("node2".into()),
            zone: None,
            hostname: None,
            pod: None,
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        }],
        triggered: None,
    };
    [
        Change::Service(Arc::new(service)),
        Change::Slice(Arc::new(slice)),
    ]
}

#[test]
fn services_are_not_what_policies_see() {
    let with = |policy: Change| {
        let (_, findings) = found(service().into_iter().chain([policy]));
        let text =
            |one: &Finding| format!("{} {}: {}; {}", one.code, one.field, one.message, one.cure);
        findings.iter().map(text).collect::<Vec<_>>().join("\n")
    };
    let port = with(ingress([ports([tcp(80, 80)])]));
    assert!(
        port.contains("80 is the port of Service shop/api; policies see the pod's own: write 8080"),
        "{port}"
    );
    let to = with(policy(
        "shop/p",
        "app=web",
        None,
        Some(vec![peers([block("10.96.0.0/12", &[])])]),
    ));
    assert!(
        to.contains("block-of-services spec.egress[0].to[0].ipBlock.cidr"),
        "{to}"
    );
    let from = with(ingress([peers([block("203.0.113.0/24", &[])])]));
    assert!(
        from.contains("source-is-masqueraded") && from.contains("externalTrafficPolicy: Local"),
        "{from}"
    );
}

#[test]
fn ranges_that_say_nothing_or_pods() {
    let all = ingress([peers([block(
        "203.0.113.0/24",
        &["203.0.113.0/25", "203.0.113.128/25"],
    )])]);
    finds(
        all,
        "except-swallows-all",
        "spec.ingress[0].from[0].ipBlock.except",
        "nothing is left",
    );
    let pods = ingress([peers([block("10.244.1.5/32", &[])])]);
    finds(
        pods,
        "block-of-pods",
        "spec.ingress[0].from[0].ipBlock.cidr",
        "podSelector",
    );
}

#[test]
fn pods_of_the_hosts_network_are_no_subjects() {
    let mut only = pod("shop", "proxy", "node1", "10.0.1.10", "app=proxy");
    only.host_network = true;
    let (_, findings) = found([
        Change::Pod(Arc::new(only)),
        policy("shop/p", "app=proxy", Some(vec![]), None),
    ]);
    assert_eq!(
        (findings[0].code, findings[0].severity),
        ("host-network", Severity::Warning)
    );
    let (_, findings) = found([policy("shop/p", "app=web", Some(vec![]), None)]);
    assert_eq!(
        (findings[0].code, findings[0].severity),
        ("host-network", Severity::Note)
    );
    let (lines, _) = found([policy("shop/p", "", Some(vec![]), None)]);
    assert!(lines.is_empty(), "{lines:?}");
}

#[test]
fn policies_of_the_cluster() {
    let rule = || does(model::policy::Action::Deny, Rule::default());
    let late = cnp(Tier::Admin, 1, "c", [vec![rule(), rule()], vec![]]);
    finds(late, "never-asked", "spec.ingress[1]", "put it last");
    finds(
        cnp(Tier::Admin, 1, "c", [vec![], vec![]]),
        "isolates-nothing",
        "spec",
        "no rules",
    );
    let Change::ClusterPolicy(about) = cnp(Tier::Baseline, 1, "c", [vec![rule()], vec![]]) else {
        panic!("no policy of the cluster");
    };
    let mut about = ClusterPolicy::clone(&about);
    about.namespaces = labelled("team=z");
    finds(
        Change::ClusterPolicy(Arc::new(about)),
        "selects-no-pod",
        "spec.subject",
        "--show-labels",
    );
    let nodes = peers([Peer::Nodes(labelled("zone=z9"))]);
    let nodes = does(model::policy::Action::Deny, nodes);
    finds(
        cnp(Tier::Admin, 1, "c", [vec![], vec![nodes]]),
        "matches-no-node",
        "spec.egress[0].to[0].nodes",
        "kubectl get nodes",
    );
}
