//! The plan as nftables.

/// The table: its own, because the kernel walks a whole table when a verdict of it changes.
pub const TABLE: &str = "flatnet-policy";
