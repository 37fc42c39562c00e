//! A policy's rules of one direction and family as matches, but for what depends on the pod that
//! it selects: the numbers of that pod's own named ports.

use std::sync::Arc;

use ipnet::IpNet;
use model::policy::{Namespaces, Peer, PortMatch, PortNumbers, Rule};
use model::selector::LabelSelector;
use model::{ContainerPort, Direction, Protocol};

use super::blocks;
use super::list::{Match, PortTest};
use super::ports::{PortRange, Ports};
use super::set::{Pods, Scope, Set, What, canonical};

/// A rule.
#[derive(Debug)]
pub(super) struct Draft {
    /// With whom; [`None`] among them stands for everybody.
    peers: Vec<Option<Arc<Set>>>,
    /// On which ports by number; none stands for everything.
    numbers: Option<Ports>,
    /// On which of the selected pod's own ports.
    own: Vec<(String, Option<Protocol>)>,
    /// On which ports of the peers.
    named: Vec<Match>,
}

impl Draft {
    /// A rule of a policy of a namespace; of none where it is a ClusterNetworkPolicy's.
    pub fn of(rule: &Rule, namespace: Option<&str>, direction: Direction, v6: bool) -> Self {
        let everybody = rule.peers.is_none();
        let (pods, mut nets) = split(rule.peers.as_deref().unwrap_or(&[]), namespace, v6);
        nets = blocks::union(nets);
        let mut peers: Vec<Option<Arc<Set>>> = Vec::new();
        if everybody || blocks::is_all(&nets) {
            peers.push(None);
        } else {
            peers.extend(pods.iter().map(|what| Some(Set::new(v6, what.clone()))));
            if !nets.is_empty() {
                peers.push(Some(Set::new(v6, What::Blocks(nets.clone()))));
            }
        }
        let mut draft = Self {
            peers,
            numbers: rule.ports.as_deref().map(numbers),
            own: Vec::new(),
            named: Vec::new(),
        };
        for (name, protocol) in rule.ports.as_deref().into_iter().flat_map(names) {
            match direction {
                Direction::Ingress => draft.own.push((name.to_owned(), protocol)),
                Direction::Egress => draft.name(name, protocol, &pods, v6),
            }
        }
        draft
    }

    /// A named port of whoever is connected to.
    fn name(&mut self, name: &str, protocol: Option<Protocol>, pods: &[What], v6: bool) {
        let set = |pods: Pods| {
            let name = name.to_owned();
            PortTest::Named(Set::new(
                v6,
                What::Named {
                    pods,
                    name,
                    protocol,
                },
            ))
        };
        for peer in &self.peers {
            // Of addresses it does not matter whose they are, as long as a pod there has the port.
            let whose = match peer.as_deref().map(|set| &set.what) {
                None | Some(What::Blocks(_)) => Pods {
                    scope: Scope::All,
                    selector: LabelSelector::default(),
                },
                Some(_) => continue,
            };
            self.named.push(Match {
                ports: set(whose),
                peer: peer.clone(),
            });
        }
        if self.peers.contains(&None) {
            return;
        }
        for what in pods {
            if let What::Pods(pods) = what {
                self.named.push(Match {
                    ports: set(pods.clone()),
                    peer: None,
                });
            }
        }
    }

    /// What it matches for a pod with such ports.
    pub fn matches(&self, ports: &[ContainerPort]) -> Vec<Match> {
        let test = match &self.numbers {
            None => PortTest::All,
            Some(numbers) => PortTest::Numbers(numbers.union(&self.resolved(ports))),
        };
        let nothing = matches!(&test, PortTest::Numbers(ports) if ports.is_empty());
        let peers = self.peers.iter().filter(|_| !nothing);
        let matches = peers.map(|peer| Match {
            ports: test.clone(),
            peer: peer.clone(),
        });
        matches.chain(self.named.iter().cloned()).collect()
    }

    fn resolved(&self, ports: &[ContainerPort]) -> Ports {
        let wanted = |port: &&ContainerPort| {
            self.own.iter().any(|(name, protocol)| {
                *port.name == **name && protocol.is_none_or(|protocol| protocol == port.protocol)
            })
        };
        let ports = ports.iter().filter(wanted).map(|port| PortRange {
            protocol: port.protocol,
            from: port.port,
            to: port.port,
        });
        ports.collect()
    }
}

/// Sets of pods and nodes, and the networks of blocks.
fn split(peers: &[Peer], namespace: Option<&str>, v6: bool) -> (Vec<What>, Vec<IpNet>) {
    let (mut sets, mut nets) = (Vec::new(), Vec::new());
    for peer in peers {
        match peer {
            Peer::Pods { namespaces, pods } => {
                let scope = match (namespaces, namespace) {
                    (Namespaces::Selected(selector), _) => Scope::Selected(canonical(selector)),
                    (Namespaces::Own, Some(namespace)) => Scope::Namespace(namespace.to_owned()),
                    // Whose own? The API has no such thing.
                    (Namespaces::Own, None) => continue,
                };
                let selector = canonical(pods);
                sets.push(What::Pods(Pods { scope, selector }));
            }
            Peer::Nodes(selector) => sets.push(What::Nodes(canonical(selector))),
            Peer::Block { net, except } => {
                if matches!(net, IpNet::V6(_)) == v6 {
                    nets.extend(blocks::without(*net, except));
                }
            }
        }
    }
    (sets, nets)
}

fn numbers(ports: &[PortMatch]) -> Ports {
    let of = |protocol: Option<Protocol>| match protocol {
        Some(protocol) => vec![protocol],
        None => Protocol::ALL.to_vec(),
    };
    let numbers = ports.iter().filter_map(|port| match port.port {
        PortNumbers::Any => Some((port.protocol, 0, u16::MAX)),
        PortNumbers::Range(from, to) => Some((port.protocol, from, to)),
        PortNumbers::Named(_) => None,
    });
    let ranges = numbers.flat_map(|(protocol, from, to)| {
        let protocols = of(protocol).into_iter();
        protocols.map(move |protocol| PortRange { protocol, from, to })
    });
    ranges.collect()
}

fn names(ports: &[PortMatch]) -> impl Iterator<Item = (&str, Option<Protocol>)> {
    ports.iter().filter_map(|port| match &port.port {
        PortNumbers::Named(name) => Some((name.as_str(), port.protocol)),
        PortNumbers::Any | PortNumbers::Range(..) => None,
    })
}
