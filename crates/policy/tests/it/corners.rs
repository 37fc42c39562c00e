//! Ways around that must not be: other addresses than a pod's own, and packets that are no
//! connection of their own.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use linux::{Address, run_in};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockProtocol, SockType};
use serde_json::json;

use crate::lab::{self, Lab};
use crate::objects;
use crate::probe::{self, LONG};

/// How long nothing must come.
const SILENCE: Duration = Duration::from_millis(150);

/// A socket of a pod, at a port of an address that it has.
fn socket(lab: &Lab, pod: &str, at: SocketAddr) -> UdpSocket {
    let bound = run_in(&lab.pod(pod).station.netns, || UdpSocket::bind(at));
    bound.unwrap().unwrap()
}

/// Whether a datagram arrives.
fn arrives(from: &UdpSocket, to: &UdpSocket, at: SocketAddr, time: Duration) -> bool {
    from.send_to(b"!", at).unwrap();
    to.set_read_timeout(Some(time)).unwrap();
    probe::undisturbed(|| to.recv(&mut [0; 8])).is_ok()
}

/// The address that the kernel has given a link by itself.
fn link_local(station: &mut testing::station::Station, link: &str) -> Ipv6Addr {
    let index = station.index(link);
    let all = station.netlink.addresses(Some(index)).unwrap();
    let mut all = all
        .into_iter()
        .filter_map(|address| match address.net.addr() {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(ip),
            _ => None,
        });
    all.next().unwrap()
}

#[test]
fn addresses_of_the_link_are_no_way_out() {
    if !testing::root("addresses_of_the_link_are_no_way_out") {
        return;
    }
    let mut lab = Lab::new();
    let link = lab.pod("x/a").link.clone();
    let node = link_local(&mut lab.nodes[0].station, &link);
    let pod = lab.pods.get_mut(&lab::key("x/a")).unwrap();
    let own = link_local(&mut pod.station, "eth0");
    let index = pod.station.index("eth0");
    let server = run_in(&lab.nodes[0].station.netns, || UdpSocket::bind("[::]:7000"));
    let server = server.unwrap().unwrap();
    let client = socket(&lab, "x/a", SocketAddrV6::new(own, 7000, 0, index).into());
    let to = SocketAddrV6::new(node, 7000, 0, index).into();
    assert!(arrives(&client, &server, to, LONG), "without a policy");
    let spec = json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"]});
    lab.take(objects::read(&objects::policy("x", "closed", &spec)).0);
    lab.settle();
    for (words, client) in [
        ("a connection from before", &client),
        (
            "a new one",
            &socket(&lab, "x/a", SocketAddrV6::new(own, 7001, 0, index).into()),
        ),
    ] {
        assert!(!arrives(client, &server, to, SILENCE), "{words}");
    }
}

#[test]
fn nobody_borrows_an_address() {
    if !testing::root("nobody_borrows_an_address") {
        return;
    }
    let mut lab = Lab::new();
    // Only x/a may reach y/a and y/b, which are on either node; x/c is beside x/a.
    let spec = json!({"podSelector": {}, "ingress": [{"from": [{
        "namespaceSelector": {"matchLabels": {"ns": "x"}},
        "podSelector": {"matchLabels": {"pod": "a"}}}]}]});
    lab.take(objects::read(&objects::policy("y", "only", &spec)).0);
    lab.settle();
    let borrowed = lab.pod("x/a").ips;
    let thief = lab.pods.get_mut(&lab::key("x/c")).unwrap();
    let dev = thief.station.index("eth0");
    for ip in borrowed {
        let address = Address::new(dev, IpNet::from(ip));
        thief.station.netlink.add_address(&address).unwrap();
    }
    for server_name in ["y/a", "y/b"] {
        for (v6, ip) in [false, true].into_iter().zip(borrowed) {
            let at = SocketAddr::from((lab.pod(server_name).ips[usize::from(v6)], 7000));
            let server = socket(&lab, server_name, at);
            let thief = socket(&lab, "x/c", (ip, 7000).into());
            assert!(!arrives(&thief, &server, at, SILENCE), "{server_name} {ip}");
            let owner = socket(&lab, "x/a", (ip, 7001).into());
            assert!(arrives(&owner, &server, at, LONG), "{server_name} {ip}");
        }
    }
}

/// What a closed port answers to an allowed datagram arrives, wherever the client is closed
/// inwards; what is denied has no answer.
#[test]
fn errors_belong_to_their_connection() {
    if !testing::root("errors_belong_to_their_connection") {
        return;
    }
    let mut lab = Lab::new();
    let put = |lab: &mut Lab, namespace: &str, spec| {
        let object = objects::policy(namespace, "one", &spec);
        lab.take(objects::read(&object).0);
    };
    let to_a = json!([{"to": [{"namespaceSelector": {"matchLabels": {"ns": "y"}},
        "podSelector": {"matchLabels": {"pod": "a"}}}]}]);
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": to_a});
    put(&mut lab, "x", spec);
    put(
        &mut lab,
        "z",
        json!({"podSelector": {"matchLabels": {"pod": "b"}}}),
    );
    lab.settle();
    for (from, to, told) in [
        ("x/a", "y/a", true),
        ("x/b", "y/a", true),
        ("x/a", "y/b", false),
        ("y/c", "z/b", false),
        ("y/c", "z/a", true),
    ] {
        for v6 in [false, true] {
            let at = (lab.pod(to).ips[usize::from(v6)], 7009);
            let client = run_in(&lab.pod(from).station.netns, || probe::udp(v6)).unwrap();
            client.set_nonblocking(false).unwrap();
            client.connect(at).unwrap();
            client.send(b"?").unwrap();
            let time = if told { LONG } else { SILENCE };
            client.set_read_timeout(Some(time)).unwrap();
            let error = probe::undisturbed(|| client.recv(&mut [0; 8])).unwrap_err();
            let refused = error.kind() == ErrorKind::ConnectionRefused;
            assert_eq!(refused, told, "{from} -> {to}, {}: {error}", at.0);
        }
    }
}

/// Packets of neighbour discovery that are sent to somebody far.
#[test]
fn neighbour_discovery_carries_nothing_past_a_policy() {
    if !testing::root("neighbour_discovery_carries_nothing_past_a_policy") {
        return;
    }
    let raw = |lab: &Lab, pod: &str| {
        let open = || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let protocol = SockProtocol::IcmpV6;
            socket::socket(AddressFamily::Inet6, SockType::Raw, flags, protocol).unwrap()
        };
        UdpSocket::from(run_in(&lab.pod(pod).station.netns, open).unwrap())
    };
    let passes = |lab: &Lab, to: &str, kind: u8, time: Duration| {
        let (client, server) = (raw(lab, "x/a"), raw(lab, to));
        let mark = [b'f', b'l', b'a', b't', kind];
        let packet = [&[kind, 0, 0, 0, 0, 0, 0, 0], &mark[..]].concat();
        let at = (lab.pod(to).ips[1], 0);
        client.send_to(&packet, at).unwrap();
        server.set_nonblocking(true).unwrap();
        let start = Instant::now();
        while start.elapsed() < time {
            let mut buffer = [0; 128];
            match server.recv(&mut buffer) {
                Ok(len) if buffer[..len].ends_with(&mark) => return true,
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        false
    };
    let mut lab = Lab::new();
    assert!(passes(&lab, "y/a", 135, LONG), "without a policy");
    let spec = json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"]});
    lab.take(objects::read(&objects::policy("x", "closed", &spec)).0);
    lab.settle();
    for to in ["y/a", "y/b"] {
        for kind in [133, 135, 136, 128] {
            assert!(!passes(&lab, to, kind, SILENCE), "type {kind} to {to}");
        }
    }
}
