//! `hosts`: names out of a hosts file and of the Corefile itself.

mod table;

use std::net::IpAddr;

pub use table::Table;

use super::zones::Zones;
use crate::corefile::plugins::{Hosts as Options, HostsEntry};
use crate::query::{Answer, Query};
use crate::wire::{Data, Name, Rcode, Record, Type};

/// The options, made ready.
#[derive(Debug)]
pub struct Hosts {
    zones: Zones,
    inline: Table,
    ttl: u32,
    fallthrough: Zones,
    fallthrough_unsupported: bool,
}

impl Hosts {
    /// Of the options.
    pub fn new(options: &Options) -> Self {
        let zones = Zones::new(&options.zones);
        let mut inline = Table::default();
        for HostsEntry { address, names } in &options.entries {
            for name in names {
                inline.add(*address, name.clone(), &zones, options.reverse);
            }
        }
        Self {
            zones,
            inline,
            ttl: options.ttl,
            fallthrough: Zones::new(&options.fallthrough),
            fallthrough_unsupported: options.fallthrough_unsupported,
        }
    }

    /// How many entries the Corefile has.
    pub fn entries(&self) -> usize {
        self.inline.len()
    }

    /// The zones that names are taken for.
    pub fn zones(&self) -> &Zones {
        &self.zones
    }

    /// The answer out of the file's names and the Corefile's; a code where there is none and
    /// nobody else is to be asked; nothing where the next plugin is.
    pub fn answer(&self, file: &Table, query: &Query) -> Option<Result<Answer, Rcode>> {
        let question = &query.question;
        let name = &question.name;
        if question.kind == Type::PTR {
            return self.reverse(file, name).map(Ok);
        }
        if !self.zones.contain(name) {
            return None;
        }
        let all = || self.addresses(file, name);
        let mut answers = Vec::new();
        match question.kind {
            Type::A | Type::AAAA => {
                let wanted = |ip: &&IpAddr| ip.is_ipv4() == (question.kind == Type::A);
                let record = |ip: &IpAddr| Record::new(name.clone(), self.ttl, Data::address(*ip));
                answers.extend(all().filter(wanted).map(record));
            }
            _ if self.fallthrough_unsupported && self.fallthrough.contain(name) => return None,
            _ => {}
        }
        if answers.is_empty() && all().next().is_none() {
            // There is no SOA to say NXDOMAIN with.
            return (!self.fallthrough.contain(name)).then_some(Err(Rcode::SERVFAIL));
        }
        Some(Ok(authoritative(answers)))
    }

    fn addresses<'a>(
        &'a self,
        file: &'a Table,
        name: &'a Name,
    ) -> impl Iterator<Item = &'a IpAddr> {
        file.addresses(name).chain(self.inline.addresses(name))
    }

    fn reverse(&self, file: &Table, name: &Name) -> Option<Answer> {
        let ip = name.address()?;
        let names = file.names(ip).iter().chain(self.inline.names(ip));
        let record = |host: &Name| Record::new(name.clone(), self.ttl, Data::Ptr(host.clone()));
        let answers: Vec<Record> = names.map(record).collect();
        (!answers.is_empty()).then(|| authoritative(answers))
    }
}

fn authoritative(answers: Vec<Record>) -> Answer {
    Answer {
        authoritative: true,
        answers,
        by: "hosts",
        ..Answer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::tests::{name, query};

    const FILE: &str = "# a comment\n\
        127.0.0.1 localhost localhost.domain # another\n\
        ::1 localhost\n\
        10.0.0.1 Example.org\n\
        10.0.0.2 example.org www.example.org\n\
        fe80::1%lo0 link.example.org\n\
        10.0.0.9 *.wild.example.org\n\
        not.an.address x.example.org\n\
        10.0.0.3\n\
        10.0.0.4 a..b.example.org still.example.org\n";

    fn hosts(change: impl FnOnce(&mut Options)) -> (Hosts, Table) {
        let mut options = Options {
            zones: vec![Name::root()],
            entries: vec![HostsEntry {
                address: [10, 0, 0, 5].into(),
                names: vec![name("inline.example.org"), name("example.org")],
            }],
            ..Options::default()
        };
        change(&mut options);
        let hosts = Hosts::new(&options);
        let file = Table::parse(FILE, hosts.zones(), options.reverse);
        (hosts, file)
    }

    fn said(hosts: &(Hosts, Table), name: &str, kind: Type) -> String {
        match hosts.0.answer(&hosts.1, &query(name, kind)) {
            None => "next".to_owned(),
            Some(Err(rcode)) => rcode.to_string(),
            Some(Ok(answer)) => {
                let data = |record: &Record| match &record.data {
                    Data::Ptr(name) => name.to_string(),
                    data => data.ip().unwrap().to_string(),
                };
                let all: Vec<String> = answer.answers.iter().map(data).collect();
                all.join(" ")
            }
        }
    }

    #[test]
    fn names_and_addresses() {
        let hosts = hosts(|_| {});
        for (name, kind, expected) in [
            ("localhost", Type::A, "127.0.0.1"),
            ("localhost", Type::AAAA, "::1"),
            ("EXAMPLE.org", Type::A, "10.0.0.1 10.0.0.2 10.0.0.5"),
            ("www.example.org", Type::A, "10.0.0.2"),
            // The name is there, with nothing of this type.
            ("www.example.org", Type::AAAA, ""),
            ("www.example.org", Type::MX, ""),
            ("link.example.org", Type::AAAA, "fe80::1"),
            ("any.wild.example.org", Type::A, "10.0.0.9"),
            // A wildcard stands for one label.
            ("a.b.wild.example.org", Type::A, "SERVFAIL"),
            ("x.example.org", Type::A, "SERVFAIL"),
            ("still.example.org", Type::A, "10.0.0.4"),
            (
                "1.0.0.127.in-addr.arpa",
                Type::PTR,
                "localhost. localhost.domain.",
            ),
            (
                "5.0.0.10.in-addr.arpa",
                Type::PTR,
                "inline.example.org. example.org.",
            ),
            ("77.0.0.10.in-addr.arpa", Type::PTR, "next"),
            ("9.0.0.10.in-addr.arpa", Type::PTR, "next"),
        ] {
            assert_eq!(said(&hosts, name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn fallthrough_for_names_that_are_not_there() {
        let all = hosts(|options| options.fallthrough = vec![Name::root()]);
        assert_eq!(said(&all, "none.example.org", Type::A), "next");
        assert_eq!(said(&all, "www.example.org", Type::AAAA), "");
        let some = hosts(|options| options.fallthrough = vec![name("example.org")]);
        assert_eq!(said(&some, "none.example.org", Type::A), "next");
        assert_eq!(said(&some, "none.example.com", Type::A), "SERVFAIL");
        let types = hosts(|options| {
            options.fallthrough = vec![Name::root()];
            options.fallthrough_unsupported = true;
        });
        assert_eq!(said(&types, "www.example.org", Type::MX), "next");
    }

    #[test]
    fn zones_and_no_reverse() {
        let hosts = hosts(|options| {
            options.zones = vec![name("example.org")];
            options.reverse = false;
        });
        assert_eq!(said(&hosts, "localhost", Type::A), "next");
        assert_eq!(said(&hosts, "www.example.org", Type::A), "10.0.0.2");
        assert_eq!(said(&hosts, "2.0.0.10.in-addr.arpa", Type::PTR), "next");
    }

    #[test]
    fn answers_are_authoritative_and_have_the_ttl() {
        let (hosts, file) = hosts(|options| options.ttl = 60);
        let answer = hosts
            .answer(&file, &query("localhost", Type::A))
            .unwrap()
            .unwrap();
        assert!(answer.authoritative);
        assert_eq!(answer.answers[0].ttl, 60);
    }
}
