use std::net::IpAddr;

use ipnet::IpNet;
use linux::link::NewKind;
use linux::route::{MAIN, PROTO_KERNEL};
use linux::{Address, Netlink, NewLink, Route, RouteFilter, RouteType, VethEnd};

use crate::{namespace, root};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn with_link(netlink: &mut Netlink) -> u32 {
    netlink
        .create_link(&NewLink::new(
            "eth0",
            NewKind::Veth(VethEnd {
                name: "far",
                ..VethEnd::default()
            }),
        ))
        .unwrap();
    let far = netlink.expect_link("far").unwrap().index;
    netlink.set_up(far).unwrap();
    netlink.expect_link("eth0").unwrap().index
}

#[test]
fn addresses_come_and_go() {
    if !root("addresses") {
        return;
    }
    let (_netns, mut netlink) = namespace();
    let dev = with_link(&mut netlink);
    let v4 = Address::new(dev, net("10.0.1.10/24")).with_broadcast();
    let v6 = Address::new(dev, net("fd00:10:0:1::a/64"));
    netlink.add_address(&v4).unwrap();
    netlink.add_address(&v6).unwrap();
    let twice = netlink.add_address(&v4).unwrap_err();
    assert!(twice.is_exists(), "{twice}");
    netlink.replace_address(&v6).unwrap();
    let listed = netlink.addresses(Some(dev)).unwrap();
    assert!(listed.contains(&v4), "{listed:?}");
    assert!(listed.contains(&v6), "usable at once: {listed:?}");
    netlink.delete_address(&v4).unwrap();
    assert!(!netlink.addresses(Some(dev)).unwrap().contains(&v4));
    assert!(netlink.delete_address(&v4).unwrap_err().is_not_found());
}

#[test]
fn routes_are_listed_as_they_were_made() {
    if !root("routes") {
        return;
    }
    let (_netns, mut netlink) = namespace();
    let dev = with_link(&mut netlink);
    netlink
        .add_address(&Address::new(dev, net("10.0.1.10/24")))
        .unwrap();
    netlink
        .add_address(&Address::new(dev, net("fd00::a/64")))
        .unwrap();
    let made = [
        Route::new(net("10.244.2.0/24"), dev)
            .via_onlink(ip("10.244.2.0"))
            .protocol(66),
        Route::new(net("0.0.0.0/0"), dev)
            .via(ip("10.0.1.1"))
            .protocol(66),
        Route::new(net("10.244.9.1/32"), dev).protocol(66),
        Route {
            metric: 1024,
            ..Route::new(net("fd00:2::/64"), dev)
                .via(ip("fd00::2"))
                .protocol(66)
        },
        Route {
            table: 1000,
            mtu: Some(1400),
            ..Route::new(net("10.7.0.0/16"), dev).protocol(66)
        },
    ];
    for route in &made {
        netlink.add_route(route).unwrap();
    }
    let ours = RouteFilter {
        protocol: Some(66),
        ..RouteFilter::default()
    };
    let listed = netlink.routes(ours).unwrap();
    for route in &made {
        assert!(listed.contains(route), "{route:?} in {listed:#?}");
    }
    assert_eq!(listed.len(), made.len());
    let main = netlink.routes(RouteFilter::main()).unwrap();
    assert!(main.iter().all(|route| route.table == MAIN));
    assert!(
        main.iter()
            .any(|route| route.dst == net("10.0.1.0/24") && route.protocol == PROTO_KERNEL)
    );

    let moved = Route::new(net("10.244.2.0/24"), dev)
        .via(ip("10.0.1.20"))
        .protocol(66);
    netlink.replace_route(&moved).unwrap();
    assert_eq!(
        netlink.route_to(ip("10.244.2.9")).unwrap().unwrap().gateway,
        Some(ip("10.0.1.20"))
    );
    let refused = Route {
        kind: RouteType::Unreachable,
        dev: None,
        ..Route::new(net("10.244.3.0/24"), 0)
    };
    netlink.add_route(&refused).unwrap();
    assert_eq!(netlink.route_to(ip("10.244.3.1")).unwrap(), None);
    netlink.delete_route(&moved).unwrap();
    let gone = netlink.delete_route(&moved).unwrap_err();
    assert!(gone.is_not_found());
    assert_eq!(
        gone.to_string(),
        format!("route 10.244.2.0/24 via 10.0.1.20 dev #{dev}: delete: no such process")
    );
}
