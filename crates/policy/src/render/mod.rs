//! The plan as one backend wants it.

pub mod nftables;
