//! Reading messages that anybody may have sent.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Class, Data, Edns, EdnsOption, Header, Message, Name, Opcode, Question, Rcode, Record, Soa,
    Type,
};

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends too early.
    #[error("the message ends in the middle")]
    Short,
    /// A compression pointer that does not lead backwards, or an unknown kind of label.
    #[error("a name is not well formed")]
    Name,
    /// A name of more than 255 bytes.
    #[error("a name of more than 255 bytes")]
    LongName,
    /// Not one question.
    #[error("more than one question")]
    Questions,
    /// A record's content is not what its length says.
    #[error("a record is not well formed")]
    Record,
    /// More than one OPT record, or one in the wrong place.
    #[error("more than one OPT record")]
    Opt,
    /// There is something behind the end.
    #[error("bytes behind the end of the message")]
    Trailing,
}

/// A position in a message.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the message's beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(len).ok_or(WireError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(WireError::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// The header and the counts of question, answer, authority and additional records.
    ///
    /// # Errors
    /// Fewer than twelve bytes.
    pub fn header(&mut self) -> Result<(Header, [u16; 4]), WireError> {
        let id = self.u16()?;
        let [high, low] = self.array()?;
        let header = Header {
            id,
            response: high & 0x80 != 0,
            opcode: Opcode(high >> 3 & 15),
            authoritative: high & 4 != 0,
            truncated: high & 2 != 0,
            recursion_desired: high & 1 != 0,
            recursion_available: low & 0x80 != 0,
            authentic: low & 0x20 != 0,
            checking_disabled: low & 0x10 != 0,
            rcode: Rcode(u16::from(low & 15)),
        };
        Ok((header, [self.u16()?, self.u16()?, self.u16()?, self.u16()?]))
    }

    /// A question.
    ///
    /// # Errors
    /// It is cut off, or its name is none.
    pub fn question(&mut self) -> Result<Question, WireError> {
        Ok(Question {
            name: self.name()?,
            kind: Type(self.u16()?),
            class: Class(self.u16()?),
        })
    }

    /// A name, its compression undone.
    ///
    /// # Errors
    /// It is cut off, too long, or goes in circles.
    pub fn name(&mut self) -> Result<Name, WireError> {
        // That of a question is not compressed, and taken as it stands.
        let mut at = self.at;
        while let Some(&len @ 1..=63) = self.bytes.get(at) {
            at += 1 + usize::from(len);
        }
        match self.bytes.get(self.at..=at) {
            Some(whole @ [.., 0]) if whole.len() <= 255 => {
                self.at = at + 1;
                Ok(Name::from_checked(whole))
            }
            _ => self.compressed_name(),
        }
    }

    /// A name of any kind: pointers lead backwards only, each further than the one before, so
    /// that there is an end.
    fn compressed_name(&mut self) -> Result<Name, WireError> {
        let mut whole = [0_u8; 255];
        let mut len = 0;
        let (mut at, mut before) = (self.at, self.at);
        let mut followed = false;
        loop {
            let first = *self.bytes.get(at).ok_or(WireError::Short)?;
            match first {
                0..=63 => {
                    let end = at + 1 + usize::from(first);
                    let label = self.bytes.get(at..end).ok_or(WireError::Short)?;
                    let room = whole.get_mut(len..len + label.len());
                    room.ok_or(WireError::LongName)?.copy_from_slice(label);
                    len += label.len();
                    at = end;
                    if first == 0 {
                        break;
                    }
                }
                192.. => {
                    let second = *self.bytes.get(at + 1).ok_or(WireError::Short)?;
                    if !followed {
                        self.at = at + 2;
                        followed = true;
                    }
                    at = usize::from(first & 63) << 8 | usize::from(second);
                    if at >= before {
                        return Err(WireError::Name);
                    }
                    before = at;
                }
                _ => return Err(WireError::Name),
            }
        }
        if !followed {
            self.at = at;
        }
        Ok(Name::from_checked(&whole[..len]))
    }

    /// A record.
    ///
    /// # Errors
    /// It is cut off, or its content is not what its type and length say.
    pub fn record(&mut self) -> Result<Record, WireError> {
        let name = self.name()?;
        let kind = Type(self.u16()?);
        let class = Class(self.u16()?);
        let ttl = self.u32()?;
        let len = usize::from(self.u16()?);
        let end = self.at + len;
        if end > self.bytes.len() {
            return Err(WireError::Short);
        }
        let data = self.data(kind, end)?;
        if self.at != end {
            return Err(WireError::Record);
        }
        Ok(Record {
            name,
            class,
            ttl,
            data,
        })
    }

    fn data(&mut self, kind: Type, end: usize) -> Result<Data, WireError> {
        Ok(match kind {
            Type::A => Data::A(Ipv4Addr::from(self.array::<4>()?)),
            Type::AAAA => Data::Aaaa(Ipv6Addr::from(self.array::<16>()?)),
            Type::CNAME => Data::Cname(self.name()?),
            Type::DNAME => Data::Dname(self.name()?),
            Type::NS => Data::Ns(self.name()?),
            Type::PTR => Data::Ptr(self.name()?),
            Type::MX => Data::Mx(self.u16()?, self.name()?),
            Type::SRV => Data::Srv {
                priority: self.u16()?,
                weight: self.u16()?,
                port: self.u16()?,
                target: self.name()?,
            },
            Type::SOA => Data::Soa(Box::new(Soa {
                primary: self.name()?,
                mailbox: self.name()?,
                serial: self.u32()?,
                refresh: self.u32()?,
                retry: self.u32()?,
                expire: self.u32()?,
                minimum: self.u32()?,
            })),
            Type::TXT => {
                let text = self.rest(end)?;
                strings(text)?;
                Data::Txt(text.into())
            }
            other => Data::Other(other, self.uncompressed(other, end)?),
        })
    }

    fn rest(&mut self, end: usize) -> Result<&'a [u8], WireError> {
        let len = end.checked_sub(self.at).ok_or(WireError::Record)?;
        self.take(len)
    }

    /// The content of a record whose type older servers may have compressed (RFC 3597, section
    /// 4), with its names whole; of any other type as it is.
    fn uncompressed(&mut self, kind: Type, end: usize) -> Result<Box<[u8]>, WireError> {
        let (before, names): (usize, usize) = match kind {
            Type::MD | Type::MF | Type::MB | Type::MG | Type::MR => (0, 1),
            Type::MINFO | Type::RP => (0, 2),
            Type::AFSDB | Type::RT => (2, 1),
            Type::PX => (2, 2),
            Type::NXT => (0, 1),
            Type::SIG => (18, 1),
            Type::NAPTR => (self.naptr_strings()?, 1),
            _ => (0, 0),
        };
        if names == 0 {
            return Ok(self.rest(end)?.into());
        }
        let mut whole = self.take(before)?.to_vec();
        for _ in 0..names {
            whole.extend_from_slice(self.name()?.as_bytes());
        }
        whole.extend_from_slice(self.rest(end)?);
        // Names that pointers stood for may be longer than what a length can say.
        if whole.len() > usize::from(u16::MAX) {
            return Err(WireError::Record);
        }
        Ok(whole.into())
    }

    /// How many bytes a NAPTR record has before its name: order, preference, three strings.
    fn naptr_strings(&self) -> Result<usize, WireError> {
        let mut ahead = *self;
        ahead.take(4)?;
        for _ in 0..3 {
            let len = usize::from(ahead.u8()?);
            ahead.take(len)?;
        }
        Ok(ahead.at - self.at)
    }

    /// A whole message; nothing may follow it.
    pub(super) fn message(mut self) -> Result<Message, WireError> {
        let (header, [questions, answers, authorities, additionals]) = self.header()?;
        let mut message = Message {
            header,
            ..Message::default()
        };
        message.question = match questions {
            0 => None,
            1 => Some(self.question()?),
            _ => return Err(WireError::Questions),
        };
        for _ in 0..answers {
            message.answers.push(self.record()?);
        }
        for _ in 0..authorities {
            message.authorities.push(self.record()?);
        }
        for _ in 0..additionals {
            match self.opt()? {
                Some((edns, high)) => {
                    if message.edns.replace(edns).is_some() {
                        return Err(WireError::Opt);
                    }
                    message.header.rcode.0 |= u16::from(high) << 4;
                }
                None => message.additionals.push(self.record()?),
            }
        }
        if self.at != self.bytes.len() {
            return Err(WireError::Trailing);
        }
        Ok(message)
    }

    /// The OPT record and the upper bits of the response's code, if that is what comes next.
    ///
    /// # Errors
    /// It is cut off, or an option is.
    pub fn opt(&mut self) -> Result<Option<(Edns, u8)>, WireError> {
        // OPT belongs to the root; no other record of the root is told apart so cheaply.
        if !self.bytes[self.at..].starts_with(&[0, 0, Type::OPT.0 as u8]) {
            return Ok(None);
        }
        self.take(3)?;
        let udp_size = self.u16()?;
        let [rcode, version, flags, _] = self.array()?;
        let len = usize::from(self.u16()?);
        let mut inner = Reader::new(self.take(len)?);
        let mut options = Vec::new();
        while inner.at < inner.bytes.len() {
            let code = inner.u16()?;
            let len = usize::from(inner.u16()?);
            let data = inner.take(len)?.into();
            options.push(EdnsOption { code, data });
        }
        let edns = Edns {
            udp_size,
            version,
            dnssec_ok: flags & 0x80 != 0,
            options,
        };
        Ok(Some((edns, rcode)))
    }
}

/// Checks that bytes are character strings one behind the other, at least one.
fn strings(mut bytes: &[u8]) -> Result<(), WireError> {
    if bytes.is_empty() {
        return Err(WireError::Record);
    }
    while let Some((&len, rest)) = bytes.split_first() {
        bytes = rest.get(usize::from(len)..).ok_or(WireError::Record)?;
    }
    Ok(())
}
