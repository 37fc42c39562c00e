//! Pods, the zone itself, and options.

use std::time::{Duration, UNIX_EPOCH};

use model::{LabelSelector, Labels};

use super::*;
use crate::plan::testing::shown;

#[test]
fn pods_are_disabled_insecure_or_verified() {
    let pod = |name: &str, kind: &str, ip: &str| format!("NOERROR|{name} 5 {kind} {ip}");
    holds(&[
        ("10-244-1-2.default.pod.cluster.local A", NONE),
        ("default.pod.cluster.local A", NONE),
        ("pod.cluster.local A", EMPTY),
    ]);
    let insecure = with(|o| o.pods = options::PodMode::Insecure);
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
    let verified = with(|o| o.pods = options::PodMode::Verified);
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
    let on_node = at(&["10.96.0.10"]);
    holds_for(
        &on_node,
        &[(
            "cluster.local NS",
            "NOERROR|cluster.local. 5 NS kube-dns.kube-system.svc.cluster.local.|+ kube-dns.kube-system.svc.cluster.local. 5 A 10.96.0.10",
        )],
    );
    let alone = at(&["192.0.2.53", "2001:db8::53"]);
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
    let long = with(|o| o.ttl = 3600);
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
fn a_zone_is_transferred_whole() {
    let (view, plugin) = (town().view(), plugin());
    let all = |zone: &str| -> Vec<String> {
        let records = plugin.transfer(&view, &name(zone), None).unwrap();
        records.map(|record| shown(&record)).collect()
    };
    let lines = all("cluster.local");
    let soa = "cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1000 7200 1800 86400 5";
    let wanted = [
        soa,
        "cluster.local. 5 NS kube-dns.kube-system.svc.cluster.local.",
        "kube-dns.kube-system.svc.cluster.local. 5 A 10.96.0.10",
        "db.default.svc.cluster.local. 5 A 10.244.2.1",
        "db-0.db.default.svc.cluster.local. 5 A 10.244.2.1",
        "_pg._tcp.db.default.svc.cluster.local. 5 SRV 0 33 5432 db-0.db.default.svc.cluster.local.",
    ];
    assert_eq!(lines[..6], wanted);
    assert_eq!(lines.last().map(String::as_str), Some(soa));
    for line in [
        "web.default.svc.cluster.local. 5 A 10.96.0.1",
        "web.default.svc.cluster.local. 5 AAAA fd00:10:96::1",
        "web.default.svc.cluster.local. 5 SRV 0 100 80 web.default.svc.cluster.local.",
        "_http._tcp.web.default.svc.cluster.local. 5 SRV 0 100 80 web.default.svc.cluster.local.",
        "lonely.default.svc.cluster.local. 5 SRV 0 100 80 lonely.default.svc.cluster.local.",
        "out.shop.svc.cluster.local. 5 CNAME www.example.com.",
    ] {
        assert!(lines.iter().any(|other| other == line), "{line}");
    }
    assert!(
        !lines
            .iter()
            .any(|line| line.contains("number") || line.contains("10.244.2.4"))
    );
    let reverse = all("in-addr.arpa");
    let ptr = "1.0.96.10.in-addr.arpa. 5 PTR web.default.svc.cluster.local.";
    assert!(reverse.iter().any(|line| line == ptr), "{reverse:?}");
    assert!(!reverse.iter().any(|line| line.contains("ip6.arpa")));
    assert_eq!(
        plugin
            .transfer(&view, &name("cluster.local"), Some(1000))
            .unwrap()
            .count(),
        1
    );
    assert!(
        plugin
            .transfer(&view, &name("svc.cluster.local"), None)
            .is_none()
    );
}

#[test]
fn zones_of_other_clusters_are_refused() {
    let mut multi = options();
    multi.multicluster = vec![name("clusterset.local")];
    assert!(
        Kubernetes::new(&multi, &[])
            .unwrap_err()
            .starts_with("multicluster clusterset.local.: ")
    );
    let mut nothing = options();
    nothing.zones.clear();
    assert!(
        Kubernetes::new(&nothing, &[])
            .unwrap_err()
            .contains("cluster.local")
    );
}

#[test]
fn namespaces_may_be_listed_or_chosen_by_labels() {
    let listed = with(|o| o.namespaces = ["shop".to_owned()].into());
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
    let chosen = with(|o| o.namespace_labels = Some(wanted));
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
    let chosen = with(|o| o.labels = Some(wanted));
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
    let without = with(|o| o.endpoints = false);
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
    let ignoring = with(|o| o.ignore_empty_service = true);
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
    let zonal = with(|o| o.zonal = true);
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
    let all = with(|o| o.fallthrough = vec![Name::root()]);
    let reverse = with(|o| o.fallthrough = vec!["in-addr.arpa".parse().unwrap()]);
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
    let two = with(|o| o.zones = vec![name("local"), name("cluster.local")]);
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
    let root = with(|o| o.zones = vec![Name::root()]);
    holds_for(
        &root,
        &[
            (
                "lonely.default.svc A",
                "NOERROR|lonely.default.svc. 5 A 10.96.0.2",
            ),
            (
                "2.0.96.10.in-addr.arpa PTR",
                "NOERROR|2.0.96.10.in-addr.arpa. 5 PTR lonely.default.svc.",
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
    let pod_names = with(|o| o.endpoint_pod_names = true);
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
