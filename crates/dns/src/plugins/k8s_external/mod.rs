//! `k8s_external`: Services by the addresses that lead in from outside.

mod transfer;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use model::Service;
use smallvec::SmallVec;

use crate::corefile::plugins::K8sExternal;
use crate::plan::{Address, ServiceNames, View, Whose, is_headless};
use crate::plugins::kubernetes::{Found, Kubernetes, Lookup, Section, Seen, Servers, stripped};
use crate::query::Answer;
use crate::wire::{Data, Name, Question, Rcode, Record, Soa, Type};

/// The plugin's name, as the Corefile has it.
const NAME: &str = "k8s_external";

/// The plugin, ready to answer.
#[derive(Clone, Debug)]
pub struct External {
    options: K8sExternal,
    /// The labels under which a zone's own names are.
    apex: Name,
}

/// One name that is looked up in one zone.
#[derive(Clone, Copy)]
struct Search<'a> {
    plugin: &'a External,
    kubernetes: &'a Kubernetes,
    view: &'a View,
    /// As configured.
    zone: &'a Name,
}

/// What a Service is reached by from outside.
#[derive(Clone, Copy)]
enum Host<'a> {
    Address(IpAddr),
    Name(&'a str),
    /// An endpoint, where there is no other way in.
    Endpoint(Address<'a>),
}

/// A way in, and the port there; none where no port is known.
type WayIn<'a> = (Host<'a>, Option<u16>);

/// Name, protocol and number of a port.
type Port<'a> = (&'a str, &'a str, Option<u16>);

impl External {
    /// Of its options.
    ///
    /// # Errors
    /// The apex is no name.
    pub fn new(options: &K8sExternal) -> Result<Self, String> {
        let apex = options.apex.parse();
        let apex = apex.map_err(|error| format!("apex {:?}: {error}", options.apex))?;
        Ok(Self {
            options: options.clone(),
            apex,
        })
    }

    /// What is known about a question; nothing where another plugin is to be asked. Namespaces and
    /// labels are those of the plugin `kubernetes`.
    pub fn answer(
        &self,
        kubernetes: &Kubernetes,
        view: Option<&View>,
        question: &Question,
    ) -> Option<Found> {
        let zones = self.options.zones.iter();
        let zones = zones.filter(|zone| question.name.is_within(zone));
        let zone = zones.max_by_key(|zone| zone.as_bytes().len())?;
        let Some(view) = view else {
            return Some(self.without_records(zone, 0, Rcode::SERVFAIL).into());
        };
        let search = Search {
            plugin: self,
            kubernetes,
            view,
            zone,
        };
        if question.name == *zone {
            return Some(search.apex(question).into());
        }
        if let Some(own) = self
            .apex
            .join(zone)
            .ok()
            .filter(|own| question.name.is_within(own))
        {
            return Some(search.own(question, &own).into());
        }
        let found = search.answer(question);
        let through = &self.options.fallthrough;
        if found.answer.rcode == Rcode::NXDOMAIN
            && through.iter().any(|zone| question.name.is_within(zone))
        {
            return None;
        }
        Some(found)
    }

    fn soa(&self, zone: &Name, serial: u32) -> Record {
        let below = |label: &[u8]| {
            let name = self.apex.join(zone).and_then(|own| own.child(label));
            name.unwrap_or_else(|_| zone.clone())
        };
        let soa = Soa {
            primary: below(b"ns1"),
            mailbox: below(b"hostmaster"),
            serial,
            refresh: 7200,
            retry: 1800,
            expire: 86_400,
            minimum: self.options.ttl,
        };
        Record::new(zone.clone(), self.options.ttl, Data::Soa(Box::new(soa)))
    }

    fn without_records(&self, zone: &Name, serial: u32, rcode: Rcode) -> Answer {
        Answer {
            rcode,
            authoritative: true,
            authorities: vec![self.soa(zone, serial)],
            live: true,
            by: NAME,
            ..Answer::default()
        }
    }
}

impl<'a> Search<'a> {
    fn soa(self) -> Record {
        let serial = self.view.names.external_serial();
        self.plugin.soa(self.zone, serial)
    }

    fn negative(self, rcode: Rcode) -> Answer {
        let serial = self.view.names.external_serial();
        self.plugin.without_records(self.zone, serial, rcode)
    }

    /// These answers, or that there are none.
    fn positive(self, answers: Vec<Record>, additionals: Vec<Record>) -> Answer {
        if answers.is_empty() {
            return self.negative(Rcode::NOERROR);
        }
        Answer {
            authoritative: true,
            answers,
            additionals,
            live: true,
            by: NAME,
            ..Answer::default()
        }
    }

    fn record(self, name: Name, data: Data) -> Record {
        Record::new(name, self.plugin.options.ttl, data)
    }

    /// The name of the zone's server.
    fn server(self) -> Option<Name> {
        let own = self.plugin.apex.join(self.zone).ok()?;
        own.child(b"ns1").ok()
    }

    /// The zone itself.
    fn apex(self, question: &Question) -> Answer {
        match (question.kind, self.server()) {
            (Type::SOA, _) => self.positive(vec![self.soa()], Vec::new()),
            (Type::NS, Some(server)) => {
                let ns = self.record(self.zone.clone(), Data::Ns(server.clone()));
                let ips = self
                    .kubernetes
                    .outside_addresses(self.view, self.plugin.options.headless);
                let ips = ips.into_iter();
                let addresses = ips.map(|ip| self.record(server.clone(), Data::address(ip)));
                self.positive(vec![ns], addresses.collect())
            }
            _ => self.negative(Rcode::NOERROR),
        }
    }

    /// Names of the zone's own: those of its server.
    fn own(self, question: &Question, own: &Name) -> Answer {
        let labels: SmallVec<[&[u8]; 2]> = match question.name.below(own) {
            Some(labels) => labels.collect(),
            None => return self.negative(Rcode::NXDOMAIN),
        };
        match labels.as_slice() {
            [] => self.negative(Rcode::NOERROR),
            [label] if label.eq_ignore_ascii_case(b"ns1") => {
                let ips = self
                    .kubernetes
                    .outside_addresses(self.view, self.plugin.options.headless);
                let records = ips.into_iter().map(Data::address);
                let records = records.filter(|data| data.kind() == question.kind);
                let records = records.map(|data| self.record(question.name.clone(), data));
                self.positive(records.collect(), Vec::new())
            }
            _ => self.negative(Rcode::NXDOMAIN),
        }
    }

    fn answer(self, question: &Question) -> Found {
        if let Some(ip) = question.name.address() {
            let names = self.names_of(ip.to_canonical());
            if names.is_empty() {
                return self.negative(Rcode::NXDOMAIN).into();
            }
            let records = names.into_iter().filter(|_| question.kind == Type::PTR);
            let records = records.map(|name| self.record(question.name.clone(), Data::Ptr(name)));
            return self.positive(records.collect(), Vec::new()).into();
        }
        let (service, ways) = match self.ways_in(&question.name) {
            Ok(Some(found)) => found,
            Ok(None) => return self.negative(Rcode::NOERROR).into(),
            Err(rcode) => return self.negative(rcode).into(),
        };
        match question.kind {
            Type::A | Type::AAAA => {
                let (answers, lookups) = self.addresses(&question.name, question.kind, &ways);
                let answer = self.positive(answers, Vec::new());
                Found { answer, lookups }
            }
            Type::SRV => {
                let (answers, additionals, lookups) = self.servers(&question.name, service, &ways);
                let answer = self.positive(answers, additionals);
                Found { answer, lookups }
            }
            _ => self.negative(Rcode::NOERROR).into(),
        }
    }

    /// The Services that an address from outside leads to.
    fn names_of(self, ip: IpAddr) -> Vec<Name> {
        let Some(zone) = self.plugin.options.zones.first() else {
            return Vec::new();
        };
        let owners = self.view.names.owners(Whose::External, ip);
        let services = owners.filter_map(|entry| self.kubernetes.service(entry));
        let exposed = services.filter(|service| {
            self.kubernetes
                .exposes_address(&self.view.names, &service.namespace)
        });
        exposed
            .filter_map(|service| below(None, service, zone))
            .collect()
    }

    /// What a name leads to; nothing where it is there without leading anywhere.
    fn ways_in(self, name: &'a Name) -> Result<Option<(&'a Service, Vec<WayIn<'a>>)>, Rcode> {
        let none = Rcode::NXDOMAIN;
        let labels: SmallVec<[&[u8]; 8]> = name.below(self.zone).ok_or(none)?.collect();
        let (namespace, rest) = labels.split_last().ok_or(none)?;
        if !self
            .kubernetes
            .exposes(&self.view.names, &namespace.to_ascii_lowercase())
        {
            return Err(none);
        }
        let Some((service, front)) = rest.split_last() else {
            return Ok(None);
        };
        let (endpoint, port, protocol): (Option<&[u8]>, &[u8], &[u8]) = match front {
            [] => (None, b"", b""),
            [endpoint] => (Some(stripped(endpoint)), b"", b""),
            [port, protocol] => (None, stripped(port), stripped(protocol)),
            _ => return Err(none),
        };
        let mut key = SmallVec::<[u8; 128]>::new();
        for label in [service, namespace] {
            key.push(label.len() as u8);
            key.extend_from_slice(label);
        }
        key.make_ascii_lowercase();
        let entry = self.view.names.service_at(&key).ok_or(none)?;
        let service = self.kubernetes.service(entry).ok_or(none)?;
        let mut ways = self.all_ways_in(entry, service, endpoint);
        ways.retain(|(_, (name, word, _))| {
            let is = |wanted: &[u8], has: &str| {
                wanted.is_empty() || has.as_bytes().eq_ignore_ascii_case(wanted)
            };
            is(port, name) && is(protocol, word)
        });
        if ways.is_empty() {
            return Err(none);
        }
        let ways = ways.into_iter().map(|(host, (_, _, port))| (host, port));
        Ok(Some((service, ways.collect())))
    }

    /// All ways into a Service, each with name, protocol and number of a port. What has no port
    /// is there all the same.
    fn all_ways_in(
        self,
        entry: &'a ServiceNames,
        service: &'a Service,
        endpoint: Option<&[u8]>,
    ) -> Vec<(Host<'a>, Port<'a>)> {
        let hosts = hosts(service);
        let inside = is_headless(service) || endpoint.is_some();
        let mut all = Vec::new();
        if self.plugin.options.headless && hosts.is_empty() && inside {
            for address in self.kubernetes.addresses_of(entry, endpoint) {
                let ports = address.slice.ports.iter();
                let ports = ports.map(|one| (one.name.as_str(), one.protocol.word(), one.port));
                let host = Host::Endpoint(address);
                all.extend(or_one(ports).into_iter().map(|port| (host, port)));
            }
            return all;
        }
        for host in hosts {
            let ports = service.ports.iter();
            let ports = ports.map(|one| (one.name.as_str(), one.protocol.word(), Some(one.port)));
            all.extend(or_one(ports).into_iter().map(|port| (host, port)));
        }
        all
    }

    fn addresses(self, name: &Name, kind: Type, ways: &[WayIn<'_>]) -> (Vec<Record>, Vec<Lookup>) {
        let mut seen = Seen::default();
        let (mut records, mut lookups): (Vec<Record>, Vec<Lookup>) = (Vec::new(), Vec::new());
        for (host, _) in ways {
            match host {
                Host::Address(ip) | Host::Endpoint(Address { ip, .. }) => {
                    let data = Data::address(*ip);
                    if data.kind() == kind && seen.is_new(*ip) {
                        records.push(self.record(name.clone(), data));
                    }
                }
                Host::Name(text) => {
                    let Ok(target) = text.parse::<Name>() else {
                        continue;
                    };
                    if lookups.iter().any(|other| other.name == target) {
                        continue;
                    }
                    let data = Data::Cname(target.clone());
                    records.push(Record::new(name.clone(), self.kubernetes.ttl(), data));
                    lookups.push(Lookup {
                        name: target,
                        kind,
                        section: Section::Answers,
                    });
                }
            }
        }
        (records, lookups)
    }

    fn servers(
        self,
        name: &Name,
        service: &Service,
        ways: &[WayIn<'_>],
    ) -> (Vec<Record>, Vec<Record>, Vec<Lookup>) {
        let ttls = (self.kubernetes.ttl(), self.plugin.options.ttl);
        let mut servers = Servers::new(name, ttls, ways.len());
        let mut lookups: Vec<Lookup> = Vec::new();
        for (host, port) in ways {
            let Some(port) = *port else { continue };
            let (target, ip) = match host {
                Host::Address(ip) => (below(None, service, self.zone), Some(*ip)),
                Host::Endpoint(address) => {
                    let endpoint = self.kubernetes.endpoint_name(address);
                    (below(Some(&endpoint), service, self.zone), Some(address.ip))
                }
                Host::Name(text) => (text.parse().ok(), None),
            };
            let Some(target) = target else { continue };
            if ip.is_none() && !lookups.iter().any(|other| other.name == target) {
                lookups.extend([Type::A, Type::AAAA].map(|kind| Lookup {
                    name: target.clone(),
                    kind,
                    section: Section::Additionals,
                }));
            }
            servers.put(&target, ip, port);
        }
        (servers.answers, servers.additionals, lookups)
    }
}

/// What leads to a Service from outside.
fn hosts(service: &Service) -> Vec<Host<'_>> {
    let ips = service.external_ips.iter().copied();
    let balancers = service.load_balancer.iter().map(|one| one.ip);
    let addresses = ips.chain(balancers).map(Host::Address);
    let names = service.balancer_names.iter().map(|name| Host::Name(name));
    addresses.chain(names).collect()
}

/// These ports, or one without name and number.
fn or_one<'a>(ports: impl Iterator<Item = Port<'a>>) -> Vec<Port<'a>> {
    let mut all: Vec<_> = ports.collect();
    if all.is_empty() {
        all.push(("", "", None));
    }
    all
}

/// The name of a Service, or of one of its endpoints, in a zone for outside.
fn below(endpoint: Option<&[u8]>, service: &Service, zone: &Name) -> Option<Name> {
    let endpoint = endpoint
        .into_iter()
        .flat_map(|name| name.split(|byte| *byte == b'.'));
    let own = [service.name.as_bytes(), service.namespace.as_bytes()];
    Name::from_labels(endpoint.chain(own).chain(zone.labels())).ok()
}
