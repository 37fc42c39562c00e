//! What a Service asks for. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use model::{Key, Protocol};

/// `spec.loadBalancerClass` that is ours; so are Services without one.
pub const CLASS: &str = "flatnet.io/load-balancer";

/// Annotations in which a Service asks for addresses, the first that is there.
const ADDRESSES: &[&str] = &[
    "flatnet.io/load-balancer-ips",
    "metallb.io/loadBalancerIPs",
    "metallb.universe.tf/loadBalancerIPs",
];
/// Annotations that name the pool.
const POOL: &[&str] = &[
    "flatnet.io/load-balancer-pool",
    "metallb.io/address-pool",
    "metallb.universe.tf/address-pool",
];
/// Annotations that allow an address to be shared with those of the same value.
const SHARED: &[&str] = &[
    "flatnet.io/allow-shared-ip",
    "metallb.io/allow-shared-ip",
    "metallb.universe.tf/allow-shared-ip",
];

/// Which families a Service wants addresses of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// One.
    One,
    /// Two where there are two.
    Prefer,
    /// Two or none.
    Require,
}

/// A Service of type LoadBalancer, as far as its addresses depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.creationTimestamp` in seconds; of two that want the same, the older has it.
    pub created: i64,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Families (true for IPv6), primary first.
    pub families: Vec<bool>,
    /// How many of them.
    pub policy: Families,
    /// Addresses it asks for, or what is wrong with that.
    pub wished: Result<Vec<IpAddr>, String>,
    /// The pool it asks for.
    pub pool: Option<String>,
    /// With whom it shares.
    pub sharing: Option<String>,
    /// Those who share must have the same: where packets that come to the node stay on it,
    /// the endpoints decide which node announces the address.
    pub backend: String,
    /// Its ports.
    pub ports: BTreeSet<(Protocol, u16)>,
    /// Addresses that its status shows.
    pub had: Vec<IpAddr>,
}

/// Whether flatnet gives the Service its address.
pub fn is_ours(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let class = spec.load_balancer_class.as_deref();
    spec.type_.as_deref() == Some("LoadBalancer") && class.is_none_or(|class| class == CLASS)
}

/// What the Service asks for.
pub fn ask(service: &Service) -> Ask {
    let spec = service.spec.clone().unwrap_or_default();
    let annotations = service.annotations();
    let find = |names: &[&str]| -> Option<(String, String)> {
        names.iter().find_map(|name| {
            let value = annotations.get(*name)?.trim();
            (!value.is_empty()).then(|| ((*name).to_owned(), value.to_owned()))
        })
    };
    let families: Vec<bool> = spec
        .ip_families
        .iter()
        .flatten()
        .map(|family| family == "IPv6")
        .collect();
    let key = (service.namespace().unwrap_or_default(), service.name_any());
    let backend = match spec.external_traffic_policy.as_deref() {
        Some("Local") => {
            let selector: Vec<String> = spec
                .selector
                .iter()
                .flatten()
                .map(|(label, value)| format!("{label}={value}"))
                .collect();
            // The same labels in another namespace are other pods.
            format!("{}/{}", key.0, selector.join(","))
        }
        _ => String::new(),
    };
    Ask {
        created: service
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
        labels: service.labels().clone(),
        policy: match spec.ip_family_policy.as_deref() {
            Some("PreferDualStack") => Families::Prefer,
            Some("RequireDualStack") => Families::Require,
            _ => Families::One,
        },
        wished: wished(spec.load_balancer_ip.as_deref(), find(ADDRESSES)),
        pool: find(POOL).map(|(_, pool)| pool),
        sharing: find(SHARED).map(|(_, key)| key),
        backend,
        ports: spec.ports.iter().flatten().filter_map(port).collect(),
        had: addresses(service),
        families: if families.is_empty() {
            vec![false]
        } else {
            families
        },
        key,
    }
}

fn port(port: &k8s_openapi::api::core::v1::ServicePort) -> Option<(Protocol, u16)> {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    Some((protocol, u16::try_from(port.port).ok()?))
}

/// Addresses that the Service's status shows.
pub fn addresses(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    balancer
        .and_then(|balancer| balancer.ingress.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
        .collect()
}

fn wished(
    field: Option<&str>,
    annotation: Option<(String, String)>,
) -> Result<Vec<IpAddr>, String> {
    let ip = |name: &str, text: &str| {
        text.parse::<IpAddr>()
            .map_err(|_| format!("{name}: {text:?} is not an IP address"))
    };
    let field = match field.filter(|text| !text.is_empty()) {
        Some(text) => Some(ip("spec.loadBalancerIP", text)?),
        None => None,
    };
    let Some((name, list)) = annotation else {
        return Ok(field.into_iter().collect());
    };
    let name = format!("metadata.annotations[{name}]");
    let mut all: Vec<IpAddr> = Vec::new();
    for text in list.split(',') {
        let next = ip(&name, text.trim())?;
        if all.iter().any(|other| other.is_ipv6() == next.is_ipv6()) {
            return Err(format!(
                "{name}: {next} is a second address of its family; a Service has at most one a family"
            ));
        }
        all.push(next);
    }
    match field {
        Some(field) if !all.contains(&field) => Err(format!(
            "spec.loadBalancerIP asks for {field} and {name} for {list}; remove one of them"
        )),
        _ => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(annotations: Value, spec: Value) -> Ask {
        let service = json!({"metadata": {"namespace": "default", "name": "web",
            "annotations": annotations}, "spec": spec});
        ask(&serde_json::from_value(service).unwrap())
    }

    #[test]
    fn wishes_come_from_field_and_annotations() {
        let both = json!({"flatnet.io/load-balancer-ips": "10.0.1.7, fd00::7"});
        let ask = read(both.clone(), json!({"loadBalancerIP": "10.0.1.7"}));
        let wished: Vec<String> = ask
            .wished
            .unwrap()
            .iter()
            .map(|ip| ip.to_string())
            .collect();
        assert_eq!(wished, ["10.0.1.7", "fd00::7"]);
        let refused = |annotations, ip: &str| {
            let ask = read(annotations, json!({"loadBalancerIP": ip}));
            ask.wished.unwrap_err()
        };
        assert_eq!(
            refused(both, "10.0.1.8"),
            "spec.loadBalancerIP asks for 10.0.1.8 and metadata.annotations[flatnet.io/load-balancer-ips] for 10.0.1.7, fd00::7; remove one of them"
        );
        let two = json!({"metallb.io/loadBalancerIPs": "10.0.1.7,10.0.1.8"});
        assert!(refused(two, "").contains("10.0.1.8 is a second address of its family"));
        assert!(refused(json!({}), "x").starts_with("spec.loadBalancerIP: \"x\" is not"));
    }

    #[test]
    fn who_shares_with_policy_local_must_have_the_same_pods() {
        let local = json!({"externalTrafficPolicy": "Local", "selector": {"app": "a"}});
        assert_eq!(read(json!({}), local).backend, "default/app=a");
        let cluster = json!({"externalTrafficPolicy": "Cluster", "selector": {"app": "a"}});
        assert_eq!(read(json!({}), cluster).backend, "");
    }

    #[test]
    fn services_of_another_class_are_not_ours() {
        let ours = |spec: Value| {
            is_ours(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
        };
        assert!(ours(json!({"type": "LoadBalancer"})));
        assert!(ours(
            json!({"type": "LoadBalancer", "loadBalancerClass": CLASS})
        ));
        assert!(!ours(
            json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/x"})
        ));
        assert!(!ours(json!({"type": "ClusterIP"})));
    }
}
