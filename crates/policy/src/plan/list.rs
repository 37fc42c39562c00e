//! Lists of rules: what a pod's rules of one direction come to, brought into one form, so that the
//! same meaning gives the same list wherever it was written and in whatever order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use model::Direction;

use super::blocks;
use super::digest::digest;
use super::ports::Ports;
use super::set::{Set, What};

/// The name of a list, made of what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListId(pub u64);

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// It is let through.
    Allowed,
    /// It is not.
    Denied,
    /// A list says so.
    List(Arc<List>),
}

/// Rules in order. The first that matches decides.
#[derive(Clone, Debug)]
pub struct List {
    id: ListId,
    /// Of connections into a pod or out of it.
    pub direction: Direction,
    /// Of which family.
    pub v6: bool,
    /// The rules.
    pub rules: Vec<Rule>,
    /// What becomes of connections that no rule matches.
    pub end: Target,
}

/// What a rule matches, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Which connections.
    pub matches: Match,
    /// What becomes of them.
    pub target: Target,
}

/// Connections: both must fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match {
    /// On which ports.
    pub ports: PortTest,
    /// With whom: one whose address is in a set; none stands for everybody.
    pub peer: Option<Arc<Set>>,
}

/// Which ports of whoever is connected to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortTest {
    /// Everything, also what has no ports.
    All,
    /// These.
    Numbers(Ports),
    /// Those that are in a set with their address ([`What::Named`]).
    Named(Arc<Set>),
}

impl Match {
    /// Every connection.
    pub fn everything() -> Self {
        Self {
            ports: PortTest::All,
            peer: None,
        }
    }

    fn is_everything(&self) -> bool {
        self.ports == PortTest::All && self.peer.is_none()
    }

    /// The sets it looks things up in.
    fn sets(&self) -> impl Iterator<Item = Arc<Set>> {
        let ports = match &self.ports {
            PortTest::All => None,
            PortTest::Numbers(ports) => ports.singles().map(Set::ports),
            PortTest::Named(set) => Some(Arc::clone(set)),
        };
        let peer = self.peer.iter().filter(|set| set.single().is_none());
        ports.into_iter().chain(peer.cloned())
    }
}

impl List {
    /// What rules in order come to; `end` is what becomes of connections that none matches.
    pub(super) fn of(
        direction: Direction,
        v6: bool,
        rules: Vec<(Match, Target)>,
        mut end: Target,
    ) -> Target {
        let mut short: Vec<Rule> = Vec::new();
        let mut rules = rules.into_iter().peekable();
        while let Some((first, target)) = rules.next() {
            // Among rules with one target the order means nothing.
            let mut run = vec![first];
            while let Some((next, _)) = rules.next_if(|(_, other)| *other == target) {
                run.push(next);
            }
            let run = merged(run, v6);
            if run.iter().any(Match::is_everything) {
                end = target;
                break;
            }
            short.extend(run.into_iter().map(|matches| Rule {
                matches,
                target: target.clone(),
            }));
        }
        while short.last().is_some_and(|last| last.target == end) {
            short.pop();
        }
        if short.is_empty() {
            return end;
        }
        let id = ListId(digest(&(direction, v6, &short, &end)));
        Target::List(Arc::new(Self {
            id,
            direction,
            v6,
            rules: short,
            end,
        }))
    }

    /// Its name.
    pub fn id(&self) -> ListId {
        self.id
    }

    /// The sets that its rules look things up in, each once.
    pub fn sets(&self) -> BTreeSet<Arc<Set>> {
        let rules = self.rules.iter();
        rules.flat_map(|rule| rule.matches.sets()).collect()
    }

    /// The lists it leads to, each once.
    pub fn lists(&self) -> BTreeSet<&Arc<List>> {
        let targets = self.rules.iter().map(|rule| &rule.target);
        targets
            .chain([&self.end])
            .filter_map(Target::list)
            .collect()
    }
}

impl Target {
    /// The list that says so.
    pub fn list(&self) -> Option<&Arc<List>> {
        match self {
            Self::List(list) => Some(list),
            Self::Allowed | Self::Denied => None,
        }
    }
}

// What is named alike is alike.
impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for List {}

impl PartialOrd for List {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for List {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}

impl Hash for List {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// What matches as some do together, with fewer tests and in one order.
fn merged(run: Vec<Match>, v6: bool) -> Vec<Match> {
    let mut by_peer = by_peer(run);
    // Blocks on the same ports are one set.
    let mut by_ports: BTreeMap<PortTest, Vec<Arc<Set>>> = BTreeMap::new();
    for (peer, tests) in &by_peer {
        if let Some(set) = peer.as_ref().filter(|set| set_blocks(set).is_some()) {
            for test in tests.tests() {
                by_ports.entry(test).or_default().push(Arc::clone(set));
            }
        }
    }
    by_peer.retain(|peer, _| peer.as_ref().is_none_or(|set| set_blocks(set).is_none()));
    let blocks = by_ports.into_iter().map(|(ports, sets)| {
        let nets = sets.iter().filter_map(|set| set_blocks(set));
        let nets = blocks::union(nets.flatten().copied().collect());
        let peer = (!blocks::is_all(&nets)).then(|| Set::new(v6, What::Blocks(nets)));
        Match { ports, peer }
    });
    let mut merged: BTreeSet<Match> = blocks.collect();
    for (peer, tests) in by_peer {
        let matches = tests.tests().into_iter();
        merged.extend(matches.map(|ports| Match {
            ports,
            peer: peer.clone(),
        }));
    }
    without_covered(merged)
}

fn set_blocks(set: &Set) -> Option<&Vec<ipnet::IpNet>> {
    match &set.what {
        What::Blocks(nets) => Some(nets),
        _ => None,
    }
}

/// What is tested of one peer's ports.
#[derive(Default)]
struct Tests {
    all: bool,
    numbers: Ports,
    named: BTreeSet<Arc<Set>>,
}

impl Tests {
    fn tests(&self) -> Vec<PortTest> {
        if self.all {
            return vec![PortTest::All];
        }
        let numbers = Some(self.numbers.clone()).filter(|numbers| !numbers.is_empty());
        let named = self.named.iter().cloned().map(PortTest::Named);
        numbers
            .map(PortTest::Numbers)
            .into_iter()
            .chain(named)
            .collect()
    }
}

fn by_peer(run: Vec<Match>) -> BTreeMap<Option<Arc<Set>>, Tests> {
    let mut by_peer: BTreeMap<_, Tests> = BTreeMap::new();
    for Match { ports, peer } in run {
        let tests = by_peer.entry(peer).or_default();
        match ports {
            PortTest::All => tests.all = true,
            PortTest::Numbers(ports) => tests.numbers = tests.numbers.union(&ports),
            PortTest::Named(set) => {
                tests.named.insert(set);
            }
        }
    }
    by_peer
}

/// Less what matches nothing that what everybody may do does not match already.
fn without_covered(matches: BTreeSet<Match>) -> Vec<Match> {
    if matches.iter().any(Match::is_everything) {
        return vec![Match::everything()];
    }
    let everybody = matches.iter().filter(|one| one.peer.is_none());
    let ports = everybody.filter_map(|one| match &one.ports {
        PortTest::Numbers(ports) => Some(ports),
        PortTest::All | PortTest::Named(_) => None,
    });
    let ports = ports.fold(Ports::default(), |all, ports| all.union(ports));
    let covered = |one: &Match| match &one.ports {
        PortTest::Numbers(own) => one.peer.is_some() && ports.covers(own),
        PortTest::All | PortTest::Named(_) => false,
    };
    let mut left: Vec<Match> = matches.into_iter().filter(|one| !covered(one)).collect();
    // Blocks of all addresses may have joined what everybody may do.
    let numbers = |one: &Match| one.peer.is_none() && matches!(one.ports, PortTest::Numbers(_));
    if left.iter().filter(|one| numbers(one)).count() > 1 {
        left.retain(|one| !numbers(one));
        left.push(Match {
            ports: PortTest::Numbers(ports),
            peer: None,
        });
        left.sort();
    }
    left
}

#[cfg(test)]
mod tests {
    use model::Protocol;

    use super::super::ports::PortRange;
    use super::super::set::{Pods, Scope};
    use super::*;

    fn peers(name: &str) -> Option<Arc<Set>> {
        let pods = Pods {
            scope: Scope::Namespace(name.to_owned()),
            selector: Default::default(),
        };
        Some(Set::new(false, What::Pods(pods)))
    }

    fn nets(nets: &[&str]) -> Option<Arc<Set>> {
        let nets = nets.iter().map(|net| net.parse().unwrap()).collect();
        Some(Set::new(false, What::Blocks(nets)))
    }

    fn numbers(ranges: &[(u16, u16)]) -> PortTest {
        let ranges = ranges.iter().map(|&(from, to)| PortRange {
            protocol: Protocol::Tcp,
            from,
            to,
        });
        PortTest::Numbers(ranges.collect())
    }

    fn allow(peer: Option<Arc<Set>>, ports: PortTest) -> (Match, Target) {
        (Match { ports, peer }, Target::Allowed)
    }

    fn deny(peer: Option<Arc<Set>>, ports: PortTest) -> (Match, Target) {
        (Match { ports, peer }, Target::Denied)
    }

    fn list(rules: Vec<(Match, Target)>, end: Target) -> Target {
        List::of(Direction::Ingress, false, rules, end)
    }

    fn rules(target: &Target) -> usize {
        target.list().map_or(0, |list| list.rules.len())
    }

    #[test]
    fn the_same_peers_have_their_ports_together_and_the_order_means_nothing() {
        let one = vec![
            allow(peers("a"), numbers(&[(80, 80)])),
            allow(peers("b"), numbers(&[(80, 80)])),
            allow(peers("a"), numbers(&[(81, 90), (443, 443)])),
            allow(peers("b"), numbers(&[(80, 80)])),
        ];
        let other = one.iter().rev().cloned().collect();
        let one = list(one, Target::Denied);
        assert_eq!(one, list(other, Target::Denied));
        assert_eq!(rules(&one), 2);
        let more = vec![
            allow(peers("b"), numbers(&[(80, 80)])),
            allow(peers("a"), numbers(&[(80, 90), (443, 443)])),
        ];
        assert_eq!(one, list(more, Target::Denied));
    }

    #[test]
    fn blocks_on_the_same_ports_are_one_set() {
        let halves = vec![
            allow(nets(&["10.0.0.0/9"]), numbers(&[(80, 80)])),
            allow(nets(&["10.128.0.0/9"]), numbers(&[(80, 80)])),
        ];
        let whole = vec![allow(nets(&["10.0.0.0/8"]), numbers(&[(80, 80)]))];
        assert_eq!(list(halves, Target::Denied), list(whole, Target::Denied));
        // All addresses are everybody.
        let halves = vec![
            allow(nets(&["0.0.0.0/1"]), PortTest::All),
            allow(nets(&["128.0.0.0/1"]), PortTest::All),
        ];
        assert_eq!(list(halves, Target::Denied), Target::Allowed);
    }

    #[test]
    fn what_everybody_may_nobody_is_asked_for() {
        let some = vec![
            allow(None, numbers(&[(80, 90)])),
            allow(peers("a"), numbers(&[(81, 82)])),
            allow(nets(&["0.0.0.0/0"]), numbers(&[(91, 100)])),
            allow(peers("b"), numbers(&[(90, 95)])),
        ];
        let short = vec![allow(None, numbers(&[(80, 100)]))];
        assert_eq!(
            list(some.clone(), Target::Denied),
            list(short, Target::Denied)
        );
        let all = [some, vec![allow(None, PortTest::All)]].concat();
        assert_eq!(list(all, Target::Denied), Target::Allowed);
    }

    #[test]
    fn what_changes_nothing_is_left_out() {
        assert_eq!(list(vec![], Target::Denied), Target::Denied);
        let trailing = vec![
            deny(peers("a"), PortTest::All),
            allow(peers("b"), PortTest::All),
        ];
        let target = list(trailing.clone(), Target::Allowed);
        assert_eq!(rules(&target), 1);
        // Behind what decides everything nothing is asked.
        let decided = [
            trailing.clone(),
            vec![deny(None, PortTest::All), allow(peers("c"), PortTest::All)],
        ]
        .concat();
        let target = list(decided, Target::Allowed);
        assert_eq!(rules(&target), 2);
        assert_eq!(target.list().unwrap().end, Target::Denied);
        // Where targets differ the order means something.
        let other: Vec<_> = trailing.iter().rev().cloned().collect();
        assert_ne!(list(trailing, Target::Denied), list(other, Target::Denied));
    }

    #[test]
    fn what_passes_goes_on_below() {
        let below = list(vec![allow(peers("a"), PortTest::All)], Target::Denied);
        let pass = |peer| {
            let ports = PortTest::All;
            (Match { ports, peer }, below.clone())
        };
        let rules = vec![pass(peers("b")), deny(peers("c"), PortTest::All)];
        let target = list(rules, below.clone());
        let top = target.list().unwrap();
        assert_eq!(top.rules.len(), 2);
        assert_eq!(top.lists().len(), 1);
        // With nothing decided before it, that is all.
        assert_eq!(list(vec![pass(peers("b"))], below.clone()), below);
    }
}
