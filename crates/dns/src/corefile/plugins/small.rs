//! Plugins with little to say: `metadata`, `dns64`, `chaos`, `loadbalance`, `autopath`,
//! `header`, `erratic`, `view`.

use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use crate::corefile::Zone;

/// Values of a query that other plugins may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// For names in these zones.
    pub zones: Vec<Zone>,
}

/// AAAA out of A.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns64 {
    /// The prefix; its length is 32, 40, 48, 56, 64 or 96.
    pub prefix: Ipv6Net,
    /// Also where there is an AAAA.
    pub translate_all: bool,
    /// Also for clients that ask over IPv4.
    pub allow_ipv4: bool,
}

impl Default for Dns64 {
    fn default() -> Self {
        let well_known = std::net::Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);
        Self {
            prefix: Ipv6Net::new_assert(well_known, 96),
            translate_all: false,
            allow_ipv4: false,
        }
    }
}

/// What the server says about itself in class CH.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chaos {
    /// version.bind; `None` is the server's own.
    pub version: Option<String>,
    /// authors.bind, sorted; `None` is the server's own.
    pub authors: Option<Vec<String>>,
}

/// The order of addresses in an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadBalance {
    /// How they are ordered.
    pub policy: LoadBalancePolicy,
    /// Addresses in these networks come first, in this order of networks.
    pub prefer: Vec<IpNet>,
}

/// How addresses are ordered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LoadBalancePolicy {
    /// At random.
    #[default]
    RoundRobin,
    /// By weights out of a file.
    Weighted {
        /// The file.
        file: String,
        /// How often it is looked at; zero is never again.
        reload: Duration,
    },
}

/// The search path completed by the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoPath {
    /// For names in these zones.
    pub zones: Vec<Zone>,
    /// The search path.
    pub search: SearchPath,
}

/// Where a search path comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchPath {
    /// From a plugin that knows the client (`@kubernetes`).
    Plugin(String),
    /// From the `search` line of a file like /etc/resolv.conf.
    File(String),
}

/// Flags set or cleared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// In the query.
    pub query: Vec<HeaderRule>,
    /// In the response.
    pub response: Vec<HeaderRule>,
}

/// A flag set or cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderRule {
    /// The flag.
    pub flag: Flag,
    /// Set or cleared.
    pub set: bool,
}

/// A flag of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// aa
    Authoritative,
    /// ra
    RecursionAvailable,
    /// rd
    RecursionDesired,
}

/// Bad answers on purpose; 0 is never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erratic {
    /// Every so-manyth query is dropped.
    pub drop: u32,
    /// Every so-manyth query is late ...
    pub delay: u32,
    /// ... by this.
    pub duration: Duration,
    /// Every so-manyth answer is truncated.
    pub truncate: u32,
    /// Answers are large.
    pub large: bool,
}

impl Default for Erratic {
    fn default() -> Self {
        Self {
            drop: 2,
            delay: 0,
            duration: Duration::ZERO,
            truncate: 0,
            large: false,
        }
    }
}

/// The block is for queries of which all of this holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The name, for metrics and metadata.
    pub name: String,
    /// Conditions in the language of the Go module expr.
    pub expressions: Vec<String>,
}
