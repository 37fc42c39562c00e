//! Plugins about what is listened on and for how long: `bind`, `https`, `timeouts`, `reload`,
//! `ready`, `health`, `pprof`, `prometheus`.

use std::time::Duration;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The address or name; empty is every address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Listen on these addresses only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bind {
    /// Addresses and names of interfaces.
    pub addresses: Vec<String>,
    /// Those of them that are left out (an interface's, say).
    pub except: Vec<String>,
}

/// Bounds of the DNS over HTTPS listeners; `None` is `CoreDNS`'s default, 0 no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Https {
    /// Connections.
    pub max_connections: Option<u32>,
    /// Streams of one connection.
    pub max_streams: Option<u32>,
}

/// Timeouts of connections; `None` is the server's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// Until a query is read.
    pub read: Option<Duration>,
    /// Until an answer is written.
    pub write: Option<Duration>,
    /// Until an idle connection is closed.
    pub idle: Option<Duration>,
    /// Queries on one connection.
    pub max_tcp_queries: Option<MaxTcpQueries>,
}

/// Queries on one TCP or TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTcpQueries {
    /// No bound.
    Unlimited,
    /// At most this many.
    AtMost(u32),
}

/// How often the file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reload {
    /// How often.
    pub interval: Duration,
    /// The interval is longer or shorter by up to half of this.
    pub jitter: Duration,
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            jitter: Duration::from_secs(15),
        }
    }
}

/// The readiness endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Where.
    pub listen: Listen,
    /// A plugin that was ready once is asked again.
    pub continuously: bool,
}

/// The health endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Where.
    pub listen: Listen,
    /// On shutdown the server goes on for this time, telling that it is not healthy.
    pub lameduck: Duration,
}

/// Taken, without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pprof {
    /// Where.
    pub listen: Listen,
}

/// The metrics endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prometheus {
    /// Where.
    pub listen: Listen,
}

impl Listen {
    fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
        }
    }
}

impl Default for Ready {
    fn default() -> Self {
        Self {
            listen: Listen::new("", 8181),
            continuously: false,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            listen: Listen::new("", 8080),
            lameduck: Duration::ZERO,
        }
    }
}

impl Default for Pprof {
    fn default() -> Self {
        Self {
            listen: Listen::new("localhost", 6053),
        }
    }
}

impl Default for Prometheus {
    fn default() -> Self {
        Self {
            listen: Listen::new("localhost", 9153),
        }
    }
}
