//! From one state to the next, through a kernel in memory.

use linux::Event;
use linux::conntrack::{DST_NAT, Flow, Tuple};
use linux::fake::Fake;
use model::config::ServicesMode;
use model::{Changed, Cluster, Config};
use nft::wire::read::DynamicElement;
use nft::{Datum, ElementKey, Family, Rule, Statement, Table, Value};
use proptest::prelude::*;
use services::Services;

use super::oracle::check;
use super::{follow, reconcile, wanted};
use crate::build::{Put, balanced, cluster, config, endpoint, ip, service, slice};
use crate::worlds::{World, changes, empty_world};

const EINVAL: i32 = 22;
const EPERM: i32 = 1;
const TABLE: &str = "flatnet";
const ROUTE_LOCALNET: &str = "net/ipv4/conf/all/route_localnet";

fn nothing() -> Changed {
    Changed::default()
}

/// A cluster of two Services, one of them with a node port.
fn two() -> Cluster {
    let mut cluster = cluster();
    service("a", 1).put(&mut cluster);
    slice(
        "a",
        "x",
        ["10.244.1.1", "10.244.2.1"].map(endpoint).to_vec(),
    )
    .put(&mut cluster);
    balanced("b", 2, "192.0.2.2", 30002).put(&mut cluster);
    let three = ["10.244.1.1", "10.244.1.2", "10.244.2.1"].map(endpoint);
    slice("b", "x", three.to_vec()).put(&mut cluster);
    cluster
}

/// A kernel that serves it, and who brought it there.
fn served(cluster: &Cluster) -> (Fake, Services) {
    let mut fake = Fake::default();
    fake.sysctls.insert(ROUTE_LOCALNET.into(), "0".into());
    let mut services = Services::new("node1");
    let report = reconcile(&mut services, &mut fake, cluster, &nothing(), &config());
    assert_eq!((report.errors, report.problems), (vec![], vec![]));
    assert_eq!(fake.nft.get(TABLE), Some(&wanted(&services)));
    fake.changes.clear();
    (fake, services)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Following changes, however they are cut into pieces, ends where one whole write does; and
    /// the rules then do what `explain` says.
    #[test]
    fn changes_end_where_a_whole_write_does(
        mut world in empty_world(),
        changes in changes(4..32),
        at_once in 1_usize..6,
    ) {
        let mut fake = Fake::default();
        let mut services = Services::new("node1");
        for some in changes.chunks(at_once) {
            let report = follow(&mut services, &mut fake, &mut world, some);
            prop_assert_eq!(report.errors, vec![]);
            prop_assert_eq!(fake.nft.get(TABLE), Some(&wanted(&services)));
        }
        check(&world, &fake.nft[TABLE])?;
    }

    /// Two kernels that hear of the same objects in another order have the same rules.
    #[test]
    fn the_order_does_not_matter(world in empty_world(), changes in changes(4..24)) {
        let mut last: Option<(Fake, World)> = None;
        for at_once in [1, 1000] {
            let mut fake = Fake::default();
            let mut services = Services::new("node1");
            let mut world = world.clone();
            for some in changes.chunks(at_once) {
                follow(&mut services, &mut fake, &mut world, some);
            }
            if let Some((other, _)) = &last {
                prop_assert_eq!(&other.nft, &fake.nft);
            }
            last = Some((fake, world));
        }
    }

    /// Whatever another process left there becomes what is wanted.
    #[test]
    fn another_state_is_adopted(
        before in empty_world(),
        after in empty_world(),
        some in changes(4..24),
        others in changes(4..24),
    ) {
        let mut fake = Fake::default();
        let mut before = before;
        follow(&mut Services::new("node1"), &mut fake, &mut before, &some);
        let mut services = Services::new("node1");
        let mut after = World { cluster: before.cluster, ..after };
        let report = follow(&mut services, &mut fake, &mut after, &others);
        prop_assert_eq!(report.errors, vec![]);
        prop_assert_eq!(fake.nft.get(TABLE), Some(&wanted(&services)));
    }
}

#[test]
fn a_change_touches_what_it_changes() {
    let mut cluster = two();
    let (mut fake, mut services) = served(&cluster);
    let mut changed = nothing();
    let moved = slice(
        "a",
        "x",
        ["10.244.1.1", "10.244.2.9"].map(endpoint).to_vec(),
    );
    cluster.note(model::Change::Slice(moved.into()), &mut changed);
    let report = reconcile(&mut services, &mut fake, &cluster, &changed, &config());
    assert_eq!(report.changes, 2);
    assert_eq!(
        fake.changes,
        [
            "delete elements of set services-endpoints",
            "add elements to set services-endpoints",
        ]
    );
}

#[test]
fn a_restart_changes_nothing() {
    let cluster = two();
    let (mut fake, _) = served(&cluster);
    let mut adopter = Services::new("node1");
    let report = reconcile(&mut adopter, &mut fake, &cluster, &nothing(), &config());
    assert_eq!((report.changes, fake.changes), (0, vec![]));
}

#[test]
fn what_others_did_is_put_right() {
    let cluster = two();
    let (mut fake, mut services) = served(&cluster);
    let table = fake.nft.get_mut(TABLE).unwrap();
    table
        .chains
        .get_mut("services-dispatch")
        .unwrap()
        .rules
        .pop();
    table.chains.remove("services-postrouting");
    let endpoints = table.sets.get_mut("services-endpoints").unwrap();
    let first = endpoints.elements.keys().next().unwrap().clone();
    endpoints.elements.remove(&first);
    let last = endpoints.elements.keys().next_back().unwrap().clone();
    endpoints.elements.insert(
        last,
        Some(Datum::of(&[Value::from(ip("10.244.9.9")), Value::Port(1)])),
    );
    let foreign = Table::new(Family::Inet, "flatnet").compile();
    assert_ne!(fake.nft.get(TABLE), Some(&foreign));
    let event = |name: Option<&str>| Event::Nftables {
        table: "flatnet".into(),
        name: name.map(str::to_owned),
    };
    assert!(!services.notice(&event(Some("fabric-postrouting"))));
    assert!(services.notice(&event(Some("services-dispatch"))));
    let report = reconcile(&mut services, &mut fake, &cluster, &nothing(), &config());
    assert_eq!(report.errors, []);
    assert_eq!(fake.nft.get(TABLE), Some(&wanted(&services)));
    // A flush of everything.
    fake.nft.clear();
    assert!(services.notice(&event(None)));
    reconcile(&mut services, &mut fake, &cluster, &nothing(), &config());
    assert_eq!(fake.nft.get(TABLE), Some(&wanted(&services)));
}

#[test]
fn others_parts_of_the_table_stay() {
    let mut cluster = two();
    let (mut fake, mut services) = served(&cluster);
    let chain = nft::Chain {
        base: None,
        rules: vec![Rule::new([Statement::Counter])],
    };
    let theirs = chain.compile(Family::Inet);
    let table = fake.nft.get_mut(TABLE).unwrap();
    table.chains.insert("policy-x".into(), theirs.clone());
    services.resync();
    service("c", 3).put(&mut cluster);
    reconcile(&mut services, &mut fake, &cluster, &nothing(), &config());
    assert_eq!(Services::remove_all(&mut fake), []);
    let left = fake.nft.remove(TABLE).unwrap();
    assert_eq!(
        left.chains.into_iter().collect::<Vec<_>>(),
        [("policy-x".into(), theirs)]
    );
    assert!(left.sets.is_empty());
}

#[test]
fn nothing_is_left_behind() {
    let (mut fake, _) = served(&two());
    assert_eq!(Services::remove_all(&mut fake), []);
    assert!(fake.nft.is_empty());
    assert_eq!(fake.sysctls[ROUTE_LOCALNET], "0");
}

#[test]
fn a_refused_service_is_told_and_the_others_work() {
    let mut cluster = two();
    let five: Vec<_> = (1..=5)
        .map(|n| endpoint(&format!("10.244.1.{n}")))
        .collect();
    slice("b", "x", five).put(&mut cluster);
    let mut fake = Fake::default();
    // There are chains for up to four of the others.
    for chain in ["internal-5", "external-5", "nodeport-5"] {
        fake.refuse
            .insert(format!("add chain services-{chain}"), EINVAL);
    }
    let mut services = Services::new("node1");
    let report = reconcile(&mut services, &mut fake, &cluster, &nothing(), &config());
    assert_eq!(report.errors, []);
    let [problem] = report.problems.as_slice() else {
        panic!("{:?}", report.problems);
    };
    assert_eq!(problem.object, ("ns".into(), "b".into()));
    assert!(problem.message.contains("invalid argument"), "{problem}");
    let elements = |fake: &Fake, set: &str| {
        let sets = &fake.nft[TABLE].sets;
        sets.get(set).map_or(0, |set| set.elements.len())
    };
    assert_eq!(elements(&fake, "services-ips"), 1);
    assert_eq!(elements(&fake, "services-endpoints"), 2);
    // Told as long as it lasts, also with a change of another.
    let mut changed = nothing();
    let moved = slice("a", "x", ["10.244.2.9"].map(endpoint).to_vec());
    cluster.note(model::Change::Slice(moved.into()), &mut changed);
    let report = reconcile(&mut services, &mut fake, &cluster, &changed, &config());
    assert_eq!(report.problems.len(), 1);
    // With another number of endpoints it works.
    let mut changed = nothing();
    let fewer = slice("b", "x", ["10.244.2.9"].map(endpoint).to_vec());
    cluster.note(model::Change::Slice(fewer.into()), &mut changed);
    let report = reconcile(&mut services, &mut fake, &cluster, &changed, &config());
    assert_eq!((report.errors, report.problems), (vec![], vec![]));
    assert_eq!(fake.nft.get(TABLE), Some(&wanted(&services)));
}

#[test]
fn what_may_not_be_done_is_tried_again() {
    let cluster = two();
    let mut fake = Fake::default();
    fake.refuse.insert("add table".into(), EPERM);
    let mut services = Services::new("node1");
    let report = reconcile(&mut services, &mut fake, &cluster, &nothing(), &config());
    assert_eq!((report.errors.len(), report.problems), (1, vec![]));
    assert!(report.again.is_some());
    fake.refuse.clear();
    let report = reconcile(&mut services, &mut fake, &cluster, &nothing(), &config());
    assert_eq!((report.errors, report.again), (vec![], None));
    assert_eq!(fake.nft.get(TABLE), Some(&wanted(&services)));
}

#[test]
fn loopback_is_open_only_behind_its_guard() {
    let cluster = two();
    let (mut fake, mut services) = served(&cluster);
    assert_eq!(fake.sysctls[ROUTE_LOCALNET], "1");
    let mut closed = config();
    closed.services.localhost_node_ports = false;
    fake.changes.clear();
    reconcile(&mut services, &mut fake, &cluster, &nothing(), &closed);
    assert_eq!(fake.sysctls[ROUTE_LOCALNET], "0");
    let table = &fake.nft[TABLE];
    assert!(!table.chains.contains_key("services-loopback"));
    let at = |words: &str| {
        fake.changes
            .iter()
            .position(|change| change.contains(words))
    };
    assert!(
        at("route_localnet") < at("services-loopback"),
        "{:?}",
        fake.changes
    );
}

#[test]
fn one_mode_gives_way_to_the_other() {
    let cluster = two();
    let (mut fake, mut services) = served(&cluster);
    let mode = |mode| {
        let mut config = config();
        config.services.mode = mode;
        config
    };
    let iptables: Config = mode(ServicesMode::Iptables);
    let report = reconcile(&mut services, &mut fake, &cluster, &nothing(), &iptables);
    assert_eq!(report.errors, []);
    assert!(fake.nft.is_empty());
    let at = |words: &str| {
        fake.changes
            .iter()
            .position(|change| change.contains(words))
    };
    assert!(at("restore") < at("delete table"), "{:?}", fake.changes);
    assert_eq!(fake.sysctls[ROUTE_LOCALNET], "1");
    let nftables = mode(ServicesMode::Nftables);
    reconcile(&mut services, &mut fake, &cluster, &nothing(), &nftables);
    assert_eq!(fake.nft.get(TABLE), Some(&wanted(&services)));
    let saved = linux::Kernel::iptables_save(&mut fake, nft::IpFamily::V4).unwrap();
    assert!(!saved.contains("KUBE-SVC"), "{saved}");
}

/// A client of a Service with affinity, as a packet notes it.
fn client(to: &str) -> (ElementKey, Option<Datum>) {
    let key = [
        Value::from(ip("203.0.113.9")),
        Value::from(ip("10.96.0.1")),
        Value::Proto(6),
        Value::Port(80),
    ];
    let data = Datum::of(&[Value::from(ip(to)), Value::Port(8080)]);
    (ElementKey::of(&key), Some(data))
}

#[test]
fn clients_of_an_endpoint_that_goes_are_forgotten() {
    let mut cluster = two();
    model::Service {
        affinity: Some(300),
        ..service("a", 1)
    }
    .put(&mut cluster);
    let (mut fake, mut services) = served(&cluster);
    let note = |fake: &mut Fake, to: &str| {
        let sets = &mut fake.nft.get_mut(TABLE).unwrap().sets;
        let affinity = sets.get_mut("services-affinity").unwrap();
        affinity.elements.extend([client(to)]);
    };
    let clients = |fake: &mut Fake| -> Vec<DynamicElement> {
        linux::Kernel::nft_dynamic(fake, Family::Inet, "flatnet", "services-affinity").unwrap()
    };
    note(&mut fake, "10.244.1.1");
    let mut changed = nothing();
    let other = slice(
        "a",
        "x",
        ["10.244.1.1", "10.244.2.9"].map(endpoint).to_vec(),
    );
    cluster.note(model::Change::Slice(other.into()), &mut changed);
    reconcile(&mut services, &mut fake, &cluster, &changed, &config());
    assert_eq!(
        clients(&mut fake).len(),
        1,
        "another endpoint's client stays"
    );
    let mut changed = nothing();
    let gone = slice("a", "x", ["10.244.2.9"].map(endpoint).to_vec());
    cluster.note(model::Change::Slice(gone.into()), &mut changed);
    reconcile(&mut services, &mut fake, &cluster, &changed, &config());
    assert_eq!(clients(&mut fake), []);
    // What an agent finds when it starts.
    note(&mut fake, "10.244.1.1");
    let mut adopter = Services::new("node1");
    reconcile(&mut adopter, &mut fake, &cluster, &nothing(), &config());
    assert_eq!(clients(&mut fake), []);
}

#[test]
fn flows_to_nobody_are_forgotten() {
    let mut cluster = cluster();
    let mut dns = service("dns", 1);
    dns.ports[0].protocol = model::Protocol::Udp;
    dns.put(&mut cluster);
    let serving = |addresses: &[&str]| {
        let endpoints = addresses.iter().copied().map(endpoint).collect();
        let mut slice = slice("dns", "x", endpoints);
        slice.ports[0].protocol = model::Protocol::Udp;
        slice
    };
    serving(&["10.244.1.1", "10.244.2.1"]).put(&mut cluster);
    let (mut fake, mut services) = served(&cluster);
    let flow = |endpoint: &str, sport| {
        let client = ip("10.244.1.7");
        let orig = Tuple {
            src: client,
            dst: ip("10.96.0.1"),
            sport,
            dport: 80,
        };
        let reply = Tuple {
            src: ip(endpoint),
            dst: client,
            sport: 8080,
            dport: sport,
        };
        Flow {
            status: DST_NAT,
            ..Flow::new(17, orig, reply)
        }
    };
    let (stays, goes) = (flow("10.244.1.1", 1), flow("10.244.2.1", 2));
    fake.flows = vec![stays, goes];
    // It serves still, what is under way at least.
    let mut changed = nothing();
    let mut leaving = serving(&["10.244.1.1", "10.244.2.1"]);
    leaving.endpoints[1] = crate::build::leaving(leaving.endpoints[1].clone());
    cluster.note(model::Change::Slice(leaving.into()), &mut changed);
    reconcile(&mut services, &mut fake, &cluster, &changed, &config());
    assert_eq!(fake.flows, [stays, goes]);
    // Now no more: a change that leaves the rules as they are.
    let mut changed = nothing();
    cluster.note(
        model::Change::Slice(serving(&["10.244.1.1"]).into()),
        &mut changed,
    );
    reconcile(&mut services, &mut fake, &cluster, &changed, &config());
    assert_eq!(fake.flows, [stays]);
    // The Service itself.
    let mut changed = nothing();
    cluster.note(
        model::Change::ServiceGone("ns".into(), "dns".into()),
        &mut changed,
    );
    reconcile(&mut services, &mut fake, &cluster, &changed, &config());
    assert_eq!(fake.flows, []);
}
