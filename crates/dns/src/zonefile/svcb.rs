//! Parameters of SVCB and HTTPS records (RFC 9460).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::digits::BASE64;
use super::lex::{Field, unescaped};
use super::rdata::counted;

const KEYS: [&str; 8] = [
    "mandatory",
    "alpn",
    "no-default-alpn",
    "port",
    "ipv4hint",
    "ech",
    "ipv6hint",
    "dohpath",
];

fn key(word: &str) -> Option<u16> {
    let known = KEYS.iter().position(|known| *known == word);
    known
        .map(|at| at as u16)
        .or_else(|| word.strip_prefix("key")?.parse().ok())
}

fn word(key: u16) -> String {
    let known = KEYS.get(usize::from(key));
    known.map_or_else(|| format!("key{key}"), |word| (*word).to_owned())
}

/// Appends the parameters, in the order of their keys.
pub(super) fn encode(text: &[Field], out: &mut Vec<u8>) -> Result<(), String> {
    let mut params = BTreeMap::new();
    for field in text {
        let (word, value) = field.text.split_once('=').unwrap_or((&field.text, ""));
        let key = key(word).ok_or_else(|| format!("{word:?} is no parameter of a service"))?;
        let value = encode_value(key, value).map_err(|what| format!("{word}: {what}"))?;
        if params.insert(key, value).is_some() {
            return Err(format!("{word} is there twice"));
        }
    }
    for (key, value) in params {
        let len = u16::try_from(value.len());
        let len = len.map_err(|_| format!("{} is too long", word(key)))?;
        out.extend_from_slice(&key.to_be_bytes());
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&value);
    }
    Ok(())
}

fn encode_value(param: u16, value: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match param {
        0 => {
            let mut keys = Vec::new();
            for word in value.split(',') {
                keys.push(key(word).ok_or_else(|| format!("{word:?} is no parameter"))?);
            }
            keys.sort_unstable();
            keys.iter()
                .for_each(|key| out.extend_from_slice(&key.to_be_bytes()));
        }
        1 => {
            for protocol in list(value) {
                counted(&unescaped(&protocol)?, &mut out)?;
            }
            if out.is_empty() {
                return Err("a protocol is missing".to_owned());
            }
        }
        2 if value.is_empty() => {}
        2 => return Err("it has no value".to_owned()),
        3 => {
            let port: u16 = value.parse().map_err(|_| format!("{value:?} is no port"))?;
            out.extend_from_slice(&port.to_be_bytes());
        }
        4 => {
            for ip in value.split(',') {
                let ip: Ipv4Addr = ip
                    .parse()
                    .map_err(|_| format!("{ip:?} is no IPv4 address"))?;
                out.extend_from_slice(&ip.octets());
            }
        }
        5 => {
            out = BASE64
                .decode(value)
                .ok_or_else(|| format!("{value:?} is not base 64"))?
        }
        6 => {
            for ip in value.split(',') {
                let ip: Ipv6Addr = ip
                    .parse()
                    .map_err(|_| format!("{ip:?} is no IPv6 address"))?;
                out.extend_from_slice(&ip.octets());
            }
        }
        _ => out = unescaped(value)?,
    }
    Ok(out)
}

/// The items of a list with commas; `\\,` is a comma within one.
fn list(value: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut rest = value.chars().peekable();
    while let Some(next) = rest.next() {
        let Some(item) = items.last_mut() else { break };
        match next {
            ',' => items.push(String::new()),
            '\\' => {
                // One backslash of the string, one of the list.
                if rest.peek() == Some(&'\\') {
                    rest.next();
                }
                if rest.next_if_eq(&',').is_some() {
                    item.push(',');
                } else {
                    item.push('\\');
                    item.extend(rest.next());
                }
            }
            next => item.push(next),
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

/// The parameters as text; none where they are not well formed.
pub(super) fn decode(mut bytes: &[u8]) -> Option<String> {
    let mut words = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let key = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(..len)?;
        bytes = &rest[len..];
        let value = decode_value(key, value)?;
        words.push(if value.is_empty() && key != 5 {
            word(key)
        } else {
            format!("{}={value}", word(key))
        });
    }
    Some(words.join(" "))
}

fn decode_value(key: u16, value: &[u8]) -> Option<String> {
    let joined = |items: Vec<String>| Some(items.join(","));
    match key {
        0 if !value.is_empty() => {
            let (pairs, []) = value.as_chunks::<2>() else {
                return None;
            };
            joined(
                pairs
                    .iter()
                    .map(|pair| word(u16::from_be_bytes(*pair)))
                    .collect(),
            )
        }
        3 => Some(u16::from_be_bytes(value.try_into().ok()?).to_string()),
        4 if !value.is_empty() => {
            let (ips, []) = value.as_chunks::<4>() else {
                return None;
            };
            joined(
                ips.iter()
                    .map(|ip| Ipv4Addr::from(*ip).to_string())
                    .collect(),
            )
        }
        5 => Some(BASE64.encode(value)),
        6 if !value.is_empty() => {
            let (ips, []) = value.as_chunks::<16>() else {
                return None;
            };
            joined(
                ips.iter()
                    .map(|ip| Ipv6Addr::from(*ip).to_string())
                    .collect(),
            )
        }
        1 => {
            let mut items = Vec::new();
            let mut rest = value;
            while let Some((&len, after)) = rest.split_first() {
                let item = after.get(..usize::from(len))?;
                // Commas and backslashes would need escapes in escapes.
                if item.is_empty()
                    || !item
                        .iter()
                        .all(|b| b.is_ascii_alphanumeric() || b"-./_".contains(b))
                {
                    return None;
                }
                items.push(String::from_utf8_lossy(item).into_owned());
                rest = &after[usize::from(len)..];
            }
            (!items.is_empty()).then(|| items.join(","))
        }
        2 => value.is_empty().then(String::new),
        0 | 4 | 6 => None,
        _ => Some(super::print::string(value)),
    }
}
