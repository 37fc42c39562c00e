//! A whole zone for outside.

use model::Service;

use super::{External, Host, Search, WayIn, below};
use crate::plan::{ServiceNames, View};
use crate::plugins::kubernetes::Kubernetes;
use crate::wire::{Data, Name, Record, Type};

impl External {
    /// All records of a zone, its start first and last; only its start for who has this version
    /// already. Nothing where the zone is not here.
    pub fn transfer<'a>(
        &'a self,
        kubernetes: &'a Kubernetes,
        view: &'a View,
        zone: &Name,
        has: Option<u32>,
    ) -> Option<Box<dyn Iterator<Item = Record> + Send + 'a>> {
        let zone = self.options.zones.iter().find(|own| *own == zone)?;
        let search = Search {
            plugin: self,
            kubernetes,
            view,
            zone,
        };
        let soa = search.soa();
        if has.is_some_and(|has| has >= view.names.external_serial()) {
            return Some(Box::new(std::iter::once(soa)));
        }
        let mut first = vec![soa.clone()];
        if let Some(server) = search.server() {
            first.push(search.record(zone.clone(), Data::Ns(server.clone())));
            let ips = kubernetes.outside_addresses(view, self.options.headless);
            let ips = ips.into_iter().map(Data::address);
            first.extend(ips.map(|data| search.record(server.clone(), data)));
        }
        let entries = kubernetes.exposed_services(view).into_iter();
        let records = entries.flat_map(move |(entry, service)| search.records_of(entry, service));
        Some(Box::new(first.into_iter().chain(records).chain([soa])))
    }
}

impl Search<'_> {
    fn records_of(self, entry: &ServiceNames, service: &Service) -> Vec<Record> {
        let all = self.all_ways_in(entry, service, None);
        let Some(name) = below(None, service, self.zone) else {
            return Vec::new();
        };
        let ways = |wanted: &dyn Fn(&Host<'_>, &str, &str) -> bool| -> Vec<WayIn<'_>> {
            let those = all
                .iter()
                .filter(|(host, (name, word, _))| wanted(host, name, word));
            those.map(|(host, (_, _, port))| (*host, *port)).collect()
        };
        let mut records = self.of_name(&name, service, &ways(&|_, _, _| true));
        let mut ports: Vec<(&str, &str)> = Vec::new();
        for (host, (port, protocol, _)) in &all {
            if let Host::Endpoint(address) = host {
                let endpoint = self.kubernetes.endpoint_name(address);
                let own = |other: &Host<'_>, _: &str, _: &str| matches!(other, Host::Endpoint(one) if one.ip == address.ip);
                if let Some(name) = below(Some(&endpoint), service, self.zone) {
                    records.extend(self.of_name(&name, service, &ways(&own)));
                }
            }
            // Ports without a name have no records of their own.
            if !port.is_empty() && !ports.contains(&(port, protocol)) {
                ports.push((port, protocol));
            }
        }
        for (port, protocol) in ports {
            let own = ways(&|_, name, word| (name, word) == (port, protocol));
            let labels = [format!("_{port}"), format!("_{protocol}")].map(|one| one.to_lowercase());
            let labels = labels.iter().map(String::as_bytes).chain(name.labels());
            if let Ok(name) = Name::from_labels(labels) {
                records.extend(self.servers(&name, service, &own).0);
            }
        }
        records
    }

    /// Addresses and ports of a name.
    fn of_name(self, name: &Name, service: &Service, ways: &[WayIn<'_>]) -> Vec<Record> {
        let mut records = self.addresses(name, Type::A, ways).0;
        let others = self.addresses(name, Type::AAAA, ways).0;
        // An alias is the same for both.
        records.extend(others.into_iter().filter(|one| one.kind() == Type::AAAA));
        records.extend(self.servers(name, service, ways).0);
        records
    }
}
