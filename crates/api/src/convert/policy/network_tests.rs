use serde_json::json;

use super::*;
use crate::convert::Slim;

fn read(spec: &Json) -> (NetworkPolicy, String) {
    let text = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "d", "name": "p", "uid": "u"}, "spec": spec});
    let slim: Slim<NetworkPolicy> = serde_json::from_str(&text.to_string()).unwrap();
    let problem = slim.problem().map(|error| error.to_string());
    let Value::Is(policy) = slim.converted.value else {
        panic!("no policy");
    };
    (NetworkPolicy::clone(&policy), problem.unwrap_or_default())
}

fn good(spec: &Json) -> NetworkPolicy {
    let (policy, problem) = read(spec);
    assert_eq!(problem, "");
    policy
}

/// The only ingress rule, and what is wrong.
fn rule(rule: &Json) -> (Rule, String) {
    let (policy, problem) = read(&json!({"podSelector": {}, "ingress": [rule]}));
    let mut rules = policy.ingress.unwrap();
    assert_eq!(rules.len(), 1);
    (rules.remove(0), problem)
}

#[test]
fn a_policy_brings_all_it_says() {
    let policy = good(&json!({
        "podSelector": {"matchLabels": {"app": "db"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [
                {"podSelector": {"matchLabels": {"app": "web"}}},
                {"namespaceSelector": {}, "podSelector": {}},
                {"namespaceSelector": {"matchLabels": {"team": "a"}}}],
            "ports": [{"port": 5432}, {"protocol": "UDP", "port": "dns"}, {"protocol": "SCTP"},
                {"port": 8000, "endPort": 8010}]}, {}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.1/8",
            "except": ["10.1.2.3/16", "010.3.0.0/16"]}}]}]}));
    assert_eq!(policy.key(), ("d".to_owned(), "p".to_owned()));
    assert_eq!(policy.uid, "u");
    assert_eq!(policy.pods.match_labels.get("app"), Some("db"));
    let ingress = policy.ingress.unwrap();
    let peers = ingress[0].peers.as_deref().unwrap();
    assert!(
        matches!(&peers[0], Peer::Pods { namespaces: Namespaces::Own, pods }
        if pods.match_labels.get("app") == Some("web"))
    );
    let everybody = Peer::Pods {
        namespaces: Namespaces::Selected(model::LabelSelector::default()),
        pods: model::LabelSelector::default(),
    };
    assert_eq!(peers[1], everybody);
    assert!(
        matches!(&peers[2], Peer::Pods { namespaces: Namespaces::Selected(of), .. }
        if of.match_labels.get("team") == Some("a"))
    );
    let port = |protocol, port| PortMatch {
        protocol: Some(protocol),
        port,
    };
    assert_eq!(
        ingress[0].ports.as_deref().unwrap(),
        [
            port(Protocol::Tcp, PortNumbers::Range(5432, 5432)),
            port(Protocol::Udp, PortNumbers::Named("dns".into())),
            port(Protocol::Sctp, PortNumbers::Any),
            port(Protocol::Tcp, PortNumbers::Range(8000, 8010)),
        ]
    );
    assert_eq!(ingress[1], Rule::default());
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    assert_eq!(
        policy.egress.unwrap()[0].peers.as_deref().unwrap(),
        [Peer::Block {
            net: net("10.0.0.0/8"),
            except: vec![net("10.1.0.0/16"), net("10.3.0.0/16")],
        }]
    );
}

#[test]
fn without_types_it_is_about_ingress_and_about_egress_where_it_has_such_rules() {
    let about = |spec: Json| {
        let policy = good(&spec);
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    assert_eq!(about(json!({"podSelector": {}})), (true, false));
    assert_eq!(about(json!({"egress": []})), (true, false));
    assert_eq!(about(json!({"egress": [{}]})), (true, true));
    assert_eq!(
        about(json!({"policyTypes": [], "egress": [{}]})),
        (true, true)
    );
    assert_eq!(
        about(json!({"policyTypes": ["Egress"], "ingress": [{}]})),
        (false, true)
    );
    assert_eq!(about(Json::Null), (true, false));
}

#[test]
fn lists_that_are_not_written_or_empty_stand_for_all() {
    for written in [json!({}), json!({"from": [], "ports": null})] {
        assert_eq!(rule(&written), (Rule::default(), String::new()));
    }
}

#[test]
fn a_broken_selector_closes_the_namespace() {
    let (policy, problem) = read(&json!({"podSelector": {"matchExpressions":
        [{"key": "app", "operator": "Like", "values": ["w"]}]}}));
    assert_eq!(policy.pods, model::LabelSelector::default());
    assert_eq!(
        problem,
        "NetworkPolicy d/p: spec.podSelector.matchExpressions[0].operator: \"Like\" is not known; \
         choose In, NotIn, Exists or DoesNotExist"
    );
}

#[test]
fn broken_types_are_both() {
    for types in [json!(["Ingress", "egress"]), json!("Ingress"), json!([1])] {
        let (policy, problem) = read(&json!({"policyTypes": types, "ingress": [{}]}));
        assert_eq!(policy.ingress.as_deref(), Some(&[Rule::default()][..]));
        assert_eq!(policy.egress.as_deref(), Some(&[][..]));
        assert!(
            problem.starts_with("NetworkPolicy d/p: spec.policyTypes"),
            "{problem}"
        );
    }
}

#[test]
fn what_is_not_even_of_its_type_lets_nothing_through() {
    for (spec, field) in [
        (json!([]), "spec"),
        (
            json!({"ingress": {}, "policyTypes": ["Ingress", "Egress"]}),
            "spec.ingress",
        ),
    ] {
        let (policy, problem) = read(&spec);
        assert_eq!(policy.ingress.as_deref(), Some(&[][..]));
        assert_eq!(policy.egress.as_deref(), Some(&[][..]));
        let start = format!("NetworkPolicy d/p: {field}: is not ");
        assert!(problem.starts_with(&start), "{problem}");
    }
    for one in [json!(7), json!({"from": [{}], "unless": []})] {
        assert_eq!(rule(&one).0, nothing());
    }
    let (rule, _) = rule(&json!({"from": {}, "ports": 8}));
    assert_eq!(rule, nothing());
}

#[test]
fn a_broken_peer_is_nobody_and_the_others_stay() {
    let cases = [
        (
            json!({}),
            ": names nobody: write podSelector, namespaceSelector or ipBlock",
        ),
        (
            json!({"nodeSelector": {}}),
            ".nodeSelector: is not known here; choose podSelector, namespaceSelector or ipBlock",
        ),
        (
            json!({"podSelector": {}, "nodeSelector": {}}),
            ".nodeSelector: is not known here",
        ),
        (
            json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}),
            ".ipBlock: goes with no selector: write two peers where either may match",
        ),
        (
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            ".podSelector.matchExpressions[0].values: is empty; In and NotIn need values",
        ),
        (
            json!({"podSelector": {}, "namespaceSelector": {"matchLabels": {"a": "b c"}}}),
            ".namespaceSelector.matchLabels[a]: \"b c\" cannot be the value of a label",
        ),
        (
            json!({"ipBlock": {}}),
            ".ipBlock.cidr: \"\" is not a CIDR such as 192.0.2.0/24 or 2001:db8::/64",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0"}}),
            ".ipBlock.cidr: \"10.0.0.0\" is not",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/33"}}),
            ".ipBlock.cidr: ",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/+8"}}),
            ".ipBlock.cidr: ",
        ),
        (json!({"ipBlock": {"cidr": "10.0.0/8"}}), ".ipBlock.cidr: "),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]}}),
            ".ipBlock.except[1]: 11.0.0.0/16 is not within 10.0.0.0/8",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/7"]}}),
            ".ipBlock.except[0]: 10.0.0.0/7 is not within 10.0.0.0/8",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/64"]}}),
            ".ipBlock.except[0]: fd00::/64 is not within 10.0.0.0/8",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x"]}}),
            ".ipBlock.except[0]: \"x\" is not a CIDR",
        ),
    ];
    let other = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    for (peer, said) in cases {
        let (rule, problem) = rule(&json!({"from": [peer, other]}));
        let start = format!("NetworkPolicy d/p: spec.ingress[0].from[0]{said}");
        assert!(problem.starts_with(&start), "{problem}");
        assert_eq!(rule.peers.unwrap().len(), 1, "{peer}");
        assert_eq!(rule.ports, None);
    }
    let (rule, _) = rule(&json!({"from": [{}]}));
    assert_eq!(rule.peers.as_deref(), Some(&[][..]));
}

#[test]
fn a_broken_port_is_nothing_and_the_others_stay() {
    let cases = [
        (json!({"port": 0}), ".port: 0 is no port: choose 1 to 65535"),
        (json!({"port": 65536}), ".port: 65536 is no port"),
        (json!({"port": -1}), ".port: -1 is no port"),
        (
            json!({"port": "80"}),
            ".port: \"80\" cannot be a port's name",
        ),
        (
            json!({"port": "a--b"}),
            ".port: \"a--b\" cannot be a port's name",
        ),
        (
            json!({"port": "much-too-long-name"}),
            ".port: \"much-too-long-name\" cannot be",
        ),
        (
            json!({"endPort": 80}),
            ".endPort: goes with port only: write the first port there",
        ),
        (
            json!({"port": "http", "endPort": 80}),
            ".endPort: goes with a number in port, not with a name",
        ),
        (
            json!({"port": 80, "endPort": 79}),
            ".endPort: 79 is less than port 80",
        ),
        (
            json!({"port": 80, "endPort": 70000}),
            ".endPort: 70000 is no port",
        ),
        (
            json!({"port": 80, "protocol": "ICMP"}),
            ".protocol: \"ICMP\" is not known; choose TCP, UDP or SCTP",
        ),
        (
            json!({"port": 80, "protocol": "tcp"}),
            ".protocol: \"tcp\" is not known",
        ),
        (json!({"port": 80, "from": 1}), ".from: is not known here"),
    ];
    for (port, said) in cases {
        let (rule, problem) = rule(&json!({"ports": [{"port": 443}, port]}));
        let start = format!("NetworkPolicy d/p: spec.ingress[0].ports[1]{said}");
        assert!(problem.starts_with(&start), "{problem}");
        assert_eq!(rule.peers, None);
        assert_eq!(rule.ports.unwrap().len(), 1, "{port}");
    }
}

#[test]
fn a_field_that_is_not_known_is_told() {
    let (policy, problem) = read(&json!({"podSelector": {}, "priority": 7, "ingress": [{}]}));
    assert_eq!(policy.ingress.unwrap(), [Rule::default()]);
    assert_eq!(
        problem,
        "NetworkPolicy d/p: spec.priority: is not known here; \
         choose podSelector, ingress, egress or policyTypes"
    );
}
