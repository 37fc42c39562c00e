//! The zone itself: its start and its servers.

use std::net::IpAddr;
use std::sync::Arc;

use super::answer::{Seen, below_service};
use super::{Kubernetes, Search};
use crate::plan::{ServiceNames, View, Whose, is_headless};
use crate::wire::{Data, Name, Record, Soa};

impl Kubernetes {
    /// The start of a zone.
    pub(super) fn soa(&self, zone: &Name, serial: u32) -> Record {
        let below = |labels: &[&[u8]]| {
            let labels = labels.iter().copied().chain(zone.labels());
            // A zone with room for no more names has none.
            Name::from_labels(labels).unwrap_or_else(|_| zone.clone())
        };
        let soa = Soa {
            primary: below(&[b"ns", b"dns"]),
            mailbox: below(&[b"hostmaster"]),
            serial,
            refresh: 7200,
            retry: 1800,
            expire: 86_400,
            minimum: self.options.ttl,
        };
        Record::new(
            zone.clone(),
            self.options.ttl.min(300),
            Data::Soa(Box::new(soa)),
        )
    }

    /// Where the zone's servers are reached from outside: by the Service in front of this server,
    /// or else where it answers itself.
    pub(crate) fn outside_addresses(&self, view: &View, headless: bool) -> Vec<IpAddr> {
        let mut found = Vec::new();
        let mut known = false;
        for ip in &self.local {
            for entry in self.in_front(view, *ip) {
                known = true;
                let Some(service) = self.service(entry) else {
                    continue;
                };
                if headless && is_headless(service) {
                    found.extend(entry.addresses().map(|one| one.ip));
                } else {
                    found.extend(&service.external_ips);
                    found.extend(service.load_balancer.iter().map(|one| one.ip));
                }
            }
        }
        if !known {
            found.clone_from(&self.local);
        }
        let mut seen = Seen::default();
        found.retain(|ip| seen.is_new(*ip));
        found
    }

    /// The Services that lead to an address of this server.
    fn in_front<'a>(
        &self,
        view: &'a View,
        ip: IpAddr,
    ) -> impl Iterator<Item = &'a Arc<ServiceNames>> + use<'a> {
        let endpoints = self.options.endpoints;
        let of_endpoint = view.names.owners(Whose::Endpoint, ip);
        let of_endpoint = of_endpoint.filter(move |_| endpoints);
        of_endpoint.chain(view.names.owners(Whose::Cluster, ip))
    }
}

impl Search<'_> {
    /// The zone's servers, and their addresses.
    pub(super) fn zone_servers(self, zone: &Name) -> (Vec<Record>, Vec<Record>) {
        let servers = self.name_servers(zone);
        let mut answers: Vec<Record> = Vec::new();
        let mut additionals = Vec::new();
        for (name, ip) in servers {
            let data = Data::Ns(name.clone());
            if !answers.iter().any(|other| other.data == data) {
                answers.push(self.record(zone.clone(), data));
            }
            additionals.push(self.record(name, Data::address(ip)));
        }
        (answers, additionals)
    }

    /// Names and addresses of the zone's servers: those of the Service in front of this server, or
    /// else its own.
    pub(super) fn name_servers(self, zone: &Name) -> Vec<(Name, IpAddr)> {
        let mut found = Vec::new();
        for ip in &self.plugin.local {
            for entry in self.plugin.in_front(self.view, *ip) {
                self.of_service(entry, zone, &mut found);
            }
        }
        if found.is_empty() {
            let labels = [b"ns".as_slice(), b"dns"].into_iter().chain(zone.labels());
            let own = Name::from_labels(labels).ok();
            let all = self.plugin.local.iter();
            found.extend(
                own.iter()
                    .flat_map(|own| all.clone().map(|ip| (own.clone(), *ip))),
            );
        }
        found
    }

    fn of_service(self, entry: &ServiceNames, zone: &Name, found: &mut Vec<(Name, IpAddr)>) {
        let Some(service) = self.plugin.service(entry) else {
            return;
        };
        let (name, space) = (&service.name, &service.namespace);
        let mut put = |endpoint: Option<&[u8]>, ip: IpAddr| {
            let server = below_service(endpoint, name, space, zone).map(|name| (name, ip));
            found.extend(server.filter(|server| !found.contains(server)));
        };
        if entry.is_headless() {
            for one in entry.addresses() {
                put(Some(&self.plugin.endpoint_name(&one)), one.ip);
            }
        } else {
            service.cluster_ips.iter().for_each(|ip| put(None, *ip));
        }
    }
}
