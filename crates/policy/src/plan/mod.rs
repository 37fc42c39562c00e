//! What the node's pods may do: for each of their addresses and both directions an ordered list
//! of rules over sets of peers and ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::Key;

/// A pod that is attached here: its addresses are known before the cluster hears of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Namespace and name.
    pub pod: Key,
    /// `metadata.uid`, empty where the runtime did not say.
    pub uid: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// The pods attached to this node, by the container that holds them (CNI container and link).
pub type Locals = BTreeMap<(String, String), Local>;
