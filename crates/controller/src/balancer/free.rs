//! Which addresses of a pool are free, lowest first, without looking at the taken ones again and
//! again. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::pool::next;
use model::{AddressRange, Judged};

/// A pool with its free addresses.
#[derive(Clone, Debug)]
pub(super) struct Stock {
    /// The pool.
    pub judged: Judged,
    /// How many addresses are held.
    pub assigned: u128,
    fresh: [Fresh; 2],
}

/// Addresses of one family: those never given, from the lowest, and those given back.
#[derive(Clone, Debug, Default)]
struct Fresh {
    ranges: Vec<AddressRange>,
    /// All before this one were given once.
    range: usize,
    next: Option<IpAddr>,
    returned: BTreeSet<IpAddr>,
}

impl Fresh {
    fn new(usable: &[AddressRange], v6: bool) -> Self {
        let mut ranges: Vec<AddressRange> = usable
            .iter()
            .filter(|range| range.is_v6() == v6)
            .copied()
            .collect();
        ranges.sort();
        Self {
            next: ranges.first().map(|range| range.first),
            ranges,
            range: 0,
            returned: BTreeSet::new(),
        }
    }

    fn advance(&mut self) {
        let Some(at) = self.next else { return };
        let within = self.ranges.get(self.range);
        self.next = next(at).filter(|ip| within.is_some_and(|range| range.contains(*ip)));
        if self.next.is_none() {
            self.range += 1;
            self.next = self.ranges.get(self.range).map(|range| range.first);
        }
    }
}

impl Stock {
    pub(super) fn new(judged: Judged) -> Self {
        let fresh = [false, true].map(|v6| Fresh::new(&judged.usable, v6));
        Self {
            judged,
            assigned: 0,
            fresh,
        }
    }

    /// The lowest address of the family that is not `held`. It stays on offer until it is.
    pub(super) fn lowest(&mut self, v6: bool, held: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let fresh = &mut self.fresh[usize::from(v6)];
        while let Some(ip) = fresh.returned.first().copied() {
            if !held(ip) {
                return Some(ip);
            }
            fresh.returned.remove(&ip);
        }
        while let Some(ip) = fresh.next {
            if !held(ip) && self.judged.has(ip) {
                return Some(ip);
            }
            fresh.advance();
        }
        None
    }

    /// The address is held no more.
    pub(super) fn give_back(&mut self, ip: IpAddr) {
        let fresh = &mut self.fresh[usize::from(ip.is_ipv6())];
        // One that is still ahead is on offer anyway.
        if fresh.next.is_none_or(|next| ip < next) {
            fresh.returned.insert(ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::Pool;

    use super::*;

    #[test]
    fn addresses_come_lowest_first_and_come_back() {
        let pool = Pool {
            name: "a".into(),
            created: 0,
            addresses: vec![
                "10.0.2.0/31".parse().unwrap(),
                "10.0.1.254-10.0.1.255".parse().unwrap(),
            ],
            avoid_buggy: true,
            service_selector: None,
            namespace_selector: None,
            node_selector: None,
            auto_assign: true,
        };
        let judged = model::pool::judge([Arc::new(pool)], None, []).remove(0);
        let mut stock = Stock::new(judged);
        let mut held = BTreeSet::new();
        let mut take = |stock: &mut Stock| {
            let ip = stock.lowest(false, |ip| held.contains(&ip))?;
            held.insert(ip);
            Some(ip.to_string())
        };
        assert_eq!(take(&mut stock).as_deref(), Some("10.0.1.254"));
        assert_eq!(take(&mut stock).as_deref(), Some("10.0.2.1"));
        assert_eq!(take(&mut stock), None);
        held.remove(&"10.0.1.254".parse().unwrap());
        stock.give_back("10.0.1.254".parse().unwrap());
        let ip = stock.lowest(false, |ip| held.contains(&ip));
        assert_eq!(ip.unwrap().to_string(), "10.0.1.254");
        assert_eq!(stock.lowest(true, |_| false), None);
    }
}
