//! Walking values by their schema: which fields they set, how two differ, merging, removing.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::set::FieldSet;
use crate::schema::{ListType, Shape, View, is_always_there, keys_of};

/// A node of the schema; None stands for any JSON, merged field by field.
type Type<'a> = Option<View<'a>>;

/// How a value is owned: as one, field by field, or item by item.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Leaf,
    Fields,
    Items,
}

fn form(view: Type<'_>, value: &Value) -> Form {
    let granular = match view.map(View::shape) {
        None | Some(Shape::Any { granular: true }) => value.is_object(),
        Some(Shape::Object { atomic, .. } | Shape::Map { atomic, .. }) => !atomic,
        Some(Shape::List { list, .. }) => *list != ListType::Atomic,
        Some(Shape::Scalar(_) | Shape::Any { .. }) => false,
    };
    let is_list = matches!(view.map(View::shape), Some(Shape::List { .. }));
    match value {
        Value::Object(_) if granular && !is_list => Form::Fields,
        Value::Array(_) if granular && is_list => Form::Items,
        _ => Form::Leaf,
    }
}

fn field<'a>(view: Type<'a>, name: &str) -> Type<'a> {
    view.and_then(|v| v.child(name))
}

/// True for a field of a struct, false for a key of a map.
fn is_named(view: Type<'_>, name: &str) -> bool {
    view.is_some_and(|v| v.field(name).is_some())
}

fn item(view: Type<'_>) -> Type<'_> {
    view.and_then(View::items)
}

/// The step that names an item of a set or keyed list.
fn element(view: Type<'_>, value: &Value) -> Option<String> {
    let Some(Shape::List { items, list }) = view.map(View::shape) else {
        return None;
    };
    match list {
        ListType::Set => Some(format!("v:{value}")),
        ListType::Map(keys) => {
            let found = keys_of(view?.at(*items), keys, value);
            (found.len() == keys.len()).then(|| format!("k:{}", Value::Object(found)))
        }
        ListType::Atomic => None,
    }
}

/// What is wrong with a configuration's lists and fields, with the path.
pub(super) fn problems(view: Type<'_>, value: &Value, path: &str, out: &mut Vec<String>) {
    match (view.map(View::shape), value) {
        (Some(Shape::Object { open, .. }), Value::Object(map)) => {
            for (name, value) in map {
                let at = format!("{path}.{name}");
                match field(view, name) {
                    Some(child) => problems(Some(child), value, &at, out),
                    None if *open => {}
                    None => out.push(format!("{at}: field not declared in schema")),
                }
            }
        }
        (Some(Shape::Map { .. }), Value::Object(map)) => {
            for (name, value) in map {
                problems(field(view, name), value, &format!("{path}.{name}"), out);
            }
        }
        (Some(Shape::List { list, items }), Value::Array(values)) => {
            let mut seen = Vec::new();
            for (index, value) in values.iter().enumerate() {
                let at = match (list, element(view, value)) {
                    (ListType::Atomic, _) => format!("{path}[{index}]"),
                    (_, Some(step)) => {
                        let shown = super::set::shown(&step);
                        if seen.contains(&step) {
                            out.push(format!("{path}: duplicate entries for key {shown}"));
                        }
                        seen.push(step);
                        format!("{path}{shown}")
                    }
                    (ListType::Map(keys), None) => {
                        let items = view.map(|v| v.at(*items));
                        let missing = keys.iter().find(|k| {
                            value.get(*k).is_none()
                                && field(items, k).is_none_or(|v| v.node().default.is_none())
                        });
                        let key = missing.map(String::as_str).unwrap_or_default();
                        out.push(format!("{path}: element {index}: associative list with keys has an element that omits key field \"{key}\" (and doesn't have default value)"));
                        continue;
                    }
                    (ListType::Set, None) => continue,
                };
                problems(item(view), value, &at, out);
            }
        }
        _ => {}
    }
}

/// The fields a value sets.
pub(super) fn fields_of(view: Type<'_>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    add_fields(view, value, &mut Vec::new(), &mut set);
    set
}

fn add_fields(view: Type<'_>, value: &Value, path: &mut Vec<String>, set: &mut FieldSet) {
    match (form(view, value), value) {
        (Form::Fields, Value::Object(map)) => {
            for (name, value) in map {
                path.push(format!("f:{name}"));
                add_fields(field(view, name), value, path, set);
                let empty = value.as_object().is_some_and(Map::is_empty);
                if value.is_null() || empty || !is_named(view, name) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Form::Items, Value::Array(values)) => {
            for (index, value) in values.iter().enumerate() {
                path.push(element(view, value).unwrap_or_else(|| format!("i:{index}")));
                add_fields(item(view), value, path, set);
                set.insert(path);
                path.pop();
            }
        }
        _ => set.insert(path),
    }
}

/// How one value became another.
#[derive(Clone, Debug, Default)]
pub(super) struct Difference {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

impl Difference {
    /// The difference without what lies in `ignored`.
    pub fn without(&self, ignored: &FieldSet) -> Self {
        Self {
            added: self.added.without_trees(ignored),
            modified: self.modified.without_trees(ignored),
            removed: self.removed.without_trees(ignored),
        }
    }
}

pub(super) fn compare(view: Type<'_>, old: &Value, new: &Value) -> Difference {
    let mut found = Difference::default();
    differ(view, Some(old), Some(new), &mut Vec::new(), &mut found);
    found
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => false,
    }
}

fn differ(
    view: Type<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<String>,
    found: &mut Difference,
) {
    // null takes whatever form the other side has.
    let shape = |v: Option<&Value>| v.filter(|v| !v.is_null()).map(|v| form(view, v));
    let forms = (shape(old), shape(new));
    let form = match forms {
        (Some(a), Some(b)) if a == b => a,
        (Some(a), None) | (None, Some(a)) => a,
        _ => Form::Leaf,
    };
    let leaf = form == Form::Leaf || (is_empty(old) && is_empty(new));
    if !leaf {
        if form == Form::Fields {
            differ_fields(view, old, new, path, found);
        } else {
            differ_items(view, old, new, path, found);
        }
    }
    match (old, new) {
        (None, Some(_)) => found.added.insert(path),
        (Some(_), None) => found.removed.insert(path),
        (Some(old), Some(new)) if leaf && old != new => found.modified.insert(path),
        _ => {}
    }
}

fn differ_fields(
    view: Type<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<String>,
    found: &mut Difference,
) {
    let empty = Map::new();
    let old = old.and_then(Value::as_object).unwrap_or(&empty);
    let new = new.and_then(Value::as_object).unwrap_or(&empty);
    for (name, value) in old {
        path.push(format!("f:{name}"));
        differ(field(view, name), Some(value), new.get(name), path, found);
        path.pop();
    }
    for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        path.push(format!("f:{name}"));
        differ(field(view, name), None, Some(value), path, found);
        path.pop();
    }
}

fn differ_items<'v>(
    view: Type<'_>,
    old: Option<&'v Value>,
    new: Option<&'v Value>,
    path: &mut Vec<String>,
    found: &mut Difference,
) {
    let mut all: BTreeMap<String, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    let list = |value: Option<&'v Value>| -> &'v [Value] {
        value
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    };
    let step = |i: usize, v: &Value| element(view, v).unwrap_or_else(|| format!("i:{i}"));
    for (i, value) in list(old).iter().enumerate() {
        all.entry(step(i, value)).or_default().0.push(value);
    }
    for (i, value) in list(new).iter().enumerate() {
        all.entry(step(i, value)).or_default().1.push(value);
    }
    for (step, (old, new)) in all {
        path.push(step);
        if old.len() > 1 || new.len() > 1 {
            // The same key twice: compared whole, as there is no telling which is which.
            match (old.is_empty(), new.is_empty()) {
                (true, _) => found.added.insert(path),
                (_, true) => found.removed.insert(path),
                _ if old != new => found.modified.insert(path),
                _ => {}
            }
        } else {
            let (old, new) = (old.first().copied(), new.first().copied());
            differ(item(view), old, new, path, found);
        }
        path.pop();
    }
}

/// `config` laid over `live`.
pub(super) fn merge(view: Type<'_>, live: &Value, config: &Value) -> Value {
    match (form(view, live), form(view, config), live, config) {
        (Form::Fields, Form::Fields, Value::Object(live), Value::Object(config)) => {
            let mut out = live.clone();
            for (name, value) in config {
                let merged = match live.get(name) {
                    Some(live) => merge(field(view, name), live, value),
                    None => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            out.into()
        }
        (Form::Items, Form::Items, Value::Array(live), Value::Array(config)) => {
            merge_items(view, live, config).into()
        }
        _ => config.clone(),
    }
}

/// The configuration's order, with the live object's other items where they stood.
fn merge_items(view: Type<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let step = |v: &Value| element(view, v).unwrap_or_else(|| format!("v:{v}"));
    let left: Vec<String> = live.iter().map(step).collect();
    let right: Vec<String> = config.iter().map(step).collect();
    let mut shared = right.iter().filter(|s| left.contains(s));
    let mut next = shared.next();
    let take = |at: usize| match left.iter().position(|s| *s == right[at]) {
        Some(i) => merge(item(view), &live[i], &config[at]),
        None => config[at].clone(),
    };
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            if left[l] == right[r] {
                out.push(take(r));
                (l, r) = (l + 1, r + 1);
                next = shared.next();
                continue;
            }
            if right.contains(&left[l]) && next.is_some_and(|n| *n != left[l]) {
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            if !right.contains(&left[l]) {
                out.push(live[l].clone());
                l += 1;
                continue;
            }
            if right[..r].contains(&left[l]) {
                l += 1;
            }
        }
        if r < right.len() {
            out.push(take(r));
            if next.is_some_and(|n| *n == right[r]) {
                next = shared.next();
            }
            r += 1;
        }
    }
    out
}

/// The value without the fields and items in `set`; a container that loses everything is left empty.
pub(super) fn remove(view: Type<'_>, value: &Value, set: &FieldSet) -> Value {
    match (form(view, value), value) {
        (Form::Fields, Value::Object(map)) => {
            let mut out = Map::new();
            for (name, value) in map {
                let step = format!("f:{name}");
                if !set.has(&step) {
                    let kept = match set.below(&step) {
                        Some(below) => remove(field(view, name), value, below),
                        None => value.clone(),
                    };
                    out.insert(name.clone(), kept);
                }
            }
            out.into()
        }
        (Form::Items, Value::Array(values)) => {
            let mut out = Vec::new();
            for (index, value) in values.iter().enumerate() {
                let step = element(view, value).unwrap_or_else(|| format!("i:{index}"));
                if !set.has(&step) {
                    out.push(match set.below(&step) {
                        Some(below) => remove(item(view), value, below),
                        None => value.clone(),
                    });
                }
            }
            out.into()
        }
        _ => value.clone(),
    }
}

/// Takes away empty maps and lists, which Go does not write; empty structs stay.
pub(super) fn drop_empty(view: Type<'_>, value: &mut Value) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let child = field(view, name);
            drop_empty(child, value);
            let container = matches!(
                child.map(View::shape),
                Some(Shape::Map { .. } | Shape::List { .. })
            );
            !(container && is_empty(Some(value)))
        }),
        Value::Array(list) => list.iter_mut().for_each(|v| drop_empty(item(view), v)),
        _ => {}
    }
}

/// What Go writes of an object nothing is set in: its structs, and null for lists it never omits.
pub(super) fn zero(view: View<'_>) -> Value {
    let mut out = Map::new();
    if let Shape::Object { name, fields, .. } = view.shape() {
        for field in fields {
            let child = view.at(field.node);
            if is_always_there(name, &field.name) {
                out.insert(field.name.to_string(), zero(child));
            } else if &**name == "PodSpec" && &*field.name == "containers" {
                out.insert(field.name.to_string(), Value::Null);
            } else if &*field.name == "metadata" {
                out.insert(field.name.to_string(), Value::Object(Map::new()));
            }
        }
    }
    out.into()
}

/// The set with every struct field on the way to a member made a member as well.
pub(super) fn with_named_fields(view: Type<'_>, set: &FieldSet) -> FieldSet {
    let mut out = set.clone();
    let steps: Vec<String> = set.steps().cloned().collect();
    for step in steps {
        let Some(below) = set.below(&step) else {
            continue;
        };
        let (child, named) = match step.split_once(':') {
            Some(("f", name)) => (field(view, name), is_named(view, name)),
            _ => (item(view), false),
        };
        let below = with_named_fields(child, below);
        out.mark(&step, |place| *place = below, named);
    }
    out
}
