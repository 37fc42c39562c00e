//! Which endpoints the connections to a Service's port go to, by this node's place.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Endpoint, EndpointSlice, Protocol, SlicePort};

use super::{Backend, Considered, PortPlan, Settings};

/// One endpoint of all slices, by address and port.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    backend: Backend,
    endpoint: &'a Endpoint,
}

impl Candidate<'_> {
    /// Takes the connections that are already there and, for want of ready ones, new ones.
    fn is_leaving(&self) -> bool {
        self.endpoint.serving && self.endpoint.terminating
    }
}

/// What a port leads to.
pub(super) struct Choice {
    pub(super) cluster: Vec<Backend>,
    pub(super) local: Vec<Backend>,
}

/// All endpoints of a port of slices of one family, each address and port once, sorted.
///
/// An endpoint may be in two slices while it moves, and a new pod may have the address of one
/// that is about to go: the last that is not terminating counts, otherwise the first.
pub(super) fn merge<'a>(
    settings: &Settings,
    slices: &'a [Arc<EndpointSlice>],
    name: (&str, Protocol),
    v6: bool,
) -> Vec<Candidate<'a>> {
    let mut found: Vec<Candidate<'a>> = Vec::new();
    for slice in slices.iter().filter(|slice| slice.v6 == v6) {
        let ports = slice.ports.iter().filter_map(|port| {
            let number = port.port.filter(|number| *number != 0)?;
            (named(port) == name).then_some(number)
        });
        for port in ports {
            found.reserve(slice.endpoints.len());
            let endpoints = slice.endpoints.iter();
            for endpoint in endpoints.filter(|endpoint| endpoint.ip.is_ipv6() == slice.v6) {
                let local = is_local(settings, endpoint);
                let ip = endpoint.ip;
                found.push(Candidate {
                    backend: Backend { ip, port, local },
                    endpoint,
                });
            }
        }
    }
    // Stable: equals stay in the order of the slices.
    found.sort_by_key(|candidate| (candidate.backend.ip, candidate.backend.port));
    found.dedup_by(|later, kept| {
        let same = (later.backend.ip, later.backend.port) == (kept.backend.ip, kept.backend.port);
        if same && !later.endpoint.terminating {
            *kept = *later;
        }
        same
    });
    found
}

/// The endpoints for both policies; `local` only where it is asked for.
pub(super) fn choose(
    settings: &Settings,
    candidates: &[Candidate<'_>],
    wants_local: bool,
) -> Choice {
    let hints = Hints::of(settings, candidates);
    let cluster = pick(candidates, |candidate| hints.allow(settings, candidate));
    let local = if wants_local {
        pick(candidates, |candidate| candidate.backend.local)
    } else {
        Vec::new()
    };
    Choice { cluster, local }
}

/// Those that serve, if only the connections that are already there.
pub(super) fn serving(candidates: &[Candidate<'_>]) -> Vec<Backend> {
    let serves = |each: &&Candidate<'_>| each.endpoint.ready || each.endpoint.serving;
    let serving = candidates.iter().filter(serves);
    serving.map(|each| each.backend).collect()
}

/// Each endpoint of a port, and why connections go there or not.
pub(super) fn consider(
    settings: &Settings,
    candidates: &[Candidate<'_>],
    port: &PortPlan,
) -> Vec<Considered> {
    let hints = Hints::of(settings, candidates);
    let any_ready = candidates.iter().any(|each| each.endpoint.ready);
    let why = |candidate: &Candidate<'_>| {
        if candidate.endpoint.ready {
            match hints {
                _ if hints.allow(settings, candidate) => "ready",
                Hints::Node => "ready, for other nodes by its hints",
                _ => "ready, for other zones by its hints",
            }
        } else if candidate.is_leaving() {
            if any_ready {
                "terminating, while others are ready"
            } else {
                "terminating, but it still serves and no other is ready"
            }
        } else {
            "not ready"
        }
    };
    candidates
        .iter()
        .map(|candidate| Considered {
            backend: candidate.backend,
            cluster: port.cluster.contains(&candidate.backend),
            local: port.local.contains(&candidate.backend),
            why: why(candidate),
        })
        .collect()
}

/// How many addresses on this node are ready, over all ports of the slices.
pub(super) fn ready_here(settings: &Settings, slices: &[Arc<EndpointSlice>], v6: bool) -> usize {
    let all = slices.iter().flat_map(|slice| &slice.ports);
    let names: BTreeSet<(&str, Protocol)> = all.map(named).collect();
    let ready: BTreeSet<IpAddr> = names
        .into_iter()
        .flat_map(|name| merge(settings, slices, name, v6))
        .filter(|candidate| candidate.endpoint.ready && candidate.backend.local)
        .map(|candidate| candidate.backend.ip)
        .collect();
    ready.len()
}

fn named(port: &SlicePort) -> (&str, Protocol) {
    (port.name.as_str(), port.protocol)
}

fn is_local(settings: &Settings, endpoint: &Endpoint) -> bool {
    !settings.node.is_empty() && endpoint.node.as_ref() == Some(&settings.node)
}

/// Of those that are in, the ready ones, else those that are leaving: a terminating endpoint is
/// better than none.
fn pick(candidates: &[Candidate<'_>], is_in: impl Fn(&Candidate<'_>) -> bool) -> Vec<Backend> {
    let those = |state: fn(&Candidate<'_>) -> bool| -> Vec<Backend> {
        let mut all = Vec::with_capacity(candidates.len());
        let chosen = candidates.iter().filter(|each| state(each) && is_in(each));
        all.extend(chosen.map(|candidate| candidate.backend));
        all
    };
    let ready = those(|candidate| candidate.endpoint.ready);
    if ready.is_empty() {
        those(|candidate| candidate.is_leaving())
    } else {
        ready
    }
}

/// Which hints of the endpoints hold for this node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hints {
    None,
    Node,
    Zone,
}

impl Hints {
    /// A kind of hint holds where every ready endpoint has one and one of them names this node,
    /// or its zone: a node that nobody thought of, or an endpoint that was forgotten, must not
    /// lose its traffic. Node before zone.
    fn of(settings: &Settings, candidates: &[Candidate<'_>]) -> Self {
        let ready = || candidates.iter().filter(|each| each.endpoint.ready);
        let hold = |kind: Self| {
            ready().all(|each| !kind.on(each).is_empty())
                && ready().any(|each| kind.allow(settings, each))
        };
        [Self::Node, Self::Zone]
            .into_iter()
            .find(|kind| hold(*kind))
            .unwrap_or(Self::None)
    }

    fn on<'a>(self, candidate: &Candidate<'a>) -> &'a [String] {
        match self {
            Self::None => &[],
            Self::Node => &candidate.endpoint.for_nodes,
            Self::Zone => &candidate.endpoint.for_zones,
        }
    }

    /// Leaving endpoints are not held to hints: they are asked for only where nothing is ready,
    /// and then no hint holds.
    fn allow(self, settings: &Settings, candidate: &Candidate<'_>) -> bool {
        let here = match self {
            Self::None => return true,
            Self::Node => settings.node.as_str(),
            Self::Zone => settings.zone.as_deref().unwrap_or_default(),
        };
        self.on(candidate).iter().any(|name| name == here)
    }
}
