//! Hardware addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A 48-bit hardware address, written `aa:bb:cc:dd:ee:ff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// From the bytes of a netlink attribute; `None` where there are not six.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        <[u8; 6]>::try_from(bytes).ok().map(Self)
    }

    /// The same bytes as a locally administered unicast address.
    pub fn local(mut bytes: [u8; 6]) -> Self {
        bytes[0] = (bytes[0] & !0x01) | 0x02;
        Self(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Text that is not a hardware address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAMac(String);

impl fmt::Display for NotAMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a hardware address: six hexadecimal bytes with colons are expected, as in 02:42:ac:11:00:02",
            self.0
        )
    }
}

impl std::error::Error for NotAMac {}

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> std::result::Result<Self, NotAMac> {
        let wrong = || NotAMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            if part.len() != 2 || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        match parts.next() {
            Some(_) => Err(wrong()),
            None => Ok(Self(bytes)),
        }
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = NotAMac;

    fn try_from(text: String) -> std::result::Result<Self, NotAMac> {
        text.parse()
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl From<Mac> for [u8; 6] {
    fn from(mac: Mac) -> Self {
        mac.0
    }
}

#[cfg(test)]
mod tests {
    use super::Mac;

    #[test]
    fn text_and_back() {
        let mac: Mac = "02:42:AC-11:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        for wrong in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "2:42:ac:11:00:02",
            "+2:42:ac:11:00:02",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn local_is_unicast_and_locally_administered() {
        assert_eq!(Mac::local([0xff; 6]).0[0] & 3, 2);
    }
}
