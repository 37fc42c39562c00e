//! `erratic`: bad answers on purpose, to test clients with.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::corefile::plugins::Erratic as Options;
use crate::query::{Answer, Query};
use crate::wire::{Data, Rcode, Record, Type};

/// The options and how many queries there were.
#[derive(Debug)]
pub struct Erratic {
    options: Options,
    queries: AtomicU64,
}

/// What comes of a query.
#[derive(Debug, PartialEq, Eq)]
pub struct Trouble {
    /// It waits this long.
    pub delay: Option<Duration>,
    /// Then this is said; nothing if it is lost.
    pub answer: Option<Result<Answer, Rcode>>,
}

impl Erratic {
    /// Of the options.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            queries: AtomicU64::new(0),
        }
    }

    /// What comes of the next query.
    pub fn next(&self, query: &Query) -> Trouble {
        let number = self.queries.fetch_add(1, Ordering::Relaxed);
        let every = |nth: u32| nth > 0 && number.is_multiple_of(u64::from(nth));
        if every(self.options.drop) {
            return Trouble {
                delay: None,
                answer: None,
            };
        }
        Trouble {
            delay: every(self.options.delay).then_some(self.options.duration),
            answer: Some(self.answer(query, every(self.options.truncate))),
        }
    }

    fn answer(&self, query: &Query, truncated: bool) -> Result<Answer, Rcode> {
        let (data, times) = match query.question.kind {
            Type::A if self.options.large => (Data::A(V4), 30),
            Type::A => (Data::A(V4), 1),
            Type::AAAA => (Data::Aaaa(V6), 1),
            _ => return Err(Rcode::SERVFAIL),
        };
        let record = Record::new(query.question.name.clone(), 0, data);
        Ok(Answer {
            authoritative: true,
            truncated,
            answers: vec![record; times],
            by: "erratic",
            ..Answer::default()
        })
    }
}

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);
