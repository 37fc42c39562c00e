//! The names of addresses.

use std::net::IpAddr;

use super::answer::below_service;
use super::{Found, NAME, Search};
use crate::plan::Whose;
use crate::query::Answer;
use crate::wire::{Data, Name, Question, Rcode, Type};

impl Search<'_> {
    /// What is answered about an address; nothing where it has no name here.
    pub(super) fn reverse(self, question: &Question, ip: IpAddr) -> Option<Found> {
        let names = self.names_of(ip.to_canonical());
        if names.is_empty() {
            return None;
        }
        if question.kind != Type::PTR {
            return Some(self.negative(question, Rcode::NOERROR));
        }
        let records = names.into_iter();
        let records = records.map(|name| self.record(question.name.clone(), Data::Ptr(name)));
        let answer = Answer {
            authoritative: true,
            answers: records.collect(),
            live: true,
            by: NAME,
            ..Answer::default()
        };
        Some(answer.into())
    }

    /// The name of the Service that has an address, or else of each endpoint that has.
    pub(super) fn names_of(self, ip: IpAddr) -> Vec<Name> {
        let (plugin, names) = (self.plugin, &self.view.names);
        let exposed = |namespace: &str| plugin.exposes_address(names, namespace);
        let services = names.owners(Whose::Cluster, ip);
        let mut services = services.filter_map(|entry| plugin.service(entry));
        if let Some(service) = services.find(|service| exposed(&service.namespace)) {
            let name = below_service(None, &service.name, &service.namespace, &plugin.primary);
            return name.into_iter().collect();
        }
        let mut found = Vec::new();
        if !plugin.options.endpoints {
            return found;
        }
        for entry in names.owners(Whose::Endpoint, ip) {
            // Endpoints have a name, whether their Service is there or not.
            let other = entry.service.is_some() && plugin.service(entry).is_none();
            for one in entry.addresses().filter(|one| one.ip == ip && !other) {
                let (service, space) = (&one.slice.service, &one.slice.namespace);
                if !exposed(space) {
                    continue;
                }
                let endpoint = plugin.endpoint_name(&one);
                let name = below_service(Some(&endpoint), service, space, &plugin.primary);
                found.extend(name.filter(|name| !found.contains(name)));
            }
        }
        found
    }
}
