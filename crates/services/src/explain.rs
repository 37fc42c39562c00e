//! What becomes of a new connection, from the plan alone: the oracle that every backend is held
//! against, and what `flatnet trace` prints.

use std::net::IpAddr;

use ipnet::IpNet;
use model::{Protocol, TrafficPolicy};
use serde::Serialize;

use crate::plan::{Backend, Frontend, FrontendKind, Local, Plan, PortName, PortPlan, Settings};

/// Where a connection comes from, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Origin {
    /// A process of this node.
    Node,
    /// A pod of this node. Where the setting tells pods by their addresses, the source decides
    /// what rules take for a pod, and for one of this node, whatever is said here.
    Pod,
    /// Anybody else, pods of other nodes too.
    Elsewhere,
}

/// A new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Source address.
    pub source: IpAddr,
    /// Where it comes from.
    pub origin: Origin,
    /// Destination address.
    pub destination: IpAddr,
    /// The destination is an address of this node's own.
    pub to_this_node: bool,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination port.
    pub port: u16,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Verdict {
    /// No Service has this address and port: it goes where it is addressed to.
    NotAService,
    /// It goes to one of these, each with its probability.
    Forward {
        /// Endpoints and probabilities, which add up to 1.
        to: Vec<(Backend, f64)>,
        /// Why the source becomes the node's address, where it does for all of them. An endpoint
        /// that reaches itself is masqueraded in any case.
        masquerade: Option<&'static str>,
    },
    /// The sender is told at once: reset or port unreachable.
    Reject(&'static str),
    /// The sender hears nothing.
    Drop(&'static str),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The Service's port and the frontend it is for, where there is one.
    pub frontend: Option<(PortName, Frontend)>,
    /// What becomes of the connection.
    pub verdict: Verdict,
    /// Seconds for which the same source goes to the same endpoint.
    pub affinity: Option<u32>,
}

/// No endpoint is usable anywhere.
const NO_ENDPOINTS: &str = "the Service has no endpoints";
/// Only the list of this node's endpoints is empty.
const NO_LOCAL_ENDPOINTS: &str =
    "the traffic policy is Local, and this node has none of the endpoints";
/// Refused by `spec.loadBalancerSourceRanges`.
const SOURCE_RANGES: &str = "the source is in none of spec.loadBalancerSourceRanges";
/// The address is a Service's, the port is not.
const UNDEFINED_PORT: &str = "the ClusterIP's Service has no such port";
/// The address may be a Service's tomorrow.
const UNALLOCATED: &str = "the address is in a service range, and no Service has it";

const MASQUERADE_ALL: &str = "masqueradeAll";
const NOT_A_POD: &str = "the source is no pod, and the answer must come back this way";
const CLUSTER_WIDE: &str = "the endpoint may be on another node, and the answer must come back \
                            this way";
const FROM_NODE: &str = "the source is this node, whose address may be the Service's own";

impl Question {
    /// Whether this endpoint would get a connection from itself: then the source becomes the
    /// node's address, or the answer would not come back this way.
    pub fn is_hairpin(&self, endpoint: &Backend) -> bool {
        self.source == endpoint.ip
    }

    /// Whether a rule of the settings takes it for a pod's: it sees a packet, not who sent it.
    fn is_told_by(&self, pods: &Local) -> bool {
        match pods {
            Local::Sources(ranges) => ranges.iter().any(|range| range.contains(&self.source)),
            Local::Link(_) => self.origin == Origin::Pod,
        }
    }
}

/// Answers a question.
pub fn explain(plan: &Plan, question: &Question) -> Answer {
    let settings = plan.settings();
    let Question {
        destination,
        protocol,
        port,
        ..
    } = *question;
    let v6 = destination.is_ipv6();
    let node_port = || {
        let own = question.origin == Origin::Node;
        let served = question.to_this_node && settings.serves_node_ports_at(destination, own);
        served.then(|| plan.at_node_port(v6, protocol, port))?
    };
    if let Some((port, frontend)) = plan.at(destination, protocol, port).or_else(node_port) {
        return through(settings, question, port, frontend);
    }
    let in_range = |range: &IpNet| range.contains(&destination);
    let verdict = if plan.is_cluster_ip(destination) {
        Verdict::Reject(UNDEFINED_PORT)
    } else if settings.service_cidrs.iter().any(in_range) {
        Verdict::Drop(UNALLOCATED)
    } else {
        Verdict::NotAService
    };
    Answer {
        frontend: None,
        verdict,
        affinity: None,
    }
}

/// What awaits clients outside the node at a frontend of the port that leads nowhere for them;
/// nothing where they are served.
pub fn trouble(port: &PortPlan, frontend: &Frontend) -> Option<&'static str> {
    if port.cluster.is_empty() {
        Some(NO_ENDPOINTS)
    } else if frontend.policy == TrafficPolicy::Local && port.local.is_empty() {
        Some(NO_LOCAL_ENDPOINTS)
    } else {
        None
    }
}

/// Through a frontend: the table in [`Frontend`]'s documentation.
fn through(
    settings: &Settings,
    question: &Question,
    port: &PortPlan,
    frontend: &Frontend,
) -> Answer {
    let verdict = verdict(settings, question, port, frontend);
    let affinity = match &verdict {
        Verdict::Forward { .. } => port.affinity,
        _ => None,
    };
    Answer {
        frontend: Some((port.name.clone(), frontend.clone())),
        verdict,
        affinity,
    }
}

fn verdict(
    settings: &Settings,
    question: &Question,
    port: &PortPlan,
    frontend: &Frontend,
) -> Verdict {
    let lets_in = |ranges: &Vec<IpNet>| ranges.iter().any(|r| r.contains(&question.source));
    if !frontend.sources.as_ref().is_none_or(lets_in) {
        return Verdict::Drop(SOURCE_RANGES);
    }
    if port.cluster.is_empty() {
        return Verdict::Reject(NO_ENDPOINTS);
    }
    let local = frontend.policy == TrafficPolicy::Local;
    let (endpoints, masquerade) = if frontend.kind == FrontendKind::ClusterIp {
        let masquerade = if settings.masquerade_all {
            Some(MASQUERADE_ALL)
        } else if settings.tells_pods(port.v6) && !question.is_told_by(&settings.local) {
            Some(NOT_A_POD)
        } else {
            None
        };
        let endpoints = if local { &port.local } else { &port.cluster };
        (endpoints, masquerade)
    } else if !local {
        (&port.cluster, Some(CLUSTER_WIDE))
    } else if question.is_told_by(&settings.own_pods) {
        (&port.cluster, None)
    } else if question.origin == Origin::Node {
        (&port.cluster, Some(FROM_NODE))
    } else {
        (&port.local, None)
    };
    if endpoints.is_empty() {
        return Verdict::Drop(NO_LOCAL_ENDPOINTS);
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a Service has no 2^52 endpoints"
    )]
    let probability = 1.0 / endpoints.len() as f64;
    let to = endpoints.iter().map(|each| (*each, probability)).collect();
    Verdict::Forward { to, masquerade }
}
