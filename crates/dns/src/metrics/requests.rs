//! What is counted of each question and its answer, under CoreDNS's names.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use super::count::{Count, Histogram, Responses, SIZES, TIMES, Total, nanoseconds};
use crate::query::Transport;
use crate::wire::{Rcode, Type};

/// The types that are told apart.
const KINDS: [Type; 19] = [
    Type::A,
    Type::AAAA,
    Type::SRV,
    Type::PTR,
    Type::CNAME,
    Type::TXT,
    Type::HTTPS,
    Type::SVCB,
    Type::NS,
    Type::SOA,
    Type::MX,
    Type::DS,
    Type::DNSKEY,
    Type::NSEC,
    Type::NSEC3,
    Type::RRSIG,
    Type::IXFR,
    Type::AXFR,
    Type::ANY,
];

/// What one worker has counted for one site.
#[derive(Debug)]
pub(crate) struct Counters {
    /// By protocol, family and type; the last type stands for all others.
    requests: [[[Count; KINDS.len() + 1]; 2]; 2],
    dnssec_ok: Count,
    durations: Histogram<16>,
    request_sizes: [Histogram<14>; 2],
    response_sizes: [Histogram<14>; 2],
    responses: Responses,
}

impl Default for Counters {
    fn default() -> Self {
        let sizes = || [Histogram::new(&SIZES), Histogram::new(&SIZES)];
        Self {
            requests: Default::default(),
            dnssec_ok: Count::default(),
            durations: Histogram::new(&TIMES),
            request_sizes: sizes(),
            response_sizes: sizes(),
            responses: Responses::default(),
        }
    }
}

/// One question and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub transport: Transport,
    pub ipv6: bool,
    pub kind: Type,
    pub dnssec_ok: bool,
    pub request: usize,
    pub response: usize,
    pub rcode: Rcode,
    pub plugin: &'static str,
}

impl Counters {
    /// Counts a question and its answer, but for how long that took.
    pub(crate) fn served(&self, served: &Served) {
        let stream = usize::from(served.transport != Transport::Udp);
        let kind = KINDS.iter().position(|kind| *kind == served.kind);
        let kinds = &self.requests[stream][usize::from(served.ipv6)];
        kinds[kind.unwrap_or(KINDS.len())].add(1);
        if served.dnssec_ok {
            self.dnssec_ok.add(1);
        }
        self.request_sizes[stream].observe(served.request as u64, 1);
        self.response_sizes[stream].observe(served.response as u64, 1);
        self.responses.add(served.rcode, served.plugin);
    }

    /// So many answers took this long each.
    pub(crate) fn took(&self, time: Duration, answers: u64) {
        self.durations.observe(nanoseconds(time), answers);
    }
}

/// Whose counters they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(crate) struct SiteLabels {
    /// The listener, such as `dns://:53`.
    pub server: String,
    pub view: String,
    pub zone: String,
}

/// All counters of questions. They outlive what is served, so that no counter falls back when
/// a Corefile is changed.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    by_site: Mutex<BTreeMap<SiteLabels, BTreeMap<usize, Arc<Counters>>>>,
}

impl Requests {
    /// The counters of a site that this worker, and no other, counts up.
    pub(crate) fn of(&self, site: SiteLabels, worker: usize) -> Arc<Counters> {
        let mut all = self.by_site.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = all.entry(site).or_default();
        Arc::clone(workers.entry(worker).or_default())
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    family: &'static str,
    proto: &'static str,
    r#type: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ProtoLabels {
    proto: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResponseLabels {
    plugin: &'static str,
    rcode: String,
}

/// A site's labels and some more.
#[derive(Debug)]
struct Both<'a, L>(&'a SiteLabels, L);

impl<L: EncodeLabelSet> EncodeLabelSet for Both<'_, L> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)?;
        self.1.encode(encoder)
    }
}

const PROTOS: [ProtoLabels; 2] = [ProtoLabels { proto: "udp" }, ProtoLabels { proto: "tcp" }];

/// Seconds out of nanoseconds, bytes out of bytes.
const NANOSECONDS: f64 = 1e-9;
const BYTES: f64 = 1.0;

type Sites = BTreeMap<SiteLabels, Vec<Arc<Counters>>>;

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sites: Sites = {
            let all = self.by_site.lock().unwrap_or_else(PoisonError::into_inner);
            let each = all.iter();
            each.map(|(site, workers)| (site.clone(), workers.values().cloned().collect()))
                .collect()
        };
        if sites.is_empty() {
            return Ok(());
        }
        requests(&sites, &mut encoder)?;
        responses(&sites, &mut encoder)?;
        durations(&sites, &mut encoder)?;
        sizes(
            &sites,
            "coredns_dns_request_size_bytes",
            "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol",
            |counters| &counters.request_sizes,
            &mut encoder,
        )?;
        sizes(
            &sites,
            "coredns_dns_response_size_bytes",
            "Size of the returned response in bytes",
            |counters| &counters.response_sizes,
            &mut encoder,
        )
    }
}

fn requests(sites: &Sites, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(
        "coredns_dns_requests",
        "Counter of DNS requests made per zone, protocol and family",
        None,
        MetricType::Counter,
    )?;
    for (site, workers) in sites {
        for (stream, labels) in PROTOS.iter().enumerate() {
            for (ipv6, family) in ["1", "2"].into_iter().enumerate() {
                for kind in 0..=KINDS.len() {
                    let each = workers.iter();
                    let sum: u64 = each.map(|one| one.requests[stream][ipv6][kind].get()).sum();
                    let name = KINDS.get(kind).map_or("other".to_owned(), Type::to_string);
                    let labels = RequestLabels {
                        family,
                        proto: labels.proto,
                        r#type: name,
                    };
                    counter(&mut metric, &Both(site, labels), sum)?;
                }
            }
        }
    }
    let mut metric = encoder.encode_descriptor(
        "coredns_dns_do_requests",
        "Counter of DNS requests with DO bit set per zone",
        None,
        MetricType::Counter,
    )?;
    for (site, workers) in sites {
        let sum = workers.iter().map(|one| one.dnssec_ok.get()).sum();
        counter(&mut metric, site, sum)?;
    }
    Ok(())
}

/// A counter, unless nothing was counted: then it is not there yet.
fn counter(metric: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, sum: u64) -> fmt::Result {
    if sum == 0 {
        return Ok(());
    }
    metric
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, u64, u64>(&sum, None)
}

fn responses(sites: &Sites, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(
        "coredns_dns_responses",
        "Counter of response status codes",
        None,
        MetricType::Counter,
    )?;
    for (site, workers) in sites {
        let mut sums: BTreeMap<(Rcode, &'static str), u64> = BTreeMap::new();
        for (kind, count) in workers.iter().flat_map(|one| one.responses.each()) {
            *sums.entry(kind).or_default() += count;
        }
        for ((rcode, plugin), sum) in sums {
            let rcode = rcode.to_string();
            let labels = Both(site, ResponseLabels { plugin, rcode });
            counter(&mut metric, &labels, sum)?;
        }
    }
    Ok(())
}

fn durations(sites: &Sites, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(
        "coredns_dns_request_duration_seconds",
        "Histogram of the time (in seconds) each request took per zone",
        None,
        MetricType::Histogram,
    )?;
    for (site, workers) in sites {
        let mut total = Total::default();
        for one in workers {
            one.durations.add_to(&mut total);
        }
        histogram(metric.encode_family(site)?, &total, &TIMES, NANOSECONDS)?;
    }
    Ok(())
}

fn sizes(
    sites: &Sites,
    name: &str,
    help: &str,
    which: impl Fn(&Counters) -> &[Histogram<14>; 2],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (site, workers) in sites {
        for (stream, labels) in PROTOS.iter().enumerate() {
            let mut total = Total::default();
            for one in workers {
                which(one)[stream].add_to(&mut total);
            }
            let labels = Both(site, labels.clone());
            histogram(metric.encode_family(&labels)?, &total, &SIZES, BYTES)?;
        }
    }
    Ok(())
}

fn histogram<const N: usize>(
    mut metric: MetricEncoder<'_>,
    total: &Total<N>,
    bounds: &[u64; N],
    unit: f64,
) -> fmt::Result {
    if total.count() == 0 {
        return Ok(());
    }
    let bounds = bounds.iter().map(|bound| *bound as f64 * unit);
    let mut buckets: Vec<(f64, u64)> = bounds.zip(total.counts).collect();
    buckets.push((f64::MAX, total.beyond));
    metric.encode_histogram::<NoLabelSet>(total.sum as f64 * unit, total.count(), &buckets, None)
}
