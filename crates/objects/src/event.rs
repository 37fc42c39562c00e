//! Events: core/v1 and events.k8s.io/v1 are two spellings of one stored object.

use serde_json::{Map, Value};

use crate::Object;

/// core name, events.k8s.io name
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}

/// Rewrites an events.k8s.io Event as a core one.
pub fn to_core(object: &mut Object) {
    if let Some(map) = object.as_object_mut() {
        for (core, events) in NAMES {
            rename(map, events, core);
        }
        map.insert("apiVersion".into(), "v1".into());
    }
}

/// Rewrites a core Event as an events.k8s.io one.
pub fn from_core(object: &mut Object) {
    if let Some(map) = object.as_object_mut() {
        for (core, events) in NAMES {
            rename(map, core, events);
        }
        map.insert("apiVersion".into(), "events.k8s.io/v1".into());
    }
}
