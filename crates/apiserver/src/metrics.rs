//! `/metrics`, under the names of kube-apiserver.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::context::Ctx;
use crate::registry;
use crate::request::Info;

type Labels = Vec<(&'static str, String)>;

/// Seconds, as kube-apiserver has them (every other one).
const BUCKETS: [f64; 12] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 2.0, 5.0, 15.0, 60.0,
];

/// Verbs that are counted by name.
const VERBS: [&str; 9] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
    "post",
];

/// Counters of requests.
pub struct Metrics {
    requests: Family<Labels, Counter>,
    durations: Family<Labels, Histogram>,
    objects: Family<Labels, Gauge>,
    registry: Registry,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<Labels, Counter>::default();
        let durations =
            Family::<Labels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let objects = Family::<Labels, Gauge>::default();
        registry.register(
            "apiserver_request",
            "Counter of apiserver requests broken out for each verb, group, version, resource, scope and HTTP response code",
            requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds for each verb, group, version, resource and scope",
            durations.clone(),
        );
        registry.register(
            "apiserver_storage_objects",
            "Number of stored objects split by kind",
            objects.clone(),
        );
        Self {
            requests,
            durations,
            objects,
            registry,
        }
    }
}

impl Metrics {
    /// Counts an answered request. `served` says whether its resource is one that is served:
    /// paths that lead nowhere make no new series.
    pub fn answered(&self, info: &Info, served: bool, code: u16, time: Duration) {
        let known = |text: &String| if served { text.clone() } else { String::new() };
        let verb = if VERBS.contains(&info.verb.as_str()) {
            info.verb.to_ascii_uppercase()
        } else {
            "OTHER".into()
        };
        let mut labels: Labels = vec![
            ("verb", verb),
            ("group", known(&info.group)),
            ("version", known(&info.version)),
            ("resource", known(&info.resource)),
            ("subresource", known(&info.subresource)),
            ("scope", scope(info).to_owned()),
        ];
        if info.verb != "watch" {
            self.durations
                .get_or_create(&labels)
                .observe(time.as_secs_f64());
        }
        labels.push(("code", code.to_string()));
        self.requests.get_or_create(&labels).inc();
    }

    /// The text of `/metrics`.
    pub fn text(&self, ctx: &Ctx) -> String {
        self.objects.clear();
        for kind in ctx.registry.load().stored() {
            let count = ctx.store.count(&registry::prefix(kind, ""));
            let name = objects::status::qualified(&kind.group, &kind.plural);
            self.objects
                .get_or_create(&vec![("resource", name)])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn scope(info: &Info) -> &'static str {
    match (
        info.is_resource,
        info.name.is_empty(),
        info.namespace.is_empty(),
    ) {
        (false, ..) => "",
        (true, false, _) => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    }
}
