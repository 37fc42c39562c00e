//! What ports share, and how many of them need it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use nft::Value;

use super::chain::ChainId;
use super::port;
use super::set::{Kind, SetId};
use crate::plan::{PortPlan, Settings};

/// How often each is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uses<K>(BTreeMap<K, u32>);

impl<K> Default for Uses<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Uses<K> {
    fn add(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    fn remove(&mut self, key: &K) {
        if let Some(uses) = self.0.get_mut(key) {
            *uses -= 1;
            if *uses == 0 {
                self.0.remove(key);
            }
        }
    }

    /// One more or one less; what is seen for the first time since `was` was empty is noted there.
    fn count(&mut self, key: K, more: bool, was: &mut BTreeMap<K, bool>) {
        let used = self.0.contains_key(&key);
        was.entry(key.clone()).or_insert(used);
        if more {
            self.add(key);
        } else {
            self.remove(&key);
        }
    }

    /// What is used now and was not, and what was and is not.
    fn since(&self, was: BTreeMap<K, bool>) -> Differences<K> {
        let mut differences = Differences {
            new: Vec::new(),
            gone: Vec::new(),
        };
        for (key, was) in was {
            match (was, self.0.contains_key(&key)) {
                (false, true) => differences.new.push(key),
                (true, false) => differences.gone.push(key),
                _ => {}
            }
        }
        differences
    }
}

/// What came and what went.
#[derive(Debug)]
pub(super) struct Differences<K> {
    pub new: Vec<K>,
    pub gone: Vec<K>,
}

/// How many ports need what they share. That, and the plan, is all that is remembered of what is
/// in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rendered {
    chains: Uses<ChainId>,
    sets: Uses<SetId>,
    cluster_ips: Uses<IpAddr>,
    hairpins: Uses<IpAddr>,
}

/// What a change of ports does to what they share.
#[derive(Debug)]
pub(super) struct SharedChange {
    pub chains: Differences<ChainId>,
    pub sets: Differences<SetId>,
    pub elements: Differences<(SetId, Vec<Value>)>,
}

/// What was used before a change.
#[derive(Default)]
struct Before {
    chains: BTreeMap<ChainId, bool>,
    sets: BTreeMap<SetId, bool>,
    cluster_ips: BTreeMap<IpAddr, bool>,
    hairpins: BTreeMap<IpAddr, bool>,
}

impl Rendered {
    /// What ports need.
    pub fn of<'a>(settings: &Settings, ports: impl Iterator<Item = &'a Arc<PortPlan>>) -> Self {
        let mut rendered = Self::default();
        for set in [false, true].into_iter().flat_map(SetId::always) {
            rendered.sets.add(set);
        }
        for port in ports {
            rendered.count(settings, port, true, &mut Before::default());
        }
        rendered
    }

    pub(super) fn chains(&self) -> impl Iterator<Item = &ChainId> {
        self.chains.0.keys()
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = &SetId> {
        self.sets.0.keys()
    }

    /// Whether a set is there.
    pub fn has(&self, set: SetId) -> bool {
        self.sets.0.contains_key(&set)
    }

    /// The elements that ports share.
    pub(super) fn elements(&self) -> impl Iterator<Item = (SetId, Vec<Value>)> {
        let cluster_ips = self.cluster_ips.0.keys().copied().map(cluster_ip);
        cluster_ips.chain(self.hairpins.0.keys().copied().map(hairpin))
    }

    /// Ports change: first those that are, then those that were, so that nothing that stays is
    /// given up.
    pub(super) fn change<'a>(
        &mut self,
        settings: &Settings,
        are: impl Iterator<Item = &'a Arc<PortPlan>>,
        were: impl Iterator<Item = &'a Arc<PortPlan>>,
    ) -> SharedChange {
        let mut before = Before::default();
        for port in are {
            self.count(settings, port, true, &mut before);
        }
        for port in were {
            self.count(settings, port, false, &mut before);
        }
        let ips = self.cluster_ips.since(before.cluster_ips);
        let pins = self.hairpins.since(before.hairpins);
        let elements = |ips: Vec<IpAddr>, pins: Vec<IpAddr>| {
            let ips = ips.into_iter().map(cluster_ip);
            ips.chain(pins.into_iter().map(hairpin)).collect()
        };
        SharedChange {
            chains: self.chains.since(before.chains),
            sets: self.sets.since(before.sets),
            elements: Differences {
                new: elements(ips.new, pins.new),
                gone: elements(ips.gone, pins.gone),
            },
        }
    }

    fn count(&mut self, settings: &Settings, port: &PortPlan, more: bool, before: &mut Before) {
        let shared = port::shared(settings, port);
        for chain in shared.chains {
            self.chains.count(chain, more, &mut before.chains);
        }
        for set in shared.sets {
            self.sets.count(set, more, &mut before.sets);
        }
        for ip in shared.hairpins {
            self.hairpins.count(ip, more, &mut before.hairpins);
        }
        let ips = &mut before.cluster_ips;
        self.cluster_ips.count(port.cluster_ip, more, ips);
    }
}

fn cluster_ip(ip: IpAddr) -> (SetId, Vec<Value>) {
    (Kind::ClusterIps.of(ip.is_ipv6()), vec![ip.into()])
}

fn hairpin(ip: IpAddr) -> (SetId, Vec<Value>) {
    (Kind::Hairpin.of(ip.is_ipv6()), vec![ip.into(), ip.into()])
}
