//! Services.

use std::net::IpAddr;

use serde_json::Value;

use super::common::{
    cidr, endpoint_ip, ip, is_set, labels, list, name, optional_word, port, port_or_name, text,
    word,
};
use super::field::{Errors, Path};
use super::names;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: &[&str] = &["Cluster", "Local"];
/// A day, the longest a client may stick.
const AFFINITY_MAX: i64 = 86400;

fn is_headless(spec: &Value) -> bool {
    spec["clusterIP"] == "None" || spec["clusterIPs"][0] == "None"
}

pub(super) fn check(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let path = Path::root("spec");
    let kind = text(&spec["type"]);
    let ports_path = path.child("ports");
    let ports = list(&spec["ports"]);
    topology(&object["metadata"]["annotations"], errors);
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errors.required(&ports_path, "");
    }
    by_type(spec, kind, &path, errors);
    let mut seen: Vec<&str> = Vec::new();
    for (i, item) in ports.iter().enumerate() {
        service_port(
            item,
            ports.len() > 1,
            &mut seen,
            &ports_path.index(i),
            errors,
        );
    }
    labels(errors, &path.child("selector"), &spec["selector"]);
    affinity(spec, &path, errors);
    if kind != "ExternalName" {
        cluster_ips(spec, &path, errors);
    }
    let at = path.child("externalIPs");
    for (i, address) in list(&spec["externalIPs"]).iter().enumerate() {
        let at = at.index(i);
        if let Some(address) = ip(errors, &at, address) {
            endpoint_ip(errors, &at, address);
        }
    }
    word(errors, &path.child("type"), &spec["type"], TYPES);
    unique_ports(ports, kind, &ports_path, errors);
    balancer(object, kind, &path, errors);
    traffic(spec, kind, &path, errors);
}

/// The two names of one wish must not contradict each other.
fn topology(annotations: &Value, errors: &mut Errors) {
    const OLD: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let (old, mode) = (&annotations[OLD], &annotations[MODE]);
    if is_set(old) && is_set(mode) && old != mode {
        let at = Path::root("metadata");
        let at = at.child("annotations");
        let why = format!("must match annotations[{OLD}] when both are specified");
        errors.invalid(&at.key(MODE), mode, &why);
    }
}

/// The kubelet's own port, which a load balancer must not open.
const KUBELET: i64 = 10250;

fn by_type(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let ips = path.child("clusterIPs");
    if kind == "LoadBalancer" {
        let ports = path.child("ports");
        for (i, item) in list(&spec["ports"]).iter().enumerate() {
            if item["port"] == KUBELET {
                let why =
                    format!("may not expose port {KUBELET} externally since it is used by kubelet");
                errors.invalid(&ports.index(i), &item["port"], &why);
            }
        }
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.invalid_text(&ips.index(0), "None", &why);
        }
        "ExternalName" => {
            let why = "may not be set for ExternalName services";
            let given = list(&spec["clusterIPs"])
                .iter()
                .any(|ip| !text(ip).is_empty());
            if given || !text(&spec["clusterIP"]).is_empty() {
                errors.forbidden(&ips, why);
            }
            if !list(&spec["ipFamilies"]).is_empty() {
                errors.forbidden(&path.child("ipFamilies"), why);
            }
            if is_set(&spec["ipFamilyPolicy"]) {
                errors.forbidden(&path.child("ipFamilyPolicy"), why);
            }
            let host = text(&spec["externalName"]);
            let at = path.child("externalName");
            match host.strip_suffix('.').unwrap_or(host) {
                "" => errors.required(&at, ""),
                host => name(errors, &at, &host.into(), names::dns1123_subdomain),
            }
        }
        _ => {}
    }
}

fn service_port<'v>(
    item: &'v Value,
    named: bool,
    seen: &mut Vec<&'v str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let this = text(&item["name"]);
    let at = path.child("name");
    if this.is_empty() {
        if named {
            errors.required(&at, "");
        }
    } else {
        name(errors, &at, &item["name"], names::dns1123_label);
        if seen.contains(&this) {
            errors.duplicate(&at, &item["name"]);
        }
        seen.push(this);
    }
    port(errors, &path.child("port"), &item["port"]);
    word(
        errors,
        &path.child("protocol"),
        &item["protocol"],
        &["SCTP", "TCP", "UDP"],
    );
    port_or_name(errors, &path.child("targetPort"), &item["targetPort"]);
    if is_set(&item["appProtocol"]) {
        name(
            errors,
            &path.child("appProtocol"),
            &item["appProtocol"],
            names::qualified_name,
        );
    }
}

fn affinity(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let affinity = &spec["sessionAffinity"];
    word(
        errors,
        &path.child("sessionAffinity"),
        affinity,
        &["ClientIP", "None"],
    );
    let config = path.child("sessionAffinityConfig");
    if affinity == "ClientIP" {
        let seconds = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
        let at = config.child("clientIP");
        let at = at.child("timeoutSeconds");
        match seconds.as_i64() {
            None => errors.required(&at, "must be set when session affinity is ClientIP"),
            Some(n) if n <= 0 || n > AFFINITY_MAX => {
                let why = format!("must be greater than 0 and less than {AFFINITY_MAX}");
                errors.invalid(&at, seconds, &why);
            }
            Some(_) => {}
        }
    } else if affinity == "None" && is_set(&spec["sessionAffinityConfig"]) {
        errors.forbidden(&config, "must not be set when session affinity is None");
    }
}

/// Addresses are given or left to the allocator; given ones must fit each other.
pub(super) fn cluster_ips(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let ips = list(&spec["clusterIPs"]);
    let at = path.child("clusterIPs");
    let first = text(&spec["clusterIP"]);
    if first.is_empty() && !ips.is_empty() {
        let why = "must be empty when `clusterIP` is not specified";
        errors.invalid(&at, &spec["clusterIPs"], why);
    } else if !ips.is_empty() && ips[0] != first {
        errors.invalid(
            &at,
            &spec["clusterIPs"],
            "first value must match `clusterIP`",
        );
    }
    let families = path.child("ipFamilies");
    let mut seen: Vec<&str> = Vec::new();
    for (i, family) in list(&spec["ipFamilies"]).iter().enumerate() {
        if !["IPv4", "IPv6"].contains(&text(family)) {
            errors.not_supported(&families.index(i), family, &["IPv4", "IPv6"]);
        }
        if seen.contains(&text(family)) {
            errors.duplicate(&families.index(i), family);
        }
        seen.push(text(family));
    }
    let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    optional_word(
        errors,
        &path.child("ipFamilyPolicy"),
        &spec["ipFamilyPolicy"],
        &known,
    );
    if ips.is_empty() && !["", "None"].contains(&first) {
        ip(errors, &at.index(0), &spec["clusterIP"]);
    }
    let mut parsed: Vec<IpAddr> = Vec::new();
    let mut given = ips.len();
    for (i, address) in ips.iter().enumerate() {
        if i == 0 && address == "None" {
            if ips.len() > 1 {
                let why = "'None' must be the first and only value";
                errors.invalid(&at, &spec["clusterIPs"], why);
                return;
            }
            given -= 1;
            continue;
        }
        parsed.extend(ip(errors, &at.index(i), address));
    }
    if ips.len() > 2 {
        errors.invalid(&at, &spec["clusterIPs"], "may only hold up to 2 values");
    }
    // Addresses that cannot be read would only be complained of a second time.
    if parsed.len() < given {
        return;
    }
    if let [a, b] = parsed.as_slice()
        && a.is_ipv4() == b.is_ipv4()
    {
        let why = "may specify no more than one IP for each IP family";
        errors.invalid(&at, &spec["clusterIPs"], why);
    }
    for (i, (address, family)) in parsed.iter().zip(list(&spec["ipFamilies"])).enumerate() {
        let word = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        if family != word && ["IPv4", "IPv6"].contains(&text(family)) {
            let why = format!(
                "expected an {} value as indicated by `ipFamilies[{i}]`",
                text(family)
            );
            errors.invalid_text(&at.index(i), &address.to_string(), &why);
        }
    }
}

fn unique_ports(ports: &[Value], kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let (mut nodes, mut numbers) = (Vec::new(), Vec::new());
    for (i, item) in ports.iter().enumerate() {
        let at = path.index(i);
        let protocol = text(&item["protocol"]);
        let node = item["nodePort"].as_i64().unwrap_or_default();
        if node != 0 {
            if kind == "ClusterIP" {
                let why = "may not be used when `type` is 'ClusterIP'";
                errors.forbidden(&at.child("nodePort"), why);
            }
            if nodes.contains(&(protocol, node)) {
                errors.duplicate(&at.child("nodePort"), &node.into());
            }
            nodes.push((protocol, node));
        }
        let number = item["port"].as_i64().unwrap_or_default();
        if numbers.contains(&(protocol, number)) {
            let shown = format!(
                r#"{{"Name":"","Protocol":{},"AppProtocol":null,"Port":{number},"TargetPort":0,"NodePort":0}}"#,
                Value::from(protocol)
            );
            errors.duplicate_shown(&at, shown);
        }
        numbers.push((protocol, number));
    }
}

/// `spec.loadBalancerSourceRanges` before it was a field.
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn balancer(object: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let spec = &object["spec"];
    let at = path.child("LoadBalancerSourceRanges");
    let ranges = list(&spec["loadBalancerSourceRanges"]);
    if !ranges.is_empty() && kind != "LoadBalancer" {
        errors.forbidden(&at, ONLY);
    }
    for (i, range) in ranges.iter().enumerate() {
        cidr(errors, &at.index(i), range);
    }
    let noted = &object["metadata"]["annotations"][SOURCE_RANGES];
    if ranges.is_empty() && is_set(noted) {
        let at = Path::root("metadata");
        let at = at.child("annotations");
        let at = at.key(SOURCE_RANGES);
        if kind != "LoadBalancer" {
            errors.forbidden(&at, ONLY);
        }
        for range in text(noted).split(',').filter(|range| !range.is_empty()) {
            cidr(errors, &at, &range.into());
        }
    }
    if kind == "LoadBalancer" {
        if is_set(&spec["loadBalancerClass"]) {
            let at = path.child("loadBalancerClass");
            name(
                errors,
                &at,
                &spec["loadBalancerClass"],
                names::qualified_name,
            );
        }
        return;
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if is_set(&spec[field]) {
            errors.forbidden(&path.child(field), ONLY);
        }
    }
}

fn traffic(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let external = &spec["externalTrafficPolicy"];
    let at = path.child("externalTrafficPolicy");
    let outside = ["LoadBalancer", "NodePort"].contains(&kind)
        || (kind == "ClusterIP" && !list(&spec["externalIPs"]).is_empty());
    if outside {
        word(errors, &at, external, POLICIES);
    } else if !text(external).is_empty() {
        let why = "may only be set for externally-accessible services";
        errors.invalid(&at, external, why);
    }
    let health = spec["healthCheckNodePort"].as_i64().unwrap_or_default();
    if health != 0 {
        let at = path.child("healthCheckNodePort");
        if kind == "LoadBalancer" && external == "Local" {
            port(errors, &at, &spec["healthCheckNodePort"]);
        } else {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&at, &health.into(), why);
        }
    }
    let at = path.child("internalTrafficPolicy");
    optional_word(errors, &at, &spec["internalTrafficPolicy"], POLICIES);
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    let at = path.child("trafficDistribution");
    optional_word(errors, &at, &spec["trafficDistribution"], &known);
}

/// What may not change: the addresses and families, once given, and the load balancer's class.
pub(super) fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let (spec, before) = (&new["spec"], &old["spec"]);
    let path = Path::root("spec");
    let external = |spec: &Value| spec["type"] == "ExternalName";
    if !external(spec) && !external(before) {
        let (was, is) = (is_headless(before), is_headless(spec));
        if !(was && is) {
            kept("clusterIPs", "clusterIP", spec, before, errors);
        }
        if !was && !is {
            kept("ipFamilies", "ipFamily", spec, before, errors);
        }
    }
    let both = spec["type"] == "LoadBalancer" && before["type"] == "LoadBalancer";
    if both && spec["loadBalancerClass"] != before["loadBalancerClass"] {
        let at = path.child("loadBalancerClass");
        errors.invalid(&at, &spec["loadBalancerClass"], "may not change once set");
    }
    check(new, errors);
}

/// What is given stays; a second one may come, and go with `SingleStack`.
fn kept(field: &str, one: &str, spec: &Value, before: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let at = path.child(field);
    let (new, old) = (list(&spec[field]), list(&before[field]));
    if new.is_empty() && !old.is_empty() {
        let why = format!("primary {one} can not be unset");
        errors.invalid(&at.index(0), &spec[field], &why);
    }
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        if new != old {
            errors.invalid(&at.index(i), &spec[field], "may not change once set");
        }
    }
    if new.len() == 1 && old.len() > 1 && spec["ipFamilyPolicy"] != "SingleStack" {
        let why = format!("must be set to 'SingleStack' when releasing the secondary {one}");
        errors.invalid(&path.child("ipFamilyPolicy"), &spec["ipFamilyPolicy"], &why);
    }
}

/// `status.loadBalancer`.
pub(super) fn status(object: &Value, errors: &mut Errors) {
    let status = Path::root("status");
    let balancer = status.child("loadBalancer");
    let at = balancer.child("ingress");
    let ingress = list(&object["status"]["loadBalancer"]["ingress"]);
    if object["spec"]["type"] != "LoadBalancer" && !ingress.is_empty() {
        let why = "may only be used when `spec.type` is 'LoadBalancer'";
        errors.forbidden(&at, why);
        return;
    }
    for (i, item) in ingress.iter().enumerate() {
        let at = at.index(i);
        let has_ip = !text(&item["ip"]).is_empty();
        if has_ip {
            ip(errors, &at.child("ip"), &item["ip"]);
        }
        let mode = &item["ipMode"];
        let mode_at = at.child("ipMode");
        match (is_set(mode), has_ip) {
            (false, true) => errors.required(&mode_at, "must be specified when `ip` is set"),
            (true, false) => {
                errors.forbidden(&mode_at, "may not be specified when `ip` is not set");
            }
            _ => optional_word(errors, &mode_at, mode, &["Proxy", "VIP"]),
        }
        let host = text(&item["hostname"]);
        if !host.is_empty() {
            let at = at.child("hostname");
            name(errors, &at, &item["hostname"], names::dns1123_subdomain);
            if host.parse::<IpAddr>().is_ok() {
                errors.invalid_text(&at, host, "must be a DNS name, not an IP address");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::validation::tests::{created, updated};

    fn service(spec: serde_json::Value) -> serde_json::Value {
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
    }

    #[test]
    fn new_services() {
        let wrong = |spec| created("", "Service", service(spec));
        assert!(wrong(json!({"ports": [{"port": 80}]})).is_empty());
        assert!(wrong(json!({"clusterIP": "None"})).is_empty());
        assert_eq!(wrong(json!({})), ["spec.ports: Required value"]);
        assert_eq!(
            wrong(json!({"ports": [{"port": 80}, {"port": 80, "name": "b"}]})),
            [
                "spec.ports[0].name: Required value",
                "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}"
            ]
        );
        assert_eq!(
            wrong(json!({"ports": [{"port": 99999, "protocol": "FOO"}]})),
            [
                "spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive",
                "spec.ports[0].protocol: Unsupported value: \"FOO\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.ports[0].targetPort: Invalid value: 99999: must be between 1 and 65535, inclusive"
            ]
        );
        assert_eq!(
            wrong(json!({"type": "Foo", "ports": [{"port": 80}]})),
            [
                "spec.type: Unsupported value: \"Foo\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\""
            ]
        );
        assert_eq!(
            wrong(json!({"type": "ExternalName"})),
            ["spec.externalName: Required value"]
        );
        assert_eq!(
            wrong(json!({"ports": [{"port": 80}], "externalIPs": ["127.0.0.1"]})),
            [
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
            ]
        );
    }

    #[test]
    fn an_address_stays() {
        let old = service(
            json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"]}),
        );
        let mut new = old.clone();
        new["spec"]["clusterIP"] = "10.96.0.2".into();
        new["spec"]["clusterIPs"] = json!(["10.96.0.2"]);
        assert_eq!(
            updated("", "Service", new, old),
            ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.2\"]: may not change once set"]
        );
    }

    #[test]
    fn a_second_family_comes_and_goes_with_its_policy() {
        let one = json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
        let mut two = one.clone();
        two["clusterIPs"] = json!(["10.96.0.1", "fd00::1"]);
        two["ipFamilies"] = json!(["IPv4", "IPv6"]);
        two["ipFamilyPolicy"] = "PreferDualStack".into();
        let change = |new: &serde_json::Value, old: &serde_json::Value| {
            updated("", "Service", service(new.clone()), service(old.clone()))
        };
        assert!(change(&two, &one).is_empty());
        assert!(change(&one, &two).is_empty());
        let mut kept = one.clone();
        kept["ipFamilyPolicy"] = "PreferDualStack".into();
        assert_eq!(
            change(&kept, &two),
            [
                "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary clusterIP",
                "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary ipFamily"
            ]
        );
    }

    #[test]
    fn what_belongs_together_is_held_together() {
        let wrong = |spec| created("", "Service", service(spec));
        for (spec, says) in [
            (
                json!({"ports": [{"port": 80}], "clusterIPs": ["10.96.0.1"]}),
                "spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: must be empty when `clusterIP` is not specified",
            ),
            (
                json!({"ports": [{"port": 80}], "clusterIP": "x", "clusterIPs": ["x"]}),
                "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                json!({"type": "LoadBalancer", "ports": [{"port": 10250}]}),
                "spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet",
            ),
            (
                json!({"ports": [{"port": 80}], "healthCheckNodePort": 30001}),
                "spec.healthCheckNodePort: Invalid value: 30001: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            ),
            (
                json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400",
            ),
            (
                json!({"ports": [{"port": 80}], "trafficDistribution": "PreferMoon"}),
                "spec.trafficDistribution: Unsupported value: \"PreferMoon\": supported values: \"PreferClose\", \"PreferSameZone\", \"PreferSameNode\"",
            ),
            (
                json!({"type": "LoadBalancer", "ports": [{"port": 80}], "loadBalancerSourceRanges": ["10.0.0.0"]}),
                "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
        ] {
            assert_eq!(wrong(spec), [says]);
        }
    }

    #[test]
    fn a_balancers_status_names_what_it_is() {
        let wrong = |kind: &str, ingress: serde_json::Value| {
            let object =
                json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": [ingress]}}});
            let mut errors = super::Errors::new();
            super::status(&object, &mut errors);
            let first = errors.into_vec().into_iter().next();
            first.map(|error| format!("{}: {}", error.field, error.message))
        };
        let balanced = |ingress| wrong("LoadBalancer", ingress);
        assert_eq!(balanced(json!({"ip": "192.0.2.1", "ipMode": "VIP"})), None);
        assert_eq!(
            balanced(json!({"ip": "192.0.2.1", "ipMode": "Vip"})).unwrap(),
            "status.loadBalancer.ingress[0].ipMode: Unsupported value: \"Vip\": supported values: \"Proxy\", \"VIP\""
        );
        assert_eq!(
            balanced(json!({"hostname": "a", "ipMode": "VIP"})).unwrap(),
            "status.loadBalancer.ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set"
        );
        assert_eq!(
            wrong("ClusterIP", json!({"ip": "192.0.2.1"})).unwrap(),
            "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"
        );
    }
}
