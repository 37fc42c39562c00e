//! The netlink form: transactions to bytes, and what the kernel lists back to values.

pub mod attr;
mod encode;
mod exprs;
pub mod read;

pub use encode::{Encoded, encode, message};

/// `NFNL_SUBSYS_NFTABLES`
pub const SUBSYSTEM: u8 = 10;

/// `NFT_MSG_*` that are used.
pub(crate) mod msg {
    pub const NEW_TABLE: u8 = 0;
    pub const GET_TABLE: u8 = 1;
    pub const DEL_TABLE: u8 = 2;
    pub const NEW_CHAIN: u8 = 3;
    pub const GET_CHAIN: u8 = 4;
    pub const DEL_CHAIN: u8 = 5;
    pub const NEW_RULE: u8 = 6;
    pub const GET_RULE: u8 = 7;
    pub const DEL_RULE: u8 = 8;
    pub const NEW_SET: u8 = 9;
    pub const GET_SET: u8 = 10;
    pub const DEL_SET: u8 = 11;
    pub const NEW_ELEMENTS: u8 = 12;
    pub const GET_ELEMENTS: u8 = 13;
    pub const DEL_ELEMENTS: u8 = 14;
    /// Since Linux 6.3.
    pub const DESTROY_ELEMENTS: u8 = 30;
}

/// Attributes of sets and their elements.
pub(crate) mod set_attr {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 2;
    pub const FLAGS: u16 = 3;
    pub const KEY_TYPE: u16 = 4;
    pub const KEY_LEN: u16 = 5;
    pub const DATA_TYPE: u16 = 6;
    pub const DATA_LEN: u16 = 7;
    pub const DESCRIPTION: u16 = 9;
    pub const ID: u16 = 10;
    pub const USERDATA: u16 = 13;

    pub const DESCRIPTION_SIZE: u16 = 1;

    pub const FLAG_INTERVAL: u32 = 4;
    pub const FLAG_MAP: u32 = 8;
    pub const FLAG_TIMEOUT: u32 = 0x10;
    /// `NFT_SET_EVAL`
    pub const FLAG_DYNAMIC: u32 = 0x20;

    pub const ELEMENTS: u16 = 3;
    pub const ELEMENT_KEY: u16 = 1;
    pub const ELEMENT_DATA: u16 = 2;
    pub const ELEMENT_FLAGS: u16 = 3;
    /// Milliseconds until it ends.
    pub const ELEMENT_EXPIRATION: u16 = 5;
    /// `NFT_SET_ELEM_INTERVAL_END`
    pub const INTERVAL_END: u32 = 1;
}

/// Attributes of chains and rules.
pub(crate) mod chain_attr {
    pub const TABLE: u16 = 1;
    pub const NAME: u16 = 3;
    pub const HOOK: u16 = 4;
    pub const POLICY: u16 = 5;
    pub const TYPE: u16 = 7;
    pub const HOOK_NUMBER: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;

    pub const RULE_CHAIN: u16 = 2;
    pub const RULE_EXPRS: u16 = 4;
    pub const RULE_USERDATA: u16 = 7;
}

/// An item of a list.
pub(crate) const LIST_ELEMENT: u16 = 1;
/// `NFTA_DATA_VALUE`
pub(crate) const DATA_VALUE: u16 = 1;
/// `NFTA_DATA_VERDICT`
pub(crate) const DATA_VERDICT: u16 = 2;
