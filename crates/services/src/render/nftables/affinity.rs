//! Which clients are to be forgotten: their endpoint no longer serves them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::Protocol;
use nft::wire::read::DynamicElement;
use nft::{Datum, ElementKey};

use super::port::endpoints;
use super::set::{Kind, Scope, SetId};
use crate::plan::{Backend, Plan, PortChange, PortPlan};

/// The maps in which packets note their endpoints.
pub(crate) fn maps() -> impl Iterator<Item = SetId> {
    [false, true]
        .into_iter()
        .flat_map(|v6| [Scope::Cluster, Scope::Local].map(|scope| Kind::Affinity(scope).of(v6)))
}

/// Those of these maps where a change leaves something stale.
pub(crate) fn concerned(ports: &[PortChange]) -> BTreeSet<SetId> {
    let mut concerned = BTreeSet::new();
    for change in ports {
        let Some(was) = change.was.as_ref().filter(|was| was.affinity.is_some()) else {
            continue;
        };
        let is = change.is.as_ref().filter(|is| is.affinity.is_some());
        for scope in [Scope::Cluster, Scope::Local] {
            let serves =
                |endpoint: &Backend| is.is_some_and(|is| endpoints(is, scope).contains(endpoint));
            if !endpoints(was, scope).iter().all(serves) {
                concerned.insert(Kind::Affinity(scope).of(was.v6));
            }
        }
    }
    concerned
}

/// The clients in such a map whose endpoint no longer serves them.
pub(crate) fn stale(plan: &Plan, map: SetId, elements: Vec<DynamicElement>) -> Vec<ElementKey> {
    elements
        .into_iter()
        .filter(|element| serves(plan, map, element) != Some(true))
        .map(|element| element.key)
        .collect()
}

/// Whether the endpoint serves; nothing where the element is none of ours.
fn serves(plan: &Plan, map: SetId, element: &DynamicElement) -> Option<bool> {
    let Kind::Affinity(scope) = map.kind else {
        return None;
    };
    let Some(Datum::Bytes(data)) = &element.data else {
        return None;
    };
    let len = if map.v6 { 16 } else { 4 };
    // Client, ClusterIP, protocol, port, each in whole words of four bytes.
    let identity = element.key.key.get(len..)?;
    let cluster_ip = address(identity.get(..len)?)?;
    let [number, _, _, _, high, low, ..] = *identity.get(len..)? else {
        return None;
    };
    let protocol = Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.number() == number)?;
    let (port, _) = plan.at(cluster_ip, protocol, u16::from_be_bytes([high, low]))?;
    let ip = address(data.get(..len)?)?;
    let [high, low, ..] = *data.get(len..)? else {
        return None;
    };
    Some(is_served(port, scope, ip, u16::from_be_bytes([high, low])))
}

fn is_served(port: &PortPlan, scope: Scope, ip: IpAddr, number: u16) -> bool {
    let mut endpoints = endpoints(port, scope).iter();
    port.affinity.is_some() && endpoints.any(|each| (each.ip, each.port) == (ip, number))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}
