//! Which Service has which address. Pure: values in, values out; what a change costs depends on
//! the change, unless it is one of pools.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::{Judged, Key, Pool};

use super::ask::{Ask, Families};
use super::free::Stock;

/// What became of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The Service.
    pub key: Key,
    /// Its addresses, those of the primary family first, and the pool of each.
    pub addresses: Vec<(IpAddr, String)>,
    /// Those that it did not have before.
    pub gained: Vec<(IpAddr, String)>,
    /// Those that it has no more, and why.
    pub lost: Vec<(IpAddr, String)>,
    /// Why it does not have what it asks for.
    pub problem: Option<String>,
}

/// How much of a pool is given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Addresses that Services can have.
    pub capacity: u128,
    /// Addresses that Services have.
    pub assigned: u128,
}

type Age = (i64, Key);

/// Who has which address, and who waits for one.
#[derive(Clone, Debug, Default)]
pub struct Balancer {
    asks: BTreeMap<Key, Ask>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Oldest first.
    stocks: Vec<Stock>,
    /// In which order pools are tried.
    order: Vec<usize>,
    /// Some pool cannot be read: what is in none of the others may be in that one.
    unread: bool,
    given: BTreeMap<Key, Vec<IpAddr>>,
    held: BTreeMap<IpAddr, BTreeSet<Key>>,
    /// Addresses by the key they are shared with.
    shared: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Services that do not have all they ask for, oldest first.
    lacking: BTreeSet<Age>,
    dirty: BTreeSet<Age>,
    /// Addresses that somebody held and nobody does now.
    freed: BTreeSet<IpAddr>,
    /// Something else changed that may help those who lack.
    eased: bool,
}

impl Balancer {
    /// All pools, as judged beside each other; `unread` where there are others that cannot be
    /// read.
    pub fn set_pools(&mut self, judged: Vec<Judged>, unread: bool) {
        self.unread = unread;
        self.stocks = judged.into_iter().map(Stock::new).collect();
        let mut order: Vec<usize> = (0..self.stocks.len()).collect();
        // Pools made for some Services come before those for all.
        order.sort_by_key(|index| {
            let pool = &self.stocks[*index].judged.pool;
            let open = pool.service_selector.is_none() && pool.namespace_selector.is_none();
            (open, pool.name.clone())
        });
        self.order = order;
        self.held.clear();
        self.shared.clear();
        self.freed.clear();
        self.eased = true;
        self.dirty = self.asks.values().map(age).collect();
    }

    /// A namespace and its labels; None where it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        let same = self.namespaces.get(name) == labels.as_ref();
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
        let mut stocks = self.stocks.iter();
        if same || !stocks.any(|stock| stock.judged.pool.namespace_selector.is_some()) {
            return;
        }
        let asks = self.asks.range((name.to_owned(), String::new())..);
        let of_namespace: Vec<Key> = asks
            .map(|(key, _)| key.clone())
            .take_while(|key| key.0 == name)
            .collect();
        for key in of_namespace {
            self.release_all(&key);
            self.mark(&key);
        }
    }

    /// A Service is there, new or different.
    pub fn put(&mut self, ask: Ask) {
        let old = self.asks.get(&ask.key);
        // What its status shows counts only as long as nothing was decided here.
        let same = old.is_some_and(|old| {
            let had = old.had.clone();
            *old == Ask { had, ..ask.clone() }
        });
        if same {
            return;
        }
        let key = ask.key.clone();
        self.release_all(&key);
        if let Some(old) = self.asks.insert(key.clone(), ask) {
            let old = age(&old);
            self.dirty.remove(&old);
            self.lacking.remove(&old);
        }
        self.mark(&key);
    }

    /// A Service is gone, or wants no address any more.
    pub fn remove(&mut self, key: &Key) {
        self.release_all(key);
        self.given.remove(key);
        if let Some(old) = self.asks.remove(key) {
            self.dirty.remove(&age(&old));
            self.lacking.remove(&age(&old));
        }
    }

    /// Whether [`Balancer::settle`] has anything to do.
    pub fn is_settled(&self) -> bool {
        self.dirty.is_empty() && (self.lacking.is_empty() || !self.is_easier())
    }

    /// Gives addresses; what became of every Service that changed, oldest first.
    pub fn settle(&mut self) -> Vec<Outcome> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut outcomes: BTreeMap<Age, Outcome> = BTreeMap::new();
        // First all keep what they may, so that nobody new is given what another has.
        for age in &dirty {
            outcomes.insert(age.clone(), self.keep(&age.1));
        }
        self.freed.retain(|ip| !self.held.contains_key(ip));
        let mut tried = dirty.clone();
        if self.is_easier() {
            tried.extend(self.lacking.iter().cloned());
        }
        // What one gives up or shares may be what an older one lacks: again, until nobody moves.
        while !tried.is_empty() {
            self.pass(&tried, &dirty, &mut outcomes);
            tried.clear();
            if self.is_easier() {
                tried.extend(self.lacking.iter().cloned());
            }
        }
        self.eased = false;
        self.freed.clear();
        outcomes.into_values().collect()
    }

    /// Tries to give each what it lacks. Those who only wait are not tried any more once
    /// nothing is left that was not there before.
    fn pass(
        &mut self,
        tried: &BTreeSet<Age>,
        dirty: &BTreeSet<Age>,
        outcomes: &mut BTreeMap<Age, Outcome>,
    ) {
        let eased = std::mem::take(&mut self.eased);
        let mut offered = std::mem::take(&mut self.freed);
        for age in tried {
            let is_dirty = dirty.contains(age);
            if !is_dirty && !eased && offered.is_empty() && !self.is_easier() {
                continue;
            }
            let before = self.given.get(&age.1).cloned().unwrap_or_default();
            let problem = self.fill(&age.1);
            let after = self.given.get(&age.1).cloned().unwrap_or_default();
            offered.retain(|ip| !self.held.contains_key(ip));
            if !is_dirty && before == after {
                continue;
            }
            let outcome = outcomes.entry(age.clone()).or_default();
            outcome.key = age.1.clone();
            outcome.problem = problem;
            let lost = before.iter().filter(|ip| !after.contains(ip));
            let why = |ip: &IpAddr| (*ip, "it no longer fits what the Service asks for".into());
            outcome.lost.extend(lost.map(why));
            let gained = after.iter().filter(|ip| !before.contains(ip));
            let gained: Vec<_> = gained.map(|ip| (*ip, self.pool_of(*ip))).collect();
            outcome.gained.extend(gained);
            outcome.addresses = after.iter().map(|ip| (*ip, self.pool_of(*ip))).collect();
        }
    }

    /// What is given out of every pool.
    pub fn counts(&self) -> impl Iterator<Item = (&Judged, Count)> {
        self.stocks.iter().map(|stock| {
            let count = Count {
                capacity: stock.judged.capacity(),
                assigned: stock.assigned,
            };
            (&stock.judged, count)
        })
    }

    fn is_easier(&self) -> bool {
        self.eased || !self.freed.is_empty()
    }

    fn mark(&mut self, key: &Key) {
        if let Some(ask) = self.asks.get(key) {
            self.dirty.insert(age(ask));
        }
    }

    /// Holds on to what the Service has and may keep.
    fn keep(&mut self, key: &Key) -> Outcome {
        let mut outcome = Outcome {
            key: key.clone(),
            ..Outcome::default()
        };
        let Some(ask) = self.asks.get(key).cloned() else {
            return outcome;
        };
        let had = match self.given.remove(key) {
            Some(given) => given,
            None => ask.had.clone(),
        };
        let mut kept: Vec<IpAddr> = Vec::new();
        for ip in had {
            let verdict = if kept.iter().any(|other| other.is_ipv6() == ip.is_ipv6()) {
                Err("it is a second address of its family".to_owned())
            } else {
                self.may_keep(&ask, ip)
            };
            match verdict {
                Ok(()) => {
                    self.hold(&ask, ip);
                    kept.push(ip);
                }
                Err(why) => outcome.lost.push((ip, why)),
            }
        }
        self.given.insert(key.clone(), kept);
        outcome
    }

    fn may_keep(&self, ask: &Ask, ip: IpAddr) -> Result<(), String> {
        if !wanted(ask).contains(&ip.is_ipv6()) {
            return Err("the Service no longer asks for this family".to_owned());
        }
        if self.unread && !self.stocks.iter().any(|stock| stock.judged.has(ip)) {
            return Ok(());
        }
        self.may_have(ask, ip).map(|_| ())
    }

    /// Whether the Service may have the address, as far as pools and other Services go; the
    /// pool's index.
    fn may_have(&self, ask: &Ask, ip: IpAddr) -> Result<usize, String> {
        let index = self
            .stocks
            .iter()
            .position(|stock| stock.judged.has(ip))
            .ok_or_else(|| format!("{ip} is in no LoadBalancerPool"))?;
        let pool = &self.stocks[index].judged.pool;
        if let Some(asked) = ask.pool.as_ref().filter(|asked| **asked != pool.name) {
            return Err(format!(
                "{ip} is in LoadBalancerPool {}, and the Service asks for pool {asked}",
                pool.name
            ));
        }
        self.admits(pool, ask)
            .map_err(|why| format!("{ip} is in LoadBalancerPool {}: {why}", pool.name))?;
        for other in self.held.get(&ip).into_iter().flatten() {
            let other = self.asks.get(other).filter(|other| other.key != ask.key);
            if let Some(other) = other {
                can_share(ask, other).map_err(|why| {
                    format!(
                        "{ip} is held by Service {}/{}: {why}",
                        other.key.0, other.key.1
                    )
                })?;
            }
        }
        Ok(index)
    }

    fn admits(&self, pool: &Pool, ask: &Ask) -> Result<(), String> {
        if let Some(selector) = &pool.service_selector
            && !selector.matches(&ask.labels)
        {
            return Err("its serviceSelector does not match the Service's labels".to_owned());
        }
        if let Some(selector) = &pool.namespace_selector {
            let none = BTreeMap::new();
            let labels = self.namespaces.get(&ask.key.0).unwrap_or(&none);
            if !selector.matches(labels) {
                return Err(format!(
                    "its namespaceSelector does not match namespace {}",
                    ask.key.0
                ));
            }
        }
        Ok(())
    }

    /// Gives the Service what it still lacks; what stays lacking and why.
    fn fill(&mut self, key: &Key) -> Option<String> {
        let ask = self.asks.get(key)?.clone();
        let result = self.grant(&ask);
        let has = self.given.get(key).map_or(0, Vec::len);
        if ask.policy == Families::Require && has < wanted(&ask).len() {
            self.release_all(key);
            self.given.insert(key.clone(), Vec::new());
        }
        if matches!(result, Ok(true)) {
            self.lacking.remove(&age(&ask));
        } else {
            self.lacking.insert(age(&ask));
        }
        result.err()
    }

    /// True where the Service has all that it asks for; false where it has enough.
    fn grant(&mut self, ask: &Ask) -> Result<bool, String> {
        let wished = ask.wished.clone()?;
        if let Some(name) = &ask.pool
            && !self.stocks.iter().any(|s| s.judged.pool.name == *name)
        {
            return Err(format!(
                "the Service asks for LoadBalancerPool {name}, which does not exist; create it or remove the annotation"
            ));
        }
        let given = self.given.get(&ask.key).cloned().unwrap_or_default();
        self.check_wishes(ask, &wished, &given)?;
        let mut missing = Vec::new();
        let mut picked = Vec::new();
        for v6 in wanted(ask) {
            let mut there = given.iter().chain(&wished);
            if there.any(|ip| ip.is_ipv6() == v6) {
                continue;
            }
            match self.pick(ask, v6) {
                Some(ip) => picked.push(ip),
                None => missing.push(v6),
            }
        }
        // Nothing is taken by one who cannot have all that it needs: others may.
        if missing.is_empty() || ask.policy != Families::Require {
            self.take_wishes(ask, &wished, &given);
            for ip in picked {
                self.give(ask, ip);
            }
        }
        let Some(v6) = missing.first() else {
            return Ok(true);
        };
        let given = self.given.get(&ask.key).is_some_and(|g| !g.is_empty());
        if ask.policy == Families::Prefer && given {
            return Ok(false);
        }
        Err(self.why_none(ask, *v6))
    }

    /// Whether the Service may have all addresses that it asks for by name.
    fn check_wishes(&self, ask: &Ask, wished: &[IpAddr], given: &[IpAddr]) -> Result<(), String> {
        for ip in wished.iter().filter(|ip| !given.contains(ip)) {
            let families = wanted(ask);
            if !families.contains(&ip.is_ipv6()) {
                return Err(format!(
                    "the Service asks for {ip}, and spec.ipFamilies is {}",
                    families
                        .iter()
                        .map(|v6| family(*v6))
                        .collect::<Vec<_>>()
                        .join(", ")
                ));
            }
            let stock = self.may_have(ask, *ip)?;
            if let Some(conflict) = self.stocks[stock].judged.conflicts.first() {
                let name = &self.stocks[stock].judged.pool.name;
                return Err(format!(
                    "LoadBalancerPool {name} gives no new addresses: {conflict}"
                ));
            }
        }
        Ok(())
    }

    fn take_wishes(&mut self, ask: &Ask, wished: &[IpAddr], given: &[IpAddr]) {
        for ip in wished.iter().filter(|ip| !given.contains(ip)) {
            let old = given.iter().find(|old| old.is_ipv6() == ip.is_ipv6());
            if let Some(old) = old {
                self.release(ask, *old);
                if let Some(given) = self.given.get_mut(&ask.key) {
                    given.retain(|ip| ip != old);
                }
            }
            self.give(ask, *ip);
        }
    }

    /// An address of the family for a Service that does not care which.
    fn pick(&mut self, ask: &Ask, v6: bool) -> Option<IpAddr> {
        let shared = ask.sharing.as_ref().and_then(|key| self.shared.get(key));
        let shared = shared.into_iter().flatten().find(|ip| {
            let stock = self.may_have(ask, **ip);
            ip.is_ipv6() == v6 && stock.is_ok_and(|stock| self.offers(stock, ask).is_ok())
        });
        if let Some(ip) = shared {
            return Some(*ip);
        }
        for index in self.order.clone() {
            if self.offers(index, ask).is_ok() {
                let held = &self.held;
                let lowest = self.stocks[index].lowest(v6, |ip| held.contains_key(&ip));
                if lowest.is_some() {
                    return lowest;
                }
            }
        }
        None
    }

    /// Whether a Service that asks for no address by name may get one of this pool.
    fn offers(&self, index: usize, ask: &Ask) -> Result<(), String> {
        let judged = &self.stocks[index].judged;
        match &ask.pool {
            Some(name) if *name != judged.pool.name => {
                return Err(format!("the Service asks for {name}"));
            }
            None if !judged.pool.auto_assign => {
                return Err("autoAssign is false".to_owned());
            }
            _ => {}
        }
        self.admits(&judged.pool, ask)?;
        match judged.conflicts.first() {
            Some(conflict) => Err(conflict.clone()),
            None => Ok(()),
        }
    }

    /// Why the Service cannot have an address of this family.
    fn why_none(&self, ask: &Ask, v6: bool) -> String {
        let family = family(v6);
        if self.stocks.is_empty() {
            return "there is no LoadBalancerPool; create one with addresses of the nodes' LAN that nobody else uses".to_owned();
        }
        let mut full = Vec::new();
        let mut others = Vec::new();
        for index in &self.order {
            let stock = &self.stocks[*index];
            let name = &stock.judged.pool.name;
            match self.offers(*index, ask) {
                Err(why) => others.push(format!("{name}: {why}")),
                Ok(()) if !stock.judged.usable.iter().any(|r| r.is_v6() == v6) => {
                    others.push(format!("{name}: it has no {family} addresses"));
                }
                Ok(()) => full.push(format!("{name} ({} assigned)", stock.assigned)),
            }
        }
        if full.is_empty() {
            return format!(
                "no LoadBalancerPool offers the Service an {family} address: {}",
                others.join("; ")
            );
        }
        format!(
            "no {family} address is free in LoadBalancerPool {}; widen spec.addresses, delete a Service of type LoadBalancer, or let Services share one with the annotation flatnet.io/allow-shared-ip",
            full.join(", ")
        )
    }

    fn pool_of(&self, ip: IpAddr) -> String {
        let mut stocks = self.stocks.iter();
        let stock = stocks.find(|stock| stock.judged.has(ip));
        stock.map_or_else(String::new, |stock| stock.judged.pool.name.clone())
    }

    fn give(&mut self, ask: &Ask, ip: IpAddr) {
        self.hold(ask, ip);
        let given = self.given.entry(ask.key.clone()).or_default();
        given.push(ip);
        let place = |ip: &IpAddr| ask.families.iter().position(|v6| *v6 == ip.is_ipv6());
        given.sort_by_key(place);
    }

    fn hold(&mut self, ask: &Ask, ip: IpAddr) {
        let holders = self.held.entry(ip).or_default();
        if holders.is_empty()
            && let Some(stock) = self.stocks.iter_mut().find(|stock| stock.judged.has(ip))
        {
            stock.assigned += 1;
        }
        holders.insert(ask.key.clone());
        if let Some(key) = &ask.sharing {
            // Those of the same key who lack one can have this.
            self.eased = true;
            self.shared.entry(key.clone()).or_default().insert(ip);
        }
    }

    fn release(&mut self, ask: &Ask, ip: IpAddr) {
        let Some(holders) = self.held.get_mut(&ip) else {
            return;
        };
        if !holders.remove(&ask.key) {
            return;
        }
        if !holders.is_empty() {
            // Those who stay may now share with others.
            self.eased = true;
            return;
        }
        self.held.remove(&ip);
        self.freed.insert(ip);
        if let Some(stock) = self.stocks.iter_mut().find(|stock| stock.judged.has(ip)) {
            stock.assigned -= 1;
            stock.give_back(ip);
        }
        if let Some(key) = &ask.sharing
            && let Some(ips) = self.shared.get_mut(key)
        {
            ips.remove(&ip);
            if ips.is_empty() {
                self.shared.remove(key);
            }
        }
    }

    /// Lets go of all that the Service holds; what it was given stays known.
    fn release_all(&mut self, key: &Key) {
        let Some(ask) = self.asks.get(key).cloned() else {
            return;
        };
        for ip in self.given.get(key).cloned().unwrap_or_default() {
            self.release(&ask, ip);
        }
    }
}

fn age(ask: &Ask) -> Age {
    (ask.created, ask.key.clone())
}

/// Families the Service wants addresses of, true for IPv6.
fn wanted(ask: &Ask) -> Vec<bool> {
    let most = match ask.policy {
        Families::One => 1,
        Families::Prefer | Families::Require => 2,
    };
    ask.families.iter().take(most).copied().collect()
}

fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

/// Whether two Services may have the same address, as in MetalLB.
fn can_share(ask: &Ask, other: &Ask) -> Result<(), String> {
    if ask.sharing.is_none() || ask.sharing != other.sharing {
        return Err(
            "to share it, both need the annotation flatnet.io/allow-shared-ip with the same value"
                .to_owned(),
        );
    }
    if ask.backend != other.backend {
        return Err("to share it, both need externalTrafficPolicy Cluster, or Local with the same selector in one namespace".to_owned());
    }
    match ask.ports.intersection(&other.ports).next() {
        Some((protocol, port)) => Err(format!("both have port {port}/{protocol}")),
        None => Ok(()),
    }
}
