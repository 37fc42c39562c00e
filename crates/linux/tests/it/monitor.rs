use std::time::{Duration, Instant};

use linux::link::NewKind;
use linux::{Address, Event, Mac, Monitor, NewLink, Nftables, Route, VethEnd};
use nft::{Chain, Family, Table, diff};

use crate::{namespace, root};

/// Waits until such an event comes.
fn expect(monitor: &mut Monitor, what: &str, is: impl Fn(&Event) -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
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
