//! Questions out of bytes, and answers into them.

use std::time::{Duration, Instant};

use super::cookie::{Cookies, SERVER_COOKIE};
use super::desk::Line;
use crate::query::{Answer, Query, Transport};
use crate::wire::{Data, EdnsOption, Header, Opcode, OptOut, Rcode, Reader, WireError, Writer};

/// The largest UDP message that is taken, as our OPT record says: it crosses any link whole.
const UDP_SIZE: u16 = 1232;
/// What everybody takes.
const LEAST_UDP: u16 = 512;

/// What bytes are.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are questions, and a box would be an allocation for each"
)]
pub(super) enum Read {
    /// Nothing that is answered: too short for a message, or itself a response. An answer to
    /// either could go in circles.
    Nothing,
    /// The answer is written already.
    Reply,
    /// A question.
    Query(Query, Asked),
}

/// What the answer's form depends on, besides the question.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// How long the message is.
    pub(super) len: usize,
    /// Of EDNS; 0 is the only one there is.
    pub(super) version: u8,
    /// What EDNS adds.
    extras: Extras,
}

/// Options of EDNS that the server itself answers.
#[derive(Clone, Copy, Debug, Default)]
struct Extras {
    /// The client's cookie.
    cookie: Option<[u8; 8]>,
    /// Who asks wants to know how long the connection may be idle; that long.
    keepalive: Option<Duration>,
}

impl Asked {
    /// How long the connection may be idle, if that was asked.
    pub(super) fn keepalive(&self) -> Option<Duration> {
        self.extras.keepalive
    }

    /// The answer to that.
    pub(super) fn set_keepalive(&mut self, idle: Duration) {
        self.extras.keepalive = Some(idle);
    }
}

/// Reads a message; what is wrong with it is answered at once.
pub(super) fn read(bytes: &[u8], line: Line, now: Instant, out: &mut Vec<u8>) -> Read {
    let mut reader = Reader::new(bytes);
    let Ok((header, counts)) = reader.header() else {
        return Read::Nothing;
    };
    if header.response {
        return Read::Nothing;
    }
    if header.opcode != Opcode::QUERY {
        reply(&header, Rcode::NOTIMP, line.transport, out);
        return Read::Reply;
    }
    // A question has no answers but those of a notification and the serial of an IXFR, and of
    // additional records OPT and TSIG at most.
    let read = match counts {
        [1, ..=1, ..=1, ..=2] => rest(&mut reader, &header, counts, line, now),
        _ => Err(WireError::Questions),
    };
    match read {
        Ok((query, extras)) => {
            let asked = Asked {
                len: bytes.len(),
                version: query.edns.as_ref().map_or(0, |edns| edns.version),
                extras,
            };
            Read::Query(query, asked)
        }
        Err(_) => {
            reply(&header, Rcode::FORMERR, line.transport, out);
            Read::Reply
        }
    }
}

/// What follows the header of a question.
fn rest(
    reader: &mut Reader<'_>,
    header: &Header,
    [_, answers, authorities, additionals]: [u16; 4],
    line: Line,
    now: Instant,
) -> Result<(Query, Extras), WireError> {
    let question = reader.question()?;
    for _ in 0..answers {
        reader.record()?;
    }
    let mut serial = None;
    for _ in 0..authorities {
        if let Data::Soa(soa) = reader.record()?.data {
            serial = Some(soa.serial);
        }
    }
    let mut edns = None;
    for _ in 0..additionals {
        match reader.opt()? {
            Some((opt, _)) if edns.is_none() => edns = Some(opt),
            Some(_) => return Err(WireError::Opt),
            None => drop(reader.record()?),
        }
    }
    let mut extras = Extras::default();
    if let Some(edns) = &edns {
        if let Some(cookie) = edns.option(EdnsOption::COOKIE) {
            extras.cookie = Some(client_cookie(cookie)?);
        }
        let keepalive = edns.option(EdnsOption::KEEPALIVE);
        extras.keepalive = keepalive.map(|_| Duration::ZERO);
    }
    let query = Query {
        id: header.id,
        question,
        recursion_desired: header.recursion_desired,
        authentic: header.authentic,
        checking_disabled: header.checking_disabled,
        edns,
        serial,
        client: line.client,
        server: line.server,
        transport: line.transport,
        now,
    };
    Ok((query, extras))
}

/// The client's part of a cookie, alone or with a server's behind it (RFC 7873, section 5.2.2).
fn client_cookie(cookie: &[u8]) -> Result<[u8; 8], WireError> {
    let (client, server) = cookie.split_first_chunk().ok_or(WireError::Opt)?;
    match server.len() {
        0 | 8..=32 => Ok(*client),
        _ => Err(WireError::Opt),
    }
}

/// A reply that is a header alone.
fn reply(header: &Header, rcode: Rcode, transport: Transport, out: &mut Vec<u8>) {
    let header = Header {
        id: header.id,
        response: true,
        opcode: header.opcode,
        recursion_desired: header.recursion_desired,
        checking_disabled: header.checking_disabled,
        rcode,
        ..Header::default()
    };
    framed(transport, out, |out| Writer::new(out, 512).header(&header));
}

/// Answers bytes that were a question with a code.
pub(super) fn refuse(bytes: &[u8], transport: Transport, rcode: Rcode, out: &mut Vec<u8>) {
    if let Ok((header, _)) = Reader::new(bytes).header() {
        reply(&header, rcode, transport, out);
    }
}

/// Writes a message; over TCP its length before it.
fn framed(transport: Transport, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let stream = matches!(transport, Transport::Tcp | Transport::Tls);
    if stream {
        out.extend_from_slice(&[0; 2]);
    }
    let begin = out.len();
    write(out);
    if stream {
        let len = (out.len() - begin).min(usize::from(u16::MAX)) as u16;
        out[begin - 2..begin].copy_from_slice(&len.to_be_bytes());
    }
}

/// How long a message to this client may be.
fn limit(query: &Query) -> usize {
    if query.transport != Transport::Udp {
        return usize::from(u16::MAX);
    }
    let said = query.edns.as_ref().map_or(LEAST_UDP, |edns| edns.udp_size);
    usize::from(said.max(LEAST_UDP))
}

/// Writes an answer. The question stands in it as it was asked, letter for letter.
pub(super) fn write(
    query: &Query,
    asked: &Asked,
    answer: &Answer,
    cookies: &Cookies,
    out: &mut Vec<u8>,
) {
    let header = Header {
        id: query.id,
        response: true,
        opcode: Opcode::QUERY,
        authoritative: answer.authoritative,
        truncated: answer.truncated,
        recursion_desired: answer.recursion_desired.unwrap_or(query.recursion_desired),
        recursion_available: answer.recursion_available,
        authentic: answer.authentic,
        checking_disabled: query.checking_disabled,
        rcode: answer.rcode,
    };
    let limit = limit(query);
    framed(query.transport, out, |out| {
        let mut writer = Writer::new(out, limit);
        writer.header(&header);
        writer.question(&query.question);
        let sections = [
            answer.answers.as_slice(),
            &answer.authorities,
            &answer.additionals,
        ];
        let Some(edns) = &query.edns else {
            writer.sections(sections, None);
            return;
        };
        let mut options = answer.options.clone();
        own_options(query, asked, cookies, &mut options);
        if edns.option(EdnsOption::ANSWERED_BY).is_some() {
            let said = format!("{} at {}", answer.by, query.server.ip());
            options.push(EdnsOption {
                code: EdnsOption::ANSWERED_BY,
                data: said.into_bytes().into(),
            });
        }
        let opt = OptOut {
            udp_size: UDP_SIZE,
            version: 0,
            dnssec_ok: edns.dnssec_ok,
            rcode: answer.rcode,
            options: &options,
        };
        writer.sections(sections, Some(&opt));
    });
}

/// The options that the server itself answers.
fn own_options(query: &Query, asked: &Asked, cookies: &Cookies, options: &mut Vec<EdnsOption>) {
    if let Some(client) = asked.extras.cookie {
        let mut data = Vec::with_capacity(8 + SERVER_COOKIE);
        data.extend_from_slice(&client);
        data.extend_from_slice(&cookies.make(client, query.client.ip()));
        options.push(EdnsOption {
            code: EdnsOption::COOKIE,
            data: data.into(),
        });
    }
    if let Some(idle) = asked.extras.keepalive
        && matches!(query.transport, Transport::Tcp | Transport::Tls)
    {
        let tenths = u16::try_from(idle.as_millis() / 100).unwrap_or(u16::MAX);
        options.push(EdnsOption {
            code: EdnsOption::KEEPALIVE,
            data: tenths.to_be_bytes().into(),
        });
    }
}
