//! Pod to pod over each kind of path, beside the same path made by hand in the same run.
//!
//! `cargo bench -p fabric --bench throughput`; needs root. One TCP stream, a third of a second a round,
//! ours and the hand-made one in turns; printed are medians and their ratio.

#![allow(
    dead_code,
    reason = "the namespaces of the tests, of which this uses a part"
)]
#![expect(clippy::unwrap_used, reason = "a bench's failure is a panic")]

#[path = "../tests/it/cluster.rs"]
mod cluster;
#[path = "../tests/it/lab.rs"]
mod lab;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use linux::link::NewKind;
use linux::{Address, NewLink, Route, VethEnd, run_in};
use model::config::FabricMode;

use cluster::{config, net, node};
use lab::{Lab, Station, root};

const ROUNDS: usize = 31;
const ROUND: Duration = Duration::from_millis(300);

fn main() {
    if !root("throughput") {
        return;
    }
    println!("pod to pod, one TCP stream, Gbit/s: median of {ROUNDS} rounds in turns");
    compare(
        "host-gw",
        &mut ours(FabricMode::HostGw, 1500),
        &mut by_hand(false),
    );
    compare(
        "vxlan",
        &mut ours(FabricMode::Vxlan, 1450),
        &mut by_hand(true),
    );
    compare_same_node();
    scale();
}

/// A large cluster on the real kernel: the first look, and one node's change after it.
fn scale() {
    let mut lab = Lab::new(vec![node(1, false)], config(FabricMode::Vxlan));
    for number in 0..5000_u32 {
        let mut peer = node(2, false);
        peer.name = format!("peer{number}");
        let octets = (number + 1024).to_be_bytes();
        peer.addresses = vec![[10, 9, octets[2], octets[3]].into()];
        peer.pod_cidrs = vec![net(&format!(
            "10.{}.{}.0/24",
            128 + number / 256,
            number % 256
        ))];
        peer.vtep_mac = Some([2, 9, 9, 9, octets[2], octets[3]]);
        lab.cluster.nodes.insert(peer.name.clone(), peer);
    }
    lab.config.cluster_cidrs = vec![net("10.128.0.0/9")];
    if let Some(own) = lab.cluster.nodes.get_mut("node1") {
        own.pod_cidrs = vec![net("10.255.0.0/24")];
    }
    let timed = |lab: &mut Lab| {
        let start = Instant::now();
        let report = lab.turn(0);
        assert_eq!(report.errors, []);
        (report.changes, start.elapsed())
    };
    println!("5,000 nodes, changes and time:");
    println!("  all new            {:?}", timed(&mut lab));
    lab.cluster.nodes.remove("peer77");
    println!("  one node leaves    {:?}", timed(&mut lab));
    lab.nodes[0].fabric.resync();
    println!("  looked at anew     {:?}", timed(&mut lab));
}

fn nodes() -> Vec<model::Node> {
    (1..=2).map(|number| node(number, false)).collect()
}

fn ours(mode: FabricMode, mtu: u32) -> Lab {
    let mut lab = Lab::with_mtu(nodes(), config(mode), mtu);
    for report in lab.settle() {
        assert_eq!((&report.errors[..], report.mtu), (&[][..], Some(mtu)));
    }
    lab
}

/// Two nodes connected as one does it with `ip` and `bridge`.
fn by_hand(tunnel: bool) -> Lab {
    let mtu = if tunnel { 1450 } else { 1500 };
    let mut lab = Lab::with_mtu(nodes(), config(FabricMode::HostGw), mtu);
    for (at, other) in [(0, 1), (1, 0)] {
        lab.by_hand(at, other, tunnel);
    }
    lab
}

fn compare(name: &str, ours: &mut Lab, by_hand: &mut Lab) {
    let measure = |lab: &Lab| pump(&lab.nodes[0].pod, &lab.nodes[1].pod, lab.pod_ip(1, false));
    print(name, || measure(ours), || measure(by_hand));
}

/// Two pods of one node: with the fabric's rules and settings in it, and without.
fn compare_same_node() {
    let mut labs = [ours(FabricMode::Vxlan, 1450), by_hand(false)];
    let pods = labs.each_mut().map(|lab| {
        let station = &mut lab.nodes[0].station;
        let mut pod = Station::new();
        let end = VethEnd {
            name: "eth0",
            netns: Some(&pod.netns),
            mtu: Some(1450),
            mac: None,
        };
        let new = NewLink {
            mtu: Some(1450),
            ..NewLink::new("fn-abcdef01234", NewKind::Veth(end))
        };
        station.netlink.create_link(&new).unwrap();
        let dev = station.index("fn-abcdef01234");
        let gateway = Address {
            no_prefix_route: true,
            ..Address::new(dev, net("10.244.1.1/32"))
        };
        station.netlink.add_address(&gateway).unwrap();
        station
            .netlink
            .add_route(&Route::new(net("10.244.1.77/32"), dev))
            .unwrap();
        let eth0 = pod.index("eth0");
        pod.netlink.set_up(eth0).unwrap();
        pod.netlink
            .add_address(&Address::new(eth0, net("10.244.1.77/32")))
            .unwrap();
        pod.netlink
            .add_route(&Route::new(net("10.244.1.1/32"), eth0))
            .unwrap();
        pod.default_route("eth0", [10, 244, 1, 1].into());
        // The first pod's network is on its link: the second is behind the node.
        let far = Route::new(net("10.244.1.77/32"), lab.nodes[0].pod.index("eth0"));
        let far = far.via([10, 244, 1, 1].into());
        lab.nodes[0].pod.netlink.add_route(&far).unwrap();
        pod
    });
    let measure = |at: usize| pump(&labs[at].nodes[0].pod, &pods[at], [10, 244, 1, 77].into());
    print("same node", || measure(0), || measure(1));
}

fn print(name: &str, ours: impl Fn() -> f64, by_hand: impl Fn() -> f64) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Whoever comes first changes, so that neither always follows a pause.
        if round % 2 == 0 {
            a.push(ours());
            b.push(by_hand());
        } else {
            b.push(by_hand());
            a.push(ours());
        }
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2] * 8.0 / 1e9
    };
    let (a, b) = (median(&mut a), median(&mut b));
    println!(
        "{name:10} flatnet {a:6.2}  by hand {b:6.2}  ratio {:.3}",
        a / b
    );
}

/// Bytes a second through one TCP stream.
fn pump(from: &Station, to: &Station, ip: IpAddr) -> f64 {
    let listener = run_in(&to.netns, || TcpListener::bind((ip, 0)))
        .unwrap()
        .unwrap();
    let target = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 256 << 10];
            // The first tenth warms up.
            let warm = Instant::now() + ROUND / 10;
            let mut read = 1;
            while read > 0 && Instant::now() < warm {
                read = stream.read(&mut buffer).unwrap();
            }
            let (start, mut total) = (Instant::now(), 0);
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                total += read;
            }
            total as f64 / start.elapsed().as_secs_f64()
        });
        let mut stream = run_in(&from.netns, || TcpStream::connect(target))
            .unwrap()
            .unwrap();
        let data = vec![0; 128 << 10];
        let end = Instant::now() + ROUND;
        while Instant::now() < end {
            stream.write_all(&data).unwrap();
        }
        drop(stream);
        receiver.join().unwrap()
    })
}
