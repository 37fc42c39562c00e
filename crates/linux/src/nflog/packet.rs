//! The headers of a packet whose end may be missing: who sends what to whom.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Numbers of protocols, and of the headers between that of IPv6 and them.
mod number {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const DCCP: u8 = 33;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION: u8 = 60;
    pub const SCTP: u8 = 132;
    pub const MOBILITY: u8 = 135;
    pub const UDP_LITE: u8 = 136;
    pub const HOST_IDENTITY: u8 = 139;
    pub const SHIM6: u8 = 140;
}

/// What the headers of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub src: IpAddr,
    /// To whom.
    pub dst: IpAddr,
    /// The protocol behind the headers of IP, by number; of an IPv6 packet whose headers are cut
    /// off, the first that is missing.
    pub protocol: u8,
    /// What stands there.
    pub layer4: Layer4,
}

/// The beginning of what IP carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer4 {
    /// Ports.
    Ports {
        /// Of the sender.
        src: u16,
        /// Of the receiver.
        dst: u16,
    },
    /// A message of ICMP.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
    /// A later fragment, a protocol without ports, or cut off.
    Unknown,
}

impl Packet {
    /// Reads headers from the first byte of that of IP; [`None`] where there is none, or one
    /// without addresses.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => parse_v4(bytes),
            6 => parse_v6(bytes),
            _ => None,
        }
    }
}

fn parse_v4(bytes: &[u8]) -> Option<Packet> {
    let src: [u8; 4] = bytes.get(12..16)?.try_into().ok()?;
    let dst: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
    let protocol = *bytes.get(9)?;
    let header = usize::from(bytes.first()? & 0xf) * 4;
    let later = short(bytes, 6)? & 0x1fff != 0;
    let layer4 = if later || header < 20 {
        Layer4::Unknown
    } else {
        layer4(protocol, bytes.get(header..).unwrap_or_default())
    };
    Some(Packet {
        src: Ipv4Addr::from(src).into(),
        dst: Ipv4Addr::from(dst).into(),
        protocol,
        layer4,
    })
}

fn parse_v6(bytes: &[u8]) -> Option<Packet> {
    let src: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
    let dst: [u8; 16] = bytes.get(24..40)?.try_into().ok()?;
    let (protocol, rest) = behind_extensions(*bytes.get(6)?, bytes.get(40..).unwrap_or_default());
    Some(Packet {
        src: Ipv6Addr::from(src).into(),
        dst: Ipv6Addr::from(dst).into(),
        protocol,
        layer4: layer4(protocol, rest),
    })
}

/// The protocol behind the extension headers, and its bytes: none where they are not in this
/// packet.
fn behind_extensions(mut protocol: u8, mut rest: &[u8]) -> (u8, &[u8]) {
    loop {
        let length = rest.get(1).copied().unwrap_or_default();
        let Some(length) = extension(protocol, usize::from(length)) else {
            return (protocol, rest);
        };
        let Some(&next) = rest.first() else {
            return (protocol, &[]);
        };
        let fragment = protocol == number::FRAGMENT;
        let later = fragment && short(rest, 2).is_none_or(|at| at & 0xfff8 != 0);
        protocol = next;
        match rest.get(length..) {
            Some(behind) if !later => rest = behind,
            // Behind are bytes from the middle, or none.
            _ => return (protocol, &[]),
        }
    }
}

/// How long an extension header is that gives this length; [`None`] for what is none.
fn extension(protocol: u8, length: usize) -> Option<usize> {
    use number::{
        AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, HOST_IDENTITY, MOBILITY, ROUTING, SHIM6,
    };
    match protocol {
        HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | HOST_IDENTITY | SHIM6 => {
            Some((length + 1) * 8)
        }
        AUTHENTICATION => Some((length + 2) * 4),
        FRAGMENT => Some(8),
        _ => None,
    }
}

fn layer4(protocol: u8, bytes: &[u8]) -> Layer4 {
    use number::{DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};
    let read = || {
        Some(match protocol {
            TCP | UDP | SCTP | DCCP | UDP_LITE => Layer4::Ports {
                src: short(bytes, 0)?,
                dst: short(bytes, 2)?,
            },
            ICMP | ICMPV6 => Layer4::Icmp {
                kind: *bytes.first()?,
                code: *bytes.get(1)?,
            },
            _ => return None,
        })
    };
    read().unwrap_or(Layer4::Unknown)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORTS: [u8; 8] = [0x9c, 0x40, 0x00, 0x50, 0, 0, 0, 0];
    const READ: Layer4 = Layer4::Ports {
        src: 40_000,
        dst: 80,
    };

    /// From 10.0.0.1 to 10.0.0.2, with so many bytes of options.
    fn v4(protocol: u8, options: usize, fragment: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[0] = 0x45 + u8::try_from(options / 4).unwrap();
        bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
        bytes[9] = protocol;
        bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.resize(20 + options, 1);
        bytes.extend_from_slice(rest);
        bytes
    }

    /// From ::1 to ::2, with headers between: the number and the bytes of each.
    fn v6(protocol: u8, extensions: &[(u8, Vec<u8>)], rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        bytes[0] = 0x60;
        bytes[23] = 1;
        bytes[39] = 2;
        let numbers = extensions.iter().map(|(number, _)| *number);
        let mut numbers = numbers.chain([protocol]);
        bytes[6] = numbers.next().unwrap();
        for (_, extension) in extensions {
            let start = bytes.len();
            bytes.extend_from_slice(extension);
            bytes[start] = numbers.next().unwrap();
        }
        bytes.extend_from_slice(rest);
        bytes
    }

    fn layer4_of(bytes: &[u8]) -> Layer4 {
        Packet::parse(bytes).unwrap().layer4
    }

    #[test]
    fn ipv4_with_and_without_options() {
        let packet = Packet::parse(&v4(6, 0, 0x4000, &PORTS)).unwrap();
        assert_eq!(
            (packet.src, packet.dst, packet.protocol, packet.layer4),
            ([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 6, READ)
        );
        for options in [4, 40] {
            assert_eq!(layer4_of(&v4(17, options, 0, &PORTS)), READ);
        }
        assert_eq!(
            layer4_of(&v4(1, 0, 0, &[8, 0, 1, 1])),
            Layer4::Icmp { kind: 8, code: 0 }
        );
        assert_eq!(layer4_of(&v4(47, 0, 0, &PORTS)), Layer4::Unknown);
    }

    #[test]
    fn ports_stand_in_the_first_fragment_only() {
        assert_eq!(layer4_of(&v4(17, 0, 0x2000, &PORTS)), READ);
        assert_eq!(layer4_of(&v4(17, 0, 0x2010, &PORTS)), Layer4::Unknown);
        let fragment = |at: u8| vec![0, 0, at, 1, 0, 0, 0, 9];
        assert_eq!(layer4_of(&v6(17, &[(44, fragment(0))], &PORTS)), READ);
        let later = Packet::parse(&v6(17, &[(44, fragment(2))], &PORTS)).unwrap();
        assert_eq!((later.protocol, later.layer4), (17, Layer4::Unknown));
    }

    #[test]
    fn extension_headers_are_stepped_over() {
        let options = vec![0; 8];
        let mut long = vec![0; 24];
        long[1] = 2;
        let mut authentication = vec![0; 24];
        authentication[1] = 4;
        let all = [(0, options.clone()), (43, long), (51, authentication)];
        assert_eq!(layer4_of(&v6(132, &all, &PORTS)), READ);
        let ping = layer4_of(&v6(58, &[(60, options)], &[128, 0, 0, 0]));
        assert_eq!(ping, Layer4::Icmp { kind: 128, code: 0 });
    }

    #[test]
    fn what_is_cut_off_is_unknown() {
        let whole = v4(6, 8, 0, &PORTS);
        for length in 20..32 {
            assert_eq!(layer4_of(&whole[..length]), Layer4::Unknown);
        }
        for length in 0..20 {
            assert_eq!(Packet::parse(&whole[..length]), None);
        }
        let whole = v6(6, &[(0, vec![0; 8])], &PORTS);
        assert_eq!(Packet::parse(&whole[..39]), None);
        assert_eq!(Packet::parse(&whole[..40]).unwrap().protocol, 0);
        assert_eq!(Packet::parse(&whole[..47]).unwrap().protocol, 6);
        assert_eq!(layer4_of(&whole[..51]), Layer4::Unknown);
        assert_eq!(layer4_of(&whole[..52]), READ);
        // A header that claims to be shorter than any is none.
        assert_eq!(
            layer4_of(&[&[0x41], &v4(6, 0, 0, &PORTS)[1..]].concat()),
            Layer4::Unknown
        );
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = Packet::parse(&bytes);
        }

        /// What is there of a packet never says something else than the whole.
        #[test]
        fn a_part_says_no_more_than_the_whole(
            version in prop::sample::select(vec![0x45_u8, 0x46, 0x4f, 0x60]),
            next in prop::sample::select(vec![0_u8, 6, 17, 43, 44, 51, 58, 60, 132, 135]),
            mut bytes in prop::collection::vec(any::<u8>(), 80..160),
            cut in 0_usize..160,
        ) {
            bytes[0] = version;
            bytes[if version == 0x60 { 6 } else { 9 }] = next;
            let whole = Packet::parse(&bytes).unwrap();
            if let Some(part) = Packet::parse(&bytes[..cut.min(bytes.len())]) {
                prop_assert_eq!((part.src, part.dst), (whole.src, whole.dst));
                prop_assert!(part.layer4 == Layer4::Unknown || part.layer4 == whole.layer4);
            }
        }
    }
}
