//! Every attachment of the node, and the pools their addresses come from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::pool::Pool;
use super::{Entry, IpamError, Seconds};
use crate::attachment::{Attachment, Key, PortMapping};
use crate::cni::Subnet;

/// What an ADD asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Requested addresses, at most one a family; other families get the next free one.
    pub ips: &'a [IpAddr],
    /// Pools to choose from, each for one address.
    pub ranges: &'a [Vec<Subnet>],
}

/// The node's attachments and pools. Pure: it says what to write down, the caller writes.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    attachments: BTreeMap<Key, Attachment>,
    holders: BTreeMap<IpAddr, Key>,
    pools: Vec<Pool>,
    /// Resting addresses of ranges the node no longer has, or does not have yet.
    resting: Vec<(IpAddr, Seconds)>,
    /// The attachment entered last: the next address comes after its addresses.
    newest: Option<Key>,
}

impl Ledger {
    /// The ledger a journal leads to.
    pub fn replay(entries: impl IntoIterator<Item = Entry>) -> Ledger {
        let mut ledger = Ledger::default();
        for entry in entries {
            match entry {
                Entry::Attach(attachment) => ledger.insert(*attachment),
                Entry::Detach { key, at } => {
                    ledger.detach(&key, at);
                }
                Entry::Resting { ip, since } => ledger.resting.push((ip, since)),
            }
        }
        ledger
    }

    /// The entries that lead to this ledger, for a compacted journal.
    pub fn snapshot(&self) -> Vec<Entry> {
        let resting = self
            .pools
            .iter()
            .flat_map(Pool::resting)
            .chain(self.resting.iter().copied());
        resting
            .map(|(ip, since)| Entry::Resting { ip, since })
            .chain(
                self.oldest_first()
                    .map(|a| Entry::Attach(Box::new(a.clone()))),
            )
            .collect()
    }

    /// All attachments, the newest last.
    fn oldest_first(&self) -> impl Iterator<Item = &Attachment> {
        let newest = self
            .newest
            .as_ref()
            .and_then(|key| self.attachments.get(key));
        let others = self
            .attachments
            .values()
            .filter(move |a| newest.is_none_or(|n| n.key != a.key));
        others.chain(newest)
    }

    /// Gives the node its ranges. Addresses held outside of them stay held.
    pub fn set_ranges(&mut self, ranges: &[IpNet]) {
        let last: Vec<IpNet> = self.pools.iter().map(Pool::net).collect();
        if last == ranges {
            return;
        }
        let mut resting = std::mem::take(&mut self.resting);
        resting.extend(self.pools.iter().flat_map(Pool::resting));
        resting.sort_by_key(|(_, since)| *since);
        let mut pools: Vec<Pool> = ranges.iter().map(|net| Pool::new(*net)).collect();
        for ip in self.oldest_first().flat_map(Attachment::ips) {
            if let Some(pool) = pool_of(&mut pools, ip) {
                pool.hold(ip);
            }
        }
        self.pools = pools;
        for (ip, since) in resting {
            match pool_of(&mut self.pools, ip) {
                Some(_) if self.holders.contains_key(&ip) => {}
                Some(pool) => pool.rest(ip, since),
                None => self.resting.push((ip, since)),
            }
        }
    }

    /// The node's pools, one a family.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// All attachments.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    /// One attachment.
    pub fn get(&self, key: &Key) -> Option<&Attachment> {
        self.attachments.get(key)
    }

    /// Who holds an address.
    pub fn holder(&self, ip: IpAddr) -> Option<&Attachment> {
        self.attachments.get(self.holders.get(&ip)?)
    }

    /// The attachment whose port on the node cannot be had together with `mapping`.
    pub fn port_clash(&self, mapping: &PortMapping, but: &Key) -> Option<&Attachment> {
        self.attachments
            .values()
            .find(|other| other.key != *but && other.ports.iter().any(|port| port.clashes(mapping)))
    }

    /// Takes addresses for an attachment, one a pool; nothing is held where it fails.
    pub fn choose(&mut self, wanted: Wanted<'_>, now: Seconds) -> Result<Vec<IpNet>, IpamError> {
        self.check_wanted(&wanted)?;
        let mut chosen: Vec<IpNet> = Vec::new();
        for at in 0..self.pools.len() {
            match self.choose_from(at, &wanted, now) {
                Ok(net) => chosen.push(net),
                Err(error) => {
                    self.undo(&chosen);
                    return Err(error);
                }
            }
        }
        Ok(chosen)
    }

    fn choose_from(
        &mut self,
        at: usize,
        wanted: &Wanted<'_>,
        now: Seconds,
    ) -> Result<IpNet, IpamError> {
        let pool = &mut self.pools[at];
        let net = pool.net();
        let ip = match wanted.ips.iter().find(|ip| net.contains(*ip)) {
            Some(ip) => {
                pool.hold(*ip);
                *ip
            }
            None => {
                let windows: Vec<Subnet> = wanted
                    .ranges
                    .iter()
                    .flatten()
                    .filter(|window| net.contains(&window.first))
                    .cloned()
                    .collect();
                pool.next(&windows, now)?
            }
        };
        Ok(with_prefix(ip, net))
    }

    fn check_wanted(&self, wanted: &Wanted<'_>) -> Result<(), IpamError> {
        if self.pools.is_empty() {
            return Err(IpamError::NoRange);
        }
        let outside = |what: String| IpamError::Outside {
            what,
            ranges: self.pools.iter().map(Pool::net).collect(),
        };
        for (at, ip) in wanted.ips.iter().enumerate() {
            let Some(pool) = self.pools.iter().find(|pool| pool.net().contains(ip)) else {
                return Err(outside(format!("address {ip}")));
            };
            pool.may_request(*ip)?;
            if let Some(holder) = self.holder(*ip) {
                return Err(IpamError::Taken {
                    ip: *ip,
                    holder: holder.holder(),
                });
            }
            if wanted.ips[..at]
                .iter()
                .any(|other| other.is_ipv4() == ip.is_ipv4())
            {
                return Err(IpamError::TwoOfAFamily(*ip));
            }
        }
        for window in wanted.ranges.iter().flatten() {
            let inside = |pool: &Pool| {
                pool.net().contains(&window.first) && pool.net().contains(&window.last)
            };
            if !self.pools.iter().any(inside) {
                return Err(outside(format!("range {}-{}", window.first, window.last)));
            }
        }
        Ok(())
    }

    /// Gives chosen addresses back that no pod ever had.
    pub fn undo(&mut self, chosen: &[IpNet]) {
        for net in chosen {
            if let Some(pool) = pool_of(&mut self.pools, net.addr()) {
                pool.undo(net.addr());
            }
        }
    }

    /// Enters an attachment whose addresses are chosen, or that is found to be there.
    ///
    /// An address that another attachment was said to hold is the new one's: in a journal the
    /// later line is the true one.
    pub fn insert(&mut self, attachment: Attachment) {
        if let Some(old) = self.attachments.remove(&attachment.key) {
            self.forget_addresses(&old);
        }
        for ip in attachment.ips() {
            if let Some(former) = self.holders.insert(ip, attachment.key.clone())
                && former != attachment.key
                && let Some(former) = self.attachments.remove(&former)
            {
                self.forget_addresses(&former);
            }
            self.resting.retain(|(resting, _)| *resting != ip);
            if let Some(pool) = pool_of(&mut self.pools, ip) {
                pool.hold(ip);
            }
        }
        self.newest = Some(attachment.key.clone());
        self.attachments.insert(attachment.key.clone(), attachment);
    }

    fn forget_addresses(&mut self, attachment: &Attachment) {
        for ip in attachment.ips() {
            if self.holders.get(&ip) == Some(&attachment.key) {
                self.holders.remove(&ip);
            }
        }
    }

    /// Takes an attachment out; its addresses rest from `now` on.
    pub fn detach(&mut self, key: &Key, now: Seconds) -> Option<Attachment> {
        let attachment = self.attachments.remove(key)?;
        self.forget_addresses(&attachment);
        for ip in attachment.ips() {
            match pool_of(&mut self.pools, ip) {
                Some(pool) => pool.release(ip, now),
                None => self.resting.push((ip, now)),
            }
        }
        Some(attachment)
    }
}

fn pool_of(pools: &mut [Pool], ip: IpAddr) -> Option<&mut Pool> {
    pools.iter_mut().find(|pool| pool.net().contains(&ip))
}

/// `ip` with the prefix length of its range.
fn with_prefix(ip: IpAddr, net: IpNet) -> IpNet {
    IpNet::new(ip, net.prefix_len()).unwrap_or(IpNet::from(ip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::config::PodMode;
    use proptest::prelude::*;

    fn key(n: u32) -> Key {
        Key {
            container: format!("c{n}"),
            ifname: "eth0".into(),
        }
    }

    fn attachment(n: u32, addresses: Vec<IpNet>) -> Attachment {
        Attachment {
            host_link: key(n).host_link(),
            key: key(n),
            network: "flatnet".into(),
            netns: String::new(),
            pod: crate::PodRef {
                namespace: "ns".into(),
                name: format!("p{n}"),
                uid: String::new(),
            },
            mode: PodMode::Routed,
            addresses,
            ports: Vec::new(),
            bandwidth: None,
            mac: None,
        }
    }

    fn ledger(ranges: &[&str]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.set_ranges(
            &ranges
                .iter()
                .map(|net| net.parse().unwrap())
                .collect::<Vec<_>>(),
        );
        ledger
    }

    fn add(ledger: &mut Ledger, n: u32, now: Seconds) -> Result<Vec<String>, String> {
        let chosen = ledger
            .choose(Wanted::default(), now)
            .map_err(|error| error.to_string())?;
        ledger.insert(attachment(n, chosen.clone()));
        Ok(chosen.iter().map(ToString::to_string).collect())
    }

    fn request(ledger: &mut Ledger, ip: &str) -> Result<Vec<IpNet>, String> {
        let ips = [ip.parse().unwrap()];
        ledger
            .choose(
                Wanted {
                    ips: &ips,
                    ranges: &[],
                },
                0,
            )
            .map_err(|error| error.to_string())
    }

    #[test]
    fn dual_stack_gives_one_a_family() {
        let mut ledger = ledger(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
        assert_eq!(
            add(&mut ledger, 1, 0).unwrap(),
            ["10.244.1.2/24", "fd00:10:244:1::2/64"]
        );
    }

    #[test]
    fn a_requested_address_is_given_or_refused_by_name() {
        let mut ledger = ledger(&["10.244.1.0/24"]);
        let chosen = request(&mut ledger, "10.244.1.77").unwrap();
        ledger.insert(attachment(1, chosen));
        let refused = |ledger: &mut Ledger, ip| request(ledger, ip).unwrap_err();
        assert_eq!(
            refused(&mut ledger, "10.244.1.77"),
            "requested address 10.244.1.77 is in use by pod ns/p1"
        );
        assert_eq!(
            refused(&mut ledger, "10.244.1.1"),
            "requested address 10.244.1.1 is the gateway of this node; choose another"
        );
        assert!(refused(&mut ledger, "10.244.1.0").contains("network address"));
        assert!(refused(&mut ledger, "10.244.1.255").contains("broadcast address"));
        assert_eq!(
            refused(&mut ledger, "10.244.2.5"),
            "requested address 10.244.2.5 is outside this node's range 10.244.1.0/24"
        );
        assert_eq!(add(&mut ledger, 2, 0).unwrap(), ["10.244.1.78/24"]);
    }

    #[test]
    fn a_refusal_holds_nothing() {
        let mut ledger = ledger(&["10.244.1.0/30", "fd00::/127"]);
        for _ in 0..3 {
            assert!(
                add(&mut ledger, 1, 0)
                    .unwrap_err()
                    .contains("fd00::/127 is too small")
            );
        }
        assert_eq!(ledger.pools()[0].counts(), (1, 0));
    }

    #[test]
    fn without_a_range_it_waits() {
        assert!(
            add(&mut Ledger::default(), 1, 0)
                .unwrap_err()
                .starts_with("the node has no pod CIDR yet")
        );
    }

    #[test]
    fn ranges_can_change_under_living_pods() {
        let mut ledger = ledger(&["10.244.1.0/24"]);
        add(&mut ledger, 1, 0).unwrap();
        ledger.set_ranges(&["10.244.9.0/24".parse().unwrap()]);
        assert_eq!(add(&mut ledger, 2, 0).unwrap(), ["10.244.9.2/24"]);
        ledger.detach(&key(1), 5);
        ledger.set_ranges(&["10.244.1.0/24".parse().unwrap()]);
        assert_eq!(
            add(&mut ledger, 3, 6).unwrap(),
            ["10.244.1.3/24"],
            "10.244.1.2 rests"
        );
    }

    proptest! {
        /// Whatever happened, the journal and its compaction lead to the same ledger, and no
        /// address has two holders.
        #[test]
        fn the_journal_leads_back(steps in prop::collection::vec((any::<bool>(), 0u32..12, 0u64..40), 0..120)) {
            let mut ledger = ledger(&["10.244.1.0/28"]);
            let mut entries = Vec::new();
            let mut now = 1000;
            for (attach, n, passed) in steps {
                now += passed;
                if attach && ledger.get(&key(n)).is_none() {
                    if let Ok(chosen) = ledger.choose(Wanted::default(), now) {
                        let made = attachment(n, chosen);
                        entries.push(Entry::Attach(Box::new(made.clone())));
                        ledger.insert(made);
                    }
                } else if ledger.detach(&key(n), now).is_some() {
                    entries.push(Entry::Detach { key: key(n), at: now });
                }
                let mut all: Vec<IpAddr> = ledger.attachments().flat_map(Attachment::ips).collect();
                let count = all.len();
                all.sort();
                all.dedup();
                prop_assert_eq!(all.len(), count);
                prop_assert_eq!(ledger.pools()[0].counts().1, count as u128);
            }
            for entries in [entries, ledger.snapshot()] {
                let mut again = Ledger::replay(entries);
                again.set_ranges(&["10.244.1.0/28".parse().unwrap()]);
                prop_assert_eq!(&again.attachments, &ledger.attachments);
                prop_assert_eq!(&again.holders, &ledger.holders);
                let free = |ledger: &Ledger| {
                    let mut ledger = ledger.clone();
                    let mut all = Vec::new();
                    while let Ok(chosen) = ledger.choose(Wanted::default(), now) {
                        all.push(chosen[0].addr());
                    }
                    all.sort();
                    all
                };
                prop_assert_eq!(free(&again), free(&ledger));
            }
        }
    }
}
