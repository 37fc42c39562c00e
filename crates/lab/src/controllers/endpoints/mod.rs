//! Which pods stand behind a Service: EndpointSlices, the older Endpoints, and slices
//! that mirror Endpoints people write by hand.

mod legacy;
mod mirror;
mod reconcile;
mod slices;

pub use legacy::LegacyEndpoints;
pub use mirror::Mirror;
pub use slices::Slices;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::pods::is_ready;
use super::store::{Change, Key};
use super::world::{World, node_of};
use crate::scheduler::selector;

/// Label that names the Service of a slice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that names who writes a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Label of what belongs to a headless Service.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotation that publishes addresses of pods that are not ready.
const TOLERATE: &str = "service.alpha.kubernetes.io/tolerate-unready-endpoints";
/// Annotation with the time of the change that led to this state.
pub const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A Service's selector; None where somebody else says what stands behind it.
fn selector_of(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector
        .as_ref()
        .filter(|selector| !selector.is_empty())
}

/// True for a Service without a virtual address.
fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// `spec.publishNotReadyAddresses`, or the annotation it was before.
fn publishes_not_ready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let noted = service.annotations().get(TOLERATE).map(String::as_str);
    spec.and_then(|s| s.publish_not_ready_addresses) == Some(true) || noted == Some("true")
}

/// Pods the Service selects that have an address and have not ended, by name.
fn backends<'a>(
    world: &'a World,
    service: &Service,
    selector: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = &'a Arc<Pod>> {
    let namespace = service.namespace().unwrap_or_default();
    world.pods.within(&namespace).filter(move |pod| {
        selector::contains(pod.labels(), selector)
            && !api::convert::is_finished(pod)
            && !addresses(pod).is_empty()
    })
}

/// A pod's addresses.
fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let many = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut all: Vec<IpAddr> = many.filter_map(|ip| ip.parse().ok()).collect();
    if all.is_empty() {
        all.extend(
            status
                .pod_ip
                .as_deref()
                .and_then(|ip| ip.parse::<IpAddr>().ok()),
        );
    }
    all
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.namespace(),
        name: pod.metadata.name.clone(),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

/// The pod's host name, where the Service is the subdomain it asks for.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let subdomain = spec.subdomain.as_ref()?;
    (Some(subdomain) == service.metadata.name.as_ref())
        .then(|| spec.hostname.clone())?
        .filter(|name| !name.is_empty())
}

/// The number a Service's port has on the pod; None where the pod has no port of that
/// name.
fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let mut ports = spec
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|container| container.ports.iter().flatten());
            let found = ports.find(|p| {
                p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            found
                .map(|p| p.container_port)
                .or_else(|| name.parse().ok())
        }
    }
}

fn service_ports(service: &Service) -> &[ServicePort] {
    let spec = service.spec.as_ref();
    spec.and_then(|s| s.ports.as_deref()).unwrap_or_default()
}

/// Marks the Services that select the pod before or after, if the change matters to them.
fn mark_services(world: &World, change: &Change<Pod>, mark: &mut dyn FnMut(Key)) {
    let matters = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        (
            pod.labels().clone(),
            addresses(pod),
            is_ready(pod),
            pod.metadata.deletion_timestamp.is_some(),
            api::convert::is_finished(pod),
            node_of(pod).to_owned(),
            spec.and_then(|s| s.hostname.clone()),
        )
    };
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && matters(old) == matters(new)
    {
        return;
    }
    let Some(any) = change.any() else { return };
    for service in world.services.within(&any.namespace().unwrap_or_default()) {
        let Some(wanted) = selector_of(service) else {
            continue;
        };
        if change
            .both()
            .any(|pod| selector::contains(pod.labels(), wanted))
        {
            mark(Key::of(service.as_ref()));
        }
    }
}

/// The newest time at which one of the pods became ready or not: what a change of the
/// endpoints is measured from.
fn trigger<'a>(service: &Service, pods: impl Iterator<Item = &'a Arc<Pod>>) -> Option<String> {
    let ready = pods.filter_map(|pod| {
        let conditions = pod.status.as_ref()?.conditions.as_ref()?;
        let ready = conditions.iter().find(|c| c.type_ == "Ready")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    });
    let created = service.metadata.creation_timestamp.as_ref().map(|t| t.0);
    ready.chain(created).max().map(|time| time.to_string())
}
