//! Names and rules to the letter: what operators and other programs know.

use std::sync::Arc;

use linux::Kernel;
use linux::fake::Fake;
use model::{Change, Cluster, Protocol, Service};
use nft::IpFamily;
use services::plan::{Backend, Plan, PortName};
use services::render::iptables::{chain_name, endpoint_chain_name};

use super::write;
use crate::build::{Put, cluster, endpoint, ip, plan, service, slice};

/// A kernel with the rules of a cluster.
fn written(cluster: &Cluster) -> (Plan, Fake) {
    let plan = plan(cluster);
    let mut fake = Fake::default();
    write(&mut fake, &plan);
    (plan, fake)
}

/// The rules of a chain of the nat table.
fn rules<'a>(fake: &'a Fake, chain: &str) -> Vec<&'a str> {
    let table = &fake.iptables[&(IpFamily::V4, "nat".to_owned())];
    table.chains[chain].iter().map(String::as_str).collect()
}

/// The Service of the documents: three endpoints behind port 80.
fn three_endpoints() -> Cluster {
    let mut cluster = cluster();
    Service {
        namespace: "default".to_owned(),
        cluster_ips: vec![ip("10.96.100.50")],
        ..service("my-app", 1)
    }
    .put(&mut cluster);
    let mut slice = slice(
        "my-app",
        "x",
        ["10.244.1.5", "10.244.1.6", "10.244.2.8"]
            .map(endpoint)
            .to_vec(),
    );
    slice.namespace = "default".to_owned();
    slice.put(&mut cluster);
    cluster
}

#[test]
fn three_endpoints_have_a_third_a_half_and_the_rest() {
    let (_, mut fake) = written(&three_endpoints());
    insta::assert_snapshot!(
        fake.iptables_save(IpFamily::V4).unwrap(),
        @r#"
    *filter
    :FORWARD ACCEPT [0:0]
    :INPUT ACCEPT [0:0]
    :KUBE-EXTERNAL-SERVICES - [0:0]
    :KUBE-FIREWALL - [0:0]
    :KUBE-FORWARD - [0:0]
    :KUBE-NODEPORTS - [0:0]
    :KUBE-PROXY-CANARY - [0:0]
    :KUBE-PROXY-FIREWALL - [0:0]
    :KUBE-SERVICES - [0:0]
    :OUTPUT ACCEPT [0:0]
    -A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
    -A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
    -A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
    -A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
    -A INPUT -j KUBE-FIREWALL
    -A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
    -A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
    -A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
    -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
    -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
    -A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
    -A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    -A OUTPUT -j KUBE-FIREWALL
    -A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
    -A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
    COMMIT
    *mangle
    :FORWARD ACCEPT [0:0]
    :INPUT ACCEPT [0:0]
    :KUBE-PROXY-CANARY - [0:0]
    :OUTPUT ACCEPT [0:0]
    :POSTROUTING ACCEPT [0:0]
    :PREROUTING ACCEPT [0:0]
    COMMIT
    *nat
    :INPUT ACCEPT [0:0]
    :KUBE-MARK-MASQ - [0:0]
    :KUBE-NODEPORTS - [0:0]
    :KUBE-POSTROUTING - [0:0]
    :KUBE-PROXY-CANARY - [0:0]
    :KUBE-SEP-22RYAHPKKMX3IE6D - [0:0]
    :KUBE-SEP-33OAFGKHQKSMUYAV - [0:0]
    :KUBE-SEP-LOVNAGVQP2E42JT6 - [0:0]
    :KUBE-SERVICES - [0:0]
    :KUBE-SVC-FWDTHD7PLJSQSVVA - [0:0]
    :OUTPUT ACCEPT [0:0]
    :POSTROUTING ACCEPT [0:0]
    :PREROUTING ACCEPT [0:0]
    -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
    -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
    -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
    -A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
    -A KUBE-SEP-22RYAHPKKMX3IE6D -s 10.244.2.8/32 -m comment --comment "default/my-app" -j KUBE-MARK-MASQ
    -A KUBE-SEP-22RYAHPKKMX3IE6D -p tcp -m comment --comment "default/my-app" -m tcp -j DNAT --to-destination 10.244.2.8:8080
    -A KUBE-SEP-33OAFGKHQKSMUYAV -s 10.244.1.6/32 -m comment --comment "default/my-app" -j KUBE-MARK-MASQ
    -A KUBE-SEP-33OAFGKHQKSMUYAV -p tcp -m comment --comment "default/my-app" -m tcp -j DNAT --to-destination 10.244.1.6:8080
    -A KUBE-SEP-LOVNAGVQP2E42JT6 -s 10.244.1.5/32 -m comment --comment "default/my-app" -j KUBE-MARK-MASQ
    -A KUBE-SEP-LOVNAGVQP2E42JT6 -p tcp -m comment --comment "default/my-app" -m tcp -j DNAT --to-destination 10.244.1.5:8080
    -A KUBE-SERVICES -d 10.96.100.50/32 -p tcp -m comment --comment "default/my-app cluster IP" -m tcp --dport 80 -j KUBE-SVC-FWDTHD7PLJSQSVVA
    -A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
    -A KUBE-SVC-FWDTHD7PLJSQSVVA ! -s 10.244.0.0/16 -d 10.96.100.50/32 -p tcp -m comment --comment "default/my-app cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ
    -A KUBE-SVC-FWDTHD7PLJSQSVVA -m comment --comment "default/my-app -> 10.244.1.5:8080" -m statistic --mode random --probability 0.33333333349 -j KUBE-SEP-LOVNAGVQP2E42JT6
    -A KUBE-SVC-FWDTHD7PLJSQSVVA -m comment --comment "default/my-app -> 10.244.1.6:8080" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-33OAFGKHQKSMUYAV
    -A KUBE-SVC-FWDTHD7PLJSQSVVA -m comment --comment "default/my-app -> 10.244.2.8:8080" -j KUBE-SEP-22RYAHPKKMX3IE6D
    -A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
    -A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
    -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
    COMMIT
    "#
    );
}

/// Every cluster has these two.
#[test]
fn names_are_the_known_ones() {
    let kubernetes = PortName {
        namespace: "default".to_owned(),
        name: "kubernetes".to_owned(),
        port: "https".to_owned(),
        protocol: Protocol::Tcp,
    };
    assert_eq!(chain_name(&kubernetes), "KUBE-SVC-NPX46M4PTMTKRN6Y");
    let dns = PortName {
        namespace: "kube-system".to_owned(),
        name: "kube-dns".to_owned(),
        port: "dns".to_owned(),
        protocol: Protocol::Udp,
    };
    assert_eq!(chain_name(&dns), "KUBE-SVC-TCOU7JCQXEZGVUNU");
    let server = Backend {
        ip: ip("10.0.1.1"),
        port: 6443,
        local: false,
    };
    assert_eq!(
        endpoint_chain_name(&kubernetes, &server),
        "KUBE-SEP-XI2SRZZRAF2MBOLG"
    );
}

/// As the kernel keeps them, in 31 bits.
#[test]
fn probabilities_are_kube_proxys() {
    let mut cluster = cluster();
    service("many", 1).put(&mut cluster);
    let endpoints = (1..=39).map(|n| endpoint(&format!("10.244.2.{n}")));
    slice("many", "x", endpoints.collect()).put(&mut cluster);
    let (plan, fake) = written(&cluster);
    let (name, _) = plan.ports().keys().next().unwrap();
    let found: Vec<&str> = rules(&fake, &chain_name(name))
        .into_iter()
        .filter_map(|rule| rule.split("--probability ").nth(1)?.split(' ').next())
        .collect();
    assert_eq!(
        [found[0], found[1], found[19], found[36], found[37]],
        [
            "0.02564102551",
            "0.02631578967",
            "0.04999999981",
            "0.33333333349",
            "0.50000000000"
        ]
    );
}

/// Beyond a thousand endpoints comments would be two fifths of the rules.
#[test]
fn a_large_cluster_has_no_comments_at_endpoints() {
    let cluster = three_endpoints();
    let plan = plan(&cluster);
    let without = std::collections::BTreeSet::new();
    let mut context = super::context(&plan, false, &without);
    context.large = true;
    let text = services::render::iptables::whole(&context, &plan, &Default::default());
    let commented = text
        .lines()
        .filter(|line| line.starts_with("-A KUBE-SEP") || line.starts_with("-A KUBE-SVC"))
        .filter(|line| line.contains("comment"))
        .count();
    // That of the masquerade of what comes from outside: kube-proxy keeps it.
    assert_eq!(commented, 1, "{text}");
}

#[test]
fn a_whole_write_is_in_sections_that_iptables_can_take() {
    let mut cluster = cluster();
    for n in 0..700_u16 {
        let [high, low] = n.to_be_bytes();
        let name = format!("s{n}");
        cluster.take(Change::Service(Arc::new(Service {
            cluster_ips: vec![ip(&format!("10.97.{high}.{low}"))],
            ..service(&name, 1)
        })));
        slice(&name, "x", vec![endpoint("10.244.1.5")]).put(&mut cluster);
    }
    let (plan, mut fake) = written(&cluster);
    let text = super::whole(&mut Fake::default(), &plan, false);
    let most = text.split("COMMIT").map(|part| part.matches("\n:").count());
    assert!(most.max().unwrap() <= 602, "{text}");
    assert_eq!(super::whole(&mut fake, &plan, false), "");
}
