//! Decoding as the API server does it: unknown fields pruned and named, nulls dropped,
//! wrong JSON types refused in Go's words, quantities and times in canonical form.

use base64::Engine;
use serde_json::{Map, Value};

use super::{Scalar, Schema, Shape, View};
use crate::quantity::Quantity;
use crate::validation::field::{Errors, Path, quote};
use crate::{Kind, Object, Status};

/// What decoding found besides the object.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    /// Paths of fields the schema does not know, for example `spec.foo`; they were pruned.
    pub unknown: Vec<String>,
    /// The first value of a wrong type, in Go's words.
    pub type_error: Option<String>,
}

/// Most strict errors that are listed, as upstream limits them.
const MAX_UNKNOWN: usize = 100;

impl Decoded {
    /// `unknown field "spec.foo"` for each, as warnings carry them.
    pub fn warnings(&self) -> Vec<String> {
        let text = |path: &String| format!("unknown field {}", quote(path));
        self.unknown.iter().map(text).collect()
    }

    fn sentence(&self, strict: bool) -> Option<String> {
        if let Some(error) = &self.type_error {
            return Some(error.clone());
        }
        (strict && !self.unknown.is_empty())
            .then(|| format!("strict decoding error: {}", self.warnings().join(", ")))
    }

    /// The 400 for a body that cannot be decoded; unknown fields count where `strict`.
    pub fn check(&self, kind: &Kind, strict: bool) -> Result<(), Status> {
        match self.sentence(strict) {
            None => Ok(()),
            Some(sentence) => Err(Status::bad_request(format!(
                "{} in version {} cannot be handled as a {}: {sentence}",
                kind.kind,
                quote(&kind.version),
                kind.kind
            ))),
        }
    }

    /// The 422 for a patch whose result cannot be decoded. `patch` is shown as the value.
    pub fn check_patch(&self, patch: &str, strict: bool) -> Result<(), Status> {
        match self.sentence(strict) {
            None => Ok(()),
            Some(sentence) => {
                let mut errors = Errors::new();
                errors.invalid_text(&Path::root("patch"), patch, &sentence);
                Err(Status::invalid("", "", "", &errors.into_vec()))
            }
        }
    }
}

impl Schema {
    /// Decodes in place. A custom resource is only pruned: its types are validated later.
    pub fn decode(&self, object: &mut Object) -> Decoded {
        let mut decoder = Decoder::default();
        let place = Place {
            path: Path::root(""),
            owner: "",
            typed: !self.is_custom(),
        };
        decoder.value(self.root(), object, &place);
        decoder.found
    }
}

/// Where decoding stands: the path, the Go struct around it, and whether types are Go's.
struct Place<'a> {
    path: Path<'a>,
    owner: &'a str,
    typed: bool,
}

#[derive(Default)]
struct Decoder {
    found: Decoded,
}

impl Decoder {
    fn value(&mut self, view: View<'_>, value: &mut Value, place: &Place<'_>) {
        match view.shape() {
            Shape::Object { name, open, .. } => {
                let Some(map) = self.object_of(view, value, place) else {
                    return;
                };
                let owner = if name.is_empty() { place.owner } else { name };
                map.retain(|key, value| {
                    let path = place.path.child(key);
                    let Some(field) = view.field(key) else {
                        if !open {
                            self.unknown(&path);
                        }
                        return *open;
                    };
                    let child = view.at(field.node);
                    let at = Place {
                        path,
                        owner,
                        // The metadata of a custom resource is Go's ObjectMeta all the same.
                        typed: place.typed || is_typed(child),
                    };
                    if value.is_null() && at.typed {
                        return false;
                    }
                    self.value(child, value, &at);
                    true
                });
            }
            Shape::Map { values, .. } => {
                let Some(map) = self.object_of(view, value, place) else {
                    return;
                };
                let view = view.at(*values);
                for (key, value) in map {
                    let at = Place {
                        path: place.path.member(key),
                        ..*place
                    };
                    self.item(view, value, &at);
                }
            }
            Shape::List { items, .. } => {
                let view = view.at(*items);
                match value {
                    Value::Array(list) => {
                        for (index, value) in list.iter_mut().enumerate() {
                            let at = Place {
                                path: place.path.index(index),
                                ..*place
                            };
                            self.item(view, value, &at);
                        }
                    }
                    other => self.mismatch(other, &go_list(view), place),
                }
            }
            Shape::Scalar(scalar) => {
                if place.typed {
                    self.scalar(*scalar, value, place);
                }
            }
            Shape::Any { .. } => {}
        }
    }

    /// An element of a list or map: null becomes the type's zero value, as Go has it.
    fn item(&mut self, view: View<'_>, value: &mut Value, place: &Place<'_>) {
        if value.is_null() && place.typed {
            *value = zero(view);
        }
        self.value(view, value, place);
    }

    fn object_of<'v>(
        &mut self,
        view: View<'_>,
        value: &'v mut Value,
        place: &Place<'_>,
    ) -> Option<&'v mut Map<String, Value>> {
        if !value.is_object() {
            self.mismatch(value, &go_type(view), place);
            return None;
        }
        value.as_object_mut()
    }

    fn unknown(&mut self, path: &Path<'_>) {
        if self.found.unknown.len() < MAX_UNKNOWN {
            self.found.unknown.push(path.to_string());
        }
    }

    fn fail(&mut self, error: String) {
        self.found.type_error.get_or_insert(error);
    }

    fn mismatch(&mut self, value: &Value, wanted: &str, place: &Place<'_>) {
        if !place.typed {
            return;
        }
        let got = match value {
            Value::Null => return,
            Value::Bool(_) => "bool".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
            Value::Number(number) if wanted.starts_with("int") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
        };
        let path = place.path.names();
        self.fail(if path.is_empty() {
            format!("json: cannot unmarshal {got} into Go value of type {wanted}")
        } else {
            format!(
                "json: cannot unmarshal {got} into Go struct field {}.{path} of type {wanted}",
                place.owner
            )
        });
    }

    fn scalar(&mut self, scalar: Scalar, value: &mut Value, place: &Place<'_>) {
        match scalar {
            Scalar::String if value.is_string() => {}
            Scalar::Bool if value.is_boolean() => {}
            Scalar::Float if value.is_number() => {}
            Scalar::Int32 if value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {}
            Scalar::Int64 if value.is_i64() => {}
            Scalar::IntOrString => match value {
                Value::String(_) => {}
                Value::Number(n) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {}
                Value::Number(n) => {
                    let n = n.clone();
                    self.fail(format!(
                        "json: cannot unmarshal number {n} into Go value of type int32"
                    ));
                }
                other => {
                    let got = go_kind(other);
                    self.fail(format!(
                        "json: cannot unmarshal {got} into Go value of type int32"
                    ));
                }
            },
            Scalar::Quantity => self.quantity(value),
            Scalar::Time | Scalar::MicroTime => self.time(scalar, value, place),
            Scalar::Bytes => match value.as_str() {
                Some(text) => {
                    let engine = base64::engine::general_purpose::STANDARD;
                    if let Err(error) = engine.decode(text) {
                        let at = match error {
                            base64::DecodeError::InvalidByte(at, _)
                            | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                            _ => text.len(),
                        };
                        self.fail(format!("illegal base64 data at input byte {at}"));
                    }
                }
                None => self.mismatch(value, "[]uint8", place),
            },
            _ => self.mismatch(value, go_scalar(scalar), place),
        }
    }

    fn quantity(&mut self, value: &mut Value) {
        let text = match &*value {
            Value::String(text) => text.trim().to_owned(),
            other => other.to_string(),
        };
        match Quantity::parse(&text) {
            Ok(quantity) => {
                let canonical = quantity.to_string();
                if value.as_str() != Some(&canonical) {
                    *value = canonical.into();
                }
            }
            Err(error) => self.fail(error.to_owned()),
        }
    }

    fn time(&mut self, scalar: Scalar, value: &mut Value, place: &Place<'_>) {
        let Some(text) = value.as_str() else {
            let name = if scalar == Scalar::Time {
                "v1.Time"
            } else {
                "v1.MicroTime"
            };
            self.mismatch(value, name, place);
            return;
        };
        let Ok(time) = text.parse::<jiff::Timestamp>() else {
            let quoted = quote(text);
            self.fail(format!(
                "parsing time {quoted} as \"2006-01-02T15:04:05Z07:00\": cannot parse {quoted} as \"2006\""
            ));
            return;
        };
        let format = if scalar == Scalar::Time {
            "%Y-%m-%dT%H:%M:%SZ"
        } else {
            "%Y-%m-%dT%H:%M:%S.%6fZ"
        };
        let canonical = time.strftime(format).to_string();
        if text != canonical {
            *value = canonical.into();
        }
    }
}

/// ObjectMeta is decoded with Go's types wherever it stands.
fn is_typed(view: View<'_>) -> bool {
    matches!(view.shape(), Shape::Object { name, .. } if &**name == "ObjectMeta")
}

fn zero(view: View<'_>) -> Value {
    match view.shape() {
        Shape::Object { .. } | Shape::Map { .. } => Value::Object(Map::new()),
        Shape::List { .. } => Value::Array(Vec::new()),
        Shape::Any { .. } => Value::Null,
        Shape::Scalar(scalar) => match scalar {
            Scalar::String | Scalar::Bytes => "".into(),
            Scalar::Bool => false.into(),
            Scalar::Quantity => "0".into(),
            Scalar::Time | Scalar::MicroTime => Value::Null,
            _ => 0.into(),
        },
    }
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn go_scalar(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String => "string",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Float => "float64",
        Scalar::Bool => "bool",
        Scalar::IntOrString => "intstr.IntOrString",
        Scalar::Quantity => "resource.Quantity",
        Scalar::Time => "v1.Time",
        Scalar::MicroTime => "v1.MicroTime",
        Scalar::Bytes => "[]uint8",
    }
}

fn go_list(items: View<'_>) -> String {
    format!("[]{}", go_type(items))
}

fn go_type(view: View<'_>) -> String {
    match view.shape() {
        Shape::Object { name, .. } => format!("v1.{name}"),
        Shape::Map { values, .. } => format!("map[string]{}", go_type(view.at(*values))),
        Shape::List { items, .. } => go_list(view.at(*items)),
        Shape::Scalar(scalar) => go_scalar(*scalar).to_owned(),
        Shape::Any { .. } => "interface {}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decode(group: &str, kind: &str, mut object: Value) -> (Value, Decoded) {
        let found = Schema::builtin(group, "v1", kind).decode(&mut object);
        (object, found)
    }

    #[test]
    fn unknown_fields_are_pruned_and_named() {
        let (object, found) = decode(
            "",
            "Pod",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": null},
                "spec": {"containers": [{"name": "c", "imagee": "x"}], "Hostname": "h"}}),
        );
        assert_eq!(
            found.unknown,
            ["spec.Hostname", "spec.containers[0].imagee"]
        );
        assert_eq!(
            object,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}})
        );
        let kind = crate::kind::builtin()
            .into_iter()
            .find(|k| k.kind == "Pod")
            .unwrap();
        assert_eq!(
            found.check(&kind, true).unwrap_err().message,
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.Hostname\", unknown field \"spec.containers[0].imagee\""
        );
        assert!(found.check(&kind, false).is_ok());
    }

    #[test]
    fn type_errors_are_gos() {
        let error = |group: &str, kind: &str, object| decode(group, kind, object).1.type_error;
        assert_eq!(
            error("apps", "Deployment", json!({"spec": {"replicas": "three"}})).unwrap(),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(
            error("apps", "Deployment", json!({"spec": {"template": {"spec": {"containers": [{"env": [{"name": "A", "value": 1}]}]}}}})).unwrap(),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string"
        );
        assert_eq!(
            error("", "Pod", json!({"spec": {"containers": {}}})).unwrap(),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"
        );
        assert_eq!(
            error("", "ConfigMap", json!({"data": {"a": 1}})).unwrap(),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"
        );
        assert_eq!(
            error("", "Secret", json!({"data": {"a": "=="}})).unwrap(),
            "illegal base64 data at input byte 0"
        );
    }

    #[test]
    fn values_become_canonical() {
        let (object, found) = decode(
            "",
            "Pod",
            json!({"metadata": {"creationTimestamp": "2026-01-01T01:00:00+01:00"},
                "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}]}}),
        );
        assert!(found.type_error.is_none());
        assert_eq!(
            object["metadata"]["creationTimestamp"],
            "2026-01-01T00:00:00Z"
        );
        assert_eq!(
            object["spec"]["containers"][0]["resources"]["limits"],
            json!({"cpu": "500m", "memory": "1Gi"})
        );
    }
}
