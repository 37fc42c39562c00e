//! Bodies in Kubernetes' protobuf form. Typed Go clients (kubectl's `create`, `auth`,
//! `drain`) send built-in kinds this way and read the answers as JSON.
//!
//! `messages.txt` holds the field numbers of the messages of served kinds, as the API's
//! published `.proto` files give them, one field a line: number, mark, name, type. Marks:
//! `*` list, `%` map, `?` a Go pointer (kept where it is zero), `!` fields of the outer object.

use base64::Engine as _;
use objects::{Object, Status};
use serde_json::{Map, json};

const MESSAGES: &str = include_str!("messages.txt");
/// What every body starts with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages inside messages.
const DEPTH: usize = 64;

/// Why a body could not be read.
type Wrong = &'static str;

/// An object from `application/vnd.kubernetes.protobuf`.
pub fn to_json(body: &[u8]) -> Result<Object, Status> {
    decode(body).map_err(|wrong| {
        Status::bad_request(format!(
            "the body of the request is no readable protobuf: {wrong}"
        ))
    })
}

fn decode(body: &[u8]) -> Result<Object, Wrong> {
    let body = body
        .strip_prefix(MAGIC)
        .ok_or("it does not start as Kubernetes' form does")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &body[..0]);
    for field in Fields(body) {
        match field? {
            (1, Wire::Bytes(bytes)) => {
                for field in Fields(bytes) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let message = message_of(&api_version, &kind);
    let fields = lookup(&message).ok_or("its kind is not one that is read as protobuf")?;
    let mut object = object(fields, raw, DEPTH)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Object::Object(object))
}

fn message_of(api_version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "meta.v1.DeleteOptions".into();
    }
    let (group, version) = crate::registry::split_api_version(api_version);
    let package = match group.split('.').next().unwrap_or_default() {
        "" => "core",
        other => other,
    };
    format!("{package}.{version}.{kind}")
}

/// The lines of a message.
fn lookup(message: &str) -> Option<&'static str> {
    let at = if MESSAGES.starts_with(&format!("{message}\n")) {
        message.len() + 1
    } else {
        let wanted = format!("\n{message}\n");
        MESSAGES.find(&wanted)? + wanted.len()
    };
    let rest = &MESSAGES[at..];
    let end = rest
        .match_indices('\n')
        .find(|(i, _)| !rest[i + 1..].starts_with(' '))
        .map_or(rest.len(), |(i, _)| i);
    Some(&rest[..end])
}

struct Field {
    mark: char,
    name: &'static str,
    of: &'static str,
}

fn field(lines: &'static str, number: u64) -> Option<Field> {
    lines.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let first = words.next()?;
        let digits = first.trim_end_matches(['*', '%', '?', '!']);
        (digits.parse() == Ok(number)).then_some(())?;
        let mark = first[digits.len()..].chars().next().unwrap_or(' ');
        Some(Field {
            mark,
            name: words.next()?,
            of: words.next()?,
        })
    })
}

fn object(lines: &'static str, bytes: &[u8], depth: usize) -> Result<Map<String, Object>, Wrong> {
    if depth == 0 {
        return Err("it is nested too deeply");
    }
    let mut map = Map::new();
    for item in Fields(bytes) {
        let (number, wire) = item?;
        let Some(field) = field(lines, number) else {
            continue;
        };
        match field.mark {
            '*' => {
                let list = map.entry(field.name).or_insert_with(|| json!([]));
                let item = value(field.of, wire, depth)?;
                if let Some(list) = list.as_array_mut() {
                    list.push(item);
                }
            }
            '%' => {
                let (key, item) = entry(field.of, wire, depth)?;
                let of = map.entry(field.name).or_insert_with(|| json!({}));
                if let Some(of) = of.as_object_mut() {
                    of.insert(key, item);
                }
            }
            '!' => {
                if let Object::Object(inner) = value(field.of, wire, depth)? {
                    map.extend(inner);
                }
            }
            mark => {
                let item = value(field.of, wire, depth)?;
                // Go writes every field that is no pointer; what is zero was not set.
                if mark == '?' || !zero(&item) {
                    map.insert(field.name.to_owned(), item);
                }
            }
        }
    }
    Ok(map)
}

fn zero(value: &Object) -> bool {
    match value {
        Object::Null => true,
        Object::Bool(set) => !set,
        Object::Number(number) => number.as_f64() == Some(0.0),
        Object::String(text) => text.is_empty(),
        Object::Array(list) => list.is_empty(),
        Object::Object(map) => map.is_empty(),
    }
}

fn entry(of: &'static str, wire: Wire<'_>, depth: usize) -> Result<(String, Object), Wrong> {
    let Wire::Bytes(bytes) = wire else {
        return Err("a map is no message");
    };
    let mut key = String::new();
    let mut found = match of {
        "string" | "bytes" => json!(""),
        _ => Object::Null,
    };
    for item in Fields(bytes) {
        match item? {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, wire) => found = value(of, wire, depth)?,
            _ => {}
        }
    }
    Ok((key, found))
}

fn value(of: &'static str, wire: Wire<'_>, depth: usize) -> Result<Object, Wrong> {
    match (of, wire) {
        ("string", Wire::Bytes(bytes)) => Ok(utf8(bytes)?.into()),
        ("bytes", Wire::Bytes(bytes)) => Ok(base64::engine::general_purpose::STANDARD
            .encode(bytes)
            .into()),
        ("bool", Wire::Number(number)) => Ok((number != 0).into()),
        ("int32" | "int64", Wire::Number(number)) => Ok(number.cast_signed().into()),
        ("double", Wire::Number(bits)) => Ok(f64::from_bits(bits).into()),
        (_, Wire::Number(_)) => Err("a number stands where a message belongs"),
        ("meta.v1.Time", Wire::Bytes(bytes)) => time(bytes, false),
        ("meta.v1.MicroTime", Wire::Bytes(bytes)) => time(bytes, true),
        ("resource.Quantity", Wire::Bytes(bytes)) => Ok(first_text(bytes)?.into()),
        ("meta.v1.FieldsV1" | "runtime.RawExtension", Wire::Bytes(bytes)) => raw(bytes),
        ("util.intstr.IntOrString", Wire::Bytes(bytes)) => int_or_string(bytes),
        (of, Wire::Bytes(bytes)) => {
            let lines = lookup(of).ok_or("it has a field of an unknown message")?;
            let mut map = object(lines, bytes, depth - 1)?;
            if of.ends_with(".ExtraValue") {
                return Ok(map.remove("items").unwrap_or_else(|| json!([])));
            }
            Ok(Object::Object(map))
        }
    }
}

fn first_text(bytes: &[u8]) -> Result<String, Wrong> {
    for item in Fields(bytes) {
        if let (1, Wire::Bytes(text)) = item? {
            return utf8(text);
        }
    }
    Ok("0".into())
}

fn raw(bytes: &[u8]) -> Result<Object, Wrong> {
    for item in Fields(bytes) {
        if let (1, Wire::Bytes(text)) = item? {
            return serde_json::from_slice(text).map_err(|_| "an embedded object is no JSON");
        }
    }
    Ok(Object::Null)
}

fn time(bytes: &[u8], micro: bool) -> Result<Object, Wrong> {
    let (mut seconds, mut nanos) = (None, 0);
    for item in Fields(bytes) {
        match item? {
            (1, Wire::Number(number)) => seconds = Some(number.cast_signed()),
            (2, Wire::Number(number)) => nanos = i32::try_from(number).unwrap_or(0),
            _ => {}
        }
    }
    let Some(seconds) = seconds else {
        return Ok(Object::Null);
    };
    let at = jiff::Timestamp::new(seconds, nanos).map_err(|_| "a time is out of range")?;
    let form = if micro {
        "%Y-%m-%dT%H:%M:%S%.6fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    Ok(at.strftime(form).to_string().into())
}

fn int_or_string(bytes: &[u8]) -> Result<Object, Wrong> {
    let (mut text, mut number, mut is_text) = (String::new(), 0, false);
    for item in Fields(bytes) {
        match item? {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(value)) => text = utf8(value)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn utf8(bytes: &[u8]) -> Result<String, Wrong> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| "a text is no UTF-8")
}

/// A value on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Wrong> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or("it ends inside a number")?;
            self.0 = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number is too long")
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Wrong> {
        let length = usize::try_from(length).map_err(|_| "a length is too large")?;
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or("it ends inside a field")?;
        self.0 = rest;
        Ok(taken)
    }

    fn one(&mut self) -> Result<(u64, Wire<'a>), Wrong> {
        let tag = self.varint()?;
        let fixed = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b));
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(fixed(self.take(8)?)),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Number(fixed(self.take(4)?)),
            _ => return Err("it has a field of an unknown wire type"),
        };
        Ok((tag >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = self.one();
        if item.is_err() {
            self.0 = &[];
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(number: u8, inner: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(inner.len()).unwrap()];
        out.extend_from_slice(inner);
        out
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
    }

    #[test]
    fn a_config_map_is_read() {
        let metadata = [bytes(1, b"web"), bytes(2, b""), bytes(8, b"")].concat();
        let data = [bytes(1, b"key"), bytes(2, b"value")].concat();
        let raw = [bytes(1, &metadata), bytes(2, &data)].concat();
        assert_eq!(
            to_json(&body("v1", "ConfigMap", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"key": "value"}})
        );
    }

    #[test]
    fn pointers_keep_their_zero_and_plain_fields_do_not() {
        // DeploymentSpec.replicas is a pointer, minReadySeconds is not.
        let spec = [vec![1 << 3, 0], vec![5 << 3, 0]].concat();
        let found = to_json(&body("apps/v1", "Deployment", &bytes(2, &spec))).unwrap();
        assert_eq!(found["spec"], json!({"replicas": 0}));
    }

    #[test]
    fn every_type_named_is_known() {
        for line in MESSAGES.lines().filter(|l| l.starts_with(' ')) {
            let of = line.split_whitespace().nth(2).unwrap();
            let plain = [
                "string",
                "bytes",
                "bool",
                "int32",
                "int64",
                "double",
                "meta.v1.Time",
                "meta.v1.MicroTime",
                "resource.Quantity",
                "meta.v1.FieldsV1",
                "runtime.RawExtension",
                "util.intstr.IntOrString",
            ];
            assert!(plain.contains(&of) || lookup(of).is_some(), "{of}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_harm(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = to_json(&body("v1", "Pod", &garbage[..garbage.len().min(120)]));
            let _ = to_json(&[MAGIC, &garbage].concat());
        }
    }
}
