//! What the agent counts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pods::cni::{CniError, Command};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub(crate) mod drops;
pub(crate) mod policy;
pub(crate) mod proxy;

use drops::DropMetrics;
use policy::PolicyMetrics;
use proxy::ProxyMetrics;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    operation: String,
    code: u32,
}

/// The agent's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    seconds: Family<Operation, Histogram>,
    errors: Family<Failure, Counter>,
    /// Those of Services.
    pub proxy: Arc<ProxyMetrics>,
    /// Those of denied connections.
    pub drops: Arc<DropMetrics>,
    /// Those of policies.
    pub policy: Arc<PolicyMetrics>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let seconds = Family::<Operation, Histogram>::new_with_constructor(|| {
            Histogram::new([
                0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.25, 1.0,
            ])
        });
        let errors = Family::<Failure, Counter>::default();
        registry.register(
            "flatnet_cni_operation_duration_seconds",
            "Time a CNI operation took in the agent",
            seconds.clone(),
        );
        registry.register(
            "flatnet_cni_operation_errors",
            "CNI operations that failed",
            errors.clone(),
        );
        let proxy = Arc::new(ProxyMetrics::register(&mut registry));
        let drops = Arc::new(DropMetrics::register(&mut registry));
        let policy = Arc::new(PolicyMetrics::register(&mut registry));
        Metrics {
            proxy,
            drops,
            policy,
            registry: Mutex::new(registry),
            seconds,
            errors,
        }
    }
}

impl Metrics {
    /// Counts one CNI operation.
    pub(crate) fn cni(&self, command: Command, error: Option<&CniError>, took: Duration) {
        let operation = format!("{command:?}").to_uppercase();
        if let Some(error) = error {
            self.errors
                .get_or_create(&Failure {
                    operation: operation.clone(),
                    code: error.code,
                })
                .inc();
        }
        self.seconds
            .get_or_create(&Operation { operation })
            .observe(took.as_secs_f64());
    }

    /// All of them, in Prometheus' text form.
    pub(crate) fn text(&self) -> String {
        let mut open_metrics = String::new();
        if let Ok(registry) = self.registry.lock() {
            let _ = prometheus_client::encoding::text::encode(&mut open_metrics, &registry);
        }
        dns::metrics::prometheus_text(&open_metrics)
    }
}
