//! What becomes of a connection in the lab, from `explain` of the nodes it passes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use model::Protocol;
use services::{Backend, Origin, Question, Verdict, explain};

use crate::cases::Place;
use crate::lab::{BALANCER, Lab, LabNode};
use crate::probe::{Outcome, Probe};
use crate::station::ip;

/// What may come of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// One of these servers answers, having seen one of these addresses.
    Answer(BTreeMap<String, Vec<IpAddr>>),
    /// Refused quickly.
    Refused,
    /// Nothing is heard.
    Silence,
}

impl Expect {
    /// In a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Answer(_) => "an answer",
            Self::Refused => "refused",
            Self::Silence => "silence",
        }
    }

    pub fn holds(&self, outcome: &Outcome) -> bool {
        match self {
            Self::Answer(who) => matches!(outcome, Outcome::Answer(greeting) if who
                .get(&greeting.who)
                .is_some_and(|seen| seen.contains(&greeting.seen.ip()))),
            Self::Refused => *outcome == Outcome::Refused,
            Self::Silence => *outcome == Outcome::Silence,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Silence => f.write_str("silence"),
            Self::Answer(who) => write!(f, "an answer of {who:?}"),
        }
    }
}

/// What becomes of a connection from this place.
pub fn expect(lab: &Lab, from: Place, probe: &Probe) -> Expect {
    let to = probe.to.ip();
    let v6 = to.is_ipv6();
    let owner = lab.nodes.iter().position(|node| node.ip(v6) == to);
    let source = match from {
        Place::Node(_) if to.is_loopback() => to,
        Place::Node(at) if owner == Some(at) => to,
        _ => from.ip(lab, v6),
    };
    let entry = match from {
        Place::Pod(name) => lab.pod(name).node,
        Place::Node(at) => at,
        // The router sends what is of no node to the first.
        Place::Client => owner.unwrap_or(0),
    };
    let expect = at_node(lab, entry, from, source, probe);
    match (expect, owner) {
        (Some(expect), _) => expect,
        // The other node's turn.
        (None, Some(owner)) if owner != entry => {
            at_node(lab, owner, from, source, probe).unwrap_or(Expect::Refused)
        }
        (None, _) if BALANCER.iter().any(|balancer| ip(balancer) == to) => {
            let seen = match from {
                // It leaves the cluster.
                Place::Pod(_) => addresses(&lab.nodes[entry], v6),
                _ => vec![source],
            };
            Expect::Answer([("balancer".to_owned(), seen)].into())
        }
        // An own address, and nothing listens there.
        (None, Some(_)) => Expect::Refused,
        (None, None) if to.is_loopback() => Expect::Refused,
        // It goes round between router and node until its time is over.
        (None, None) => Expect::Silence,
    }
}

/// [`None`] where this node has no Service for it.
fn at_node(lab: &Lab, at: usize, from: Place, source: IpAddr, probe: &Probe) -> Option<Expect> {
    let node = &lab.nodes[at];
    let (destination, v6) = (probe.to.ip(), probe.to.is_ipv6());
    let question = Question {
        source,
        origin: origin(lab, at, from),
        destination,
        to_this_node: destination == node.ip(v6) || destination.is_loopback(),
        protocol: if probe.tcp {
            Protocol::Tcp
        } else {
            Protocol::Udp
        },
        port: probe.to.port(),
    };
    let plan = node.services.plan().expect("a plan");
    Some(match explain(plan, &question).verdict {
        Verdict::NotAService => return None,
        Verdict::Reject(_) => Expect::Refused,
        Verdict::Drop(_) => Expect::Silence,
        Verdict::Forward { to, masquerade } => {
            let seen_by = |backend: &Backend| {
                let pod = lab.pod_at(backend.ip).expect("a pod");
                let masqueraded = masquerade.is_some() || backend.ip == source;
                let seen = if masqueraded {
                    addresses(node, v6)
                } else {
                    vec![source]
                };
                (pod.name.clone(), seen)
            };
            Expect::Answer(to.iter().map(|(backend, _)| seen_by(backend)).collect())
        }
    })
}

/// Where the client is, as a node sees it.
fn origin(lab: &Lab, at: usize, from: Place) -> Origin {
    match from {
        Place::Node(there) if there == at => Origin::Node,
        Place::Pod(name) if lab.pod(name).node == at => Origin::Pod,
        _ => Origin::Elsewhere,
    }
}

/// The addresses that a node gives to what it masquerades: its own, and towards pods the gateway's.
fn addresses(node: &LabNode, v6: bool) -> Vec<IpAddr> {
    let gateway = node.node.pod_cidrs[usize::from(v6)].hosts();
    let gateway = gateway.skip(usize::from(v6)).take(1);
    gateway.chain([node.ip(v6)]).collect()
}
