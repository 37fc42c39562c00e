//! What becomes of a connection, by kind of frontend, policy, source and endpoints. Each line of
//! kube-proxy's behaviour that is decided before any rule is written has its test here.

use model::config::{LocalDetection, NodePortAddresses};
use model::{Change, Cluster, Config, Protocol, Service, TrafficPolicy};
use services::explain::Origin::{Elsewhere, Node, Pod};
use services::explain::{Answer, Origin, Question, Verdict, explain, trouble};
use services::plan::{FrontendKind, Plan, Settings};

use crate::build::{
    Put as _, ask, balanced, cluster, config, endpoint, ip, leaving, plan, port, question, service,
    settings, slice, unready,
};

const CLUSTER_IP: &str = "10.96.0.1:80";
const BALANCER: &str = "192.0.2.1:80";
const NODE_PORT: &str = "10.0.1.10:30080";
const EXTERNAL: &str = "192.0.2.9:80";

/// The addresses it goes to, `masquerade` after them where all of them are, or `reject`, `drop`,
/// `pass`.
fn said(answer: &Answer) -> String {
    match &answer.verdict {
        Verdict::NotAService => "pass".to_owned(),
        Verdict::Reject(_) => "reject".to_owned(),
        Verdict::Drop(_) => "drop".to_owned(),
        Verdict::Forward { to, masquerade } => {
            let mut words: Vec<String> = to.iter().map(|(to, _)| to.ip.to_string()).collect();
            words.extend(masquerade.map(|_| "masquerade".to_owned()));
            words.join(" ")
        }
    }
}

fn asked(plan: &Plan, origin: Origin, to: &str) -> String {
    said(&ask(plan, origin, to))
}

/// `ns/a` with all kinds of frontends.
fn everything() -> Service {
    let mut made = balanced("a", 1, "192.0.2.1", 30080);
    made.external_ips = vec![ip("192.0.2.9")];
    made
}

/// With these endpoints; on node1 are those in 10.244.1.0/24.
fn with(service: Service, endpoints: &[&str]) -> Cluster {
    let mut cluster = cluster();
    service.put(&mut cluster);
    let endpoints = endpoints.iter().map(|address| endpoint(address)).collect();
    slice("a", "1", endpoints).put(&mut cluster);
    cluster
}

/// With the configuration changed.
fn plan_as(cluster: &Cluster, change: impl FnOnce(&mut Config)) -> Plan {
    let mut config = config();
    change(&mut config);
    Plan::of(Settings::of(cluster, &config, "node1").unwrap(), cluster)
}

/// Checks a table: to whom, from where, what.
fn table(plan: &Plan, rows: &[(&str, Origin, &str)]) {
    for (to, origin, expected) in rows {
        assert_eq!(asked(plan, *origin, to), *expected, "{to} from {origin:?}");
    }
}

#[test]
fn with_the_cluster_policy_every_frontend_leads_to_endpoints_anywhere() {
    let plan = plan(&with(everything(), &["10.244.1.1", "10.244.2.1"]));
    let plain = "10.244.1.1 10.244.2.1";
    let masked = "10.244.1.1 10.244.2.1 masquerade";
    table(
        &plan,
        &[
            (CLUSTER_IP, Pod, plain),
            (CLUSTER_IP, Node, masked),
            (CLUSTER_IP, Elsewhere, masked),
            (BALANCER, Pod, masked),
            (BALANCER, Node, masked),
            (BALANCER, Elsewhere, masked),
            (EXTERNAL, Pod, masked),
            (EXTERNAL, Node, masked),
            (EXTERNAL, Elsewhere, masked),
            (NODE_PORT, Pod, masked),
            (NODE_PORT, Node, masked),
            (NODE_PORT, Elsewhere, masked),
        ],
    );
}

#[test]
fn with_the_external_policy_local_clients_outside_keep_their_address_and_stay_on_the_node() {
    let mut service = everything();
    service.external_policy = TrafficPolicy::Local;
    let here = plan(&with(service.clone(), &["10.244.1.1", "10.244.2.1"]));
    let both = "10.244.1.1 10.244.2.1";
    for to in [BALANCER, EXTERNAL, NODE_PORT] {
        table(
            &here,
            &[
                (to, Elsewhere, "10.244.1.1"),
                (to, Pod, both),
                (to, Node, "10.244.1.1 10.244.2.1 masquerade"),
            ],
        );
    }
    // The ClusterIP has a policy of its own.
    assert_eq!(asked(&here, Pod, CLUSTER_IP), both);
    let none_here = plan(&with(service, &["10.244.2.1"]));
    let port = none_here.ports().values().next().unwrap();
    for frontend in &port.frontends {
        let local = frontend.policy == TrafficPolicy::Local;
        assert_eq!(trouble(port, frontend).is_some(), local, "{frontend:?}");
    }
    for to in [BALANCER, EXTERNAL, NODE_PORT] {
        table(
            &none_here,
            &[
                (to, Elsewhere, "drop"),
                (to, Pod, "10.244.2.1"),
                (to, Node, "10.244.2.1 masquerade"),
            ],
        );
    }
}

/// What becomes of a connection of a pod of node2 to node1.
fn asked_by_a_pod_of_node2(plan: &Plan, to: &str) -> String {
    let source = if to.starts_with('[') {
        "fd00:10:244:2::99"
    } else {
        "10.244.2.99"
    };
    let question = Question {
        source: ip(source),
        ..question(Elsewhere, to)
    };
    said(&explain(plan, &question))
}

/// An endpoint of a third node would answer it directly, and not from the address it called.
#[test]
fn with_the_external_policy_local_a_pod_of_another_node_gets_what_a_client_outside_does() {
    let mut service = everything();
    service.external_policy = TrafficPolicy::Local;
    let both = with(service.clone(), &["10.244.1.1", "10.244.3.1"]);
    let all = "10.244.1.1 10.244.3.1";
    let none_here = plan(&with(service, &["10.244.3.1"]));
    for to in [BALANCER, EXTERNAL, NODE_PORT] {
        assert_eq!(asked_by_a_pod_of_node2(&plan(&both), to), "10.244.1.1");
        assert_eq!(asked_by_a_pod_of_node2(&none_here, to), "drop");
    }
    // As ever a pod, where the ClusterIP is called.
    assert_eq!(asked_by_a_pod_of_node2(&plan(&both), CLUSTER_IP), all);
    // Which pods are its own is not known to a node without a range, or with one of other pods.
    let mut bare = both.clone();
    bare.take(Change::Node(model::Node {
        pod_cidrs: Vec::new(),
        ..crate::build::node(1, Some("a"))
    }));
    assert_eq!(asked_by_a_pod_of_node2(&plan(&bare), BALANCER), all);
    assert_ne!(settings(&bare), settings(&both));
    let ranges = |ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let plan = plan_as(&both, |config| {
            config.services.local_detection = LocalDetection::Ranges(ranges);
        });
        asked_by_a_pod_of_node2(&plan, BALANCER)
    };
    assert_eq!(ranges(&["10.244.2.0/24"]), all);
    assert_eq!(ranges(&["10.244.2.0/24", "10.244.1.64/26"]), "10.244.1.1");
    assert_eq!(ranges(&["0.0.0.0/0"]), "10.244.1.1");
}

#[test]
fn with_the_internal_policy_local_the_cluster_ip_is_for_the_node_alone() {
    let mut service = everything();
    service.internal_policy = TrafficPolicy::Local;
    let here = plan(&with(service.clone(), &["10.244.1.1", "10.244.2.1"]));
    table(
        &here,
        &[
            (CLUSTER_IP, Pod, "10.244.1.1"),
            (CLUSTER_IP, Node, "10.244.1.1 masquerade"),
            (CLUSTER_IP, Elsewhere, "10.244.1.1 masquerade"),
            (BALANCER, Elsewhere, "10.244.1.1 10.244.2.1 masquerade"),
        ],
    );
    let none_here = plan(&with(service, &["10.244.2.1"]));
    table(
        &none_here,
        &[
            (CLUSTER_IP, Pod, "drop"),
            (CLUSTER_IP, Node, "drop"),
            (BALANCER, Elsewhere, "10.244.2.1 masquerade"),
        ],
    );
}

#[test]
fn without_any_endpoint_it_is_a_refusal_whatever_the_policy() {
    let mut service = everything();
    for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
        service.internal_policy = policy;
        service.external_policy = policy;
        let mut none = cluster();
        service.clone().put(&mut none);
        let mut unready_only = none.clone();
        slice("a", "1", vec![unready(endpoint("10.244.1.1"))]).put(&mut unready_only);
        for cluster in [none, unready_only] {
            let plan = plan(&cluster);
            for to in [CLUSTER_IP, BALANCER, EXTERNAL, NODE_PORT] {
                for origin in [Pod, Node, Elsewhere] {
                    assert_eq!(asked(&plan, origin, to), "reject", "{to} from {origin:?}");
                }
            }
        }
    }
}

#[test]
fn terminating_endpoints_are_better_than_none_for_each_policy() {
    let mut service = everything();
    service.external_policy = TrafficPolicy::Local;
    let mut cluster = cluster();
    service.put(&mut cluster);
    let endpoints = vec![leaving(endpoint("10.244.1.1")), endpoint("10.244.2.1")];
    slice("a", "1", endpoints).put(&mut cluster);
    let plan = plan(&cluster);
    assert_eq!(asked(&plan, Pod, CLUSTER_IP), "10.244.2.1");
    assert_eq!(asked(&plan, Elsewhere, BALANCER), "10.244.1.1");
}

#[test]
fn an_undefined_port_is_refused_and_an_unallocated_address_is_silent() {
    let plan = plan(&with(everything(), &["10.244.1.1"]));
    for origin in [Pod, Node, Elsewhere] {
        table(
            &plan,
            &[
                ("10.96.0.1:81", origin, "reject"),
                ("10.96.7.7:80", origin, "drop"),
                ("[fd00:10:96::7]:80", origin, "drop"),
                ("192.0.2.1:81", origin, "pass"),
                ("10.0.1.10:30081", origin, "pass"),
                ("198.51.100.1:80", origin, "pass"),
            ],
        );
    }
    let mut udp = question(Pod, CLUSTER_IP);
    udp.protocol = Protocol::Udp;
    assert_eq!(said(&explain(&plan, &udp)), "reject");
}

#[test]
fn headless_external_names_and_services_of_other_proxies_are_not_served() {
    let changes: [fn(&mut Service); 4] = [
        |service| service.cluster_ips.clear(),
        |service| service.kind = model::ServiceType::ExternalName,
        |service| service.other_proxy = true,
        |service| service.marked_headless = true,
    ];
    for change in changes {
        let mut service = everything();
        change(&mut service);
        let plan = plan(&with(service, &["10.244.1.1"]));
        assert!(plan.ports().is_empty());
        table(
            &plan,
            &[
                (CLUSTER_IP, Pod, "drop"),
                (BALANCER, Elsewhere, "pass"),
                (NODE_PORT, Elsewhere, "pass"),
            ],
        );
    }
}

#[test]
fn a_balancer_that_ends_connections_itself_keeps_its_address() {
    let mut service = everything();
    service.load_balancer[0].proxied = true;
    let plan = plan(&with(service, &["10.244.1.1"]));
    assert_eq!(asked(&plan, Pod, BALANCER), "pass");
    assert_eq!(asked(&plan, Elsewhere, NODE_PORT), "10.244.1.1 masquerade");
}

#[test]
fn a_balancer_without_node_ports_has_none() {
    let mut service = everything();
    service.ports[0].node_port = None;
    let plan = plan(&with(service, &["10.244.1.1"]));
    assert_eq!(asked(&plan, Elsewhere, BALANCER), "10.244.1.1 masquerade");
    let port = plan.ports().values().next().unwrap();
    assert!(
        port.frontends
            .iter()
            .all(|one| one.kind != FrontendKind::NodePort)
    );
}

/// With source ranges of the Service.
fn ranges(service: &mut Service, ranges: &[&str]) {
    service.source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
}

#[test]
fn source_ranges_hold_for_the_balancers_address_alone() {
    let mut service = everything();
    ranges(&mut service, &["203.0.113.0/28"]);
    let plan = plan(&with(service, &["10.244.1.1"]));
    table(
        &plan,
        &[
            (BALANCER, Elsewhere, "10.244.1.1 masquerade"),
            (BALANCER, Pod, "drop"),
            (BALANCER, Node, "drop"),
            (NODE_PORT, Pod, "10.244.1.1 masquerade"),
            (EXTERNAL, Pod, "10.244.1.1 masquerade"),
            (CLUSTER_IP, Pod, "10.244.1.1"),
        ],
    );
}

#[test]
fn source_ranges_of_the_other_family_and_everything_restrict_nothing() {
    for list in [&["2001:db8::/32"][..], &["10.9.0.0/16", "0.0.0.0/0"]] {
        let mut service = everything();
        ranges(&mut service, list);
        let plan = plan(&with(service, &["10.244.1.1"]));
        assert_eq!(asked(&plan, Elsewhere, BALANCER), "10.244.1.1 masquerade");
        let port = plan.ports().values().next().unwrap();
        assert!(port.frontends.iter().all(|one| one.sources.is_none()));
    }
}

#[test]
fn a_node_that_is_let_in_may_come_from_the_balancers_own_address() {
    let from_itself = |range: &str| {
        let mut service = everything();
        ranges(&mut service, &[range]);
        let plan = plan(&with(service, &["10.244.1.1"]));
        let mut question = question(Node, BALANCER);
        question.source = ip("192.0.2.1");
        said(&explain(&plan, &question))
    };
    assert_eq!(from_itself("10.0.1.0/24"), "10.244.1.1 masquerade");
    assert_eq!(from_itself("203.0.113.0/24"), "drop");
}

#[test]
fn source_ranges_come_before_the_refusal_for_want_of_endpoints() {
    let mut service = everything();
    ranges(&mut service, &["203.0.113.0/24"]);
    let plan = plan(&with(service, &[]));
    table(
        &plan,
        &[(BALANCER, Elsewhere, "reject"), (BALANCER, Pod, "drop")],
    );
}

#[test]
fn node_ports_answer_at_the_addresses_the_settings_name() {
    let mut service = everything();
    service.cluster_ips.push(ip("fd00:10:96::1"));
    let mut cluster = with(service, &["10.244.1.1"]);
    slice("a", "6", vec![endpoint("fd00:10:244:1::1")]).put(&mut cluster);
    let (four, six) = ("10.244.1.1 masquerade", "fd00:10:244:1::1 masquerade");
    let loopback = "127.0.0.1:30080";
    let of = |addresses| {
        plan_as(&cluster, |config| {
            config.services.node_port_addresses = addresses
        })
    };
    let ranges = |text: &[&str]| {
        NodePortAddresses::Ranges(text.iter().map(|one| one.parse().unwrap()).collect())
    };
    // Another node's address is another node's business.
    for plan in [of(NodePortAddresses::All), of(NodePortAddresses::Primary)] {
        table(
            &plan,
            &[
                (NODE_PORT, Elsewhere, four),
                ("[fd00:10:0:1::10]:30080", Elsewhere, six),
                ("10.0.1.20:30080", Elsewhere, "pass"),
                ("[::1]:30080", Node, "pass"),
            ],
        );
    }
    assert_eq!(asked(&of(NodePortAddresses::All), Node, loopback), four);
    assert_eq!(
        asked(&of(NodePortAddresses::All), Elsewhere, loopback),
        "pass"
    );
    assert_eq!(
        asked(&of(NodePortAddresses::Primary), Node, loopback),
        "pass"
    );
    let closed = plan_as(&cluster, |config| {
        config.services.localhost_node_ports = false
    });
    assert_eq!(asked(&closed, Node, loopback), "pass");
    let elsewhere = of(ranges(&["192.168.0.0/16"]));
    assert_eq!(asked(&elsewhere, Elsewhere, NODE_PORT), "pass");
    // Without a range of the family, all addresses of the family.
    assert_eq!(asked(&elsewhere, Elsewhere, "[fd00:10:0:1::10]:30080"), six);
    let both = of(ranges(&["10.0.1.0/24", "127.0.0.0/8"]));
    table(
        &both,
        &[(NODE_PORT, Elsewhere, four), (loopback, Node, four)],
    );
}

#[test]
fn a_services_address_comes_before_a_node_port() {
    let mut cluster = with(everything(), &["10.244.1.1"]);
    // An external address that is the node's own, with the port that is a's node port.
    let mut other = service("b", 2);
    other.external_ips = vec![ip("10.0.1.10")];
    other.ports[0].port = 30080;
    other.put(&mut cluster);
    slice("b", "1", vec![endpoint("10.244.2.2")]).put(&mut cluster);
    let plan = plan(&cluster);
    assert_eq!(asked(&plan, Elsewhere, NODE_PORT), "10.244.2.2 masquerade");
    assert_eq!(
        asked(&plan, Node, "127.0.0.1:30080"),
        "10.244.1.1 masquerade"
    );
}

#[test]
fn masquerade_all_is_for_cluster_ips() {
    let mut service = everything();
    service.external_policy = TrafficPolicy::Local;
    let cluster = with(service, &["10.244.1.1"]);
    let plan = plan_as(&cluster, |config| config.services.masquerade_all = true);
    table(
        &plan,
        &[
            (CLUSTER_IP, Pod, "10.244.1.1 masquerade"),
            (BALANCER, Pod, "10.244.1.1"),
            (BALANCER, Elsewhere, "10.244.1.1"),
        ],
    );
}

#[test]
fn who_is_a_pod_is_said_by_the_setting() {
    let cluster = with(everything(), &["10.244.1.1"]);
    let masked = |detection, origin, source: &str| {
        let plan = plan_as(&cluster, |config| {
            config.services.local_detection = detection
        });
        let mut question = question(origin, CLUSTER_IP);
        question.source = ip(source);
        said(&explain(&plan, &question)).ends_with("masquerade")
    };
    let prefix = || LocalDetection::InterfaceNamePrefix("fn-".to_owned());
    // A pod of another node, whose packet comes over the fabric.
    assert!(!masked(
        LocalDetection::ClusterCidr,
        Elsewhere,
        "10.244.2.1"
    ));
    assert!(masked(LocalDetection::NodeCidr, Elsewhere, "10.244.2.1"));
    assert!(masked(prefix(), Elsewhere, "10.244.2.1"));
    assert!(!masked(prefix(), Pod, "10.244.1.1"));
    assert!(!masked(LocalDetection::NodeCidr, Pod, "10.244.1.1"));
    assert!(masked(prefix(), Node, "10.0.1.10"));
}

#[test]
fn where_pods_cannot_be_told_nobody_is_masqueraded_for_being_none() {
    let mut service = everything();
    service.external_policy = TrafficPolicy::Local;
    let cluster = with(service, &["10.244.1.1", "10.244.2.1"]);
    let plan = plan_as(&cluster, |config| {
        config.cluster_cidrs.retain(|range| range.addr().is_ipv6())
    });
    table(
        &plan,
        &[
            (CLUSTER_IP, Elsewhere, "10.244.1.1 10.244.2.1"),
            (CLUSTER_IP, Node, "10.244.1.1 10.244.2.1"),
            // Not known as a pod, so no way around the policy.
            (BALANCER, Pod, "10.244.1.1"),
        ],
    );
}

#[test]
fn affinity_is_the_ports_own() {
    let mut service = everything();
    service.affinity = Some(10_800);
    let plan = plan(&with(service, &["10.244.1.1"]));
    for to in [CLUSTER_IP, BALANCER, NODE_PORT] {
        assert_eq!(ask(&plan, Pod, to).affinity, Some(10_800));
    }
    assert_eq!(ask(&plan, Pod, "10.96.0.1:81").affinity, None);
}

#[test]
fn an_endpoint_that_reaches_itself_is_told() {
    let plan = plan(&with(service("a", 1), &["10.244.1.1", "10.244.1.2"]));
    let mut question = question(Pod, CLUSTER_IP);
    question.source = ip("10.244.1.1");
    let Verdict::Forward { to, masquerade } = explain(&plan, &question).verdict else {
        panic!("it goes to endpoints");
    };
    assert_eq!(masquerade, None);
    let hairpin = |(to, _): &(services::Backend, f64)| question.is_hairpin(to);
    assert_eq!(to.iter().map(hairpin).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn each_family_has_its_own_slices_and_addresses() {
    let mut service = everything();
    service.cluster_ips.push(ip("fd00:10:96::1"));
    service.external_ips.push(ip("2001:db8::9"));
    let mut cluster = with(service, &["10.244.1.1"]);
    slice("a", "6", vec![endpoint("fd00:10:244:1::1")]).put(&mut cluster);
    let both = plan(&cluster);
    table(
        &both,
        &[
            (CLUSTER_IP, Pod, "10.244.1.1"),
            ("[fd00:10:96::1]:80", Pod, "fd00:10:244:1::1"),
            ("[2001:db8::9]:80", Elsewhere, "fd00:10:244:1::1 masquerade"),
            (EXTERNAL, Elsewhere, "10.244.1.1 masquerade"),
        ],
    );
    // A Service of one family has no use for an address or a slice of the other.
    let mut single = everything();
    single.external_ips.push(ip("2001:db8::9"));
    single.put(&mut cluster);
    let single = plan(&cluster);
    assert_eq!(asked(&single, Pod, "[2001:db8::9]:80"), "pass");
    assert_eq!(asked(&single, Elsewhere, "[fd00:10:0:1::10]:30080"), "pass");
}

#[test]
fn ports_find_the_endpoints_of_their_name_and_protocol() {
    let mut made = service("a", 1);
    made.ports = vec![
        port("dns", Protocol::Udp, 53),
        port("dns-tcp", Protocol::Tcp, 53),
        port("metrics", Protocol::Tcp, 9153),
    ];
    let mut cluster = cluster();
    made.put(&mut cluster);
    let mut tcp = slice("a", "1", vec![endpoint("10.244.1.1")]);
    tcp.ports[0].name = "dns-tcp".to_owned();
    tcp.put(&mut cluster);
    let mut udp = slice("a", "2", vec![endpoint("10.244.1.2")]);
    udp.ports[0].name = "dns".to_owned();
    udp.ports[0].protocol = Protocol::Udp;
    udp.put(&mut cluster);
    let plan = Plan::of(settings(&cluster), &cluster);
    let mut asked_udp = question(Pod, "10.96.0.1:53");
    asked_udp.protocol = Protocol::Udp;
    assert_eq!(asked(&plan, Pod, "10.96.0.1:53"), "10.244.1.1");
    assert_eq!(said(&explain(&plan, &asked_udp)), "10.244.1.2");
    // No slice has the port.
    assert_eq!(asked(&plan, Pod, "10.96.0.1:9153"), "reject");
}
