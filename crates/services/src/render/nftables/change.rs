//! From what is in the kernel to what shall be: operations that touch only what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nft::{Compiled, Datum, ElementKey, Family, MapDatum, Op, Transaction, Value, diff};

use super::port::{self, Elements};
use super::set::{Kind, SetId};
use super::table::skeleton;
use super::uses::Rendered;
use super::{TABLE, owns};
use crate::plan::{PortChange, PortPlan, Settings};

/// Elements in one transaction. The kernel tells listeners of each element by a message that has
/// 8 KiB of memory until the transaction is over: so many take some 40 MB for a moment.
const MOST_ELEMENTS: usize = 4096;

type Element = (ElementKey, Option<Datum>);

/// A change, as it goes to the kernel: what comes by itself, then all the rest at once where it is
/// small, and else step by step, with all packets served at each.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Sets and chains that come.
    grow: Vec<Op>,
    /// Elements that come.
    new: BTreeMap<SetId, Vec<Element>>,
    /// Elements that get other data.
    other: BTreeMap<SetId, Vec<Element>>,
    /// Elements that go.
    gone: BTreeMap<SetId, Vec<ElementKey>>,
    /// Elements that packets added and that are to be gone, if they still are there.
    forget: BTreeMap<SetId, Vec<ElementKey>>,
    /// Everything else: sets and chains that go, rules that differ.
    rest: Vec<Op>,
    /// Sets are made anew with another shape: no step is possible alone.
    at_once: bool,
}

impl Change {
    /// From what ports were to what they are; `rendered` is taken along.
    pub fn of(rendered: &mut Rendered, settings: &Settings, ports: &[PortChange]) -> Self {
        let are = ports.iter().filter_map(|change| change.is.as_ref());
        let were = ports.iter().filter_map(|change| change.was.as_ref());
        let shared = rendered.change(settings, are, were);

        let mut change = Self::default();
        for set in &shared.sets.new {
            let definition = set.definition().compile();
            change.grow.push(Op::AddSet(set.to_string(), definition));
        }
        let new_chains = &shared.chains.new;
        let names = new_chains.iter().map(ToString::to_string);
        change
            .grow
            .extend(names.map(|name| Op::AddChain(name, None)));
        for chain in new_chains {
            let rules = chain.chain(settings).compile(Family::Inet).rules;
            let rules = rules.into_iter();
            let name = chain.to_string();
            change
                .grow
                .extend(rules.map(|rule| Op::AddRule(name.clone(), rule)));
        }
        let (mut gone, new) = elements(ports);
        gone.extend(shared.elements.gone.into_iter().map(|key| (key, None)));
        let shared_new = shared.elements.new.into_iter().map(|key| (key, None));
        for ((set, key), datum) in new.into_iter().chain(shared_new) {
            let was = gone.remove(&(set, key.clone()));
            if was.as_ref() != Some(&datum) {
                let list = if was.is_some() {
                    &mut change.other
                } else {
                    &mut change.new
                };
                list.entry(set)
                    .or_default()
                    .push(compiled(&key, datum.as_ref()));
            }
        }
        for (set, key) in gone.into_keys() {
            let keys = change.gone.entry(set).or_default();
            keys.push(ElementKey::of(&key));
        }
        let names: Vec<String> = shared.chains.gone.iter().map(ToString::to_string).collect();
        change
            .rest
            .extend(names.iter().cloned().map(Op::FlushChain));
        change.rest.extend(names.into_iter().map(Op::DeleteChain));
        let sets = shared.sets.gone.iter().map(ToString::to_string);
        change.rest.extend(sets.map(Op::DeleteSet));
        change
    }

    /// With clients to forget, in a map that stays.
    pub fn forget(&mut self, map: SetId, clients: Vec<ElementKey>) {
        if !clients.is_empty() {
            self.forget.insert(map, clients);
        }
    }

    /// From what the kernel has to these ports and nothing else.
    pub fn whole<'a>(
        settings: &Settings,
        ports: impl Iterator<Item = &'a Arc<PortPlan>> + Clone,
        have: Option<Compiled>,
    ) -> (Rendered, Self) {
        let rendered = Rendered::of(settings, ports.clone());
        let want = skeleton(&rendered, settings).compile();
        let mut have = have.map(ours);
        let mut there = match &mut have {
            Some(have) => take_elements(have, &rendered),
            None => Found::new(),
        };
        let mut change = Self::default();
        change.structure(have.as_ref(), &want, &mut there);
        for port in ports {
            change.want(port::elements(port), &mut there);
        }
        let shared = rendered.elements().map(|key| (key, None));
        change.want(shared, &mut there);
        for (set, left) in there {
            if !left.is_empty() {
                change.gone.insert(set, left.into_keys().collect());
            }
        }
        (rendered, change)
    }

    /// Takes chains and sets in.
    fn structure(&mut self, have: Option<&Compiled>, want: &Compiled, there: &mut Found) {
        let ops = diff(have, want, owns).ops;
        let had = |name: &String| have.is_some_and(|have| have.chains.contains_key(name));
        let deleted: BTreeSet<&String> = ops
            .iter()
            .filter_map(|op| match op {
                Op::DeleteSet(set) => Some(set),
                _ => None,
            })
            .collect();
        there.retain(|set, _| !deleted.contains(&set.to_string()));
        self.at_once = deleted.iter().any(|set| want.sets.contains_key(*set));
        let at_once = self.at_once;
        let enters = |name: &String| want.chains.get(name).is_some_and(|it| it.base.is_some());
        let grows = |op: &Op| match op {
            Op::AddTable | Op::AddSet(..) => !at_once,
            // Where packets enter is last: until then none is led to half of what shall be.
            Op::AddChain(name, _) | Op::AddRule(name, _) => !at_once && !had(name) && !enters(name),
            _ => false,
        };
        let (grow, rest) = ops.clone().into_iter().partition(grows);
        (self.grow, self.rest) = (grow, rest);
    }

    /// Compares elements that are wanted with what is there, and takes them out of that.
    fn want(
        &mut self,
        elements: impl IntoIterator<Item = ((SetId, Vec<Value>), Option<MapDatum>)>,
        there: &mut Found,
    ) {
        for ((set, key), datum) in elements {
            let element = compiled(&key, datum.as_ref());
            let was = there
                .get_mut(&set)
                .and_then(|there| there.remove(&element.0));
            let list = match was {
                Some(same) if same == element.1 => continue,
                Some(_) => &mut self.other,
                None => &mut self.new,
            };
            list.entry(set).or_default().push(element);
        }
    }

    /// What the kernel is to be told, in this order.
    pub fn transactions(self) -> Vec<Transaction> {
        let lists = self.new.values().chain(self.other.values());
        let count =
            lists.map(Vec::len).sum::<usize>() + self.gone.values().map(Vec::len).sum::<usize>();
        let steps = if self.at_once {
            vec![self.at_once()]
        } else if count <= MOST_ELEMENTS {
            self.grown_before()
        } else {
            self.step_by_step()
        };
        let steps = steps.into_iter().filter(|ops| !ops.is_empty());
        steps.map(transaction).collect()
    }

    /// Chains first, by themselves. A packet on its way through the rules while a transaction takes
    /// effect goes on by the old rules, but looks elements up among the new ones: led to a chain
    /// that came with the element it would find that empty, get past all rules, and its connection
    /// stay so for as long as connection tracking knows it.
    fn grown_before(mut self) -> Vec<Vec<Op>> {
        let grow = std::mem::take(&mut self.grow);
        vec![grow, self.at_once()]
    }

    fn at_once(self) -> Vec<Op> {
        let mut ops = self.grow;
        ops.extend(destroy(self.forget));
        ops.extend(
            self.gone
                .into_iter()
                .map(|(set, keys)| Op::DeleteElements(set.to_string(), keys)),
        );
        for (set, elements) in &self.other {
            ops.push(delete(*set, elements));
        }
        ops.extend(self.rest);
        for (set, elements) in self.new.into_iter().chain(self.other) {
            ops.push(Op::AddElements(set.to_string(), elements));
        }
        ops
    }

    /// Endpoints before what leads to them, both before anything goes.
    fn step_by_step(mut self) -> Vec<Vec<Op>> {
        let leads = |set: &SetId| matches!(set.kind, Kind::Frontends(_));
        let mut steps = vec![std::mem::take(&mut self.grow)];
        let (last, first): (Vec<_>, Vec<_>) = self.new.into_iter().partition(|(set, _)| leads(set));
        for (set, elements) in first.into_iter().chain(last) {
            for part in parts(elements) {
                steps.push(vec![Op::AddElements(set.to_string(), part)]);
            }
        }
        for (set, elements) in self.other {
            for part in parts(elements) {
                let deletion = delete(set, &part);
                steps.push(vec![deletion, Op::AddElements(set.to_string(), part)]);
            }
        }
        let (first, last): (Vec<_>, Vec<_>) =
            self.gone.into_iter().partition(|(set, _)| leads(set));
        for (set, keys) in first.into_iter().chain(last) {
            for part in parts(keys) {
                steps.push(vec![Op::DeleteElements(set.to_string(), part)]);
            }
        }
        steps.extend(destroy(self.forget).map(|op| vec![op]));
        steps.push(self.rest);
        steps
    }
}

fn destroy(clients: BTreeMap<SetId, Vec<ElementKey>>) -> impl Iterator<Item = Op> {
    let clients = clients.into_iter();
    clients.map(|(map, keys)| Op::DestroyElements(map.to_string(), keys))
}

fn parts<T>(list: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut rest = list.into_iter();
    std::iter::from_fn(move || {
        let part: Vec<T> = rest.by_ref().take(MOST_ELEMENTS).collect();
        (!part.is_empty()).then_some(part)
    })
}

fn delete(set: SetId, elements: &[Element]) -> Op {
    let keys = elements.iter().map(|(key, _)| key.clone());
    Op::DeleteElements(set.to_string(), keys.collect())
}

fn transaction(ops: Vec<Op>) -> Transaction {
    Transaction {
        family: Family::Inet,
        table: TABLE.to_owned(),
        ops,
    }
}

fn compiled(key: &[Value], datum: Option<&MapDatum>) -> Element {
    (ElementKey::of(key), datum.map(Datum::from))
}

/// The elements of what ports were and are not, and of what they are and were not.
fn elements(ports: &[PortChange]) -> (Elements, Elements) {
    let (mut gone, mut new) = (Elements::new(), Elements::new());
    let render = |port: &Option<Arc<PortPlan>>| port.as_deref().map(port::elements);
    for change in ports {
        let mut is = render(&change.is).unwrap_or_default();
        let was = render(&change.was).unwrap_or_default();
        for (key, datum) in was {
            if is.get(&key) == Some(&datum) {
                is.remove(&key);
            } else {
                gone.insert(key, datum);
            }
        }
        new.extend(is);
    }
    (gone, new)
}

/// Elements that are in the kernel.
type Found = BTreeMap<SetId, BTreeMap<ElementKey, Option<Datum>>>;

/// Services' part of a table.
fn ours(mut have: Compiled) -> Compiled {
    have.chains.retain(|name, _| owns(name));
    have.sets.retain(|name, _| owns(name));
    have
}

/// Takes the elements out of the sets that are needed; those of others go with their sets.
fn take_elements(have: &mut Compiled, rendered: &Rendered) -> Found {
    let mut there = Found::new();
    for id in rendered.sets() {
        if let Some(set) = have.sets.get_mut(&id.to_string())
            && !set.dynamic
        {
            there.insert(*id, std::mem::take(&mut set.elements));
        }
    }
    for set in have.sets.values_mut() {
        set.elements.clear();
    }
    there
}

/// What removes everything of Services from a table, and the table where nothing else is in it.
pub(crate) fn removal(have: &Compiled) -> Transaction {
    let mut names = have.chains.keys().chain(have.sets.keys());
    if names.all(|name| owns(name)) {
        return transaction(vec![Op::DeleteTable]);
    }
    diff(Some(have), &Compiled::empty(Family::Inet, TABLE), owns)
}

/// How many elements of a port are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum There {
    /// All, as they should be.
    All,
    /// Not all, or with other data.
    Some,
    /// None.
    None,
}

/// How many elements of a port are there.
pub(crate) fn there(port: &PortPlan, have: &Compiled) -> There {
    let elements = port::elements(port);
    let is_there = |((set, key), datum): (&(SetId, Vec<Value>), &Option<MapDatum>)| {
        let (key, datum) = compiled(key, datum.as_ref());
        let set = have.sets.get(&set.to_string());
        set.and_then(|set| set.elements.get(&key)) == Some(&datum)
    };
    match elements.iter().filter(|each| is_there(*each)).count() {
        count if count == elements.len() => There::All,
        0 => There::None,
        _ => There::Some,
    }
}

/// Whether all elements of a port are there.
pub(crate) fn is_there(port: &PortPlan, have: &Compiled) -> bool {
    there(port, have) == There::All
}
