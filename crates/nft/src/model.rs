//! Tables, chains, rules and sets in the terms of the `nft` language.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::value::{IpFamily, Type, Value};

/// What packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl Family {
    /// `NFPROTO_*`.
    pub fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What packets it sees.
    pub family: Family,
    /// Name.
    pub name: String,
    /// Sets and maps by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

impl Table {
    /// An empty one.
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self {
            family,
            name: name.into(),
            sets: BTreeMap::new(),
            chains: BTreeMap::new(),
        }
    }
}

/// A chain: a base chain where the kernel enters it at a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel enters it; [`None`] for a chain that others jump to.
    pub base: Option<Base>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// Where the kernel enters a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// What the chain may do.
    pub kind: ChainKind,
    /// At which point.
    pub hook: Hook,
    /// Order among the chains of that point.
    pub priority: i32,
    /// What becomes of a packet that reaches the end.
    pub policy: Policy,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Translate the first packet of a connection.
    Nat,
    /// Have locally made packets routed again.
    Route,
}

/// A point on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// After routing.
    Postrouting,
}

/// The end of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Let it pass.
    Accept,
    /// Drop it.
    Drop,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Tests and actions from left to right; a test that fails ends the rule.
    pub statements: Vec<Statement>,
    /// Shown by `nft list`.
    pub comment: Option<String>,
}

impl Rule {
    /// A rule without comment.
    pub fn new(statements: impl Into<Vec<Statement>>) -> Self {
        Self {
            statements: statements.into(),
            comment: None,
        }
    }

    /// The same with a comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}

/// Something of a packet that is compared or looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// `ip saddr`, `ip6 saddr`
    Saddr(IpFamily),
    /// `ip daddr`, `ip6 daddr`
    Daddr(IpFamily),
    /// `meta nfproto`
    NfProto,
    /// `meta l4proto`
    L4Proto,
    /// `th sport`, whatever the protocol
    ThSport,
    /// `th dport`, whatever the protocol
    ThDport,
    /// `tcp dport`
    TcpDport,
    /// `udp dport`
    UdpDport,
    /// `iifname`
    IifName,
    /// `oifname`
    OifName,
    /// `meta mark`
    Mark,
    /// `ct mark`
    CtMark,
    /// `ct mark & 0xffffff00`: these bits of it; the others are zero.
    CtMarkBits(u32),
    /// `ct protocol`: of the connection; for an ICMP error of the one that it is about.
    CtProtocol,
    /// `ct original ip saddr`, `ct reply proto-src`: of the connection, whichever of its packets
    /// this is. An ICMP error has the connection that it is about. There is none for packets that
    /// belong to no connection: the rule ends.
    Ct(Direction, CtField),
    /// `icmpv6 type`
    Icmpv6Type,
    /// `numgen random mod 5`: an index, drawn anew at each lookup. Its type is [`Type::Mark`],
    /// for the kernel has it in its own byte order.
    Random(u32),
    /// What a map says of other fields; the rule ends where the map does not know them. At most
    /// one among the fields of a key, and not within another.
    Looked(Looked),
}

/// One of the two ways on which packets of a connection go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// That of its first packet, before any translation.
    Original,
    /// The other one: its source is the first packet's destination after translation.
    Reply,
}

/// What connection tracking keeps for each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtField {
    /// `ip saddr`, `ip6 saddr`; the rule ends where the connection is of the other family.
    Saddr(IpFamily),
    /// `proto-src`: the source port; of ICMP the identifier.
    ProtoSrc,
    /// `proto-dst`: the destination port; of ICMP type and code.
    ProtoDst,
}

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CtState {
    /// It belongs to no connection and begins none.
    Invalid,
    /// It belongs to one that has been answered.
    Established,
    /// It begins one that another has announced, or is an ICMP error about one.
    Related,
    /// It begins one; as long as there was no reply, later packets do too.
    New,
    /// It was told not to look.
    Untracked,
}

/// A map lookup whose result is a field of another key, or the data of a new element.
///
/// The `nft` language has no such thing, and the program ends with a failed assertion when it
/// lists one (1.0.6): it takes the result of a lookup to be no bytes long. So the data of such a
/// map begins with one unused field of four bytes ([`Looked::map_of`]). It lands in the register
/// before the field's own, and what the program lists in the place of the result are the fields
/// that were looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// What is looked up.
    pub keys: Vec<Key>,
    /// Name of the map.
    pub map: String,
    /// Fields of the map's data without the unused one.
    pub data: Vec<Type>,
}

impl Looked {
    /// A map that can be looked up so.
    pub fn map_of(key: impl Into<Vec<Type>>, data: &[Type]) -> Set {
        let data = [&[Type::Mark], data].concat();
        Set::map(key, SetData::Values(data))
    }

    /// Data of such a map, to be compiled by [`crate::Datum::of`].
    pub fn data_of(data: &[Value]) -> Vec<Value> {
        [&[Value::Mark(0)], data].concat()
    }
}

/// One test or action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `ip daddr 10.0.0.0/8`, `oifname != "eth0"`
    Match {
        /// What is compared.
        key: Key,
        /// True for `!=`.
        negate: bool,
        /// With what.
        value: Value,
    },
    /// `meta mark & 0x4000 == 0x4000`
    MatchBits {
        /// A mark.
        key: Key,
        /// The bits that matter.
        mask: u32,
        /// What they shall be.
        value: u32,
    },
    /// `th dport 8000-8080`, `icmpv6 type != 133-137`
    InRange {
        /// What is compared.
        key: Key,
        /// True for `!=`.
        negate: bool,
        /// The lowest value.
        first: Value,
        /// The highest.
        last: Value,
    },
    /// `ip daddr . th dport @services`, `ip daddr != @nodes`
    InSet {
        /// What is looked up.
        keys: Vec<Key>,
        /// True for `!=`.
        negate: bool,
        /// Name of the set.
        set: String,
    },
    /// `fib daddr type local`
    DaddrIsLocal,
    /// `fib saddr type local`
    SaddrIsLocal,
    /// `ct status dnat`: the connection's destination was translated.
    CtDnat,
    /// `fib saddr . iif oif missing`: what is sent to the source does not leave by the link it
    /// came by. In chains of the hooks prerouting, input and forward.
    NoWayBack,
    /// `fib daddr . mark oif missing`: by its destination and mark it leaves by no link: it is
    /// delivered here, or there is no route. In chains of the hook prerouting.
    NoWayOut,
    /// `notrack`: connection tracking does not look at it. In chains before that, of priority
    /// raw.
    NoTrack,
    /// `ct state established,related`: it is one of these.
    CtState(Vec<CtState>),
    /// `tcp flags != syn / fin,syn,rst,ack`: TCP, but not what begins a connection.
    TcpNotSyn,
    /// `counter`
    Counter,
    /// `accept`, `jump x`, ...
    Verdict(Verdict),
    /// `ip daddr . th dport vmap @services`
    VerdictMap {
        /// What is looked up.
        keys: Vec<Key>,
        /// Name of the map.
        map: String,
    },
    /// `masquerade`
    Masquerade {
        /// Ports are chosen at random, so that parallel connections do not collide.
        fully_random: bool,
    },
    /// `dnat ip to ...`, `snat ip6 to ...`
    Nat {
        /// Source or destination.
        kind: NatKind,
        /// Of which packets.
        family: IpFamily,
        /// To what.
        to: NatTo,
    },
    /// `meta mark set meta mark or 0x4000`
    SetMarkBits(u32),
    /// `meta mark set meta mark and 0xffffbfff`; the bits to clear.
    ClearMarkBits(u32),
    /// `ct mark set ct mark and 0x000000ff xor 0x00001200`. The kernel looks at no other rule when
    /// a rule of only this is added or deleted.
    SetCtMark {
        /// The bits that stay as they are.
        keep: u32,
        /// What the others become.
        bits: u32,
    },
    /// `log prefix "..." group 11 snaplen 128`
    Log(Log),
    /// `limit rate 100/second burst 100 packets`: ends the rule for packets beyond that.
    Limit(Limit),
    /// `reject with tcp reset`; works in nat chains too.
    Reject(Reject),
    /// `update @affinity { ip saddr . ip daddr timeout 3h : ... }`
    Update(Update),
}

/// Packets told to a program that listens (`NFLOG`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Tells which rule it was; at most 127 bytes.
    pub prefix: String,
    /// To whom.
    pub group: u16,
    /// How many bytes of the packet.
    pub snaplen: u32,
}

/// A rate of packets. How far it is used up belongs to no rule's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Packets a second.
    pub rate: u64,
    /// Packets at once.
    pub burst: u32,
}

/// How a packet is answered that goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// `reject with tcp reset`; only behind `meta l4proto tcp`.
    TcpReset,
    /// `reject with icmpx port-unreachable`
    PortUnreachable,
}

/// A packet's own addition to a dynamic set or map. An element that is there keeps its data and
/// lives on for the timeout; where the set is full, the rule ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Name of the set; [`Set::dynamic`].
    pub set: String,
    /// The element's key.
    pub key: Vec<Key>,
    /// Its data; empty for a set.
    pub data: Vec<Key>,
    /// How long it lives from the last packet on; whole milliseconds.
    pub timeout: Duration,
}

impl Statement {
    /// A comparison.
    pub fn is(key: Key, value: impl Into<Value>) -> Self {
        Self::Match {
            key,
            negate: false,
            value: value.into(),
        }
    }

    /// A comparison that must fail.
    pub fn is_not(key: Key, value: impl Into<Value>) -> Self {
        Self::Match {
            key,
            negate: true,
            value: value.into(),
        }
    }
}

/// Where a rule sends the packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// On, out of this base chain.
    Accept,
    /// Nowhere.
    Drop,
    /// Back to the rule after the jump.
    Return,
    /// To a chain, and back at its end.
    Jump(String),
    /// To a chain, and not back.
    Goto(String),
}

/// Which address is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatKind {
    /// The source.
    Snat,
    /// The destination.
    Dnat,
}

/// What an address is translated to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatTo {
    /// An address, and a port.
    Fixed(IpAddr, Option<u16>),
    /// What a map says; a packet it does not know goes on to the next rule.
    Map(MapTarget),
}

/// A map lookup that yields an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapTarget {
    /// What is looked up.
    pub keys: Vec<Key>,
    /// Name of the map.
    pub map: String,
    /// Whether the map's data has a port behind the address.
    pub with_port: bool,
}

/// A set, or a map where it has data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Fields of the key.
    pub key: Vec<Type>,
    /// Elements may be ranges ([`Value::Net`]); only for a key of one field.
    pub interval: bool,
    /// At most this many elements. Keys of four bytes are then found fastest: the kernel takes a
    /// table of this size, made once, and not one that grows.
    pub size: Option<u32>,
    /// Packets add elements ([`Statement::Update`]), up to the size, which such a set must have;
    /// each has a timeout. They are no part of what the set is: never compared, never removed by a
    /// difference.
    pub dynamic: bool,
    /// What a map holds.
    pub data: Option<SetData>,
    /// Elements.
    pub elements: BTreeMap<Vec<Value>, Option<MapDatum>>,
}

/// Data of one element of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapDatum {
    /// Values.
    Values(Vec<Value>),
    /// A verdict.
    Verdict(Verdict),
}

impl Set {
    /// A set of single values.
    pub fn of(key: impl Into<Vec<Type>>) -> Self {
        Self {
            key: key.into(),
            interval: false,
            size: None,
            dynamic: false,
            data: None,
            elements: BTreeMap::new(),
        }
    }

    /// A map.
    pub fn map(key: impl Into<Vec<Type>>, data: SetData) -> Self {
        Self {
            data: Some(data),
            ..Self::of(key)
        }
    }

    /// Adds an element to a set.
    pub fn add(&mut self, key: impl Into<Vec<Value>>) {
        self.elements.insert(key.into(), None);
    }

    /// Adds an element to a map.
    pub fn put(&mut self, key: impl Into<Vec<Value>>, datum: MapDatum) {
        self.elements.insert(key.into(), Some(datum));
    }
}

/// What a map holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetData {
    /// Verdicts.
    Verdict,
    /// Values.
    Values(Vec<Type>),
}
