//! Pods as [`model`] values.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::{ContainerPort, Pod, Protocol};
use serde::Deserialize;

use super::slim::{AllLabels, Converted, Kind, Meta, Text, Value, Wrong, address, since_1970};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
#[doc(hidden)]
pub struct RawPod<'a> {
    metadata: Meta<'a, AllLabels>,
    #[serde(default)]
    spec: Spec<'a>,
    #[serde(default)]
    status: Status<'a>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, bound(deserialize = "'de: 'a"))]
struct Spec<'a> {
    node_name: Option<Text<'a>>,
    host_network: Option<bool>,
    containers: Option<Vec<Container<'a>>>,
    init_containers: Option<Vec<Container<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct Container<'a> {
    restart_policy: Option<Text<'a>>,
    ports: Option<Vec<Port<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct Port<'a> {
    name: Option<Text<'a>>,
    protocol: Option<Text<'a>>,
    #[serde(default)]
    container_port: i64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, bound(deserialize = "'de: 'a"))]
struct Status<'a> {
    phase: Option<Text<'a>>,
    #[serde(rename = "podIP")]
    pod_ip: Option<Text<'a>>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp<'a>>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct PodIp<'a> {
    #[serde(default)]
    ip: Text<'a>,
}

impl Kind for Pod {
    const KIND: &'static str = "Pod";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "pods";
    type Raw<'de> = RawPod<'de>;

    fn convert(raw: RawPod<'_>) -> (ObjectMeta, Converted<Self>) {
        let place = raw.metadata.place();
        let mut problems = Vec::new();
        let value = pod(raw, &mut problems);
        (place, Converted { value, problems })
    }
}

fn pod(raw: RawPod<'_>, wrong: &mut Vec<Wrong>) -> Value<Pod> {
    let RawPod {
        metadata,
        spec,
        status,
    } = raw;
    // It has ended for good: its addresses belong to nobody.
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Value::Nothing;
    }
    let ips = ips(status, wrong);
    if !wrong.is_empty() {
        return Value::Unknown;
    }
    let created = metadata.creation_timestamp;
    // The API's mirror of a static pod has a uid of its own; the kubelet and its runtime know the
    // pod by the one in this annotation.
    let mirrored = metadata.annotations.and_then(|all| all.mirror);
    Value::Is(Arc::new(Pod {
        ips,
        ports: named_ports(spec.containers, spec.init_containers),
        node: spec.node_name.map(Text::owned).unwrap_or_default(),
        host_network: spec.host_network.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default().0,
        created: created
            .and_then(|text| since_1970(&text, 1))
            .unwrap_or_default(),
        leaving: metadata.deletion_timestamp.is_some(),
        uid: mirrored
            .or(metadata.uid)
            .map(Text::owned)
            .unwrap_or_default(),
        namespace: metadata.namespace.owned(),
        name: metadata.name.owned(),
    }))
}

fn ips(status: Status<'_>, wrong: &mut Vec<Wrong>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut take = |text: &str, field: String| match address(text) {
        Ok(ip) => found.push(ip),
        Err(cause) => wrong.push(Wrong { field, cause }),
    };
    match status.pod_ips.filter(|ips| !ips.is_empty()) {
        Some(ips) => {
            for (at, PodIp { ip }) in ips.iter().enumerate() {
                take(ip, format!("status.podIPs[{at}].ip"));
            }
        }
        None => {
            if let Some(ip) = status.pod_ip.filter(|ip| !ip.is_empty()) {
                take(&ip, "status.podIP".to_owned());
            }
        }
    }
    found.shrink_to_fit();
    found
}

/// Ports with names of all containers; those of init containers only where they stay (sidecars).
fn named_ports(
    containers: Option<Vec<Container<'_>>>,
    first: Option<Vec<Container<'_>>>,
) -> Vec<ContainerPort> {
    let sidecars = first.into_iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let containers = containers.into_iter().flatten().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.unwrap_or_default());
    let named = ports.filter_map(|port| {
        let word = port.protocol.as_deref().unwrap_or("TCP");
        let known = |protocol: &Protocol| protocol.word() == word;
        Some(ContainerPort {
            name: port.name.as_deref().filter(|name| !name.is_empty())?.into(),
            protocol: Protocol::ALL.into_iter().find(known)?,
            port: u16::try_from(port.container_port).ok()?,
        })
    });
    let mut named: Vec<ContainerPort> = named.collect();
    named.shrink_to_fit();
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Slim;
    use serde_json::json;

    fn read(value: &serde_json::Value) -> Slim<Pod> {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    #[test]
    fn a_pod_brings_what_policies_and_services_ask_of_it() {
        let slim = read(&json!({
            "metadata": {"namespace": "default", "name": "web", "uid": "u",
                "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"app": "web", "a": ""},
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]},
            "spec": {"nodeName": "node1",
                "initContainers": [
                    {"name": "once", "ports": [{"name": "once", "containerPort": 1}]},
                    {"name": "mesh", "restartPolicy": "Always",
                        "ports": [{"name": "mesh", "containerPort": 15001, "protocol": "TCP"}]}],
                "containers": [{"name": "web", "ports": [
                    {"name": "http", "containerPort": 8080}, {"containerPort": 9},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}, {"name": "x"}]},
            "status": {"phase": "Running", "podIP": "10.244.1.2",
                "podIPs": [{"ip": "10.244.1.2"}, {"ip": "fd00::2"}]}}));
        let Value::Is(pod) = slim.converted.value else {
            panic!("no Pod");
        };
        assert_eq!((pod.node.as_str(), pod.ips.len()), ("node1", 2));
        assert_eq!(pod.created, 1_767_323_045);
        assert!(!pod.host_network && !pod.leaving);
        assert_eq!(pod.labels, model::Labels::from([("app", "web"), ("a", "")]));
        let ports = pod.ports.iter().map(|port| (&*port.name, port.port));
        assert_eq!(
            ports.collect::<Vec<_>>(),
            [("http", 8080), ("dns", 53), ("mesh", 15001)]
        );
    }

    #[test]
    fn a_pod_that_goes_is_leaving_and_one_that_has_ended_is_nothing() {
        let pod = |phase: &str| {
            read(&json!({"metadata": {"namespace": "d", "name": "p",
                "deletionTimestamp": "2026-01-02T03:04:05Z"}, "spec": {"hostNetwork": true},
                "status": {"phase": phase, "podIP": "10.0.0.9"}}))
            .converted
            .value
        };
        let Value::Is(running) = pod("Running") else {
            panic!("no Pod");
        };
        assert!(running.leaving && running.host_network && running.ips.len() == 1);
        assert_eq!(pod("Succeeded"), Value::Nothing);
        assert_eq!(pod("Failed"), Value::Nothing);
    }

    #[test]
    fn a_static_pod_is_called_as_its_kubelet_calls_it() {
        let slim = read(
            &json!({"metadata": {"namespace": "d", "name": "p-node1", "uid": "mirror",
            "annotations": {"kubernetes.io/config.mirror": "own"}}, "spec": {}}),
        );
        let Value::Is(pod) = slim.converted.value else {
            panic!("no Pod");
        };
        assert_eq!(pod.uid, "own");
    }

    #[test]
    fn of_a_pod_with_a_wrong_address_the_last_is_kept() {
        let slim = read(
            &json!({"metadata": {"namespace": "d", "name": "p"}, "spec": {},
            "status": {"podIPs": [{"ip": "10.0.0.9"}, {"ip": "x"}]}}),
        );
        assert_eq!(
            slim.problem().unwrap().to_string(),
            "Pod d/p: status.podIPs[1].ip: \"x\" is not an IP address"
        );
        assert_eq!(slim.converted.value, Value::Unknown);
    }
}
