//! What ports share, and how many of them need it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use nft::Value;

use super::chain::{ChainId, Pick};
use super::port;
use super::set::{Kind, SetId};
use crate::plan::{PortPlan, Settings};

/// Chains for more endpoints than this are there only while they are used.
const MOST_AHEAD: u32 = 64;

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

    pub(super) fn chains(&self) -> impl Iterator<Item = ChainId> {
        present(self.chains.0.keys()).into_iter()
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
            chains: self.chains_since(before.chains),
            sets: self.sets.since(before.sets),
            elements: Differences {
                new: elements(ips.new, pins.new),
                gone: elements(ips.gone, pins.gone),
            },
        }
    }

    fn chains_since(&self, before: BTreeMap<ChainId, bool>) -> Differences<ChainId> {
        let used = self.chains.since(before);
        if used.new.is_empty() && used.gone.is_empty() {
            return used;
        }
        let are = self.chains.0.keys();
        let were = are.clone().filter(|chain| !used.new.contains(chain));
        let were = present(were.chain(&used.gone));
        let are = present(are);
        Differences {
            new: are.difference(&were).cloned().collect(),
            gone: were.difference(&are).cloned().collect(),
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

/// The chains that are there for those that are used. A new rule has the kernel walk all elements
/// of the map it names; so that a Service that gets one endpoint more finds its chain mostly,
/// there are chains for all numbers up to the next power of two.
fn present<'a>(used: impl Iterator<Item = &'a ChainId>) -> BTreeSet<ChainId> {
    let mut present = BTreeSet::new();
    let mut most: BTreeMap<Pick, u32> = BTreeMap::new();
    for chain in used {
        match chain {
            ChainId::Pick(pick) if pick.count <= MOST_AHEAD => {
                let most = most.entry(pick.of(0)).or_default();
                *most = pick.count.max(*most);
            }
            other => {
                present.insert(other.clone());
            }
        }
    }
    for (pick, most) in most {
        let upto = match most {
            1 => 1,
            most => most.next_power_of_two().max(4),
        };
        present.extend((1..=upto).map(|count| ChainId::Pick(pick.of(count))));
    }
    present
}

fn cluster_ip(ip: IpAddr) -> (SetId, Vec<Value>) {
    (Kind::ClusterIps.of(ip.is_ipv6()), vec![ip.into()])
}

fn hairpin(ip: IpAddr) -> (SetId, Vec<Value>) {
    (Kind::Hairpin.of(ip.is_ipv6()), vec![ip.into(), ip.into()])
}
