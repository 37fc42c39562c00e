//! How long changes took until names say so.

use model::{Changed, Cluster, ServiceType};

/// What was behind the slices that changed, for CoreDNS's
/// `coredns_kubernetes_dns_programming_duration_seconds`: the kind of the Service, in that metric's
/// words, and when the change happened (milliseconds since 1970). Slices without that time, and
/// those whose Service is not known yet, are left out.
pub fn programmed(
    before: &Cluster,
    after: &Cluster,
    changed: &Changed,
) -> Vec<(&'static str, i64)> {
    let mut found = Vec::new();
    for key in &changed.services {
        let Some(service) = after.services.get(key) else {
            continue;
        };
        let addressed =
            !service.cluster_ips.is_empty() || service.kind == ServiceType::ExternalName;
        let kind = if addressed {
            "cluster_ip"
        } else {
            "headless_with_selector"
        };
        for slice in after.slices_of(key) {
            let place = (slice.namespace.clone(), slice.name.clone());
            if before.slices.get(&place) != Some(slice) {
                found.extend(slice.triggered.map(|at| (kind, at)));
            }
        }
    }
    found
}
