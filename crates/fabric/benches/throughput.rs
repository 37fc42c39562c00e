//! Pod to pod over each kind of path, beside the same path made by hand in the same run.
//!
//! `cargo bench -p fabric --bench throughput`; needs root. One TCP stream, a third of a second a round,
//! ours and the hand-made one in turns; printed are medians, and the median of the rounds' ratios.
//!
//! A path made by hand that only forwards has no connection tracking. Masquerading needs it, and it
//! costs a few percent whoever asks for it: the lines with `+nat` compare with a hand-made path that
//! has one masquerading rule, so that what is ours can be told from what is the kernel's.

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
use linux::{Address, NewLink, Nftables, Route, VethEnd, run_in};
use model::config::FabricMode;
use nft::{Base, Chain, ChainKind, Family, Hook, IpFamily, Key, Policy, Rule, Statement, Table};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use cluster::{config, net, node};
use lab::{Lab, Station, root};

const ROUNDS: usize = 31;
const ROUND: Duration = Duration::from_millis(300);

fn main() {
    if !root("throughput") {
        return;
    }
    println!("pod to pod, one TCP stream, Gbit/s: median of {ROUNDS} rounds in turns");
    for (name, mode, mtu, tunnel) in [
        ("host-gw", FabricMode::HostGw, 1500, false),
        ("vxlan", FabricMode::Vxlan, 1450, true),
    ] {
        let mut hand_made = by_hand(tunnel);
        compare(name, &mut ours(mode, mtu), &mut hand_made);
        masquerade_by_hand(&hand_made);
        compare(&format!("{name}+nat"), &mut ours(mode, mtu), &mut hand_made);
    }
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
        let (start, before) = (Instant::now(), processor());
        let report = lab.turn(0);
        assert_eq!(report.errors, []);
        let spent = processor() - before;
        format!(
            "{} changes, {:?}, {spent:?} of processor",
            report.changes,
            start.elapsed()
        )
    };
    println!("5,000 nodes:");
    println!("  all new            {}", timed(&mut lab));
    lab.cluster.nodes.remove("peer77");
    println!("  one node leaves    {}", timed(&mut lab));
    lab.nodes[0].fabric.resync();
    println!("  looked at anew     {}", timed(&mut lab));
}

/// Processor time of this process so far.
fn processor() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
    seconds(usage.user_time()) + seconds(usage.system_time())
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

/// The one rule one writes by hand so that pods reach what is outside.
fn masquerade_by_hand(lab: &Lab) {
    let base = Some(Base {
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: 100,
        policy: Policy::Accept,
    });
    let pods = net("10.244.0.0/16");
    let rules = vec![Rule::new([
        Statement::is(Key::Saddr(IpFamily::V4), pods),
        Statement::is_not(Key::Daddr(IpFamily::V4), pods),
        Statement::Masquerade {
            fully_random: false,
        },
    ])];
    let mut table = Table::new(Family::Ip, "by-hand");
    table
        .chains
        .insert("postrouting".to_owned(), Chain { base, rules });
    let changes = nft::diff(None, &table.compile(), |_| true);
    for node in &lab.nodes {
        let mut nftables = Nftables::open_in(&node.station.netns).unwrap();
        nftables.apply(&changes).unwrap();
    }
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

/// What one stream came to.
#[derive(Clone, Copy)]
struct Sample {
    /// Bytes a second.
    rate: f64,
    /// Bytes a second of processor time, the kernel's part of the path included: on a busy
    /// machine the steadier figure.
    per_processor: f64,
}

fn print(name: &str, ours: impl Fn() -> Sample, by_hand: impl Fn() -> Sample) {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        // Whoever comes first changes, so that neither always follows a pause.
        if round % 2 == 0 {
            let ours = ours();
            rounds.push((ours, by_hand()));
        } else {
            let by_hand = by_hand();
            rounds.push((ours(), by_hand));
        }
    }
    let median = |of: &dyn Fn(&(Sample, Sample)) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!(
        "{name:11} flatnet {:6.2}  by hand {:6.2}  ratio {:.3}  (per processor time {:.3})",
        median(&|round| round.0.rate * 8.0 / 1e9),
        median(&|round| round.1.rate * 8.0 / 1e9),
        median(&|round| round.0.rate / round.1.rate),
        median(&|round| round.0.per_processor / round.1.per_processor),
    );
}

/// One TCP stream for a round; its first tenth is not counted.
fn pump(from: &Station, to: &Station, ip: IpAddr) -> Sample {
    let listener = run_in(&to.netns, || TcpListener::bind((ip, 0)))
        .unwrap()
        .unwrap();
    let target = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 256 << 10];
            let warm = Instant::now() + ROUND / 10;
            let mut read = 1;
            while read > 0 && Instant::now() < warm {
                read = stream.read(&mut buffer).unwrap();
            }
            let (start, before, mut total) = (Instant::now(), processor(), 0);
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                total += read;
            }
            Sample {
                rate: total as f64 / start.elapsed().as_secs_f64(),
                per_processor: total as f64 / (processor() - before).as_secs_f64(),
            }
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
