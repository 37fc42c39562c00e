//! The plan as nftables: a table of its own, because the kernel walks a whole table when a verdict
//! of it changes, and must not walk the maps of Services for that.
//!
//! ```text
//! forward ─▶ ct mark @generation accept            judged under the rules in force
//!         ─▶ forward4 or forward6: what no policy is asked about; then
//!            who leads where, by the connection's addresses:
//!            client vmap @egress4 ─▶ egress-… ─▶ denied-egress
//!            server vmap @ingress4 ─▶ ingress-… ─▶ denied-ingress
//!         ─▶ judged: the connection is marked with the generation
//! input: the same with what pods send to their own node; nothing is asked about what it sends
//! ```
//!
//! Judged is always the connection and never the packet: who opened it, where it leads after
//! translation, on which port. So its packets of both directions, and ICMP errors about it, come
//! to the same. What was judged bears the generation in its mark, and nothing more is asked of its
//! packets. Every transaction that changes what anybody may do changes the generation too: the
//! next packet of each connection is then judged under the new rules, and those that are no longer
//! allowed end there. There is no moment in between, and nothing to be searched for.
//!
//! What a packet meets does not grow with the number of pods, nor with that of policies that are
//! not about its ends. There are no anonymous sets.

mod base;
mod change;
mod list;
mod set;
mod table;

pub use base::denied;
pub use base::generation;
pub(crate) use change::{Change, Generation};
pub use table::{compiled, table};

/// The table.
pub const TABLE: &str = "flatnet-policy";

/// Group of NFLOG that is told of what is denied.
pub const LOG_GROUP: u16 = 11;
