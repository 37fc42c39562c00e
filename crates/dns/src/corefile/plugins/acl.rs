//! `acl`: who may ask for what.

use ipnet::IpNet;

use crate::corefile::Zone;
use crate::wire::Type;

/// The rules for some zones.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Acl {
    /// The zones.
    pub zones: Vec<Zone>,
    /// The rules; the first that matches counts.
    pub rules: Vec<AclRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct AclRule {
    /// What is done with the query.
    pub action: AclAction,
    /// Query types; `None` is every type.
    pub types: Option<Vec<Type>>,
    /// Sources; `None` is everyone.
    pub networks: Option<Vec<IpNet>>,
}

/// What is done with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclAction {
    /// It is answered.
    Allow,
    /// REFUSED.
    Block,
    /// An empty answer.
    Filter,
    /// No answer.
    Drop,
}
