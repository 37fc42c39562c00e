//! What the node's pods may do: for each of their addresses and both directions an ordered list
//! of rules over sets of peers and ports.
//!
//! ```text
//! policies ──draft──▶ matches over sets ──list──▶ lists, each once ◀── address, direction
//! pods, namespaces, nodes ──▶ elements of the sets
//! ```
//!
//! Lists and sets are named by what they say and hold: pods with the same rules share a list, and
//! rules with the same selector a set. What changes costs by the size of the change: a pod that
//! changes is compared with the sets that it may be in, a policy that changes has the pods here
//! that it selects judged anew.

mod attached;
mod blocks;
mod digest;
mod draft;
mod judge;
mod list;
mod lists;
mod ports;
mod resolver;
mod set;
mod sets;
mod update;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Changed, Cluster, Key};

use self::attached::{Attached, World};
pub use self::judge::{DIRECTIONS, Targets};
pub use self::list::{List, ListId, Match, PortTest, Rule, Target};
use self::lists::Lists;
pub use self::ports::{PortRange, Ports};
use self::resolver::Resolver;
pub use self::resolver::{Mute, NodeDns, PORT as DNS_PORT, PROTOCOLS as DNS_PROTOCOLS};
pub use self::set::{Element, Pods, Scope, Set, SetId, What};
use self::sets::Sets;
pub use self::sets::{Live, Moved};
pub use self::update::Delta;

/// A pod that is attached here: its addresses are known before the cluster hears of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Namespace and name.
    pub pod: Key,
    /// `metadata.uid`, empty where the runtime did not say.
    pub uid: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// The pods attached to this node, by the container that holds them (CNI container and link).
pub type Locals = BTreeMap<(String, String), Local>;

/// Of an address that no policy is about.
pub const OPEN: Targets = [Target::Allowed, Target::Allowed];

/// What the policies say about the pods of one node.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    node: String,
    /// The cluster as it was at the last update.
    cluster: Cluster,
    attached: Attached,
    /// Addresses that some policy is about.
    subjects: BTreeMap<IpAddr, Targets>,
    lists: Lists,
    sets: Sets,
    resolver: Resolver,
}

impl Plan {
    /// Of the node called `node`, which has no pods yet.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            ..Self::default()
        }
    }

    /// Of a cluster and the pods that are here.
    pub fn of(node: impl Into<String>, cluster: &Cluster, locals: &Locals) -> Self {
        let mut plan = Self::new(node);
        plan.update(cluster, &Changed::default(), locals);
        plan
    }

    /// What becomes of the connections of each address that some policy is about.
    pub fn subjects(&self) -> &BTreeMap<IpAddr, Targets> {
        &self.subjects
    }

    /// The pod that is attached here with an address.
    pub fn pod_at(&self, ip: IpAddr) -> Option<&Key> {
        self.attached.at(ip).map(|local| &local.pod)
    }

    /// Where this node answers questions for names itself, from the next update on; true where
    /// that is news.
    pub fn set_resolver(&mut self, addresses: NodeDns) -> bool {
        self.resolver.set(addresses)
    }

    /// Where that is.
    pub fn resolver(&self) -> &[IpAddr] {
        self.resolver.addresses()
    }

    /// Who may not ask there, though it is a pod here.
    pub fn mute(&self) -> &BTreeMap<IpAddr, Mute> {
        self.resolver.mute()
    }

    /// Whether a change of a Service, or of its endpoints, may change who may ask.
    pub fn asks(&self, cluster: &Cluster, service: &Key) -> bool {
        self.resolver.is_asked(cluster, service)
    }

    /// The lists that are used, each once.
    pub fn lists(&self) -> impl ExactSizeIterator<Item = &Arc<List>> {
        self.lists.all()
    }

    /// The sets that are used, with their elements.
    pub fn sets(&self) -> &BTreeMap<SetId, Live> {
        self.sets.live()
    }

    /// How many elements all sets have.
    pub fn elements(&self) -> usize {
        self.sets.elements()
    }

    fn world(&self) -> World<'_> {
        World {
            cluster: &self.cluster,
            attached: &self.attached,
            node: &self.node,
        }
    }
}
