//! What a plan asks for.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use api::events::Severity;

use super::store::Key;
use super::world::Kind;

/// What to do, in this order, and when to plan again by itself.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do.
    pub steps: Vec<Step>,
    /// When time alone will change the answer.
    pub again: Option<Timestamp>,
}

impl Plan {
    /// Adds one action.
    pub fn push(&mut self, action: Action) {
        self.steps.push(Step::One(Box::new(action)));
    }

    /// Adds an action, if there is one.
    pub fn push_some(&mut self, action: Option<Action>) {
        if let Some(action) = action {
            self.push(action);
        }
    }

    /// Asks for a new plan at `when`, or earlier.
    pub fn again_at(&mut self, when: Timestamp) {
        self.again = Some(self.again.map_or(when, |other| other.min(when)));
    }

    /// The actions of all steps.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.steps.iter().flat_map(|step| match step {
            Step::One(action) => std::slice::from_ref(action.as_ref()),
            Step::Each(actions) | Step::SlowStart(actions) => actions.as_slice(),
        })
    }
}

/// Actions that belong together.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// One.
    One(Box<Action>),
    /// All at once; one failure does not stop the others.
    Each(Vec<Action>),
    /// 1, 2, 4, 8, ... at once; the first failure stops: what cannot work is not tried a
    /// thousand times.
    SlowStart(Vec<Action>),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make an object.
    Create {
        /// Kind.
        kind: Kind,
        /// Namespace, or empty.
        namespace: String,
        /// The object.
        body: Value,
        /// Events to write about it.
        note: Option<Note>,
    },
    /// Change an object.
    Patch {
        /// Kind.
        kind: Kind,
        /// Which.
        key: Key,
        /// Subresource, or empty.
        sub: &'static str,
        /// True for a strategic merge, false for a plain one.
        strategic: bool,
        /// The patch.
        body: Value,
    },
    /// Delete an object.
    Delete {
        /// Kind.
        kind: Kind,
        /// Which.
        key: Key,
        /// Only if it is still this one.
        uid: String,
        /// `gracePeriodSeconds`, where not the object's own.
        grace: Option<u32>,
        /// Events to write about it.
        note: Option<Note>,
    },
    /// Bind a pod to a node.
    Bind {
        /// The pod.
        key: Key,
        /// Only if it is still this one.
        uid: String,
        /// The node.
        node: String,
    },
    /// Write an Event.
    Event {
        /// On what.
        on: ObjectReference,
        /// How bad.
        severity: Severity,
        /// Reason.
        reason: &'static str,
        /// The sentence.
        message: String,
    },
}

/// Events about a creation or deletion, written when its outcome is known. The object's
/// name, or the failure, is appended to the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// On what.
    pub on: ObjectReference,
    /// Reason and text on success, where there is more to say than the caller can.
    pub done: Option<(&'static str, String)>,
    /// Reason and text on failure.
    pub failed: (&'static str, String),
}

impl Action {
    /// Make `object`.
    pub fn create<K: Serialize>(kind: Kind, namespace: &str, object: &K) -> Self {
        Self::Create {
            kind,
            namespace: namespace.to_owned(),
            body: value(object),
            note: None,
        }
    }

    /// Merge `body` into an object.
    pub fn patch(kind: Kind, key: &Key, body: Value) -> Self {
        Self::Patch {
            kind,
            key: key.clone(),
            sub: "",
            strategic: false,
            body,
        }
    }

    /// Make an object's status `new`; None where `old` already says it.
    pub fn status<S: Serialize>(kind: Kind, key: &Key, old: Option<&S>, new: &S) -> Option<Self> {
        let old = old.map_or(Value::Null, value);
        let mut new = value(new);
        if stated(&old) == stated(&new) {
            return None;
        }
        // A merge keeps what it does not name.
        if let (Some(old), Some(new)) = (old.as_object(), new.as_object_mut()) {
            for field in old.keys() {
                new.entry(field.clone()).or_insert(Value::Null);
            }
        }
        Some(Self::Patch {
            kind,
            key: key.clone(),
            sub: "status",
            strategic: false,
            body: json!({"status": new}),
        })
    }

    /// Delete an object.
    pub fn delete(kind: Kind, key: &Key, uid: &str) -> Self {
        Self::Delete {
            kind,
            key: key.clone(),
            uid: uid.to_owned(),
            grace: None,
            note: None,
        }
    }

    /// The same with Events about the outcome.
    #[must_use]
    pub fn noted(mut self, about: Note) -> Self {
        if let Self::Create { note, .. } | Self::Delete { note, .. } = &mut self {
            *note = Some(about);
        }
        self
    }
}

/// As JSON. The types of the Kubernetes API always have such a form.
pub fn value<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).unwrap_or(Value::Null)
}

/// What a status says beyond nothing: API servers leave out zeros and empty lists.
fn stated(status: &Value) -> Vec<(&String, &Value)> {
    let fields = status.as_object().into_iter().flatten();
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Number(number) => number.as_i64() != Some(0),
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    };
    fields.filter(|(_, value)| says(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_written_only_where_it_says_something_else() {
        let key = Key::new("d", "a");
        let old = json!({"replicas": 2, "conditions": [1]});
        let write = |new| Action::status(Kind::Pod, &key, Some(&old), &new);
        assert_eq!(
            write(json!({"replicas": 2, "conditions": [1], "ready": 0})),
            None
        );
        let Some(Action::Patch { body, .. }) = write(json!({"replicas": 3})) else {
            panic!("no patch");
        };
        assert_eq!(body, json!({"status": {"replicas": 3, "conditions": null}}));
    }
}
