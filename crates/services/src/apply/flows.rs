//! Forgets the flows that changes left without an endpoint.

use std::collections::BTreeSet;
use std::sync::Arc;

use linux::conntrack::Flow;
use linux::{Error, Kernel};
use model::{Cluster, Key, Protocol};

use crate::conntrack::Served;
use crate::plan::{Delta, Plan, PortPlan};

/// What a change concerns: the Services that changed, in themselves or in their endpoints, and
/// what became of their ports. An endpoint that goes may have served old flows only, so the plan
/// need not differ.
pub(super) fn of_change(
    plan: &Plan,
    cluster: &Cluster,
    services: &BTreeSet<Key>,
    delta: &Delta,
) -> Served {
    let mut served = Served::new(&plan.settings().node_ips);
    for port in delta.ports.iter().filter_map(|change| change.was.as_ref()) {
        served.put(port, &[]);
    }
    let are = delta.ports.iter().filter_map(|change| change.is.as_ref());
    let theirs = services.iter().flat_map(|service| plan.ports_of(service));
    put(&mut served, plan, cluster, theirs.chain(are));
    served
}

/// Everything there is.
pub(super) fn of_all(plan: &Plan, cluster: &Cluster) -> Served {
    let mut served = Served::new(&plan.settings().node_ips);
    put(&mut served, plan, cluster, plan.ports().values());
    served
}

fn put<'a>(
    served: &mut Served,
    plan: &Plan,
    cluster: &Cluster,
    ports: impl Iterator<Item = &'a Arc<PortPlan>>,
) {
    for port in ports.filter(|port| port.name.protocol == Protocol::Udp) {
        served.put(port, &plan.serving(cluster, port));
    }
}

/// Forgets what is stale; how many flows that were, of IPv4 and of IPv6.
pub(super) fn forget(kernel: &mut dyn Kernel, served: &Served) -> Result<[usize; 2], Error> {
    let mut stale: BTreeSet<Flow> = BTreeSet::new();
    for filter in served.filters() {
        kernel.flows(&filter, &mut |flow| {
            if served.is_stale(&flow) {
                stale.insert(flow);
            }
        })?;
    }
    let mut forgotten = [0; 2];
    for flow in &stale {
        let family = usize::from(flow.orig.dst.is_ipv6());
        forgotten[family] += usize::from(kernel.delete_flow(flow)?);
    }
    Ok(forgotten)
}
