//! From what is in the kernel to what shall be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use nft::{Compiled, CompiledSet, Datum, ElementKey, Family, Op, Transaction, Value, diff};

use super::base::{self, GENERATION, JUDGED};
use super::table::{MAPS, compiled, muted, twice};
use super::{TABLE, list, set};
use crate::plan::{Delta, Live, Plan, Targets};

/// Elements in one transaction that decides nothing. The kernel tells listeners of each element by
/// a message that has 8 KiB of memory until the transaction is over: so many take some 40 MB for a
/// moment.
const MOST_ELEMENTS: usize = 4096;

/// The rules in force, counted: 24 bits, never 0, which is the mark of connections that nobody has
/// judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    const MOST: u32 = 0x00ff_ffff;

    /// Some generation.
    pub fn of(number: u64) -> Self {
        let rest = number % u64::from(Self::MOST);
        Self(u32::try_from(rest).unwrap_or(0) + 1)
    }

    /// That of a table.
    pub fn read(have: &Compiled) -> Option<Self> {
        base::generation(have).map(Self)
    }

    /// As a number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The one after it.
    pub fn next(self) -> Self {
        Self(self.0 % Self::MOST + 1)
    }
}

/// A change, as it goes to the kernel.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Sets that nothing refers to yet, with their elements.
    fill: Vec<(String, CompiledSet, set::Elements)>,
    /// Lists that nothing leads to yet. They are there by a transaction before: a packet on its
    /// way keeps to the rules of before, in which a new chain is empty, but would find a map's new
    /// verdict, and come back from the list as if it were allowed.
    lists: Vec<Op>,
    /// All that decides.
    decide: Vec<Op>,
    /// Lists that nothing leads to any more, and their sets. They go by a transaction after: a
    /// packet on its way may have found a verdict that leads to them, and must not find them empty.
    gone: Vec<Op>,
    /// The table is new.
    new: bool,
}

impl Change {
    /// The table goes.
    pub fn removal() -> Self {
        Self {
            decide: vec![Op::DeleteTable],
            ..Self::default()
        }
    }

    /// From one plan to the next, of a table that is there and stays.
    pub fn of(plan: &Plan, delta: &Delta, was: Generation, is: Generation) -> Self {
        let mut change = Self::default();
        let new = delta.new_sets.keys().filter_map(|id| plan.sets().get(id));
        change.fill = new.map(filled).collect();
        let ops = &mut change.lists;
        let new: Vec<_> = delta
            .new_lists
            .values()
            .map(|new| list::rendered(new))
            .collect();
        let chains = || new.iter().flat_map(|new| &new.chains);
        ops.extend(chains().map(|(name, _)| Op::AddChain(name.clone(), None)));
        for (name, map) in new.iter().filter_map(|new| new.map.as_ref()) {
            let mut map = map.compile();
            let elements = std::mem::take(&mut map.elements);
            ops.push(Op::AddSet(name.clone(), map));
            ops.push(Op::AddElements(
                name.clone(),
                elements.into_iter().collect(),
            ));
        }
        for (name, chain) in chains() {
            let rules = chain.compile(Family::Inet).rules.into_iter();
            ops.extend(rules.map(|rule| Op::AddRule(name.clone(), rule)));
        }
        let ops = &mut change.decide;
        for (id, moved) in &delta.moved {
            let Some(live) = plan.sets().get(id) else {
                continue;
            };
            let name = set::name(&live.set);
            if !moved.gone.is_empty() {
                let keys = moved.gone.iter().map(set::key).collect();
                ops.push(Op::DeleteElements(name.clone(), keys));
            }
            if !moved.new.is_empty() {
                let new = moved.new.iter().map(|element| (set::key(element), None));
                ops.push(Op::AddElements(name, new.collect()));
            }
        }
        let subjects = delta.subjects.iter();
        change_subjects(ops, subjects.map(|(ip, (was, is))| (*ip, was, is)));
        change_mute(ops, delta);
        change_generation(ops, was, is);
        let gone: Vec<_> = delta
            .gone_lists
            .values()
            .map(|gone| list::rendered(gone))
            .collect();
        let names: Vec<&String> = gone
            .iter()
            .flat_map(|gone| gone.chains.iter().map(|(name, _)| name))
            .collect();
        let maps = gone.iter().filter_map(|gone| gone.map.as_ref());
        let ops = &mut change.gone;
        ops.extend(names.iter().copied().cloned().map(Op::FlushChain));
        ops.extend(maps.map(|(name, _)| Op::DeleteSet(name.clone())));
        ops.extend(names.into_iter().cloned().map(Op::DeleteChain));
        let gone = delta.gone_sets.values().map(|gone| set::name(gone));
        ops.extend(gone.map(Op::DeleteSet));
        change
    }

    /// From what the kernel has to the plan and nothing else, and the generation that is then in
    /// force: where nothing differs that which is there, and else one of its own.
    pub fn whole(
        plan: &Plan,
        have: Option<&Compiled>,
        last: Generation,
    ) -> (Option<Generation>, Self) {
        let there = have.and_then(Generation::read);
        let current = there.unwrap_or(last);
        let Some(mut want) = compiled(plan, current.number()) else {
            let change = have.map(|_| Self::removal()).unwrap_or_default();
            return (None, change);
        };
        if have.is_some() && diff(have, &want, |_| true).is_empty() {
            return (Some(current), Self::default());
        }
        let mut next = last.next();
        if Some(next) == there {
            next = next.next();
        }
        base::set_generation(&mut want, next.number());
        let ops = diff(have, &want, |_| true).ops;
        (Some(next), Self::split(have, ops))
    }

    /// Sets and lists that come are there before anything refers to them, and those that go are
    /// there until nothing does.
    fn split(have: Option<&Compiled>, ops: Vec<Op>) -> Self {
        let mut change = Self {
            new: have.is_none(),
            ..Self::default()
        };
        // What is made anew under its old name is in nobody's way only while nothing refers to it.
        let made: BTreeSet<&String> = ops.iter().filter_map(made_set).collect();
        let redefined = |op: &Op| matches!(op, Op::DeleteSet(name) if made.contains(name));
        let ahead = !ops.iter().any(redefined);
        let had_set = |name: &String| have.is_some_and(|have| have.sets.contains_key(name));
        let had_chain = |name: &String| have.is_none_or(|have| have.chains.contains_key(name));
        let new_set = |name: &String| ahead && set::is_peers(name) && !had_set(name);
        let new_list = |name: &String| ahead && list::is_list(name) && !had_chain(name);
        let new_map =
            |name: &String| have.is_some() && ahead && list::is_list(name) && !had_set(name);
        let gone: BTreeSet<String> = ops.iter().filter_map(gone_list).cloned().collect();
        let old_list = |name: &String| ahead && gone.contains(name);
        let mut fill = BTreeMap::new();
        for op in ops {
            match op {
                Op::AddTable => {}
                Op::AddSet(name, set) if new_set(&name) => {
                    fill.insert(name, (set, Vec::new()));
                }
                Op::AddElements(name, elements) if new_set(&name) => {
                    if let Some((_, list)) = fill.get_mut(&name) {
                        *list = elements;
                    }
                }
                Op::AddSet(name, set) if new_map(&name) => {
                    change.lists.push(Op::AddSet(name, set));
                }
                Op::AddElements(name, elements) if new_map(&name) => {
                    change.lists.push(Op::AddElements(name, elements));
                }
                Op::AddChain(name, base) if new_list(&name) => {
                    change.lists.push(Op::AddChain(name, base));
                }
                Op::AddRule(name, rule) if new_list(&name) => {
                    change.lists.push(Op::AddRule(name, rule));
                }
                Op::FlushChain(name) if old_list(&name) => {
                    change.gone.push(Op::FlushChain(name));
                }
                Op::DeleteChain(name) if old_list(&name) => {
                    change.gone.push(Op::DeleteChain(name));
                }
                Op::DeleteSet(name) if ahead && (set::is_peers(&name) || list::is_list(&name)) => {
                    change.gone.push(Op::DeleteSet(name));
                }
                other => change.decide.push(other),
            }
        }
        let fill = fill.into_iter();
        change.fill = fill
            .map(|(name, (set, elements))| (name, set, elements))
            .collect();
        change
    }

    /// What the kernel is to be told, in this order: one of them decides all.
    pub fn transactions(self) -> Vec<Transaction> {
        let Self {
            fill,
            lists,
            decide,
            gone,
            ..
        } = &self;
        if fill.is_empty() && lists.is_empty() && decide.is_empty() && gone.is_empty() {
            return Vec::new();
        }
        let count: usize = self
            .fill
            .iter()
            .map(|(_, _, elements)| elements.len())
            .sum();
        let mut steps: Vec<Vec<Op>> = Vec::new();
        let mut step = Vec::new();
        if self.new {
            step.push(Op::AddTable);
        }
        let in_steps = count > MOST_ELEMENTS;
        let mut room = MOST_ELEMENTS;
        for (name, set, elements) in self.fill {
            step.push(Op::AddSet(name.clone(), set));
            let mut elements = elements.into_iter().peekable();
            while elements.peek().is_some() {
                if in_steps && room < 2 {
                    steps.push(std::mem::take(&mut step));
                    room = MOST_ELEMENTS;
                }
                // Begin and end of a range stay together.
                let most = if in_steps { room & !1 } else { usize::MAX };
                let part: Vec<_> = elements.by_ref().take(most).collect();
                room = room.saturating_sub(part.len());
                step.push(Op::AddElements(name.clone(), part));
            }
        }
        if in_steps {
            steps.push(std::mem::take(&mut step));
        }
        if !self.lists.is_empty() {
            step.extend(self.lists);
            steps.push(std::mem::take(&mut step));
        }
        step.extend(self.decide);
        steps.push(step);
        if !self.gone.is_empty() {
            steps.push(self.gone);
        }
        steps.into_iter().map(transaction).collect()
    }
}

fn made_set(op: &Op) -> Option<&String> {
    match op {
        Op::AddSet(name, _) => Some(name),
        _ => None,
    }
}

fn gone_list(op: &Op) -> Option<&String> {
    match op {
        Op::DeleteChain(name) => Some(name).filter(|name| list::is_list(name)),
        _ => None,
    }
}

fn transaction(ops: Vec<Op>) -> Transaction {
    Transaction {
        family: Family::Inet,
        table: TABLE.to_owned(),
        ops,
    }
}

fn filled(live: &Live) -> (String, CompiledSet, set::Elements) {
    let (definition, elements) = set::compiled(live);
    (set::name(&live.set), definition, elements)
}

/// Where addresses' connections go from now on.
fn change_subjects<'a>(
    ops: &mut Vec<Op>,
    subjects: impl Iterator<Item = (IpAddr, &'a Targets, &'a Targets)>,
) {
    type Lists = (Vec<ElementKey>, Vec<(ElementKey, Option<Datum>)>);
    let mut maps: BTreeMap<String, Lists> = BTreeMap::new();
    for (ip, was, is) in subjects {
        let v6 = ip.is_ipv6();
        let key = ElementKey::of(&[Value::from(ip)]);
        let mut any = [false; 2];
        for (at, direction) in MAPS.into_iter().enumerate() {
            let verdicts = [&was[at], &is[at]].map(|target| list::entry(direction, target));
            any = [0, 1].map(|one| any[one] || verdicts[one].is_some());
            let [was, is] = verdicts;
            if was == is {
                continue;
            }
            let (gone, new) = maps.entry(base::map(direction, v6)).or_default();
            gone.extend(was.map(|_| key.clone()));
            new.extend(is.map(|verdict| (key.clone(), Some(Datum::Verdict(verdict)))));
        }
        let (gone, new) = maps.entry(base::subjects(v6)).or_default();
        let key = ElementKey::of(&twice(ip));
        match any {
            [true, false] => gone.push(key),
            [false, true] => new.push((key, None)),
            _ => {}
        }
    }
    for (name, (gone, new)) in maps {
        if !gone.is_empty() {
            ops.push(Op::DeleteElements(name.clone(), gone));
        }
        if !new.is_empty() {
            ops.push(Op::AddElements(name, new));
        }
    }
}

/// Who may ask for names from now on.
fn change_mute(ops: &mut Vec<Op>, delta: &Delta) {
    for v6 in [false, true] {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for (ip, (was, is)) in delta.mute.iter().filter(|(ip, _)| ip.is_ipv6() == v6) {
            let [was, is] = [was, is].map(|mute| {
                let keys = muted(*ip, mute);
                keys.map(|key| ElementKey::of(&key)).collect::<Vec<_>>()
            });
            gone.extend(was.iter().filter(|key| !is.contains(key)).cloned());
            new.extend(is.into_iter().filter(|key| !was.contains(key)));
        }
        if !gone.is_empty() {
            ops.push(Op::DeleteElements(base::mute(v6), gone));
        }
        if !new.is_empty() {
            let new = new.into_iter().map(|key| (key, None)).collect();
            ops.push(Op::AddElements(base::mute(v6), new));
        }
    }
}

fn change_generation(ops: &mut Vec<Op>, was: Generation, is: Generation) {
    let key =
        |generation: Generation| ElementKey::of(&[Value::Mark(base::mark(generation.number()))]);
    let set = GENERATION.to_owned();
    ops.push(Op::DeleteElements(set.clone(), vec![key(was)]));
    ops.push(Op::AddElements(set, vec![(key(is), None)]));
    let rule = base::judged(is.number()).compile(Family::Inet);
    ops.push(Op::FlushChain(JUDGED.to_owned()));
    ops.push(Op::AddRule(JUDGED.to_owned(), rule));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::policy::{Namespaces, Peer, PortMatch, PortNumbers, Rule};
    use model::{Change as News, Changed, Cluster, NetworkPolicy, Pod, Protocol};
    use nft::apply;

    use super::*;
    use crate::plan::{Local, Locals};

    fn pod(number: u16, node: &str) -> Arc<Pod> {
        let [b, a] = number.to_be_bytes();
        Arc::new(Pod {
            namespace: "shop".into(),
            name: format!("pod{number}"),
            uid: String::new(),
            node: node.into(),
            ips: vec![IpAddr::from([10, 244, b, a])],
            host_network: false,
            labels: Default::default(),
            ports: Vec::new(),
            created: 0,
            leaving: false,
        })
    }

    /// So many pods, of which the first is here and lets all of its namespace in.
    fn world(pods: u16) -> (Cluster, Locals) {
        let mut cluster = Cluster::default();
        for number in 1..=pods {
            let node = if number == 1 { "node1" } else { "node2" };
            cluster.take(News::Pod(pod(number, node)));
        }
        cluster.take(News::Policy(Arc::new(allow(Namespaces::Own))));
        let local = Local {
            pod: ("shop".into(), "pod1".into()),
            uid: String::new(),
            ips: vec![IpAddr::from([10, 244, 0, 1])],
        };
        let container = ("c1".to_owned(), "eth0".to_owned());
        (cluster, Locals::from([(container, local)]))
    }

    fn allow(namespaces: Namespaces) -> NetworkPolicy {
        let pods = Default::default();
        let peers = Some(vec![Peer::Pods { namespaces, pods }]);
        NetworkPolicy {
            namespace: "shop".into(),
            name: "own".into(),
            ingress: Some(vec![Rule { peers, ports: None }]),
            ..NetworkPolicy::default()
        }
    }

    fn leads(op: &Op) -> bool {
        matches!(op, Op::AddElements(_, elements)
            if elements.iter().any(|(_, datum)| matches!(datum, Some(Datum::Verdict(_)))))
    }

    #[test]
    fn what_is_large_is_filled_before_anything_is_decided() {
        let (cluster, locals) = world(10_000);
        let plan = Plan::of("node1", &cluster, &locals);
        let (generation, change) = Change::whole(&plan, None, Generation::of(7));
        let steps = change.transactions();
        assert_eq!(steps.len(), 4);
        let mut table = None;
        let (last, first) = steps.split_last().unwrap();
        for step in first {
            table = apply(table, step).unwrap();
            let there: &Compiled = table.as_ref().unwrap();
            assert!(there.chains.is_empty());
            let count = |op: &Op| match op {
                Op::AddElements(_, elements) => elements.len(),
                _ => 0,
            };
            assert!(step.ops.iter().map(count).sum::<usize>() <= MOST_ELEMENTS);
        }
        let table = apply(table, last).unwrap();
        assert_eq!(table, compiled(&plan, generation.unwrap().number()));
    }

    #[test]
    fn a_list_is_there_before_anything_leads_to_it_and_until_nothing_does() {
        let (mut cluster, locals) = world(3);
        let mut plan = Plan::of("node1", &cluster, &locals);
        let generation = Generation::of(7);
        let have = compiled(&plan, generation.number());
        let mut changed = Changed::default();
        let other = Arc::new(allow(Namespaces::Selected(Default::default())));
        cluster.note(News::Policy(other), &mut changed);
        let delta = plan.update(&cluster, &changed, &locals);
        let next = generation.next();
        let step = Change::of(&plan, &delta, generation, next).transactions();
        let (_, whole) = Change::whole(&plan, have.as_ref(), generation);
        for steps in [step, whole.transactions()] {
            let [before, decides, after] = steps.as_slice() else {
                panic!("{} transactions", steps.len());
            };
            assert!(!before.ops.iter().any(leads));
            assert!(before.ops.iter().any(|op| matches!(op, Op::AddRule(..))));
            assert!(decides.ops.iter().any(leads));
            let goes = |op: &Op| matches!(op, Op::DeleteChain(_));
            assert!(!decides.ops.iter().any(goes));
            assert!(after.ops.iter().any(goes));
            let table = [before, decides, after]
                .into_iter()
                .fold(have.clone(), |table, step| apply(table, step).unwrap());
            assert_eq!(table, compiled(&plan, next.number()));
        }
    }

    #[test]
    fn the_map_of_a_long_list_comes_and_goes_with_it() {
        let (mut cluster, locals) = world(3);
        let mut plan = Plan::of("node1", &cluster, &locals);
        let mut generation = Generation::of(7);
        let mut table = compiled(&plan, generation.number());
        let of_port = |number: u16| Rule {
            peers: Some(vec![Peer::Block {
                net: format!("10.{number}.0.0/16").parse().unwrap(),
                except: Vec::new(),
            }]),
            ports: Some(vec![PortMatch {
                protocol: Some(Protocol::Tcp),
                port: PortNumbers::Range(number, number),
            }]),
        };
        let long = NetworkPolicy {
            ingress: Some((1..=9).map(of_port).collect()),
            ..allow(Namespaces::Own)
        };
        for (policy, maps) in [(long, 1), (allow(Namespaces::Own), 0)] {
            let mut changed = Changed::default();
            cluster.note(News::Policy(Arc::new(policy)), &mut changed);
            let delta = plan.update(&cluster, &changed, &locals);
            let next = generation.next();
            let (_, whole) = Change::whole(&plan, table.as_ref(), generation);
            let step = Change::of(&plan, &delta, generation, next);
            let [step, whole] = [step, whole].map(|change| {
                let steps = change.transactions();
                assert_eq!(steps.len(), 3);
                let done = |table, step| apply(table, step).unwrap();
                steps.iter().fold(table.clone(), done)
            });
            assert_eq!(step, whole);
            assert_eq!(step, compiled(&plan, next.number()));
            let sets = &step.as_ref().unwrap().sets;
            let found = sets.keys().filter(|name| name.ends_with("-ports"));
            assert_eq!(found.count(), maps);
            (table, generation) = (step, next);
        }
    }
}
