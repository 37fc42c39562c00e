//! What the server blocks of a server share.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;

use crate::plan::View;
use crate::plugins::looping::Finding;
use crate::plugins::metrics::Metrics;
use crate::plugins::output::Output;
use crate::upstream;
use crate::wire::Name;

/// What the server blocks of a server share.
#[derive(Clone, Debug)]
pub struct Resources {
    /// The watched state; none before the first sync.
    pub view: Arc<ArcSwapOption<View>>,
    /// Where lines of the log go.
    pub output: Arc<Output>,
    /// What plugins count.
    pub metrics: Arc<Metrics>,
    /// Addresses at which the server answers, for the names of the cluster's own servers.
    pub local: Vec<IpAddr>,
    /// The search path of the host itself, which is the end of its pods'.
    pub search: Vec<Name>,
    /// The host's name, for `nsid` and `chaos`.
    pub host: String,
    /// How upstreams are reached; what is counted is counted in `metrics`.
    pub upstream: upstream::Resources,
    /// Where a forwarding loop is told.
    pub looping: Finding,
    /// When the server was started.
    pub started: Instant,
}
