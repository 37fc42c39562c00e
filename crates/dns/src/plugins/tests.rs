//! What tests of plugins share, and the tests of those that are too small for a file of tests.

use std::net::SocketAddr;
use std::time::Instant;

use crate::query::{Query, Transport};
use crate::wire::{Class, Name, Question, Type};

/// A name.
pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A question from a pod over UDP.
pub fn query(asked: &str, kind: Type) -> Query {
    Query {
        id: 7,
        question: Question {
            name: name(asked),
            kind,
            class: Class::IN,
        },
        recursion_desired: true,
        authentic: false,
        checking_disabled: false,
        edns: None,
        serial: None,
        client: SocketAddr::from(([10, 244, 1, 5], 33333)),
        server: SocketAddr::from(([10, 96, 0, 10], 53)),
        transport: Transport::Udp,
        now: Instant::now(),
    }
}
