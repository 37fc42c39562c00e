//! The kernel's own answers, in network namespaces made here.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod announce;
mod atomic;
mod conntrack;
mod costs;
mod iptables;
mod judged;
mod links;
mod many;
mod monitor;
mod netns;
mod nflog;
mod nftables;
mod routes;
mod services;
mod tc;
mod tracked;

use linux::{NetNs, Netlink};

pub(crate) use testing::root;

/// A namespace that ends with its handle, and a handle to its network.
pub(crate) fn namespace() -> (NetNs, Netlink) {
    let netns = NetNs::anonymous().unwrap();
    let netlink = Netlink::open_in(&netns).unwrap();
    (netns, netlink)
}
