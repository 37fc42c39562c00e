//! Services of every kind, and their endpoints.

use super::*;

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
    let pod_names = with(|o| o.endpoint_pod_names = true);
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
