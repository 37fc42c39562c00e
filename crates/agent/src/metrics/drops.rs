//! What is counted of denied connections.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use flows::Drop;
use model::Direction;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Namespaces that are told apart; further ones are counted as one without a name. Pods and
/// policies are in the events: as labels there would be no end to them.
const MOST_NAMESPACES: usize = 500;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDirection {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNamespace {
    direction: &'static str,
    namespace: String,
}

/// Denied connections.
#[derive(Debug)]
pub(crate) struct DropMetrics {
    packets: Family<OfDirection, Counter>,
    connections: Family<OfNamespace, Counter>,
    lost: Counter,
    namespaces: Mutex<BTreeSet<String>>,
}

impl DropMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            packets: Family::default(),
            connections: Family::default(),
            lost: Counter::default(),
            namespaces: Mutex::default(),
        };
        registry.register(
            "flatnet_policy_denied",
            "Packets that policies denied",
            metrics.packets.clone(),
        );
        registry.register(
            "flatnet_policy_denied_connections",
            "Denied connections that were told, by namespace of the pod whose policies denied them",
            metrics.connections.clone(),
        );
        registry.register(
            "flatnet_policy_denied_lost",
            "Denied packets that are in no event: beyond the rate at which the kernel tells",
            metrics.lost.clone(),
        );
        for direction in Direction::ALL {
            metrics.of(direction);
        }
        metrics
    }

    fn of(&self, direction: Direction) -> Counter {
        let direction = direction.word();
        self.packets
            .get_or_create(&OfDirection { direction })
            .clone()
    }

    /// So many packets were denied, as [`Direction::ALL`] has the directions.
    pub(crate) fn denied(&self, packets: &[u64; 2]) {
        for (direction, packets) in Direction::ALL.into_iter().zip(packets) {
            self.of(direction).inc_by(*packets);
        }
    }

    /// A connection was told.
    pub(crate) fn told(&self, drop: &Drop) {
        let subject = match drop.direction {
            Direction::Egress => &drop.from,
            Direction::Ingress => &drop.to,
        };
        let wanted = subject.namespace.clone().unwrap_or_default();
        let mut known = self
            .namespaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let namespace = if known.contains(&wanted) || known.len() < MOST_NAMESPACES {
            known.insert(wanted.clone());
            wanted
        } else {
            String::new()
        };
        let direction = drop.direction.word();
        let labels = OfNamespace {
            direction,
            namespace,
        };
        self.connections.get_or_create(&labels).inc();
    }

    /// So many are in no event.
    pub(crate) fn lost(&self, packets: u64) {
        self.lost.inc_by(packets);
    }
}
