//! Records as text.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::digits::{BASE32, BASE64, HEX};
use super::fields::{self, Part};
use super::svcb;
use crate::wire::{Data, Name, Reader, Record, Type};

/// A record, in one line.
pub fn record_text(record: &Record) -> String {
    let Record {
        name,
        ttl,
        class,
        data,
    } = record;
    format!(
        "{name}\t{ttl}\t{class}\t{}\t{}",
        data.kind(),
        data_text(data)
    )
}

/// A record's data. What is of no known form has the one of unknown types (RFC 3597).
pub fn data_text(data: &Data) -> String {
    let bytes = bytes(data);
    let known = fields::of(data.kind()).and_then(|parts| decode(parts, &bytes));
    known.unwrap_or_else(|| {
        let digits = HEX.encode(&bytes);
        format!("\\# {} {digits}", bytes.len())
            .trim_end()
            .to_owned()
    })
}

/// Wire format, without compression.
fn bytes(data: &Data) -> Vec<u8> {
    let mut out = Vec::new();
    match data {
        Data::A(ip) => out.extend_from_slice(&ip.octets()),
        Data::Aaaa(ip) => out.extend_from_slice(&ip.octets()),
        Data::Cname(name) | Data::Dname(name) | Data::Ns(name) | Data::Ptr(name) => {
            out.extend_from_slice(name.as_bytes());
        }
        Data::Soa(soa) => {
            out.extend_from_slice(soa.primary.as_bytes());
            out.extend_from_slice(soa.mailbox.as_bytes());
            for number in [soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        Data::Mx(preference, name) => {
            out.extend_from_slice(&preference.to_be_bytes());
            out.extend_from_slice(name.as_bytes());
        }
        Data::Srv {
            priority,
            weight,
            port,
            target,
        } => {
            for number in [priority, weight, port] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(target.as_bytes());
        }
        Data::Txt(bytes) | Data::Other(_, bytes) => out.extend_from_slice(bytes),
    }
    out
}

fn decode(parts: &[Part], mut bytes: &[u8]) -> Option<String> {
    let mut words = Vec::new();
    for part in parts {
        let (word, rest) = take(*part, bytes)?;
        words.push(word);
        bytes = rest;
    }
    words.retain(|word| !word.is_empty());
    bytes.is_empty().then(|| words.join(" "))
}

/// The text of a part, and what is behind it.
fn take(part: Part, bytes: &[u8]) -> Option<(String, &[u8])> {
    Some(match part {
        Part::Name => {
            let name: Name = Reader::new(bytes).name().ok()?;
            let len = name.as_bytes().len();
            // A pointer in data of unknown types would be shorter than its name.
            if bytes.get(..len)? != name.as_bytes() {
                return None;
            }
            (name.to_string(), &bytes[len..])
        }
        Part::U8 => {
            let (number, rest) = bytes.split_first()?;
            (number.to_string(), rest)
        }
        Part::U16 => {
            let (number, rest) = bytes.split_first_chunk()?;
            (u16::from_be_bytes(*number).to_string(), rest)
        }
        Part::U32 | Part::Span | Part::Time => {
            let (number, rest) = bytes.split_first_chunk()?;
            (u32::from_be_bytes(*number).to_string(), rest)
        }
        Part::Type => {
            let (number, rest) = bytes.split_first_chunk()?;
            (Type(u16::from_be_bytes(*number)).to_string(), rest)
        }
        Part::V4 => {
            let (ip, rest) = bytes.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*ip).to_string(), rest)
        }
        Part::V6 => {
            let (ip, rest) = bytes.split_first_chunk::<16>()?;
            (Ipv6Addr::from(*ip).to_string(), rest)
        }
        Part::Text => {
            let (text, rest) = counted(bytes)?;
            (string(text), rest)
        }
        Part::Texts | Part::MoreTexts => {
            let (mut words, mut rest) = (Vec::new(), bytes);
            while !rest.is_empty() {
                let (text, after) = counted(rest)?;
                words.push(string(text));
                rest = after;
            }
            (words.join(" "), rest)
        }
        Part::Rest => (string(bytes), &[]),
        Part::Hex | Part::Base64 if bytes.is_empty() => return None,
        Part::Hex => (HEX.encode(bytes), &[]),
        Part::Base64 => (BASE64.encode(bytes), &[]),
        Part::Salt => {
            let (salt, rest) = counted(bytes)?;
            let text = if salt.is_empty() {
                "-".to_owned()
            } else {
                HEX.encode(salt)
            };
            (text, rest)
        }
        Part::Hash => {
            let (hash, rest) = counted(bytes).filter(|(hash, _)| !hash.is_empty())?;
            (BASE32.encode(hash), rest)
        }
        Part::Types => (types(bytes)?, &[]),
        Part::Params => (svcb::decode(bytes)?, &[]),
    })
}

fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(len))
}

/// A quoted string.
pub(super) fn string(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                // Writing into a String does not fail.
                let _ = write!(text, "\\{byte:03}");
            }
        }
    }
    text.push('"');
    text
}

/// The types of a bitmap in its one form: windows in order, no zeros at their ends.
fn types(mut bytes: &[u8]) -> Option<String> {
    let (mut words, mut last) = (Vec::new(), None);
    while let Some((&window, rest)) = bytes.split_first() {
        let (bits, rest) = counted(rest)?;
        if bits.last().is_none_or(|&byte| byte == 0) || bits.len() > 32 || last >= Some(window) {
            return None;
        }
        last = Some(window);
        for (at, byte) in bits.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte & (0x80 >> bit) != 0) {
                let low = (at * 8 + bit) as u8;
                words.push(Type(u16::from_be_bytes([window, low])).to_string());
            }
        }
        bytes = rest;
    }
    Some(words.join(" "))
}
