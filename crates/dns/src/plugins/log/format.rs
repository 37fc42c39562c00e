//! The line's format: text with placeholders in braces.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use crate::chain::Reply;
use crate::plugins::outcome::{Class, Kind};
use crate::query::{Answer, Failure, Outcome, Query, Transport};
use crate::wire::{Data, Rcode, Record};

/// What stands for a value that there is not.
const NONE: &str = "-";
/// Options of a query that a response repeats: NSID, EXPIRE, TCP keepalive, padding.
const REPEATED: [u16; 4] = [3, 9, 11, 12];
/// The length of a header, and of what a question or record has besides its name.
const HEADER: usize = 12;

/// A format, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Format(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
    /// A value of the metadata, which is not there.
    Metadata,
}

/// Declares the placeholders once.
macro_rules! values {
    ($($value:ident $word:literal)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Value { $($value),* }

        impl Value {
            fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$value),)* _ => None }
            }
        }
    };
}

values! {
    Type "{type}" Name "{name}" Class "{class}" Proto "{proto}" Size "{size}" Remote "{remote}"
    Port "{port}" Local "{local}" Id "{>id}" Opcode "{>opcode}" Do "{>do}" Bufsize "{>bufsize}"
    Rcode "{rcode}" ResponseSize "{rsize}" Duration "{duration}" Flags "{>rflags}"
}

/// A query and what was said.
#[derive(Debug)]
pub struct Told<'a> {
    /// The query.
    pub query: &'a Query,
    /// What was said.
    pub reply: &'a Reply,
}

impl Told<'_> {
    /// The class of what was said.
    pub fn class(&self) -> Class {
        match self.reply {
            Ok(Outcome::Answer(answer)) => Kind::of(self.query, answer).class(),
            Err(Failure { rcode, .. }) if *rcode == Rcode::NXDOMAIN => Class::Denial,
            Err(_) | Ok(Outcome::Messages(_) | Outcome::Drop) => Class::Error,
        }
    }

    /// The length of the query. By the time `CoreDNS` writes the line it has taken those options
    /// out of a query answered that the response does not repeat.
    fn query_len(&self) -> usize {
        let whole = query_len(self.query);
        let (Ok(Outcome::Answer(_)), Some(edns)) = (self.reply, &self.query.edns) else {
            return whole;
        };
        let left_out = edns
            .options
            .iter()
            .filter(|option| !REPEATED.contains(&option.code));
        whole - left_out.map(|option| 4 + option.data.len()).sum::<usize>()
    }

    fn rcode(&self) -> Option<Rcode> {
        match self.reply {
            Ok(Outcome::Answer(answer)) => Some(answer.rcode),
            Ok(Outcome::Messages(_)) => Some(Rcode::NOERROR),
            Ok(Outcome::Drop) => None,
            Err(failure) => Some(failure.rcode),
        }
    }

    /// The length of what was said, without compression.
    fn len(&self) -> usize {
        let question = HEADER + self.query.question.name.as_bytes().len() + 4;
        match self.reply {
            Ok(Outcome::Answer(answer)) => question + records(answer),
            Ok(Outcome::Messages(all)) => all.iter().map(|answer| question + records(answer)).sum(),
            Ok(Outcome::Drop) => 0,
            Err(_) => question,
        }
    }
}

impl Format {
    /// Takes a format apart. Braces around anything that is no placeholder are text.
    pub fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut before = String::new();
        let mut rest = text;
        while let Some(close) = rest.find('}') {
            let (head, tail) = rest.split_at(close + 1);
            rest = tail;
            let word = head.rfind('{').map(|open| head.split_at(open));
            let part = word.and_then(|(text, word)| {
                let metadata = || word.starts_with("{/").then_some(Part::Metadata);
                let part = Value::from_word(word).map(Part::Value).or_else(metadata);
                part.map(|part| (text, part))
            });
            match part {
                Some((text, part)) => {
                    before.push_str(text);
                    if !before.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut before)));
                    }
                    parts.push(part);
                }
                None => before.push_str(head),
            }
        }
        before.push_str(rest);
        if !before.is_empty() {
            parts.push(Part::Text(before));
        }
        Self(parts)
    }

    /// Appends the line.
    pub fn write(&self, told: &Told<'_>, took: Duration, line: &mut String) {
        for part in &self.0 {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Metadata => line.push_str(NONE),
                Part::Value(value) => {
                    // Writing into a String does not fail.
                    let _ = value.write(told, took, line);
                }
            }
        }
    }
}

impl Value {
    fn write(self, told: &Told<'_>, took: Duration, line: &mut String) -> std::fmt::Result {
        let query = told.query;
        let edns = query.edns.as_ref();
        match self {
            Self::Type => write!(line, "{}", query.question.kind),
            Self::Name => write!(line, "{}", query.question.name.lower()),
            Self::Class => write!(line, "{}", query.question.class),
            Self::Proto => line.write_str(proto(query.transport)),
            Self::Size => write!(line, "{}", told.query_len()),
            Self::Remote => address(query.client.ip(), line),
            Self::Port => write!(line, "{}", query.client.port()),
            Self::Local => address(query.server.ip(), line),
            Self::Id => write!(line, "{}", query.id),
            Self::Opcode => line.write_str("0"),
            Self::Do => write!(line, "{}", edns.is_some_and(|edns| edns.dnssec_ok)),
            Self::Bufsize => write!(line, "{}", bufsize(query)),
            Self::Rcode => match told.rcode() {
                Some(rcode) => write!(line, "{rcode}"),
                None => line.write_str(NONE),
            },
            Self::ResponseSize => write!(line, "{}", told.len()),
            Self::Duration => write!(line, "{}s", took.as_secs_f64()),
            Self::Flags => flags(told, line),
        }
    }
}

/// The flags that the response has, with commas between them.
fn flags(told: &Told<'_>, line: &mut String) -> std::fmt::Result {
    let nothing = Answer::default();
    let answer = match told.reply {
        Ok(Outcome::Answer(answer)) => answer,
        Ok(Outcome::Messages(all)) => all.last().unwrap_or(&nothing),
        Ok(Outcome::Drop) => return line.write_str(NONE),
        Err(_) => &nothing,
    };
    let asked = told.query.recursion_desired;
    let all = [
        (true, "qr"),
        (answer.authoritative, "aa"),
        (answer.truncated, "tc"),
        (answer.recursion_desired.unwrap_or(asked), "rd"),
        (answer.recursion_available, "ra"),
        (answer.authentic, "ad"),
        (told.query.checking_disabled, "cd"),
    ];
    let set: smallvec::SmallVec<[&str; 7]> = all
        .iter()
        .filter(|flag| flag.0)
        .map(|flag| flag.1)
        .collect();
    line.write_str(&set.join(","))
}

/// TLS and HTTPS are TCP.
fn proto(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp | Transport::Tls | Transport::Https => "tcp",
    }
}

/// How much the client takes.
fn bufsize(query: &Query) -> u16 {
    if query.transport != Transport::Udp {
        return u16::MAX;
    }
    let size = query.edns.as_ref().map_or(0, |edns| edns.udp_size);
    size.max(512)
}

fn address(ip: IpAddr, line: &mut String) -> std::fmt::Result {
    match ip.to_canonical() {
        IpAddr::V4(ip) => write!(line, "{ip}"),
        IpAddr::V6(ip) => write!(line, "[{ip}]"),
    }
}

/// The length of a query.
pub fn query_len(query: &Query) -> usize {
    let opt = query.edns.as_ref().map_or(0, |edns| {
        let options = edns.options.iter().map(|option| 4 + option.data.len());
        11 + options.sum::<usize>()
    });
    HEADER + query.question.name.as_bytes().len() + 4 + opt
}

/// The length of an answer's records and options, without compression.
fn records(answer: &Answer) -> usize {
    let options = answer.options.iter().map(|option| 4 + option.data.len());
    let opt = match answer.options.is_empty() {
        true => 0,
        false => 11 + options.sum::<usize>(),
    };
    let all = [&answer.answers, &answer.authorities, &answer.additionals];
    let records = all.into_iter().flatten();
    opt + records.map(record_len).sum::<usize>()
}

/// The length of a record, without compression.
pub fn record_len(record: &Record) -> usize {
    record.name.as_bytes().len() + 10 + data(&record.data)
}

fn data(data: &Data) -> usize {
    match data {
        Data::A(_) => 4,
        Data::Aaaa(_) => 16,
        Data::Cname(name) | Data::Dname(name) | Data::Ns(name) | Data::Ptr(name) => {
            name.as_bytes().len()
        }
        Data::Soa(soa) => soa.primary.as_bytes().len() + soa.mailbox.as_bytes().len() + 20,
        Data::Mx(_, name) => 2 + name.as_bytes().len(),
        Data::Srv { target, .. } => 6 + target.as_bytes().len(),
        Data::Txt(bytes) | Data::Other(_, bytes) => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::tests::query;
    use crate::wire::Type;

    const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" \
                          {rcode} {>rflags} {rsize} {duration}";

    fn line(format: &str, query: &Query, reply: &Reply) -> String {
        let mut line = String::new();
        let told = Told { query, reply };
        Format::new(format).write(&told, Duration::from_micros(123), &mut line);
        line
    }

    #[test]
    fn the_line_coredns_writes() {
        let mut query = query("Google.com", Type::A);
        query.id = 1234;
        query.client = "10.244.1.5:33333".parse().unwrap();
        query.recursion_desired = true;
        let ip = Data::A([142, 250, 1, 1].into());
        let reply = Ok(Outcome::Answer(Answer {
            recursion_available: true,
            answers: vec![Record::new(query.question.name.clone(), 30, ip)],
            ..Answer::default()
        }));
        assert_eq!(
            line(COMMON, &query, &reply),
            "10.244.1.5:33333 - 1234 \"A IN google.com. udp 28 false 512\" NOERROR qr,rd,ra 54 0.000123s"
        );
        query.client = "[fd00::5]:53".parse().unwrap();
        query.transport = Transport::Tls;
        query.edns = Some(crate::wire::Edns {
            dnssec_ok: true,
            ..Default::default()
        });
        assert_eq!(
            line(
                COMMON,
                &query,
                &Err(Failure::code(Rcode::SERVFAIL, "hosts"))
            ),
            "[fd00::5]:53 - 1234 \"A IN google.com. tcp 39 true 65535\" SERVFAIL qr,rd 28 0.000123s"
        );
        assert_eq!(
            line("{rcode} {>rflags} {rsize}", &query, &Ok(Outcome::Drop)),
            "- - 0"
        );
    }

    #[test]
    fn lengths_as_coredns_counts_them() {
        let option = |code, len: usize| crate::wire::EdnsOption {
            code,
            data: vec![0; len].into(),
        };
        let mut query = query("x.blocked.test", Type::A);
        query.edns = Some(crate::wire::Edns {
            options: vec![option(10, 8)],
            ..Default::default()
        });
        let refused = Ok(Outcome::Answer(Answer {
            rcode: Rcode::REFUSED,
            options: vec![option(15, 2)],
            ..Answer::default()
        }));
        assert_eq!(line("{size} {rsize}", &query, &refused), "43 49");
        let failed = Err(Failure::code(Rcode::SERVFAIL, "file"));
        assert_eq!(line("{size} {rsize}", &query, &failed), "55 32");
    }

    #[test]
    fn what_is_no_placeholder_is_text() {
        let query = query("a.b", Type::AAAA);
        for (format, expected) in [
            ("{type}", "AAAA"),
            ("a{type}b", "aAAAAb"),
            ("{ {type} }", "{ AAAA }"),
            ("} {type}", "} AAAA"),
            ("{typ} {name}", "{typ} a.b."),
            ("{/kubernetes/endpoint}", "-"),
            ("{>opcode} {unknown", "0 {unknown"),
            ("", ""),
        ] {
            assert_eq!(
                line(format, &query, &Ok(Outcome::Drop)),
                expected,
                "{format}"
            );
        }
    }
}
