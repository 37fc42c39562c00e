//! Chains that Services share: each stands for what is to be done, and for how many endpoints.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use ipnet::IpNet;
use nft::{
    Chain, IpFamily, Key, Looked, MapTarget, NatKind, NatTo, Rule, Statement, Type, Update, Verdict,
};
use sha2::{Digest, Sha256};

use super::base::{self, DROP, REJECT};
use super::set::{By, Kind, Scope, SetId};
use crate::explain::Origin;
use crate::plan::Settings;

/// When the source of a connection becomes the node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    /// As for a ClusterIP: where the source is no pod.
    NotPods,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Chooses an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pick {
    /// Of IPv6 packets.
    pub v6: bool,
    /// How the frontend is told.
    pub by: By,
    /// Among which.
    pub scope: Scope,
    /// Masquerade.
    pub mark: Mark,
    /// Among how many.
    pub count: u32,
    /// For how many seconds a client keeps its endpoint.
    pub sticky: Option<u32>,
}

/// An external frontend of policy Local: clients outside get an endpoint of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Split {
    /// Of IPv6 packets.
    pub v6: bool,
    /// How the frontend is told.
    pub by: By,
    /// How many endpoints there are for this node and its pods.
    pub cluster: u32,
    /// How many for the others.
    pub local: u32,
    /// For how many seconds a client keeps its endpoint.
    pub sticky: Option<u32>,
}

/// Lets only some sources in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sources {
    /// Which.
    pub ranges: Vec<IpNet>,
    /// And then.
    pub then: Target,
}

/// Where a frontend leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// The sender is told that nobody is there.
    Reject,
    /// The sender hears nothing.
    Drop,
    /// To a chain.
    Chain(Box<ChainId>),
}

/// A chain that Services share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ChainId {
    /// Chooses an endpoint.
    Pick(Pick),
    /// Chooses among which.
    Split(Split),
    /// Lets some sources in.
    Sources(Sources),
}

impl From<Pick> for Target {
    fn from(pick: Pick) -> Self {
        Self::Chain(Box::new(ChainId::Pick(pick)))
    }
}

impl From<Split> for Target {
    fn from(split: Split) -> Self {
        Self::Chain(Box::new(ChainId::Split(split)))
    }
}

impl From<Sources> for Target {
    fn from(sources: Sources) -> Self {
        Self::Chain(Box::new(ChainId::Sources(sources)))
    }
}

impl Target {
    /// As the verdict of a rule or element.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Reject => Verdict::Goto(REJECT.to_owned()),
            Self::Drop => Verdict::Drop,
            Self::Chain(chain) => Verdict::Goto(chain.to_string()),
        }
    }

    /// Names of the chains and maps on the way of a connection.
    pub fn way(&self, origin: Origin) -> Vec<String> {
        let chain = match self {
            Self::Reject => return vec![REJECT.to_owned()],
            Self::Drop => return vec!["drop".to_owned()],
            Self::Chain(chain) => chain.as_ref(),
        };
        let mut way = vec![chain.to_string()];
        match chain {
            ChainId::Pick(pick) => {
                let mut kinds = vec![Kind::Endpoints(pick.by, pick.scope)];
                if pick.sticky.is_some() {
                    kinds = vec![
                        Kind::StickyEndpoints(pick.by, pick.scope),
                        Kind::Affinity(pick.scope),
                    ];
                }
                way.extend(kinds.iter().map(|kind| format!("@{}", kind.of(pick.v6))));
            }
            ChainId::Split(split) => {
                let pick = match origin {
                    Origin::Pod => Some(split.pods()),
                    Origin::Node => Some(split.node()),
                    Origin::Elsewhere => split.outside(),
                };
                way.extend(pick.map_or(Self::Drop, Self::from).way(origin));
            }
            ChainId::Sources(sources) => way.extend(sources.then.way(origin)),
        }
        way
    }

    /// Adds all chains and sets on the way to the endpoints.
    pub fn needs(&self, chains: &mut BTreeSet<ChainId>, sets: &mut BTreeSet<SetId>) {
        let Self::Chain(chain) = self else {
            return;
        };
        match chain.as_ref() {
            ChainId::Pick(pick) => {
                sets.extend(pick.sets());
                if let Some(first) = pick.first() {
                    Self::from(first).needs(chains, sets);
                }
            }
            ChainId::Split(split) => {
                for pick in split.picks() {
                    Self::from(pick).needs(chains, sets);
                }
            }
            ChainId::Sources(sources) => sources.then.needs(chains, sets),
        }
        chains.insert(chain.as_ref().clone());
    }
}

impl ChainId {
    /// Whether it chooses among which endpoints.
    pub fn is_split(&self) -> bool {
        matches!(self, Self::Split(_))
    }

    /// The chain with its rules.
    pub fn chain(&self, settings: &Settings) -> Chain {
        let rules = match self {
            Self::Pick(pick) => pick.rules(settings),
            Self::Split(split) => split.rules(settings),
            Self::Sources(sources) => sources.rules(),
        };
        Chain { base: None, rules }
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("services-")?;
        let (v6, sticky) = match self {
            Self::Pick(Pick { v6, sticky, .. }) | Self::Split(Split { v6, sticky, .. }) => {
                (if *v6 { "6" } else { "" }, *sticky)
            }
            Self::Sources(sources) => return write!(f, "sources-{}", sources.hash()),
        };
        match self {
            Self::Pick(pick) => write!(f, "{}{v6}-{}", pick.word(), pick.count)?,
            Self::Split(split) => {
                let (cluster, local) = (split.cluster, split.local);
                let word = external(split.by);
                write!(f, "{word}{v6}-{cluster}-local-{local}")?;
            }
            Self::Sources(_) => {}
        }
        match sticky {
            Some(timeout) => write!(f, "-sticky-{timeout}"),
            None => Ok(()),
        }
    }
}

fn external(by: By) -> &'static str {
    match by {
        By::Address => "external",
        By::NodePort => "nodeport",
    }
}

fn family(v6: bool) -> IpFamily {
    if v6 { IpFamily::V6 } else { IpFamily::V4 }
}

impl Pick {
    /// The same among another number.
    pub fn of(self, count: u32) -> Self {
        Self { count, ..self }
    }

    fn word(&self) -> &'static str {
        match (self.by, self.scope, self.mark) {
            (_, Scope::Cluster, Mark::NotPods) => "internal",
            (_, Scope::Local, Mark::NotPods) => "internal-local",
            (by, _, Mark::Always) => external(by),
            (By::Address, Scope::Cluster, Mark::Never) => "plain",
            (By::Address, Scope::Local, Mark::Never) => "local",
            (By::NodePort, Scope::Cluster, Mark::Never) => "nodeport-plain",
            (By::NodePort, Scope::Local, Mark::Never) => "nodeport-local",
        }
    }

    /// Whether the frontend is the port's ClusterIP, which stands for all in the map of affinity.
    fn is_identity(&self) -> bool {
        self.mark == Mark::NotPods
    }

    /// Where a connection goes whose endpoint went away while it was chosen: to the first. A new
    /// rule that names a map has the kernel walk the map, so one chain does it for all.
    fn first(&self) -> Option<Self> {
        let first = Self {
            mark: Mark::Never,
            count: 1,
            sticky: None,
            ..*self
        };
        (first != *self).then_some(first)
    }

    fn sets(&self) -> Vec<SetId> {
        let mut kinds = vec![Kind::Endpoints(self.by, self.scope)];
        if self.sticky.is_some() {
            kinds.push(Kind::StickyEndpoints(self.by, self.scope));
            kinds.push(Kind::Affinity(self.scope));
            if !self.is_identity() {
                kinds.push(Kind::Sticky(self.by));
            }
        }
        kinds.into_iter().map(|kind| kind.of(self.v6)).collect()
    }

    /// What tells the frontend.
    fn frontend(&self) -> Vec<Key> {
        let port = [Key::L4Proto, Key::ThDport];
        match self.by {
            By::Address => [&[Key::Daddr(family(self.v6))], port.as_slice()].concat(),
            By::NodePort => port.to_vec(),
        }
    }

    fn rules(&self, settings: &Settings) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mark = Statement::SetMarkBits(settings.masquerade_mark);
        match self.mark {
            Mark::Never => {}
            Mark::NotPods if !settings.masquerade_all => {
                rules.extend(base::not_a_pod(&settings.local, self.v6).map(|mut tests| {
                    tests.push(mark);
                    Rule::new(tests).comment("no pod: the answer must come back this way")
                }));
            }
            Mark::NotPods | Mark::Always => rules.push(Rule::new([mark])),
        }
        if let Some(timeout) = self.sticky {
            rules.extend(self.stick(timeout));
        }
        let endpoints = Kind::Endpoints(self.by, self.scope);
        if self.count > 1 || self.first().is_none() {
            rules.push(self.dnat(self.numbered(self.count), endpoints));
        }
        rules.push(match self.first() {
            Some(first) => {
                let first = Rule::new([Statement::Verdict(Target::from(first).verdict())]);
                if self.count > 1 {
                    first.comment("the chosen one went away meanwhile")
                } else {
                    first
                }
            }
            None => Rule::new([Statement::Verdict(Target::Reject.verdict())])
                .comment("all went away meanwhile"),
        });
        rules
    }

    fn numbered(&self, count: u32) -> Vec<Key> {
        [self.frontend(), vec![Key::Random(count)]].concat()
    }

    fn dnat(&self, keys: Vec<Key>, map: Kind) -> Rule {
        Rule::new([Statement::Nat {
            kind: NatKind::Dnat,
            family: family(self.v6),
            to: NatTo::Map(MapTarget {
                keys,
                map: map.of(self.v6).to_string(),
                with_port: true,
            }),
        }])
    }

    /// A client gets the endpoint it had, or remembers a new one.
    fn stick(&self, timeout: u32) -> [Rule; 2] {
        let ip = if self.v6 { Type::Ipv6 } else { Type::Ipv4 };
        let identity = if self.is_identity() {
            self.frontend()
        } else {
            vec![Key::Looked(Looked {
                keys: self.frontend(),
                map: Kind::Sticky(self.by).of(self.v6).to_string(),
                data: vec![ip, Type::Proto, Type::Port],
            })]
        };
        let client = [vec![Key::Saddr(family(self.v6))], identity].concat();
        let endpoint = Looked {
            keys: self.numbered(self.count),
            map: Kind::StickyEndpoints(self.by, self.scope)
                .of(self.v6)
                .to_string(),
            data: vec![ip, Type::Port],
        };
        let affinity = Kind::Affinity(self.scope);
        let update = Statement::Update(Update {
            set: affinity.of(self.v6).to_string(),
            key: client.clone(),
            data: vec![Key::Looked(endpoint)],
            timeout: Duration::from_secs(timeout.into()),
        });
        [
            Rule::new([update]).comment("a client keeps its endpoint"),
            self.dnat(client, affinity),
        ]
    }
}

impl Split {
    /// For this node's pods, which reach any endpoint with their own address.
    fn pods(&self) -> Pick {
        Pick {
            v6: self.v6,
            by: self.by,
            scope: Scope::Cluster,
            mark: Mark::Never,
            count: self.cluster,
            sticky: self.sticky,
        }
    }

    /// For this node, whose address may be the Service's own.
    fn node(&self) -> Pick {
        Pick {
            mark: Mark::Always,
            ..self.pods()
        }
    }

    /// For everybody else; none where this node has no endpoint.
    fn outside(&self) -> Option<Pick> {
        (self.local > 0).then_some(Pick {
            scope: Scope::Local,
            count: self.local,
            ..self.pods()
        })
    }

    fn picks(&self) -> impl Iterator<Item = Pick> {
        [self.pods(), self.node()].into_iter().chain(self.outside())
    }

    fn rules(&self, settings: &Settings) -> Vec<Rule> {
        let to = |pick: Pick| Statement::Verdict(Target::from(pick).verdict());
        let mut rules: Vec<Rule> = base::a_pod(&settings.own_pods, self.v6)
            .map(|tests| Rule::new([tests, vec![to(self.pods())]].concat()))
            .map(|rule| rule.comment("a pod of this node"))
            .collect();
        let local = Rule::new([Statement::SaddrIsLocal, to(self.node())]);
        rules.push(local.comment("this node"));
        rules.push(match self.outside() {
            Some(pick) => Rule::new([to(pick)]),
            None => Rule::new([DROP]).comment("this node has none of the endpoints"),
        });
        rules
    }
}

impl Sources {
    fn rules(&self) -> Vec<Rule> {
        let mut rules: Vec<Rule> = self
            .ranges
            .iter()
            .map(|range| {
                let source = Key::Saddr(family(range.addr().is_ipv6()));
                let let_in = Statement::Verdict(self.then.verdict());
                let tests = base::within(source, *range);
                Rule::new([tests, vec![let_in]].concat())
            })
            .collect();
        rules.push(Rule::new([DROP]).comment("loadBalancerSourceRanges"));
        rules
    }

    fn hash(&self) -> String {
        let text = format!("{:?} {:?}", self.ranges, self.then.verdict());
        let hash = Sha256::digest(text);
        hash.iter()
            .take(5)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
