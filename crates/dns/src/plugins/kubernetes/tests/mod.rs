//! Every line of the reference, and what CoreDNS does where it says nothing.

mod objects;
mod oracle;
mod zone;

use super::*;
use crate::plan::testing::{Town, answered, question};

/// The cluster that most is asked of.
pub(super) fn town() -> Town {
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

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn options() -> options::Kubernetes {
    options::Kubernetes {
        zones: ["cluster.local", "in-addr.arpa", "ip6.arpa"]
            .map(name)
            .into(),
        ..options::Kubernetes::default()
    }
}

pub(super) fn plugin() -> Kubernetes {
    with(|_| {})
}

pub(super) fn with(change: impl FnOnce(&mut options::Kubernetes)) -> Kubernetes {
    let mut options = options();
    change(&mut options);
    Kubernetes::new(&options, &["10.244.1.9".parse().unwrap()]).unwrap()
}

pub(super) fn at(local: &[&str]) -> Kubernetes {
    let local: Vec<IpAddr> = local.iter().map(|ip| ip.parse().unwrap()).collect();
    Kubernetes::new(&options(), &local).unwrap()
}

/// Asks and compares what is answered, with records as `name TTL type data`.
pub(super) fn holds_for(plugin: &Kubernetes, rows: &[(&str, &str)]) {
    let view = town().view();
    for (asked, wanted) in rows {
        let found = plugin.answer(Some(&view), &question(asked));
        let wanted: Vec<&str> = wanted.split('|').map(str::trim).collect();
        assert_eq!(answered(found.as_ref()), wanted, "{asked}");
    }
}

pub(super) fn holds(rows: &[(&str, &str)]) {
    holds_for(&plugin(), rows);
}

pub(super) const NONE: &str = "NXDOMAIN|? cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1000 7200 1800 86400 5";
pub(super) const EMPTY: &str = "NOERROR|? cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1000 7200 1800 86400 5";
