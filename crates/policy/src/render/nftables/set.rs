//! A set of the plan as one of the kernel.

use std::collections::BTreeMap;

use nft::{CompiledSet, Datum, ElementKey, Set as NftSet, Type, Value};

use super::base::ip_type;
use crate::plan::{Element, Live, Set, What};

/// Its name.
pub(super) fn name(set: &Set) -> String {
    let kind = match set.what {
        What::Pods(_) | What::Named { .. } | What::Nodes(_) => "peers",
        What::Blocks(_) => "blocks",
        What::Ports(_) => "ports",
    };
    format!("{kind}-{:016x}", set.id().0)
}

/// Whether a set of the kernel is one that lists look things up in, by its name.
pub(super) fn is_peers(name: &str) -> bool {
    ["peers-", "blocks-", "ports-"]
        .iter()
        .any(|kind| name.starts_with(kind))
}

/// Its definition with its elements.
pub(super) fn typed(live: &Live) -> NftSet {
    let mut set = definition(&live.set);
    for element in &live.elements {
        set.add(values(element));
    }
    set
}

fn definition(set: &Set) -> NftSet {
    let ip = ip_type(set.v6);
    match set.what {
        What::Pods(_) | What::Nodes(_) => NftSet::of([ip]),
        What::Named { .. } => NftSet::of([ip, Type::Proto, Type::Port]),
        What::Blocks(_) => NftSet {
            interval: true,
            ..NftSet::of([ip])
        },
        What::Ports(_) => NftSet::of([Type::Proto, Type::Port]),
    }
}

/// Elements of a set as they are in the kernel.
pub(super) type Elements = Vec<(ElementKey, Option<Datum>)>;

/// Its definition as it is in the kernel, and its elements.
pub(super) fn compiled(live: &Live) -> (CompiledSet, Elements) {
    let mut set = typed(live).compile();
    close(&mut set);
    let elements = std::mem::take(&mut set.elements);
    (set, elements.into_iter().collect())
}

/// Networks that touch are one range: where one ends, the next does not begin.
pub(super) fn close(set: &mut CompiledSet) {
    if !set.interval {
        return;
    }
    let mut closed = BTreeMap::new();
    let mut end: Option<ElementKey> = None;
    for (key, datum) in std::mem::take(&mut set.elements) {
        if !key.starts {
            end = Some(key);
        } else if end.as_ref().is_some_and(|end| end.key == key.key) {
            end = None;
        } else {
            closed.extend(end.take().map(|end| (end, None)));
            closed.insert(key, datum);
        }
    }
    closed.extend(end.map(|end| (end, None)));
    set.elements = closed;
}

/// The key of an element of a set without ranges.
pub(super) fn key(element: &Element) -> ElementKey {
    ElementKey::of(&values(element))
}

fn values(element: &Element) -> Vec<Value> {
    match element {
        Element::Ip(ip) => vec![Value::from(*ip)],
        Element::IpPort(ip, protocol, port) => vec![
            Value::from(*ip),
            Value::Proto(protocol.number()),
            Value::Port(*port),
        ],
        Element::Net(net) => vec![Value::Net(*net)],
        Element::Port(protocol, port) => {
            vec![Value::Proto(protocol.number()), Value::Port(*port)]
        }
    }
}
