//! The plan as maps of nftables.
//!
//! ```text
//! services-prerouting, services-output (nat) ─▶ services-dispatch
//!   ip daddr . meta l4proto . th dport vmap @services-ips           each Service's address and port
//!   fib daddr type local meta l4proto . th dport vmap @services-nodeports
//!   ip daddr @services-cluster-ips goto services-reject              no such port
//!   ip daddr 10.96.0.0/12 drop                                       no such Service
//! services-internal-5 ─▶ asks for masquerade where the source is no pod, then
//!   dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 5 map @services-endpoints
//! services-postrouting (nat)                                         masquerade, where asked for
//! ```
//!
//! What a packet meets does not grow with the number of Services: two map lookups lead it to its
//! endpoint, and they are made for the first packet of a connection only, for all chains but one
//! are of type nat (refusing and dropping work there too). A chain stands for everything about a
//! frontend but its addresses: how many endpoints, whether the source is masqueraded, affinity.
//! All frontends that agree share it, and it exists while one does; so a Service is nothing but
//! elements of maps, and a change of it is a change of elements. There are no anonymous sets.
//!
//! The order of endpoints in the maps is that of the plan, so what is rendered depends on the
//! plan alone and not on the way to it. A change of one endpoint may move those behind it by one:
//! no connection notices, since each is at every place with the same probability.

pub(crate) mod affinity;
mod base;
mod chain;
mod change;
mod port;
mod set;
mod table;
mod uses;

pub(crate) use base::GUARD;
pub(crate) use change::{Change, There, is_there, removal, there};
pub use port::way;
pub(crate) use set::SetId;
pub use table::table;
pub(crate) use uses::Rendered;

/// Name of the table, which other functions share.
pub(crate) const TABLE: &str = "flatnet";

/// Whether a chain or set of the table belongs to Services.
pub(crate) fn owns(name: &str) -> bool {
    name.starts_with("services-")
}
