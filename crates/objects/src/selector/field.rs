//! `fieldSelector`: which fields a kind can be selected by, and their values.

use serde_json::Value;

use crate::{Kind, Object, Status};

const EVENT: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
    "metadata.namespace",
    "metadata.name",
];
const POD: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

/// The fields of a kind that upstream registers by hand; others select by name and namespace.
fn registered(kind: &Kind) -> Option<&'static [&'static str]> {
    if kind.custom.is_some() {
        return None;
    }
    Some(match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => POD,
        ("", "Event") => EVENT,
        ("", "Node") => &["metadata.name", "spec.unschedulable"],
        ("", "Namespace") => &["metadata.name", "status.phase"],
        ("", "Secret") => &["metadata.name", "metadata.namespace", "type"],
        ("", "Service") => &[
            "metadata.name",
            "metadata.namespace",
            "spec.clusterIP",
            "spec.type",
        ],
        _ => return None,
    })
}

/// The stored field a label stands for, or the sentence that refuses it.
fn field_of(kind: &Kind, label: &str) -> Result<String, String> {
    let unsupported = || format!("field label not supported: {label}");
    if kind.group == "events.k8s.io" {
        let stored = match label.split_once('.') {
            Some(("regarding", rest)) => format!("involvedObject.{rest}"),
            _ if label == "reportingController" => "reportingComponent".to_owned(),
            _ => label.to_owned(),
        };
        let known = EVENT.contains(&stored.as_str())
            && !label.starts_with("involvedObject")
            && !["source", "reportingComponent"].contains(&label);
        return if known {
            Ok(stored)
        } else {
            Err(unsupported())
        };
    }
    if let Some(fields) = registered(kind) {
        // Clients of old wrote spec.host.
        if kind.kind == "Pod" && label == "spec.host" {
            return Ok("spec.nodeName".to_owned());
        }
        return if fields.contains(&label) {
            Ok(label.to_owned())
        } else {
            Err(unsupported())
        };
    }
    let mut known = vec!["metadata.name", "metadata.namespace"];
    if let Some(custom) = &kind.custom {
        known.extend(custom.selectable_fields.iter().map(String::as_str));
    }
    if known.contains(&label) {
        return Ok(label.to_owned());
    }
    if kind.custom.is_some() {
        return Err(unsupported());
    }
    Err(format!(
        "\"{label}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    ))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

/// A parsed `fieldSelector`: every term must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Parses `metadata.name=a,spec.nodeName!=b`; a field the kind cannot select by is a 400.
    pub fn parse(text: &str, kind: &Kind) -> Result<Self, Status> {
        let mut terms = Vec::new();
        let mut parts = split_terms(text);
        parts.sort_unstable();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let Some((label, equal, value)) = split_term(part) else {
                return Err(Status::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                )));
            };
            let value = unescape(value).map_err(Status::bad_request)?;
            let field = field_of(kind, label).map_err(Status::bad_request)?;
            terms.push(Term {
                field,
                value,
                equal,
            });
        }
        Ok(Self { terms })
    }

    /// True where every object matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value this field must have, if a term says so: `metadata.name` answers a list by name.
    pub fn exact(&self, field: &str) -> Option<&str> {
        let term = self.terms.iter().find(|t| t.equal && t.field == field)?;
        Some(&term.value)
    }

    /// True where the fields of the object, in its stored form, match.
    pub fn matches(&self, object: &Object) -> bool {
        self.terms
            .iter()
            .all(|t| (value_of(object, &t.field) == t.value) == t.equal)
    }
}

/// A field as text; a missing one is empty, or false where the field is a truth value.
fn value_of(object: &Object, field: &str) -> String {
    match field {
        // The set upstream selects from has no entry for it, so it is always empty.
        "status.podIPs" => return String::new(),
        "status.podIP" => {
            return object["status"]["podIPs"][0]["ip"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
        }
        "source" => {
            let component = object["source"]["component"].as_str().unwrap_or_default();
            if component.is_empty() {
                return value_of(object, "reportingComponent");
            }
            return component.to_owned();
        }
        _ => {}
    }
    let mut value = object;
    for step in field.split('.') {
        value = &value[step];
    }
    match value {
        Value::String(text) => text.clone(),
        Value::Null if matches!(field, "spec.hostNetwork" | "spec.unschedulable") => "false".into(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Comma-separated terms; a backslash keeps a comma in the value.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = term[i..].strip_prefix(operator) {
                return Some((&term[..i], equal, value));
            }
        }
    }
    None
}

fn unescape(text: &str) -> Result<String, String> {
    let bad =
        |sequence: &str| format!("invalid field selector: invalid escape sequence: {sequence}");
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => return Err(bad(&format!("\\{next}"))),
                None => return Err(bad("\\")),
            },
            ',' | '=' => {
                return Err(format!(
                    "invalid field selector: unescaped character in value: {}",
                    c as u32
                ));
            }
            _ => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind::builtin;

    fn kind(group: &str, name: &str) -> std::sync::Arc<Kind> {
        let all = builtin();
        let found = all.iter().find(|k| k.group == group && k.kind == name);
        found.unwrap().clone()
    }

    #[test]
    fn pods_by_node_and_phase() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
        let selects = |s: &str| {
            FieldSelector::parse(s, &kind("", "Pod"))
                .unwrap()
                .matches(&pod)
        };
        assert!(selects("spec.nodeName=n1,status.phase!=Failed"));
        assert!(selects(
            "spec.host==n1,spec.hostNetwork=false,status.podIP=10.0.0.1"
        ));
        assert!(!selects("spec.nodeName="));
        assert!(selects(""));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = |s: &str, k: &str| FieldSelector::parse(s, &kind("", k)).unwrap_err();
        assert_eq!(
            error("spec.foo=1", "Pod").message,
            "field label not supported: spec.foo"
        );
        assert_eq!(error("spec.foo=1", "Pod").code, 400);
        assert_eq!(
            error("a=1", "ConfigMap").message,
            "\"a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        assert_eq!(
            error("a", "Pod").message,
            "invalid selector: 'a'; can't understand 'a'"
        );
    }

    #[test]
    fn events_in_both_spellings() {
        let event = json!({"involvedObject": {"name": "a", "kind": "Pod"}, "source": {"component": "kubelet"}});
        let core = FieldSelector::parse("involvedObject.name=a,source=kubelet", &kind("", "Event"));
        assert!(core.unwrap().matches(&event));
        let new = FieldSelector::parse("regarding.kind=Pod", &kind("events.k8s.io", "Event"));
        assert!(new.unwrap().matches(&event));
        assert!(FieldSelector::parse("source=x", &kind("events.k8s.io", "Event")).is_err());
    }

    #[test]
    fn escapes() {
        let s = FieldSelector::parse("metadata.name=a\\,b", &kind("", "ConfigMap")).unwrap();
        assert_eq!(s.exact("metadata.name"), Some("a,b"));
        let error = FieldSelector::parse("metadata.name=a=b", &kind("", "ConfigMap")).unwrap_err();
        assert_eq!(
            error.message,
            "invalid field selector: unescaped character in value: 61"
        );
    }
}
