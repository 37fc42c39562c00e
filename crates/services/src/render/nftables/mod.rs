//! The plan as maps of nftables.
