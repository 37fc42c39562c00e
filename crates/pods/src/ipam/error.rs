//! Why an address cannot be given.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Seconds;
use crate::cni::{CniError, code};

/// A refusal, complete enough to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpamError {
    /// The node has no pod range yet.
    NoRange,
    /// Nothing is left.
    Exhausted {
        /// The node's range.
        net: IpNet,
        /// Addresses that pods can have.
        size: u128,
        /// Held by pods.
        used: u128,
        /// Released and resting.
        cooling: u128,
        /// Seconds until the first of those can be given.
        next: Option<Seconds>,
    },
    /// The range holds no address for a pod.
    TooSmall(IpNet),
    /// The requested address is held.
    Taken {
        /// The address.
        ip: IpAddr,
        /// Who holds it.
        holder: String,
    },
    /// The requested address is no pod's.
    Reserved {
        /// The address.
        ip: IpAddr,
        /// Network, gateway or broadcast address.
        role: &'static str,
    },
    /// The requested address, or pool of addresses, is not in this node's range.
    Outside {
        /// What was requested.
        what: String,
        /// The node's ranges.
        ranges: Vec<IpNet>,
    },
    /// Two addresses of one family were requested.
    TwoOfAFamily(IpAddr),
    /// The attachment is there already, with these addresses.
    Attached(String),
}

impl fmt::Display for IpamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IpamError::NoRange => {
                f.write_str("the node has no pod CIDR yet: waiting for spec.podCIDRs of the Node")
            }
            IpamError::Exhausted {
                net,
                size,
                used,
                cooling,
                next,
            } => {
                write!(
                    f,
                    "no address left in {net}: {used} of {size} in use, {cooling} resting"
                )?;
                match next {
                    Some(seconds) => write!(f, " (the next is free in {seconds} s)"),
                    None => f.write_str(
                        "; delete pods or give nodes a larger range (nodeCIDRMaskSizeIPv4/6)",
                    ),
                }
            }
            IpamError::TooSmall(net) => write!(
                f,
                "{net} is too small to allocate from: its addresses are all reserved"
            ),
            IpamError::Taken { ip, holder } => {
                write!(f, "requested address {ip} is in use by {holder}")
            }
            IpamError::Reserved { ip, role } => {
                write!(f, "requested address {ip} is the {role}; choose another")
            }
            IpamError::Outside { what, ranges } => {
                let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "requested {what} is outside this node's range {}",
                    ranges.join(", ")
                )
            }
            IpamError::TwoOfAFamily(ip) => write!(
                f,
                "requested address {ip} is the second of its family; request at most one a family"
            ),
            IpamError::Attached(what) => write!(f, "{what} is attached already; DEL comes first"),
        }
    }
}

impl std::error::Error for IpamError {}

impl From<IpamError> for CniError {
    fn from(error: IpamError) -> Self {
        let code = match error {
            IpamError::NoRange | IpamError::Exhausted { .. } => code::TRY_AGAIN,
            IpamError::TooSmall(_) | IpamError::TwoOfAFamily(_) => code::INVALID_CONFIG,
            IpamError::Taken { .. } | IpamError::Reserved { .. } | IpamError::Outside { .. } => {
                code::ADDRESS
            }
            IpamError::Attached(_) => code::INTERFACE_EXISTS,
        };
        CniError::new(code, error.to_string())
    }
}
