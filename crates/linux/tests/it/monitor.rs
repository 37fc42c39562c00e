use std::time::{Duration, Instant};

use linux::link::NewKind;
use linux::{
    Address, Event, Host, Kernel, Mac, Monitor, NewLink, Nftables, Route, VethEnd, run_in,
};
use nft::{Chain, Family, IpFamily, Op, Set, Table, Transaction, Type, Value, diff};

use crate::{namespace, root};

/// Waits until such an event comes.
fn expect(monitor: &mut Monitor, what: &str, is: impl Fn(&Event) -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    let mut seen = Vec::new();
    while Instant::now() < end {
        for event in monitor.wait(Duration::from_millis(100)).unwrap() {
            if is(&event) {
                return;
            }
            seen.push(event);
        }
    }
    panic!("{what} was not told, but {seen:#?}");
}

#[test]
fn changes_are_told() {
    if !root("monitor") {
        return;
    }
    let (netns, mut netlink) = namespace();
    let mut monitor = Monitor::open_in(&netns).unwrap();
    assert_eq!(monitor.read().unwrap(), []);
    let end = VethEnd {
        name: "far",
        ..VethEnd::default()
    };
    netlink
        .create_link(&NewLink::new("eth0", NewKind::Veth(end)))
        .unwrap();
    expect(
        &mut monitor,
        "link",
        |event| matches!(event, Event::Link { link, gone: false } if link.name == "eth0"),
    );
    let dev = netlink.expect_link("eth0").unwrap().index;
    let far = netlink.expect_link("far").unwrap().index;
    netlink.set_up(far).unwrap();
    let address = Address::new(dev, "10.0.1.10/24".parse::<ipnet::IpNet>().unwrap());
    netlink.add_address(&address).unwrap();
    expect(
        &mut monitor,
        "address",
        |event| matches!(event, Event::Address { address, gone: false } if address.net.to_string() == "10.0.1.10/24"),
    );
    let to: ipnet::IpNet = "10.244.2.0/24".parse().unwrap();
    let route = Route::new(to, dev).via([10, 0, 1, 20].into());
    netlink.add_route(&route).unwrap();
    netlink.delete_route(&route).unwrap();
    expect(
        &mut monitor,
        "route",
        |event| matches!(event, Event::Route { route, gone: true } if route.dst == to),
    );
    let mac = Mac::local([7; 6]);
    netlink
        .replace_neighbour(dev, [10, 0, 1, 30].into(), mac)
        .unwrap();
    expect(
        &mut monitor,
        "neighbour",
        |event| matches!(event, Event::Neighbour { neighbour, gone: false } if neighbour.mac == Some(mac)),
    );
    let mut table = Table::new(Family::Inet, "flatnet");
    table.chains.insert("fabric-x".into(), Chain::default());
    let mut nftables = Nftables::open_in(&netns).unwrap();
    nftables
        .apply(&diff(None, &table.compile(), |_| true))
        .unwrap();
    expect(&mut monitor, "chain", |event| {
        *event
            == Event::Nftables {
                table: "flatnet".into(),
                name: Some("fabric-x".into()),
            }
    });
    netlink.delete_link("eth0").unwrap();
    expect(
        &mut monitor,
        "link's end",
        |event| matches!(event, Event::Link { link, gone: true } if link.name == "eth0"),
    );
}

/// All that is told, one's own changes being over.
fn told(monitor: &mut Monitor) -> Vec<(String, Option<String>)> {
    let mut told = Vec::new();
    loop {
        let events = monitor.read().unwrap();
        if events.is_empty() {
            return told;
        }
        told.extend(events.into_iter().map(|event| match event {
            Event::Nftables { table, name } => (table, name),
            other => panic!("{other:?}"),
        }));
    }
}

fn table(elements: u32) -> Table {
    let mut set = Set::of([Type::Ipv4]);
    for number in 0..elements {
        set.add([Value::V4((0x0a00_0000 + number).into())]);
    }
    let mut table = Table::new(Family::Inet, "flatnet");
    table.sets.insert("services-many".into(), set);
    table.chains.insert("services-x".into(), Chain::default());
    table
}

#[test]
fn own_changes_are_told_from_others() {
    if !root("monitor, own changes") {
        return;
    }
    let (netns, _) = namespace();
    let mut monitor = Monitor::open_in(&netns).unwrap();
    let mut own = Nftables::open_in(&netns).unwrap();
    let mut other = Nftables::open_in(&netns).unwrap();
    monitor.ignore(&[own.port().unwrap()]).unwrap();
    // More than a subscription has room for.
    let everything = diff(None, &table(60_000).compile(), |_| true);
    own.apply(&everything).unwrap();
    assert_eq!(told(&mut monitor), []);

    let named = |name: Option<&str>| ("flatnet".to_owned(), name.map(str::to_owned));
    let change = |ops| Transaction {
        family: Family::Inet,
        table: "flatnet".into(),
        ops,
    };
    let set = || String::from("services-many");
    let few = table(5).compile().sets["services-many"].elements.clone();
    let few = change(vec![Op::DeleteElements(set(), few.into_keys().collect())]);
    let again = table(5).compile().sets["services-many"].elements.clone();
    let again = change(vec![Op::AddElements(set(), again.into_iter().collect())]);
    other.apply(&few).unwrap();
    own.apply(&again).unwrap();
    other.apply(&few).unwrap();
    assert_eq!(
        told(&mut monitor),
        [named(Some("services-many"))],
        "many changes of one object in a row are told once"
    );
    other.apply(&change(vec![Op::DeleteTable])).unwrap();
    let gone = told(&mut monitor);
    assert!(gone.contains(&named(None)), "{gone:?}");
    assert!(gone.len() <= 3, "not every element of it: {gone:?}");
    other
        .apply(&change(vec![Op::DeleteSet("none".into())]))
        .unwrap_err();
    assert_eq!(told(&mut monitor), [], "what was refused is nothing");
}

/// Two tables, one handle: the other's changes of either are told by the table's name.
#[test]
fn changes_of_two_tables_are_told() {
    if !root("monitor, two tables") {
        return;
    }
    let (netns, _) = namespace();
    let mut monitor = Monitor::open_in(&netns).unwrap();
    let mut own = Nftables::open_in(&netns).unwrap();
    let mut other = Nftables::open_in(&netns).unwrap();
    monitor.ignore(&[own.port().unwrap()]).unwrap();
    let change = |handle: &mut Nftables, table: &str, ops| {
        let (family, table) = (Family::Inet, table.to_owned());
        handle.apply(&Transaction { family, table, ops }).unwrap();
    };
    let chain = |name: &str| Op::AddChain(name.into(), None);
    let few = || {
        let set = table(5).compile().sets["services-many"].clone();
        let elements = set.elements.clone().into_iter().collect();
        let name = || String::from("peers-x");
        vec![Op::AddSet(name(), set), Op::AddElements(name(), elements)]
    };
    change(&mut own, "flatnet", vec![chain("services-x")]);
    change(&mut own, "flatnet-policy", few());
    change(&mut own, "flatnet-policy", vec![chain("judged")]);
    assert_eq!(told(&mut monitor), []);

    let named = |table: &str, name: &str| (table.to_owned(), Some(name.to_owned()));
    change(&mut other, "flatnet", vec![chain("services-y")]);
    change(&mut own, "flatnet-policy", vec![chain("list-x")]);
    let first = table(1).compile().sets["services-many"].elements.clone();
    let first = first.into_keys().collect();
    let gone = vec![Op::DeleteElements("peers-x".into(), first)];
    change(&mut other, "flatnet-policy", gone);
    assert_eq!(
        told(&mut monitor),
        [
            named("flatnet", "services-y"),
            named("flatnet-policy", "peers-x")
        ]
    );
    change(&mut other, "flatnet-policy", vec![Op::DeleteTable]);
    let gone = told(&mut monitor);
    assert!(gone.contains(&("flatnet-policy".into(), None)), "{gone:?}");
    assert!(
        gone.iter().all(|(table, _)| table == "flatnet-policy"),
        "{gone:?}"
    );
}

#[test]
fn flush_ruleset_and_iptables_are_told() {
    if !root("monitor, iptables")
        || testing::program("monitor, iptables", "iptables-nft-restore").is_none()
        || testing::program("monitor, iptables", "nft").is_none()
    {
        return;
    }
    let (netns, _) = namespace();
    let mut monitor = Monitor::open_in(&netns).unwrap();
    let mut own = Nftables::open_in(&netns).unwrap();
    monitor.ignore(&[own.port().unwrap()]).unwrap();
    own.apply(&diff(None, &table(1000).compile(), |_| true))
        .unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let status = run_in(&netns, || {
            std::process::Command::new(program).args(arguments).status()
        });
        assert!(status.unwrap().unwrap().success(), "{program}");
    };
    run("nft", &["flush", "ruleset"]);
    let gone = told(&mut monitor);
    assert!(gone.contains(&("flatnet".into(), None)), "{gone:?}");
    assert!(gone.len() <= 3, "{gone:?}");

    // More than a subscription has room for.
    let mut text = String::from("*nat\n");
    for number in 0..10_000 {
        text += &format!(":KUBE-SEP-{number} - [0:0]\n-A KUBE-SEP-{number} -j ACCEPT\n");
    }
    text += "-A PREROUTING -j KUBE-SEP-1\nCOMMIT\n";
    run_in(&netns, || {
        let mut host = Host::open().unwrap();
        let ports = [own.port().unwrap(), host.nftables.port().unwrap()];
        host.ignored = Some(monitor.ignore(&ports).unwrap());
        host.iptables_restore(IpFamily::V4, &text).unwrap();
    })
    .unwrap();
    assert_eq!(told(&mut monitor), []);
    run("iptables-nft", &["-t", "nat", "-F", "PREROUTING"]);
    let changed = told(&mut monitor);
    // Where the variant in use is the legacy one, the table was not there before.
    let expected = ("nat".to_owned(), Some("PREROUTING".to_owned()));
    assert!(changed.contains(&expected), "{changed:?}");
}
