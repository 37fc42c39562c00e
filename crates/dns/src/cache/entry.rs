//! One answer that is kept: what kind it is, for how long it holds, and what is made of it.

use std::time::Instant;

use crate::query::{Answer, Query};
use crate::wire::{Class, Data, Name, Question, Rcode, Record, Type};

/// What an answer says, as far as keeping it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is something, or somebody else to ask.
    Success,
    /// NXDOMAIN or NODATA.
    Denial,
    /// SERVFAIL or NOTIMP.
    Failure,
    /// Not to be kept.
    Other,
}

/// The kind of an answer; `wall` is the time in seconds since 1970, for signatures.
pub(super) fn kind(question: &Question, answer: &Answer, dnssec: bool, wall: u32) -> Kind {
    if answer.truncated || matches!(question.kind, Type::AXFR | Type::IXFR) {
        return Kind::Other;
    }
    if dnssec && sections(answer).any(|record| is_expired(record, wall)) {
        return Kind::Other;
    }
    let soa = answer.authorities.iter().any(|r| r.kind() == Type::SOA);
    match answer.rcode {
        // An unfinished chain of CNAMEs is a denial where SOA says for how long (RFC 2308,
        // section 2.2), and otherwise nothing to keep.
        Rcode::NOERROR if !answer.answers.is_empty() => match (answers(question, answer), soa) {
            (true, _) => Kind::Success,
            (false, true) => Kind::Denial,
            (false, false) => Kind::Other,
        },
        Rcode::NOERROR if soa => Kind::Denial,
        Rcode::NOERROR => Kind::Success,
        Rcode::NXDOMAIN if soa && answer.answers.is_empty() => Kind::Denial,
        Rcode::SERVFAIL | Rcode::NOTIMP => Kind::Failure,
        _ => Kind::Other,
    }
}

fn sections(answer: &Answer) -> impl Iterator<Item = &Record> {
    let all = answer.answers.iter().chain(&answer.authorities);
    all.chain(&answer.additionals)
}

/// Whether it is a signature whose time has not come or is over (RFC 4034, section 3.1.5).
fn is_expired(record: &Record, wall: u32) -> bool {
    let Data::Other(Type::RRSIG, data) = &record.data else {
        return false;
    };
    let time = |at: usize| {
        let bytes = data.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let (Some(until), Some(from)) = (time(8), time(12)) else {
        return true;
    };
    // Serial arithmetic: the times wrap around.
    (until.wrapping_sub(wall) as i32) < 0 || (wall.wrapping_sub(from) as i32) < 0
}

/// Whether a NOERROR answer has what was asked for: at the end of the chain of CNAMEs that
/// begins at the name asked. A chain that forks or goes in circles has no end.
pub(super) fn answers(question: &Question, answer: &Answer) -> bool {
    let of_class =
        |record: &&Record| question.class == Class::ANY || record.class == question.class;
    let records = || answer.answers.iter().filter(of_class);
    match question.kind {
        Type::ANY => records().any(|record| record.name == question.name),
        Type::CNAME => matches!(target(records(), &question.name), Ok(Some(_))),
        kind => {
            let mut name = &question.name;
            // More steps than records are a circle.
            for _ in 0..=answer.answers.len() {
                match target(records(), name) {
                    Ok(Some(next)) => name = next,
                    Ok(None) => {
                        return records().any(|r| r.kind() == kind && r.name == *name);
                    }
                    Err(Forked) => return false,
                }
            }
            false
        }
    }
}

/// Two CNAMEs of one name with different targets (against RFC 2181, section 10.1).
struct Forked;

/// Where a name's CNAME leads.
fn target<'a>(
    records: impl Iterator<Item = &'a Record>,
    name: &Name,
) -> Result<Option<&'a Name>, Forked> {
    let mut found: Option<&Name> = None;
    for record in records {
        let Data::Cname(target) = &record.data else {
            continue;
        };
        if record.name != *name {
            continue;
        }
        if found.is_some_and(|before| before != target) {
            return Err(Forked);
        }
        found = Some(target);
    }
    Ok(found)
}

/// How long an answer holds of which nobody says it, in seconds.
const UNSAID: u32 = 5;

/// The TTL an answer came with: the least of its records. A denial holds no longer than its SOA
/// says (RFC 2308, section 5); errors and referrals are kept for a moment only.
pub(super) fn ttl(answer: &Answer, kind: Kind) -> u32 {
    let refers = |record: &Record| record.kind() == Type::NS;
    let says = match answer.rcode {
        Rcode::NOERROR if kind == Kind::Success && answer.answers.is_empty() => {
            !answer.authorities.iter().any(refers)
        }
        Rcode::NOERROR | Rcode::NXDOMAIN => true,
        _ => false,
    };
    let least = |record: &Record| match &record.data {
        Data::Soa(soa) if kind == Kind::Denial => record.ttl.min(soa.minimum),
        _ => record.ttl,
    };
    let least = sections(answer).map(least).min();
    least.filter(|_| says).unwrap_or(UNSAID)
}

/// An answer that is kept.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: Key,
    pub kind: Kind,
    /// It has what was asked for.
    pub answering: bool,
    rcode: Rcode,
    authoritative: bool,
    authentic: bool,
    recursion_available: bool,
    answers: Box<[Record]>,
    authorities: Box<[Record]>,
    additionals: Box<[Record]>,
    /// Which of the first answers are about the name that is asked for, as bits: they get the
    /// letters of the question.
    asked: u64,
    /// In seconds, when it was stored.
    ttl: u32,
    pub stored: Instant,
    /// So much memory it takes, about.
    pub bytes: usize,
}

/// What an answer is kept under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub question: Question,
    /// DO: signatures come along.
    pub dnssec: bool,
    /// CD: what is not valid comes along.
    pub unchecked: bool,
}

impl Key {
    pub(super) fn of(query: &Query) -> Self {
        Self {
            question: query.question.clone(),
            dnssec: wants_dnssec(query),
            unchecked: query.checking_disabled,
        }
    }

    pub(super) fn is_of(&self, query: &Query) -> bool {
        self.question == query.question
            && self.dnssec == wants_dnssec(query)
            && self.unchecked == query.checking_disabled
    }
}

pub(super) fn wants_dnssec(query: &Query) -> bool {
    query.edns.as_ref().is_some_and(|edns| edns.dnssec_ok)
}

impl Entry {
    /// All records of the answer have this TTL by now.
    pub(super) fn new(key: Key, answer: &Answer, kind: Kind, ttl: u32, now: Instant) -> Self {
        let mut asked = 0;
        for (bit, record) in answer.answers.iter().take(64).enumerate() {
            asked |= u64::from(record.name == key.question.name) << bit;
        }
        let records = sections(answer).map(bytes_of).sum::<usize>();
        Self {
            kind,
            answering: answer.rcode == Rcode::NOERROR && answers(&key.question, answer),
            rcode: answer.rcode,
            authoritative: answer.authoritative,
            authentic: answer.authentic,
            recursion_available: answer.recursion_available,
            answers: answer.answers.as_slice().into(),
            authorities: answer.authorities.as_slice().into(),
            additionals: answer.additionals.as_slice().into(),
            asked,
            ttl,
            stored: now,
            bytes: size_of::<Self>() + heap(&key.question.name) + records,
            key,
        }
    }

    /// Seconds it still holds; 0 and less: since when it does not.
    pub(super) fn left(&self, now: Instant) -> i64 {
        let age = now.saturating_duration_since(self.stored).as_secs();
        i64::from(self.ttl) - i64::try_from(age).unwrap_or(i64::MAX)
    }

    /// Whether it is to be asked for again before its time is over.
    pub(super) fn is_nearly_over(&self, now: Instant, percentage: u8) -> bool {
        self.left(now) * 100 <= i64::from(self.ttl) * i64::from(percentage) + 99
    }

    /// The answer to a question, every record with this TTL or, without one, the one it had
    /// when it was stored.
    pub(super) fn answer(&self, query: &Query, ttl: Option<u32>) -> Answer {
        let ttl = ttl.unwrap_or(self.ttl);
        let with_ttl = |records: &[Record]| -> Vec<Record> {
            let copies = records.iter().map(|record| Record {
                name: record.name.clone(),
                class: record.class,
                ttl,
                data: record.data.clone(),
            });
            copies.collect()
        };
        let mut bits = self.asked;
        let answers = self.answers.iter().map(|record| {
            let asked = bits & 1 == 1;
            bits >>= 1;
            let name = if asked {
                &query.question.name
            } else {
                &record.name
            };
            Record {
                name: name.clone(),
                class: record.class,
                ttl,
                data: record.data.clone(),
            }
        });
        Answer {
            rcode: self.rcode,
            authoritative: self.authoritative,
            authentic: self.authentic && (query.authentic || self.key.dnssec),
            recursion_available: self.recursion_available,
            answers: answers.collect(),
            authorities: with_ttl(&self.authorities),
            additionals: with_ttl(&self.additionals),
            by: "cache",
            ..Answer::default()
        }
    }
}

fn heap(name: &Name) -> usize {
    let len = name.as_bytes().len();
    // What is short lies in the name itself.
    if len > 56 { len } else { 0 }
}

fn bytes_of(record: &Record) -> usize {
    let data = match &record.data {
        Data::A(_) | Data::Aaaa(_) => 0,
        Data::Cname(name) | Data::Dname(name) | Data::Ns(name) | Data::Ptr(name) => heap(name),
        Data::Mx(_, name) | Data::Srv { target: name, .. } => heap(name),
        Data::Soa(soa) => size_of_val(&**soa) + heap(&soa.primary) + heap(&soa.mailbox),
        Data::Txt(bytes) | Data::Other(_, bytes) => bytes.len(),
    };
    size_of::<Record>() + heap(&record.name) + data
}
