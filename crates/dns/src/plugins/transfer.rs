//! `transfer`: whole zones, for those who may have them.

use std::net::IpAddr;

use super::zones::Zones;
use crate::corefile::plugins::{Transfer as Options, TransferTo};
use crate::query::{Answer, Outcome, Query, Transport};
use crate::wire::{Name, Rcode, Record, Type};

/// So many bytes of records go into a message, without compression.
const MOST: usize = 63_000;

/// What is said to somebody who asks for a zone.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is no question for a zone, or nobody says who may have this one.
    Next,
    /// This code alone.
    Code(Rcode),
    /// Not to this client.
    Refused,
    /// The zone; with the serial of what the client has, if it says.
    Granted(Option<u32>),
}

/// Who may have which zones.
#[derive(Debug)]
pub struct Transfer(Vec<(Zones, Options)>);

impl Transfer {
    /// Of the options.
    pub fn new(options: &[Options]) -> Self {
        let one = |options: &Options| (Zones::new(&options.zones), options.clone());
        Self(options.iter().map(one).collect())
    }

    /// What is said to a question.
    pub fn judge(&self, query: &Query) -> Verdict {
        let kind = query.question.kind;
        if ![Type::AXFR, Type::IXFR].contains(&kind) {
            return Verdict::Next;
        }
        if query.transport == Transport::Udp {
            return Verdict::Code(Rcode::REFUSED);
        }
        let Some(rule) = self.of(&query.question.name) else {
            return Verdict::Next;
        };
        if !may(rule, query.client.ip().to_canonical()) {
            return Verdict::Refused;
        }
        match (kind, query.serial) {
            (Type::IXFR, None) => Verdict::Code(Rcode::SERVFAIL),
            (Type::IXFR, serial) => Verdict::Granted(serial),
            _ => Verdict::Granted(None),
        }
    }

    /// The rule for a zone: the one for the longest zone that has it.
    pub fn of(&self, zone: &Name) -> Option<&Options> {
        let matching = self.0.iter().filter_map(|(zones, options)| {
            let found = zones.matching(zone)?;
            Some((found.as_bytes().len(), options))
        });
        matching
            .max_by_key(|(len, _)| *len)
            .map(|(_, options)| options)
    }
}

fn may(rule: &Options, client: IpAddr) -> bool {
    rule.to.iter().any(|to| match to {
        TransferTo::Anyone => true,
        TransferTo::Server(server) => server.ip().to_canonical() == client,
    })
}

/// A zone in messages: its records, the SOA first and last. The SOA alone, for who has this version
/// already, is an answer like others.
pub fn messages(records: impl Iterator<Item = Record>, by: &'static str) -> Outcome {
    let message = |answers: Vec<Record>, authoritative| Answer {
        authoritative,
        answers,
        by,
        ..Answer::default()
    };
    let (mut messages, mut some, mut size) = (Vec::new(), Vec::new(), 0);
    for record in records {
        let len = super::log::record_len(&record);
        if !some.is_empty() && size + len > MOST {
            messages.push(message(std::mem::take(&mut some), true));
            size = 0;
        }
        size += len;
        some.push(record);
    }
    if messages.is_empty() && some.len() <= 1 {
        return Outcome::Answer(message(some, false));
    }
    messages.push(message(some, true));
    Outcome::Messages(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::tests::{name, query};
    use crate::wire::Data;

    fn transfer() -> Transfer {
        let to = |zone: &str, to| Options {
            zones: vec![name(zone)],
            to,
            source: None,
        };
        Transfer::new(&[
            to(
                "example.org",
                vec![TransferTo::Server("10.244.1.5:53".parse().unwrap())],
            ),
            to("sub.example.org", vec![TransferTo::Anyone]),
        ])
    }

    #[test]
    fn who_may_have_a_zone() {
        let asked = |zone: &str, kind, client: &str, transport| {
            let mut query = query(zone, kind);
            query.client = client.parse().unwrap();
            query.transport = transport;
            query.serial = (kind == Type::IXFR).then_some(7);
            transfer().judge(&query)
        };
        let (known, other) = ("10.244.1.5:999", "10.244.1.6:999");
        for (zone, kind, client, transport, expected) in [
            (
                "example.org",
                Type::AXFR,
                known,
                Transport::Tcp,
                Verdict::Granted(None),
            ),
            (
                "example.org",
                Type::IXFR,
                known,
                Transport::Tcp,
                Verdict::Granted(Some(7)),
            ),
            (
                "example.org",
                Type::AXFR,
                other,
                Transport::Tcp,
                Verdict::Refused,
            ),
            (
                "sub.example.org",
                Type::AXFR,
                other,
                Transport::Tcp,
                Verdict::Granted(None),
            ),
            (
                "example.net",
                Type::AXFR,
                known,
                Transport::Tcp,
                Verdict::Next,
            ),
            (
                "example.org",
                Type::AXFR,
                known,
                Transport::Udp,
                Verdict::Code(Rcode::REFUSED),
            ),
            ("example.org", Type::A, known, Transport::Udp, Verdict::Next),
        ] {
            assert_eq!(
                asked(zone, kind, client, transport),
                expected,
                "{zone} {kind} {client}"
            );
        }
        let mut without = query("example.org", Type::IXFR);
        without.transport = Transport::Tcp;
        assert_eq!(transfer().judge(&without), Verdict::Code(Rcode::SERVFAIL));
    }

    #[test]
    fn a_zone_in_messages() {
        let soa = crate::zonefile::record("example.org. SOA a. b. 7 1 1 1 1").unwrap();
        let text = Data::text(&"x".repeat(1000));
        let mut records = vec![soa.clone()];
        records.extend((0..200).map(|_| Record::new(name("example.org"), 1, text.clone())));
        records.push(soa.clone());
        let Outcome::Messages(all) = messages(records.into_iter(), "file") else {
            panic!("no messages");
        };
        assert_eq!(all.len(), 4);
        let sent: Vec<Record> = all
            .iter()
            .flat_map(|message| message.answers.clone())
            .collect();
        assert_eq!(sent.len(), 202);
        assert_eq!((sent.first(), sent.last()), (Some(&soa), Some(&soa)));
        let Outcome::Answer(same) = messages(std::iter::once(soa.clone()), "file") else {
            panic!("not one message");
        };
        assert_eq!(same.answers, [soa]);
    }
}
