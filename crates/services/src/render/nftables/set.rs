//! The sets and maps by name.

use std::fmt;

use nft::{Looked, Set, SetData, Type};

/// So many clients are remembered for all Services with affinity together: some 40 MB. More are
/// served all the same, each connection by itself.
const MOST_CLIENTS: u32 = 1 << 18;

/// How a frontend is told by a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    /// By destination address, protocol and port.
    Address,
    /// By protocol and port, at this node's addresses.
    NodePort,
}

/// Which of a port's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Those of the Cluster policy.
    Cluster,
    /// Those of the Local policy.
    Local,
}

/// What a set or map holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Where connections to a frontend go.
    Frontends(By),
    /// Addresses of which every port is a Service's or refused.
    ClusterIps,
    /// Endpoints that may reach themselves, each twice: from itself to itself.
    Hairpin,
    /// Endpoints by their number.
    Endpoints(By, Scope),
    /// The same for new entries of [`Kind::Affinity`].
    StickyEndpoints(By, Scope),
    /// What stands for all frontends of a port in [`Kind::Affinity`]: that of its ClusterIP.
    Sticky(By),
    /// Which endpoint a client was given.
    Affinity(Scope),
}

/// A set or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SetId {
    /// Of IPv6 packets.
    pub v6: bool,
    /// What it holds.
    pub kind: Kind,
}

impl Kind {
    /// The set of this kind for a family.
    pub fn of(self, v6: bool) -> SetId {
        SetId { v6, kind: self }
    }
}

impl SetId {
    /// Those that are there whatever Services there are, for a family.
    pub fn always(v6: bool) -> [Self; 4] {
        [
            Kind::Frontends(By::Address),
            Kind::Frontends(By::NodePort),
            Kind::ClusterIps,
            Kind::Hairpin,
        ]
        .map(|kind| kind.of(v6))
    }

    /// Its definition, without elements.
    pub fn definition(self) -> Set {
        let ip = if self.v6 { Type::Ipv6 } else { Type::Ipv4 };
        let frontend = |by| match by {
            By::Address => vec![ip, Type::Proto, Type::Port],
            By::NodePort => vec![Type::Proto, Type::Port],
        };
        let numbered = |by| [frontend(by), vec![Type::Mark]].concat();
        match self.kind {
            Kind::Frontends(by) => Set::map(frontend(by), SetData::Verdict),
            Kind::ClusterIps => Set::of([ip]),
            Kind::Hairpin => Set::of([ip, ip]),
            Kind::Endpoints(by, _) => Set::map(numbered(by), SetData::Values(vec![ip, Type::Port])),
            Kind::StickyEndpoints(by, _) => Looked::map_of(numbered(by), &[ip, Type::Port]),
            Kind::Sticky(by) => Looked::map_of(frontend(by), &[ip, Type::Proto, Type::Port]),
            Kind::Affinity(_) => Set {
                size: Some(MOST_CLIENTS),
                dynamic: true,
                ..Set::map(
                    [ip, ip, Type::Proto, Type::Port],
                    SetData::Values(vec![ip, Type::Port]),
                )
            },
        }
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("services-")?;
        f.write_str(match self.kind {
            Kind::Frontends(By::Address) => "ips",
            Kind::Frontends(By::NodePort) => "nodeports",
            Kind::ClusterIps => "cluster-ips",
            Kind::Hairpin => "hairpin",
            Kind::Endpoints(By::Address, Scope::Cluster) => "endpoints",
            Kind::Endpoints(By::Address, Scope::Local) => "local-endpoints",
            Kind::Endpoints(By::NodePort, Scope::Cluster) => "nodeport-endpoints",
            Kind::Endpoints(By::NodePort, Scope::Local) => "nodeport-local-endpoints",
            Kind::StickyEndpoints(By::Address, Scope::Cluster) => "sticky-endpoints",
            Kind::StickyEndpoints(By::Address, Scope::Local) => "sticky-local-endpoints",
            Kind::StickyEndpoints(By::NodePort, Scope::Cluster) => "sticky-nodeport-endpoints",
            Kind::StickyEndpoints(By::NodePort, Scope::Local) => "sticky-nodeport-local-endpoints",
            Kind::Sticky(By::Address) => "sticky-ips",
            Kind::Sticky(By::NodePort) => "sticky-nodeports",
            Kind::Affinity(Scope::Cluster) => "affinity",
            Kind::Affinity(Scope::Local) => "local-affinity",
        })?;
        f.write_str(if self.v6 { "6" } else { "" })
    }
}
