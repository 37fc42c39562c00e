//! What an update keeps and what it lets go of, before anything is allocated.

use std::collections::{BTreeMap, BTreeSet};

use objects::Object;
use serde_json::json;

use super::{has_address, has_health_port, has_node_ports, list, number, remove, text};
use crate::verbs::meta;

/// `clusterIPs` of a new service that has only `clusterIP`.
pub(super) fn align_new(new: &mut Object) {
    let first = text(new, "clusterIP").to_owned();
    if !first.is_empty() && list(new, "clusterIPs").is_empty() {
        new["spec"]["clusterIPs"] = json!([first]);
    }
}

/// An update that does not name what was allocated keeps it.
pub(super) fn keep_allocated(old: &Object, new: &mut Object) {
    if has_address(old) && has_address(new) {
        if text(new, "clusterIP").is_empty() && list(new, "clusterIPs").is_empty() {
            new["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
        }
        if list(new, "clusterIPs").is_empty() && text(new, "clusterIP") == text(old, "clusterIP") {
            new["spec"]["clusterIPs"] = old["spec"]["clusterIPs"].clone();
        }
    }
    if has_node_ports(old) && has_node_ports(new) {
        keep_node_ports(old, new);
    }
    if has_health_port(old)
        && has_health_port(new)
        && number(&new["spec"]["healthCheckNodePort"]) == 0
    {
        new["spec"]["healthCheckNodePort"] = old["spec"]["healthCheckNodePort"].clone();
    }
}

/// A port keeps its node port by its name, unless another port has taken that.
fn keep_node_ports(old: &Object, new: &mut Object) {
    let used = |service: &Object| -> BTreeSet<u64> {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        ports.map(|port| number(&port["nodePort"])).collect()
    };
    let mut taken: BTreeSet<u64> = used(old).intersection(&used(new)).copied().collect();
    let before: BTreeMap<&str, u64> = old["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            let name = port["name"].as_str().unwrap_or_default();
            (name, number(&port["nodePort"]))
        })
        .collect();
    for port in meta::array_mut(new, &["spec", "ports"])
        .into_iter()
        .flatten()
    {
        if number(&port["nodePort"]) != 0 {
            continue;
        }
        let name = port["name"].as_str().unwrap_or_default();
        let had = before.get(name).copied().unwrap_or_default();
        if had != 0 && taken.insert(had) {
            port["nodePort"] = had.into();
        }
    }
}

/// Where an update changed one of `clusterIP` and `clusterIPs` only, the other follows.
pub(super) fn align_addresses(old: &Object, new: &mut Object) {
    let changed = text(old, "clusterIP") != text(new, "clusterIP");
    if !changed || list(old, "clusterIPs") != list(new, "clusterIPs") {
        if list(new, "clusterIPs").is_empty() {
            align_new(new);
        }
        return;
    }
    let first = text(new, "clusterIP").to_owned();
    if first.is_empty() {
        remove(new, "clusterIPs");
    } else {
        new["spec"]["clusterIPs"] = json!([first]);
    }
}

/// What a type does not have any more goes with it, unless the update sets it anew.
pub(super) fn drop_of_type(old: &Object, new: &mut Object) {
    let same = |new: &Object, field: &str| new["spec"][field] == old["spec"][field];
    if has_address(old) && !has_address(new) {
        if same(new, "clusterIPs") {
            remove(new, "clusterIP");
            remove(new, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if same(new, field) {
                remove(new, field);
            }
        }
    }
    if has_node_ports(old) && !has_node_ports(new) && same_node_ports(old, new) {
        for port in meta::array_mut(new, &["spec", "ports"])
            .into_iter()
            .flatten()
        {
            if let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
        }
    }
    if has_health_port(old) && !has_health_port(new) && same(new, "healthCheckNodePort") {
        remove(new, "healthCheckNodePort");
    }
    let balanced = |service: &Object| text(service, "type") == "LoadBalancer";
    if balanced(old) && !balanced(new) {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(new, field) {
                remove(new, field);
            }
        }
        new["status"] = json!({"loadBalancer": {}});
    }
    if is_outside(old) && !is_outside(new) && same(new, "externalTrafficPolicy") {
        remove(new, "externalTrafficPolicy");
    }
}

/// Whether a service answers to others than pods.
fn is_outside(service: &Object) -> bool {
    has_node_ports(service)
        || (text(service, "type") == "ClusterIP" && !list(service, "externalIPs").is_empty())
}

fn same_node_ports(old: &Object, new: &Object) -> bool {
    let all = |service: &Object| -> BTreeSet<u64> {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let given = ports.map(|port| number(&port["nodePort"]));
        given.filter(|port| *port != 0).collect()
    };
    all(old) == all(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_keeps_addresses_and_ports_it_does_not_name() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 81, "nodePort": 30081}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [
            {"name": "a", "port": 8080}, {"name": "c", "port": 82, "nodePort": 30081}, {"name": "b", "port": 81}]}});
        keep_allocated(&old, &mut new);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.9"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
        assert!(new["spec"]["ports"][2]["nodePort"].is_null());
    }

    #[test]
    fn an_update_of_one_address_field_moves_the_other() {
        let old = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}});
        let mut new = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.9"]}});
        align_addresses(&old, &mut new);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.8"]));
    }
}
