//! Host ports and bandwidth, and that what others break is healed.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use linux::{Kind, RouteFilter};
use serde_json::json;
use testing::Figure;

use super::lab::{Listener, Node, Pod, can_run, connect, ip_of, until};

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn add_with(node: &Node, pod: &Pod, runtime: serde_json::Value) -> serde_json::Value {
    let mut conf = node.conf("1.1.0");
    conf["runtimeConfig"] = runtime;
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}",
        pod.id
    );
    let answer = node.call_with("ADD", &pod.id, &pod.path(), &conf, &args);
    assert!(answer.ok, "{answer:?}\n{}", node.log());
    answer.json
}

#[test]
fn a_host_port_leads_to_its_pod_from_everywhere() {
    if !can_run("a_host_port_leads_to_its_pod_from_everywhere") {
        return;
    }
    let mut node = Node::start(&["10.244.1.0/24"]);
    let (web, other) = (Pod::new("web"), Pod::new("other"));
    let result = add_with(
        &node,
        &web,
        json!({"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8081, "containerPort": 81, "protocol": "tcp", "hostIP": "10.0.1.10"},
        ]}),
    );
    node.add(&other);
    let pod = ip_of(&result, 0).to_string();
    // From outside the client's own address is seen.
    let seen = connect(
        &node.outside,
        &web.netns,
        at(&pod, 80),
        at("10.0.1.10", 8080),
    )
    .unwrap();
    assert_eq!(seen.ip().to_string(), "10.0.1.1");
    connect(
        &node.outside,
        &web.netns,
        at(&pod, 81),
        at("10.0.1.10", 8081),
    )
    .unwrap();
    // From the node, its loopback too.
    connect(&node.netns, &web.netns, at(&pod, 80), at("10.0.1.10", 8080)).unwrap();
    connect(&node.netns, &web.netns, at(&pod, 80), at("127.0.0.1", 8080)).unwrap();
    // From another pod, and from the pod itself.
    connect(
        &other.netns,
        &web.netns,
        at(&pod, 80),
        at("10.0.1.10", 8080),
    )
    .unwrap();
    connect(&web.netns, &web.netns, at(&pod, 80), at("10.0.1.10", 8080)).unwrap();
    // Taken is taken, by name.
    let mut conf = node.conf("1.1.0");
    conf["runtimeConfig"] =
        json!({"portMappings": [{"hostPort": 8080, "containerPort": 1, "hostIP": "10.0.1.10"}]});
    let third = Pod::new("third");
    let refused = node.call("ADD", &third.id, &third.path(), &conf);
    assert_eq!(refused.code(), 103);
    assert!(
        refused
            .msg()
            .contains("host port 10.0.1.10:8080/tcp is in use by pod default/web"),
        "{}",
        refused.msg()
    );
    // A restart adopts, a DEL takes away.
    node.kill_agent();
    connect(
        &node.outside,
        &web.netns,
        at(&pod, 80),
        at("10.0.1.10", 8080),
    )
    .unwrap();
    node.start_agent();
    connect(
        &node.outside,
        &web.netns,
        at(&pod, 80),
        at("10.0.1.10", 8080),
    )
    .unwrap();
    node.del(&web);
    let answer = node.call("ADD", &third.id, &third.path(), &conf);
    assert!(answer.ok, "{answer:?}");
}

#[test]
fn bandwidth_is_limited_both_ways_and_goes_with_the_pod() {
    if !can_run("bandwidth_is_limited_both_ways_and_goes_with_the_pod") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let (slow, other) = (Pod::new("slow"), Pod::new("other"));
    let limits = json!({"bandwidth": {
        "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000,
    }});
    let result = add_with(&node, &slow, limits);
    let result_other = node.add(&other);
    let (ip, ip_other) = (ip_of(&result, 0), ip_of(&result_other, 0));
    for (from, to, ip) in [(&other, &slow, ip), (&slow, &other, ip_other)] {
        let took = transfer(from, to, ip, 1_000_000);
        // A megabyte at a megabyte a second, less the bucket.
        assert!(took > Duration::from_millis(600), "{took:?}");
    }
    let mut conf = node.conf("1.1.0");
    conf["prevResult"] = result;
    assert!(node.call("CHECK", &slow.id, &slow.path(), &conf).ok);
    node.del(&slow);
    let left = node
        .netlink()
        .links()
        .unwrap()
        .into_iter()
        .filter(|link| link.kind == Kind::Ifb)
        .count();
    assert_eq!(left, 0);
}

fn transfer(from: &Pod, to: &Pod, ip: IpAddr, bytes: usize) -> Duration {
    use std::io::{Read, Write};
    let listener = Listener::bind(&to.netns, SocketAddr::new(ip, 5000)).unwrap();
    let mut client = linux::run_in(&from.netns, || {
        std::net::TcpStream::connect(SocketAddr::new(ip, 5000))
    })
    .unwrap()
    .unwrap();
    let (mut server, _) = listener.0.accept().unwrap();
    let begun = Instant::now();
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        server.read_to_end(&mut all).unwrap();
        all.len()
    });
    client.write_all(&vec![0; bytes]).unwrap();
    drop(client);
    assert_eq!(reading.join().unwrap(), bytes);
    begun.elapsed()
}

#[test]
fn what_others_delete_is_back_within_a_second() {
    if !can_run("what_others_delete_is_back_within_a_second") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new("a");
    let ip = ip_of(&node.add(&pod), 0);
    let mut netlink = node.netlink();
    let route = |netlink: &mut linux::Netlink| {
        let routes = netlink.routes(RouteFilter::main()).unwrap();
        routes
            .into_iter()
            .find(|route| route.dst.addr() == ip && route.dst.prefix_len() == 32)
    };
    let there = route(&mut netlink).unwrap();
    // The agent lets 100 ms pass first: more may come.
    let figure = Figure {
        figure: Duration::from_secs(1),
        waits: Duration::from_millis(100),
        work: Duration::from_millis(50),
    };
    figure.hold("the route is back", || {
        let begun = Instant::now();
        netlink.delete_route(&there).unwrap();
        until("the route is back", || route(&mut netlink).is_some());
        begun.elapsed()
    });
    let link = there.dev.unwrap();
    netlink
        .change_link(
            link,
            &linux::LinkChange {
                up: Some(false),
                ..Default::default()
            },
        )
        .unwrap();
    until("link and route are back", || {
        netlink
            .link_by_index(link)
            .unwrap()
            .is_some_and(|link| link.up)
            && route(&mut netlink).is_some()
    });
}

#[test]
fn a_new_mtu_reaches_living_pods() {
    if !can_run("a_new_mtu_reaches_living_pods") {
        return;
    }
    let mut node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new("a");
    let mut conf = node.conf("1.1.0");
    conf["prevResult"] = node.add(&pod);
    node.kill_agent();
    node.config.fabric.mtu = Some(1300);
    node.start_agent();
    until("the pod has the new MTU", || {
        pod.netlink().expect_link("eth0").unwrap().mtu == 1300
    });
    let check = node.call("CHECK", &pod.id, &pod.path(), &conf);
    assert!(check.ok, "{check:?}");
}
