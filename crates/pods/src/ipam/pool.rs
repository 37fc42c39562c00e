//! The addresses of one range.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::intervals::Intervals;
use super::{COOL_DOWN, IpamError, Seconds};
use crate::cni::Subnet;

/// Chooses addresses of one range: the next free one after the last given, so that an address
/// comes back as late as the range allows, and never before its rest is over.
#[derive(Clone, Debug)]
pub struct Pool {
    net: IpNet,
    /// First and last address for pods; `None` where the range is too small for any.
    span: Option<(u128, u128)>,
    /// Held or resting.
    taken: Intervals,
    /// Resting, in the order of release.
    resting: VecDeque<(Seconds, u128)>,
    used: u128,
    last: u128,
}

pub(super) fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

impl Pool {
    /// All addresses of a node's range but the network address, the gateway (the first) and
    /// the broadcast address.
    pub fn new(net: IpNet) -> Pool {
        let net = net.trunc();
        let first = bits(net.network()).checked_add(2);
        let last = match net {
            IpNet::V4(_) => bits(net.broadcast()).saturating_sub(1),
            IpNet::V6(_) => bits(net.broadcast()),
        };
        Pool {
            net,
            span: first
                .filter(|first| *first <= last)
                .map(|first| (first, last)),
            taken: Intervals::default(),
            resting: VecDeque::new(),
            used: 0,
            last: bits(net.network()),
        }
    }

    /// The range.
    pub fn net(&self) -> IpNet {
        self.net
    }

    /// The gateway: the range's first address.
    pub fn gateway(&self) -> IpAddr {
        self.ip(bits(self.net.network()).saturating_add(1))
    }

    /// Addresses for pods, and how many of them are held.
    pub fn counts(&self) -> (u128, u128) {
        let size = self
            .span
            .map_or(0, |(first, last)| (last - first).saturating_add(1));
        (size, self.used)
    }

    /// The next free address, out of `windows` where there are any.
    pub fn next(&mut self, windows: &[Subnet], now: Seconds) -> Result<IpAddr, IpamError> {
        self.rested(now);
        let Some((first, last)) = self.span else {
            return Err(IpamError::TooSmall(self.net));
        };
        let gap = if windows.is_empty() {
            self.gap(first, last)
        } else {
            windows.iter().find_map(|window| {
                self.gap(first.max(bits(window.first)), last.min(bits(window.last)))
            })
        };
        let Some(number) = gap else {
            return Err(self.exhausted(now));
        };
        self.last = number;
        self.take(number);
        Ok(self.ip(number))
    }

    fn gap(&self, first: u128, last: u128) -> Option<u128> {
        if first > last {
            return None;
        }
        let behind = if (first..last).contains(&self.last) {
            self.last + 1
        } else {
            first
        };
        self.taken
            .first_gap(behind, last)
            .or_else(|| self.taken.first_gap(first, behind))
    }

    /// Why `ip` cannot be given on request, other than by being held. A resting address can.
    pub fn may_request(&self, ip: IpAddr) -> Result<(), IpamError> {
        let role = if ip == self.gateway() {
            "gateway of this node"
        } else if ip == self.net.network() {
            "network address"
        } else if ip == self.net.broadcast() && matches!(self.net, IpNet::V4(_)) {
            "broadcast address"
        } else {
            return Ok(());
        };
        Err(IpamError::Reserved { ip, role })
    }

    /// Marks an address as held; it may be resting, and it may lie outside the range.
    pub fn hold(&mut self, ip: IpAddr) {
        let number = bits(ip);
        if let Some(at) = self
            .resting
            .iter()
            .position(|(_, resting)| *resting == number)
        {
            self.resting.remove(at);
            self.taken.remove(number);
        }
        self.last = number;
        self.take(number);
    }

    fn take(&mut self, number: u128) {
        if self.taken.insert(number) {
            self.used += 1;
        }
    }

    /// Takes an address back; it rests from `now` on.
    pub fn release(&mut self, ip: IpAddr, now: Seconds) {
        let number = bits(ip);
        let resting = self.resting.iter().any(|(_, resting)| *resting == number);
        if self.taken.contains(number) && !resting {
            self.used = self.used.saturating_sub(1);
            self.resting.push_back((now, number));
        }
    }

    /// Lets an address rest that is not held.
    pub fn rest(&mut self, ip: IpAddr, since: Seconds) {
        if self.taken.insert(bits(ip)) {
            self.resting.push_back((since, bits(ip)));
        }
    }

    /// Takes an address back that nobody ever had: it need not rest.
    pub fn undo(&mut self, ip: IpAddr) {
        if self.taken.remove(bits(ip)) {
            self.used = self.used.saturating_sub(1);
        }
    }

    /// Resting addresses with the time of their release.
    pub fn resting(&self) -> impl Iterator<Item = (IpAddr, Seconds)> + '_ {
        self.resting
            .iter()
            .map(|(since, number)| (self.ip(*number), *since))
    }

    fn rested(&mut self, now: Seconds) {
        // A clock set back must not keep addresses away for longer than one rest.
        while let Some(&(since, number)) = self.resting.front()
            && (now >= since.saturating_add(COOL_DOWN) || now < since)
        {
            self.resting.pop_front();
            self.taken.remove(number);
        }
    }

    fn exhausted(&self, now: Seconds) -> IpamError {
        let (size, used) = self.counts();
        IpamError::Exhausted {
            net: self.net,
            size,
            used,
            cooling: self.resting.len() as u128,
            next: self
                .resting
                .front()
                .map(|(since, _)| (since + COOL_DOWN).saturating_sub(now)),
        }
    }

    fn ip(&self, number: u128) -> IpAddr {
        match self.net {
            // The pool's numbers of an IPv4 range come from 32 bits.
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn pool(net: &str) -> Pool {
        Pool::new(net.parse().unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_come_in_order_and_return_last() {
        let mut pool = pool("10.244.1.0/29");
        let given: Vec<String> = (0..5)
            .map(|_| pool.next(&[], 0).unwrap().to_string())
            .collect();
        assert_eq!(
            given,
            [
                "10.244.1.2",
                "10.244.1.3",
                "10.244.1.4",
                "10.244.1.5",
                "10.244.1.6"
            ]
        );
        pool.release(ip("10.244.1.3"), 100);
        let error = pool.next(&[], 110).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no address left in 10.244.1.0/29: 4 of 5 in use, 1 resting (the next is free in 20 s)"
        );
        assert_eq!(pool.next(&[], 130).unwrap(), ip("10.244.1.3"));
        let error = pool.next(&[], 130).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "no address left in 10.244.1.0/29: 5 of 5 in use, 0 resting; delete pods"
            ),
            "{error}"
        );
    }

    #[test]
    fn small_ranges_say_so() {
        assert_eq!(pool("10.0.0.0/30").next(&[], 0), Ok(ip("10.0.0.2")));
        assert_eq!(
            pool("10.0.0.0/31").next(&[], 0),
            Err(IpamError::TooSmall("10.0.0.0/31".parse().unwrap()))
        );
        assert!(pool("255.255.255.255/32").next(&[], 0).is_err());
        assert!(
            pool("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128")
                .next(&[], 0)
                .is_err()
        );
        assert_eq!(
            pool("fd00:10:244:1::/64").next(&[], 0),
            Ok(ip("fd00:10:244:1::2"))
        );
        assert_eq!(pool("0.0.0.0/0").counts().0, (1 << 32) - 3);
    }

    proptest! {
        /// Against a model that knows every address by name.
        #[test]
        fn an_address_has_one_holder_and_its_rest(
            steps in prop::collection::vec((0u8..4, 0usize..20, 0u64..20), 1..300),
            length in 26u8..=30,
        ) {
            let mut pool = pool(&format!("10.244.1.0/{length}"));
            let mut held: Vec<IpAddr> = Vec::new();
            let mut released: BTreeMap<IpAddr, Seconds> = BTreeMap::new();
            let mut now = 1000;
            let (size, _) = pool.counts();
            for (action, which, passed) in steps {
                now += passed;
                if action > 0 {
                    let free = |held: &[IpAddr]| {
                        let rest = released.iter().filter(|(_, since)| now < **since + COOL_DOWN).count();
                        size as usize - held.len() - rest
                    };
                    match pool.next(&[], now) {
                        Ok(ip) => {
                            prop_assert!(!held.contains(&ip), "{ip} twice");
                            prop_assert!(pool.net().contains(&ip) && pool.may_request(ip).is_ok());
                            if let Some(since) = released.remove(&ip) {
                                prop_assert!(now >= since + COOL_DOWN, "{ip} too early");
                            }
                            held.push(ip);
                        }
                        Err(_) => prop_assert_eq!(free(&held), 0),
                    }
                } else if !held.is_empty() {
                    let ip = held.swap_remove(which % held.len());
                    pool.release(ip, now);
                    released.insert(ip, now);
                }
                prop_assert_eq!(pool.counts().1, held.len() as u128);
            }
        }
    }
}
