//! Domain names.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use smallvec::SmallVec;

/// The longest name in wire format, the root's byte included (RFC 1035, section 2.3.4).
const MOST_BYTES: usize = 255;
/// The longest label.
const MOST_LABEL: usize = 63;

/// An absolute domain name: its labels in wire format without compression, the root's empty
/// label at the end. Letters keep their case and are compared without it (RFC 4343).
pub struct Name(SmallVec<[u8; 56]>);

/// Why some text or labels are no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A label between two dots is empty.
    #[error("an empty label")]
    EmptyLabel,
    /// A label has more than 63 bytes.
    #[error("a label of more than 63 bytes")]
    LongLabel,
    /// All together have more than 255 bytes.
    #[error("more than 255 bytes")]
    LongName,
    /// A backslash that nothing follows, or a number over 255 behind it.
    #[error("a backslash that escapes nothing")]
    Escape,
}

impl Name {
    /// The root, `.`.
    pub fn root() -> Self {
        Self(SmallVec::from_slice(&[0]))
    }

    /// Of bytes that are a name in wire format without compression; whoever calls has checked
    /// them.
    pub(super) fn from_checked(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }

    /// Of labels, the first one first.
    ///
    /// # Errors
    /// A label that is empty or too long, or too many of them.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, NameError> {
        let mut bytes = SmallVec::new();
        for label in labels {
            push(&mut bytes, label)?;
        }
        end(bytes)
    }

    /// This name below a label.
    ///
    /// # Errors
    /// A label that is empty or too long, or one label too many.
    pub fn child(&self, label: &[u8]) -> Result<Self, NameError> {
        Self::from_labels(std::iter::once(label).chain(self.labels()))
    }

    /// This name's labels followed by those of another.
    ///
    /// # Errors
    /// The two are too long together.
    pub fn join(&self, suffix: &Self) -> Result<Self, NameError> {
        Self::from_labels(self.labels().chain(suffix.labels()))
    }

    /// Wire format without compression.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its labels, the first one first, without the root's.
    pub fn labels(&self) -> Labels<'_> {
        Labels(&self.0)
    }

    /// How many labels there are, without the root's.
    pub fn depth(&self) -> usize {
        self.labels().count()
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Whether its first label is `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with(b"\x01*")
    }

    /// The name without its first label; none for the root.
    pub fn parent(&self) -> Option<Self> {
        let first = usize::from(*self.0.first()?);
        (first > 0).then(|| Self::from_checked(&self.0[1 + first..]))
    }

    /// Whether it is a zone's apex or below it.
    pub fn is_within(&self, zone: &Self) -> bool {
        self.below(zone).is_some()
    }

    /// The labels in front of a zone's, where it is the zone's apex (none) or below it.
    pub fn below(&self, zone: &Self) -> Option<Labels<'_>> {
        let split = self.0.len().checked_sub(zone.0.len())?;
        if !self.0[split..].eq_ignore_ascii_case(&zone.0) {
            return None;
        }
        // What looks like the zone may begin in the middle of a label.
        let mut at = 0;
        while at < split {
            at += 1 + usize::from(self.0[at]);
        }
        (at == split).then(|| Labels(&self.0[..split]))
    }

    /// The zone of this name in the letters that stand here, where the name is the zone's apex or
    /// below it.
    pub fn zone_part(&self, zone: &Self) -> Option<Self> {
        let split = self.below(zone)?.as_bytes().len();
        Some(Self::from_checked(&self.0[split..]))
    }

    /// The same name in lower case.
    #[must_use]
    pub fn lower(&self) -> Self {
        let mut lower = self.clone();
        // Lengths are below 64, so below any letter.
        lower.0.make_ascii_lowercase();
        lower
    }

    /// Whether both are the same, letter for letter.
    pub fn is_exactly(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// The name under `in-addr.arpa` or `ip6.arpa` that stands for an address.
    pub fn of_address(ip: IpAddr) -> Self {
        let mut bytes = SmallVec::new();
        let mut label = |label: &[u8]| {
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label);
        };
        match ip {
            IpAddr::V4(ip) => {
                for octet in ip.octets().iter().rev() {
                    label(octet.to_string().as_bytes());
                }
                label(b"in-addr");
            }
            IpAddr::V6(ip) => {
                for octet in ip.octets().iter().rev() {
                    for nibble in [octet & 15, octet >> 4] {
                        label(&[b"0123456789abcdef"[usize::from(nibble)]]);
                    }
                }
                label(b"ip6");
            }
        }
        label(b"arpa");
        bytes.push(0);
        Self(bytes)
    }

    /// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for, if it is whole.
    pub fn address(&self) -> Option<IpAddr> {
        const LAST: &[u8] = b"\x04arpa\0";
        let last = self.0.len().checked_sub(LAST.len())?;
        if !self.0[last..].eq_ignore_ascii_case(LAST) {
            return None;
        }
        let labels: SmallVec<[&[u8]; 34]> = self.labels().take(35).collect();
        let (last, labels) = labels.split_last()?;
        let (kind, labels) = labels.split_last()?;
        if !last.eq_ignore_ascii_case(b"arpa") {
            return None;
        }
        if kind.eq_ignore_ascii_case(b"in-addr") && labels.len() == 4 {
            let mut octets = [0; 4];
            for (octet, label) in octets.iter_mut().rev().zip(labels) {
                *octet = decimal(label)?;
            }
            return Some(Ipv4Addr::from(octets).into());
        }
        if kind.eq_ignore_ascii_case(b"ip6") && labels.len() == 32 {
            let mut bits = 0_u128;
            for label in labels.iter().rev() {
                let [digit] = label else { return None };
                bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
            }
            return Some(Ipv6Addr::from(bits).into());
        }
        None
    }
}

/// A number from 0 to 255 without leading zeros.
fn decimal(label: &[u8]) -> Option<u8> {
    if label.len() > 1 && label[0] == b'0' || !label.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(label).ok()?.parse().ok()
}

fn push(bytes: &mut SmallVec<[u8; 56]>, label: &[u8]) -> Result<(), NameError> {
    match label.len() {
        0 => return Err(NameError::EmptyLabel),
        1..=MOST_LABEL => {}
        _ => return Err(NameError::LongLabel),
    }
    bytes.push(label.len() as u8);
    bytes.extend_from_slice(label);
    Ok(())
}

fn end(mut bytes: SmallVec<[u8; 56]>) -> Result<Name, NameError> {
    bytes.push(0);
    if bytes.len() > MOST_BYTES {
        return Err(NameError::LongName);
    }
    Ok(Name(bytes))
}

/// The labels of a name or of its first part.
#[derive(Clone, Debug)]
pub struct Labels<'a>(&'a [u8]);

impl<'a> Labels<'a> {
    /// Wire format of what is left, without a root label where it is the first part of a name.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&len, rest) = self.0.split_first()?;
        if len == 0 {
            return None;
        }
        let (label, rest) = rest.split_at(usize::from(len));
        self.0 = rest;
        Some(label)
    }
}

/// Presentation format; the dot at the end may be left out. `\.` and `\065` are understood.
impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "." || text.is_empty() {
            return Ok(Self::root());
        }
        let (mut bytes, mut label) = (SmallVec::new(), SmallVec::<[u8; 64]>::new());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'.' => {
                    push(&mut bytes, &label)?;
                    label.clear();
                }
                b'\\' => label.push(escaped(&mut rest)?),
                byte => label.push(byte),
            }
            if label.len() > MOST_LABEL {
                return Err(NameError::LongLabel);
            }
            if bytes.len() > MOST_BYTES {
                return Err(NameError::LongName);
            }
        }
        if !label.is_empty() {
            push(&mut bytes, &label)?;
        }
        end(bytes)
    }
}

/// What stands behind a backslash.
fn escaped(rest: &mut std::str::Bytes<'_>) -> Result<u8, NameError> {
    let first = rest.next().ok_or(NameError::Escape)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut number = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = rest.next().filter(u8::is_ascii_digit);
        number = number * 10 + u16::from(digit.ok_or(NameError::Escape)? - b'0');
    }
    u8::try_from(number).map_err(|_| NameError::Escape)
}

/// Presentation format with the dot at the end.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(byte))?;
                    }
                    0x21..=0x7e => write!(f, "{}", char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As one copy: what is derived copies byte by byte.
impl Clone for Name {
    fn clone(&self) -> Self {
        Self(SmallVec::from_slice(&self.0))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut lower = [0; MOST_BYTES];
        let lower = &mut lower[..self.0.len()];
        lower.copy_from_slice(&self.0);
        lower.make_ascii_lowercase();
        state.write(lower);
    }
}

/// Canonical order (RFC 4034, section 6.1): by the last label first.
impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let reversed = |name: &Self| {
            let mut labels: SmallVec<[SmallVec<[u8; 16]>; 8]> =
                name.labels().map(SmallVec::from_slice).collect();
            for label in &mut labels {
                label.make_ascii_lowercase();
            }
            labels.reverse();
            labels
        };
        reversed(self).cmp(&reversed(other))
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn text_and_back() {
        for text in [
            ".",
            "example.org.",
            r"a\.b.c\092d\000.x.",
            "*.svc.cluster.local.",
        ] {
            let parsed = name(text);
            assert_eq!(name(&parsed.to_string()), parsed, "{text}");
        }
        assert_eq!(name("Example.ORG").to_string(), "Example.ORG.");
        assert_eq!(name("Example.ORG"), name("example.org."));
        assert_eq!(name(r"\065b"), name("ab."));
        assert_eq!(name(r"a\.b.c").depth(), 2);
    }

    #[test]
    fn what_is_no_name() {
        for (text, error) in [
            ("a..b", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            (&"a".repeat(64), NameError::LongLabel),
            (&"abcd.".repeat(60), NameError::LongName),
            (r"a\", NameError::Escape),
            (r"a\25", NameError::Escape),
            (r"a\256", NameError::Escape),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text}");
        }
        assert!("abcd.".repeat(50).parse::<Name>().is_ok());
    }

    #[test]
    fn below_a_zone() {
        let zone = name("cluster.local");
        let below: Vec<&[u8]> = name("a.b.Cluster.LOCAL")
            .below(&zone)
            .unwrap()
            .map(|l| Box::leak(l.into()) as &[u8])
            .collect();
        assert_eq!(below, [b"a", b"b"]);
        assert_eq!(zone.below(&zone).unwrap().count(), 0);
        assert!(name("a.cluster.local").below(&Name::root()).is_some());
        assert!(name("local").below(&zone).is_none());
        assert!(name("other.local").below(&zone).is_none());
        // The bytes of a zone inside a longer label are not the zone.
        let tricky = Name::from_labels([b"a\x05local".as_slice()]).unwrap();
        assert!(tricky.below(&name("local")).is_none());
    }

    #[test]
    fn addresses() {
        for ip in ["10.96.0.10", "0.0.0.0", "fd00:10:96::a", "2001:db8::ff"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(Name::of_address(ip).address(), Some(ip));
        }
        assert_eq!(
            Name::of_address("10.96.0.10".parse().unwrap()).to_string(),
            "10.0.96.10.in-addr.arpa."
        );
        for none in [
            "96.10.in-addr.arpa",
            "010.0.96.10.in-addr.arpa",
            "x.0.96.10.in-addr.arpa",
            "arpa",
            ".",
        ] {
            assert_eq!(name(none).address(), None, "{none}");
        }
    }

    #[test]
    fn canonical_order() {
        let mut names = [
            "z.example",
            "a.example",
            "yljkjljk.a.example",
            "Z.a.example",
            "example",
        ]
        .map(name);
        names.sort();
        assert_eq!(
            names.map(|name| name.to_string()),
            [
                "example.",
                "a.example.",
                "yljkjljk.a.example.",
                "Z.a.example.",
                "z.example."
            ]
        );
    }
}
