//! One host of a test's network: a namespace without a name, gone with its handle.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

use std::net::IpAddr;

use ipnet::IpNet;
use linux::link::NewKind;
use linux::{Address, NetNs, Netlink, NewLink, Route, VethEnd, run_in, sysctl};

/// MTU of every cable.
pub const MTU: u32 = 1500;

/// How many seconds a connection that is over is still tracked.
const ENDED: &str = "10";

/// A namespace and its netlink socket.
pub struct Station {
    /// The namespace.
    pub netns: NetNs,
    /// A socket in it.
    pub netlink: Netlink,
}

impl Default for Station {
    fn default() -> Self {
        Self::new()
    }
}

impl Station {
    /// One with nothing but `lo`, which is up.
    pub fn new() -> Self {
        let netns = NetNs::anonymous().unwrap();
        run_in(&netns, || {
            sysctl::without_dad().unwrap();
            // An answer a probe waits for must not be one that the kernel spares.
            for (key, value) in [
                ("net/ipv4/icmp_ratelimit", "0"),
                ("net/ipv4/icmp_msgs_per_sec", "1000000"),
                ("net/ipv4/icmp_msgs_burst", "1000000"),
                ("net/ipv6/icmp/ratelimit", "0"),
            ] {
                sysctl::write_if_possible(key, value).unwrap();
            }
        })
        .unwrap();
        let mut netlink = Netlink::open_in(&netns).unwrap();
        netlink.set_up(1).unwrap();
        Self { netns, netlink }
    }

    /// Passes packets on.
    pub fn forwards(&self) {
        run_in(&self.netns, || {
            for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                sysctl::write(key, "1").unwrap();
            }
            // A test makes thousands of connections a second. Each that is over is tracked for
            // two minutes by default, and where that has filled the table, which is never larger
            // than the host's, new ones are dropped.
            let key = "net/netfilter/nf_conntrack_tcp_timeout_time_wait";
            sysctl::write_if_possible(key, ENDED).unwrap();
        })
        .unwrap();
    }

    /// The index of a link that is there.
    pub fn index(&mut self, link: &str) -> u32 {
        self.netlink.expect_link(link).unwrap().index
    }

    /// Gives a link an address, written with its prefix length.
    pub fn address(&mut self, link: &str, address: &str) {
        let dev = self.index(link);
        let address = Address::new(dev, net(address));
        self.netlink.add_address(&address).unwrap();
    }

    /// Routes a range through a gateway.
    pub fn route(&mut self, link: &str, to: &str, gateway: IpAddr) {
        let dev = self.index(link);
        let route = Route::new(net(to), dev).via(gateway);
        self.netlink.add_route(&route).unwrap();
    }

    /// A pair from here (`name`) to `eth0` over there, both up.
    pub fn cable(&mut self, name: &str, far: &mut Self) {
        let end = VethEnd {
            name: "eth0",
            netns: Some(&far.netns),
            mtu: Some(MTU),
            mac: None,
        };
        let new = NewLink {
            mtu: Some(MTU),
            ..NewLink::new(name, NewKind::Veth(end))
        };
        self.netlink.create_link(&new).unwrap();
        let index = far.index("eth0");
        far.netlink.set_up(index).unwrap();
    }

    /// A pod's cable: the node's end has the gateway's address, the pod's end the pod's, and each
    /// leads to the other alone.
    pub fn attach(&mut self, name: &str, pod: &mut Self, ips: [IpAddr; 2], gateways: [IpAddr; 2]) {
        self.cable(name, pod);
        let (here, there) = (self.index(name), pod.index("eth0"));
        for (ip, gateway) in ips.into_iter().zip(gateways) {
            let alone = |dev, ip: IpAddr| Address {
                no_prefix_route: true,
                ..Address::new(dev, IpNet::from(ip))
            };
            self.netlink.add_address(&alone(here, gateway)).unwrap();
            let to_pod = Route::new(IpNet::from(ip), here);
            self.netlink.add_route(&to_pod).unwrap();
            pod.netlink.add_address(&alone(there, ip)).unwrap();
            let to_gateway = Route::new(IpNet::from(gateway), there);
            pod.netlink.add_route(&to_gateway).unwrap();
            let all = if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            pod.route("eth0", all, gateway);
        }
    }
}

/// The network, which the test has right.
pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// The address, which the test has right.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
