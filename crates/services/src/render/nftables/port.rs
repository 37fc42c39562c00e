//! A Service's port as elements of maps, and what it shares with others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use model::TrafficPolicy;
use nft::{Looked, MapDatum, Value};

use super::base;
use super::chain::{ChainId, Mark, Pick, Sources, Split, Target};
use super::set::{By, Kind, Scope, SetId};
use crate::explain::Origin;
use crate::plan::{Backend, Frontend, FrontendKind, PortPlan, Settings};

/// Elements with their data, by set and key.
pub(crate) type Elements = BTreeMap<(SetId, Vec<Value>), Option<MapDatum>>;

/// What a port needs that others may need too.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub chains: BTreeSet<ChainId>,
    pub sets: BTreeSet<SetId>,
    /// Endpoints that may reach themselves by way of this node.
    pub hairpins: BTreeSet<IpAddr>,
}

/// What `port` needs that others may need too.
pub(super) fn shared(settings: &Settings, port: &PortPlan) -> Shared {
    let mut shared = Shared::default();
    for frontend in &port.frontends {
        target(port, frontend).needs(&mut shared.chains, &mut shared.sets);
    }
    // A pod's connection to a Service's address is translated on its own node. Only of a policy
    // that leaves pods of other nodes their address an endpoint elsewhere may be the pod itself.
    let of_others = shared.chains.iter().any(ChainId::is_split);
    let endpoints = port.cluster.iter().chain(&port.local);
    let hairpins = endpoints.filter(|each| of_others || is_here(settings, each));
    shared.hairpins = hairpins.map(|each| each.ip).collect();
    shared
}

/// Names of the chains and maps that a connection to a frontend meets, in their order: what to
/// look for in `nft list table inet flatnet`.
pub fn way(port: &PortPlan, frontend: &Frontend, origin: Origin) -> Vec<String> {
    let (by, _) = told(port, frontend);
    let map = format!("@{}", Kind::Frontends(by).of(port.v6));
    let mut way = vec![base::DISPATCH.to_owned(), map];
    way.extend(target(port, frontend).way(origin));
    way
}

/// A slice made by hand may not say on which node its endpoints are.
fn is_here(settings: &Settings, endpoint: &Backend) -> bool {
    let mut ranges = settings.pod_cidrs.iter();
    endpoint.local
        || settings.node_ips.contains(&endpoint.ip)
        || ranges.any(|range| range.contains(&endpoint.ip))
}

/// The elements that are `port`'s alone.
pub(crate) fn elements(port: &PortPlan) -> Elements {
    let mut elements = Elements::new();
    for frontend in &port.frontends {
        let (by, key) = told(port, frontend);
        let target = target(port, frontend);
        let mut sets = BTreeSet::new();
        target.needs(&mut BTreeSet::new(), &mut sets);
        for set in sets {
            match set.kind {
                Kind::Endpoints(_, scope) => {
                    for (number, endpoint) in numbered(endpoints(port, scope)) {
                        let key = [key.as_slice(), &[number]].concat();
                        let datum = MapDatum::Values(endpoint.to_vec());
                        elements.insert((set, key), Some(datum));
                    }
                }
                Kind::StickyEndpoints(_, scope) => {
                    for (number, endpoint) in numbered(endpoints(port, scope)) {
                        let key = [key.as_slice(), &[number]].concat();
                        let datum = MapDatum::Values(Looked::data_of(&endpoint));
                        elements.insert((set, key), Some(datum));
                    }
                }
                Kind::Sticky(_) => {
                    let datum = MapDatum::Values(Looked::data_of(&identity(port)));
                    elements.insert((set, key.clone()), Some(datum));
                }
                // Nobody's alone, or filled by packets.
                Kind::Frontends(_) | Kind::ClusterIps | Kind::Hairpin | Kind::Affinity(_) => {}
            }
        }
        let verdict = MapDatum::Verdict(target.verdict());
        let set = Kind::Frontends(by).of(port.v6);
        elements.insert((set, key), Some(verdict));
    }
    elements
}

/// What stands for all frontends of a port in the map of affinity.
pub(super) fn identity(port: &PortPlan) -> [Value; 3] {
    [
        Value::from(port.cluster_ip),
        Value::Proto(port.name.protocol.number()),
        Value::Port(port.port),
    ]
}

/// How packets tell a frontend.
fn told(port: &PortPlan, frontend: &Frontend) -> (By, Vec<Value>) {
    let proto = Value::Proto(port.name.protocol.number());
    let number = Value::Port(frontend.port);
    match frontend.ip {
        Some(ip) => (By::Address, vec![Value::from(ip), proto, number]),
        None => (By::NodePort, vec![proto, number]),
    }
}

/// The endpoints of a scope.
pub(super) fn endpoints(port: &PortPlan, scope: Scope) -> &[Backend] {
    match scope {
        Scope::Cluster => &port.cluster,
        Scope::Local => &port.local,
    }
}

fn numbered(endpoints: &[Backend]) -> impl Iterator<Item = (Value, [Value; 2])> {
    (0..).zip(endpoints).map(|(number, endpoint)| {
        let datum = [Value::from(endpoint.ip), Value::Port(endpoint.port)];
        (Value::Mark(number), datum)
    })
}

/// Where a frontend leads: the table in the documentation of [`Frontend`].
fn target(port: &PortPlan, frontend: &Frontend) -> Target {
    let then = behind_sources(port, frontend);
    let Some(sources) = &frontend.sources else {
        return then;
    };
    let everything = |range: &IpNet| range.prefix_len() == 0;
    if sources.is_empty() {
        Target::Drop
    } else if sources.iter().any(everything) {
        then
    } else {
        let ranges = sources.clone();
        Target::from(Sources { ranges, then })
    }
}

fn behind_sources(port: &PortPlan, frontend: &Frontend) -> Target {
    if port.cluster.is_empty() {
        return Target::Reject;
    }
    let (by, _) = told(port, frontend);
    let cluster_ip = frontend.kind == FrontendKind::ClusterIp;
    let pick = |scope, mark| {
        let count = count(endpoints(port, scope));
        Target::from(Pick {
            v6: port.v6,
            by,
            scope,
            mark,
            count,
            sticky: port.affinity,
        })
    };
    match frontend.policy {
        TrafficPolicy::Cluster if cluster_ip => pick(Scope::Cluster, Mark::NotPods),
        TrafficPolicy::Cluster => pick(Scope::Cluster, Mark::Always),
        TrafficPolicy::Local if cluster_ip && port.local.is_empty() => Target::Drop,
        TrafficPolicy::Local if cluster_ip => pick(Scope::Local, Mark::NotPods),
        TrafficPolicy::Local => Target::from(Split {
            v6: port.v6,
            by,
            cluster: count(&port.cluster),
            local: count(&port.local),
            sticky: port.affinity,
        }),
    }
}

fn count(endpoints: &[Backend]) -> u32 {
    u32::try_from(endpoints.len()).unwrap_or(u32::MAX)
}
