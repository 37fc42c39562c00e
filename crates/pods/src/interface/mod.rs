//! A pod's interface.
//!
//! `plan` says what the pod and the node must have for one attachment, `render` gives that
//! the form of a CNI result and of kernel settings, `apply` makes, checks, heals and removes it.

mod apply;
mod check;
mod limit;
mod plan;
mod render;

pub use apply::{ApplyError, Wires, remove_in_namespace};
pub use plan::{BRIDGE, Interface, Settings, gateway, plan, shaper};
pub use render::result;
