//! Packets, and what becomes of them.

use std::net::IpAddr;
use std::time::Duration;

use crate::compile::{Datum, ElementKey};
use crate::model::{CtState, Log, Reject};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const SYN: u8 = 2;

/// A packet and what the kernel knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Layer 4 protocol.
    pub proto: u8,
    /// Source port; of ICMP the identifier.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Flags of TCP.
    pub tcp_flags: u8,
    /// Type of ICMP or ICMPv6.
    pub icmp_type: u8,
    /// The link it came by, empty where made here.
    pub iif: String,
    /// The link it leaves by, empty where not known yet.
    pub oif: String,
    /// Mark.
    pub mark: u32,
    /// Mark of the connection.
    pub ct_mark: u32,
    /// Whether the source is this host's own address.
    pub from_local: bool,
    /// Whether the destination is this host's own address.
    pub to_local: bool,
    /// Whether the connection's destination was translated.
    pub dnat: bool,
    /// Whether what is sent to its source leaves by the link it came by.
    pub way_back: bool,
    /// Whether what has its destination and mark leaves by any link.
    pub way_out: bool,
    /// What connection tracking says of it. Where that is [`CtState::Invalid`] or
    /// [`CtState::Untracked`] it has no connection, and no mark of one.
    pub state: CtState,
    /// Its connection; [`None`] for a packet of the original direction whose connection is not
    /// translated (yet).
    pub connection: Option<Connection>,
    /// Whether it is beyond what limits let pass.
    pub beyond_limit: bool,
    /// What the kernel draws for it: the index below N is this many 2^32ths of N.
    pub random: u32,
}

impl Packet {
    /// The first packet of a connection, from and to other hosts, that came by no link yet.
    pub fn new(src: IpAddr, dst: IpAddr, proto: u8, sport: u16, dport: u16) -> Self {
        Self {
            src,
            dst,
            proto,
            sport,
            dport,
            tcp_flags: SYN,
            icmp_type: 0,
            iif: String::new(),
            oif: String::new(),
            mark: 0,
            ct_mark: 0,
            from_local: false,
            to_local: false,
            dnat: false,
            way_back: true,
            way_out: true,
            state: CtState::New,
            connection: None,
            beyond_limit: false,
            random: 0,
        }
    }

    pub(super) fn tracked(&self) -> bool {
        !matches!(self.state, CtState::Invalid | CtState::Untracked)
    }

    /// Its connection, or the one it would begin.
    pub fn connection(&self) -> Connection {
        let dport = match self.proto {
            ICMP | ICMPV6 => u16::from(self.icmp_type) << 8,
            _ => self.dport,
        };
        self.connection.unwrap_or_else(|| {
            Connection::new(
                self.proto,
                Tuple {
                    src: self.src,
                    dst: self.dst,
                    sport: self.sport,
                    dport,
                },
            )
        })
    }

    /// As far as rules look at it.
    pub(super) fn network_header(&self) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                [&[0; 12][..], &src.octets(), &dst.octets()].concat()
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                [&[0; 8][..], &src.octets(), &dst.octets()].concat()
            }
            _ => Vec::new(),
        }
    }

    /// As far as rules look at it.
    pub(super) fn transport_header(&self) -> Vec<u8> {
        if matches!(self.proto, ICMP | ICMPV6) {
            let mut header = vec![self.icmp_type, 0, 0, 0];
            header.extend(self.sport.to_be_bytes());
            return header;
        }
        let mut header = [self.sport.to_be_bytes(), self.dport.to_be_bytes()].concat();
        if self.proto == TCP {
            header.resize(13, 0);
            header.push(self.tcp_flags);
        }
        header
    }
}

/// What connection tracking knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Layer 4 protocol.
    pub proto: u8,
    /// Its first packet before translation.
    pub original: Tuple,
    /// Replies as they come: their source is the first packet's destination after translation.
    pub reply: Tuple,
}

/// Ends of a connection for one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port; of ICMP the identifier.
    pub sport: u16,
    /// Destination port; of ICMP type and code.
    pub dport: u16,
}

impl Connection {
    /// One that is not translated; where it is, `reply` is to be changed.
    pub fn new(proto: u8, original: Tuple) -> Self {
        let Tuple {
            src,
            dst,
            sport,
            dport,
        } = original;
        let (reply_sport, reply_dport) = match proto {
            ICMP | ICMPV6 => (sport, reply_type(dport)),
            _ => (dport, sport),
        };
        let reply = Tuple {
            src: dst,
            dst: src,
            sport: reply_sport,
            dport: reply_dport,
        };
        Self {
            proto,
            original,
            reply,
        }
    }
}

/// Type and code of the answer to an echo request, and the other way round; of other types the
/// same.
fn reply_type(asked: u16) -> u16 {
    match asked {
        0x0800 => 0,
        0 => 0x0800,
        0x8000 => 0x8100,
        0x8100 => 0x8000,
        other => other,
    }
}

/// What becomes of a packet at a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Accepted,
    /// It is gone, silently.
    Dropped,
    /// It is gone, and the sender is told.
    Rejected(Reject),
}

/// What a base chain did with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it goes on.
    pub fate: Fate,
    /// Translation, where there is one.
    pub nat: Option<Nat>,
    /// The mark it leaves with.
    pub mark: u32,
    /// The mark its connection is left with.
    pub ct_mark: u32,
    /// Whether connection tracking is kept from it.
    pub untracked: bool,
    /// Elements of dynamic sets that it added or had live on, in order; the table evaluated is
    /// not changed.
    pub updates: Vec<Updated>,
    /// Log statements it came to, in order.
    pub logs: Vec<Log>,
}

/// An element of a dynamic set that a packet added, or had live on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// Name of the set.
    pub set: String,
    /// The element.
    pub key: ElementKey,
    /// Its data: where it was there before, what it had.
    pub data: Option<Datum>,
    /// How long it lives from now on.
    pub timeout: Duration,
}

/// A translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nat {
    /// The source becomes the leaving link's address.
    Masquerade,
    /// The source.
    Source(IpAddr, Option<u16>),
    /// The destination.
    Destination(IpAddr, Option<u16>),
}
