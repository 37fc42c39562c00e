//! Policies while agents are killed, and on the bridge.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use linux::{Address, NetNs, Netlink, Route, run_in, sysctl};
use model::config::PodMode;
use model::policy::{Namespaces, Peer, Rule};
use model::{LabelSelector, Labels, NetworkPolicy};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::agent::World;
use super::lab::{Listener, Node, Pod, can_run, ip_of, until};

const PORT: u16 = 80;

fn namespaced(name: &str, node: &str, ips: &[IpAddr], role: &str) -> model::Pod {
    model::Pod {
        namespace: "default".into(),
        name: name.into(),
        uid: name.into(),
        node: node.into(),
        ips: ips.to_vec(),
        host_network: false,
        labels: [("role", role)].into(),
        ports: Vec::new(),
        created: 0,
        leaving: false,
    }
}

fn role(name: &str) -> LabelSelector {
    LabelSelector {
        match_labels: [("role", name)].into(),
        ..LabelSelector::default()
    }
}

/// Servers take only friends; the mute talk to nobody.
fn world(pods: Vec<model::Pod>) -> World {
    let friends = Rule {
        peers: Some(vec![Peer::Pods {
            namespaces: Namespaces::Own,
            pods: role("friend"),
        }]),
        ports: None,
    };
    let policy = |name: &str, ingress, egress| NetworkPolicy {
        namespace: "default".into(),
        name: name.into(),
        uid: name.into(),
        pods: role(name),
        ingress,
        egress,
    };
    World {
        namespaces: vec![model::Namespace {
            name: "default".into(),
            labels: Labels::default(),
        }],
        pods,
        policies: vec![
            policy("server", Some(vec![friends]), None),
            policy("mute", None, Some(Vec::new())),
        ],
    }
}

/// What a server has heard, of whom.
#[derive(Default)]
struct Heard {
    friend: AtomicUsize,
    foe: AtomicUsize,
}

fn listen(socket: &UdpSocket, heard: &Heard, stop: &AtomicBool) {
    let mut text = [0; 16];
    while !stop.load(Ordering::Relaxed) {
        if let Ok(length) = socket.recv(&mut text) {
            let counter = match &text[..length] {
                b"friend" => &heard.friend,
                _ => &heard.foe,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A packet each millisecond of a flow that stays, and of one that is new.
fn knock(from: &NetNs, name: &str, to: SocketAddr, stop: &AtomicBool) {
    let bind = || UdpSocket::bind("0.0.0.0:0");
    let steady = run_in(from, bind).unwrap().unwrap();
    while !stop.load(Ordering::Relaxed) {
        let fresh = run_in(from, bind).unwrap().unwrap();
        for socket in [&steady, &fresh] {
            let _ = socket.send_to(name.as_bytes(), to);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_agent_that_is_killed_opens_nothing_and_cuts_nobody() {
    if !can_run("an_agent_that_is_killed_opens_nothing_and_cuts_nobody") {
        return;
    }
    let mut node = Node::without_agent(&["10.244.1.0/24"]);
    let pods = ["server", "friend", "foe", "mute"];
    let objects = pods.map(|name| namespaced(name, "node1", &[], name));
    node.world = world(objects.into());
    node.start_agent();
    let [server, friend, foe, mute] = pods.map(Pod::new);
    let ip = ip_of(&node.add_named(&server), 0);
    for pod in [&friend, &foe, &mute] {
        node.add_named(pod);
    }
    let at = SocketAddr::new(ip, PORT);
    let socket = run_in(&server.netns, || UdpSocket::bind(at)).unwrap();
    let socket = socket.unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(10)))
        .unwrap();
    let (heard, stop) = (Heard::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| listen(&socket, &heard, &stop));
        for (name, pod) in [("friend", &friend), ("foe", &foe), ("mute", &mute)] {
            let (netns, stop) = (&pod.netns, &stop);
            scope.spawn(move || knock(netns, name, at, stop));
        }
        let some_time = |what: &str| {
            let before = heard.friend.load(Ordering::Relaxed);
            until(what, || heard.friend.load(Ordering::Relaxed) > before + 100);
        };
        let begun = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            some_time("while the agent lives");
            for _ in 0..3 {
                node.kill_agent();
                some_time("without an agent");
                node.set_aware(false);
                node.start_agent();
                some_time("with one that knows nothing");
                node.set_aware(true);
                some_time("with one that knows");
            }
        }));
        stop.store(true, Ordering::Relaxed);
        begun.unwrap();
    });
    assert_eq!(heard.foe.load(Ordering::Relaxed), 0, "{}", node.log());
}

/// Pods on another node, beyond the node's eth0.
fn remote_pods(node: &Node) -> [[IpAddr; 2]; 2] {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let remote = [
        [ip("10.244.2.8"), ip("fd00:10:244:2::8")],
        [ip("10.244.2.9"), ip("fd00:10:244:2::9")],
    ];
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    let mut inside = Netlink::open_in(&node.netns).unwrap();
    let mut outside = Netlink::open_in(&node.outside).unwrap();
    let near = inside.expect_link("eth0").unwrap().index;
    let far = outside.expect_link("eth0").unwrap().index;
    let own = Address::new(near, net("fd00:10:0:1::10/64"));
    inside.add_address(&own).unwrap();
    let router = Address::new(far, net("fd00:10:0:1::1/64"));
    outside.add_address(&router).unwrap();
    let way = Route::new(net("fd00:10:244:2::/64"), near).via(ip("fd00:10:0:1::1"));
    inside.add_route(&way).unwrap();
    for (range, gateway) in [
        ("10.244.1.0/24", "10.0.1.10"),
        ("fd00:10:244:1::/64", "fd00:10:0:1::10"),
    ] {
        let back = Route::new(net(range), far).via(ip(gateway));
        outside.add_route(&back).unwrap();
    }
    for address in remote.iter().flatten() {
        let address = Address::new(far, ipnet::IpNet::from(*address));
        outside.add_address(&address).unwrap();
    }
    remote
}

/// Whether a connection is made, from this address where one is given.
fn reaches(from: &NetNs, source: Option<IpAddr>, to: IpAddr) -> bool {
    let family = match to {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let made = || {
        let bound = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        if let Some(source) = source {
            let at = SockaddrStorage::from(SocketAddr::new(source, 0));
            bind(bound.as_raw_fd(), &at).unwrap();
        }
        // What is denied is not answered: no longer than this is waited for it.
        let patience = TimeVal::new(0, 300_000);
        setsockopt(&bound, sockopt::SendTimeout, &patience).unwrap();
        let to = SockaddrStorage::from(SocketAddr::new(to, PORT));
        connect(bound.as_raw_fd(), &to).is_ok()
    };
    run_in(from, made).unwrap()
}

#[test]
fn policies_hold_on_the_bridge() {
    if !can_run("policies_hold_on_the_bridge") {
        return;
    }
    let mut node = Node::without_agent(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
    node.config.pod_mode = PodMode::Bridge;
    let pods = ["server", "friend", "foe", "mute"];
    let remote = remote_pods(&node);
    let mut objects = pods
        .map(|name| namespaced(name, "node1", &[], name))
        .to_vec();
    objects.push(namespaced("far-friend", "node2", &remote[0], "friend"));
    objects.push(namespaced("far-foe", "node2", &remote[1], "foe"));
    node.world = world(objects);
    // As a distribution may have it.
    let keys = ["iptables", "ip6tables"].map(|of| format!("net/bridge/bridge-nf-call-{of}"));
    run_in(&node.netns, || {
        for key in &keys {
            sysctl::write(key, "0").unwrap();
        }
    })
    .unwrap();
    node.start_agent();
    let shown = || {
        keys.iter()
            .all(|key| sysctl::read(key).unwrap().as_deref() == Some("1"))
    };
    assert!(run_in(&node.netns, shown).unwrap());
    let [server, friend, foe, mute] = pods.map(Pod::new);
    let result = node.add_named(&server);
    let [result_friend, _, _] = [&friend, &foe, &mute].map(|pod| node.add_named(pod));
    let far = remote[0].iter().zip(remote[1]).enumerate();
    for (family, (far_friend, far_foe)) in far {
        let ip = ip_of(&result, family);
        let friends = ip_of(&result_friend, family);
        let at = |ip| SocketAddr::new(ip, PORT);
        let listening = [
            Listener::bind(&server.netns, at(ip)).unwrap(),
            Listener::bind(&friend.netns, at(friends)).unwrap(),
            Listener::bind(&node.outside, at(*far_friend)).unwrap(),
        ];
        let is_let_in = |what: &str, from: &NetNs, source| {
            until(&format!("{what} reaches {ip}"), || {
                reaches(from, source, ip)
            });
        };
        is_let_in("a friend", &friend.netns, None);
        is_let_in("a friend of afar", &node.outside, Some(*far_friend));
        is_let_in("the node", &node.netns, None);
        is_let_in("the server itself", &server.netns, None);
        assert!(!reaches(&foe.netns, None, ip), "a foe");
        assert!(!reaches(&node.outside, Some(far_foe), ip), "a foe of afar");
        until("the server speaks", || {
            reaches(&server.netns, None, friends)
        });
        until("to afar as well", || {
            reaches(&server.netns, None, *far_friend)
        });
        assert!(!reaches(&mute.netns, None, friends), "the mute");
        assert!(!reaches(&mute.netns, None, *far_friend), "the mute to afar");
        drop(listening);
    }
}

/// In a mount namespace of its own, where the kernel seems to be without the module.
#[test]
fn a_bridge_that_rules_do_not_see_is_an_error() {
    if !can_run("a_bridge_that_rules_do_not_see_is_an_error") {
        return;
    }
    let body = || {
        use nix::mount::{MsFlags, mount};
        let none = None::<&str>;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).unwrap();
        let empty = tempfile::tempdir().unwrap();
        let mut node = Node::without_agent(&["10.244.1.0/24"]);
        let (over, bind) = ("/proc/sys/net/bridge", MsFlags::MS_BIND);
        // Settings of the network are of the namespace of whoever looks, and so is what covers them.
        let cover = || mount(Some(empty.path()), over, none, bind, none);
        run_in(&node.netns, cover).unwrap().unwrap();
        node.config.pod_mode = PodMode::Bridge;
        node.spawn_agent();
        let mut told = String::new();
        until("the node says what is missing", || {
            told = node.ask_status().unwrap_or_default().to_string();
            told.contains("modprobe br_netfilter")
        });
        let pod = Pod::new("a");
        let refused = node.call("ADD", &pod.id, &pod.path(), &node.conf("1.1.0"));
        assert_eq!(refused.code(), 11, "{refused:?}");
        assert!(!node.dir.path().join("net.d/10-flatnet.conflist").exists());
    };
    thread::scope(|scope| scope.spawn(body).join()).unwrap();
}
