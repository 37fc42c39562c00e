//! Labels of names: of objects, and of addresses.

use std::fmt::{self, Write};
use std::net::IpAddr;

use smallvec::SmallVec;

/// A label's bytes; most have fewer than these.
pub(crate) type Label = SmallVec<[u8; 48]>;

/// Whether the name of an object is a label of a name in DNS as it stands. What is none has no
/// name, and is in nobody's way.
pub(crate) fn is_label(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&name.len()) && name.bytes().all(|b| known(b) || b == b'-' || b == b'_')
}

/// An address as a label: `10-244-1-5`, `fd00--1`; one that would end in a dash gets a zero.
pub(crate) fn dashed(ip: IpAddr) -> Label {
    let mut text = Dashes(Label::new());
    // Writing to memory does not fail.
    let _ = write!(text, "{ip}");
    if text.0.last() == Some(&b'-') {
        text.0.push(b'0');
    }
    text.0
}

/// Text with dashes for points and colons.
struct Dashes(Label);

impl fmt::Write for Dashes {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let dash = |byte| {
            if matches!(byte, b'.' | b':') {
                b'-'
            } else {
                byte
            }
        };
        self.0.extend(text.bytes().map(dash));
        Ok(())
    }
}

/// The address that a label stands for, in whatever way it is written.
pub(crate) fn undashed(label: &[u8]) -> Option<IpAddr> {
    let dashes = label.iter().filter(|byte| **byte == b'-').count();
    let between = if dashes == 3 && !label.windows(2).any(|two| two == b"--") {
        b'.'
    } else {
        b':'
    };
    let dash = |byte: &u8| if *byte == b'-' { between } else { *byte };
    let text: Label = label.iter().map(dash).collect();
    // A point in the label would be a second way to write an address.
    let points = label.contains(&b'.') || label.contains(&b':');
    let ip: IpAddr = std::str::from_utf8(&text).ok()?.parse().ok()?;
    (!points).then(|| ip.to_canonical())
}

/// A number for a label, the same whatever the case of its letters (FNV-1a).
pub(super) fn number(label: &[u8]) -> u32 {
    label.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_labels_and_back() {
        for (ip, label) in [
            ("10.244.1.5", "10-244-1-5"),
            ("fd00::1", "fd00--1"),
            ("fd00::", "fd00--0"),
            ("::1", "--1"),
            ("2001:db8:1:2:3:4:5:6", "2001-db8-1-2-3-4-5-6"),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(dashed(ip).as_slice(), label.as_bytes());
            assert_eq!(undashed(label.as_bytes()), Some(ip), "{label}");
        }
        for none in [
            "",
            "a-b-c-d",
            "1-2-3",
            "10.244.1.5",
            "1-2-3-256",
            "01-2-3-4",
            "fd00-1",
            "web",
        ] {
            assert_eq!(undashed(none.as_bytes()), None, "{none}");
        }
        // Go's addresses in IPv4's part of IPv6 are those of IPv4.
        assert_eq!(undashed(b"--ffff-102-304"), "1.2.3.4".parse().ok());
    }

    #[test]
    fn names_of_objects_that_are_labels() {
        for label in ["web", "web-0", "0", "_http"] {
            assert!(is_label(label), "{label}");
        }
        let long = "a".repeat(64);
        for none in ["", "a.b", "Web", "a b", "ä", &long] {
            assert!(!is_label(none), "{none}");
        }
    }
}
