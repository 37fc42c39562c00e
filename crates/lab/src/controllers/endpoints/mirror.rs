//! Slices that mirror Endpoints written by hand, so that everybody need read only slices.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::reconcile::{Common, Group, plan as reconcile, sort_ports};
use super::{MANAGED_BY, SERVICE_NAME, selector_of};
use crate::controllers::action::{Plan, Step};
use crate::controllers::driver::Controller;
use crate::controllers::pods::owned_by;
use crate::controllers::store::Key;
use crate::controllers::world::{Changed, World};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// The mirroring controller.
pub struct Mirror;

impl Controller for Mirror {
    fn name(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn affected(&mut self, _world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        match changed {
            Changed::Endpoints(change) => {
                if let Some(endpoints) = change.any() {
                    mark(Key::of(endpoints.as_ref()));
                }
            }
            Changed::Service(change) => {
                if let Some(service) = change.any() {
                    mark(Key::of(service.as_ref()));
                }
            }
            Changed::EndpointSlice(change) => {
                for slice in change.both().filter(|slice| is_ours(slice)) {
                    if let Some(name) = slice.labels().get(SERVICE_NAME) {
                        mark(Key::new(&slice.namespace().unwrap_or_default(), name));
                    }
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, world: &World, key: &Key, _now: Timestamp) -> Plan {
        plan(world, key)
    }
}

fn is_ours(slice: &EndpointSlice) -> bool {
    slice.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
}

/// What to write for the Endpoints of that name.
pub fn plan(world: &World, key: &Key) -> Plan {
    let mut plan = Plan::default();
    let existing: Vec<Arc<EndpointSlice>> = world
        .slices
        .within(&key.namespace)
        .filter(|slice| is_ours(slice) && slice.labels().get(SERVICE_NAME) == Some(&key.name))
        .filter(|slice| slice.metadata.deletion_timestamp.is_none())
        .cloned()
        .collect();
    let by_hand = world
        .services
        .at(key)
        .is_some_and(|service| selector_of(service).is_none());
    let endpoints = world.endpoints.at(key).filter(|endpoints| {
        by_hand
            && endpoints.labels().get(SKIP).map(String::as_str) != Some("true")
            && !endpoints.annotations().contains_key(LEADER)
    });
    let Some(endpoints) = endpoints else {
        for slice in &existing {
            let uid = slice.uid().unwrap_or_default();
            let kind = crate::controllers::world::Kind::EndpointSlice;
            plan.push(crate::controllers::action::Action::delete(
                kind,
                &Key::of(slice.as_ref()),
                &uid,
            ));
        }
        return plan;
    };
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), key.name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let common = Common {
        namespace: key.namespace.clone(),
        prefix: format!("{}-", key.name),
        labels,
        owner: owned_by(endpoints.as_ref()),
        trigger: None,
    };
    let actions = reconcile(&common, groups(endpoints), &existing);
    if !actions.is_empty() {
        plan.steps.push(Step::Each(actions));
    }
    plan
}

fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        for (address_type, is_v4) in [("IPv4", true), ("IPv6", false)] {
            let of = |list: &Option<Vec<EndpointAddress>>, ready: bool| -> Vec<Endpoint> {
                let list = list.iter().flatten();
                list.filter(|address| address.ip.contains(':') != is_v4)
                    .map(|address| endpoint(address, ready))
                    .collect()
            };
            let mut all = of(&subset.addresses, true);
            all.extend(of(&subset.not_ready_addresses, false));
            if all.is_empty() {
                continue;
            }
            let same =
                |group: &&mut Group| group.address_type == address_type && group.ports == ports;
            match groups.iter_mut().find(same) {
                Some(group) => group.endpoints.extend(all),
                None => groups.push(Group {
                    address_type,
                    ports: ports.clone(),
                    endpoints: all,
                }),
            }
        }
    }
    groups
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let mut ports: Vec<EndpointPort> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: port.protocol.clone().or_else(|| Some("TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    sort_ports(&mut ports);
    ports
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
