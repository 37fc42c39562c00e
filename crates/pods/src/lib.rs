//! A pod's place on its node: its addresses, its interface, its host ports.
//!
//! - [`cni`]: the Container Network Interface as values;
//! - [`ipam`]: which address is whose, and the journal that survives a kill;
//! - [`interface`]: plan, render and apply of a pod's interface;
//! - [`ports`]: ports of the node that lead to pods;
//! - [`manager`]: all of it behind the CNI operations;
//! - [`wire`]: how the plugin and the command line ask the agent.

pub mod attachment;
pub mod cni;
pub mod interface;
pub mod ipam;
pub mod manager;
pub mod ports;
pub mod wire;

pub use attachment::{Attachment, Bandwidth, Key, PodRef, PortMapping, Protocol};
pub use interface::Settings;
pub use manager::{Manager, Readiness};
