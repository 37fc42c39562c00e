//! `kubernetes`: the names of the cluster, as the Kubernetes DNS specification says and as CoreDNS
//! answers where it does not.
//!
//! Where CoreDNS contradicts itself about whether a name exists (it depends there on the type that
//! is asked for), a name that has any record exists, and other types of it have no data.

mod answer;
mod apex;
mod meaning;
mod reverse;
mod transfer;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use crate::corefile::plugins as options;
use crate::plan::{Names, View};
use crate::query::Answer;
use crate::wire::{Name, Question, Rcode, Type};

pub(crate) use answer::{Seen, Servers};
pub(crate) use meaning::stripped;

/// The plugin's name, as the Corefile has it.
pub(crate) const NAME: &str = "kubernetes";

/// The plugin, ready to answer.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    options: options::Kubernetes,
    /// The zone of names that addresses are told to have.
    primary: Name,
    /// Where the server answers.
    local: Vec<IpAddr>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The answer.
    pub answer: Answer,
    /// What else is to be asked for, at the top: what is answered there is added. The answer is
    /// good without it.
    pub lookups: Vec<Lookup>,
}

/// A name outside that an answer leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Name.
    pub name: Name,
    /// Which records.
    pub kind: Type,
    /// Where they belong.
    pub section: Section,
}

/// A section of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Answers, behind those that are there.
    Answers,
    /// Additional records.
    Additionals,
}

impl From<Answer> for Found {
    fn from(answer: Answer) -> Self {
        Self {
            answer,
            lookups: Vec::new(),
        }
    }
}

/// One name that is looked up in one zone.
#[derive(Clone, Copy)]
struct Search<'a> {
    plugin: &'a Kubernetes,
    view: &'a View,
    /// As configured.
    zone: &'a Name,
}

impl Kubernetes {
    /// Of its options, and the addresses where the server answers, loopback left out: its name is
    /// that of the Service whose address or endpoint one of them is.
    ///
    /// # Errors
    /// An option that means nothing that can be done here.
    pub fn new(options: &options::Kubernetes, local: &[IpAddr]) -> Result<Self, String> {
        let primary = options
            .primary_zone()
            .ok_or("all zones are zones of addresses; add one of names such as cluster.local")?;
        if let Some(zone) = options.multicluster.first() {
            return Err(format!(
                "multicluster {zone}: ServiceImports are not watched; take the option out, or \
                 leave the zone to a server that knows them"
            ));
        }
        Ok(Self {
            primary: primary.clone(),
            local: local
                .iter()
                .copied()
                .filter(|ip| !ip.is_loopback())
                .collect(),
            options: options.clone(),
        })
    }

    /// What is known about a question; nothing where another plugin is to be asked. Without a view
    /// (before the first sync) nobody can tell.
    pub fn answer(&self, view: Option<&View>, question: &Question) -> Option<Found> {
        let zone = self.zone_of(&question.name)?;
        if matches!(question.kind, Type::AXFR | Type::IXFR) {
            return Some(Found::from(Answer {
                rcode: Rcode::REFUSED,
                live: true,
                by: NAME,
                ..Answer::default()
            }));
        }
        let Some(view) = view else {
            let zone = question.name.zone_part(zone)?;
            return Some(self.without_records(&zone, 0, Rcode::SERVFAIL).into());
        };
        let search = Search {
            plugin: self,
            view,
            zone,
        };
        if let Some(found) = search.answer(question) {
            return Some(found);
        }
        if self
            .options
            .fallthrough
            .iter()
            .any(|zone| question.name.is_within(zone))
        {
            return None;
        }
        Some(search.negative(question, Rcode::NXDOMAIN))
    }

    /// The longest of the zones that have the name.
    pub(crate) fn zone_of(&self, name: &Name) -> Option<&Name> {
        let zones = self
            .options
            .zones
            .iter()
            .filter(|zone| name.is_within(zone));
        zones.max_by_key(|zone| zone.as_bytes().len())
    }

    /// Whether names of a namespace (in lower case) are answered.
    pub(crate) fn exposes(&self, names: &Names, namespace: &[u8]) -> bool {
        self.names_namespace(namespace)
            && match &self.options.namespace_labels {
                None => names.has_namespace(namespace),
                Some(wanted) => {
                    let object = names.namespace(namespace);
                    object.is_some_and(|object| wanted.matches(&object.labels))
                }
            }
    }

    /// Whether names of a namespace are told for addresses: as CoreDNS does, all are unless
    /// namespaces are listed.
    pub(crate) fn exposes_address(&self, names: &Names, namespace: &str) -> bool {
        self.options.namespaces.is_empty() || self.exposes(names, namespace.as_bytes())
    }

    /// Whether a namespace is one of those that are named, if any are.
    fn names_namespace(&self, namespace: &[u8]) -> bool {
        self.options.namespaces.is_empty()
            || std::str::from_utf8(namespace)
                .is_ok_and(|name| self.options.namespaces.contains(name))
    }
}
