//! `forward`: queries handed to other servers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::ClientTls;
use crate::corefile::{Scheme, Zone};
use crate::wire::Rcode;

/// The most `to` a `forward` may have.
pub(super) const MOST_UPSTREAMS: usize = 15;

/// Queries of a zone handed to other servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// The zone.
    pub from: Zone,
    /// The servers, in order; at most 15.
    pub to: Vec<To>,
    /// Zones within `from` that are not forwarded.
    pub except: Vec<Zone>,
    /// TCP whatever the client used.
    pub force_tcp: bool,
    /// UDP first, whatever the client used.
    pub prefer_udp: bool,
    /// How long an idle connection is kept.
    pub expire: Duration,
    /// How long a connection is kept at most.
    pub max_age: Option<Duration>,
    /// How many idle connections per upstream; `None` is no bound.
    pub max_idle_conns: Option<usize>,
    /// How long an answer is waited for.
    pub read_timeout: Duration,
    /// Failed health checks until an upstream counts as down; 0: it never does.
    pub max_fails: u32,
    /// Attempts to connect for one query; `None`: two per upstream, `Some(0)`: no bound.
    pub max_connect_attempts: Option<u32>,
    /// Which upstream is asked.
    pub policy: Policy,
    /// How an upstream that failed is checked.
    pub health_check: HealthCheck,
    /// More queries at once are REFUSED; 0 is no bound.
    pub max_concurrent: usize,
    /// Response codes upon which the next `forward` is asked.
    pub next: Vec<Rcode>,
    /// The next `forward` is asked upon an answer without data too.
    pub next_on_nodata: bool,
    /// Response codes upon which the next upstream is asked.
    pub failover: Vec<Rcode>,
    /// SERVFAIL when every upstream is down, instead of a try at one of them.
    pub failfast_all_unhealthy_upstreams: bool,
    /// Certificates for upstreams over TLS and HTTPS.
    pub tls: ClientTls,
    /// The name in the upstreams' certificates; an upstream's own (`tls://IP%name`) is in it.
    pub tls_servername: Option<String>,
    /// Queries to upstreams over HTTPS are sent with GET instead of POST.
    pub doh_get: bool,
    /// Servers that resolve the upstreams given by name; empty: the host's.
    pub resolver: Vec<SocketAddr>,
    /// The address queries are sent from.
    pub source_address: Option<IpAddr>,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// A server.
    Server(Upstream),
    /// The `nameserver` lines of a file like /etc/resolv.conf.
    File(String),
    /// A server by name (or, if there is one by that name in the working folder, a file).
    Host {
        /// The transport.
        scheme: Scheme,
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// The name in its certificate.
        server_name: Option<String>,
    },
}

/// A server queries are handed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The transport.
    pub scheme: Scheme,
    /// Address and port.
    pub address: SocketAddr,
    /// The interface of a link-local address (`fe80::1%eth0`).
    pub interface: Option<String>,
    /// The name in its certificate (`tls://9.9.9.9%dns.quad9.net`).
    pub server_name: Option<String>,
}

/// Which upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Any.
    #[default]
    Random,
    /// Each in turn.
    RoundRobin,
    /// The first that is up.
    Sequential,
}

/// How an upstream that failed is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// How often.
    pub interval: Duration,
    /// The question has the flag "recursion desired".
    pub recursion_desired: bool,
    /// The name asked for (type NS).
    pub domain: Zone,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            recursion_desired: true,
            domain: Zone::root(),
        }
    }
}

impl Default for Forward {
    fn default() -> Self {
        Self {
            from: Zone::root(),
            to: Vec::new(),
            except: Vec::new(),
            force_tcp: false,
            prefer_udp: false,
            expire: Duration::from_secs(10),
            max_age: None,
            max_idle_conns: None,
            read_timeout: Duration::from_secs(2),
            max_fails: 2,
            max_connect_attempts: None,
            policy: Policy::default(),
            health_check: HealthCheck::default(),
            max_concurrent: 0,
            next: Vec::new(),
            next_on_nodata: false,
            failover: Vec::new(),
            failfast_all_unhealthy_upstreams: false,
            tls: ClientTls::default(),
            tls_servername: None,
            doh_get: false,
            resolver: Vec::new(),
            source_address: None,
        }
    }
}
