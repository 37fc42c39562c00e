//! From the plan to the form one backend takes. Pure.

pub mod iptables;
pub mod nftables;
