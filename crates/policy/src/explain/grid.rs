//! What is open between all ends of a cluster at once. Ends that no policy tells apart are one
//! class, and rules are asked about classes, not about pairs of pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use model::policy::{Action, Namespaces, Peer, PortNumbers, Rule, Tier};
use model::{Cluster, ContainerPort, Direction, LabelSelector, Pod, Protocol};

use super::portset::PortSet;
use super::{End, judge};

/// An end of connections.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// What it is called.
    pub name: String,
    /// Which kind.
    pub kind: Kind,
    /// Its address, and whose it is; of no node, so that no pod takes it for its own.
    pub end: End,
}

/// Kinds of ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Pod,
    Node,
    Outside,
}

/// Sets of ports by small numbers.
#[derive(Debug)]
pub(super) struct Sets {
    all: Vec<PortSet>,
    numbers: HashMap<PortSet, u32>,
    /// What two of them have in common.
    common: HashMap<(u32, u32), u32>,
}

/// The number of the set of everything.
const ALL: u32 = 0;

impl Sets {
    pub(super) fn new() -> Self {
        Self {
            all: vec![PortSet::all()],
            numbers: HashMap::from([(PortSet::all(), ALL)]),
            common: HashMap::new(),
        }
    }

    pub(super) fn get(&self, number: u32) -> &PortSet {
        &self.all[number as usize]
    }

    fn number(&mut self, set: PortSet) -> u32 {
        if let Some(known) = self.numbers.get(&set) {
            return *known;
        }
        let number = self.all.len() as u32;
        self.all.push(set.clone());
        self.numbers.insert(set, number);
        number
    }

    fn both(&mut self, a: u32, b: u32) -> u32 {
        if a == b || b == ALL {
            return a;
        }
        if a == ALL {
            return b;
        }
        if let Some(known) = self.common.get(&(a, b)) {
            return *known;
        }
        let set = self.get(a).and(self.get(b));
        let number = self.number(set);
        self.common.insert((a, b), number);
        number
    }
}

/// What no policy tells apart: by what it is, and by all that a policy of any of these clusters
/// asks about it. Classes are lists of indices into `points`, in the order of their first.
pub(super) fn classes(clusters: &[&Cluster], points: &[Point]) -> Vec<Vec<usize>> {
    let asked: Vec<Asked<'_>> = clusters.iter().map(|one| Asked::by(one)).collect();
    let mut known: HashMap<Vec<String>, usize> = HashMap::new();
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for (index, point) in points.iter().enumerate() {
        let mut signature = vec![format!("{:?}", point.kind)];
        for (cluster, asked) in clusters.iter().zip(&asked) {
            asked.sign(cluster, &point.end, &mut signature);
        }
        let class = *known.entry(signature).or_insert(classes.len());
        match classes.get_mut(class) {
            Some(class) => class.push(index),
            None => classes.push(vec![index]),
        }
    }
    classes
}

/// What a cluster's policies ask about ends.
struct Asked<'a> {
    labels: BTreeSet<&'a str>,
    blocks: Vec<&'a Peer>,
    nodes: bool,
}

impl<'a> Asked<'a> {
    fn by(cluster: &'a Cluster) -> Self {
        let mut labels = BTreeSet::new();
        let mut blocks = BTreeSet::new();
        let mut nodes = false;
        let mut take = |selector: &'a LabelSelector| {
            labels.extend(selector.match_labels.iter().map(|(key, _)| key));
            let further = selector.match_expressions.iter();
            labels.extend(further.map(|one| one.key.as_str()));
        };
        for policy in cluster.policies.values() {
            take(&policy.pods);
        }
        for policy in cluster.cluster_policies.values() {
            take(&policy.pods);
        }
        for peer in all_rules(cluster).flat_map(|rule| rule.peers.iter().flatten()) {
            match peer {
                Peer::Pods { pods, .. } => take(pods),
                Peer::Block { .. } => {
                    blocks.insert(peer);
                }
                Peer::Nodes(_) => nodes = true,
            }
        }
        Self {
            labels,
            blocks: blocks.into_iter().collect(),
            nodes,
        }
    }

    fn sign(&self, cluster: &Cluster, end: &End, signature: &mut Vec<String>) {
        let fits = |peer: &&Peer| judge::is_peer(cluster, peer, "", end);
        let blocks = self
            .blocks
            .iter()
            .map(|peer| if fits(peer) { '1' } else { '0' });
        signature.push(blocks.collect());
        if let Some(node) = end.node.as_ref().filter(|_| self.nodes) {
            signature.push(node.clone());
        }
        let Some(pod) = pod_of(cluster, end) else {
            signature.push("-".into());
            return;
        };
        signature.push(pod.namespace.clone());
        let labels = pod
            .labels
            .iter()
            .filter(|(key, _)| self.labels.contains(key));
        signature.push(
            labels
                .map(|(key, value)| format!("{key}={value},"))
                .collect(),
        );
        let ports = pod.ports.iter();
        signature.push(
            ports
                .map(|p| format!("{}/{}/{},", p.name, p.protocol, p.port))
                .collect(),
        );
    }
}

/// All rules of all policies.
pub(super) fn all_rules(cluster: &Cluster) -> impl Iterator<Item = &Rule> {
    let own = cluster.policies.values().flat_map(|policy| {
        let rules = Direction::ALL.map(|direction| policy.rules(direction).unwrap_or_default());
        rules.into_iter().flatten()
    });
    let above = cluster.cluster_policies.values().flat_map(|policy| {
        let rules = Direction::ALL.map(|direction| policy.rules(direction));
        rules.into_iter().flatten().map(|rule| &rule.rule)
    });
    own.chain(above)
}

fn pod_of<'a>(cluster: &'a Cluster, end: &End) -> Option<&'a Pod> {
    cluster.pods.get(end.pod.as_ref()?).map(|pod| &**pod)
}

/// The number of the set of ports that is open from each of these ends to each: that from `a` to
/// `b` at `a * ends.len() + b`. An end to itself stands for one to another of its class.
pub(super) fn grid(cluster: &Cluster, ends: &[&End], sets: &mut Sets) -> Vec<u32> {
    let count = ends.len();
    let mut asker = Asker::new(cluster, ends);
    let mut grid = vec![ALL; count * count];
    for direction in Direction::ALL {
        for (index, end) in ends.iter().enumerate() {
            let Some(pod) = pod_of(cluster, end) else {
                continue;
            };
            let stages = Stages::of(cluster, pod, direction);
            if stages.is_nothing() {
                continue;
            }
            for (other, set) in asker.open(&stages, pod, direction) {
                let number = sets.number(set);
                for other in other {
                    let at = match direction {
                        Direction::Egress => index * count + other,
                        Direction::Ingress => other * count + index,
                    };
                    grid[at] = sets.both(grid[at], number);
                }
            }
        }
    }
    grid
}

/// The rules that judge a pod, in the order of the tiers.
struct Stages<'a> {
    admin: Vec<(Action, &'a Rule)>,
    /// Of the NetworkPolicies that are about the pod; none where there is no such.
    own: Option<Vec<&'a Rule>>,
    baseline: Vec<(Action, &'a Rule)>,
}

impl<'a> Stages<'a> {
    fn of(cluster: &'a Cluster, pod: &'a Pod, direction: Direction) -> Self {
        let of_tier = |tier| {
            let all = judge::in_order(cluster, tier).into_iter();
            let ours = all.filter(|policy| judge::is_subject(cluster, policy, pod));
            let rules = ours.flat_map(|policy| policy.rules(direction));
            rules.map(|rule| (rule.action, &rule.rule)).collect()
        };
        let mut own = None;
        for policy in judge::selecting(cluster, pod) {
            if let Some(rules) = policy.rules(direction) {
                own.get_or_insert_with(Vec::new).extend(rules);
            }
        }
        Self {
            admin: of_tier(Tier::Admin),
            own,
            baseline: of_tier(Tier::Baseline),
        }
    }

    fn is_nothing(&self) -> bool {
        self.admin.is_empty() && self.own.is_none() && self.baseline.is_empty()
    }

    /// All rules with the namespace that their own peers are of.
    fn rules(&self, namespace: &'a str) -> Vec<(&'a Rule, &'a str)> {
        let above = |rules: &[(Action, &'a Rule)]| -> Vec<(&'a Rule, &'a str)> {
            rules.iter().map(|(_, rule)| (*rule, "")).collect()
        };
        let own = self.own.iter().flatten().map(|rule| (*rule, namespace));
        let mut all = above(&self.admin);
        all.extend(own);
        all.extend(above(&self.baseline));
        all
    }

    /// What they let through; `matched` says of each, in their order, which ports it matches.
    fn open(&self, matched: &[PortSet]) -> PortSet {
        let (admin, rest) = matched.split_at(self.admin.len());
        let (own, baseline) = rest.split_at(self.own.as_ref().map_or(0, Vec::len));
        let (mut open, left) = tier(&self.admin, admin, PortSet::all());
        if self.own.is_some() {
            let allowed = own.iter().fold(PortSet::default(), |all, one| all.or(one));
            return open.or(&left.and(&allowed));
        }
        let (accepted, left) = tier(&self.baseline, baseline, left);
        open = open.or(&accepted);
        open.or(&left)
    }
}

/// What a tier accepts of what it is asked about, and what it leaves to the next.
fn tier(rules: &[(Action, &Rule)], matched: &[PortSet], asked: PortSet) -> (PortSet, PortSet) {
    let (mut accepted, mut passed, mut left) = (PortSet::default(), PortSet::default(), asked);
    for ((action, _), ports) in rules.iter().zip(matched) {
        let taken = left.and(ports);
        left = left.without(&taken);
        match action {
            Action::Accept => accepted = accepted.or(&taken),
            Action::Pass => passed = passed.or(&taken),
            Action::Deny => {}
        }
    }
    (accepted, left.or(&passed))
}

/// Which ends are a peer.
type Members = Arc<Vec<bool>>;

/// Asks rules about all ends at once.
struct Asker<'a> {
    cluster: &'a Cluster,
    ends: &'a [&'a End],
    by_namespace: BTreeMap<&'a str, Vec<usize>>,
    known: HashMap<(&'a Peer, &'a str), Members>,
}

impl<'a> Asker<'a> {
    fn new(cluster: &'a Cluster, ends: &'a [&'a End]) -> Self {
        let mut by_namespace: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, end) in ends.iter().enumerate() {
            if let Some((namespace, _)) = &end.pod {
                by_namespace.entry(namespace).or_default().push(index);
            }
        }
        Self {
            cluster,
            ends,
            by_namespace,
            known: HashMap::new(),
        }
    }

    /// What a pod's rules open from or to whom: ends in groups with the same set of ports.
    fn open(
        &mut self,
        stages: &Stages<'a>,
        pod: &'a Pod,
        direction: Direction,
    ) -> Vec<(Vec<usize>, PortSet)> {
        let rules = stages.rules(&pod.namespace);
        let mut parts: Vec<(Vec<usize>, Vec<bool>)> =
            vec![((0..self.ends.len()).collect(), vec![])];
        for (rule, namespace) in &rules {
            let fits = self.fits(rule, namespace);
            let old = std::mem::take(&mut parts);
            for (members, matched) in old {
                let (yes, no): (Vec<usize>, Vec<usize>) = match &fits {
                    Some(fits) => members
                        .into_iter()
                        .partition(|at| fits.iter().any(|peer| peer[*at])),
                    None => (members, Vec::new()),
                };
                for (part, fits) in [(yes, true), (no, false)] {
                    if !part.is_empty() {
                        let mut matched = matched.clone();
                        matched.push(fits);
                        parts.push((part, matched));
                    }
                }
            }
        }
        let open = |matched: &[bool], server: Option<&Pod>| {
            let ports = rules
                .iter()
                .zip(matched)
                .map(|((rule, _), fits)| match fits {
                    true => ports_of(rule, server),
                    false => PortSet::default(),
                });
            stages.open(&ports.collect::<Vec<_>>())
        };
        let mut groups = Vec::new();
        for (members, matched) in parts {
            let named = rules
                .iter()
                .zip(&matched)
                .any(|((rule, _), fits)| *fits && names(rule));
            match direction {
                Direction::Ingress => groups.push((members, open(&matched, Some(pod)))),
                Direction::Egress if !named => groups.push((members, open(&matched, None))),
                // Names are those of each destination.
                Direction::Egress => groups.extend(members.into_iter().map(|at| {
                    let server = pod_of(self.cluster, self.ends[at]);
                    (vec![at], open(&matched, server))
                })),
            }
        }
        groups
    }

    /// Who is a peer of a rule: the peers one by one; nothing where it is about everybody.
    fn fits(&mut self, rule: &'a Rule, namespace: &'a str) -> Option<Vec<Members>> {
        let peers = rule.peers.as_ref()?;
        Some(
            peers
                .iter()
                .map(|peer| self.members(peer, namespace))
                .collect(),
        )
    }

    fn members(&mut self, peer: &'a Peer, namespace: &'a str) -> Members {
        let own = matches!(
            peer,
            Peer::Pods {
                namespaces: Namespaces::Own,
                ..
            }
        );
        let namespace = if own { namespace } else { "" };
        if let Some(known) = self.known.get(&(peer, namespace)) {
            return Arc::clone(known);
        }
        let mut members = vec![false; self.ends.len()];
        let mut ask = |at: usize| {
            members[at] = judge::is_peer(self.cluster, peer, namespace, self.ends[at]);
        };
        match peer {
            Peer::Pods {
                namespaces: Namespaces::Own,
                ..
            } => {
                let ours = self.by_namespace.get(namespace);
                ours.into_iter().flatten().for_each(|at| ask(*at));
            }
            Peer::Pods {
                namespaces: Namespaces::Selected(selector),
                ..
            } => {
                for (name, pods) in &self.by_namespace {
                    if judge::in_namespace(self.cluster, selector, name) {
                        pods.iter().for_each(|at| ask(*at));
                    }
                }
            }
            Peer::Block { .. } | Peer::Nodes(_) => (0..self.ends.len()).for_each(ask),
        }
        let members = Arc::new(members);
        self.known.insert((peer, namespace), Arc::clone(&members));
        members
    }
}

fn names(rule: &Rule) -> bool {
    let mut ports = rule.ports.iter().flatten();
    ports.any(|port| matches!(port.port, PortNumbers::Named(_)))
}

/// The ports that a rule matches, with the names of the pod connected to.
fn ports_of(rule: &Rule, server: Option<&Pod>) -> PortSet {
    let Some(ports) = &rule.ports else {
        return PortSet::all();
    };
    let mut set = PortSet::default();
    for wanted in ports {
        let fits = |port: &&ContainerPort| wanted.protocol.is_none_or(|p| p == port.protocol);
        match &wanted.port {
            PortNumbers::Named(name) => {
                let all = server.map_or(&[][..], |pod| &pod.ports).iter();
                for port in all.filter(|port| *port.name == **name).filter(fits) {
                    set = set.or(&PortSet::range(port.protocol, port.port, port.port));
                }
            }
            numbers => {
                let (first, last) = match numbers {
                    PortNumbers::Range(first, last) => (*first, *last),
                    _ => (1, u16::MAX),
                };
                let some = Protocol::ALL.into_iter();
                for protocol in some.filter(|one| wanted.protocol.is_none_or(|p| p == *one)) {
                    set = set.or(&PortSet::range(protocol, first, last));
                }
            }
        }
    }
    set
}
