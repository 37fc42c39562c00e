//! From one state to the next, on a kernel in memory.

use std::collections::BTreeMap;

use linux::fake::{Fake, Iptables};
use linux::{Event, Kernel};
use model::config::ServicesMode;
use model::{Change, Changed, Cluster, Config};
use nft::IpFamily;
use services::{Report, Services};

use crate::build::{self, Put, cluster, endpoint, service, slice};

/// An agent on a kernel.
struct Node {
    services: Services,
    fake: Fake,
    cluster: Cluster,
    config: Config,
}

impl Node {
    fn new() -> Self {
        let mut fake = Fake::default();
        let localnet = "net/ipv4/conf/all/route_localnet".to_owned();
        fake.sysctls.insert(localnet, "0".to_owned());
        let mut cluster = cluster();
        for name in ["a", "b"] {
            service(name, name.as_bytes()[0]).put(&mut cluster);
            let endpoints = ["10.244.1.1", "10.244.1.2", "10.244.2.1"];
            slice(name, "x", endpoints.map(endpoint).to_vec()).put(&mut cluster);
        }
        let mut config = build::config();
        config.services.mode = ServicesMode::Iptables;
        Self {
            services: Services::new("node1"),
            fake,
            cluster,
            config,
        }
    }

    fn reconcile(&mut self, changed: &Changed) -> Report {
        let report = self
            .services
            .reconcile(&mut self.fake, &self.cluster, changed, &self.config);
        assert_eq!(report.errors, []);
        report
    }

    fn take(&mut self, change: Change) -> Report {
        let mut changed = Changed::default();
        self.cluster.note(change, &mut changed);
        self.reconcile(&changed)
    }

    fn table(&self, name: &str) -> BTreeMap<String, Vec<String>> {
        self.fake.iptables[&(IpFamily::V4, name.to_owned())]
            .chains
            .clone()
    }

    /// Somebody else's hand.
    fn by_hand(&mut self, text: &str) {
        self.fake.iptables_restore(IpFamily::V4, text).unwrap();
        self.fake.take_changes();
    }
}

fn differing(
    before: &BTreeMap<String, Vec<String>>,
    after: &BTreeMap<String, Vec<String>>,
) -> Vec<String> {
    let names = before.keys().chain(after.keys());
    let mut names: Vec<String> = names
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_new_agent_adopts_what_it_finds() {
    let mut node = Node::new();
    assert!(node.reconcile(&Changed::default()).changes > 0);
    assert_eq!(node.fake.sysctls["net/ipv4/conf/all/route_localnet"], "1");
    node.fake.take_changes();
    node.services = Services::new("node1");
    assert_eq!(node.reconcile(&Changed::default()).changes, 0);
    assert_eq!(node.fake.take_changes(), [""; 0]);
}

#[test]
fn an_endpoint_changes_its_own_services_chains_in_one_go() {
    let mut node = Node::new();
    node.reconcile(&Changed::default());
    node.fake.take_changes();
    let before = node.table("nat");
    let endpoints = ["10.244.1.1", "10.244.2.1", "10.244.2.2"];
    let slice = slice("a", "x", endpoints.map(endpoint).to_vec());
    node.take(Change::Slice(slice.into()));
    assert_eq!(node.fake.take_changes(), ["restore ip tables"]);
    let changed = differing(&before, &node.table("nat"));
    let kinds: Vec<&str> = changed.iter().map(|name| &name[..9]).collect();
    assert_eq!(kinds, ["KUBE-SEP-", "KUBE-SEP-", "KUBE-SVC-"]);
}

#[test]
fn the_last_endpoint_goes_and_comes_back() {
    let mut node = Node::new();
    node.reconcile(&Changed::default());
    let (nat, filter) = (node.table("nat"), node.table("filter"));
    node.take(Change::Slice(slice("a", "x", Vec::new()).into()));
    let refused = &node.table("filter")["KUBE-SERVICES"];
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].contains("\"ns/a has no endpoints\""),
        "{refused:?}"
    );
    assert!(refused[0].ends_with("-j REJECT --reject-with icmp-port-unreachable"));
    let chains = |table: &BTreeMap<String, Vec<String>>| table.len();
    assert_eq!(chains(&nat) - chains(&node.table("nat")), 4);
    let endpoints = ["10.244.1.1", "10.244.1.2", "10.244.2.1"];
    node.take(Change::Slice(
        slice("a", "x", endpoints.map(endpoint).to_vec()).into(),
    ));
    assert_eq!(node.table("filter"), filter);
    assert_eq!(node.table("nat"), nat);
}

/// Led before it is no longer refused, refused before it is no longer led.
#[test]
fn a_connection_always_has_a_way() {
    use crate::build::plan;
    use services::plan::Plan;
    use services::render::iptables::{Present, change, whole};
    let with = |some: bool| {
        let mut cluster = cluster();
        service("a", 1).put(&mut cluster);
        slice(
            "a",
            "x",
            some.then(|| endpoint("10.244.1.1")).into_iter().collect(),
        )
        .put(&mut cluster);
        plan(&cluster)
    };
    let without = std::collections::BTreeSet::new();
    // Which lines come in which order, whether they follow a change or mend what an earlier
    // process left.
    let order = |was: &Plan, is: &Plan| {
        let port = |plan: &Plan| plan.ports().values().next().cloned();
        let delta = services::Delta {
            ports: vec![services::plan::PortChange {
                was: port(was),
                is: port(is),
            }],
        };
        let mut fake = Fake::default();
        super::write(&mut fake, was);
        let saved = fake.iptables_save(IpFamily::V4).unwrap();
        let context = super::context(is, false, &without);
        let texts = [
            change(&context, is, &delta),
            whole(&context, is, &Present::parse(&saved)),
        ];
        let [one, other] = texts.map(|text| {
            let lines = text.lines().filter_map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let target = words.iter().position(|word| *word == "-j")?;
                (words[1] == "KUBE-SERVICES")
                    .then(|| format!("{} {}", words[0], &words[target + 1][..6]))
            });
            lines.collect::<Vec<_>>()
        });
        assert_eq!(one, other);
        one
    };
    assert_eq!(order(&with(false), &with(true)), ["-I KUBE-S", "-D REJECT"]);
    assert_eq!(order(&with(true), &with(false)), ["-I REJECT", "-D KUBE-S"]);
}

#[test]
fn leftovers_go_and_what_is_others_stays() {
    let mut node = Node::new();
    node.by_hand(
        "*nat\n:KUBE-SVC-OLD - [0:0]\n:KUBE-SEP-OLD - [0:0]\n:CNI-X - [0:0]\n:KUBE-OTHER - [0:0]\n\
         -A KUBE-SVC-OLD -j KUBE-SEP-OLD\n-A PREROUTING -j CNI-X\n-A CNI-X -j RETURN\nCOMMIT\n",
    );
    node.reconcile(&Changed::default());
    let nat = node.table("nat");
    assert!(!nat.contains_key("KUBE-SVC-OLD") && !nat.contains_key("KUBE-SEP-OLD"));
    assert_eq!(nat["CNI-X"], ["-j RETURN"]);
    assert!(nat.contains_key("KUBE-OTHER"));
    let jump = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
    assert_eq!(nat["PREROUTING"], [jump, "-j CNI-X"]);

    node.config.services.mode = ServicesMode::Nftables;
    node.reconcile(&Changed::default());
    let nat = node.table("nat");
    assert_eq!(nat["PREROUTING"], ["-j CNI-X"]);
    let left: Vec<&String> = nat.keys().filter(|name| name.contains("KUBE")).collect();
    assert_eq!(left, ["KUBE-OTHER"]);
    for table in ["filter", "mangle"] {
        let empty = Iptables::new(table).unwrap().chains;
        assert_eq!(node.table(table), empty);
    }
}

/// Nobody else gets to 127.0.0.1: it is open after the guard came, and closed before it goes.
#[test]
fn loopback_is_open_only_behind_its_guard() {
    const LOCALNET: &str = "net/ipv4/conf/all/route_localnet";
    let mut node = Node::new();
    let guards = |node: &Node| node.table("filter")["KUBE-FIREWALL"].len();
    node.reconcile(&Changed::default());
    assert_eq!(
        (node.fake.sysctls[LOCALNET].as_str(), guards(&node)),
        ("1", 1)
    );
    node.config.services.localhost_node_ports = false;
    node.fake.take_changes();
    node.reconcile(&Changed::default());
    assert_eq!(
        (node.fake.sysctls[LOCALNET].as_str(), guards(&node)),
        ("0", 0)
    );
    let order = [
        "set sysctl net/ipv4/conf/all/route_localnet",
        "restore ip tables",
    ];
    assert_eq!(node.fake.take_changes()[..2], order);

    node.config.services.localhost_node_ports = true;
    node.reconcile(&Changed::default());
    assert_eq!(node.fake.sysctls[LOCALNET], "1");
    assert_eq!(Services::remove_all(&mut node.fake), []);
    assert_eq!(node.fake.sysctls[LOCALNET], "0");
}

/// The kubelet says by a chain of its own that it is there, and looks after KUBE-FIREWALL too.
#[test]
fn a_kubelet_keeps_its_firewall() {
    let mut node = Node::new();
    node.by_hand("*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n");
    node.reconcile(&Changed::default());
    node.config.services.mode = ServicesMode::Nftables;
    node.reconcile(&Changed::default());
    let filter = node.table("filter");
    assert_eq!(filter["INPUT"], ["-j KUBE-FIREWALL"]);
    assert_eq!(filter["KUBE-FIREWALL"].len(), 1);
    assert!(!filter.contains_key("KUBE-SERVICES"));
    node.config.services.mode = ServicesMode::Iptables;
    node.config.services.localhost_node_ports = false;
    node.reconcile(&Changed::default());
    assert_eq!(node.table("filter")["KUBE-FIREWALL"].len(), 1);
}

#[test]
fn what_others_break_is_made_whole() {
    let mut node = Node::new();
    node.reconcile(&Changed::default());
    let whole = node.table("nat");
    let svc = whole.keys().find(|name| name.starts_with("KUBE-SVC-"));
    for (text, chain) in [
        ("-F PREROUTING\n".to_owned(), "PREROUTING"),
        (format!("-F {}\n", svc.unwrap()), svc.unwrap()),
        ("-F KUBE-SERVICES\n".to_owned(), "KUBE-SERVICES"),
        (
            "-I KUBE-POSTROUTING -j RETURN\n".to_owned(),
            "KUBE-POSTROUTING",
        ),
        ("-X KUBE-PROXY-CANARY\n".to_owned(), "KUBE-PROXY-CANARY"),
    ] {
        node.by_hand(&format!("*nat\n{text}COMMIT\n"));
        assert_ne!(node.table("nat"), whole);
        let event = Event::Nftables {
            table: "nat".to_owned(),
            name: Some(chain.to_owned()),
        };
        assert!(node.services.notice(&event), "{text}");
        node.reconcile(&Changed::default());
        assert_eq!(node.table("nat"), whole, "{text}");
    }
    node.fake.iptables.clear();
    let event = Event::Nftables {
        table: "nat".to_owned(),
        name: None,
    };
    assert!(node.services.notice(&event));
    node.reconcile(&Changed::default());
    assert_eq!(node.table("nat"), whole);
    for (table, chain) in [
        ("nat", "CNI-X"),
        ("flatnet", "KUBE-SERVICES"),
        ("raw", "PREROUTING"),
    ] {
        let event = Event::Nftables {
            table: table.to_owned(),
            name: Some(chain.to_owned()),
        };
        assert!(!node.services.notice(&event), "{table} {chain}");
    }
}

/// A change that does not fit what somebody left there is followed by a look at everything.
#[test]
fn a_change_over_a_broken_table_heals_it() {
    let mut node = Node::new();
    node.reconcile(&Changed::default());
    node.by_hand("*nat\n-F KUBE-SERVICES\nCOMMIT\n");
    node.take(Change::ServiceGone("ns".to_owned(), "a".to_owned()));
    let nat = node.table("nat");
    assert_eq!(nat["KUBE-SERVICES"].len(), 2);
    assert_eq!(
        nat.keys()
            .filter(|name| name.starts_with("KUBE-SVC-"))
            .count(),
        1
    );
}

/// What the kernel refuses of one port is told of that port, and all others work.
#[test]
fn a_refused_port_stands_alone() {
    let mut node = Node::new();
    node.fake.iptables_lacks = Some("-m sctp".to_owned());
    let mut media = service("media", 9);
    media.ports = vec![
        build::port("control", model::Protocol::Tcp, 80),
        build::port("media", model::Protocol::Sctp, 80),
    ];
    media.put(&mut node.cluster);
    let mut endpoints = slice("media", "x", vec![endpoint("10.244.1.1")]);
    endpoints.ports = ["control", "media"]
        .map(|name| model::SlicePort {
            name: name.to_owned(),
            protocol: if name == "media" {
                model::Protocol::Sctp
            } else {
                model::Protocol::Tcp
            },
            port: Some(8080),
        })
        .to_vec();
    endpoints.clone().put(&mut node.cluster);
    let told = |report: &Report| {
        let problems = report.problems.iter();
        problems
            .map(|it| format!("{}: {}", it.object.1, it.field))
            .collect::<Vec<_>>()
    };
    let report = node.reconcile(&Changed::default());
    assert_eq!(told(&report), ["media: spec.ports[media/SCTP]"]);
    assert!(
        report.problems[0].message.contains("-m sctp"),
        "{:?}",
        report.problems
    );
    let services = |node: &Node| node.table("nat")["KUBE-SERVICES"].len();
    assert_eq!(services(&node), 4);

    // It is told with every change until it goes, or works.
    let more = slice("a", "x", vec![endpoint("10.244.2.1")]);
    let report = node.take(Change::Slice(more.into()));
    assert_eq!(told(&report), ["media: spec.ports[media/SCTP]"]);
    node.fake.iptables_lacks = None;
    endpoints.endpoints.push(endpoint("10.244.2.1"));
    let report = node.take(Change::Slice(endpoints.into()));
    assert_eq!((told(&report).len(), services(&node)), (0, 5));

    node.fake.iptables_lacks = Some("-m sctp".to_owned());
    node.fake.iptables.clear();
    node.services.resync();
    assert_eq!(told(&node.reconcile(&Changed::default())).len(), 1);
    let report = node.take(Change::ServiceGone("ns".to_owned(), "media".to_owned()));
    assert_eq!((told(&report).len(), services(&node)), (0, 3));
}

/// Many Services at once: the shared chains are written anew, for each deletion is a search.
#[test]
fn many_services_come_and_go_together() {
    let mut node = Node::new();
    let mut changed = Changed::default();
    let named = |n: u8| {
        let mut made = service(&format!("s{n}"), 1);
        made.cluster_ips = vec![build::ip(&format!("10.97.0.{n}"))];
        made
    };
    node.reconcile(&changed);
    let before = (node.table("nat"), node.table("filter"));
    for n in 0..100 {
        node.cluster
            .note(Change::Service(named(n).into()), &mut changed);
        let slice = slice(&format!("s{n}"), "x", vec![endpoint("10.244.1.1")]);
        node.cluster.note(Change::Slice(slice.into()), &mut changed);
    }
    node.reconcile(&changed);
    assert_eq!(node.table("nat")["KUBE-SERVICES"].len(), 103);
    for n in 0..100 {
        let gone = Change::ServiceGone("ns".to_owned(), format!("s{n}"));
        node.cluster.note(gone, &mut changed);
    }
    node.reconcile(&changed);
    assert_eq!((node.table("nat"), node.table("filter")), before);
}
