//! The zone itself: its start and its servers.

use std::net::IpAddr;

use super::answer::below_service;
use super::{Kubernetes, Search};
use crate::plan::{ServiceNames, Whose};
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
            let names = &self.view.names;
            let endpoints = self.plugin.options.endpoints;
            let of_endpoint = names.owners(Whose::Endpoint, *ip).filter(|_| endpoints);
            for entry in of_endpoint.chain(names.owners(Whose::Cluster, *ip)) {
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
                put(
                    Some(&one.name(self.plugin.options.endpoint_pod_names)),
                    one.ip,
                );
            }
        } else {
            service.cluster_ips.iter().for_each(|ip| put(None, *ip));
        }
    }
}
