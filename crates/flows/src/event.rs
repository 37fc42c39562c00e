//! What is told, and how it looks in JSON.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;
use model::Direction;
use serde::{Deserialize, Serialize};

/// Something that happened on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Event {
    /// A connection was denied.
    Drop(Arc<Drop>),
    /// More was denied than is told one by one.
    Unseen(Unseen),
}

impl Event {
    /// When.
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Drop(drop) => drop.time,
            Self::Unseen(unseen) => unseen.time,
        }
    }
}

/// A connection that policies denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drop {
    /// When its packet was dropped.
    pub time: Timestamp,
    /// Where.
    pub node: String,
    /// On which side: leaving the client, or entering the server.
    pub direction: Direction,
    /// The client.
    pub from: End,
    /// The server, after translation of a Service.
    pub to: End,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6`, or the protocol's number.
    pub protocol: String,
    /// The client's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// The server's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The message, of ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
    /// The Service that the client asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// The node's link to the pod whose policies denied it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// What decided.
    pub by: By,
    /// How many packets this stands for.
    pub packets: u64,
    /// These are further packets of a connection that was told before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its address.
    pub ip: IpAddr,
    /// The namespace of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The node that has the address, or that its pod is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// `shop/web-0`, `node1`, or the address.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, &self.pod, &self.node) {
            (Some(namespace), Some(pod), _) => write!(f, "{namespace}/{pod}"),
            (_, _, Some(node)) => write!(f, "node {node} ({})", self.ip),
            _ => write!(f, "{}", self.ip),
        }
    }
}

/// A message of ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Icmp {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Its code.
    pub code: u8,
}

/// What a client asked for before it was translated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Address and port.
    pub address: SocketAddr,
    /// Namespace of the Service whose ClusterIP it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What decided, by what was known when the packet was told of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct By {
    /// In words.
    pub words: String,
    /// The policies; at most some of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Policy>,
    /// By now it would be let through: policies, or pods, changed meanwhile.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allowed_now: bool,
}

/// A policy that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `NetworkPolicy` or `ClusterNetworkPolicy`.
    pub kind: String,
    /// Its namespace, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Index of the rule that decided, where it was a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
}

/// Packets that were denied and not told one by one: the kernel tells of at most some in a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unseen {
    /// When it was noticed.
    pub time: Timestamp,
    /// Where.
    pub node: String,
    /// On which side; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// How many.
    pub packets: u64,
}

/// One line of what a node's agent tells a reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// This happened.
    Event {
        /// Counted up by one with each event of a run.
        number: u64,
        /// What.
        event: Event,
    },
    /// So many events are not told: the reader was too slow, or came too late.
    Missed(u64),
    /// What comes from here on happens now.
    Live,
}
