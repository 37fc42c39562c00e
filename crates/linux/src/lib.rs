//! The Linux kernel as typed, synchronous calls.
//!
//! A [`Netlink`] is one `NETLINK_ROUTE` socket. It stays bound to the network namespace it was
//! opened in, whatever thread uses it later, so [`Netlink::open_in`] gives a handle that works
//! inside another namespace without entering it again. Everything else that depends on the
//! caller's namespace (sysctls) says so.
//!
//! Every error names the operation, the object and the kernel's own words; see [`Error`].

pub mod addr;
pub mod announce;
mod bpf;
pub mod conntrack;
mod error;
pub mod fake;
pub mod iptables;
pub mod kernel;
pub mod link;
mod mac;
pub mod monitor;
pub mod neigh;
mod netlink;
pub mod netns;
pub mod nflog;
pub mod nftables;
pub mod route;
pub mod rule;
pub mod sysctl;
pub mod tc;
pub mod transparent;

pub use addr::Address;
pub use conntrack::{Conntrack, Flow, FlowFilter};
pub use error::{Error, Result};
pub use kernel::{Host, Kernel};
pub use link::{Kind, Link, LinkChange, NewLink, VethEnd, Vxlan};
pub use mac::Mac;
pub use monitor::{Event, Monitor};
pub use neigh::{FdbEntry, Neighbour};
pub use netlink::Netlink;
pub use netns::{NetNs, run_in};
pub use nftables::Nftables;
pub use route::{Route, RouteFilter, RouteType, Scope};
pub use rule::MarkRule;
pub use tc::Tbf;
