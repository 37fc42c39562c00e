use serde_json::json;

use super::*;
use crate::convert::Slim;

fn read(spec: &Json) -> (ClusterPolicy, String) {
    let text = json!({"apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy", "metadata": {"name": "p", "uid": "u"}, "spec": spec});
    let slim: Slim<ClusterPolicy> = serde_json::from_str(&text.to_string()).unwrap();
    let problem = slim.problem().map(|error| error.to_string());
    let Value::Is(policy) = slim.converted.value else {
        panic!("no policy");
    };
    (ClusterPolicy::clone(&policy), problem.unwrap_or_default())
}

fn with(field: &str, value: &Json) -> Json {
    let mut spec = json!({"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}});
    spec[field] = value.clone();
    spec
}

/// The only egress rule, and what is wrong.
fn rule(rule: &Json) -> (ClusterRule, String) {
    let (policy, problem) = read(&with("egress", &json!([rule])));
    let mut rules = policy.egress;
    assert_eq!(rules.len(), 1);
    (rules.remove(0), problem)
}

fn any() -> LabelSelector {
    LabelSelector::default()
}

#[test]
fn a_policy_brings_all_it_says() {
    let (policy, problem) = read(&json!({
        "tier": "Baseline", "priority": 1000,
        "subject": {"pods": {"namespaceSelector": {"matchLabels": {"team": "a"}},
            "podSelector": {"matchLabels": {"app": "db"}}}},
        "ingress": [{"name": "web", "action": "Accept",
            "from": [{"namespaces": {"matchLabels": {"team": "b"}}},
                {"pods": {"podSelector": {}}}],
            "protocols": [{"tcp": {"destinationPort": {"number": 5432}}},
                {"udp": {"destinationPort": {"range": {"start": 100, "end": 200}}}},
                {"destinationNamedPort": "http"}]}],
        "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.1/8", "fd00::/8"]}]},
            {"action": "Pass", "to": [{"nodes": {}}]}]}));
    assert_eq!(problem, "");
    assert_eq!((policy.name.as_str(), policy.uid.as_str()), ("p", "u"));
    assert_eq!((policy.tier, policy.priority), (Tier::Baseline, 1000));
    assert_eq!(policy.namespaces.match_labels.get("team"), Some("a"));
    assert_eq!(policy.pods.match_labels.get("app"), Some("db"));
    let web = &policy.ingress[0];
    assert_eq!((web.name.as_str(), web.action), ("web", Action::Accept));
    let peers = web.rule.peers.as_deref().unwrap();
    assert!(
        matches!(&peers[0], Peer::Pods { namespaces: Namespaces::Selected(of), pods }
        if of.match_labels.get("team") == Some("b") && *pods == any())
    );
    let everybody = Peer::Pods {
        namespaces: Namespaces::Selected(any()),
        pods: any(),
    };
    assert_eq!(peers[1], everybody);
    let ports = web.rule.ports.as_deref().unwrap();
    let protocols = ports.iter().map(|port| port.protocol);
    let tcp_udp = [Some(model::Protocol::Tcp), Some(model::Protocol::Udp), None];
    assert_eq!(protocols.collect::<Vec<_>>(), tcp_udp);
    assert_eq!(ports[1].port, PortNumbers::Range(100, 200));
    assert_eq!(ports[2].port, PortNumbers::Named("http".into()));
    let block = |text: &str| Peer::Block {
        net: text.parse().unwrap(),
        except: Vec::new(),
    };
    let deny = &policy.egress[0];
    assert_eq!(
        deny.rule.peers.as_deref().unwrap(),
        [block("10.0.0.0/8"), block("fd00::/8")]
    );
    assert_eq!((deny.action, &deny.rule.ports), (Action::Deny, &None));
    assert_eq!(
        policy.egress[1].rule.peers.as_deref().unwrap(),
        [Peer::Nodes(any())]
    );
}

#[test]
fn where_its_place_is_not_known_only_what_it_denies_is_left() {
    let peers = json!([{"namespaces": {"matchLabels": {"a": "b"}}}]);
    let cases = [
        (
            "tier",
            json!("System"),
            "\"System\" is not known; choose Admin or Baseline",
        ),
        (
            "tier",
            Json::Null,
            "\"\" is not known; choose Admin or Baseline",
        ),
        (
            "priority",
            json!(1001),
            "1001 is out of range: choose 0 to 1000",
        ),
        ("priority", json!(-1), "-1 is out of range"),
        ("priority", Json::Null, "is missing: choose 0 to 1000"),
        ("subject", Json::Null, "is empty: write namespaces or pods"),
        ("subject", json!({"nodes": {}}), ""),
        (
            "subject",
            json!({"namespaces": {"matchLabels": {"a": "b c"}}}),
            "",
        ),
        (
            "subject",
            json!({"pods": {"podSelector": {}}, "namespaces": {}}),
            "",
        ),
    ];
    for (field, value, said) in cases {
        let mut spec = with(field, &value);
        spec["ingress"] = json!([{"action": "Accept", "from": peers},
            {"action": "Pass", "from": peers}, {"action": "Deny", "from": peers}]);
        let (policy, problem) = read(&spec);
        assert!(
            problem.starts_with(&format!("ClusterNetworkPolicy p: spec.{field}")),
            "{problem}"
        );
        assert!(problem.contains(said), "{problem}");
        assert_eq!((policy.tier, policy.priority), (Tier::Admin, 0));
        let left: Vec<usize> = policy
            .ingress
            .iter()
            .map(|one| one.rule.peers.as_ref().unwrap().len())
            .collect();
        assert_eq!(left, [0, 0, 1]);
        assert_eq!(policy.pods, any());
        assert_eq!(policy.namespaces, any());
    }
}

#[test]
fn a_broken_peer_accepts_nobody_and_denies_everybody() {
    let cases = [
        (
            json!({}),
            ": is empty: write namespaces, pods, nodes, networks or domainNames",
        ),
        (
            json!({"services": {}}),
            ".services: is not known here; choose namespaces",
        ),
        (
            json!({"namespaces": {}, "nodes": {}}),
            ".nodes: is one too many: write only one of namespaces",
        ),
        (
            json!({"namespaces": {"matchExpressions": [{"key": "a", "operator": "NotIn"}]}}),
            ".namespaces.matchExpressions[0].values: is empty",
        ),
        (
            json!({"pods": {"podSelector": []}}),
            ".pods.podSelector: is not an object",
        ),
        (
            json!({"networks": []}),
            ".networks: is empty: write at least one",
        ),
        (
            json!({"networks": ["10.0.0.0/40"]}),
            ".networks[0]: \"10.0.0.0/40\" is not a CIDR",
        ),
        (
            json!({"domainNames": ["example.com"]}),
            ".domainNames: is not served yet and matches nobody; write the addresses in networks",
        ),
    ];
    let other = json!({"namespaces": {"matchLabels": {"a": "b"}}});
    let ports = json!([{"tcp": {"destinationPort": {"number": 80}}}]);
    for (peer, said) in cases {
        let of = |action: &str| {
            let (rule, problem) = rule(
                &json!({"name": "n", "action": action, "to": [peer, other], "protocols": ports}),
            );
            let start = format!("ClusterNetworkPolicy p: spec.egress[0].to[0]{said}");
            assert!(problem.starts_with(&start), "{problem}");
            assert_eq!(rule.name, "n");
            assert_eq!(rule.rule.ports.unwrap().len(), 1);
            (rule.action, rule.rule.peers.map(|peers| peers.len()))
        };
        assert_eq!(of("Accept"), (Action::Accept, Some(1)));
        assert_eq!(of("Deny"), (Action::Deny, None));
        assert_eq!(of("Pass"), (Action::Deny, None));
    }
    let (rule, _) = rule(&json!({"action": "Accept",
        "to": [{"networks": ["10.0.0.0/8", "x", "10.1.2.0/24"]}]}));
    assert_eq!(rule.rule.peers.unwrap().len(), 2);
}

#[test]
fn into_pods_come_namespaces_and_pods_only() {
    for kind in ["nodes", "networks"] {
        let from = json!([{"action": "Deny", "from": [{kind: {}}]}]);
        let (policy, problem) = read(&with("ingress", &from));
        let start = format!("ClusterNetworkPolicy p: spec.ingress[0].from[0].{kind}: is not known");
        assert!(problem.starts_with(&start), "{problem}");
        assert_eq!(policy.ingress[0].rule, Rule::default());
    }
}

#[test]
fn a_broken_port_accepts_nothing_and_denies_everything() {
    let port = |port: Json| json!({"tcp": {"destinationPort": port}});
    let cases = [
        (
            json!({}),
            ": is empty: write tcp, udp, sctp or destinationNamedPort",
        ),
        (json!({"icmp": {}}), ".icmp: is not known here"),
        (json!({"tcp": {}}), ".tcp: is empty: write destinationPort"),
        (
            json!({"tcp": {"sourcePort": {}}}),
            ".tcp.sourcePort: is not known here",
        ),
        (
            port(json!({})),
            ".tcp.destinationPort: is empty: write number or range",
        ),
        (
            port(json!({"number": 0})),
            ".tcp.destinationPort.number: 0 is no port",
        ),
        (
            port(json!({"number": 1, "range": {}})),
            ".tcp.destinationPort.range: is one too many",
        ),
        (
            port(json!({"range": {"start": 9, "end": 8}})),
            ".tcp.destinationPort.range.end: 8 is less than start 9",
        ),
        (
            port(json!({"range": {"start": 9}})),
            ".tcp.destinationPort.range.end: is missing",
        ),
        (
            json!({"destinationNamedPort": "80"}),
            ".destinationNamedPort: \"80\" cannot be",
        ),
    ];
    let other = json!({"udp": {"destinationPort": {"number": 53}}});
    for (port, said) in cases {
        let of = |action: &str| {
            let (rule, problem) = rule(&json!({"action": action,
                "to": [{"namespaces": {}}], "protocols": [port, other]}));
            let start = format!("ClusterNetworkPolicy p: spec.egress[0].protocols[0]{said}");
            assert!(problem.starts_with(&start), "{problem}");
            assert_eq!(rule.rule.peers.unwrap().len(), 1);
            (rule.action, rule.rule.ports.map(|ports| ports.len()))
        };
        assert_eq!(of("Accept"), (Action::Accept, Some(1)));
        assert_eq!(of("Deny"), (Action::Deny, None));
        assert_eq!(of("Pass"), (Action::Deny, None));
    }
}

#[test]
fn a_rule_that_is_not_understood_at_all_closes() {
    let to = json!([{"namespaces": {}}]);
    let (unknown, problem) = rule(&json!({"action": "Log", "to": to}));
    assert_eq!(unknown.action, Action::Deny);
    assert_eq!(
        problem,
        "ClusterNetworkPolicy p: spec.egress[0].action: \"Log\" is not known; choose Accept, Deny or Pass"
    );
    assert_eq!(unknown.rule.peers.unwrap().len(), 1);
    let field = |action: &str| {
        let (rule, problem) = rule(&json!({"action": action, "to": to, "unless": []}));
        assert!(
            problem.contains("spec.egress[0].unless: is not known here"),
            "{problem}"
        );
        (rule.action, rule.rule)
    };
    assert_eq!(field("Accept"), (Action::Accept, nothing()));
    assert_eq!(field("Deny"), (Action::Deny, Rule::default()));
    assert_eq!(field("Pass"), (Action::Deny, Rule::default()));
    assert_eq!(rule(&json!(3)).0.rule, Rule::default());
    let (empty, _) = rule(&json!({"action": "Deny", "to": []}));
    assert_eq!(empty.rule, Rule::default());
    let (empty, _) = rule(&json!({"action": "Accept"}));
    assert_eq!(empty.rule.peers.as_deref(), Some(&[][..]));
    let (policy, _) = read(&with("ingress", &json!({})));
    assert_eq!(policy.ingress, [closing(String::new(), Action::Deny)]);
}
