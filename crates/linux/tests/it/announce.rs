//! Who answers for an address that no link has, as another station's kernel sees it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linux::announce::{Heard, Speaker};
use linux::link::NewKind;
use linux::{Address, Mac, NetNs, Netlink, NewLink, VethEnd, run_in, sysctl};

/// Two stations on one cable: `eth0` here and there.
struct Pair {
    router: (NetNs, Netlink, u32),
    node: (NetNs, u32, Mac),
}

fn pair() -> Pair {
    let station = || {
        let netns = NetNs::anonymous().unwrap();
        run_in(&netns, sysctl::without_dad).unwrap().unwrap();
        let netlink = Netlink::open_in(&netns).unwrap();
        (netns, netlink)
    };
    let (router, mut here) = station();
    let (node, mut there) = station();
    let far = VethEnd {
        name: "eth0",
        netns: Some(&node),
        ..VethEnd::default()
    };
    here.create_link(&NewLink::new("eth0", NewKind::Veth(far)))
        .unwrap();
    let near = here.expect_link("eth0").unwrap().index;
    here.set_up(near).unwrap();
    for address in ["10.0.1.1/24", "fd00:10:0:1::1/64"] {
        here.add_address(&Address::new(
            near,
            address.parse::<ipnet::IpNet>().unwrap(),
        ))
        .unwrap();
    }
    let link = there.expect_link("eth0").unwrap();
    there.set_up(link.index).unwrap();
    let mac = there.expect_link("eth0").unwrap().mac.unwrap();
    Pair {
        router: (router, here, near),
        node: (node, link.index, mac),
    }
}

/// Answers for `ip` until told to stop.
fn answer(speaker: &mut Speaker, ip: IpAddr, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for heard in speaker.read().unwrap() {
            if let Heard::Asked(asked, asker) = heard
                && asked == ip
            {
                speaker.answer(ip, &asker).unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn neighbour(netlink: &mut Netlink, link: u32, ip: IpAddr) -> Option<Mac> {
    let all = netlink.neighbours(Some(link)).unwrap();
    all.iter().find(|n| n.ip == ip).and_then(|n| n.mac)
}

#[test]
fn another_stations_kernel_finds_an_address_that_no_link_has() {
    if !testing::root("another_stations_kernel_finds_an_address_that_no_link_has") {
        return;
    }
    for ip in ["10.0.1.200", "fd00:10:0:1::200"] {
        let mut pair = pair();
        let ip: IpAddr = ip.parse().unwrap();
        let (netns, link, mac) = &pair.node;
        let mut speaker = run_in(netns, || Speaker::open(*link, *mac, ip.is_ipv6()))
            .unwrap()
            .unwrap();
        run_in(netns, || speaker.listen(ip)).unwrap().unwrap();
        let stop = AtomicBool::new(false);
        let found = std::thread::scope(|scope| {
            scope.spawn(|| answer(&mut speaker, ip, &stop));
            let (router, netlink, near) = &mut pair.router;
            // A packet to the address makes the kernel ask for it.
            let socket = run_in(router, || {
                let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                std::net::UdpSocket::bind(any).unwrap()
            })
            .unwrap();
            let deadline = Instant::now() + Duration::from_secs(30);
            let mut found = None;
            while found.is_none() && Instant::now() < deadline {
                let _ = socket.send_to(b"x", (ip, 9));
                std::thread::sleep(Duration::from_millis(5));
                found = neighbour(netlink, *near, ip);
            }
            stop.store(true, Ordering::Relaxed);
            found
        });
        assert_eq!(found, Some(*mac), "{ip}");

        // Another takes the address over: the router believes it at once.
        let other = Mac::local([2; 6]);
        let taker = run_in(netns, || Speaker::open(*link, other, ip.is_ipv6()));
        taker.unwrap().unwrap().announce(ip).unwrap();
        let (_, netlink, near) = &mut pair.router;
        let deadline = Instant::now() + Duration::from_secs(30);
        while neighbour(netlink, *near, ip) != Some(other) {
            assert!(Instant::now() < deadline, "{ip} is still at {mac}");
            std::thread::sleep(Duration::from_millis(1));
        }

        // A probe finds out who has an address.
        let own: IpAddr = if ip.is_ipv4() {
            "10.0.1.1".parse().unwrap()
        } else {
            "fd00:10:0:1::1".parse().unwrap()
        };
        speaker.probe(own).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let heard = speaker.read().unwrap();
            if heard
                .iter()
                .any(|heard| matches!(heard, Heard::Claimed(ip, _) if *ip == own))
            {
                break;
            }
            assert!(Instant::now() < deadline, "no answer to the probe of {own}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
