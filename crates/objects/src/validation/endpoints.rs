//! EndpointSlices and Endpoints.

use serde_json::Value;

use super::common::{endpoint_ip, immutable, ip, is_set, list, name, port, text, word};
use super::field::{Errors, Path};
use super::names;

pub(super) fn endpoint_slice(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let family = &object["addressType"];
    let at = Path::root("addressType");
    word(errors, &at, family, &["FQDN", "IPv4", "IPv6"]);
    if let Some(old) = old {
        immutable(errors, &at, family, &old["addressType"]);
    }
    let path = Path::root("ports");
    let ports = list(&object["ports"]);
    if ports.len() > 20_000 {
        errors.too_many(&path, ports.len(), 20_000);
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, item) in ports.iter().enumerate().take(20_000) {
        let at = path.index(i);
        let this = text(&item["name"]);
        if !this.is_empty() {
            name(
                errors,
                &at.child("name"),
                &item["name"],
                names::dns1123_label,
            );
        }
        if seen.contains(&this) {
            errors.duplicate(&at.child("name"), &this.into());
        }
        seen.push(this);
        word(
            errors,
            &at.child("protocol"),
            &item["protocol"],
            &["SCTP", "TCP", "UDP"],
        );
        if is_set(&item["appProtocol"]) {
            name(
                errors,
                &at.child("appProtocol"),
                &item["appProtocol"],
                names::qualified_name,
            );
        }
    }
    let path = Path::root("endpoints");
    let endpoints = list(&object["endpoints"]);
    if endpoints.len() > 1000 {
        errors.too_many(&path, endpoints.len(), 1000);
        return;
    }
    for (i, item) in endpoints.iter().enumerate() {
        endpoint(item, text(family), &path.index(i), errors);
    }
}

fn endpoint(item: &Value, family: &str, path: &Path<'_>, errors: &mut Errors) {
    let addresses = list(&item["addresses"]);
    let at = path.child("addresses");
    if addresses.is_empty() {
        errors.required(&at, "must contain at least 1 address");
    } else if addresses.len() > 100 {
        errors.too_many(&at, addresses.len(), 100);
    }
    for (i, address) in addresses.iter().enumerate() {
        let place = at.index(i);
        if family == "FQDN" {
            let domain = text(address);
            name(errors, &place, address, |d| {
                names::dns1123_subdomain(d.strip_suffix('.').unwrap_or(d))
            });
            if names::dns1123_subdomain(domain).is_empty() && !domain.contains('.') {
                let why = "should be a domain with at least two segments separated by dots";
                errors.invalid_text(&place, domain, why);
            }
            continue;
        }
        if !["IPv4", "IPv6"].contains(&family) {
            continue;
        }
        let Some(parsed) = ip(errors, &place, address) else {
            continue;
        };
        match family {
            "IPv4" if !parsed.is_ipv4() => errors.invalid(&at, address, "must be an IPv4 address"),
            "IPv6" if !parsed.is_ipv6() => errors.invalid(&at, address, "must be an IPv6 address"),
            _ => {}
        }
        endpoint_ip(errors, &place, parsed);
    }
    if is_set(&item["nodeName"]) {
        name(
            errors,
            &path.child("nodeName"),
            &item["nodeName"],
            names::dns1123_subdomain,
        );
    }
    hints(&item["hints"], path, errors);
    if is_set(&item["hostname"]) {
        name(
            errors,
            &path.child("hostname"),
            &item["hostname"],
            names::dns1123_label,
        );
    }
}

/// Zones and nodes that should use an endpoint: at most 8 of each, each once.
fn hints(hints: &Value, path: &Path<'_>, errors: &mut Errors) {
    const MOST: usize = 8;
    type Check = fn(&str) -> Vec<String>;
    let path = path.child("hints");
    for (field, check) in [
        ("forZones", names::label_value as Check),
        ("forNodes", names::dns1123_subdomain),
    ] {
        let at = path.child(field);
        let items = list(&hints[field]);
        if items.len() > MOST {
            errors.too_many(&at, items.len(), MOST);
            continue;
        }
        let mut seen: Vec<&str> = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let at = at.index(i);
            let at = at.child("name");
            let this = text(&item["name"]);
            if seen.contains(&this) {
                errors.duplicate(&at, &item["name"]);
            }
            seen.push(this);
            name(errors, &at, &item["name"], check);
        }
    }
}

pub(super) fn endpoints(object: &Value, errors: &mut Errors) {
    let path = Path::root("subsets");
    for (i, subset) in list(&object["subsets"]).iter().enumerate() {
        let at = path.index(i);
        let none = |field: &str| list(&subset[field]).is_empty();
        if none("addresses") && none("notReadyAddresses") {
            errors.required(&at, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            let addresses = at.child(field);
            for (j, address) in list(&subset[field]).iter().enumerate() {
                let place = addresses.index(j);
                let place = place.child("ip");
                if let Some(parsed) = ip(errors, &place, &address["ip"]) {
                    endpoint_ip(errors, &place, parsed);
                }
            }
        }
        let ports = at.child("ports");
        let many = list(&subset["ports"]).len() > 1;
        for (j, item) in list(&subset["ports"]).iter().enumerate() {
            let place = ports.index(j);
            if text(&item["name"]).is_empty() {
                if many {
                    errors.required(&place.child("name"), "");
                }
            } else {
                name(
                    errors,
                    &place.child("name"),
                    &item["name"],
                    names::dns1123_label,
                );
            }
            port(errors, &place.child("port"), &item["port"]);
            word(
                errors,
                &place.child("protocol"),
                &item["protocol"],
                &["SCTP", "TCP", "UDP"],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validation::tests::created;

    #[test]
    fn slices() {
        let object = json!({"metadata": {"name": "a", "namespace": "default"}, "addressType": "IPv4", "endpoints": [{"addresses": ["fd00::1"]}, {}]});
        assert_eq!(
            created("discovery.k8s.io", "EndpointSlice", object),
            [
                "endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address",
                "endpoints[1].addresses: Required value: must contain at least 1 address"
            ]
        );
    }

    #[test]
    fn a_slice_holds_a_thousand_endpoints() {
        let slice = |count: usize| {
            let endpoint =
                |n: usize| json!({"addresses": [format!("10.0.{}.{}", n / 250, n % 250 + 1)]});
            let endpoints: Vec<Value> = (0..count).map(endpoint).collect();
            let object = json!({"metadata": {"name": "a", "namespace": "default"}, "addressType": "IPv4", "endpoints": endpoints});
            created("discovery.k8s.io", "EndpointSlice", object)
        };
        assert!(slice(1000).is_empty());
        assert_eq!(
            slice(1001),
            ["endpoints: Too many: 1001: must have at most 1000 items"]
        );
    }

    #[test]
    fn hints_are_few_and_different() {
        let zone = |name: &str| json!({ "name": name });
        let nine: Vec<Value> = (0..9).map(|n| zone(&n.to_string())).collect();
        let object = json!({"metadata": {"name": "a", "namespace": "default"}, "addressType": "IPv4", "endpoints": [
            {"addresses": ["10.0.0.1"], "hints": {"forZones": [zone("a"), zone("a")], "forNodes": nine}}]});
        assert_eq!(
            created("discovery.k8s.io", "EndpointSlice", object),
            [
                "endpoints[0].hints.forZones[1].name: Duplicate value: \"a\"",
                "endpoints[0].hints.forNodes: Too many: 9: must have at most 8 items"
            ]
        );
    }
}
