//! Answers, type by type.

use std::collections::HashSet;
use std::net::IpAddr;

use smallvec::SmallVec;

use super::meaning::Meaning;
use super::{Found, Kubernetes, Lookup, NAME, Search, Section};
use crate::query::Answer;
use crate::wire::{Data, Name, Question, Rcode, Record, Type};

/// How many names in a row an alias may lead to.
const MOST_ALIASES: usize = 11;
/// Few records are compared with each other, many are looked up.
const FEW: usize = 16;

impl<'a> Search<'a> {
    /// What is answered; nothing where there is no such name.
    pub(super) fn answer(self, question: &Question) -> Option<Found> {
        if let Some(ip) = question.name.address() {
            let found = self.reverse(question, ip);
            if found.is_some() || question.kind == Type::PTR {
                return found;
            }
        }
        let meaning = self.meaning(&question.name);
        if matches!(meaning, Meaning::Nothing) {
            return None;
        }
        let mut answers = Vec::new();
        let mut additionals = Vec::new();
        let mut lookups = Vec::new();
        match question.kind {
            Type::A | Type::AAAA => {
                (answers, lookups) = self.addresses(question, meaning);
            }
            Type::SRV => (answers, additionals) = self.servers(question, &meaning),
            Type::CNAME => {
                if let Meaning::Alias(target) = meaning {
                    answers.extend(self.alias(&question.name, target));
                }
            }
            Type::TXT => {
                if let Meaning::Version = meaning {
                    answers.push(version(&question.name));
                }
            }
            Type::SOA if question.name == *self.zone => {
                let serial = self.view.names.serial();
                answers.push(self.plugin.soa(&question.name, serial));
            }
            Type::NS if question.name == *self.zone => {
                (answers, additionals) = self.zone_servers(&question.name);
            }
            _ => {}
        }
        if answers.is_empty() {
            return Some(self.negative(question, Rcode::NOERROR));
        }
        let answer = Answer {
            authoritative: true,
            answers,
            additionals,
            live: true,
            by: NAME,
            ..Answer::default()
        };
        Some(Found { answer, lookups })
    }

    /// There is no such name, or none of this type.
    pub(super) fn negative(self, question: &Question, rcode: Rcode) -> Found {
        let zone = question.name.zone_part(self.zone);
        let zone = zone.as_ref().unwrap_or(self.zone);
        let serial = self.view.names.serial();
        self.plugin.without_records(zone, serial, rcode).into()
    }

    /// Addresses of one family, behind the aliases that lead to them.
    fn addresses(self, question: &Question, meaning: Meaning<'_>) -> (Vec<Record>, Vec<Lookup>) {
        let Meaning::Alias(target) = meaning else {
            return (
                self.plain_addresses(&question.name, question.kind, &meaning),
                Vec::new(),
            );
        };
        let mut aliases: Vec<Record> = Vec::new();
        let none = (Vec::new(), Vec::new());
        let mut text = target.to_owned();
        let mut name = question.name.clone();
        loop {
            let Some(record) = self.alias(&name, &text) else {
                return none;
            };
            let Data::Cname(target) = &record.data else {
                return none;
            };
            let target = target.clone();
            let seen = aliases.iter().any(|other| other.name == name);
            if seen || target.is_within(&name) || aliases.len() >= MOST_ALIASES {
                return none;
            }
            aliases.push(record);
            if !target.is_within(self.zone) {
                let lookup = Lookup {
                    name: target,
                    kind: question.kind,
                    section: Section::Answers,
                };
                return (aliases, vec![lookup]);
            }
            match self.meaning(&target) {
                Meaning::Alias(next) => text = next.to_owned(),
                meaning => {
                    let records = self.plain_addresses(&target, question.kind, &meaning);
                    if records.is_empty() {
                        return none;
                    }
                    aliases.extend(records);
                    return (aliases, Vec::new());
                }
            }
            name = target;
        }
    }

    /// The alias that a Service is; none where its target is no name.
    pub(super) fn alias(self, name: &Name, target: &str) -> Option<Record> {
        let target = target.parse().ok()?;
        Some(self.record(name.clone(), Data::Cname(target)))
    }

    /// Addresses of one family that are the name's own.
    fn plain_addresses(self, name: &Name, kind: Type, meaning: &Meaning<'_>) -> Vec<Record> {
        let is = |ip: &IpAddr| ip.is_ipv4() == (kind == Type::A);
        match meaning {
            Meaning::Cluster(service, _) => {
                let ips = service.cluster_ips.iter().copied().filter(is);
                self.records(name, ips)
            }
            Meaning::Endpoints(_, _, addresses) => {
                let ips = addresses.iter().map(|one| one.ip).filter(is);
                self.records(name, ips)
            }
            Meaning::Pod(_, _, ip) => self.records(name, Some(*ip).filter(is).into_iter()),
            Meaning::NameServer => {
                let servers = self.name_servers(self.zone);
                let ips = servers.iter().map(|(_, ip)| *ip).filter(is);
                self.records(name, ips)
            }
            _ => Vec::new(),
        }
    }

    /// A record for each address, each once.
    fn records(self, name: &Name, ips: impl Iterator<Item = IpAddr>) -> Vec<Record> {
        let mut seen = Seen::default();
        // Nearly always there is one: room for more would cost more than it saves.
        let mut records = Vec::with_capacity(1);
        for ip in ips.filter(|ip| seen.is_new(*ip)) {
            records.push(self.record(name.clone(), Data::address(ip)));
        }
        records
    }

    pub(super) fn record(self, name: Name, data: Data) -> Record {
        Record::new(name, self.plugin.options.ttl, data)
    }

    /// Servers behind a name: a record for each port and target, and the targets' addresses.
    fn servers(self, question: &Question, meaning: &Meaning<'_>) -> (Vec<Record>, Vec<Record>) {
        let none = (Vec::new(), Vec::new());
        let Some(zone) = question.name.zone_part(self.zone) else {
            return none;
        };
        // Targets with an address and a port, in CoreDNS's order; without a port they count for
        // the weight only.
        let mut all: Vec<(Option<Name>, IpAddr, Option<u16>)> = Vec::new();
        match meaning {
            Meaning::Cluster(service, filter) => {
                let target = below_service(None, &service.name, &service.namespace, &zone);
                let ports = service.ports.iter();
                let wanted = ports.filter(|port| filter.is(&port.name, port.protocol));
                for port in wanted {
                    let ips = service.cluster_ips.iter();
                    all.extend(ips.map(|ip| (target.clone(), *ip, Some(port.port))));
                }
            }
            Meaning::Endpoints(service, filter, addresses) => {
                for one in addresses {
                    let endpoint = self.plugin.endpoint_name(one);
                    let (name, space) = (&service.name, &service.namespace);
                    let target = below_service(Some(&endpoint), name, space, &zone);
                    let ports = one.slice.ports.iter();
                    let wanted = ports.filter(|port| filter.is(&port.name, port.protocol));
                    all.extend(wanted.map(|port| (target.clone(), one.ip, port.port)));
                    if one.slice.ports.is_empty() {
                        all.push((target, one.ip, None));
                    }
                }
            }
            Meaning::Pod(label, namespace, ip) => {
                let lower = [label.to_ascii_lowercase(), namespace.to_ascii_lowercase()];
                let labels = lower.iter().map(Vec::as_slice).chain([b"pod".as_slice()]);
                let target = Name::from_labels(labels.chain(zone.labels())).ok();
                all.push((target, *ip, Some(0)));
            }
            _ => return none,
        }
        let ttl = self.plugin.options.ttl;
        let mut servers = Servers::new(&question.name, (ttl, ttl), all.len());
        for (target, ip, port) in all {
            if let (Some(target), Some(port)) = (target, port) {
                servers.put(&target, Some(ip), port);
            }
        }
        (servers.answers, servers.additionals)
    }
}

impl Kubernetes {
    /// TTL of answers.
    pub(crate) fn ttl(&self) -> u32 {
        self.options.ttl
    }

    /// No records, and the zone they would be in.
    pub(super) fn without_records(&self, zone: &Name, serial: u32, rcode: Rcode) -> Answer {
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

/// The name of a Service, or of one of its endpoints, in a zone. None where that would be too long.
pub(crate) fn below_service(
    endpoint: Option<&[u8]>,
    name: &str,
    namespace: &str,
    zone: &Name,
) -> Option<Name> {
    let endpoint = endpoint
        .into_iter()
        .flat_map(|name| name.split(|byte| *byte == b'.'));
    let service = [name.as_bytes(), namespace.as_bytes(), b"svc"];
    Name::from_labels(endpoint.chain(service).chain(zone.labels())).ok()
}

/// The weight of each of so many servers.
pub(crate) fn weight(servers: usize) -> u16 {
    // As CoreDNS rounds it.
    let share = 100.0 / (100 * servers.max(1)) as f64 * 100.0;
    (share.floor() as u16).max(1)
}

/// `dns-version`: which version of the specification the names are of.
fn version(name: &Name) -> Record {
    Record::new(name.clone(), 28_800, Data::text("1.1.0"))
}

/// Records of servers of one weight, each port of a target once, and the targets' addresses.
pub(crate) struct Servers<'a> {
    name: &'a Name,
    ttls: (u32, u32),
    weight: u16,
    ports: HashSet<(Name, u16)>,
    ips: HashSet<(Name, IpAddr)>,
    pub answers: Vec<Record>,
    pub additionals: Vec<Record>,
}

impl<'a> Servers<'a> {
    /// For a name, with the TTLs of servers and addresses; there are so many.
    pub fn new(name: &'a Name, ttls: (u32, u32), many: usize) -> Self {
        Self {
            name,
            ttls,
            weight: weight(many),
            ports: HashSet::new(),
            ips: HashSet::new(),
            answers: Vec::new(),
            additionals: Vec::new(),
        }
    }

    pub fn put(&mut self, target: &Name, ip: Option<IpAddr>, port: u16) {
        if let Some(ip) = ip
            && self.ips.insert((target.clone(), ip))
        {
            let record = Record::new(target.clone(), self.ttls.1, Data::address(ip));
            self.additionals.push(record);
        }
        if self.ports.insert((target.clone(), port)) {
            let data = Data::Srv {
                priority: 0,
                weight: self.weight,
                port,
                target: target.clone(),
            };
            self.answers
                .push(Record::new(self.name.clone(), self.ttls.0, data));
        }
    }
}

/// Addresses that were there already.
#[derive(Default)]
pub(crate) struct Seen {
    few: SmallVec<[IpAddr; FEW]>,
    many: Option<HashSet<IpAddr>>,
}

impl Seen {
    /// True the first time.
    pub fn is_new(&mut self, ip: IpAddr) -> bool {
        if self.few.contains(&ip) {
            return false;
        }
        if self.few.len() < FEW {
            self.few.push(ip);
            return true;
        }
        self.many.get_or_insert_default().insert(ip)
    }
}
