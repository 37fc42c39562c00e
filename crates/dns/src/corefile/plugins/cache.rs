//! `cache`.

use std::time::Duration;

use crate::corefile::Zone;

/// The cache of a server block.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    /// The zones whose answers are kept.
    pub zones: Vec<Zone>,
    /// Answers with data.
    pub success: CacheLimits,
    /// NXDOMAIN and NODATA.
    pub denial: CacheLimits,
    /// Answers fetched again before they are too old.
    pub prefetch: Option<Prefetch>,
    /// Answers given although they are too old.
    pub serve_stale: Option<ServeStale>,
    /// How long a SERVFAIL is kept; zero is not at all.
    pub servfail: Duration,
    /// Zones whose answers with data are not kept.
    pub disable_success: Vec<Zone>,
    /// Zones whose denials are not kept.
    pub disable_denial: Vec<Zone>,
    /// An answer out of the cache has the TTL it came with.
    pub keepttl: bool,
}

/// Bounds of one half of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// How many answers.
    pub capacity: usize,
    /// The longest TTL, in seconds.
    pub max_ttl: u32,
    /// The shortest TTL, in seconds.
    pub min_ttl: u32,
}

/// When an answer is fetched again before it is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    /// Asked for this often ...
    pub amount: u32,
    /// ... without a pause longer than this ...
    pub duration: Duration,
    /// ... when this many hundredths of the TTL are left.
    pub percentage: u8,
}

/// Answers given although they are too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeStale {
    /// For how long.
    pub duration: Duration,
    /// Whether the upstream is asked before or after.
    pub refresh: Refresh,
    /// The TTL such an answer has, in seconds.
    pub ttl: u32,
    /// After a failed refresh, the upstream is left alone for this time.
    pub recheck: Duration,
    /// An answer with data that is too old is preferred to a denial.
    pub prefer_positive: bool,
}

/// When a stale answer is made fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// The stale answer goes out at once, the upstream is asked afterwards.
    Immediate,
    /// The upstream is asked first, for at most this time (`None`: as long as it takes).
    Verify(Option<Duration>),
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            success: CacheLimits {
                capacity: 10_000,
                max_ttl: 3600,
                min_ttl: 5,
            },
            denial: CacheLimits {
                capacity: 10_000,
                max_ttl: 1800,
                min_ttl: 5,
            },
            prefetch: None,
            serve_stale: None,
            servfail: Duration::from_secs(5),
            disable_success: Vec::new(),
            disable_denial: Vec::new(),
            keepttl: false,
        }
    }
}
