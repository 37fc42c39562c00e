//! A whole zone.

use std::net::IpAddr;

use model::Service;

use super::answer::{below_service, weight};
use super::{Kubernetes, Search};
use crate::plan::{ServiceNames, View, Whose, is_headless};
use crate::wire::{Data, Name, Record};

impl Kubernetes {
    /// All records of a zone, its start first and last; only its start for who has this version
    /// already. Nothing where the zone is not here.
    pub fn transfer<'a>(
        &'a self,
        view: &'a View,
        zone: &Name,
        has: Option<u32>,
    ) -> Option<Box<dyn Iterator<Item = Record> + Send + 'a>> {
        let zone = self.options.zones.iter().find(|own| *own == zone)?;
        let search = Search {
            plugin: self,
            view,
            zone,
        };
        let soa = self.soa(zone, view.names.serial());
        if has == Some(view.names.serial()) {
            return Some(Box::new(std::iter::once(soa)));
        }
        let (servers, addresses) = search.zone_servers(zone);
        let first = std::iter::once(soa.clone()).chain(servers).chain(addresses);
        if is_reverse_zone(zone) {
            let names = search.reverse_records();
            return Some(Box::new(first.chain(names).chain([soa])));
        }
        let entries = self.exposed_services(view).into_iter();
        let records = entries.flat_map(move |(entry, service)| search.records_of(entry, service));
        Some(Box::new(first.chain(records).chain([soa])))
    }

    /// The Services whose names are answered, sorted by name as CoreDNS transfers them.
    pub(crate) fn exposed_services<'a>(
        &self,
        view: &'a View,
    ) -> Vec<(&'a ServiceNames, &'a Service)> {
        let entries = view.names.services();
        let services = entries.filter_map(|entry| Some((&**entry, entry.service.as_deref()?)));
        let exposed = services.filter(|(entry, service)| {
            self.service(entry).is_some() && self.exposes(&view.names, service.namespace.as_bytes())
        });
        let mut all: Vec<_> = exposed.collect();
        all.sort_unstable_by_key(|(_, service)| (&service.name, &service.namespace));
        all
    }
}

impl<'a> Search<'a> {
    fn records_of(self, entry: &ServiceNames, service: &Service) -> Vec<Record> {
        let Some(name) = below_service(None, &service.name, &service.namespace, self.zone) else {
            return Vec::new();
        };
        if let Some(target) = &service.external_name {
            let alias = target.parse::<IpAddr>().is_err();
            return self
                .alias(&name, target)
                .filter(|_| alias)
                .into_iter()
                .collect();
        }
        if is_headless(service) {
            return self.records_of_endpoints(entry, service, &name);
        }
        let ips = service.cluster_ips.iter().copied().map(Data::address);
        let mut records: Vec<_> = ips.map(|data| self.record(name.clone(), data)).collect();
        for port in &service.ports {
            // CoreDNS has the name itself for each port too, for those who look for peers so.
            let mut names = vec![name.clone()];
            names.extend(named_port(&port.name, port.protocol.word(), &name));
            for owner in names {
                records.push(self.server(owner, 100, port.port, &name));
            }
        }
        records
    }

    fn records_of_endpoints(
        self,
        entry: &ServiceNames,
        service: &Service,
        name: &Name,
    ) -> Vec<Record> {
        let mut records = Vec::new();
        if !self.plugin.options.endpoints {
            return records;
        }
        for slice in &entry.slices {
            let addresses: Vec<_> = crate::plan::ready(slice).collect();
            let weight = weight(addresses.len());
            for one in &addresses {
                let endpoint = self.plugin.endpoint_name(one);
                let (service, space) = (&service.name, &service.namespace);
                let Some(host) = below_service(Some(&endpoint), service, space, self.zone) else {
                    continue;
                };
                for owner in [name, &host] {
                    records.push(self.record(owner.clone(), Data::address(one.ip)));
                }
                for port in &slice.ports {
                    let owner = named_port(&port.name, port.protocol.word(), name);
                    if let (Some(owner), Some(number)) = (owner, port.port) {
                        records.push(self.server(owner, weight, number, &host));
                    }
                }
            }
        }
        records
    }

    fn server(self, owner: Name, weight: u16, port: u16, target: &Name) -> Record {
        let data = Data::Srv {
            priority: 0,
            weight,
            port,
            target: target.clone(),
        };
        self.record(owner, data)
    }

    /// The names of all addresses that are in the zone.
    fn reverse_records(self) -> impl Iterator<Item = Record> + use<'a> {
        let owned = self.view.names.owned();
        let inside = owned.filter(|(whose, _)| *whose != Whose::External);
        let mut ips: Vec<IpAddr> = inside.map(|(_, ip)| ip).collect();
        ips.sort_unstable();
        ips.dedup();
        let owners = ips.into_iter().map(|ip| (ip, Name::of_address(ip)));
        let owners = owners.filter(move |(_, owner)| owner.is_within(self.zone));
        owners.flat_map(move |(ip, owner)| {
            let names = self.names_of(ip).into_iter();
            names.map(move |name| self.record(owner.clone(), Data::Ptr(name)))
        })
    }
}

/// `_port._protocol` in front of a name; none for a port without a name.
fn named_port(port: &str, protocol: &str, name: &Name) -> Option<Name> {
    if port.is_empty() {
        return None;
    }
    let labels = [format!("_{port}"), format!("_{protocol}")].map(|one| one.to_lowercase());
    let labels = labels.iter().map(String::as_bytes).chain(name.labels());
    Name::from_labels(labels).ok()
}

fn is_reverse_zone(zone: &Name) -> bool {
    let ends = ["in-addr.arpa", "ip6.arpa"];
    ends.iter()
        .any(|end| end.parse().is_ok_and(|end| zone.is_within(&end)))
}
