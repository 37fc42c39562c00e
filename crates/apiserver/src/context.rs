//! What every request can reach.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::connect::Kubelets;
use crate::metrics::Metrics;
use crate::rbac;
use crate::registry::Registry;
use crate::store::Store;
use crate::token::Tokens;

/// Settings that do not change while the server runs.
pub struct Settings {
    /// Service ranges, the first one of the primary family.
    pub service_cidrs: Vec<IpNet>,
    /// Range of nodePorts.
    pub node_ports: RangeInclusive<u16>,
    /// Addresses that the `kubernetes` Service leads to.
    pub advertise: Vec<IpAddr>,
    /// Port of those addresses.
    pub advertise_port: u16,
    /// The authority's certificate, PEM.
    pub ca: String,
}

/// Shared by all requests.
pub struct Context {
    /// Objects.
    pub store: Store,
    /// Served kinds.
    pub registry: ArcSwap<Registry>,
    /// Settings.
    pub settings: Settings,
    /// Service-account tokens.
    pub tokens: Tokens,
    /// Roles and bindings.
    pub rbac: rbac::Cache,
    /// Reaches kubelets.
    pub kubelets: Kubelets,
    /// Counters.
    pub metrics: Metrics,
    /// Places for requests that are not long.
    pub in_flight: tokio::sync::Semaphore,
    /// Places for connections.
    pub connections: Arc<tokio::sync::Semaphore>,
    /// OpenAPI documents made so far.
    pub documents: crate::openapi::Documents,
    /// Held while a Service is written, so that two never get the same address or port.
    pub services: tokio::sync::Mutex<()>,
}

/// A shared context.
pub type Ctx = Arc<Context>;

/// Now, in seconds, as `creationTimestamp` is written.
pub fn now_text() -> String {
    text_of(jiff::Timestamp::now().as_second())
}

/// RFC 3339 of a time in seconds since the epoch.
pub fn text_of(second: i64) -> String {
    jiff::Timestamp::from_second(second)
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// A new uid (UUID version 4).
pub fn uid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Random letters as Kubernetes appends them to generated names.
pub fn suffix(length: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..length)
        .map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]))
        .collect()
}
