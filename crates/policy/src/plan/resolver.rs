//! Which pods may not ask their own node's server for names: it answers in the place of the DNS
//! Service's endpoints, so who is let out to none of them may not ask it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::{Changed, Cluster, Key, Protocol};

use super::OPEN;
use super::judge::Targets;
use super::list::{List, ListId, PortTest, Target};
use super::set::{Element, Set, What};
use super::sets::Sets;
use super::update::Delta;

/// The port.
pub const PORT: u16 = 53;
/// How names are asked for.
pub const PROTOCOLS: [Protocol; 2] = [Protocol::Udp, Protocol::Tcp];

/// By which of [`PROTOCOLS`] an address may not ask.
pub type Mute = [bool; 2];

/// Of a pod that may ask.
const MAY: Mute = [false, false];

/// Where a node's own server answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeDns {
    /// All of them.
    pub asked: Vec<IpAddr>,
    /// The DNS Service's, at most one a family.
    pub services: Vec<IpAddr>,
}

impl NodeDns {
    /// Of a configuration.
    pub fn of(config: &model::Config) -> Self {
        let asked = config.node_dns();
        let mut services: Vec<IpAddr> = Vec::new();
        for ip in asked.iter().filter_map(|ip| config.dns_service_of(*ip)) {
            if !services.iter().any(|other| other.is_ipv6() == ip.is_ipv6()) {
                services.push(ip);
            }
        }
        Self { asked, services }
    }
}

/// What leads to the DNS Service in one family, by protocol.
type Endpoints = [BTreeSet<(IpAddr, u16)>; 2];

/// The node's own server, as policies see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolver {
    addresses: NodeDns,
    /// The Services that have the addresses.
    services: BTreeMap<IpAddr, Key>,
    endpoints: BTreeMap<IpAddr, Endpoints>,
    /// Those who may not ask.
    mute: BTreeMap<IpAddr, Mute>,
    /// All of it is to be looked at anew.
    stale: bool,
}

impl Resolver {
    /// From the next update on it answers at these addresses; true where that is news.
    pub fn set(&mut self, addresses: NodeDns) -> bool {
        let news = self.addresses != addresses;
        if news {
            self.addresses = addresses;
            self.stale = true;
        }
        news
    }

    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses.asked
    }

    pub fn mute(&self) -> &BTreeMap<IpAddr, Mute> {
        &self.mute
    }

    /// Whether a change of a Service, or of its endpoints, may change who may ask.
    pub fn is_asked(&self, cluster: &Cluster, service: &Key) -> bool {
        let has = |service: &std::sync::Arc<model::Service>| {
            let mut own = service.cluster_ips.iter();
            own.any(|ip| self.addresses.services.contains(ip))
        };
        self.services.values().any(|own| own == service)
            || cluster.services.get(service).is_some_and(has)
    }

    /// Follows what changed of the rest of the plan.
    pub fn update(
        &mut self,
        cluster: &Cluster,
        changed: &Changed,
        subjects: &BTreeMap<IpAddr, Targets>,
        sets: &Sets,
        delta: &mut Delta,
    ) {
        let mut all = self.refresh(cluster, changed);
        all |= delta.moved.values().any(|moved| {
            let mut elements = moved.new.iter().chain(&moved.gone);
            elements.any(|element| element.ip().is_some_and(|ip| self.leads_to(ip)))
        });
        let ips: Vec<IpAddr> = match all {
            true => subjects.keys().chain(self.mute.keys()).copied().collect(),
            false => delta.subjects.keys().copied().collect(),
        };
        let mut known = BTreeMap::new();
        for ip in ips {
            let targets = subjects.get(&ip).unwrap_or(&OPEN);
            let is = self.judge(ip, targets, sets, &mut known);
            let was = self.mute.get(&ip).copied().unwrap_or(MAY);
            if was != is {
                delta.mute.insert(ip, (was, is));
            }
            match is {
                MAY => self.mute.remove(&ip),
                is => self.mute.insert(ip, is),
            };
        }
    }

    /// Looks at the Service and its endpoints, where they may have changed; true where they did.
    fn refresh(&mut self, cluster: &Cluster, changed: &Changed) -> bool {
        let stale = std::mem::take(&mut self.stale);
        let mut touched = changed.services.iter();
        if !stale && !touched.any(|key| self.is_asked(cluster, key)) {
            return false;
        }
        self.services.clear();
        let mut endpoints = BTreeMap::new();
        for ip in &self.addresses.services {
            let service = cluster.service_at(*ip);
            self.services
                .extend(service.map(|service| (*ip, service.key())));
            let of = |protocol| match service {
                Some(service) => cluster.ready_endpoints(service, (protocol, PORT), ip.is_ipv6()),
                None => BTreeSet::new(),
            };
            endpoints.insert(*ip, PROTOCOLS.map(of));
        }
        let news = stale || self.endpoints != endpoints;
        self.endpoints = endpoints;
        news
    }

    fn leads_to(&self, ip: IpAddr) -> bool {
        let mut all = self.endpoints.values().flatten().flatten();
        all.any(|(endpoint, _)| *endpoint == ip)
    }

    /// By which protocols an address may not ask.
    fn judge(
        &self,
        ip: IpAddr,
        targets: &Targets,
        sets: &Sets,
        known: &mut BTreeMap<ListId, Mute>,
    ) -> Mute {
        let mut family = self.endpoints.iter();
        let Some((service, endpoints)) = family.find(|(at, _)| at.is_ipv6() == ip.is_ipv6()) else {
            return MAY;
        };
        let [egress, _] = targets;
        let mute = match egress {
            Target::Allowed => return MAY,
            Target::Denied => [true, true],
            Target::List(list) => *known.entry(list.id()).or_insert_with(|| {
                [0, 1].map(|at| !lets_ask(list, PROTOCOLS[at], *service, &endpoints[at], sets))
            }),
        };
        // A pod may always talk to itself.
        let own = endpoints
            .each_ref()
            .map(|all| all.iter().any(|(at, _)| *at == ip));
        [mute[0] && !own[0], mute[1] && !own[1]]
    }
}

/// Whether a list lets out to any endpoint, or, without one, to the Service's own address.
fn lets_ask(
    list: &List,
    protocol: Protocol,
    service: IpAddr,
    endpoints: &BTreeSet<(IpAddr, u16)>,
    sets: &Sets,
) -> bool {
    if endpoints.is_empty() {
        return lets(list, service, protocol, PORT, sets);
    }
    let mut all = endpoints.iter();
    all.any(|(ip, port)| lets(list, *ip, protocol, *port, sets))
}

/// What the list's rules in the kernel say of a connection.
fn lets(list: &List, ip: IpAddr, protocol: Protocol, port: u16, sets: &Sets) -> bool {
    let first = list.rules.iter().find(|rule| {
        let ports = match &rule.matches.ports {
            PortTest::All => true,
            PortTest::Numbers(ports) => ports
                .ranges()
                .iter()
                .any(|range| range.protocol == protocol && (range.from..=range.to).contains(&port)),
            PortTest::Named(set) => has(sets, set, &Element::IpPort(ip, protocol, port)),
        };
        let peer = rule.matches.peer.as_ref();
        ports && peer.is_none_or(|set| holds(sets, set, ip))
    });
    match first.map_or(&list.end, |rule| &rule.target) {
        Target::Allowed => true,
        Target::Denied => false,
        Target::List(other) => lets(other, ip, protocol, port, sets),
    }
}

fn holds(sets: &Sets, set: &Set, ip: IpAddr) -> bool {
    match &set.what {
        What::Blocks(nets) => nets.iter().any(|net| net.contains(&ip)),
        _ => has(sets, set, &Element::Ip(ip)),
    }
}

fn has(sets: &Sets, set: &Set, element: &Element) -> bool {
    let live = sets.live().get(&set.id());
    live.is_some_and(|live| live.elements.binary_search(element).is_ok())
}
