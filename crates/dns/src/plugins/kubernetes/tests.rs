//! Every line of the reference, and what CoreDNS does where it says nothing.

use std::time::{Duration, UNIX_EPOCH};

use model::{LabelSelector, Labels};

use super::*;
use crate::plan::testing::{Town, answered, question};

/// The cluster that most is asked of.
fn town() -> Town {
    let mut town = Town::default();
    town.namespace("default")
        .namespace("shop")
        .namespace("empty");
    town.service(
        "default/web",
        &["10.96.0.1", "fd00:10:96::1"],
        &["http/TCP/80", "dns/UDP/53"],
    );
    town.slice(
        "default/web",
        &["http/TCP/8080", "dns/UDP/53"],
        &["10.244.1.2 pod=web-a", "10.244.1.3 pod=web-b"],
    );
    town.service("default/lonely", &["10.96.0.2"], &["/TCP/80"]);
    town.service("default/db", &[], &["pg/TCP/5432"]);
    town.slice(
        "default/db",
        &["pg/TCP/5432"],
        &[
            "10.244.2.1 host=db-0 zone=A",
            "10.244.2.2 host=db-1 zone=b.c",
            "10.244.2.3 pod=db-x",
            "10.244.2.4 unready",
        ],
    );
    town.slice6("default/db", &["pg/TCP/5432"], &["fd00::1", "fd00::"]);
    town.service("default/none", &[], &["x/TCP/1"]);
    town.service("default/portless", &[], &[]);
    town.slice("default/portless", &[], &["10.244.3.1"]);
    town.alias("shop/out", "www.example.com");
    town.alias("shop/in", "web.default.svc.cluster.local");
    town.alias("shop/twice", "in.shop.svc.cluster.local.");
    town.alias("shop/further", "out.shop.svc.Cluster.Local");
    town.alias("shop/nowhere", "gone.default.svc.cluster.local");
    town.alias("shop/self", "self.shop.svc.cluster.local");
    town.alias("shop/ping", "pong.shop.svc.cluster.local");
    town.alias("shop/pong", "ping.shop.svc.cluster.local");
    town.alias("shop/number", "192.0.2.1");
    town.alias("shop/wrong", "a..b");
    town.service("kube-system/kube-dns", &["10.96.0.10"], &["dns/UDP/53"])
        .namespace("kube-system");
    town.slice("kube-system/kube-dns", &["dns/UDP/53"], &["10.244.1.9"]);
    town.pod("default/web-a", "10.244.1.2", false);
    town.node("node1", "10.0.1.10")
        .pod("shop/host", "10.0.1.10", true);
    town
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn options() -> options::Kubernetes {
    options::Kubernetes {
        zones: ["cluster.local", "in-addr.arpa", "ip6.arpa"].map(name).into(),
        ..options::Kubernetes::default()
    }
}

fn plugin() -> Kubernetes {
    with(|_| {})
}

fn with(change: impl FnOnce(&mut options::Kubernetes)) -> Kubernetes {
    let mut options = options();
    change(&mut options);
    Kubernetes::new(&options, &["10.244.1.9".parse().unwrap()]).unwrap()
}

fn at(local: &[&str]) -> Kubernetes {
    let local: Vec<IpAddr> = local.iter().map(|ip| ip.parse().unwrap()).collect();
    Kubernetes::new(&options(), &local).unwrap()
}

/// Asks and compares what is answered, with records as `name TTL type data`.
fn holds_for(plugin: &Kubernetes, rows: &[(&str, &str)]) {
    let view = town().view();
    for (asked, wanted) in rows {
        let found = plugin.answer(Some(&view), &question(asked));
        let wanted: Vec<&str> = wanted.split('|').map(str::trim).collect();
        assert_eq!(answered(found.as_ref()), wanted, "{asked}");
    }
}

fn holds(rows: &[(&str, &str)]) {
    holds_for(&plugin(), rows);
}

const NONE: &str = "NXDOMAIN|? cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1000 7200 1800 86400 5";
const EMPTY: &str = "NOERROR|? cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1000 7200 1800 86400 5";

#[test]
fn the_schema_version_is_text() {
    holds(&[
        (
            "dns-version.cluster.local TXT",
            "NOERROR|dns-version.cluster.local. 28800 TXT \"1.1.0\"",
        ),
        (
            "DNS-Version.cluster.local TXT",
            "NOERROR|DNS-Version.cluster.local. 28800 TXT \"1.1.0\"",
        ),
        ("dns-version.cluster.local A", EMPTY),
        ("x.dns-version.cluster.local TXT", NONE),
    ]);
}

#[test]
fn a_service_with_an_address_has_addresses() {
    holds(&[
        (
            "web.default.svc.cluster.local A",
            "NOERROR|web.default.svc.cluster.local. 5 A 10.96.0.1",
        ),
        (
            "web.default.svc.cluster.local AAAA",
            "NOERROR|web.default.svc.cluster.local. 5 AAAA fd00:10:96::1",
        ),
        ("lonely.default.svc.cluster.local AAAA", EMPTY),
        (
            "wEb.DEFAULT.svC.Cluster.locaL A",
            "NOERROR|wEb.DEFAULT.svC.Cluster.locaL. 5 A 10.96.0.1",
        ),
        (
            "_http._tcp.web.default.svc.cluster.local A",
            "NOERROR|_http._tcp.web.default.svc.cluster.local. 5 A 10.96.0.1",
        ),
    ]);
}

#[test]
fn named_ports_of_a_service_are_servers() {
    let web = "+ web.default.svc.cluster.local. 5 A 10.96.0.1|+ web.default.svc.cluster.local. 5 AAAA fd00:10:96::1";
    let both = |port: &str, weight: u16, number: u16| {
        format!("NOERROR|{port} 5 SRV 0 {weight} {number} web.default.svc.cluster.local.|{web}")
    };
    holds(&[
        (
            "_http._tcp.web.default.svc.cluster.local SRV",
            &both("_http._tcp.web.default.svc.cluster.local.", 50, 80),
        ),
        (
            "_HTTP._TCP.web.default.svc.cluster.local SRV",
            &both("_HTTP._TCP.web.default.svc.cluster.local.", 50, 80),
        ),
        (
            "_dns._udp.web.default.svc.cluster.local SRV",
            &both("_dns._udp.web.default.svc.cluster.local.", 50, 53),
        ),
        ("_dns._tcp.web.default.svc.cluster.local SRV", NONE),
        ("_gone._tcp.web.default.svc.cluster.local SRV", NONE),
        ("_tcp.web.default.svc.cluster.local SRV", NONE),
        // Without a port all of them, as CoreDNS does.
        (
            "web.default.svc.cluster.local SRV",
            &format!(
                "NOERROR|web.default.svc.cluster.local. 5 SRV 0 25 80 web.default.svc.cluster.local.|web.default.svc.cluster.local. 5 SRV 0 25 53 web.default.svc.cluster.local.|{web}"
            ),
        ),
        // There are no wildcards any more.
        ("*.*.web.default.svc.cluster.local SRV", NONE),
        ("any.any.web.default.svc.cluster.local SRV", NONE),
    ]);
}

#[test]
fn addresses_of_services_have_names() {
    holds(&[
        (
            "1.0.96.10.in-addr.arpa PTR",
            "NOERROR|1.0.96.10.in-addr.arpa. 5 PTR web.default.svc.cluster.local.",
        ),
        (
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa PTR",
            "NOERROR|1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa. 5 PTR web.default.svc.cluster.local.",
        ),
        (
            "3.0.96.10.in-addr.arpa PTR",
            "NXDOMAIN|? in-addr.arpa. 5 SOA ns.dns.in-addr.arpa. hostmaster.in-addr.arpa. 1000 7200 1800 86400 5",
        ),
        (
            "96.10.in-addr.arpa PTR",
            "NXDOMAIN|? in-addr.arpa. 5 SOA ns.dns.in-addr.arpa. hostmaster.in-addr.arpa. 1000 7200 1800 86400 5",
        ),
        (
            "1.0.96.10.in-addr.arpa A",
            "NOERROR|? in-addr.arpa. 5 SOA ns.dns.in-addr.arpa. hostmaster.in-addr.arpa. 1000 7200 1800 86400 5",
        ),
        (
            "in-addr.arpa A",
            "NOERROR|? in-addr.arpa. 5 SOA ns.dns.in-addr.arpa. hostmaster.in-addr.arpa. 1000 7200 1800 86400 5",
        ),
        (
            "web.default.svc.in-addr.arpa A",
            "NXDOMAIN|? in-addr.arpa. 5 SOA ns.dns.in-addr.arpa. hostmaster.in-addr.arpa. 1000 7200 1800 86400 5",
        ),
        ("web.default.svc.cluster.local PTR", EMPTY),
        ("gone.default.svc.cluster.local PTR", NONE),
    ]);
}

#[test]
fn a_headless_service_has_its_ready_endpoints() {
    let db = |kind: &str, all: &[&str]| {
        let records = all
            .iter()
            .map(|ip| format!("|db.default.svc.cluster.local. 5 {kind} {ip}"));
        format!("NOERROR{}", records.collect::<String>())
    };
    holds(&[
        (
            "db.default.svc.cluster.local A",
            &db("A", &["10.244.2.1", "10.244.2.2", "10.244.2.3"]),
        ),
        (
            "db.default.svc.cluster.local AAAA",
            &db("AAAA", &["fd00::1", "fd00::"]),
        ),
        ("none.default.svc.cluster.local A", NONE),
        ("none.default.svc.cluster.local TXT", NONE),
        (
            "portless.default.svc.cluster.local A",
            "NOERROR|portless.default.svc.cluster.local. 5 A 10.244.3.1",
        ),
        ("portless.default.svc.cluster.local SRV", EMPTY),
    ]);
}

#[test]
fn endpoints_have_names_by_hostname_or_address() {
    let one = |name: &str, kind: &str, ip: &str| format!("NOERROR|{name} 5 {kind} {ip}");
    holds(&[
        (
            "db-0.db.default.svc.cluster.local A",
            &one("db-0.db.default.svc.cluster.local.", "A", "10.244.2.1"),
        ),
        (
            "DB-1.db.default.svc.cluster.local A",
            &one("DB-1.db.default.svc.cluster.local.", "A", "10.244.2.2"),
        ),
        (
            "10-244-2-3.db.default.svc.cluster.local A",
            &one(
                "10-244-2-3.db.default.svc.cluster.local.",
                "A",
                "10.244.2.3",
            ),
        ),
        (
            "fd00--1.db.default.svc.cluster.local AAAA",
            &one("fd00--1.db.default.svc.cluster.local.", "AAAA", "fd00::1"),
        ),
        (
            "fd00--0.db.default.svc.cluster.local AAAA",
            &one("fd00--0.db.default.svc.cluster.local.", "AAAA", "fd00::"),
        ),
        ("db-0.db.default.svc.cluster.local AAAA", EMPTY),
        // What has a hostname is not called by its address, and nothing by its pod's name.
        ("10-244-2-1.db.default.svc.cluster.local A", NONE),
        ("db-x.db.default.svc.cluster.local A", NONE),
        ("10-244-2-4.db.default.svc.cluster.local A", NONE),
        // CoreDNS has endpoints of Services with an address too.
        (
            "10-244-1-2.web.default.svc.cluster.local A",
            &one(
                "10-244-1-2.web.default.svc.cluster.local.",
                "A",
                "10.244.1.2",
            ),
        ),
    ]);
    let pod_names = Kubernetes {
        endpoint_pod_names: true,
        ..plugin()
    };
    holds_for(
        &pod_names,
        &[
            (
                "db-x.db.default.svc.cluster.local A",
                &one("db-x.db.default.svc.cluster.local.", "A", "10.244.2.3"),
            ),
            (
                "db-0.db.default.svc.cluster.local A",
                &one("db-0.db.default.svc.cluster.local.", "A", "10.244.2.1"),
            ),
            ("10-244-2-3.db.default.svc.cluster.local A", NONE),
            (
                "3.2.244.10.in-addr.arpa PTR",
                "NOERROR|3.2.244.10.in-addr.arpa. 5 PTR db-x.db.default.svc.cluster.local.",
            ),
        ],
    );
}

#[test]
fn ports_of_endpoints_are_servers() {
    let mut wanted = "NOERROR".to_owned();
    let all = [
        ("db-0", "A 10.244.2.1"),
        ("db-1", "A 10.244.2.2"),
        ("10-244-2-3", "A 10.244.2.3"),
        ("fd00--1", "AAAA fd00::1"),
        ("fd00--0", "AAAA fd00::"),
    ];
    for (host, _) in all {
        wanted += &format!(
            "|_pg._tcp.db.default.svc.cluster.local. 5 SRV 0 20 5432 {host}.db.default.svc.cluster.local."
        );
    }
    for (host, address) in all {
        wanted += &format!("|+ {host}.db.default.svc.cluster.local. 5 {address}");
    }
    holds(&[
        ("_pg._tcp.db.default.svc.cluster.local SRV", &wanted),
        ("_pg._udp.db.default.svc.cluster.local SRV", NONE),
        ("_pg._tcp.none.default.svc.cluster.local SRV", NONE),
        (
            "db-0.db.default.svc.cluster.local SRV",
            "NOERROR|db-0.db.default.svc.cluster.local. 5 SRV 0 100 5432 db-0.db.default.svc.cluster.local.|+ db-0.db.default.svc.cluster.local. 5 A 10.244.2.1",
        ),
    ]);
}

#[test]
fn addresses_of_endpoints_have_names() {
    holds(&[
        (
            "1.2.244.10.in-addr.arpa PTR",
            "NOERROR|1.2.244.10.in-addr.arpa. 5 PTR db-0.db.default.svc.cluster.local.",
        ),
        (
            "3.2.244.10.in-addr.arpa PTR",
            "NOERROR|3.2.244.10.in-addr.arpa. 5 PTR 10-244-2-3.db.default.svc.cluster.local.",
        ),
        (
            "2.1.244.10.in-addr.arpa PTR",
            "NOERROR|2.1.244.10.in-addr.arpa. 5 PTR 10-244-1-2.web.default.svc.cluster.local.",
        ),
        (
            "4.2.244.10.in-addr.arpa PTR",
            "NXDOMAIN|? in-addr.arpa. 5 SOA ns.dns.in-addr.arpa. hostmaster.in-addr.arpa. 1000 7200 1800 86400 5",
        ),
    ]);
}

#[test]
fn an_external_name_is_an_alias_that_is_followed() {
    let alias = |from: &str, to: &str| format!("|{from}.shop.svc.cluster.local. 5 CNAME {to}");
    let web = alias("in", "web.default.svc.cluster.local.")
        + "|web.default.svc.cluster.local. 5 A 10.96.0.1";
    holds(&[
        (
            "out.shop.svc.cluster.local A",
            &format!(
                "NOERROR{}|> www.example.com. A",
                alias("out", "www.example.com.")
            ),
        ),
        (
            "out.shop.svc.cluster.local AAAA",
            &format!(
                "NOERROR{}|> www.example.com. AAAA",
                alias("out", "www.example.com.")
            ),
        ),
        (
            "out.shop.svc.cluster.local CNAME",
            &format!("NOERROR{}", alias("out", "www.example.com.")),
        ),
        ("out.shop.svc.cluster.local MX", EMPTY),
        ("in.shop.svc.cluster.local A", &format!("NOERROR{web}")),
        (
            "twice.shop.svc.cluster.local A",
            &format!(
                "NOERROR{}{web}",
                alias("twice", "in.shop.svc.cluster.local.")
            ),
        ),
        (
            "further.shop.svc.cluster.local A",
            &format!(
                "NOERROR{}|out.shop.svc.Cluster.Local. 5 CNAME www.example.com.|> www.example.com. A",
                alias("further", "out.shop.svc.Cluster.Local.")
            ),
        ),
    ]);
}

#[test]
fn an_alias_that_leads_nowhere_is_without_records() {
    holds(&[
        ("nowhere.shop.svc.cluster.local A", EMPTY),
        ("self.shop.svc.cluster.local A", EMPTY),
        ("ping.shop.svc.cluster.local A", EMPTY),
        ("wrong.shop.svc.cluster.local A", EMPTY),
        ("number.shop.svc.cluster.local A", NONE),
    ]);
}

#[test]
fn an_external_name_has_neither_endpoints_nor_ports() {
    holds(&[
        ("x.out.shop.svc.cluster.local A", NONE),
        ("_http._tcp.out.shop.svc.cluster.local SRV", NONE),
        ("out.shop.svc.cluster.local SRV", EMPTY),
    ]);
}

#[test]
fn pods_are_disabled_insecure_or_verified() {
    let pod = |name: &str, kind: &str, ip: &str| format!("NOERROR|{name} 5 {kind} {ip}");
    holds(&[
        ("10-244-1-2.default.pod.cluster.local A", NONE),
        ("default.pod.cluster.local A", NONE),
        ("pod.cluster.local A", EMPTY),
    ]);
    let insecure = Kubernetes {
        pods: options::PodMode::Insecure,
        ..plugin()
    };
    holds_for(
        &insecure,
        &[
            (
                "10-244-1-2.default.pod.cluster.local A",
                &pod("10-244-1-2.default.pod.cluster.local.", "A", "10.244.1.2"),
            ),
            (
                "1-2-3-4.default.pod.cluster.local A",
                &pod("1-2-3-4.default.pod.cluster.local.", "A", "1.2.3.4"),
            ),
            (
                "fd00--1.default.pod.cluster.local AAAA",
                &pod("fd00--1.default.pod.cluster.local.", "AAAA", "fd00::1"),
            ),
            ("1-2-3-4.default.pod.cluster.local AAAA", EMPTY),
            ("1-2-3-4.gone.pod.cluster.local A", NONE),
            ("web-a.default.pod.cluster.local A", NONE),
            ("1-2-3-256.default.pod.cluster.local A", NONE),
            ("default.pod.cluster.local A", EMPTY),
            (
                "1-2-3-4.default.pod.cluster.local SRV",
                "NOERROR|1-2-3-4.default.pod.cluster.local. 5 SRV 0 100 0 1-2-3-4.default.pod.cluster.local.|+ 1-2-3-4.default.pod.cluster.local. 5 A 1.2.3.4",
            ),
        ],
    );
    let verified = Kubernetes {
        pods: options::PodMode::Verified,
        ..plugin()
    };
    holds_for(
        &verified,
        &[
            (
                "10-244-1-2.default.pod.cluster.local A",
                &pod("10-244-1-2.default.pod.cluster.local.", "A", "10.244.1.2"),
            ),
            ("10-244-1-2.shop.pod.cluster.local A", NONE),
            ("1-2-3-4.default.pod.cluster.local A", NONE),
            (
                "10-0-1-10.shop.pod.cluster.local A",
                &pod("10-0-1-10.shop.pod.cluster.local.", "A", "10.0.1.10"),
            ),
            ("10-0-1-10.default.pod.cluster.local A", NONE),
        ],
    );
}

#[test]
fn names_that_are_there_without_records() {
    for name in [
        "cluster.local",
        "svc.cluster.local",
        "pod.cluster.local",
        "default.svc.cluster.local",
        "empty.svc.cluster.local",
    ] {
        for kind in ["A", "AAAA", "SRV", "TXT", "MX", "PTR", "CNAME", "HTTPS"] {
            holds(&[(&format!("{name} {kind}"), EMPTY)]);
        }
    }
}

#[test]
fn names_that_are_not_there() {
    for name in [
        "gone.svc.cluster.local",
        "web.gone.svc.cluster.local",
        "gone.default.svc.cluster.local",
        "a.b.c.web.default.svc.cluster.local",
        "x.cluster.local",
        "dns.cluster.local",
        "web.default.cluster.local",
        "default.local.svc.x.cluster.local",
    ] {
        for kind in [
            "A", "AAAA", "SRV", "TXT", "MX", "PTR", "CNAME", "SOA", "NS", "HTTPS", "ANY",
        ] {
            holds(&[(&format!("{name} {kind}"), NONE)]);
        }
    }
}

#[test]
fn types_that_a_name_lacks_are_no_data() {
    for kind in [
        "TXT",
        "MX",
        "PTR",
        "CNAME",
        "SOA",
        "NS",
        "HTTPS",
        "ANY",
        "TYPE65280",
    ] {
        holds(&[(&format!("web.default.svc.cluster.local {kind}"), EMPTY)]);
        holds(&[(&format!("db.default.svc.cluster.local {kind}"), EMPTY)]);
    }
}

#[test]
fn before_the_first_sync_the_server_fails() {
    for asked in [
        "web.default.svc.cluster.local A",
        "cluster.local SOA",
        "1.0.96.10.in-addr.arpa PTR",
    ] {
        let found = plugin().answer(None, &question(asked)).unwrap();
        assert_eq!(found.answer.rcode, Rcode::SERVFAIL, "{asked}");
        assert_eq!(found.answer.authorities.len(), 1);
    }
    assert_eq!(plugin().answer(None, &question("example.com A")), None);
}

#[test]
fn the_zone_has_a_start_and_servers() {
    let soa = "SOA ns.dns.cluster.local. hostmaster.cluster.local. 1000 7200 1800 86400 5";
    holds(&[
        (
            "cluster.local SOA",
            &format!("NOERROR|cluster.local. 5 {soa}"),
        ),
        (
            "cluster.local NS",
            "NOERROR|cluster.local. 5 NS kube-dns.kube-system.svc.cluster.local.|+ kube-dns.kube-system.svc.cluster.local. 5 A 10.96.0.10",
        ),
        (
            "ns.dns.cluster.local A",
            "NOERROR|ns.dns.cluster.local. 5 A 10.96.0.10",
        ),
        ("ns.dns.cluster.local AAAA", EMPTY),
        ("ns.dns.cluster.local TXT", EMPTY),
    ]);
    let on_node = Kubernetes {
        local: vec!["10.96.0.10".parse().unwrap()],
        ..plugin()
    };
    holds_for(
        &on_node,
        &[(
            "cluster.local NS",
            "NOERROR|cluster.local. 5 NS kube-dns.kube-system.svc.cluster.local.|+ kube-dns.kube-system.svc.cluster.local. 5 A 10.96.0.10",
        )],
    );
    let alone = Kubernetes {
        local: vec![
            "192.0.2.53".parse().unwrap(),
            "2001:db8::53".parse().unwrap(),
        ],
        ..plugin()
    };
    holds_for(
        &alone,
        &[
            (
                "cluster.local NS",
                "NOERROR|cluster.local. 5 NS ns.dns.cluster.local.|+ ns.dns.cluster.local. 5 A 192.0.2.53|+ ns.dns.cluster.local. 5 AAAA 2001:db8::53",
            ),
            (
                "ns.dns.cluster.local AAAA",
                "NOERROR|ns.dns.cluster.local. 5 AAAA 2001:db8::53",
            ),
        ],
    );
    let long = Kubernetes {
        ttl: 3600,
        ..plugin()
    };
    holds_for(
        &long,
        &[
            (
                "cluster.local SOA",
                "NOERROR|cluster.local. 300 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1000 7200 1800 86400 3600",
            ),
            (
                "lonely.default.svc.cluster.local A",
                "NOERROR|lonely.default.svc.cluster.local. 3600 A 10.96.0.2",
            ),
        ],
    );
}

#[test]
fn a_zone_is_not_given_away_by_a_question() {
    for kind in ["AXFR", "IXFR"] {
        holds(&[(&format!("cluster.local {kind}"), "REFUSED")]);
    }
}

#[test]
fn namespaces_may_be_listed_or_chosen_by_labels() {
    let listed = Kubernetes {
        namespaces: ["shop".to_owned()].into(),
        ..plugin()
    };
    holds_for(
        &listed,
        &[
            ("web.default.svc.cluster.local A", NONE),
            ("default.svc.cluster.local A", NONE),
            ("shop.svc.cluster.local A", EMPTY),
            ("in.shop.svc.cluster.local A", EMPTY),
            (
                "1.0.96.10.in-addr.arpa PTR",
                "NXDOMAIN|? in-addr.arpa. 5 SOA ns.dns.in-addr.arpa. hostmaster.in-addr.arpa. 1000 7200 1800 86400 5",
            ),
        ],
    );
    let wanted = LabelSelector {
        match_labels: Labels::from([("name", "default")]),
        ..LabelSelector::default()
    };
    let chosen = Kubernetes {
        namespace_labels: Some(wanted),
        ..plugin()
    };
    holds_for(
        &chosen,
        &[
            (
                "lonely.default.svc.cluster.local A",
                "NOERROR|lonely.default.svc.cluster.local. 5 A 10.96.0.2",
            ),
            ("out.shop.svc.cluster.local A", NONE),
            ("shop.svc.cluster.local A", NONE),
        ],
    );
}

#[test]
fn services_may_be_chosen_by_labels() {
    let wanted = LabelSelector {
        match_labels: Labels::from([("name", "lonely")]),
        ..LabelSelector::default()
    };
    let chosen = Kubernetes {
        labels: Some(wanted),
        ..plugin()
    };
    holds_for(
        &chosen,
        &[
            (
                "lonely.default.svc.cluster.local A",
                "NOERROR|lonely.default.svc.cluster.local. 5 A 10.96.0.2",
            ),
            ("web.default.svc.cluster.local A", NONE),
            ("db.default.svc.cluster.local A", NONE),
            (
                "1.2.244.10.in-addr.arpa PTR",
                "NXDOMAIN|? in-addr.arpa. 5 SOA ns.dns.in-addr.arpa. hostmaster.in-addr.arpa. 1000 7200 1800 86400 5",
            ),
        ],
    );
}

#[test]
fn without_endpoints_there_are_only_addresses_of_services() {
    let without = Kubernetes {
        endpoints: false,
        ..plugin()
    };
    holds_for(
        &without,
        &[
            (
                "lonely.default.svc.cluster.local A",
                "NOERROR|lonely.default.svc.cluster.local. 5 A 10.96.0.2",
            ),
            ("db.default.svc.cluster.local A", NONE),
            (
                "1.2.244.10.in-addr.arpa PTR",
                "NXDOMAIN|? in-addr.arpa. 5 SOA ns.dns.in-addr.arpa. hostmaster.in-addr.arpa. 1000 7200 1800 86400 5",
            ),
        ],
    );
}

#[test]
fn services_without_endpoints_may_be_ignored() {
    let ignoring = Kubernetes {
        ignore_empty_service: true,
        ..plugin()
    };
    holds_for(
        &ignoring,
        &[
            ("lonely.default.svc.cluster.local A", NONE),
            (
                "web.default.svc.cluster.local A",
                "NOERROR|web.default.svc.cluster.local. 5 A 10.96.0.1",
            ),
            (
                "out.shop.svc.cluster.local CNAME",
                "NOERROR|out.shop.svc.cluster.local. 5 CNAME www.example.com.",
            ),
        ],
    );
}

#[test]
fn endpoints_of_one_topology_zone() {
    let zonal = Kubernetes {
        zonal: true,
        ..plugin()
    };
    let db = |name: &str, ips: &[&str]| {
        let records = ips.iter().map(|ip| format!("|{name} 5 A {ip}"));
        format!("NOERROR{}", records.collect::<String>())
    };
    holds_for(
        &zonal,
        &[
            (
                "a.pin._zone.db.default.svc.cluster.local A",
                &db("a.pin._zone.db.default.svc.cluster.local.", &["10.244.2.1"]),
            ),
            (
                "b.c.pin._zone.db.default.svc.cluster.local A",
                &db(
                    "b.c.pin._zone.db.default.svc.cluster.local.",
                    &["10.244.2.2"],
                ),
            ),
            ("x.pin._zone.db.default.svc.cluster.local A", EMPTY),
            ("x.pin._zone.db.default.svc.cluster.local TXT", EMPTY),
            (
                "x.prefer._zone.db.default.svc.cluster.local A",
                &db(
                    "x.prefer._zone.db.default.svc.cluster.local.",
                    &["10.244.2.1", "10.244.2.2", "10.244.2.3"],
                ),
            ),
            ("a.other._zone.db.default.svc.cluster.local A", NONE),
            ("a.pin._zone.web.default.svc.cluster.local A", NONE),
            ("pin._zone.db.default.svc.cluster.local A", NONE),
        ],
    );
    holds(&[("a.pin._zone.db.default.svc.cluster.local A", NONE)]);
}

#[test]
fn what_is_not_here_may_be_elsewhere() {
    let all = Kubernetes {
        fallthrough: vec![Name::root()],
        ..plugin()
    };
    let reverse = Kubernetes {
        fallthrough: vec!["in-addr.arpa".parse().unwrap()],
        ..plugin()
    };
    holds_for(
        &all,
        &[
            ("gone.default.svc.cluster.local A", "next"),
            ("default.svc.cluster.local A", EMPTY),
        ],
    );
    holds_for(
        &reverse,
        &[
            ("gone.default.svc.cluster.local A", NONE),
            ("9.9.9.9.in-addr.arpa PTR", "next"),
        ],
    );
    holds(&[("example.com A", "next"), ("local A", "next")]);
}

#[test]
fn the_longest_zone_has_a_name() {
    let two = Kubernetes {
        zones: vec![name("local"), name("cluster.local")],
        ..plugin()
    };
    holds_for(
        &two,
        &[
            (
                "lonely.default.svc.cluster.local A",
                "NOERROR|lonely.default.svc.cluster.local. 5 A 10.96.0.2",
            ),
            (
                "lonely.default.svc.local A",
                "NOERROR|lonely.default.svc.local. 5 A 10.96.0.2",
            ),
        ],
    );
    let root = Kubernetes {
        zones: vec![Name::root()],
        ..plugin()
    };
    holds_for(
        &root,
        &[
            (
                "lonely.default.svc A",
                "NOERROR|lonely.default.svc. 5 A 10.96.0.2",
            ),
            (
                "2.0.96.10.in-addr.arpa PTR",
                "NOERROR|2.0.96.10.in-addr.arpa. 5 PTR lonely.default.svc.cluster.local.",
            ),
        ],
    );
}

#[test]
fn objects_whose_names_are_no_labels_harm_nobody() {
    let mut town = town();
    let long = "a".repeat(64);
    for name in ["a.b", "Upper", "with space", &long] {
        town.service(&format!("default/{name}"), &["10.96.9.9"], &["/TCP/80"]);
    }
    town.slice(
        "default/db",
        &["pg/TCP/5432"],
        &[
            "10.244.2.8 host=dotted.name",
            &format!("10.244.2.9 host={long}"),
            "10.244.2.10 pod=in.points",
        ],
    );
    let view = town.view();
    let ask = |plugin: &Kubernetes, asked: &str| {
        answered(plugin.answer(Some(&view), &question(asked)).as_ref())
    };
    assert_eq!(ask(&plugin(), "9.9.96.10.in-addr.arpa PTR")[0], "NXDOMAIN");
    assert_eq!(
        ask(&plugin(), "db.default.svc.cluster.local A").len(),
        1 + 3
    );
    let servers = ask(&plugin(), "_pg._tcp.db.default.svc.cluster.local SRV").join("|");
    assert!(
        servers.contains("dotted.name.db.default.svc.cluster.local."),
        "{servers}"
    );
    assert!(!servers.contains("aaaa"), "{servers}");
    assert_eq!(ask(&plugin(), "9.2.244.10.in-addr.arpa PTR")[0], "NXDOMAIN");
    let pod_names = Kubernetes {
        endpoint_pod_names: true,
        ..plugin()
    };
    assert_eq!(
        ask(&pod_names, "10.2.244.10.in-addr.arpa PTR")[1],
        "10.2.244.10.in-addr.arpa. 5 PTR in.points.db.default.svc.cluster.local."
    );
}

#[test]
fn a_change_is_in_the_next_answer() {
    let mut town = town();
    let before = town.view();
    let asked = question("new.default.svc.cluster.local A");
    assert_eq!(
        answered(plugin().answer(Some(&before), &asked).as_ref())[0],
        "NXDOMAIN"
    );
    town.at(UNIX_EPOCH + Duration::from_secs(2000));
    town.service("default/new", &["10.96.3.3"], &["/TCP/80"]);
    let after = town.view();
    assert_eq!(
        answered(plugin().answer(Some(&after), &asked).as_ref())[1],
        "new.default.svc.cluster.local. 5 A 10.96.3.3"
    );
    assert_eq!((before.names.serial(), after.names.serial()), (1000, 2000));
}
