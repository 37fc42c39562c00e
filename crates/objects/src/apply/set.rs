//! Sets of fields, and their form on the wire (`FieldsV1`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of field paths. Steps are kept as FieldsV1 writes them: `f:name`, `k:{"name":"a"}`, `v:1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(BTreeMap<String, Entry>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// The path up to here is in the set itself.
    member: bool,
    below: FieldSet,
}

impl Entry {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl FieldSet {
    /// True where no path is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a path.
    pub fn insert(&mut self, path: &[String]) {
        if let Some((step, rest)) = path.split_first() {
            let entry = self.0.entry(step.clone()).or_default();
            if rest.is_empty() {
                entry.member = true;
            } else {
                entry.below.insert(rest);
            }
        }
    }

    /// A set of the paths given as steps.
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<String> = path.iter().map(|s| (*s).to_owned()).collect();
            set.insert(&path);
        }
        set
    }

    /// True where the one-step path is a member.
    pub(super) fn has(&self, step: &str) -> bool {
        self.0.get(step).is_some_and(|e| e.member)
    }

    /// The paths that go on below a step.
    pub(super) fn below(&self, step: &str) -> Option<&FieldSet> {
        let below = &self.0.get(step)?.below;
        (!below.is_empty()).then_some(below)
    }

    /// The steps this set starts with.
    pub(super) fn steps(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Makes a step a member and gives what is below it to `change`.
    pub(super) fn mark(&mut self, step: &str, change: impl FnOnce(&mut FieldSet), member: bool) {
        let entry = self.0.entry(step.to_owned()).or_default();
        entry.member |= member;
        change(&mut entry.below);
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        let empty = Entry::default();
        let steps = self.0.keys().chain(other.0.keys());
        let mut out = Self::default();
        for step in steps {
            if out.0.contains_key(step) {
                continue;
            }
            let a = self.0.get(step).unwrap_or(&empty);
            let b = other.0.get(step).unwrap_or(&empty);
            let entry = Entry {
                member: keep(a.member, b.member),
                below: a.below.combine(&b.below, keep),
            };
            if !entry.is_empty() {
                out.0.insert(step.clone(), entry);
            }
        }
        out
    }

    /// Paths in either.
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a || b)
    }

    /// Paths in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && b)
    }

    /// Paths in this and not in the other.
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a && !b)
    }

    /// Paths that neither are in the other nor lie below one that is.
    pub fn without_trees(&self, other: &Self) -> Self {
        let mut out = Self::default();
        for (step, entry) in &self.0 {
            let kept = match other.0.get(step) {
                None => entry.clone(),
                Some(cut) if cut.member => continue,
                Some(cut) => Entry {
                    member: entry.member,
                    below: entry.below.without_trees(&cut.below),
                },
            };
            if !kept.is_empty() {
                out.0.insert(step.clone(), kept);
            }
        }
        out
    }

    /// Every path, as conflicts show them: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        for (step, entry) in &self.0 {
            let path = format!("{prefix}{}", shown(step));
            if entry.member {
                out.push(path.clone());
            }
            entry.below.collect(&path, out);
        }
    }

    /// The set as FieldsV1.
    pub fn to_value(&self) -> Value {
        let entries = self.0.iter().map(|(step, entry)| {
            let mut below = entry.below.to_value();
            if entry.member && !entry.below.is_empty() {
                below["."] = Value::Object(Map::new());
            }
            (step.clone(), below)
        });
        Value::Object(entries.collect())
    }

    /// The set of a FieldsV1 value; steps nobody knows are left out.
    pub fn from_value(value: &Value) -> Self {
        let mut set = Self::default();
        for (step, below) in value.as_object().into_iter().flatten() {
            if step == "." || !["f:", "k:", "v:", "i:"].iter().any(|p| step.starts_with(p)) {
                continue;
            }
            let empty = below.as_object().is_none_or(Map::is_empty);
            let entry = Entry {
                member: empty || below.get(".").is_some(),
                below: Self::from_value(below),
            };
            set.0.insert(step.clone(), entry);
        }
        set
    }
}

/// One step of a path as people read it.
pub(super) fn shown(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("i", index)) => format!("[{index}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => step.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_wire_form() {
        let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:x": {"v:\"y\"": {}}}});
        let set = FieldSet::from_value(&fields);
        assert_eq!(set.to_value(), fields);
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image",
                ".spec.x[=\"y\"]"
            ]
        );
    }

    fn sets() -> impl Strategy<Value = FieldSet> {
        let step = prop::sample::select(vec!["f:a", "f:b", "k:{\"name\":\"x\"}", "v:1", "i:0"]);
        let path = prop::collection::vec(step.prop_map(str::to_owned), 1..4);
        prop::collection::vec(path, 0..6).prop_map(|paths| {
            let mut set = FieldSet::default();
            paths.iter().for_each(|p| set.insert(p));
            set
        })
    }

    proptest! {
        #[test]
        fn a_set_round_trips_through_fields_v1(set in sets()) {
            prop_assert_eq!(FieldSet::from_value(&set.to_value()), set);
        }

        #[test]
        fn laws(a in sets(), b in sets()) {
            prop_assert_eq!(a.union(&b), b.union(&a));
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert!(a.difference(&b).intersection(&b).is_empty());
        }
    }
}
