//! Types and values that sets hold and rules compare.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Address family of a packet or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// Of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// `ip` or `ip6`.
    pub fn word(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// The type of one field of a set's key or data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// `inet_proto`
    Proto,
    /// `inet_service`
    Port,
    /// `mark`
    Mark,
    /// `ifname`
    IfName,
}

impl Type {
    /// Its name in the `nft` language.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Proto => "inet_proto",
            Self::Port => "inet_service",
            Self::Mark => "mark",
            Self::IfName => "ifname",
        }
    }

    /// Its number in the `nft` program, which the kernel only keeps for it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Proto => 12,
            Self::Port => 13,
            Self::Mark => 19,
            Self::IfName => 41,
        }
    }

    /// Bytes of a value.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Ipv4 | Self::Mark => 4,
            Self::Ipv6 | Self::IfName => 16,
            Self::Proto => 1,
            Self::Port => 2,
        }
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// A range of addresses; in a set only where the set has intervals.
    Net(IpNet),
    /// A layer 4 protocol by number.
    Proto(u8),
    /// A port.
    Port(u16),
    /// A mark.
    Mark(u32),
    /// A link's name; in a rule `fn-*` is every name that begins so.
    Name(String),
    /// A type of ICMPv6, for [`crate::Key::Icmpv6Type`].
    Icmpv6Type(u8),
    /// An address family, for [`crate::Key::NfProto`].
    Family(IpFamily),
}

impl From<IpAddr> for Value {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6(ip),
        }
    }
}

impl From<IpNet> for Value {
    /// A full-length prefix is its address, as `nft` lists it.
    fn from(net: IpNet) -> Self {
        if net.prefix_len() == net.max_prefix_len() {
            net.addr().into()
        } else {
            Self::Net(net.trunc())
        }
    }
}

impl Value {
    /// As the kernel compares it: network order, except marks; names padded to their full length.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    /// The same behind other bytes.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::V4(ip) => bytes.extend_from_slice(&ip.octets()),
            Self::V6(ip) => bytes.extend_from_slice(&ip.octets()),
            Self::Net(net) => Self::from(net.network()).write(bytes),
            Self::Proto(number) | Self::Icmpv6Type(number) => bytes.push(*number),
            Self::Port(port) => bytes.extend_from_slice(&port.to_be_bytes()),
            Self::Mark(mark) => bytes.extend_from_slice(&mark.to_ne_bytes()),
            Self::Name(name) => {
                let end = bytes.len() + Type::IfName.len();
                bytes.extend_from_slice(name.as_bytes());
                bytes.resize(end, 0);
            }
            Self::Family(family) => bytes.push(family.number()),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(ip) => write!(f, "{ip}"),
            Self::V6(ip) => write!(f, "{ip}"),
            Self::Net(net) => write!(f, "{}", net.trunc()),
            Self::Proto(number) => f.write_str(&protocol(*number)),
            Self::Icmpv6Type(number) => match icmpv6_type(*number) {
                Some(name) => f.write_str(name),
                None => write!(f, "{number}"),
            },
            Self::Port(port) => write!(f, "{port}"),
            Self::Mark(mark) => write!(f, "{mark:#010x}"),
            Self::Name(name) => write!(f, "\"{name}\""),
            Self::Family(IpFamily::V4) => f.write_str("ipv4"),
            Self::Family(IpFamily::V6) => f.write_str("ipv6"),
        }
    }
}

/// The name of a type of ICMPv6, for those that make neighbours known.
fn icmpv6_type(number: u8) -> Option<&'static str> {
    Some(match number {
        133 => "nd-router-solicit",
        134 => "nd-router-advert",
        135 => "nd-neighbor-solicit",
        136 => "nd-neighbor-advert",
        137 => "nd-redirect",
        _ => return None,
    })
}

/// A layer 4 protocol as `nft` lists it.
fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "ipv6-icmp".into(),
        132 => "sctp".into(),
        other => other.to_string(),
    }
}
