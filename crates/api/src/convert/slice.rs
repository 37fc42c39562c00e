//! EndpointSlices as [`model`] values.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::{Endpoint, EndpointSlice, SlicePort};
use serde::Deserialize;

use super::service::{port_number, protocol};
use super::slim::{Converted, Kind, Meta, Text, Value, Wrong, address, since_1970};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
#[doc(hidden)]
pub struct RawSlice<'a> {
    metadata: Meta<'a>,
    #[serde(default)]
    address_type: Text<'a>,
    endpoints: Option<Vec<RawEndpoint<'a>>>,
    ports: Option<Vec<Port<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct RawEndpoint<'a> {
    addresses: Option<Vec<Text<'a>>>,
    conditions: Option<Conditions>,
    hostname: Option<Text<'a>>,
    target_ref: Option<Target<'a>>,
    node_name: Option<Text<'a>>,
    zone: Option<Text<'a>>,
    hints: Option<Hints<'a>>,
}

#[derive(Deserialize, Default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Target<'a> {
    kind: Option<Text<'a>>,
    name: Option<Text<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct Hints<'a> {
    for_zones: Option<Vec<Named<'a>>>,
    for_nodes: Option<Vec<Named<'a>>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Named<'a> {
    name: Text<'a>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Port<'a> {
    name: Option<Text<'a>>,
    protocol: Option<Text<'a>>,
    port: Option<i64>,
}

impl Kind for EndpointSlice {
    const KIND: &'static str = "EndpointSlice";
    const GROUP: &'static str = "discovery.k8s.io";
    const PLURAL: &'static str = "endpointslices";
    type Raw<'de> = RawSlice<'de>;

    fn convert(raw: RawSlice<'_>) -> (ObjectMeta, Converted<Self>) {
        let place = raw.metadata.place();
        let mut problems = Vec::new();
        let value = slice(raw, &mut problems);
        (place, Converted { value, problems })
    }
}

fn slice(raw: RawSlice<'_>, wrong: &mut Vec<Wrong>) -> Value<EndpointSlice> {
    let v6 = match &*raw.address_type {
        "IPv4" => false,
        "IPv6" => true,
        // Names are resolved by clients, and upstream's own controllers make none.
        "FQDN" => return Value::Nothing,
        other => {
            wrong.push(Wrong {
                field: "addressType".to_owned(),
                cause: format!("{other:?} is not known; choose IPv4, IPv6 or FQDN"),
            });
            return Value::Unknown;
        }
    };
    // Without the label it belongs to no Service: neither proxies nor DNS look at it.
    let labels = raw.metadata.labels.unwrap_or_default();
    let Some(service) = labels.service.filter(|service| !service.is_empty()) else {
        return Value::Nothing;
    };
    let annotations = raw.metadata.annotations.unwrap_or_default();
    let triggered = annotations.triggered;
    Value::Is(Arc::new(EndpointSlice {
        namespace: raw.metadata.namespace.owned(),
        name: raw.metadata.name.owned(),
        service: service.owned(),
        v6,
        ports: ports(raw.ports, wrong),
        endpoints: endpoints(raw.endpoints, v6, wrong),
        triggered: triggered.and_then(|text| since_1970(&text, 1000)),
    }))
}

fn ports(ports: Option<Vec<Port<'_>>>, wrong: &mut Vec<Wrong>) -> Vec<SlicePort> {
    let mut found = Vec::new();
    for (at, port) in ports.unwrap_or_default().into_iter().enumerate() {
        let field = |name: &str| format!("ports[{at}].{name}");
        let Some(protocol) = protocol(port.protocol.as_deref(), || field("protocol"), wrong) else {
            continue;
        };
        let number = match port.port {
            None => None,
            Some(number) => match port_number(number, || field("port"), wrong) {
                Some(number) => Some(number),
                None => continue,
            },
        };
        found.push(SlicePort {
            name: port.name.map(Text::owned).unwrap_or_default(),
            protocol,
            port: number,
        });
    }
    found
}

fn endpoints(
    endpoints: Option<Vec<RawEndpoint<'_>>>,
    v6: bool,
    wrong: &mut Vec<Wrong>,
) -> Vec<Endpoint> {
    let listed = endpoints.unwrap_or_default();
    let mut found = Vec::with_capacity(listed.len());
    for (at, raw) in listed.into_iter().enumerate() {
        match endpoint(raw, v6) {
            Ok(endpoint) => found.push(endpoint),
            Err(cause) => wrong.push(Wrong {
                field: format!("endpoints[{at}].addresses"),
                cause,
            }),
        }
    }
    found
}

fn endpoint(raw: RawEndpoint<'_>, v6: bool) -> Result<Endpoint, String> {
    let addresses = raw.addresses.unwrap_or_default();
    let text = addresses
        .first()
        .ok_or("empty: an endpoint has an address")?;
    let ip = address(text)?;
    if ip.is_ipv6() != v6 {
        let family = if v6 { "IPv6" } else { "IPv4" };
        return Err(format!("{ip} is no {family} address, as addressType says"));
    }
    let more = addresses
        .iter()
        .skip(1)
        .filter_map(|text| address(text).ok());
    let conditions = raw.conditions.unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let target = raw.target_ref;
    let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
    let hints = raw.hints.unwrap_or_default();
    let names = |list: Option<Vec<Named<'_>>>| -> Vec<String> {
        let list = list.unwrap_or_default().into_iter();
        list.map(|named| named.name.owned()).collect()
    };
    Ok(Endpoint {
        ip,
        more: more.filter(|ip| ip.is_ipv6() == v6).collect(),
        ready,
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: raw.node_name.map(Text::owned),
        zone: raw.zone.map(Text::owned),
        hostname: raw.hostname.map(Text::owned),
        pod: pod.and_then(|pod| pod.name).map(Text::owned),
        for_zones: names(hints.for_zones),
        for_nodes: names(hints.for_nodes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Slim;
    use serde_json::json;

    fn read(value: &serde_json::Value) -> Slim<EndpointSlice> {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    fn of(address_type: &str, endpoints: &serde_json::Value) -> Slim<EndpointSlice> {
        read(
            &json!({"metadata": {"namespace": "d", "name": "web-1", "labels":
            {"kubernetes.io/service-name": "web"}, "annotations":
            {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-02T03:04:05.25Z"}},
            "addressType": address_type, "endpoints": endpoints,
            "ports": [{"name": "", "port": 8080}, {"name": "any", "protocol": "UDP", "port": null}]}),
        )
    }

    fn value(slim: &Slim<EndpointSlice>) -> &EndpointSlice {
        match &slim.converted.value {
            Value::Is(slice) => slice,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_slice_brings_its_endpoints_with_conditions_and_hints() {
        let slim = of(
            "IPv4",
            &json!([
                {"addresses": ["10.244.1.2"], "nodeName": "node1", "zone": "a", "hostname": "web-0",
                 "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "d"},
                 "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "node1"}]}},
                {"addresses": ["10.244.1.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.244.1.4"], "conditions": {"ready": false}}]),
        );
        let slice = value(&slim);
        assert!(slim.problem().is_none());
        assert_eq!((slice.service.as_str(), slice.v6), ("web", false));
        assert_eq!(slice.triggered, Some(1_767_323_045_250));
        assert_eq!(
            (slice.ports[0].port, slice.ports[1].port),
            (Some(8080), None)
        );
        let state = |at: usize| {
            let endpoint = &slice.endpoints[at];
            (endpoint.ready, endpoint.serving, endpoint.terminating)
        };
        assert_eq!(state(0), (true, true, false));
        assert_eq!(state(1), (false, true, true));
        assert_eq!(state(2), (false, true, false));
        let first = &slice.endpoints[0];
        assert_eq!(
            (first.pod.as_deref(), first.node.as_deref()),
            (Some("web-0"), Some("node1"))
        );
        assert_eq!(
            (first.for_zones[0].as_str(), first.for_nodes[0].as_str()),
            ("a", "node1")
        );
    }

    #[test]
    fn names_and_slices_of_nobody_are_left_out() {
        assert_eq!(of("FQDN", &json!([])).converted.value, Value::Nothing);
        let nobody = read(&json!({"metadata": {"namespace": "d", "name": "x"},
            "addressType": "IPv4", "endpoints": null, "ports": null}));
        assert_eq!(nobody.converted.value, Value::Nothing);
    }

    #[test]
    fn an_endpoint_of_the_wrong_family_is_named_and_the_others_kept() {
        let slim = of(
            "IPv6",
            &json!([{"addresses": ["10.244.1.2"]}, {"addresses": ["fd00::2"]}, {"addresses": []}]),
        );
        assert_eq!(value(&slim).endpoints.len(), 1);
        assert_eq!(
            slim.problem().unwrap().to_string(),
            "EndpointSlice d/web-1: endpoints[0].addresses: 10.244.1.2 is no IPv6 address, as \
             addressType says; endpoints[2].addresses: empty: an endpoint has an address"
        );
    }
}
