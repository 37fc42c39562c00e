//! Writing messages, with names compressed where that is allowed.

use smallvec::SmallVec;

use super::{Data, EdnsOption, Header, Message, Name, Question, Rcode, Record, Type};

/// A pointer has 14 bits.
const FAR: usize = 0x3fff;
/// So many places of names are remembered: enough for all of an answer of usual size.
const REMEMBERED: usize = 64;

/// A message on its way into bytes.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where the message begins in `out`.
    start: usize,
    limit: usize,
    /// Where names and their ends stand, from the message's beginning.
    places: SmallVec<[u16; REMEMBERED]>,
    /// How long the question's name is, which stands whole behind the header.
    question: usize,
}

/// How long a header is.
const HEADER: usize = 12;
/// A pointer to the question's name.
const QUESTION: u16 = 0xc000 | HEADER as u16;

impl<'a> Writer<'a> {
    /// Appends to `out`, at most `limit` bytes.
    pub fn new(out: &'a mut Vec<u8>, limit: usize) -> Self {
        let start = out.len();
        Self {
            out,
            start,
            limit: limit.min(usize::from(u16::MAX)),
            places: SmallVec::new(),
            question: 0,
        }
    }

    /// The whole message, as [`Message::write`] says.
    pub fn message(mut self, message: &Message) {
        self.header(&message.header);
        if let Some(question) = &message.question {
            self.question(question);
        }
        let sections = [
            message.answers.as_slice(),
            &message.authorities,
            &message.additionals,
        ];
        let opt = message.edns.as_ref().map(|edns| OptOut {
            udp_size: edns.udp_size,
            version: edns.version,
            dnssec_ok: edns.dnssec_ok,
            rcode: message.header.rcode,
            options: &edns.options,
        });
        self.sections(sections, opt.as_ref());
    }

    /// Answers, authority and additional records, as many of them as there is room for, and
    /// OPT in any case. TC says that some were left out, of whichever section: which of the
    /// additional records were needed only their reader knows.
    pub fn sections(&mut self, sections: [&[Record]; 3], opt: Option<&OptOut<'_>>) {
        let limit = self.limit.saturating_sub(opt.map_or(0, OptOut::len));
        let mut counts = [6, 8, 10].into_iter().zip(sections);
        if !counts.all(|(count, records)| self.section(records, limit, count)) {
            self.out[self.start + 2] |= 2;
        }
        if let Some(opt) = opt {
            self.opt(opt);
        }
    }

    fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// The header, with counts of nothing.
    pub fn header(&mut self, header: &Header) {
        let bit = |set: bool, mask: u8| if set { mask } else { 0 };
        let high = bit(header.response, 0x80)
            | (header.opcode.0 & 15) << 3
            | bit(header.authoritative, 4)
            | bit(header.truncated, 2)
            | bit(header.recursion_desired, 1);
        let low = bit(header.recursion_available, 0x80)
            | bit(header.authentic, 0x20)
            | bit(header.checking_disabled, 0x10)
            | (header.rcode.0 & 15) as u8;
        self.u16(header.id);
        self.out
            .extend_from_slice(&[high, low, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    /// The question.
    pub fn question(&mut self, question: &Question) {
        self.name(&question.name);
        let end = self.out.len() - self.start;
        // The root is shorter than a pointer to it.
        if end == HEADER + question.name.as_bytes().len() && !question.name.is_root() {
            self.question = end - HEADER;
        }
        self.u16(question.kind.0);
        self.u16(question.class.0);
        self.count(4);
    }

    /// One more in the count at this place of the header.
    fn count(&mut self, at: usize) {
        let count = &mut self.out[self.start + at..self.start + at + 2];
        let next = u16::from_be_bytes([count[0], count[1]]).saturating_add(1);
        count.copy_from_slice(&next.to_be_bytes());
    }

    /// Records of a section, as many as there is room for; false where some were left out.
    fn section(&mut self, records: &[Record], limit: usize, count: usize) -> bool {
        for record in records {
            let (before, places) = (self.out.len(), self.places.len());
            self.record(record);
            if self.out.len() - self.start > limit {
                self.out.truncate(before);
                self.places.truncate(places);
                return false;
            }
            self.count(count);
        }
        true
    }

    fn record(&mut self, record: &Record) {
        self.name(&record.name);
        self.u16(record.kind().0);
        self.u16(record.class.0);
        self.u32(record.ttl);
        self.u16(0);
        let begin = self.out.len();
        self.data(&record.data);
        let len = (self.out.len() - begin).min(usize::from(u16::MAX)) as u16;
        self.out[begin - 2..begin].copy_from_slice(&len.to_be_bytes());
    }

    fn data(&mut self, data: &Data) {
        match data {
            Data::A(ip) => self.out.extend_from_slice(&ip.octets()),
            Data::Aaaa(ip) => self.out.extend_from_slice(&ip.octets()),
            Data::Cname(name) | Data::Ns(name) | Data::Ptr(name) => self.name(name),
            Data::Mx(preference, name) => {
                self.u16(*preference);
                self.name(name);
            }
            Data::Soa(soa) => {
                self.name(&soa.primary);
                self.name(&soa.mailbox);
                for number in [soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum] {
                    self.u32(number);
                }
            }
            // Not to be compressed (RFC 2782, RFC 6672).
            Data::Dname(name) => self.out.extend_from_slice(name.as_bytes()),
            Data::Srv {
                priority,
                weight,
                port,
                target,
            } => {
                self.u16(*priority);
                self.u16(*weight);
                self.u16(*port);
                self.out.extend_from_slice(target.as_bytes());
            }
            Data::Txt(bytes) | Data::Other(_, bytes) => self.out.extend_from_slice(bytes),
        }
    }

    /// A name, its end as a pointer where the same stands before. Letters must be the same too:
    /// whoever asked `ExAmPlE` gets `ExAmPlE`, everybody else what was meant.
    fn name(&mut self, name: &Name) {
        let whole = name.as_bytes();
        if whole.len() == self.question {
            let asked = self.start + HEADER;
            if self.out[asked..asked + self.question] == *whole {
                self.u16(QUESTION);
                return;
            }
        }
        let mut at = 0;
        while whole[at] != 0 {
            if let Some(place) = self.place_of(&whole[at..]) {
                self.u16(0xc000 | place);
                return;
            }
            let here = self.out.len() - self.start;
            if here <= FAR && self.places.len() < REMEMBERED {
                self.places.push(here as u16);
            }
            let end = at + 1 + usize::from(whole[at]);
            self.out.extend_from_slice(&whole[at..end]);
            at = end;
        }
        self.out.push(0);
    }

    /// Where these labels up to the root stand already.
    fn place_of(&self, labels: &[u8]) -> Option<u16> {
        let found = self
            .places
            .iter()
            .find(|&&place| self.stands(place, labels));
        found.copied()
    }

    fn stands(&self, place: u16, mut labels: &[u8]) -> bool {
        let written = &self.out[self.start..];
        let mut at = usize::from(place);
        loop {
            let Some(&first) = written.get(at) else {
                return false;
            };
            if first >= 192 {
                let Some(&second) = written.get(at + 1) else {
                    return false;
                };
                at = usize::from(first & 63) << 8 | usize::from(second);
                continue;
            }
            let len = 1 + usize::from(first);
            if written.get(at..at + len) != labels.get(..len) {
                return false;
            }
            if first == 0 {
                return true;
            }
            labels = &labels[len..];
            at += len;
        }
    }

    fn opt(&mut self, opt: &OptOut<'_>) {
        self.out.push(0);
        self.u16(Type::OPT.0);
        self.u16(opt.udp_size);
        let flags = if opt.dnssec_ok { 0x80 } else { 0 };
        let high = (opt.rcode.0 >> 4).min(255) as u8;
        self.out.extend_from_slice(&[high, opt.version, flags, 0]);
        self.u16((opt.len() - 11) as u16);
        for option in opt.options {
            self.u16(option.code);
            self.u16(option.data.len() as u16);
            self.out.extend_from_slice(&option.data);
        }
        self.count(10);
    }
}

/// The OPT record of a message to be written.
#[derive(Clone, Copy, Debug)]
pub struct OptOut<'a> {
    /// The largest UDP message that the sender takes.
    pub udp_size: u16,
    /// Version of EDNS.
    pub version: u8,
    /// DO.
    pub dnssec_ok: bool,
    /// The message's code, of which it has the upper bits.
    pub rcode: Rcode,
    /// Options in their order.
    pub options: &'a [EdnsOption],
}

impl OptOut<'_> {
    /// How long the record is.
    fn len(&self) -> usize {
        let options = self.options.iter().map(|option| 4 + option.data.len());
        11 + options.sum::<usize>()
    }
}
