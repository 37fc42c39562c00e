//! EndpointSlices of Services with a selector.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::reconcile::{Common, Group, plan as reconcile, sort_ports};
use super::{
    HEADLESS, MANAGED_BY, SERVICE_NAME, addresses, backends, hostname, is_headless, mark_services,
    publishes_not_ready, selector_of, service_ports, target, target_port, trigger,
};
use crate::controllers::action::{Plan, Step};
use crate::controllers::driver::Controller;
use crate::controllers::pods::{is_ready, owned_by};
use crate::controllers::store::Key;
use crate::controllers::world::{Changed, World, node_of};

const MANAGER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The EndpointSlice controller.
pub struct Slices;

impl Controller for Slices {
    fn name(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn affected(&mut self, world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        match changed {
            Changed::Service(change) => {
                if let Some(service) = change.any() {
                    mark(Key::of(service.as_ref()));
                }
            }
            Changed::Pod(change) => mark_services(world, change, mark),
            Changed::EndpointSlice(change) => {
                for slice in change.both().filter(|slice| is_ours(slice)) {
                    if let Some(name) = slice.labels().get(SERVICE_NAME) {
                        mark(Key::new(&slice.namespace().unwrap_or_default(), name));
                    }
                }
            }
            Changed::Node(change) => {
                let zone =
                    |node: &k8s_openapi::api::core::v1::Node| node.labels().get(ZONE).cloned();
                let old = change.old.as_deref().and_then(zone);
                if old != change.new.as_deref().and_then(zone) {
                    for service in world.services.iter() {
                        mark(Key::of(service.as_ref()));
                    }
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, world: &World, key: &Key, _now: Timestamp) -> Plan {
        match world.services.at(key) {
            Some(service) => plan(world, service),
            None => Plan::default(),
        }
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
}

/// What to write for one Service.
pub fn plan(world: &World, service: &Service) -> Plan {
    let mut plan = Plan::default();
    if service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let namespace = service.namespace().unwrap_or_default();
    let name = service.name_any();
    let existing: Vec<Arc<EndpointSlice>> = world
        .slices
        .within(&namespace)
        .filter(|slice| is_ours(slice) && slice.labels().get(SERVICE_NAME) == Some(&name))
        .filter(|slice| slice.metadata.deletion_timestamp.is_none())
        .cloned()
        .collect();
    let groups = match selector_of(service) {
        Some(_) => groups(world, service),
        // Somebody else says now what stands behind it.
        None => Vec::new(),
    };
    let pods = selector_of(service)
        .into_iter()
        .flat_map(|selector| backends(world, service, selector));
    let common = Common {
        prefix: format!("{name}-"),
        labels: labels(service),
        owner: owned_by(service),
        trigger: trigger(service, pods),
        namespace,
    };
    let actions = reconcile(&common, groups, &existing);
    if !actions.is_empty() {
        plan.steps.push(Step::Each(actions));
    }
    plan
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn families(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let stated = spec
        .and_then(|s| s.ip_families.as_deref())
        .unwrap_or_default();
    if stated.is_empty() {
        return vec!["IPv4"];
    }
    let known = stated.iter().filter_map(|family| match family.as_str() {
        "IPv4" => Some("IPv4"),
        "IPv6" => Some("IPv6"),
        _ => None,
    });
    known.collect()
}

/// Endpoints by family and by what their ports are: a named port may differ from pod to
/// pod.
fn groups(world: &World, service: &Service) -> Vec<Group> {
    let Some(selector) = selector_of(service) else {
        return Vec::new();
    };
    let mut groups: Vec<Group> = Vec::new();
    for address_type in families(service) {
        let before = groups.len();
        for pod in backends(world, service, selector) {
            let is_family = |ip: &IpAddr| ip.is_ipv4() == (address_type == "IPv4");
            let Some(ip) = addresses(pod).into_iter().find(is_family) else {
                continue;
            };
            let ports = ports(service, pod);
            let endpoint = endpoint(world, service, pod, ip);
            let group = groups[before..]
                .iter_mut()
                .find(|group| group.ports == ports);
            match group {
                Some(group) => group.endpoints.push(endpoint),
                None => groups.push(Group {
                    address_type,
                    ports,
                    endpoints: vec![endpoint],
                }),
            }
        }
        if groups.len() == before {
            groups.push(Group {
                address_type,
                ports: Vec::new(),
                endpoints: Vec::new(),
            });
        }
    }
    groups
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let mut ports: Vec<EndpointPort> = service_ports(service)
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(pod, port)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    sort_ports(&mut ports);
    ports
}

fn endpoint(world: &World, service: &Service, pod: &Pod, ip: IpAddr) -> Endpoint {
    let serving = is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = publishes_not_ready(service) || (serving && !terminating);
    let node = Some(node_of(pod).to_owned()).filter(|node| !node.is_empty());
    let zone = node
        .as_deref()
        .and_then(|node| world.nodes.get("", node))
        .and_then(|node| node.labels().get(ZONE).cloned());
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: hints(service, ready, node.as_deref(), zone.as_deref()),
        hostname: hostname(service, pod),
        node_name: node,
        target_ref: Some(target(pod)),
        zone,
        deprecated_topology: None,
    }
}

/// Who should use the endpoint, by the Service's `trafficDistribution`.
fn hints(
    service: &Service,
    ready: bool,
    node: Option<&str>,
    zone: Option<&str>,
) -> Option<EndpointHints> {
    let wish = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let zones = zone.map(|zone| {
        vec![ForZone {
            name: zone.to_owned(),
        }]
    });
    let nodes = node.map(|node| {
        vec![ForNode {
            name: node.to_owned(),
        }]
    });
    let hints = match wish {
        "PreferClose" | "PreferSameZone" => EndpointHints {
            for_zones: zones,
            for_nodes: None,
        },
        "PreferSameNode" => EndpointHints {
            for_zones: zones,
            for_nodes: nodes,
        },
        _ => return None,
    };
    let says = hints.for_zones.is_some() || hints.for_nodes.is_some();
    (ready && says).then_some(hints)
}

#[cfg(test)]
#[path = "slices_tests.rs"]
mod tests;
