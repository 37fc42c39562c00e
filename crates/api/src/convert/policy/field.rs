//! Fields of an object and what is wrong with them.

use std::fmt;

use serde_json::{Map, Value};

use crate::convert::Wrong;

/// It cannot be understood, and that has been told.
#[derive(Debug)]
pub(super) struct Told;

/// What is wrong with an object, as far as it has been read.
#[derive(Default)]
pub(super) struct Problems(pub Vec<Wrong>);

impl Problems {
    /// Tells what is wrong with a field.
    pub fn tell<T>(&mut self, at: &Path<'_>, cause: impl Into<String>) -> Result<T, Told> {
        self.0.push(Wrong {
            field: at.to_string(),
            cause: cause.into(),
        });
        Err(Told)
    }
}

/// Where a field is.
pub(super) struct Path<'a> {
    up: Option<&'a Path<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// `spec`.
    pub const SPEC: Path<'static> = Path {
        up: None,
        step: Step::Field("spec"),
    };

    /// A field of it.
    pub fn field(&'a self, name: &'a str) -> Self {
        self.step(Step::Field(name))
    }

    /// An item of it.
    pub fn index(&'a self, at: usize) -> Self {
        self.step(Step::Index(at))
    }

    /// What it has under a key.
    pub fn key(&'a self, key: &'a str) -> Self {
        self.step(Step::Key(key))
    }

    fn step(&'a self, step: Step<'a>) -> Self {
        let up = Some(self);
        Self { up, step }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(up) = self.up {
            up.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.up.is_none() => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(at) => write!(f, "[{at}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

static NULL: Value = Value::Null;

/// An object with fields; what is not written is null.
#[derive(Clone, Copy, Default)]
pub(super) struct Object<'v>(Option<&'v Map<String, Value>>);

impl<'v> Object<'v> {
    /// The value of a field.
    pub fn get(self, name: &str) -> &'v Value {
        self.0.and_then(|map| map.get(name)).unwrap_or(&NULL)
    }

    /// Whether a field is written.
    pub fn has(self, name: &str) -> bool {
        !self.get(name).is_null()
    }

    /// Its fields.
    pub fn iter(self) -> impl Iterator<Item = (&'v str, &'v Value)> {
        let fields = self.0.into_iter().flatten();
        fields.map(|(name, value)| (name.as_str(), value))
    }

    /// Whether it has these fields only. Another one may mean anything.
    pub fn only(self, at: &Path<'_>, fields: &[&str], problems: &mut Problems) -> Result<(), Told> {
        let known = |name: &str| fields.contains(&name);
        let mut others = self.iter().filter(|(_, value)| !value.is_null());
        match others.find(|(name, _)| !known(name)) {
            None => Ok(()),
            Some((name, _)) => problems.tell(
                &at.field(name),
                format!("is not known here; choose {}", choice(fields)),
            ),
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn choice(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

pub(super) fn object<'v>(
    value: &'v Value,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Result<Object<'v>, Told> {
    match value {
        Value::Null => Ok(Object(None)),
        Value::Object(map) => Ok(Object(Some(map))),
        _ => problems.tell(at, "is not an object"),
    }
}

pub(super) fn list<'v>(
    value: &'v Value,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Result<&'v [Value], Told> {
    match value {
        Value::Null => Ok(&[]),
        Value::Array(items) => Ok(items),
        _ => problems.tell(at, "is not a list"),
    }
}

/// Text; empty where nothing is written.
pub(super) fn text<'v>(
    value: &'v Value,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Result<&'v str, Told> {
    match value {
        Value::Null => Ok(""),
        Value::String(text) => Ok(text),
        _ => problems.tell(at, "is not text"),
    }
}

/// One of some words.
pub(super) fn word<T: Copy>(
    value: &Value,
    at: &Path<'_>,
    words: &[(&str, T)],
    problems: &mut Problems,
) -> Result<T, Told> {
    let text = text(value, at, problems)?;
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let cause = format!("{text:?} is not known; choose {}", choice(&names));
            problems.tell(at, cause)
        }
    }
}
