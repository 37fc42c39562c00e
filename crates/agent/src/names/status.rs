//! How the node's own DNS server stands, for whoever asks the agent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use serde::Serialize;

/// How it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// Where questions are led to it; nowhere where it is not there.
    pub addresses: Vec<IpAddr>,
    /// Since when.
    pub since: Option<SystemTime>,
    /// What is wrong.
    pub problems: Vec<String>,
    /// Where it should be.
    pub wanted: Vec<IpAddr>,
}

/// The same with what is counted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    serving: bool,
    addresses: Vec<IpAddr>,
    wanted: Vec<IpAddr>,
    since: Option<Timestamp>,
    /// When the Corefile in force was taken.
    corefile_since: Option<Timestamp>,
    problems: Vec<String>,
    /// Sums of the server's metrics, by name.
    counts: BTreeMap<String, f64>,
}

/// Where the loop writes, and others read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    status: ArcSwap<Status>,
    corefile: ArcSwapOption<SystemTime>,
    metrics: Arc<dns::metrics::Metrics>,
}

impl Board {
    /// What the server counts.
    pub(crate) fn metrics(&self) -> &Arc<dns::metrics::Metrics> {
        &self.0.metrics
    }

    pub(super) fn set(&self, status: Status) {
        self.0.status.store(Arc::new(status));
    }

    pub(super) fn set_corefile(&self, since: SystemTime) {
        self.0.corefile.store(Some(Arc::new(since)));
    }

    /// All of it.
    pub(crate) fn shown(&self) -> Shown {
        let status = self.0.status.load();
        let corefile = self.0.corefile.load_full();
        let serving = !status.addresses.is_empty();
        Shown {
            serving,
            addresses: status.addresses.clone(),
            wanted: status.wanted.clone(),
            since: status.since.and_then(timestamp),
            corefile_since: corefile.filter(|_| serving).and_then(|at| timestamp(*at)),
            problems: status.problems.clone(),
            counts: sums(&self.0.metrics.text()),
        }
    }
}

fn timestamp(at: SystemTime) -> Option<Timestamp> {
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    Timestamp::from_second(i64::try_from(since.as_secs()).ok()?).ok()
}

/// Of each of the server's metrics, histograms apart, the sum over its labels.
fn sums(text: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("coredns_")) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = series.split('{').next().unwrap_or(series);
        let of_histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .any(|end| name.ends_with(end));
        if let (false, Ok(value)) = (of_histogram, value.parse::<f64>()) {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let text = "# TYPE coredns_dns_requests_total counter\n\
            coredns_dns_requests_total{server=\"a\",type=\"A\"} 2\n\
            coredns_dns_requests_total{server=\"b\",type=\"AAAA\"} 3\n\
            coredns_dns_request_size_bytes_bucket{le=\"0\"} 9\n\
            go_goroutines 1\n";
        let expected = BTreeMap::from([("coredns_dns_requests_total".to_owned(), 5.0)]);
        assert_eq!(sums(text), expected);
    }
}
