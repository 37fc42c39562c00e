//! `v1 Endpoints`, for those who still read them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::{
    HEADLESS, TRIGGER, addresses, backends, hostname, is_headless, mark_services,
    publishes_not_ready, selector_of, service_ports, target, target_port, trigger,
};
use crate::controllers::action::{Action, Plan};
use crate::controllers::driver::Controller;
use crate::controllers::pods::is_ready;
use crate::controllers::store::Key;
use crate::controllers::world::{Changed, Kind, World, node_of};

/// Addresses an object holds at most; more are left out, and it says so.
const MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

/// The Endpoints controller.
pub struct LegacyEndpoints;

impl Controller for LegacyEndpoints {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn affected(&mut self, world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        match changed {
            Changed::Service(change) => {
                if let Some(service) = change.any() {
                    mark(Key::of(service.as_ref()));
                }
            }
            Changed::Pod(change) => mark_services(world, change, mark),
            Changed::Endpoints(change) => {
                if let Some(endpoints) = change.any() {
                    mark(Key::of(endpoints.as_ref()));
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, world: &World, key: &Key, _now: Timestamp) -> Plan {
        plan(world, key)
    }
}

/// What to write for the Service of that name.
pub fn plan(world: &World, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let live = world.endpoints.at(key);
    let Some(service) = world.services.at(key) else {
        if let Some(live) = live.filter(|live| live.labels().contains_key(MANAGED_BY)) {
            let uid = live.uid().unwrap_or_default();
            plan.push(Action::delete(Kind::Endpoints, key, &uid));
        }
        return plan;
    };
    let Some(selector) = selector_of(service) else {
        return plan;
    };
    if service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let (subsets, cut) = subsets(world, service, selector);
    let labels = labels(service);
    let time = trigger(service, backends(world, service, selector));
    let mut annotations = json!({ TRIGGER: time });
    annotations[OVER_CAPACITY] = if cut { json!("truncated") } else { Value::Null };
    match live {
        None => {
            if let Some(annotations) = annotations.as_object_mut() {
                annotations.retain(|_, value| !value.is_null());
            }
            let endpoints = Endpoints {
                metadata: ObjectMeta {
                    name: Some(key.name.clone()),
                    namespace: Some(key.namespace.clone()),
                    labels: Some(labels),
                    annotations: serde_json::from_value(annotations).ok(),
                    ..ObjectMeta::default()
                },
                subsets: (!subsets.is_empty()).then_some(subsets),
            };
            plan.push(Action::create(Kind::Endpoints, &key.namespace, &endpoints));
        }
        Some(live) => {
            let same = live.subsets.clone().unwrap_or_default() == subsets
                && *live.labels() == labels
                && live.annotations().contains_key(OVER_CAPACITY) == cut;
            if same {
                return plan;
            }
            let mut all: Map<String, Value> = live
                .labels()
                .keys()
                .map(|key| (key.clone(), Value::Null))
                .collect();
            all.extend(labels.into_iter().map(|(key, value)| (key, json!(value))));
            let subsets = if subsets.is_empty() {
                Value::Null
            } else {
                json!(subsets)
            };
            let patch = json!({
                "metadata": {
                    "resourceVersion": live.metadata.resource_version,
                    "labels": all,
                    "annotations": annotations,
                },
                "subsets": subsets,
            });
            plan.push(Action::patch(Kind::Endpoints, key, patch));
        }
    }
    plan
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// Name, protocol, number, application protocol of a port.
type Port = (Option<String>, String, i32, Option<String>);
/// Address and pod UID, and whether it is ready.
type Backend = (IpAddr, String, bool);

/// The subsets: ports that lead to the same addresses together. True where addresses had
/// to be left out.
fn subsets(
    world: &World,
    service: &Service,
    selector: &BTreeMap<String, String>,
) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.as_ref();
    let family = spec.and_then(|s| s.ip_families.as_ref()?.first().cloned());
    let is_v4 = family.as_deref() != Some("IPv6");
    let not_ready_too = publishes_not_ready(service);
    let mut known: BTreeMap<Backend, EndpointAddress> = BTreeMap::new();
    let mut by_port: BTreeMap<Option<Port>, BTreeSet<Backend>> = BTreeMap::new();
    for pod in backends(world, service, selector) {
        if pod.metadata.deletion_timestamp.is_some() && !not_ready_too {
            continue;
        }
        let Some(ip) = addresses(pod).into_iter().find(|ip| ip.is_ipv4() == is_v4) else {
            continue;
        };
        let ready = not_ready_too || is_ready(pod);
        let backend = (ip, pod.uid().unwrap_or_default(), ready);
        known.insert(backend.clone(), address(service, pod, ip));
        let ports = service_ports(service);
        if ports.is_empty() && is_headless(service) {
            by_port.entry(None).or_default().insert(backend.clone());
        }
        for port in ports {
            if let Some(number) = target_port(pod, port) {
                let key = (
                    port.name.clone(),
                    port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                    number,
                    port.app_protocol.clone(),
                );
                by_port
                    .entry(Some(key))
                    .or_default()
                    .insert(backend.clone());
            }
        }
    }
    let mut by_backends: BTreeMap<BTreeSet<Backend>, Vec<Port>> = BTreeMap::new();
    for (port, backends) in by_port {
        by_backends.entry(backends).or_default().extend(port);
    }
    let mut cut = false;
    let subsets = by_backends
        .into_iter()
        .map(|(mut backends, ports)| {
            cut |= truncate(&mut backends);
            subset(&backends, ports, &known)
        })
        .collect();
    (subsets, cut)
}

/// Leaves out what is too much, ready addresses last.
fn truncate(backends: &mut BTreeSet<Backend>) -> bool {
    let mut excess = backends.len().saturating_sub(MAX);
    let cut = excess > 0;
    for ready in [false, true] {
        let victims: Vec<Backend> = backends
            .iter()
            .rev()
            .filter(|backend| backend.2 == ready)
            .take(excess)
            .cloned()
            .collect();
        excess -= victims.len();
        for victim in victims {
            backends.remove(&victim);
        }
    }
    cut
}

fn subset(
    backends: &BTreeSet<Backend>,
    ports: Vec<Port>,
    known: &BTreeMap<Backend, EndpointAddress>,
) -> EndpointSubset {
    let of = |ready: bool| {
        let list: Vec<EndpointAddress> = backends
            .iter()
            .filter(|backend| backend.2 == ready)
            .filter_map(|backend| known.get(backend).cloned())
            .collect();
        (!list.is_empty()).then_some(list)
    };
    let ports: Vec<EndpointPort> = ports
        .into_iter()
        .map(|(name, protocol, port, app_protocol)| EndpointPort {
            name,
            port,
            protocol: Some(protocol),
            app_protocol,
        })
        .collect();
    EndpointSubset {
        addresses: of(true),
        not_ready_addresses: of(false),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

fn address(service: &Service, pod: &Pod, ip: IpAddr) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_string(),
        hostname: hostname(service, pod),
        node_name: Some(node_of(pod).to_owned()).filter(|node| !node.is_empty()),
        target_ref: Some(target(pod)),
    }
}
