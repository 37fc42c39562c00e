//! `local`: `localhost` and the reverse zones that never leave a machine.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::query::{Answer, Query};
use crate::wire::{Data, Name, Rcode, Record, Soa, Type};

/// A week.
const TTL: u32 = 604_800;

/// The answer, where the name is one of those. With `prefix`, any name that begins with the label
/// `localhost` is answered too.
pub fn answer(query: &Query, prefix: bool) -> Option<Answer> {
    let name = &query.question.name;
    let labels: smallvec::SmallVec<[&[u8]; 8]> = name.labels().collect();
    let is_localhost = |label: &[u8]| label.eq_ignore_ascii_case(b"localhost");
    let first = labels.first().is_some_and(|label| is_localhost(label));
    let last = labels.last().is_some_and(|label| is_localhost(label));
    if last || first && prefix {
        return Some(localhost(query, labels.len() == 1));
    }
    let [.., octet, arpa, top] = labels.as_slice() else {
        return None;
    };
    let reverse = top.eq_ignore_ascii_case(b"arpa") && arpa.eq_ignore_ascii_case(b"in-addr");
    if !reverse || ![b"0".as_slice(), b"127", b"255"].contains(octet) {
        return None;
    }
    Some(addresses(query, &labels))
}

fn empty() -> Answer {
    Answer {
        by: "local",
        ..Answer::default()
    }
}

fn with(name: &Name, data: Data) -> Answer {
    Answer {
        answers: vec![Record::new(name.clone(), TTL, data)],
        ..empty()
    }
}

fn without(zone: &Name) -> Answer {
    Answer {
        authorities: vec![Record::new(zone.clone(), TTL, soa())],
        ..empty()
    }
}

/// `localhost` itself or a name below or in front of it.
fn localhost(query: &Query, itself: bool) -> Answer {
    let name = &query.question.name;
    match query.question.kind {
        Type::A => with(name, Data::A(Ipv4Addr::LOCALHOST)),
        Type::AAAA => with(name, Data::Aaaa(Ipv6Addr::LOCALHOST)),
        Type::SOA if itself => with(name, soa()),
        Type::NS if itself => with(name, Data::Ns(host())),
        _ => without(name),
    }
}

/// A name in one of the reverse zones.
fn addresses(query: &Query, labels: &[&[u8]]) -> Answer {
    let name = &query.question.name;
    let Ok(zone) = Name::from_labels(labels[labels.len() - 3..].iter().copied()) else {
        return without(name);
    };
    let itself = labels.len() == 3;
    let loopback = name.address() == Some(Ipv4Addr::LOCALHOST.into());
    match query.question.kind {
        Type::SOA if itself => with(name, soa()),
        Type::NS if itself => with(name, Data::Ns(host())),
        Type::PTR if loopback => with(name, Data::Ptr(host())),
        _ if itself || loopback => without(&zone),
        _ => Answer {
            rcode: Rcode::NXDOMAIN,
            ..without(&zone)
        },
    }
}

fn host() -> Name {
    Name::from_labels([b"localhost".as_slice()]).unwrap_or_else(|_| Name::root())
}

fn soa() -> Data {
    let primary = host();
    let mailbox = primary.child(b"root").unwrap_or_else(|_| primary.clone());
    Data::Soa(Box::new(Soa {
        primary,
        mailbox,
        serial: 1,
        refresh: 0,
        retry: 0,
        expire: 0,
        minimum: TTL,
    }))
}
