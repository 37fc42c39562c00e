//! Addresses of ipBlocks: networks less what they except.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

/// The addresses of a network that are in none of its exceptions, as few networks as possible in
/// order.
pub(super) fn without(net: IpNet, except: &[IpNet]) -> Vec<IpNet> {
    let mut holes: Vec<IpNet> = except
        .iter()
        .copied()
        .filter(|hole| same_family(*hole, net))
        .collect();
    if holes.iter().any(|hole| hole.contains(&net)) {
        return Vec::new();
    }
    holes.retain(|hole| net.contains(hole));
    let holes = IpNet::aggregate(&holes);
    let mut left = Vec::new();
    let mut next = Some(number(net.network()));
    for hole in holes {
        let (first, last) = (number(hole.network()), number(hole.broadcast()));
        if let Some(from) = next
            && from < first
        {
            left.extend(between(net, from, first - 1));
        }
        next = last.checked_add(1);
    }
    let end = number(net.broadcast());
    if let Some(from) = next.filter(|from| *from <= end) {
        left.extend(between(net, from, end));
    }
    union(left)
}

/// All addresses of some networks of one family, as few networks as possible in order.
pub(super) fn union(nets: Vec<IpNet>) -> Vec<IpNet> {
    let mut nets = IpNet::aggregate(&nets);
    nets.sort();
    nets
}

/// Whether these are all addresses of a family.
pub(super) fn is_all(nets: &[IpNet]) -> bool {
    matches!(nets, [net] if net.prefix_len() == 0)
}

fn same_family(a: IpNet, b: IpNet) -> bool {
    matches!(
        (a, b),
        (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_))
    )
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The networks that hold the addresses from one to another, of a network's family.
fn between(net: IpNet, from: u128, to: u128) -> Vec<IpNet> {
    match net {
        IpNet::V4(_) => {
            let ip = |number: u128| Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX));
            let nets = Ipv4Subnets::new(ip(from), ip(to), 0);
            nets.map(|net: Ipv4Net| IpNet::V4(net)).collect()
        }
        IpNet::V6(_) => {
            let nets = Ipv6Subnets::new(Ipv6Addr::from(from), Ipv6Addr::from(to), 0);
            nets.map(|net: Ipv6Net| IpNet::V6(net)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(words: &[&str]) -> Vec<IpNet> {
        words.iter().map(|word| word.parse().unwrap()).collect()
    }

    fn left(net: &str, except: &[&str]) -> Vec<IpNet> {
        without(net.parse().unwrap(), &nets(except))
    }

    #[test]
    fn what_is_excepted_is_left_out() {
        assert_eq!(left("10.0.0.0/8", &[]), nets(&["10.0.0.0/8"]));
        assert_eq!(
            left("10.0.0.0/24", &["10.0.0.64/26", "10.0.0.0/32"]),
            nets(&[
                "10.0.0.1/32",
                "10.0.0.2/31",
                "10.0.0.4/30",
                "10.0.0.8/29",
                "10.0.0.16/28",
                "10.0.0.32/27",
                "10.0.0.128/25"
            ])
        );
        assert_eq!(
            left("0.0.0.0/0", &["128.0.0.0/1", "255.0.0.0/8"]),
            nets(&["0.0.0.0/1"])
        );
        assert_eq!(left("10.0.0.0/24", &["10.0.0.0/16"]), nets(&[]));
        assert_eq!(left("::/0", &["8000::/1"]), nets(&["::/1"]));
        assert_eq!(left("::/0", &["::/1"]), nets(&["8000::/1"]));
        // Networks may be written by any of their addresses.
        assert_eq!(
            left("10.0.0.9/24", &["10.0.0.200/25"]),
            nets(&["10.0.0.0/25"])
        );
        assert!(is_all(&union(nets(&["0.0.0.0/1", "128.0.0.0/1"]))));
    }
}
