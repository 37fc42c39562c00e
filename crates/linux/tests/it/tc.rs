use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use linux::link::NewKind;
use linux::{Address, NetNs, NewLink, Tbf, VethEnd, run_in};

use crate::{namespace, root};

/// Bytes a second from one namespace to an address in another, over some time.
fn pump(from: &NetNs, to: &NetNs, ip: IpAddr, time: Duration) -> f64 {
    let listener = run_in(to, || TcpListener::bind((ip, 0))).unwrap().unwrap();
    let target = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let received = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut buffer, mut total) = ([0; 16384], 0);
            let start = Instant::now();
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                total += read;
            }
            total as f64 / start.elapsed().as_secs_f64()
        });
        let mut stream = run_in(from, || TcpStream::connect(target))
            .unwrap()
            .unwrap();
        let end = Instant::now() + time;
        while Instant::now() < end {
            stream.write_all(&[0; 4096]).unwrap();
        }
        drop(stream);
        received.join().unwrap()
    })
}

#[test]
fn a_pods_bandwidth_is_limited_both_ways() {
    if !root("bandwidth") {
        return;
    }
    let (host_netns, mut host) = namespace();
    let (pod_netns, mut pod) = namespace();
    let end = VethEnd {
        name: "eth0",
        netns: Some(&pod_netns),
        ..VethEnd::default()
    };
    host.create_link(&NewLink::new("fn-pod", NewKind::Veth(end)))
        .unwrap();
    host.create_link(&NewLink::new("fn-ifb", NewKind::Ifb))
        .unwrap();
    let dev = host.expect_link("fn-pod").unwrap().index;
    let ifb = host.expect_link("fn-ifb").unwrap().index;
    let eth0 = pod.expect_link("eth0").unwrap().index;
    pod.set_up(eth0).unwrap();
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    host.add_address(&Address::new(dev, net("10.9.0.1/24")))
        .unwrap();
    pod.add_address(&Address::new(eth0, net("10.9.0.2/24")))
        .unwrap();

    let limit = Tbf {
        rate: 1_000_000,
        burst: 20_000,
    };
    assert_eq!(host.tbf(dev).unwrap(), None);
    host.set_tbf(dev, limit).unwrap();
    host.set_tbf(dev, limit).unwrap();
    host.set_tbf(ifb, limit).unwrap();
    host.redirect_received(dev, ifb).unwrap();
    let listed = host.tbf(dev).unwrap().unwrap();
    assert_eq!(listed.rate, limit.rate);
    assert!(listed.burst.abs_diff(limit.burst) < 100, "{listed:?}");

    let time = Duration::from_millis(500);
    let host_ip = IpAddr::from([10, 9, 0, 1]);
    let pod_ip = IpAddr::from([10, 9, 0, 2]);
    let to_pod = pump(&host_netns, &pod_netns, pod_ip, time);
    let from_pod = pump(&pod_netns, &host_netns, host_ip, time);
    for rate in [to_pod, from_pod] {
        assert!(rate < 1_500_000.0, "{to_pod} {from_pod}");
        assert!(rate > 300_000.0, "{to_pod} {from_pod}");
    }
    assert!(host.delete_tbf(dev).unwrap());
    assert!(!host.delete_tbf(dev).unwrap());
    assert!(pump(&host_netns, &pod_netns, pod_ip, time) > 3_000_000.0);

    let fast = Tbf {
        rate: 6_000_000_000,
        burst: 1_000_000,
    };
    host.set_tbf(dev, fast).unwrap();
    assert_eq!(host.tbf(dev).unwrap().unwrap().rate, fast.rate);
}
