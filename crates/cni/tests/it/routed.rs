//! What a routed pod sees, and that packets get through.

use std::net::{IpAddr, SocketAddr};

use linux::{Mac, RouteFilter};

use super::lab::{Node, Pod, can_run, connect, ip_of};

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

#[test]
fn a_pod_sees_what_the_documents_show() {
    if !can_run("a_pod_sees_what_the_documents_show") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new("c1");
    let result = node.add(&pod);
    assert_eq!(result["ips"][0]["address"], "10.244.1.2/24");
    assert_eq!(result["ips"][0]["gateway"], "10.244.1.1");
    let eth0 = &result["interfaces"][1];
    assert_eq!(
        (eth0["name"].as_str(), eth0["sandbox"].as_str()),
        (Some("eth0"), Some(pod.path().as_str()))
    );
    let mut inside = pod.netlink();
    let link = inside.link("eth0").unwrap().unwrap();
    assert!(link.up && link.carrier);
    assert_eq!(link.mtu, 1450);
    assert_eq!(
        link.mac.as_ref().map(Mac::to_string).as_deref(),
        eth0["mac"].as_str()
    );
    assert!(inside.link("lo").unwrap().unwrap().up);
    let addresses = inside.addresses(Some(link.index)).unwrap();
    let v4 = addresses
        .iter()
        .find(|address| address.net.addr().is_ipv4())
        .unwrap();
    assert_eq!(v4.net.to_string(), "10.244.1.2/24");
    assert_eq!(
        v4.broadcast.map(|ip| ip.to_string()).as_deref(),
        Some("10.244.1.255")
    );
    let routes = inside.routes(RouteFilter::main()).unwrap();
    let mut shown: Vec<String> = routes
        .iter()
        .filter(|route| route.dst.addr().is_ipv4())
        .map(|route| match route.gateway {
            Some(gateway) => format!("{} via {gateway}", route.dst),
            None => format!("{} src {}", route.dst, route.src.unwrap()),
        })
        .collect();
    shown.sort();
    assert_eq!(
        shown,
        [
            "0.0.0.0/0 via 10.244.1.1",
            "10.244.0.0/16 via 10.244.1.1",
            "10.244.1.0/24 src 10.244.1.2"
        ]
    );
    node.del(&pod);
    assert!(inside.link("eth0").unwrap().is_none());
    assert!(
        node.netlink()
            .routes(RouteFilter::main())
            .unwrap()
            .iter()
            .all(|route| route.dst.prefix_len() != 32)
    );
}

#[test]
fn pods_and_node_reach_each_other_in_both_families() {
    if !can_run("pods_and_node_reach_each_other_in_both_families") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
    let (a, b) = (Pod::new("a"), Pod::new("b"));
    let (result_a, result_b) = (node.add(&a), node.add(&b));
    for family in 0..2 {
        let (ip_a, ip_b) = (ip_of(&result_a, family), ip_of(&result_b, family));
        let seen = connect(&a.netns, &b.netns, at(ip_b, 80), at(ip_b, 80)).unwrap();
        assert_eq!(seen.ip(), ip_a, "no NAT between pods");
        let seen = connect(&node.netns, &b.netns, at(ip_b, 81), at(ip_b, 81)).unwrap();
        assert!(seen.ip().is_ipv4() == ip_b.is_ipv4());
        let gateway: IpAddr = result_a["ips"][family]["gateway"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(
            connect(&a.netns, &node.netns, at(gateway, 82), at(gateway, 82))
                .unwrap()
                .ip(),
            ip_a
        );
    }
}

#[test]
fn an_address_nobody_has_is_refused_at_once_and_stays_inside() {
    if !can_run("an_address_nobody_has_is_refused_at_once_and_stays_inside") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    // The node has a default route: without its own answer packets would leave by it.
    let pod = Pod::new("a");
    let result = node.add(&pod);
    let mut netlink = node.netlink();
    let route = netlink.route_to("10.244.1.99".parse().unwrap());
    assert!(matches!(route, Ok(None) | Err(_)), "{route:?}");
    assert_eq!(ip_of(&result, 0).to_string(), "10.244.1.2");
}

#[test]
fn a_pod_reaches_the_outside_as_its_node() {
    if !can_run("a_pod_reaches_the_outside_as_its_node") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new("a");
    node.add(&pod);
    let outside = "10.0.1.1".parse().unwrap();
    let seen = connect(&pod.netns, &node.outside, at(outside, 80), at(outside, 80)).unwrap();
    assert_eq!(seen.ip().to_string(), "10.0.1.10");
}
