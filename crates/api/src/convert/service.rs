//! Services as [`model`] values.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::{LoadBalancerAddress, Protocol, Service, ServicePort, ServiceType, TrafficPolicy};
use serde::Deserialize;
use std::sync::Arc;

use super::slim::{
    AllLabels, Converted, Kind, Meta, Text, Value, Wrong, address, items, since_1970,
};

/// `spec.sessionAffinityConfig.clientIP.timeoutSeconds` where nothing is written.
const AFFINITY_SECONDS: u32 = 10_800;

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
#[doc(hidden)]
pub struct RawService<'a> {
    metadata: Meta<'a, AllLabels>,
    #[serde(default)]
    spec: Spec<'a>,
    #[serde(default)]
    status: Status<'a>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, bound(deserialize = "'de: 'a"))]
struct Spec<'a> {
    #[serde(rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<Text<'a>>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<Text<'a>>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<Text<'a>>>,
    load_balancer_source_ranges: Option<Vec<Text<'a>>>,
    ports: Option<Vec<Port<'a>>>,
    session_affinity: Option<Text<'a>>,
    session_affinity_config: Option<AffinityConfig>,
    internal_traffic_policy: Option<Text<'a>>,
    external_traffic_policy: Option<Text<'a>>,
    health_check_node_port: Option<i64>,
    external_name: Option<Text<'a>>,
    publish_not_ready_addresses: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct Port<'a> {
    name: Option<Text<'a>>,
    protocol: Option<Text<'a>>,
    #[serde(default)]
    port: i64,
    node_port: Option<i64>,
}

#[derive(Deserialize)]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientIp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientIp {
    timeout_seconds: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, bound(deserialize = "'de: 'a"))]
struct Status<'a> {
    load_balancer: Option<Balancer<'a>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Balancer<'a> {
    ingress: Option<Vec<Ingress<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct Ingress<'a> {
    ip: Option<Text<'a>>,
    hostname: Option<Text<'a>>,
    ip_mode: Option<Text<'a>>,
}

impl Kind for Service {
    const KIND: &'static str = "Service";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "services";
    type Raw<'de> = RawService<'de>;

    fn convert(raw: RawService<'_>) -> (ObjectMeta, Converted<Self>) {
        let place = raw.metadata.place();
        let mut problems = Vec::new();
        let value = match service(raw, &mut problems) {
            Some(service) => Value::Is(Arc::new(service)),
            None => Value::Unknown,
        };
        (place, Converted { value, problems })
    }
}

/// The Service; none where serving the rest of it would be another thing than was asked for.
fn service(raw: RawService<'_>, wrong: &mut Vec<Wrong>) -> Option<Service> {
    let RawService {
        metadata,
        spec,
        status,
    } = raw;
    let kind = service_type(spec.kind.as_deref(), wrong)?;
    let before = wrong.len();
    let ranges = spec.load_balancer_source_ranges;
    let source_ranges = items(ranges, "spec.loadBalancerSourceRanges", wrong, range);
    if wrong.len() > before {
        // Without a range that is meant to be there, others may be shut out or let in.
        return None;
    }
    let labels = metadata.labels.unwrap_or_default().0;
    let (load_balancer, balancer_names) = balancers(status.load_balancer, wrong);
    let created = metadata.creation_timestamp;
    Some(Service {
        namespace: metadata.namespace.owned(),
        name: metadata.name.owned(),
        uid: metadata.uid.map(Text::owned).unwrap_or_default(),
        created: created
            .and_then(|text| since_1970(&text, 1))
            .unwrap_or_default(),
        kind,
        cluster_ips: cluster_ips(kind, spec.cluster_ip, spec.cluster_ips, wrong),
        external_ips: items(spec.external_ips, "spec.externalIPs", wrong, address),
        load_balancer,
        balancer_names,
        source_ranges,
        ports: ports(spec.ports, wrong),
        affinity: affinity(
            spec.session_affinity.as_deref(),
            spec.session_affinity_config,
        ),
        internal_policy: policy(spec.internal_traffic_policy.as_deref()),
        external_policy: policy(spec.external_traffic_policy.as_deref()),
        health_check_port: optional_port(
            spec.health_check_node_port,
            "spec.healthCheckNodePort",
            wrong,
        ),
        external_name: spec
            .external_name
            .map(Text::owned)
            .filter(|name| kind == ServiceType::ExternalName && !name.is_empty()),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        other_proxy: labels
            .get("service.kubernetes.io/service-proxy-name")
            .is_some(),
        marked_headless: labels.get("service.kubernetes.io/headless").is_some(),
        labels,
    })
}

fn service_type(text: Option<&str>, wrong: &mut Vec<Wrong>) -> Option<ServiceType> {
    match text {
        None | Some("" | "ClusterIP") => Some(ServiceType::ClusterIp),
        Some("NodePort") => Some(ServiceType::NodePort),
        Some("LoadBalancer") => Some(ServiceType::LoadBalancer),
        Some("ExternalName") => Some(ServiceType::ExternalName),
        Some(other) => {
            wrong.push(Wrong {
                field: "spec.type".to_owned(),
                cause: format!(
                    "{other:?} is not known; choose ClusterIP, NodePort, LoadBalancer or ExternalName"
                ),
            });
            None
        }
    }
}

fn range(text: &str) -> Result<IpNet, String> {
    // White space around a range is let through by the API's validation.
    let text = text.trim();
    let net: IpNet = text
        .parse()
        .map_err(|_| format!("{text:?} is not a CIDR such as 192.0.2.0/24"))?;
    Ok(net.trunc())
}

fn cluster_ips(
    kind: ServiceType,
    one: Option<Text<'_>>,
    all: Option<Vec<Text<'_>>>,
    wrong: &mut Vec<Wrong>,
) -> Vec<std::net::IpAddr> {
    let all = all.filter(|all| !all.is_empty());
    let mut listed = all.or_else(|| one.map(|one| vec![one])).unwrap_or_default();
    listed.retain(|text| !matches!(&**text, "" | "None"));
    if kind == ServiceType::ExternalName {
        return Vec::new();
    }
    items(Some(listed), "spec.clusterIPs", wrong, address)
}

/// Balancers with an address, and the names of those without.
fn balancers(
    balancer: Option<Balancer<'_>>,
    wrong: &mut Vec<Wrong>,
) -> (Vec<LoadBalancerAddress>, Box<[String]>) {
    let ingress = balancer.and_then(|balancer| balancer.ingress);
    let (mut found, mut names) = (Vec::new(), Vec::new());
    for (at, ingress) in ingress.unwrap_or_default().into_iter().enumerate() {
        let Some(text) = ingress.ip.filter(|ip| !ip.is_empty()) else {
            let name = ingress.hostname.filter(|name| !name.is_empty());
            names.extend(name.map(Text::owned));
            continue;
        };
        match address(&text) {
            Ok(ip) => found.push(LoadBalancerAddress {
                ip,
                proxied: ingress.ip_mode.as_deref() == Some("Proxy"),
            }),
            Err(cause) => wrong.push(Wrong {
                field: format!("status.loadBalancer.ingress[{at}].ip"),
                cause,
            }),
        }
    }
    (found, names.into())
}

fn ports(ports: Option<Vec<Port<'_>>>, wrong: &mut Vec<Wrong>) -> Vec<ServicePort> {
    let mut found = Vec::new();
    for (at, port) in ports.unwrap_or_default().into_iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{at}].{name}");
        let protocol = protocol(port.protocol.as_deref(), || field("protocol"), wrong);
        let number = port_number(port.port, || field("port"), wrong);
        let node_port = port.node_port.filter(|port| *port != 0);
        let node_port = node_port.and_then(|port| port_number(port, || field("nodePort"), wrong));
        if let (Some(protocol), Some(number)) = (protocol, number) {
            found.push(ServicePort {
                name: port.name.map(Text::owned).unwrap_or_default(),
                protocol,
                port: number,
                node_port,
            });
        }
    }
    found
}

/// A protocol by its word; nothing is TCP.
pub(super) fn protocol(
    word: Option<&str>,
    field: impl FnOnce() -> String,
    wrong: &mut Vec<Wrong>,
) -> Option<Protocol> {
    let word = word.filter(|word| !word.is_empty());
    let known = |word: &str| Protocol::ALL.into_iter().find(|known| known.word() == word);
    match word {
        None => Some(Protocol::Tcp),
        Some(word) => known(word).or_else(|| {
            wrong.push(Wrong {
                field: field(),
                cause: format!("{word:?} is not known; choose TCP, UDP or SCTP"),
            });
            None
        }),
    }
}

/// A port from 1 to 65535.
pub(super) fn port_number(
    number: i64,
    field: impl FnOnce() -> String,
    wrong: &mut Vec<Wrong>,
) -> Option<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    if port.is_none() {
        wrong.push(Wrong {
            field: field(),
            cause: format!("{number} is out of range: choose 1 to 65535"),
        });
    }
    port
}

fn optional_port(number: Option<i64>, field: &str, wrong: &mut Vec<Wrong>) -> Option<u16> {
    let number = number.filter(|number| *number != 0)?;
    port_number(number, || field.to_owned(), wrong)
}

fn affinity(kind: Option<&str>, config: Option<AffinityConfig>) -> Option<u32> {
    if kind != Some("ClientIP") {
        return None;
    }
    let seconds = config
        .and_then(|config| config.client_ip)
        .and_then(|client| client.timeout_seconds);
    Some(seconds.unwrap_or(AFFINITY_SECONDS))
}

fn policy(text: Option<&str>) -> TrafficPolicy {
    match text {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Slim;
    use serde_json::json;

    fn read(value: &serde_json::Value) -> Slim<Service> {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    #[test]
    fn a_service_brings_everything_it_is_reached_by() {
        let slim = read(&json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {"namespace": "shop", "name": "web", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"app": "web", "service.kubernetes.io/service-proxy-name": "mine"},
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.96.1.1",
                "clusterIPs": ["10.96.1.1", "fd00:10:96::1"], "externalIPs": ["192.0.2.9"],
                "loadBalancerSourceRanges": [" 198.51.100.7/24 "],
                "ports": [{"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
                          {"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 0}],
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
                "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 32000, "publishNotReadyAddresses": true},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.5", "ipMode": "Proxy"},
                {"hostname": "lb.example"}]}}}));
        assert_eq!(slim.key(), ("shop".to_owned(), "web".to_owned()));
        assert!(slim.problem().is_none());
        let Value::Is(service) = slim.converted.value else {
            panic!("no Service");
        };
        assert_eq!(service.created, 1_767_323_045);
        assert_eq!(service.cluster_ips.len(), 2);
        assert_eq!(
            service.source_ranges,
            ["198.51.100.0/24".parse::<IpNet>().unwrap()]
        );
        assert_eq!(service.ports[0].node_port, Some(30080));
        assert_eq!(
            (service.ports[1].protocol, service.ports[1].node_port),
            (Protocol::Udp, None)
        );
        assert_eq!(service.affinity, Some(60));
        assert_eq!(service.internal_policy, TrafficPolicy::Cluster);
        assert_eq!(service.external_policy, TrafficPolicy::Local);
        assert_eq!(service.health_check_port, Some(32000));
        assert!(service.load_balancer[0].proxied && service.load_balancer.len() == 1);
        assert_eq!(*service.balancer_names, ["lb.example".to_owned()]);
        assert_eq!(
            service
                .labels
                .get("service.kubernetes.io/service-proxy-name"),
            Some("mine")
        );
        assert!(service.publish_not_ready && service.other_proxy && !service.marked_headless);
    }

    #[test]
    fn headless_and_external_names_have_no_address() {
        let headless = read(
            &json!({"metadata": {"name": "db", "namespace": "d", "labels":
            {"service.kubernetes.io/headless": ""}}, "spec": {"clusterIP": "None"}}),
        );
        let Value::Is(service) = headless.converted.value else {
            panic!("no Service");
        };
        assert!(service.cluster_ips.is_empty() && service.marked_headless);
        let external = read(&json!({"metadata": {"name": "db", "namespace": "d"},
            "spec": {"type": "ExternalName", "externalName": "db.example.com", "ports": null}}));
        let Value::Is(service) = external.converted.value else {
            panic!("no Service");
        };
        assert_eq!(service.external_name.as_deref(), Some("db.example.com"));
    }

    #[test]
    fn what_cannot_be_understood_is_named_and_the_rest_kept() {
        let slim = read(
            &json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {
            "clusterIPs": ["10.96.0.300"], "externalIPs": ["192.0.2.1", "x"],
            "ports": [{"port": 0}, {"port": 80, "protocol": "ICMP"}, {"port": 81}]}}),
        );
        assert_eq!(
            slim.problem().unwrap().to_string(),
            "Service d/web: spec.clusterIPs[0]: \"10.96.0.300\" is not an IP address; \
             spec.externalIPs[1]: \"x\" is not an IP address; and 2 more"
        );
        let Value::Is(service) = slim.converted.value else {
            panic!("no Service");
        };
        assert_eq!((service.external_ips.len(), service.ports.len()), (1, 1));
    }

    #[test]
    fn a_service_whose_sources_are_not_understood_is_not_opened() {
        let slim = read(
            &json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {
            "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8", "10.0.0.0/33"]}}),
        );
        assert_eq!(slim.converted.value, Value::Unknown);
        assert_eq!(
            slim.problem().unwrap().to_string(),
            "Service d/web: spec.loadBalancerSourceRanges[1]: \"10.0.0.0/33\" is not a CIDR such as 192.0.2.0/24"
        );
    }
}
