//! As CoreDNS answers.

use super::*;
use crate::plan::testing::{Town, answered, question, shown};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn town() -> Town {
    let mut town = Town::default();
    town.namespace("shop").namespace("empty");
    town.change(
        "shop/web",
        &["10.96.0.1"],
        &["http/TCP/80", "dns/UDP/53"],
        |service| {
            service.external_ips = vec!["192.0.2.1".parse().unwrap()];
            let ip = "2001:db8::1".parse().unwrap();
            service.load_balancer = vec![model::LoadBalancerAddress { ip, proxied: false }];
        },
    );
    town.change(
        "shop/far",
        &["10.96.0.2"],
        &["http/TCP/80", "tls/TCP/443"],
        |service| {
            service.balancer_names = ["lb.example.com".to_owned()].into();
        },
    );
    town.service("shop/inside", &["10.96.0.3"], &["/TCP/80"]);
    town.service("shop/db", &[], &["pg/TCP/5432"]);
    town.slice(
        "shop/db",
        &["pg/TCP/5432"],
        &["10.244.2.1 host=db-0", "10.244.2.2"],
    );
    town
}

fn kubernetes() -> Kubernetes {
    let options = crate::corefile::plugins::Kubernetes {
        zones: vec![name("cluster.local")],
        ttl: 7,
        ..Default::default()
    };
    Kubernetes::new(&options, &["192.0.2.53".parse().unwrap()]).unwrap()
}

fn plugin(change: impl FnOnce(&mut K8sExternal)) -> External {
    let mut options = K8sExternal {
        zones: ["example.org", "in-addr.arpa", "ip6.arpa"].map(name).into(),
        ..K8sExternal::default()
    };
    change(&mut options);
    External::new(&options).unwrap()
}

fn holds(plugin: &External, rows: &[(&str, &str)]) {
    let view = town().view();
    for (asked, wanted) in rows {
        let found = plugin.answer(&kubernetes(), Some(&view), &question(asked));
        let wanted: Vec<&str> = wanted.split('|').map(str::trim).collect();
        assert_eq!(answered(found.as_ref()), wanted, "{asked}");
    }
}

const SOA: &str =
    "example.org. 5 SOA ns1.dns.example.org. hostmaster.dns.example.org. 1000 7200 1800 86400 5";

fn none() -> String {
    format!("NXDOMAIN|? {SOA}")
}

fn empty() -> String {
    format!("NOERROR|? {SOA}")
}

#[test]
fn the_zone_and_its_server() {
    holds(
        &plugin(|_| {}),
        &[
            ("example.org SOA", &format!("NOERROR|{SOA}")),
            (
                "Example.org NS",
                "NOERROR|example.org. 5 NS ns1.dns.example.org.|+ ns1.dns.example.org. 5 A 192.0.2.53",
            ),
            ("example.org A", &empty()),
            ("dns.example.org A", &empty()),
            (
                "ns1.dns.example.org A",
                "NOERROR|ns1.dns.example.org. 5 A 192.0.2.53",
            ),
            ("ns1.dns.example.org AAAA", &empty()),
            ("ns2.dns.example.org A", &none()),
            ("a.ns1.dns.example.org A", &none()),
            ("example.com A", "next"),
        ],
    );
    holds(
        &plugin(|o| o.apex = "own".to_owned()),
        &[(
            "ns1.own.example.org A",
            "NOERROR|ns1.own.example.org. 5 A 192.0.2.53",
        )],
    );
}

#[test]
fn services_by_the_addresses_that_lead_to_them() {
    holds(
        &plugin(|_| {}),
        &[
            (
                "web.shop.example.org A",
                "NOERROR|web.shop.example.org. 5 A 192.0.2.1",
            ),
            (
                "WEB.shop.example.org AAAA",
                "NOERROR|WEB.shop.example.org. 5 AAAA 2001:db8::1",
            ),
            (
                "_http._tcp.web.shop.example.org SRV",
                "NOERROR|_http._tcp.web.shop.example.org. 7 SRV 0 50 80 web.shop.example.org.|+ web.shop.example.org. 5 A 192.0.2.1|+ web.shop.example.org. 5 AAAA 2001:db8::1",
            ),
            ("_http._udp.web.shop.example.org SRV", &none()),
            ("web.shop.example.org TXT", &empty()),
            ("inside.shop.example.org A", &none()),
            ("gone.shop.example.org A", &none()),
            ("shop.example.org A", &empty()),
            ("gone.example.org A", &none()),
            ("a.b.c.web.shop.example.org A", &none()),
            (
                "1.2.0.192.in-addr.arpa PTR",
                "NOERROR|1.2.0.192.in-addr.arpa. 5 PTR web.shop.example.org.",
            ),
            (
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR",
                "NOERROR|1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 5 PTR web.shop.example.org.",
            ),
        ],
    );
}

#[test]
fn a_balancer_with_a_name_is_an_alias() {
    holds(
        &plugin(|_| {}),
        &[
            (
                "far.shop.example.org A",
                "NOERROR|far.shop.example.org. 7 CNAME lb.example.com.|> lb.example.com. A",
            ),
            (
                "_tls._tcp.far.shop.example.org SRV",
                "NOERROR|_tls._tcp.far.shop.example.org. 7 SRV 0 100 443 lb.example.com.|> lb.example.com. A|> lb.example.com. AAAA",
            ),
        ],
    );
}

#[test]
fn headless_services_where_they_are_wanted() {
    holds(&plugin(|_| {}), &[("db.shop.example.org A", &none())]);
    holds(
        &plugin(|o| o.headless = true),
        &[
            (
                "db.shop.example.org A",
                "NOERROR|db.shop.example.org. 5 A 10.244.2.1|db.shop.example.org. 5 A 10.244.2.2",
            ),
            (
                "db-0.db.shop.example.org A",
                "NOERROR|db-0.db.shop.example.org. 5 A 10.244.2.1",
            ),
            (
                "10-244-2-2.db.shop.example.org A",
                "NOERROR|10-244-2-2.db.shop.example.org. 5 A 10.244.2.2",
            ),
            (
                "_pg._tcp.db.shop.example.org SRV",
                "NOERROR|_pg._tcp.db.shop.example.org. 7 SRV 0 50 5432 db-0.db.shop.example.org.|_pg._tcp.db.shop.example.org. 7 SRV 0 50 5432 10-244-2-2.db.shop.example.org.|+ db-0.db.shop.example.org. 5 A 10.244.2.1|+ 10-244-2-2.db.shop.example.org. 5 A 10.244.2.2",
            ),
        ],
    );
}

#[test]
fn what_is_not_here_may_be_elsewhere() {
    holds(
        &plugin(|o| o.fallthrough = vec![Name::root()]),
        &[
            ("gone.shop.example.org A", "next"),
            ("shop.example.org A", &empty()),
            ("x.dns.example.org A", &none()),
        ],
    );
    let found = plugin(|_| {}).answer(&kubernetes(), None, &question("web.shop.example.org A"));
    assert_eq!(found.unwrap().answer.rcode, Rcode::SERVFAIL);
}

#[test]
fn a_zone_is_transferred_whole() {
    let view = town().view();
    let (plugin, kubernetes) = (plugin(|o| o.headless = true), kubernetes());
    let all = plugin
        .transfer(&kubernetes, &view, &name("example.org"), None)
        .unwrap();
    let lines: Vec<String> = all.map(|record| shown(&record)).collect();
    let wanted = [
        SOA,
        "example.org. 5 NS ns1.dns.example.org.",
        "ns1.dns.example.org. 5 A 192.0.2.53",
        "db.shop.example.org. 5 A 10.244.2.1",
        "db.shop.example.org. 5 A 10.244.2.2",
        "db.shop.example.org. 7 SRV 0 50 5432 db-0.db.shop.example.org.",
        "db.shop.example.org. 7 SRV 0 50 5432 10-244-2-2.db.shop.example.org.",
        "db-0.db.shop.example.org. 5 A 10.244.2.1",
        "db-0.db.shop.example.org. 7 SRV 0 100 5432 db-0.db.shop.example.org.",
        "10-244-2-2.db.shop.example.org. 5 A 10.244.2.2",
        "10-244-2-2.db.shop.example.org. 7 SRV 0 100 5432 10-244-2-2.db.shop.example.org.",
        "_pg._tcp.db.shop.example.org. 7 SRV 0 50 5432 db-0.db.shop.example.org.",
        "_pg._tcp.db.shop.example.org. 7 SRV 0 50 5432 10-244-2-2.db.shop.example.org.",
        "far.shop.example.org. 7 CNAME lb.example.com.",
    ];
    assert_eq!(lines[..wanted.len()], wanted);
    assert_eq!(lines.last().unwrap(), SOA);
    let same = plugin
        .transfer(&kubernetes, &view, &name("example.org"), Some(1000))
        .unwrap();
    assert_eq!(same.count(), 1);
    assert!(
        plugin
            .transfer(&kubernetes, &view, &name("example.com"), None)
            .is_none()
    );
}
