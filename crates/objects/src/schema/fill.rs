//! Defaults and list uniqueness of custom resources, from their schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{ListType, Schema, Shape, Source, View};
use crate::Object;
use crate::validation::field::{Errors, Path};

impl Schema {
    /// Fills the defaults a CRD's schema names.
    pub fn fill(&self, object: &mut Object) {
        if self.is_custom() {
            fill(self.root(), object);
        }
    }

    /// Checks a custom resource's values against the CRD's schema.
    pub(crate) fn check(&self, object: &Object, errors: &mut Errors) {
        if let Source::Custom(custom) = &self.0 {
            custom.rules.check(object, &Path::root(""), errors);
            unique(self.root(), object, &Path::root(""), errors);
            if let Some(cel) = &custom.cel {
                cel.check(object, errors);
            }
        }
    }
}

/// null where null is no value stands for a missing one.
fn wants_default(view: View<'_>, value: Option<&Value>) -> bool {
    match value {
        None => true,
        Some(value) => value.is_null() && !view.node().nullable,
    }
}

fn fill(view: View<'_>, value: &mut Value) {
    match (view.shape(), value) {
        (Shape::Object { fields, .. }, Value::Object(map)) => {
            for field in fields {
                let child = view.at(field.node);
                if let Some(default) = &child.node().default
                    && wants_default(child, map.get(&*field.name))
                {
                    map.insert(field.name.to_string(), default.clone());
                }
                if let Some(value) = map.get_mut(&*field.name) {
                    fill(child, value);
                }
            }
        }
        (Shape::Map { values, .. }, Value::Object(map)) => {
            let child = view.at(*values);
            for value in map.values_mut() {
                fill_item(child, value);
            }
        }
        (Shape::List { items, .. }, Value::Array(list)) => {
            let child = view.at(*items);
            for value in list {
                fill_item(child, value);
            }
        }
        _ => {}
    }
}

fn fill_item(view: View<'_>, value: &mut Value) {
    if let Some(default) = &view.node().default
        && wants_default(view, Some(value))
    {
        *value = default.clone();
    }
    fill(view, value);
}

/// The key fields of an item of a list of type map, defaults filled in.
pub(crate) fn keys_of(items: View<'_>, keys: &[String], item: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    for key in keys {
        let value = item.get(key).filter(|v| !v.is_null()).cloned();
        let value = value.or_else(|| items.child(key).and_then(|v| v.node().default.clone()));
        if let Some(value) = value {
            found.insert(key.clone(), value);
        }
    }
    found
}

fn unique(view: View<'_>, value: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (view.shape(), value) {
        (Shape::Object { .. } | Shape::Map { .. }, Value::Object(map)) => {
            for (key, value) in map {
                if let Some(child) = view.child(key) {
                    unique(child, value, &path.child(key), errors);
                }
            }
        }
        (Shape::List { items, list }, Value::Array(values)) => {
            let items = view.at(*items);
            let mut seen: BTreeMap<String, u32> = BTreeMap::new();
            for (index, value) in values.iter().enumerate() {
                let at = path.index(index);
                let identity = match list {
                    ListType::Atomic => None,
                    ListType::Set => Some(value.clone()),
                    ListType::Map(keys) => Some(Value::Object(keys_of(items, keys, value))),
                };
                if let Some(identity) = identity {
                    let times = seen.entry(identity.to_string()).or_default();
                    *times += 1;
                    // However often it is there, it is said once.
                    if *times == 2 {
                        errors.duplicate(&at, &identity);
                    }
                }
                unique(items, value, &at, errors);
            }
        }
        _ => {}
    }
}
