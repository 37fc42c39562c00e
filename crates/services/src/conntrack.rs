//! Flows of UDP that go on to where nobody serves them any more.
//!
//! The kernel remembers where the first packet of a flow went, and sends all others there. A TCP
//! connection whose endpoint is gone ends by itself; a UDP socket that keeps sending keeps its
//! flow for ever. So a flow to a Service is forgotten where its answers would come from no
//! endpoint that serves: its next packet is translated anew, or refused. Which endpoint *new*
//! flows go to (traffic policies, hints, readiness of others) does not matter: a flow stays as
//! long as its own endpoint serves, as a TCP connection does.
//!
//! kube-proxy (1.36) leaves the flows of a Service without endpoints alone, compares addresses
//! without ports, and takes a flow to any address in the world for one to a node port of the same
//! number. Here they are told apart.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use linux::conntrack::{DST_NAT, Flow, FlowFilter};
use model::Protocol;
use nft::IpFamily;

use crate::plan::{Backend, PortPlan};

/// With more frontends to look at than this, the kernel is asked for all flows at once.
const MOST_QUESTIONS: usize = 4;

type Endpoints = BTreeSet<SocketAddr>;

/// Frontends of UDP and the endpoints that serve them.
#[derive(Debug, Default)]
pub(crate) struct Served {
    addresses: HashMap<SocketAddr, Endpoints>,
    node_ports: HashMap<(bool, u16), Endpoints>,
    /// Addresses of this node's own.
    own: Vec<IpAddr>,
}

impl Served {
    /// No frontends; `own` are addresses of this node.
    pub fn new(own: &[IpAddr]) -> Self {
        Self {
            own: own.to_vec(),
            ..Self::default()
        }
    }

    /// Takes in a port, with all its endpoints that serve. Of two calls for one frontend the
    /// later counts.
    pub fn put(&mut self, port: &PortPlan, serving: &[Backend]) {
        if port.name.protocol != Protocol::Udp {
            return;
        }
        let serving = serving.iter();
        let endpoints: Endpoints = serving
            .map(|each| SocketAddr::new(each.ip, each.port))
            .collect();
        for frontend in &port.frontends {
            match frontend.ip {
                Some(ip) => {
                    let address = SocketAddr::new(ip, frontend.port);
                    self.addresses.insert(address, endpoints.clone());
                }
                None => {
                    let port = (port.v6, frontend.port);
                    self.node_ports.insert(port, endpoints.clone());
                }
            }
        }
    }

    /// Whether a flow goes to a frontend, but to no endpoint that serves it.
    pub fn is_stale(&self, flow: &Flow) -> bool {
        let translated = flow.status & DST_NAT != 0;
        let to = SocketAddr::new(flow.orig.dst, flow.orig.dport);
        let node_port = || {
            // Not one that passes this node on its way to the same port elsewhere.
            let here = translated || to.ip().is_loopback() || self.own.contains(&to.ip());
            let endpoints = self.node_ports.get(&(to.is_ipv6(), to.port()));
            endpoints.filter(|_| here)
        };
        let Some(endpoints) = self.addresses.get(&to).or_else(node_port) else {
            return false;
        };
        let answers = SocketAddr::new(flow.reply.src, flow.reply.sport);
        // Begun before there was anything to translate it to, it is no worse than a new one.
        (translated || !endpoints.is_empty()) && !endpoints.contains(&answers)
    }

    /// What to ask the kernel for, to hear of all flows that may be stale.
    pub fn filters(&self) -> Vec<FlowFilter> {
        let udp = |v6: bool| FlowFilter {
            family: Some(if v6 { IpFamily::V6 } else { IpFamily::V4 }),
            proto: Some(Protocol::Udp.number()),
            ..FlowFilter::default()
        };
        if self.addresses.len() + self.node_ports.len() > MOST_QUESTIONS {
            let addresses = self.addresses.keys().map(SocketAddr::is_ipv6);
            let node_ports = self.node_ports.keys().map(|(v6, _)| *v6);
            let families: BTreeSet<bool> = addresses.chain(node_ports).collect();
            return families.into_iter().map(udp).collect();
        }
        let addresses = self.addresses.keys().map(|to| FlowFilter {
            dst: Some(to.ip()),
            dport: Some(to.port()),
            ..udp(to.is_ipv6())
        });
        let node_ports = self.node_ports.keys().map(|(v6, port)| FlowFilter {
            dport: Some(*port),
            ..udp(*v6)
        });
        addresses.chain(node_ports).collect()
    }
}

#[cfg(test)]
mod tests {
    use linux::conntrack::Tuple;
    use model::TrafficPolicy;

    use super::*;
    use crate::plan::{Frontend, FrontendKind, PortName};

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    }

    /// UDP port 53 of 10.96.0.10 and node port 30053.
    fn dns() -> PortPlan {
        let frontend = |kind, ip, port| Frontend {
            kind,
            ip,
            port,
            policy: TrafficPolicy::Cluster,
            sources: None,
        };
        let cluster_ip = IpAddr::from([10, 96, 0, 10]);
        PortPlan {
            name: PortName {
                namespace: "kube-system".into(),
                name: "kube-dns".into(),
                port: "dns".into(),
                protocol: Protocol::Udp,
            },
            v6: false,
            cluster_ip,
            port: 53,
            frontends: vec![
                frontend(FrontendKind::ClusterIp, Some(cluster_ip), 53),
                frontend(FrontendKind::NodePort, None, 30053),
            ],
            cluster: Vec::new(),
            local: Vec::new(),
            affinity: None,
            health_check: None,
        }
    }

    fn endpoint(text: &str) -> Backend {
        let socket = socket(text);
        Backend {
            ip: socket.ip(),
            port: socket.port(),
            local: false,
        }
    }

    /// A flow to `to` whose answers come from `answers`.
    fn flow(to: &str, answers: &str) -> Flow {
        let (to, answers, client) = (socket(to), socket(answers), socket("10.244.1.5:40000"));
        let tuple = |src: SocketAddr, dst: SocketAddr| Tuple {
            src: src.ip(),
            dst: dst.ip(),
            sport: src.port(),
            dport: dst.port(),
        };
        let status = if to == answers { 0 } else { DST_NAT };
        Flow {
            status,
            ..Flow::new(17, tuple(client, to), tuple(answers, client))
        }
    }

    #[test]
    fn a_flow_is_stale_where_no_serving_endpoint_would_answer() {
        let own = [IpAddr::from([10, 0, 1, 10])];
        let mut served = Served::new(&own);
        served.put(&dns(), &[endpoint("10.244.2.7:53")]);
        for (to, answers, stale) in [
            ("10.96.0.10:53", "10.244.2.7:53", false),
            ("10.96.0.10:53", "10.244.2.8:53", true),
            // The pod is there, but another of its ports serves.
            ("10.96.0.10:53", "10.244.2.7:5353", true),
            // Begun before the Service was.
            ("10.96.0.10:53", "10.96.0.10:53", true),
            ("10.96.0.10:54", "10.244.2.8:53", false),
            ("10.0.1.10:30053", "10.244.2.7:53", false),
            ("10.0.1.10:30053", "10.244.2.8:53", true),
            ("10.0.1.10:30053", "10.0.1.10:30053", true),
            // To another node's port, and to a resolver in the world that has the same number.
            ("10.0.1.20:30053", "10.0.1.20:30053", false),
            ("8.8.8.8:30053", "8.8.8.8:30053", false),
        ] {
            assert_eq!(served.is_stale(&flow(to, answers)), stale, "{to} {answers}");
        }
    }

    #[test]
    fn without_endpoints_what_was_translated_is_stale() {
        let mut served = Served::new(&[]);
        served.put(&dns(), &[]);
        assert!(served.is_stale(&flow("10.96.0.10:53", "10.244.2.7:53")));
        assert!(!served.is_stale(&flow("10.96.0.10:53", "10.96.0.10:53")));
    }

    #[test]
    fn the_kernel_is_asked_for_the_frontends_or_for_all() {
        let mut served = Served::new(&[]);
        assert_eq!(served.filters(), []);
        served.put(&dns(), &[]);
        assert_eq!(served.filters().len(), 2);
        assert!(served.filters().iter().all(|filter| filter.dport.is_some()));
        for number in 1..10 {
            let mut other = dns();
            other.frontends.truncate(1);
            other.frontends[0].port = number;
            served.put(&other, &[]);
        }
        let filters = served.filters();
        assert_eq!(filters.len(), 1);
        assert_eq!(filters[0].dport, None);
    }

    #[test]
    fn other_protocols_are_left_alone() {
        let mut served = Served::new(&[]);
        let mut tcp = dns();
        tcp.name.protocol = Protocol::Tcp;
        served.put(&tcp, &[]);
        assert_eq!(served.filters(), []);
    }
}
