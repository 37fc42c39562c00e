//! Field paths and field errors, worded as apimachinery's `field` package words them.

use std::fmt;

use serde_json::Value;

use crate::Cause;

/// A path to a field, built on the stack and written out only for an error.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Child(&'a str),
    Member(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A path of one name.
    pub fn root(name: &'a str) -> Self {
        Self {
            parent: None,
            step: Step::Child(name),
        }
    }

    /// `path.name`.
    pub fn child(&'a self, name: &'a str) -> Self {
        self.step(Step::Child(name))
    }

    /// `path.key` of a map, which is no name of a field.
    pub fn member(&'a self, key: &'a str) -> Self {
        self.step(Step::Member(key))
    }

    /// `path[index]`.
    pub fn index(&'a self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// `path[key]`.
    pub fn key(&'a self, key: &'a str) -> Self {
        self.step(Step::Key(key))
    }

    fn step(&'a self, step: Step<'a>) -> Self {
        Self {
            parent: Some(self),
            step,
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Child(name) | Step::Member(name)
                if self.parent.is_some_and(|p| !p.is_empty()) =>
            {
                write!(f, ".{name}")
            }
            Step::Child(name) | Step::Member(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

impl Path<'_> {
    /// The names alone, without indices and keys, as Go's JSON errors write paths.
    pub fn names(&self) -> String {
        let mut out = self.parent.map(Path::names).unwrap_or_default();
        if let Step::Child(name) = self.step {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(name);
        }
        out
    }

    fn is_empty(&self) -> bool {
        self.parent.is_none() && matches!(self.step, Step::Child(""))
    }
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It names something that is not there.
    NotFound,
    /// It must be set.
    Required,
    /// It must be unique.
    Duplicate,
    /// Its value is malformed.
    Invalid,
    /// Its value is not one of the known ones.
    NotSupported,
    /// It may not be set here.
    Forbidden,
    /// It is longer than allowed.
    TooLong,
    /// It has more items than allowed.
    TooMany,
    /// Its JSON type is wrong.
    TypeInvalid,
}

impl ErrorKind {
    fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }
}

/// One error of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// Where.
    pub field: String,
    /// The sentence without the field, for example `Invalid value: "x": why`.
    pub message: String,
}

impl FieldError {
    /// The cause as `details.causes` carries it.
    pub fn cause(&self) -> Cause {
        Cause {
            reason: self.kind.reason().to_owned(),
            field: self.field.clone(),
            message: self.message.clone(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Errors joined into one sentence: alone as it is, more as `[a, b]` without repeats.
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        _ => format!("[{}]", texts.join(", ")),
    }
}

/// A string quoted as Go's `%q` does.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

/// The errors found so far.
#[derive(Debug, Default)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// True where nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many were found.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What kinds of errors were found.
    pub fn kinds(&self) -> impl Iterator<Item = ErrorKind> {
        self.0.iter().map(|error| error.kind)
    }

    /// Adds errors found elsewhere.
    pub fn extend(&mut self, more: Vec<FieldError>) {
        self.0.extend(more);
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    fn push(&mut self, kind: ErrorKind, path: &Path<'_>, value: Option<String>, detail: &str) {
        let mut message = kind.words().to_owned();
        for part in [value.as_deref().unwrap_or_default(), detail] {
            if !part.is_empty() {
                message.push_str(": ");
                message.push_str(part);
            }
        }
        self.0.push(FieldError {
            kind,
            field: path.to_string(),
            message,
        });
    }

    /// `Required value: detail`.
    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.push(ErrorKind::Required, path, None, detail);
    }

    /// `Invalid value: "x": detail`.
    pub fn invalid(&mut self, path: &Path<'_>, value: &Value, detail: &str) {
        self.push(ErrorKind::Invalid, path, Some(shown(value)), detail);
    }

    /// `Invalid value: "x": detail` for text.
    pub fn invalid_text(&mut self, path: &Path<'_>, value: &str, detail: &str) {
        self.push(ErrorKind::Invalid, path, Some(quote(value)), detail);
    }

    /// `Invalid value: detail`, where the value is too large to be shown.
    pub fn invalid_without_value(&mut self, path: &Path<'_>, detail: &str) {
        self.push(ErrorKind::Invalid, path, None, detail);
    }

    /// `Invalid value: SHOWN: detail` for a value that Go writes in its own order.
    pub fn invalid_shown(&mut self, path: &Path<'_>, shown: String, detail: &str) {
        self.push(ErrorKind::Invalid, path, Some(shown), detail);
    }

    /// `Duplicate value: SHOWN`, likewise.
    pub fn duplicate_shown(&mut self, path: &Path<'_>, shown: String) {
        self.push(ErrorKind::Duplicate, path, Some(shown), "");
    }

    /// `Unsupported value: SHOWN: supported values: ...`, likewise.
    pub fn not_supported_shown(&mut self, path: &Path<'_>, shown: String, supported: &[&str]) {
        let quoted: Vec<String> = supported.iter().map(|s| quote(s)).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        self.push(ErrorKind::NotSupported, path, Some(shown), &detail);
    }

    /// `Invalid value: "string": detail`: a value of the wrong JSON type.
    pub fn type_invalid(&mut self, path: &Path<'_>, value: &Value, detail: &str) {
        self.push(ErrorKind::TypeInvalid, path, Some(shown(value)), detail);
    }

    /// `Unsupported value: "x": supported values: "a", "b"`.
    pub fn not_supported(&mut self, path: &Path<'_>, value: &Value, supported: &[&str]) {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = supported.iter().map(|s| quote(s)).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        self.push(ErrorKind::NotSupported, path, Some(shown(value)), &detail);
    }

    /// `Duplicate value: "x"`.
    pub fn duplicate(&mut self, path: &Path<'_>, value: &Value) {
        self.push(ErrorKind::Duplicate, path, Some(shown(value)), "");
    }

    /// `Not found: "x"`.
    pub fn not_found(&mut self, path: &Path<'_>, value: &Value) {
        self.push(ErrorKind::NotFound, path, Some(shown(value)), "");
    }

    /// `Forbidden: detail`.
    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.push(ErrorKind::Forbidden, path, None, detail);
    }

    /// `Too long: may not be more than N bytes`.
    pub fn too_long(&mut self, path: &Path<'_>, most: usize) {
        let unit = if most == 1 { "byte" } else { "bytes" };
        let detail = format!("may not be more than {most} {unit}");
        self.push(ErrorKind::TooLong, path, None, &detail);
    }

    /// `Too many: N: must have at most M items`.
    pub fn too_many(&mut self, path: &Path<'_>, actual: usize, most: usize) {
        let unit = if most == 1 { "item" } else { "items" };
        let detail = format!("must have at most {most} {unit}");
        self.push(ErrorKind::TooMany, path, Some(actual.to_string()), &detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_go_writes_them() {
        let spec = Path::root("spec");
        let ports = spec.child("ports");
        let first = ports.index(0);
        assert_eq!(first.child("name").to_string(), "spec.ports[0].name");
        let labels = Path::root("metadata");
        let labels = labels.child("labels");
        assert_eq!(labels.key("a/b").to_string(), "metadata.labels[a/b]");
    }

    #[test]
    fn quoting_is_gos() {
        assert_eq!(quote("a\"b\\\n\u{1}é"), "\"a\\\"b\\\\\\n\\x01é\"");
    }
}
