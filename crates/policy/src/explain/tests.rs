//! Each line of the meaning, on a small cluster: two nodes, namespaces `shop` (team=a) and `data`
//! (team=b).

use std::sync::Arc;

use model::policy::{ClusterRule, Namespaces, Peer, PortMatch, PortNumbers, Rule};
use model::selector::{Operator, Requirement};
use model::{
    Change, ClusterPolicy, ContainerPort, LabelSelector, Labels, Namespace, NetworkPolicy, Node,
    Pod,
};

use super::*;

/// `app=web` and the like; an empty text selects everything.
pub(crate) fn labelled(text: &str) -> LabelSelector {
    LabelSelector {
        match_labels: labels(text),
        ..LabelSelector::default()
    }
}

fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.collect()
}

pub(crate) fn pod(namespace: &str, name: &str, node: &str, ip: &str, marks: &str) -> Pod {
    Pod {
        namespace: namespace.into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        node: node.into(),
        ips: vec![ip.parse().unwrap()],
        host_network: false,
        labels: labels(marks),
        ports: Vec::new(),
        created: 0,
        leaving: false,
    }
}

pub(crate) fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for number in 1..=2u8 {
        cluster.take(Change::Node(Node {
            name: format!("node{number}"),
            addresses: vec![format!("10.0.1.{number}0").parse().unwrap()],
            pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
            vtep_mac: None,
            vtep_mac_v6: None,
            labels: [("zone".to_owned(), format!("z{number}"))].into(),
            leaving: false,
        }));
    }
    for (name, team) in [("shop", "team=a"), ("data", "team=b")] {
        let labels = labels(team);
        let name = name.into();
        cluster.take(Change::Namespace(Arc::new(Namespace { name, labels })));
    }
    let port = |name: &str, protocol, port| ContainerPort {
        name: name.into(),
        protocol,
        port,
    };
    for (namespace, name, node, ip, marks) in [
        ("shop", "web", "node1", "10.244.1.5", "app=web,tier=front"),
        ("shop", "api", "node2", "10.244.2.5", "app=api"),
        ("data", "db", "node2", "10.244.2.6", "app=db"),
        ("data", "job", "node1", "10.244.1.6", "app=job,tier=front"),
    ] {
        let mut pod = pod(namespace, name, node, ip, marks);
        if name == "api" {
            pod.ports = vec![
                port("http", Protocol::Tcp, 8080),
                port("dns", Protocol::Udp, 53),
            ];
        }
        if name == "db" {
            pod.ports = vec![port("http", Protocol::Tcp, 9090)];
        }
        cluster.take(Change::Pod(Arc::new(pod)));
    }
    let mut host = pod("shop", "host", "node1", "10.0.1.10", "app=web");
    host.host_network = true;
    cluster.take(Change::Pod(Arc::new(host)));
    cluster
}

/// A NetworkPolicy about the pods with these labels.
pub(crate) fn policy(
    key: &str,
    pods: &str,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Change {
    let (namespace, name) = key.split_once('/').unwrap();
    Change::Policy(Arc::new(NetworkPolicy {
        namespace: namespace.into(),
        name: name.into(),
        uid: String::new(),
        pods: labelled(pods),
        ingress,
        egress,
    }))
}

pub(crate) fn cnp(tier: Tier, priority: u16, name: &str, rules: [Vec<ClusterRule>; 2]) -> Change {
    let [ingress, egress] = rules;
    Change::ClusterPolicy(Arc::new(ClusterPolicy {
        name: name.into(),
        uid: String::new(),
        tier,
        priority,
        namespaces: LabelSelector::default(),
        pods: LabelSelector::default(),
        ingress,
        egress,
    }))
}

pub(crate) fn does(action: Action, rule: Rule) -> ClusterRule {
    ClusterRule {
        name: String::new(),
        action,
        rule,
    }
}

pub(crate) fn peers(peers: impl Into<Vec<Peer>>) -> Rule {
    Rule {
        peers: Some(peers.into()),
        ports: None,
    }
}

pub(crate) fn ports(ports: impl Into<Vec<PortMatch>>) -> Rule {
    Rule {
        peers: None,
        ports: Some(ports.into()),
    }
}

/// Pods of the policy's own namespace.
pub(crate) fn own(marks: &str) -> Peer {
    Peer::Pods {
        namespaces: Namespaces::Own,
        pods: labelled(marks),
    }
}

/// Pods of the namespaces with such labels.
pub(crate) fn of(namespaces: &str, marks: &str) -> Peer {
    Peer::Pods {
        namespaces: Namespaces::Selected(labelled(namespaces)),
        pods: labelled(marks),
    }
}

pub(crate) fn block(net: &str, except: &[&str]) -> Peer {
    Peer::Block {
        net: net.parse().unwrap(),
        except: except.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

pub(crate) fn tcp(first: u16, last: u16) -> PortMatch {
    PortMatch {
        protocol: Some(Protocol::Tcp),
        port: PortNumbers::Range(first, last),
    }
}

fn named(protocol: Option<Protocol>, name: &str) -> PortMatch {
    let port = PortNumbers::Named(name.into());
    PortMatch { protocol, port }
}

/// The address of a pod by name, or the text itself.
fn ip(cluster: &Cluster, text: &str) -> IpAddr {
    let pod = cluster.pods.values().find(|pod| pod.name == text);
    pod.map_or_else(|| text.parse().unwrap(), |pod| pod.ips[0])
}

/// Asks by names of pods or addresses; the port is `80`, `53/UDP` or nothing for ICMP.
pub(crate) fn ask(cluster: &Cluster, from: &str, to: &str, port: &str) -> Answer {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
    let protocol = Protocol::ALL
        .into_iter()
        .find(|each| each.word() == protocol);
    let port = number
        .parse()
        .ok()
        .map(|number| (protocol.unwrap(), number));
    let question = Question {
        from: End::at(cluster, ip(cluster, from)),
        to: End::at(cluster, ip(cluster, to)),
        port,
    };
    explain(cluster, &question)
}

/// A cluster with these policies, and what is allowed in it: lines of `from to port`.
fn holds(policies: impl IntoIterator<Item = Change>, yes: &[&str], no: &[&str]) {
    let mut cluster = cluster();
    for policy in policies {
        cluster.take(policy);
    }
    for (lines, expected) in [(yes, true), (no, false)] {
        for line in lines {
            let mut words = line.split(' ');
            let mut next = || words.next().unwrap_or_default();
            let answer = ask(&cluster, next(), next(), next());
            assert_eq!(answer.allowed(), expected, "{line}: {answer:?}");
        }
    }
}

fn isolated(by: &[&str]) -> Reason {
    let key = |text: &&str| {
        let (namespace, name) = text.split_once('/').unwrap();
        (namespace.to_owned(), name.to_owned())
    };
    Reason::Isolated {
        by: by.iter().map(key).collect(),
    }
}

fn rule(policy: (&str, &str), rule: usize) -> Reason {
    let policy = (policy.0.into(), policy.1.into());
    Reason::Rule { policy, rule }
}

const DENY: Option<Vec<Rule>> = Some(Vec::new());

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
