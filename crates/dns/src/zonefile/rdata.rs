//! A record's data: from text to wire format, and from there to what the server works with.

use super::digits::{BASE32, BASE64, HEX};
use super::fields::{self, Part};
use super::lex::{Field, unescaped};
use super::{name, svcb, ttl};
use crate::wire::{Data, Name, Reader, Type};

/// The most data a record may have.
const MOST: usize = u16::MAX as usize;

/// The data of a record of a type.
pub(super) fn parse(kind: Type, text: &[Field], origin: &Name) -> Result<Data, String> {
    let generic = text
        .first()
        .is_some_and(|field| field.text == "\\#" && !field.quoted);
    let bytes = if generic {
        unknown(&text[1..])?
    } else {
        let parts = fields::of(kind).ok_or_else(|| {
            format!("the data of {kind} is taken in the form of unknown types only: \\# LENGTH HEX")
        })?;
        encode(kind, parts, text, origin)?
    };
    if bytes.len() > MOST {
        return Err(format!("the data of {kind} is longer than {MOST} bytes"));
    }
    decoded(kind, &bytes).ok_or_else(|| format!("the data is none of {kind}"))
}

/// Data in the form that all types have (RFC 3597, section 5).
fn unknown(text: &[Field]) -> Result<Vec<u8>, String> {
    let (len, digits) = text.split_first().ok_or("behind \\# stands a length")?;
    let len: usize = len.text.parse().map_err(|_| "behind \\# stands a length")?;
    let bytes = HEX
        .decode(&joined(digits))
        .ok_or("behind \\# and the length stands a hexadecimal number")?;
    if bytes.len() != len {
        return Err(format!("\\# {len} is followed by {} bytes", bytes.len()));
    }
    Ok(bytes)
}

/// What the server works with, out of wire format without compression.
fn decoded(kind: Type, data: &[u8]) -> Option<Data> {
    let mut record = vec![0];
    record.extend_from_slice(&kind.0.to_be_bytes());
    record.extend_from_slice(&[0; 6]);
    record.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
    // OPT belongs to messages; no zone has it.
    if kind == Type::OPT {
        return None;
    }
    record.extend_from_slice(data);
    Reader::new(&record).record().ok().map(|record| record.data)
}

fn joined(fields: &[Field]) -> String {
    fields.iter().map(|field| field.text.as_str()).collect()
}

fn encode(kind: Type, parts: &[Part], text: &[Field], origin: &Name) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    for part in parts {
        rest = put(*part, kind, rest, origin, &mut out)?;
    }
    match rest {
        [] => Ok(out),
        [more, ..] => Err(format!(
            "{:?} is more than the data of {kind} has",
            more.text
        )),
    }
}

/// Appends a part; what is left of the fields is returned.
fn put<'a>(
    part: Part,
    kind: Type,
    text: &'a [Field],
    origin: &Name,
    out: &mut Vec<u8>,
) -> Result<&'a [Field], String> {
    match part {
        Part::Texts if text.is_empty() => return Err(format!("the data of {kind} is missing")),
        Part::Texts | Part::MoreTexts => {
            for field in text {
                string(field, out)?;
            }
            return Ok(&[]);
        }
        Part::Hex => {
            out.extend(
                HEX.decode(&joined(text))
                    .ok_or("a hexadecimal number is missing")?,
            );
            return Ok(&[]);
        }
        Part::Base64 => {
            out.extend(
                BASE64
                    .decode(&joined(text))
                    .ok_or("a number in base 64 is missing")?,
            );
            return Ok(&[]);
        }
        Part::Types => {
            types(text, out)?;
            return Ok(&[]);
        }
        Part::Params => {
            svcb::encode(text, out)?;
            return Ok(&[]);
        }
        _ => {}
    }
    let (field, rest) = text
        .split_first()
        .ok_or_else(|| format!("the data of {kind} ends too early"))?;
    single(part, field, origin, out).map_err(|what| match what {
        What::IsNo(wanted) => format!("{:?} is no {wanted}", field.text),
        What::Text(text) => text,
    })?;
    Ok(rest)
}

enum What {
    IsNo(&'static str),
    Text(String),
}

impl From<String> for What {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Appends a part that is one field.
fn single(part: Part, field: &Field, origin: &Name, out: &mut Vec<u8>) -> Result<(), What> {
    let text = field.text.as_str();
    match part {
        Part::Name => out.extend_from_slice(name(field, origin)?.as_bytes()),
        Part::U8 => out.push(text.parse().map_err(|_| What::IsNo("number up to 255"))?),
        Part::U16 => {
            let number: u16 = text.parse().map_err(|_| What::IsNo("number up to 65535"))?;
            out.extend_from_slice(&number.to_be_bytes());
        }
        Part::U32 => {
            let number: u32 = text.parse().map_err(|_| What::IsNo("number of 32 bits"))?;
            out.extend_from_slice(&number.to_be_bytes());
        }
        Part::Span => {
            let span = ttl(field).ok_or(What::IsNo("time"))?;
            out.extend_from_slice(&span.to_be_bytes());
        }
        Part::Time => {
            let time = time(text).ok_or(What::IsNo("time such as 20250131235959"))?;
            out.extend_from_slice(&time.to_be_bytes());
        }
        Part::Type => {
            let kind = Type::from_word(text).ok_or(What::IsNo("type"))?;
            out.extend_from_slice(&kind.0.to_be_bytes());
        }
        Part::V4 => {
            let ip: std::net::Ipv4Addr = text.parse().map_err(|_| What::IsNo("IPv4 address"))?;
            out.extend_from_slice(&ip.octets());
        }
        Part::V6 => {
            let ip: std::net::Ipv6Addr = text.parse().map_err(|_| What::IsNo("IPv6 address"))?;
            out.extend_from_slice(&ip.octets());
        }
        Part::Text => string(field, out)?,
        Part::Rest => out.extend(unescaped(text)?),
        Part::Salt => {
            let digits = if text == "-" { "" } else { text };
            let salt = HEX.decode(digits).ok_or(What::IsNo("hexadecimal number"))?;
            counted(&salt, out)?;
        }
        Part::Hash => {
            let hash = BASE32.decode(text).ok_or(What::IsNo("number in base 32"))?;
            counted(&hash, out)?;
        }
        Part::Texts | Part::MoreTexts | Part::Hex | Part::Base64 | Part::Types | Part::Params => {}
    }
    Ok(())
}

fn string(field: &Field, out: &mut Vec<u8>) -> Result<(), String> {
    counted(&unescaped(&field.text)?, out)
}

/// Bytes with their length before them.
pub(super) fn counted(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let len = u8::try_from(bytes.len());
    let len = len.map_err(|_| format!("a string of {} bytes: at most 255 can be", bytes.len()))?;
    out.push(len);
    out.extend_from_slice(bytes);
    Ok(())
}

/// A bitmap of types (RFC 4034, section 4.1.2).
fn types(text: &[Field], out: &mut Vec<u8>) -> Result<(), String> {
    let mut windows: std::collections::BTreeMap<u8, [u8; 32]> = Default::default();
    for field in text {
        let kind = Type::from_word(&field.text);
        let [window, bit] = kind
            .ok_or_else(|| format!("{:?} is no type", field.text))?
            .0
            .to_be_bytes();
        windows.entry(window).or_default()[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
    }
    for (window, bits) in windows {
        let len = bits
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        out.extend_from_slice(&[window, len as u8]);
        out.extend_from_slice(&bits[..len]);
    }
    Ok(())
}

/// Seconds since 1970, modulo 2^32 (RFC 4034, section 3.1.5).
fn time(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if text.len() != 14 {
        return text.parse().ok();
    }
    let part = |from: usize, len: usize| text[from..from + len].parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 2)?, part(6, 2)?);
    let (hour, minute, second) = (part(8, 2)?, part(10, 2)?, part(12, 2)?);
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let days = days(year, month, day);
    valid.then(|| (days * 86_400 + hour * 3600 + minute * 60 + second) as u32)
}

/// Days from 1970 to a date: years begin in March, so that leap days come last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leaps = year / 4 - year / 100 + year / 400;
    365 * year + leaps + (month * 306 + 5) / 10 + day - 1 - 719_468
}
