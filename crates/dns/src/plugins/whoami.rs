//! `whoami`: who asks is told its address, port and transport.

use crate::query::{Answer, Query, Transport};
use crate::wire::{Data, Name, Record};

/// The answer, whatever the question.
pub fn answer(query: &Query) -> Answer {
    let Query { client, .. } = query;
    let name = &query.question.name;
    let label: &[u8] = match query.transport {
        Transport::Udp => b"_udp",
        _ => b"_tcp",
    };
    let record = |name: Name, data| Record {
        class: query.question.class,
        ..Record::new(name, 0, data)
    };
    let port = Data::Srv {
        priority: 0,
        weight: 0,
        port: client.port(),
        target: Name::root(),
    };
    let mut additionals = vec![record(
        name.clone(),
        Data::address(client.ip().to_canonical()),
    )];
    // A name that is too long for a label more has no port.
    additionals.extend(name.child(label).ok().map(|name| record(name, port)));
    Answer {
        authoritative: true,
        additionals,
        by: "whoami",
        ..Answer::default()
    }
}
