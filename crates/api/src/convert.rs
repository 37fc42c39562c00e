//! Kubernetes objects as [`model`] values. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::ResourceExt;

use crate::Error;

mod namespace;
mod pod;
mod policy;
mod service;
mod slice;
mod slim;

pub(crate) use slim::named;
pub use slim::{Converted, Kind, Slim, Value, Wrong};

/// Annotations in which nodes publish their VXLAN ends, as Flannel names them.
pub mod flannel {
    /// `vxlan`, `host-gw`, ...
    pub const BACKEND_TYPE: &str = "flannel.alpha.coreos.com/backend-type";
    /// `{"VNI":1,"VtepMAC":"52:54:00:12:34:56"}`.
    pub const BACKEND_DATA: &str = "flannel.alpha.coreos.com/backend-data";
    /// The same for the IPv6 device.
    pub const BACKEND_V6_DATA: &str = "flannel.alpha.coreos.com/backend-v6-data";
    /// The address packets are sent to.
    pub const PUBLIC_IP: &str = "flannel.alpha.coreos.com/public-ip";
    /// The same for IPv6.
    pub const PUBLIC_IPV6: &str = "flannel.alpha.coreos.com/public-ipv6";
    /// Always `true`: leases are kept by the API server.
    pub const KUBE_SUBNET_MANAGER: &str = "flannel.alpha.coreos.com/kube-subnet-manager";
}

/// Namespace of the ConfigMap that holds the network's configuration.
pub const CONFIG_NAMESPACE: &str = "kube-system";
/// Name of that ConfigMap.
pub const CONFIG_NAME: &str = "flatnet";
/// Its key.
pub const CONFIG_KEY: &str = "config.yaml";

/// Namespace of the ConfigMap with the cluster's Corefile, as clusters have it.
pub const COREFILE_NAMESPACE: &str = "kube-system";
/// Name of that ConfigMap.
pub const COREFILE_NAME: &str = "coredns";
/// Its key.
pub const COREFILE_KEY: &str = "Corefile";

/// A node as its neighbours need to know it.
pub fn node(node: &Node) -> Result<model::Node, Error> {
    let name = node.name_any();
    let annotations = node.annotations();
    Ok(model::Node {
        addresses: node_addresses(&name, node)?,
        pod_cidrs: pod_cidrs(&name, node)?,
        vtep_mac: vtep_mac(&name, annotations, flannel::BACKEND_DATA)?,
        vtep_mac_v6: vtep_mac(&name, annotations, flannel::BACKEND_V6_DATA)?,
        labels: node.labels().clone(),
        leaving: leaving(node),
        name,
    })
}

/// Whether a node is on its way out, as kube-proxy's health tells it to balancers (KEP-3836).
fn leaving(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let marked = taints
        .into_iter()
        .flatten()
        .any(|taint| taint.key == "ToBeDeletedByClusterAutoscaler");
    marked || node.metadata.deletion_timestamp.is_some()
}

/// `spec.podCIDRs`, or `spec.podCIDR` where an old client wrote only that.
pub fn pod_cidrs(name: &str, node: &Node) -> Result<Vec<IpNet>, Error> {
    let Some(spec) = &node.spec else {
        return Ok(Vec::new());
    };
    if let Some(cidrs) = spec.pod_cidrs.as_ref().filter(|cidrs| !cidrs.is_empty()) {
        let mut nets: Vec<IpNet> = Vec::with_capacity(cidrs.len());
        for (index, cidr) in cidrs.iter().enumerate() {
            let field = format!("spec.podCIDRs[{index}]");
            let net = cidr_of(&format!("Node {name}"), &field, cidr)?;
            if nets.iter().any(|other| is_v4(other) == is_v4(&net)) {
                let family = if is_v4(&net) { "IPv4" } else { "IPv6" };
                return Err(field_error(
                    format!("Node {name}"),
                    field,
                    format!("{cidr} is a second {family} range; a node has at most one a family"),
                ));
            }
            nets.push(net);
        }
        return Ok(nets);
    }
    spec.pod_cidr
        .iter()
        .filter(|cidr| !cidr.is_empty())
        .map(|cidr| cidr_of(&format!("Node {name}"), "spec.podCIDR", cidr))
        .collect()
}

fn is_v4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

fn cidr_of(object: &str, field: &str, text: &str) -> Result<IpNet, Error> {
    let net: IpNet = text.parse().map_err(|_| {
        field_error(
            object.to_owned(),
            field.to_owned(),
            format!("{text:?} is not a CIDR such as 10.244.1.0/24"),
        )
    })?;
    if net.trunc() != net {
        return Err(field_error(
            object.to_owned(),
            field.to_owned(),
            format!("{text} has host bits set; did you mean {}?", net.trunc()),
        ));
    }
    Ok(net)
}

/// Internal addresses, one a family, in the order the node lists them. A node whose
/// kubelet reported none is reached at what Flannel's annotations say.
fn node_addresses(name: &str, node: &Node) -> Result<Vec<IpAddr>, Error> {
    let object = || format!("Node {name}");
    let mut found: Vec<IpAddr> = Vec::new();
    let status = node.status.as_ref();
    let listed = status.and_then(|status| status.addresses.as_ref());
    for (index, address) in listed.into_iter().flatten().enumerate() {
        if address.type_ == "InternalIP" {
            let field = format!("status.addresses[{index}].address");
            take_address(&mut found, ip_of(object(), field, &address.address)?);
        }
    }
    if found.is_empty() {
        for key in [flannel::PUBLIC_IP, flannel::PUBLIC_IPV6] {
            if let Some(text) = node.annotations().get(key) {
                let field = format!("metadata.annotations[{key}]");
                take_address(&mut found, ip_of(object(), field, text)?);
            }
        }
    }
    Ok(found)
}

fn take_address(found: &mut Vec<IpAddr>, ip: IpAddr) {
    if !found.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
        found.push(ip);
    }
}

fn ip_of(object: String, field: String, text: &str) -> Result<IpAddr, Error> {
    text.parse()
        .map_err(|_| field_error(object, field, format!("{text:?} is not an IP address")))
}

#[derive(serde::Deserialize)]
struct BackendData {
    #[serde(rename = "VtepMAC")]
    vtep_mac: Option<String>,
}

fn vtep_mac(
    name: &str,
    annotations: &BTreeMap<String, String>,
    key: &str,
) -> Result<Option<[u8; 6]>, Error> {
    // Flannel writes `null` for a back end without data, such as host-gw.
    let Some(text) = annotations.get(key).filter(|text| *text != "null") else {
        return Ok(None);
    };
    let bad = |cause: String| {
        let field = format!("metadata.annotations[{key}]");
        field_error(format!("Node {name}"), field, cause)
    };
    let data: BackendData = serde_json::from_str(text)
        .map_err(|error| bad(format!("{text:?} is not Flannel's backend data: {error}")))?;
    match data.vtep_mac {
        None => Ok(None),
        Some(mac) => match parse_mac(&mac) {
            Some(mac) => Ok(Some(mac)),
            None => Err(bad(format!(
                "VtepMAC {mac:?} is not a hardware address such as 52:54:00:12:34:56"
            ))),
        },
    }
}

/// `52:54:00:12:34:56` as bytes.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// True where the pod has ended for good: its addresses belong to nobody.
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The network configuration in its ConfigMap.
pub fn config(map: &ConfigMap) -> Result<model::Config, Error> {
    let object = || format!("ConfigMap {CONFIG_NAMESPACE}/{CONFIG_NAME}");
    let field = || format!("data[{CONFIG_KEY}]");
    let text = map
        .data
        .as_ref()
        .and_then(|data| data.get(CONFIG_KEY))
        .ok_or_else(|| field_error(object(), field(), "missing".to_owned()))?;
    let document: model::Document = serde_saphyr::from_str(text)
        .map_err(|error| field_error(object(), field(), error.to_string()))?;
    model::Config::read(&document).map_err(|errors| {
        let causes: Vec<String> = errors.iter().map(ToString::to_string).collect();
        field_error(object(), field(), causes.join("; "))
    })
}

/// kube-proxy's configuration out of the file called `name`.
pub fn proxy_config(name: &str, text: &str) -> Result<model::config::ProxyConfig, Error> {
    let wrong = |cause: String| Error::Manifest {
        file: name.to_owned(),
        document: 1,
        cause,
    };
    let document: model::Document =
        serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
    model::config::ProxyConfig::read(&document).map_err(|errors| {
        let causes: Vec<String> = errors.iter().map(ToString::to_string).collect();
        wrong(causes.join("; "))
    })
}

fn field_error(object: String, field: String, cause: String) -> Error {
    Error::Field {
        object,
        field,
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node_from(value: serde_json::Value) -> Result<model::Node, Error> {
        node(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_node_brings_addresses_ranges_and_vxlan_ends() {
        let node = node_from(json!({
            "metadata": {"name": "node1", "labels": {"zone": "a"}, "annotations": {
                "flannel.alpha.coreos.com/backend-type": "vxlan",
                "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"52:54:00:ab:cd:01\"}",
                "flannel.alpha.coreos.com/backend-v6-data": "{\"VNI\":1,\"VtepMAC\":\"52:54:00:ab:cd:02\"}"}},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "node1"},
                {"type": "InternalIP", "address": "10.0.1.10"},
                {"type": "InternalIP", "address": "fd00:10:0:1::10"},
                {"type": "InternalIP", "address": "10.0.9.9"}]}}))
        .unwrap();
        assert_eq!(node.addresses.len(), 2);
        assert_eq!(node.addresses[0].to_string(), "10.0.1.10");
        assert_eq!(node.pod_cidrs[1].to_string(), "fd00:10:244:1::/64");
        assert_eq!(node.vtep_mac, Some([0x52, 0x54, 0, 0xab, 0xcd, 1]));
        assert_eq!(node.vtep_mac_v6, Some([0x52, 0x54, 0, 0xab, 0xcd, 2]));
        assert_eq!(node.labels["zone"], "a");
    }

    #[test]
    fn a_node_without_internal_address_is_reached_where_flannel_says() {
        let node = node_from(json!({"metadata": {"name": "n", "annotations": {
            "flannel.alpha.coreos.com/public-ip": "192.0.2.7",
            "flannel.alpha.coreos.com/backend-data": "null"}}}))
        .unwrap();
        assert_eq!(node.addresses[0].to_string(), "192.0.2.7");
        assert_eq!(node.vtep_mac, None);
    }

    #[test]
    fn bad_fields_are_named_with_their_cause() {
        let cases = [
            (
                json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.244.1.0"]}}),
                "Node n: spec.podCIDRs[0]: \"10.244.1.0\" is not a CIDR such as 10.244.1.0/24",
            ),
            (
                json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.244.1.1/24"]}}),
                "Node n: spec.podCIDRs[0]: 10.244.1.1/24 has host bits set; did you mean 10.244.1.0/24?",
            ),
            (
                json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.244.1.0/24", "10.244.2.0/24"]}}),
                "Node n: spec.podCIDRs[1]: 10.244.2.0/24 is a second IPv4 range; a node has at most one a family",
            ),
            (
                json!({"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "x"}]}}),
                "Node n: status.addresses[0].address: \"x\" is not an IP address",
            ),
            (
                json!({"metadata": {"name": "n", "annotations": {"flannel.alpha.coreos.com/backend-data": "{\"VtepMAC\":\"5:5\"}"}}}),
                "Node n: metadata.annotations[flannel.alpha.coreos.com/backend-data]: VtepMAC \"5:5\" is not a hardware address such as 52:54:00:12:34:56",
            ),
        ];
        for (value, message) in cases {
            assert_eq!(node_from(value).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_config_with_a_wrong_field_says_so() {
        let map: ConfigMap = serde_json::from_value(
            json!({"data": {"config.yaml": "apiVersion: flatnet.io/v1alpha1\nfabrik: {}\n"}}),
        )
        .unwrap();
        let error = config(&map).unwrap_err().to_string();
        assert!(
            error.starts_with("ConfigMap kube-system/flatnet: data[config.yaml]: "),
            "{error}"
        );
        assert!(error.contains("fabrik"), "{error}");
    }

    #[test]
    fn a_proxy_configuration_is_read_from_yaml() {
        let good = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                    mode: iptables\nconntrack: {tcpEstablishedTimeout: 2h0m0s}\n";
        let config = proxy_config("proxy.yaml", good).unwrap();
        assert_eq!(config.conntrack.tcp_established_timeout.as_secs(), 7200);
        let error = proxy_config("proxy.yaml", "mode: ipvs\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "proxy.yaml: document 1: apiVersion: missing: write `apiVersion: kubeproxy.config.k8s.io/v1alpha1`; \
             kind: missing: write `kind: KubeProxyConfiguration`; mode: \"ipvs\" is not served \
             (Kubernetes deprecates it too, KEP-5495): choose nftables or iptables, or leave it out"
        );
    }
}
