//! The address scheme of the machine's underlay: which segment a node hangs on, and
//! which address it has there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The most nodes one cluster can have: every host number but the router's.
pub const MOST_NODES: u16 = 253;
/// The most segments `--subnets` may ask for.
pub const MOST_SEGMENTS: u8 = 16;

/// A node's number (1, 2, ...) as the last part of its address: 10, 20, ... 250 for the
/// first 25 nodes, then the numbers left between them.
pub fn host_number(number: u16) -> Option<u8> {
    match number {
        0 => None,
        1..=25 => u8::try_from(number * 10).ok(),
        _ => (2..=254u8)
            .filter(|host| host % 10 != 0)
            .nth(usize::from(number) - 26),
    }
}

/// The segment, counted from 0, that a node hangs on: nodes are dealt out in turn.
pub fn segment_of(number: u16, segments: u8) -> u8 {
    let turn = number.saturating_sub(1) % u16::from(segments.max(1));
    u8::try_from(turn).unwrap_or(0)
}

/// `10.0.1.0/24` for segment 0, `10.0.2.0/24` for segment 1 and so on.
pub fn segment_v4(segment: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, segment + 1, 0), 24)
}

/// `fd00:10:0:1::/64` for segment 0 and so on.
pub fn segment_v6(segment: u8) -> Ipv6Net {
    let segment = u16::from(segment) + 1;
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0, segment, 0, 0, 0, 0), 64)
}

/// The router's address on a segment, with the segment's prefix.
pub fn router(segment: u8, v6: bool) -> IpNet {
    if v6 {
        let net = segment_v6(segment);
        let ip = Ipv6Addr::from(u128::from(net.network()) | 1);
        IpNet::V6(Ipv6Net::new_assert(ip, 64))
    } else {
        let [a, b, c, _] = segment_v4(segment).network().octets();
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 1), 24))
    }
}

/// A node's address on its segment, with the segment's prefix. The IPv6 address reads
/// like the IPv4 one: `10.0.1.20` and `fd00:10:0:1::20`.
pub fn node(number: u16, segments: u8, v6: bool) -> Option<IpNet> {
    let host = host_number(number)?;
    let segment = segment_of(number, segments);
    if v6 {
        let reads_alike = u128::from(u16::from_str_radix(&host.to_string(), 16).ok()?);
        let ip = Ipv6Addr::from(u128::from(segment_v6(segment).network()) | reads_alike);
        Some(IpNet::V6(Ipv6Net::new_assert(ip, 64)))
    } else {
        let [a, b, c, _] = segment_v4(segment).network().octets();
        let ip = Ipv4Addr::new(a, b, c, host);
        Some(IpNet::V4(Ipv4Net::new_assert(ip, 24)))
    }
}

/// The addresses on the first segment that Services of type LoadBalancer get, as a range. Those
/// of them that a node of a large cluster has are left out by whoever gives them.
pub fn balancer(v6: bool) -> String {
    if v6 {
        let prefix = segment_v6(0).network();
        let at = |host: u128| Ipv6Addr::from(u128::from(prefix) | host);
        format!("{}-{}", at(0x200), at(0x250))
    } else {
        let [a, b, c, _] = segment_v4(0).network().octets();
        format!("{a}.{b}.{c}.200-{a}.{b}.{c}.250")
    }
}

/// The client's network, which plays the internet: its own address and its gateway.
pub fn client(v6: bool) -> (IpNet, IpNet) {
    let v4 = |host| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, host), 24));
    let at = |host| {
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, host);
        IpNet::V6(Ipv6Net::new_assert(ip, 64))
    };
    if v6 {
        (at(0x10), at(1))
    } else {
        (v4(10), v4(1))
    }
}

/// The n-th address of a range, for the well-known addresses of the service range.
pub fn nth(net: IpNet, n: u8) -> IpAddr {
    match net {
        IpNet::V4(net) => IpAddr::V4(Ipv4Addr::from(
            u32::from(net.network()).wrapping_add(u32::from(n)),
        )),
        IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from(
            u128::from(net.network()).wrapping_add(u128::from(n)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_first_nodes_have_the_addresses_of_the_documents() {
        let address = |number| node(number, 1, false).map(|a| a.to_string());
        assert_eq!(address(1).as_deref(), Some("10.0.1.10/24"));
        assert_eq!(address(2).as_deref(), Some("10.0.1.20/24"));
        assert_eq!(address(26).as_deref(), Some("10.0.1.2/24"));
        assert_eq!(
            node(2, 1, true).map(|a| a.to_string()).as_deref(),
            Some("fd00:10:0:1::20/64")
        );
        assert_eq!(router(0, true).to_string(), "fd00:10:0:1::1/64");
    }

    #[test]
    fn every_number_has_its_own_address_and_none_is_the_routers() {
        let mut seen = BTreeSet::new();
        for number in 1..=MOST_NODES {
            let host = host_number(number).unwrap();
            assert!((2..=254).contains(&host), "{number} -> {host}");
            assert!(seen.insert(host), "{host} twice");
        }
        assert_eq!(host_number(MOST_NODES + 1), None);
        assert_eq!(host_number(0), None);
    }

    #[test]
    fn nodes_are_dealt_out_to_the_segments() {
        let address = |number| node(number, 2, false).map(|a| a.addr().to_string());
        assert_eq!(address(1).as_deref(), Some("10.0.1.10"));
        assert_eq!(address(2).as_deref(), Some("10.0.2.20"));
        assert_eq!(address(3).as_deref(), Some("10.0.1.30"));
    }
}
