//! What caches count, under `CoreDNS`'s names.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Cache, Figures};

/// The caches of a server, as long as they are used.
#[derive(Clone, Debug, Default)]
pub struct Caches(Arc<Mutex<Vec<Listed>>>);

type Listed = (Labels, Weak<Cache>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    server: String,
    zones: String,
    view: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    server: String,
    r#type: &'static str,
    zones: String,
    view: String,
}

impl Caches {
    /// One more, of this listener. One that serves several is counted with the first.
    pub fn add(&self, server: &str, view: &str, cache: &Arc<Cache>) {
        let zones = &cache.options.zones;
        let zones: Vec<String> = zones.iter().map(ToString::to_string).collect();
        let labels = Labels {
            server: server.to_owned(),
            zones: zones.join(","),
            view: view.to_owned(),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, known)| known.strong_count() > 0);
        let cache = Arc::downgrade(cache);
        if !all.iter().any(|(_, known)| known.ptr_eq(&cache)) {
            // What a reload replaces goes a moment later: the same is not told twice.
            all.retain(|(known, _)| *known != labels);
            all.push((labels, cache));
        }
    }

    fn figures(&self) -> Vec<(Labels, Figures)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = |(labels, cache): &Listed| Some((labels.clone(), cache.upgrade()?.figures()));
        all.iter().filter_map(figures).collect()
    }
}

type Of = fn(&Figures) -> u64;

const TOTALS: [(&str, &str, Of); 5] = [
    ("requests", "The count of cache requests", |f| f.requests),
    (
        "misses",
        "The count of cache misses. Deprecated, derive misses from cache hits/requests counters",
        |f| f.misses,
    ),
    (
        "prefetch",
        "The number of times the cache has prefetched a cached item",
        |f| f.prefetch,
    ),
    (
        "drops",
        "The number responses that are not cached, because the reply is malformed",
        |f| f.drops,
    ),
    (
        "served_stale",
        "The number of requests served from stale cache entries",
        |f| f.served_stale,
    ),
];

const KINDS: [(&str, &str, [Of; 2]); 2] = [
    (
        "hits",
        "The count of cache hits",
        [|f| f.hits_success, |f| f.hits_denial],
    ),
    (
        "evictions",
        "The count of cache evictions",
        [|f| f.evictions_success, |f| f.evictions_denial],
    ),
];

impl Collector for Caches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.figures();
        if all.is_empty() {
            return Ok(());
        }
        let counter = MetricType::Counter;
        for (name, help, of) in TOTALS {
            let name = format!("coredns_cache_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, counter)?;
            for (labels, figures) in &all {
                let counter = ConstCounter::new(of(figures));
                counter.encode(metric.encode_family(labels)?)?;
            }
        }
        for (name, help, of) in KINDS {
            let name = format!("coredns_cache_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, counter)?;
            for (labels, figures) in &all {
                for (kind, of) in ["success", "denial"].into_iter().zip(of) {
                    let counter = ConstCounter::new(of(figures));
                    counter.encode(metric.encode_family(&of_kind(labels, kind))?)?;
                }
            }
        }
        let help = "The number of elements in the cache";
        let name = "coredns_cache_entries";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, figures) in &all {
            let entries = [figures.entries_success, figures.entries_denial];
            for (kind, entries) in ["success", "denial"].into_iter().zip(entries) {
                let gauge = ConstGauge::new(i64::try_from(entries).unwrap_or(i64::MAX));
                gauge.encode(metric.encode_family(&of_kind(labels, kind))?)?;
            }
        }
        Ok(())
    }
}

fn of_kind(labels: &Labels, kind: &'static str) -> OfKind {
    let Labels {
        server,
        zones,
        view,
    } = labels.clone();
    OfKind {
        server,
        r#type: kind,
        zones,
        view,
    }
}
