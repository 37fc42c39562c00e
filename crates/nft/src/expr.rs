//! The kernel's expressions: small steps on registers.

use crate::model::{CtState, Direction, Limit, Log, NatKind, Reject, Verdict};
use crate::value::IpFamily;

/// A register by its number on the wire; see [`register`].
pub type Register = u32;

/// The register that starts at a 32-bit word, numbered as the kernel lists it.
pub(crate) fn register(word: usize) -> Register {
    let word = word as u32;
    if word.is_multiple_of(4) {
        1 + word / 4
    } else {
        8 + word
    }
}

/// The 32-bit word at which a register starts.
pub(crate) fn word(register: Register) -> usize {
    match register {
        1..=4 => (register as usize - 1) * 4,
        other => (other as usize).saturating_sub(8),
    }
}

/// How a register is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
}

/// `NFT_META_*` that are used.
pub(crate) mod meta {
    pub const MARK: u32 = 3;
    pub const IIFNAME: u32 = 6;
    pub const OIFNAME: u32 = 7;
    pub const NFPROTO: u32 = 15;
    pub const L4PROTO: u32 = 16;
}

/// `NFT_CT_*` that are used.
pub(crate) mod ct {
    pub const STATE: u32 = 0;
    pub const STATUS: u32 = 2;
    pub const MARK: u32 = 3;
    pub const PROTOCOL: u32 = 10;
    pub const PROTO_SRC: u32 = 11;
    pub const PROTO_DST: u32 = 12;
    pub const SRC_IP: u32 = 19;
    pub const SRC_IP6: u32 = 21;
}

impl CtState {
    /// `NF_CT_STATE_BIT`
    pub(crate) fn bit(self) -> u32 {
        match self {
            Self::Invalid => 1,
            Self::Established => 2,
            Self::Related => 4,
            Self::New => 8,
            Self::Untracked => 64,
        }
    }
}

/// `IPS_DST_NAT`
pub(crate) const STATUS_DNAT: u32 = 0x20;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
pub(crate) const FULLY_RANDOM: u32 = 0x10;
/// Network header.
pub(crate) const NETWORK: u32 = 1;
/// Transport header.
pub(crate) const TRANSPORT: u32 = 2;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads something about the packet.
    Meta {
        /// `NFT_META_*`
        key: u32,
        /// Into.
        dreg: Register,
    },
    /// Sets something about the packet.
    MetaSet {
        /// `NFT_META_*`
        key: u32,
        /// From.
        sreg: Register,
    },
    /// Loads something about the connection.
    Ct {
        /// `NFT_CT_*`
        key: u32,
        /// Of which packets, for what differs.
        direction: Option<Direction>,
        /// Into.
        dreg: Register,
    },
    /// Sets something about the connection.
    CtSet {
        /// `NFT_CT_*`
        key: u32,
        /// From.
        sreg: Register,
    },
    /// Loads bytes of the packet.
    Payload {
        /// `NFT_PAYLOAD_*`: which header.
        base: u32,
        /// From.
        offset: u32,
        /// How many.
        len: u32,
        /// Into.
        dreg: Register,
    },
    /// Whether an address is the host's own: loads the address's type.
    FibType {
        /// Of the source, or of the destination.
        source: bool,
        /// Into.
        dreg: Register,
    },
    /// Whether what is sent to the source leaves by the link the packet came by: loads 1 or
    /// 0 into the first byte, and zeros behind it.
    FibWayBack {
        /// Into.
        dreg: Register,
    },
    /// Whether what has its destination and mark leaves by any link: loads 1 or 0 into the
    /// first byte, and zeros behind it.
    FibWayOut {
        /// Into.
        dreg: Register,
    },
    /// Keeps connection tracking from it.
    NoTrack,
    /// Loads a random number below another.
    Random {
        /// The other.
        modulus: u32,
        /// Into.
        dreg: Register,
    },
    /// `dreg = (sreg & mask) ^ xor`
    Bitwise {
        /// From.
        sreg: Register,
        /// Into.
        dreg: Register,
        /// And.
        mask: Vec<u8>,
        /// Exclusive or.
        xor: Vec<u8>,
    },
    /// Ends the rule unless the comparison holds.
    Cmp {
        /// What.
        sreg: Register,
        /// How.
        op: CmpOp,
        /// With what.
        data: Vec<u8>,
    },
    /// Ends the rule unless the register is within a range, or, not equal, outside.
    Range {
        /// What.
        sreg: Register,
        /// How.
        op: CmpOp,
        /// The lowest value.
        first: Vec<u8>,
        /// The highest.
        last: Vec<u8>,
    },
    /// Ends the rule unless the set has the key; a map also gives its data.
    Lookup {
        /// Name of the set.
        set: String,
        /// The key.
        sreg: Register,
        /// Where a map's data goes; 0 is the verdict.
        dreg: Option<Register>,
        /// Ends the rule where the set has the key.
        invert: bool,
    },
    /// Loads constant bytes.
    Immediate {
        /// Into.
        dreg: Register,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Decides.
    Verdict(Verdict),
    /// Translates to what is in the registers.
    Nat {
        /// Source or destination.
        kind: NatKind,
        /// Of which packets.
        family: IpFamily,
        /// The address.
        addr: Register,
        /// The port.
        port: Option<Register>,
    },
    /// Translates the source to the leaving link's address.
    Masquerade {
        /// `NF_NAT_RANGE_*`
        flags: u32,
    },
    /// Answers that the packet goes nowhere, and drops it.
    Reject(Reject),
    /// Adds an element to a set, or has it live on; ends the rule where there is no room.
    Update {
        /// Name of the set.
        set: String,
        /// The key.
        key: Register,
        /// The data.
        data: Option<Register>,
        /// Milliseconds.
        timeout: u64,
    },
    /// Tells a program of the packet.
    Log(Log),
    /// Ends the rule beyond a rate.
    Limit(Limit),
    /// Counts; the counts themselves are no part of a rule's identity.
    Counter,
    /// Read from the kernel and not known here: never equal to anything wanted.
    Unknown(String),
}

impl Expr {
    /// The set it refers to.
    pub fn set(&self) -> Option<&str> {
        match self {
            Self::Lookup { set, .. } | Self::Update { set, .. } => Some(set),
            _ => None,
        }
    }
}
