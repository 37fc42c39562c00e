//! Which tries policies deny, from the policies alone: those must fail, and all others must pass.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use model::{Cluster, Direction, EndpointSlice, Node, Protocol};
use policy::explain::{self, Question, Reason, Side, words};

use super::paths::{End, Place};
use super::probe::Patience;

/// What is to become of a try.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It passes.
    #[default]
    Passes,
    /// It is denied, by the policies named.
    Denied(String),
    /// One endpoint or entrance is denied and another is not: it passes or does not.
    Varies(String),
}

impl Fate {
    /// What is wrong with how it went; nothing where it went as it should.
    pub fn wrong<T>(&self, went: &Result<T, String>) -> Option<String> {
        match (self, went) {
            (Self::Passes, Err(why)) => Some(why.clone()),
            (Self::Denied(by), Ok(_)) => {
                Some(format!("passes, but is {by}, see: flatnet show policies"))
            }
            _ => None,
        }
    }

    /// Who denied what did not pass, and should not or need not.
    pub fn denied<T>(&self, went: &Result<T, String>) -> Option<String> {
        match (self, went) {
            (Self::Denied(by) | Self::Varies(by), Err(_)) => Some(by.clone()),
            _ => None,
        }
    }
}

/// What is to become of a try, by protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Of a connection.
    pub tcp: Fate,
    /// Of a datagram.
    pub udp: Fate,
}

/// How long to wait for what is to be denied: nobody answers it.
const DENIED: Duration = Duration::from_millis(700);

impl Fates {
    /// How long a try may take, where `whole` is for what is to pass.
    pub fn patience(&self, whole: Duration) -> Patience {
        let of = |fate: &Fate| match fate {
            Fate::Denied(_) => whole.min(DENIED),
            Fate::Passes | Fate::Varies(_) => whole,
        };
        Patience {
            tcp: of(&self.tcp),
            udp: of(&self.udp),
        }
    }
}

/// `denied by ...` of both protocols, or of one with its name.
pub fn both(tcp: Option<String>, udp: Option<String>) -> Option<String> {
    match (tcp, udp) {
        (Some(tcp), Some(udp)) if tcp == udp => Some(tcp),
        (Some(tcp), Some(udp)) => Some(format!("TCP {tcp}; UDP {udp}")),
        (Some(tcp), None) => Some(format!("TCP {tcp}")),
        (None, Some(udp)) => Some(format!("UDP {udp}")),
        (None, None) => None,
    }
}

/// Where a try goes, as policies see it.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// The addresses by which the caller may be seen where it is judged by itself.
    pub own: Vec<IpAddr>,
    /// The addresses of nodes that may pass it on as their own, to pods of other nodes.
    pub through: Vec<IpAddr>,
    /// Where it goes when the caller's node judges it.
    pub leaves_for: Vec<SocketAddr>,
    /// Where it may end.
    pub ends_at: Vec<SocketAddr>,
}

impl Way {
    /// What becomes of it.
    pub fn fate(&self, cluster: &Cluster, protocol: Protocol) -> Fate {
        if cluster.policies.is_empty() && cluster.cluster_policies.is_empty() {
            return Fate::Passes;
        }
        let at = |ip| explain::End::at(cluster, ip);
        let (mut out, mut into) = (Sides::default(), Sides::default());
        let answer = |from: &explain::End, to: &SocketAddr| {
            let port = Some((protocol, to.port()));
            let (from, to) = (from.clone(), at(to.ip()));
            explain::explain(cluster, &Question { from, to, port })
        };
        for from in self.own.iter().map(|ip| at(*ip)) {
            for to in &self.leaves_for {
                out.add(&answer(&from, to).egress, Direction::Egress);
            }
            for to in &self.ends_at {
                into.add(&answer(&from, to).ingress, Direction::Ingress);
            }
        }
        for from in self.through.iter().map(|ip| at(*ip)) {
            // A pod's own node judges by the client's original address.
            let elsewhere = |to: &&SocketAddr| at(to.ip()).node != from.node;
            for to in self.ends_at.iter().filter(elsewhere) {
                into.add(&answer(&from, to).ingress, Direction::Ingress);
            }
        }
        let passes = out.passes && into.passes;
        match (out.denied.or(into.denied), passes) {
            (None, _) => Fate::Passes,
            (Some(by), false) => Fate::Denied(by),
            (Some(by), true) => Fate::Varies(by),
        }
    }
}

/// What one side says over all the cases.
#[derive(Default)]
struct Sides {
    /// In one case it lets the try through.
    passes: bool,
    /// In one case it does not, for this reason.
    denied: Option<String>,
}

impl Sides {
    fn add(&mut self, side: &Side, direction: Direction) {
        if side.allowed {
            self.passes = true;
        } else if self.denied.is_none() {
            self.denied = Some(denied_by(&side.reason, direction));
        }
    }
}

/// `denied by NetworkPolicy shop/deny-all (egress)`.
fn denied_by(reason: &Reason, direction: Direction) -> String {
    let who = match reason {
        Reason::Cluster { policy, tier, .. } => {
            format!("ClusterNetworkPolicy {policy}, tier {}", words::tier(*tier))
        }
        Reason::Isolated { by } | Reason::NotKnown { by } => {
            let all: Vec<String> = by.iter().map(words::key).collect();
            format!("NetworkPolicy {}", words::list(&all))
        }
        _ => "no policy".to_owned(),
    };
    format!("denied by {who} ({})", direction.word())
}

/// The addresses by which an end may be seen where it is judged by itself.
pub fn own(cluster: &Cluster, end: &End, v6: bool) -> Vec<IpAddr> {
    let mut all = end.addresses.clone();
    if let Place::Node(_) = end.place {
        let name = end.name.trim_start_matches("node/");
        all.extend(cluster.nodes.get(name).into_iter().flat_map(seen_as));
    }
    all.retain(|ip| ip.is_ipv6() == v6);
    all
}

/// The addresses of every node that may pass a connection on as its own.
pub fn through(cluster: &Cluster, v6: bool) -> Vec<IpAddr> {
    let all = cluster.nodes.values().flat_map(seen_as);
    all.filter(|ip| ip.is_ipv6() == v6).collect()
}

/// The addresses by which others see what comes from a node itself: on the underlay, of its
/// tunnel, of its pods' gateway.
fn seen_as(node: &Node) -> Vec<IpAddr> {
    let ranges = node.pod_cidrs.iter();
    let first = ranges.flat_map(|range| [Some(range.network()), range.hosts().next()]);
    let own = node.addresses.iter().copied();
    own.chain(first.flatten()).collect()
}

/// Where the API's Service leads.
pub fn api_servers(cluster: &Cluster, v6: bool) -> Vec<SocketAddr> {
    let leads = |slice: &&Arc<EndpointSlice>| {
        slice.namespace == "default" && slice.service == "kubernetes" && slice.v6 == v6
    };
    let mut all = Vec::new();
    for slice in cluster.slices.values().filter(leads) {
        for port in slice.ports.iter().filter_map(|port| port.port) {
            let ends = slice.endpoints.iter();
            all.extend(ends.map(|end| SocketAddr::new(end.ip, port)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use model::policy::{Peer, Rule};
    use model::{Change, NetworkPolicy, Pod};

    use super::*;

    /// Two nodes with a pod each, and a policy that lets in what `peers` say.
    fn cluster(peers: &[&str]) -> Cluster {
        let mut cluster = Cluster::default();
        for number in 1..=2 {
            cluster.take(Change::Node(Node {
                name: format!("node{number}"),
                addresses: vec![format!("10.0.1.{number}0").parse().unwrap()],
                pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
                vtep_mac: None,
                vtep_mac_v6: None,
                labels: Default::default(),
                leaving: false,
            }));
            cluster.take(Change::Pod(Arc::new(Pod {
                namespace: "default".into(),
                name: format!("pod{number}"),
                node: format!("node{number}"),
                ips: vec![format!("10.244.{number}.2").parse().unwrap()],
                uid: format!("uid{number}"),
                host_network: false,
                labels: Default::default(),
                ports: Vec::new(),
                created: 0,
                leaving: false,
            })));
        }
        let block = |net: &&str| Peer::Block {
            net: net.parse().unwrap(),
            except: Vec::new(),
        };
        cluster.take(Change::Policy(Arc::new(NetworkPolicy {
            namespace: "default".into(),
            name: "some".into(),
            ingress: Some(vec![Rule {
                peers: Some(peers.iter().map(block).collect()),
                ports: None,
            }]),
            ..NetworkPolicy::default()
        })));
        cluster
    }

    fn way(own: &str, ends_at: &[&str]) -> Way {
        let to = |ip: &&str| SocketAddr::new(ip.parse().unwrap(), 80);
        let ends_at: Vec<SocketAddr> = ends_at.iter().map(to).collect();
        Way {
            own: vec![own.parse().unwrap()],
            leaves_for: ends_at.clone(),
            ends_at,
            ..Way::default()
        }
    }

    const DENIED: &str = "denied by NetworkPolicy default/some (ingress)";

    #[test]
    fn what_no_endpoint_lets_in_is_denied_and_what_one_does_varies() {
        let fate = |cluster: &Cluster, way: &Way| way.fate(cluster, Protocol::Tcp);
        let closed = cluster(&[]);
        let both = ["10.244.1.2", "10.244.2.2"];
        assert_eq!(
            fate(&closed, &way("203.0.113.10", &both)),
            Fate::Denied(DENIED.into())
        );
        assert_eq!(
            fate(&Cluster::default(), &way("203.0.113.10", &both)),
            Fate::Passes
        );
        // A pod that reaches itself, or the other.
        assert_eq!(
            fate(&closed, &way("10.244.1.2", &both)),
            Fate::Varies(DENIED.into())
        );
        assert_eq!(fate(&closed, &way("10.244.1.2", &both[..1])), Fate::Passes);
    }

    #[test]
    fn a_node_passes_on_as_its_own_to_other_nodes_only() {
        let entered = |peers: &[&str]| {
            let cluster = cluster(peers);
            let mut way = way("203.0.113.10", &["10.244.1.2", "10.244.2.2"]);
            way.through = through(&cluster, false);
            way.fate(&cluster, Protocol::Tcp)
        };
        assert_eq!(entered(&[]), Fate::Denied(DENIED.into()));
        assert_eq!(entered(&["203.0.113.0/24"]), Fate::Varies(DENIED.into()));
        let nodes = ["203.0.113.0/24", "10.0.1.0/24", "10.244.0.0/16"];
        assert_eq!(entered(&nodes), Fate::Passes);
    }

    #[test]
    fn only_what_goes_otherwise_is_wrong() {
        let (passed, failed) = (Ok(()), Err("no answer".to_owned()));
        let denied = Fate::Denied(DENIED.into());
        assert_eq!(Fate::Passes.wrong(&failed), Some("no answer".into()));
        assert_eq!(denied.wrong::<()>(&failed), None);
        assert_eq!(denied.denied::<()>(&failed), Some(DENIED.into()));
        assert_eq!(
            denied.wrong(&passed),
            Some(format!(
                "passes, but is {DENIED}, see: flatnet show policies"
            ))
        );
        let varies = Fate::Varies(DENIED.into());
        assert_eq!(
            (varies.wrong(&passed), varies.wrong::<()>(&failed)),
            (None, None)
        );
    }
}
