//! Resource records.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Name;

/// A type of records, or of questions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Type(pub u16);

/// Declares the types that have a name, once for constants, text and back.
macro_rules! types {
    ($($word:ident $number:literal)*) => {
        #[allow(missing_docs, reason = "each is what its RFC says, by its own name")]
        impl Type {
            $(pub const $word: Self = Self($number);)*

            /// By its name, in any case; `TYPE123` too (RFC 3597).
            pub fn from_word(word: &str) -> Option<Self> {
                let upper = word.to_ascii_uppercase();
                match upper.as_str() {
                    $(stringify!($word) => Some(Self::$word),)*
                    "*" => Some(Self::ANY),
                    other => other.strip_prefix("TYPE")?.parse().ok().map(Self),
                }
            }

            fn word(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($word)),)*
                    _ => None,
                }
            }
        }
    };
}

types! {
    A 1 NS 2 MD 3 MF 4 CNAME 5 SOA 6 MB 7 MG 8 MR 9 NULL 10 WKS 11 PTR 12 HINFO 13 MINFO 14
    MX 15 TXT 16 RP 17 AFSDB 18 X25 19 ISDN 20 RT 21 SIG 24 KEY 25 PX 26 AAAA 28 LOC 29 NXT 30
    SRV 33 NAPTR 35 KX 36 CERT 37 DNAME 39 OPT 41 APL 42 DS 43 SSHFP 44 IPSECKEY 45 RRSIG 46
    NSEC 47 DNSKEY 48 DHCID 49 NSEC3 50 NSEC3PARAM 51 TLSA 52 SMIMEA 53 HIP 55 CDS 59 CDNSKEY 60
    OPENPGPKEY 61 CSYNC 62 ZONEMD 63 SVCB 64 HTTPS 65 SPF 99 TKEY 249 TSIG 250 IXFR 251 AXFR 252
    MAILB 253 MAILA 254 ANY 255 URI 256 CAA 257
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.word() {
            Some(word) => f.write_str(word),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub u16);

impl Class {
    /// The Internet: all there is in practice.
    pub const IN: Self = Self(1);
    /// Chaos, for questions about a server.
    pub const CH: Self = Self(3);
    /// Hesiod.
    pub const HS: Self = Self(4);
    /// Of no class (RFC 2136).
    pub const NONE: Self = Self(254);
    /// Any class.
    pub const ANY: Self = Self(255);
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IN => f.write_str("IN"),
            Self::CH => f.write_str("CH"),
            Self::HS => f.write_str("HS"),
            Self::NONE => f.write_str("NONE"),
            Self::ANY => f.write_str("ANY"),
            Self(other) => write!(f, "CLASS{other}"),
        }
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A resource record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose.
    pub name: Name,
    /// Class.
    pub class: Class,
    /// How long others may keep it, in seconds.
    pub ttl: u32,
    /// Type and content.
    pub data: Data,
}

impl Record {
    /// Of class IN.
    pub fn new(name: Name, ttl: u32, data: Data) -> Self {
        Self {
            name,
            class: Class::IN,
            ttl,
            data,
        }
    }

    /// Its type.
    pub fn kind(&self) -> Type {
        self.data.kind()
    }
}

/// The content of a record. What this server has no use for is kept as bytes, names in it
/// without compression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Another name for the same.
    Cname(Name),
    /// Another name for all below it.
    Dname(Name),
    /// A name server of the zone.
    Ns(Name),
    /// The name of an address.
    Ptr(Name),
    /// The start of a zone.
    Soa(Box<Soa>),
    /// A host that takes mail.
    Mx(u16, Name),
    /// Where a service is.
    Srv {
        /// The lowest first.
        priority: u16,
        /// A share among equals.
        weight: u16,
        /// Port.
        port: u16,
        /// Host.
        target: Name,
    },
    /// Character strings, in wire format: each with its length before it.
    Txt(Box<[u8]>),
    /// Of another type.
    Other(Type, Box<[u8]>),
}

/// The start of a zone of authority (RFC 1035, section 3.3.13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soa {
    /// The primary server.
    pub primary: Name,
    /// The mailbox of who is responsible.
    pub mailbox: Name,
    /// Version of the zone.
    pub serial: u32,
    /// Seconds.
    pub refresh: u32,
    /// Seconds.
    pub retry: u32,
    /// Seconds.
    pub expire: u32,
    /// How long "there is none" may be kept, in seconds (RFC 2308).
    pub minimum: u32,
}

impl Data {
    /// An address.
    pub fn address(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::A(ip),
            IpAddr::V6(ip) => Self::Aaaa(ip),
        }
    }

    /// Text, cut into strings of 255 bytes.
    pub fn text(text: &str) -> Self {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        if text.is_empty() {
            bytes.push(0);
        }
        for part in text.as_bytes().chunks(255) {
            bytes.push(part.len() as u8);
            bytes.extend_from_slice(part);
        }
        Self::Txt(bytes.into())
    }

    /// Type of a record with this content.
    pub fn kind(&self) -> Type {
        match self {
            Self::A(_) => Type::A,
            Self::Aaaa(_) => Type::AAAA,
            Self::Cname(_) => Type::CNAME,
            Self::Dname(_) => Type::DNAME,
            Self::Ns(_) => Type::NS,
            Self::Ptr(_) => Type::PTR,
            Self::Soa(_) => Type::SOA,
            Self::Mx(..) => Type::MX,
            Self::Srv { .. } => Type::SRV,
            Self::Txt(_) => Type::TXT,
            Self::Other(kind, _) => *kind,
        }
    }

    /// The address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match *self {
            Self::A(ip) => Some(ip.into()),
            Self::Aaaa(ip) => Some(ip.into()),
            _ => None,
        }
    }
}
