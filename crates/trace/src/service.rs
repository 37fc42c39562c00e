//! A packet that is for a Service: which frontend it meets, which endpoints it may go to, by
//! which rules.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use model::config::ServicesMode;
use model::{Protocol, Service, ServiceType};
use serde::Serialize;
use services::{Answer, Backend, Frontend, FrontendKind, PortName};

use crate::ends::{End, Error, wrong};

/// A destination, as the packet carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Address.
    pub address: IpAddr,
    /// Port, where one was asked about.
    pub port: Option<u16>,
    /// Protocol.
    pub protocol: Protocol,
}

/// An endpoint a connection may go to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Whose it is: `pod default/web-0`.
    pub name: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// On the node that chooses.
    pub local: bool,
    /// How likely a new connection goes there.
    pub probability: f64,
    /// The walk goes on there.
    pub chosen: bool,
    /// Why policies let no connection of the sender through to it.
    pub denied: Option<String>,
}

/// What a Service does with the packet.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Through {
    /// `namespace/name:port`, absent where no Service has the address.
    pub service: Option<String>,
    /// Which of its frontends: `ClusterIP 10.96.0.5:80/TCP`.
    pub frontend: Option<String>,
    /// The node whose rules decide.
    pub node: String,
    /// How Services reach its kernel.
    pub mode: ServicesMode,
    /// The chains and maps that the packet meets, in their order.
    pub rules: Vec<String>,
    /// `forward`, `reject` or `drop`.
    pub verdict: &'static str,
    /// Where it may go.
    pub endpoints: Vec<Endpoint>,
    /// Why the source becomes the node's address.
    pub masquerade: Option<String>,
    /// Seconds for which a client stays with its endpoint.
    pub affinity: Option<u32>,
}

/// A frontend in a few words.
pub struct Shown<'a>(pub &'a PortName, pub &'a Frontend);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.1.kind {
            FrontendKind::ClusterIp => "ClusterIP",
            FrontendKind::ExternalIp => "external IP",
            FrontendKind::LoadBalancer => "load balancer",
            FrontendKind::NodePort => "node port",
        };
        let protocol = self.0.protocol;
        match self.1.ip {
            Some(ip) => write!(f, "{kind} {}/{protocol}", SocketAddr::new(ip, self.1.port)),
            None => write!(f, "{kind} {}/{protocol}", self.1.port),
        }
    }
}

/// Where somebody who calls a Service sends the packet.
pub fn target(
    from: &End,
    service: &Service,
    nodes: &[IpAddr],
    port: Option<u16>,
    protocol: Option<Protocol>,
    v6: bool,
) -> Result<Target, Error> {
    let called = format!("service {}/{}", service.namespace, service.name);
    if service.kind == ServiceType::ExternalName {
        let host = service.external_name.as_deref().unwrap_or_default();
        return wrong(
            called,
            format!("is only a name in DNS for {host}; trace the address that {host} has"),
        );
    }
    if service.cluster_ips.is_empty() {
        return wrong(
            called,
            "is headless: DNS gives the pods' own addresses; trace one of them: kubectl get endpointslices",
        );
    }
    let mut fitting = service.ports.iter().filter(|each| {
        port.is_none_or(|port| each.port == port)
            && protocol.is_none_or(|protocol| each.protocol == protocol)
    });
    let found = fitting.next();
    let lonely = port.is_some() || fitting.next().is_none();
    let Some(found) = found.filter(|_| lonely) else {
        let all: Vec<String> = service
            .ports
            .iter()
            .map(|port| format!("{}/{}", port.port, port.protocol))
            .collect();
        let all = all.join(", ");
        let cause = if found.is_some() {
            format!("say which of its ports: it has {all}; svc/NAME:PORT, and --protocol")
        } else {
            format!("has no such port; it has {all}")
        };
        return wrong(called, cause);
    };
    let of = |all: &mut dyn Iterator<Item = IpAddr>| {
        let all: Vec<IpAddr> = all.collect();
        let wanted = all.iter().copied().find(|ip| ip.is_ipv6() == v6);
        if v6 {
            wanted
        } else {
            wanted.or_else(|| all.first().copied())
        }
    };
    let at = |address, port| Target {
        address,
        port: Some(port),
        protocol: found.protocol,
    };
    let outside = matches!(from, End::Outside { .. });
    if outside {
        let balanced = service.load_balancer.iter().filter(|each| !each.proxied);
        let external = service.external_ips.iter().copied();
        let public = of(&mut balanced.map(|each| each.ip)).or_else(|| of(&mut external.clone()));
        if let Some(address) = public {
            return Ok(at(address, found.port));
        }
        if let (Some(node), Some(port)) = (of(&mut nodes.iter().copied()), found.node_port) {
            return Ok(at(node, port));
        }
    }
    match of(&mut service.cluster_ips.iter().copied()) {
        Some(address) => Ok(at(address, found.port)),
        None => wrong(
            called,
            "has no IPv6 address; spec.ipFamilyPolicy: PreferDualStack gives it one in a dual-stack cluster",
        ),
    }
}

/// Which endpoint the walk goes on to: one that policies deny is what to know about; else one on
/// another node shows most of the way, and none is the sender itself if there is another.
pub(crate) fn choose(
    endpoints: &[(Backend, f64)],
    denied: &[Option<String>],
    sender: IpAddr,
) -> Option<Backend> {
    let is_denied = |backend: &Backend| {
        let mut all = endpoints.iter().zip(denied);
        all.any(|((other, _), why)| other == backend && why.is_some())
    };
    let rank = |backend: &Backend| (!is_denied(backend), backend.ip == sender, backend.local);
    endpoints
        .iter()
        .map(|(backend, _)| *backend)
        .min_by_key(|backend| (rank(backend), *backend))
}

/// What to do about a refusal.
pub(crate) fn advice(answer: &Answer, refused: bool) -> String {
    let Some((name, _)) = &answer.frontend else {
        return "see: kubectl get services -A".into();
    };
    let PortName {
        namespace, name, ..
    } = name;
    if refused {
        format!(
            "no ready pod matches its selector; see: kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={name}, and compare kubectl -n {namespace} get service {name} -o wide with kubectl -n {namespace} get pods --show-labels"
        )
    } else {
        format!("see: kubectl -n {namespace} describe service {name}")
    }
}

#[cfg(test)]
mod tests {
    use model::ServicePort;

    use super::*;

    fn service() -> Service {
        let port = |number, protocol| ServicePort {
            name: format!("p{number}"),
            protocol,
            port: number,
            node_port: Some(30000 + number),
        };
        Service {
            namespace: "default".into(),
            name: "web".into(),
            cluster_ips: vec!["10.96.0.5".parse().unwrap()],
            ports: vec![port(53, Protocol::Udp), port(80, Protocol::Tcp)],
            ..Service::default()
        }
    }

    fn inside() -> End {
        End::Node {
            called: "node node1".into(),
            node: "node1".into(),
            addresses: Vec::new(),
        }
    }

    fn aimed(from: &End, service: &Service, port: Option<u16>) -> Result<String, String> {
        let nodes = ["10.0.1.10".parse().unwrap()];
        target(from, service, &nodes, port, None, false)
            .map(|t| format!("{}:{}/{}", t.address, t.port.unwrap(), t.protocol))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn who_is_inside_uses_the_cluster_ip_and_who_is_outside_what_is_offered_there() {
        let mut service = service();
        let outside = End::Outside {
            called: "client".into(),
            addresses: Vec::new(),
        };
        assert_eq!(
            aimed(&inside(), &service, Some(53)).unwrap(),
            "10.96.0.5:53/UDP"
        );
        assert_eq!(
            aimed(&outside, &service, Some(80)).unwrap(),
            "10.0.1.10:30080/TCP"
        );
        service.external_ips = vec!["192.0.2.7".parse().unwrap()];
        assert_eq!(
            aimed(&outside, &service, Some(80)).unwrap(),
            "192.0.2.7:80/TCP"
        );
    }

    #[test]
    fn what_has_no_address_says_what_to_trace_instead() {
        let mut service = service();
        assert!(
            aimed(&inside(), &service, None)
                .unwrap_err()
                .contains("it has 53/UDP, 80/TCP")
        );
        assert!(
            aimed(&inside(), &service, Some(81))
                .unwrap_err()
                .contains("has no such port; it has 53/UDP, 80/TCP")
        );
        let udp = Some(Protocol::Udp);
        let only = target(&inside(), &service, &[], None, udp, false).unwrap();
        assert_eq!(only.port, Some(53), "one port is of that protocol");
        service.cluster_ips.clear();
        assert!(
            aimed(&inside(), &service, Some(80))
                .unwrap_err()
                .contains("headless")
        );
        service.kind = ServiceType::ExternalName;
        service.external_name = Some("db.example.com".into());
        assert!(
            aimed(&inside(), &service, Some(80))
                .unwrap_err()
                .contains("db.example.com")
        );
    }
}
