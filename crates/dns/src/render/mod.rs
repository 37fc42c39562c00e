//! What brings a node's queries to its own server, as the kernel has it.

pub mod nftables;
