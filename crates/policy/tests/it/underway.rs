//! What is denied before and after every change is denied in between too.
//!
//! The kernel runs a packet through the rules that were in force when it came, but looks up
//! elements in those of the moment. So a packet under way can be led by a verdict that is new to
//! a chain that is empty in the rules it keeps to, or by one that it found before to a chain that
//! is emptied since; from there it comes back as if nobody had denied it. Lists are therefore made
//! before what leads to them, and go after it, each in a transaction of its own.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use linux::{NetNs, run_in};
use serde_json::{Value as Json, json};

use crate::lab::Lab;
use crate::objects;
use crate::random::Random;

/// How often the whole is done.
const RUNS: &str = "FLATNET_TEST_RUNS";
const RUN: Duration = Duration::from_secs(2);
/// What no policy ever allows.
const PORT: u16 = 7000;
/// On one node: the first packets of a connection meet the lists of both.
const CLIENT: &str = "x/a";
const SERVER: &str = "x/c";
/// Rules that stay: a packet is on its way for a while.
const ON_THE_WAY: u16 = 60;
/// Policies that come, change and go.
const CHANGING: usize = 3;

fn rule(peers: u16, port: u16) -> Json {
    json!({
        "from": [{"ipBlock": {"cidr": format!("10.{peers}.0.0/16")}}],
        "ports": [{"protocol": "UDP", "port": port}],
    })
}

/// Lets nobody in who is there.
fn closing() -> Json {
    let rules: Vec<Json> = (1..=ON_THE_WAY).map(|i| rule(i, 100 + i)).collect();
    objects::policy("x", "closed", &json!({"podSelector": {}, "ingress": rules}))
}

/// Allows something else: another each time, so that the pods get another list.
fn other(number: usize, random: &mut Random) -> Json {
    let port = 10_000 + random.below(20_000) as u16;
    let mut spec = json!({
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [rule(200, port)],
    });
    if random.chance(2) {
        spec["policyTypes"] = json!(["Ingress", "Egress"]);
        spec["egress"] = json!([{"ports": [{"protocol": "UDP", "port": port}]}, {"ports":
            [{"protocol": "UDP", "port": PORT}]}]);
    }
    objects::policy("x", &format!("other-{number}"), &spec)
}

/// Changes as fast as they can be made, until the end; how many there were.
fn change(lab: &mut Lab, random: &mut Random, end: Instant) -> usize {
    let mut there = [const { None::<Json> }; CHANGING];
    let mut turns = 0;
    while Instant::now() < end {
        let number = random.below(CHANGING);
        match there[number].take_if(|_| random.chance(3)) {
            Some(object) => lab.take(objects::gone(&object)),
            None => {
                let object = other(number, random);
                lab.take(objects::read(&object).0);
                there[number] = Some(object);
            }
        }
        // The whole is read and compared now and then.
        if random.chance(8) {
            lab.nodes[0].restart();
        }
        let report = lab.turn(0);
        assert_eq!(report.errors, []);
        turns += 1;
    }
    for object in there.iter().flatten() {
        lab.take(objects::gone(object));
    }
    turns
}

/// Sends from a port of its own until it is over.
fn send(netns: &NetNs, to: SocketAddr, over: &AtomicBool, sent: &AtomicU64) {
    run_in(netns, || {
        let any: IpAddr = if to.is_ipv6() {
            [0_u16; 8].into()
        } else {
            [0; 4].into()
        };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        while !over.load(Ordering::SeqCst) {
            let _ = socket.send_to(b"x", to);
            sent.fetch_add(1, Ordering::Relaxed);
        }
    })
    .unwrap();
}

fn listen(lab: &Lab) -> Vec<UdpSocket> {
    let pod = lab.pod(SERVER);
    let sockets = pod.ips.map(|ip| {
        let socket = run_in(&pod.station.netns, || UdpSocket::bind((ip, PORT)));
        let socket = socket.unwrap().unwrap();
        let wait = Duration::from_secs(30);
        socket.set_read_timeout(Some(wait)).unwrap();
        socket
    });
    sockets.into()
}

/// How many packets have come.
fn arrived(sockets: &[UdpSocket]) -> usize {
    let count = |socket: &UdpSocket| {
        socket.set_nonblocking(true).unwrap();
        let mut count = 0;
        while socket.recv(&mut [0]).is_ok() {
            count += 1;
        }
        socket.set_nonblocking(false).unwrap();
        count
    };
    sockets.iter().map(count).sum()
}

/// Ends the senders also when the test ends by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Changes that were made, packets sent, and how many of these arrived.
fn run(seed: u64) -> (usize, u64, usize) {
    let mut random = Random(seed);
    let mut lab = Lab::new();
    let closing = closing();
    lab.take(objects::read(&closing).0);
    lab.settle();
    let sockets = listen(&lab);
    let path = format!(
        "/proc/self/fd/{}",
        lab.pod(CLIENT).station.netns.as_raw_fd()
    );
    let netns = NetNs::open(path).unwrap();
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let turns = std::thread::scope(|scope| {
        let _over = Over(&over);
        for socket in &sockets {
            let to = socket.local_addr().unwrap();
            let (netns, over, sent) = (&netns, &over, &sent);
            scope.spawn(move || send(netns, to, over, sent));
        }
        change(&mut lab, &mut random, Instant::now() + RUN)
    });
    let arrived = arrived(&sockets);
    // It was the policies that kept them away.
    lab.take(objects::gone(&closing));
    lab.settle();
    for socket in &sockets {
        let to = socket.local_addr().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _over = Over(&over);
            let (netns, over) = (&netns, &over);
            scope.spawn(move || send(netns, to, over, &AtomicU64::new(0)));
            let came = socket.recv(&mut [0]);
            assert!(came.is_ok(), "{to} without policies: {came:?}");
        });
    }
    (turns, sent.into_inner(), arrived)
}

#[test]
fn packets_under_way_find_no_gap_between_changes() {
    if !testing::root("packets_under_way_find_no_gap_between_changes") {
        return;
    }
    let runs = std::env::var(RUNS).map_or(1, |runs| runs.parse().unwrap());
    let (mut turns, mut sent) = (0, 0);
    for seed in 1..=runs {
        let counts = run(seed);
        assert_eq!(counts.2, 0, "arrived in run {seed}: {counts:?}");
        turns += counts.0;
        sent += counts.1;
    }
    println!("{runs} runs, {turns} changes, {sent} packets");
    assert!(turns > 20 && sent > 1000, "{turns} changes, {sent} packets");
}
