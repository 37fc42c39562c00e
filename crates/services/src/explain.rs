//! What becomes of a new connection, from the plan alone: the oracle that every backend is held
//! against, and what `flatnet trace` prints.

use std::net::IpAddr;

use model::Protocol;
use serde::Serialize;

use crate::plan::{Backend, Frontend, Plan, PortName};

/// Where a connection comes from, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Origin {
    /// A process of this node.
    Node,
    /// A pod, by the setting that tells pods ([`crate::plan::Local`]).
    Pod,
    /// Anybody else.
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

/// Answers a question.
pub fn explain(_plan: &Plan, _question: &Question) -> Answer {
    Answer {
        frontend: None,
        verdict: Verdict::NotAService,
        affinity: None,
    }
}
