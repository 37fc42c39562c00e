//! What templates may refer to.

use std::collections::BTreeMap;

use crate::expression::Value;
use crate::query::Query;

/// Fields that there are.
const FIELDS: [&str; 11] = [
    "Zone", "Name", "Regex", "Match", "Group", "Class", "Type", "Message", "Question", "Remote",
    "Var",
];
const OF_QUESTION: [&str; 3] = ["Name", "Qtype", "Qclass"];
const OF_MESSAGE: [&str; 5] = [
    "Id",
    "Opcode",
    "RecursionDesired",
    "AuthenticatedData",
    "CheckingDisabled",
];

/// What templates may refer to.
#[derive(Debug)]
pub struct Data<'a> {
    /// The query.
    pub query: &'a Query,
    /// `.Zone`.
    pub zone: String,
    /// `.Regex`.
    pub regex: &'a str,
    /// `.Match`.
    pub matched: Vec<String>,
    /// `.Group`.
    pub groups: BTreeMap<String, String>,
    /// `.Class`.
    pub class: String,
    /// `.Type`.
    pub kind: String,
    /// `.Var`.
    pub variables: Vec<(String, Value)>,
}

/// Checks that there is such a field.
pub(super) fn check(path: &[String]) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        return Ok(());
    };
    if !FIELDS.contains(&first.as_str()) {
        return Err(format!("there is no .{first}, but .{}", FIELDS.join(", .")));
    }
    let within = match first.as_str() {
        "Question" => OF_QUESTION.as_slice(),
        "Message" => OF_MESSAGE.as_slice(),
        "Group" | "Var" => return Ok(()),
        _ => &[],
    };
    match rest {
        [] if matches!(first.as_str(), "Question" | "Message") => Err(format!(
            "of .{first} there are only .{}",
            within.join(", .")
        )),
        [] => Ok(()),
        [field] if within.contains(&field.as_str()) => Ok(()),
        [field, ..] => Err(format!("there is no .{first}.{field}")),
    }
}

impl Data<'_> {
    /// The value of a field.
    pub(super) fn field(&self, path: &[String]) -> Result<Value, String> {
        let missing = || format!("there is no .{}", path.join("."));
        let (first, rest) = path.split_first().ok_or("the whole data is no text")?;
        let text = |text: &str| Value::Text(text.to_owned());
        let value = match first.as_str() {
            "Zone" => text(&self.zone),
            "Name" => Value::Text(self.query.question.name.lower().to_string()),
            "Regex" => text(self.regex),
            "Match" => Value::List(self.matched.iter().map(|group| text(group)).collect()),
            "Group" => match rest {
                [] => {
                    let pair = |(name, group): (&String, &String)| (name.clone(), text(group));
                    Value::Map(self.groups.iter().map(pair).collect())
                }
                // A group that there is not is empty.
                [name, ..] => return Ok(text(self.groups.get(name).map_or("", String::as_str))),
            },
            "Class" => text(&self.class),
            "Type" => text(&self.kind),
            "Remote" => Value::Text(self.query.client.ip().to_canonical().to_string()),
            "Var" => Value::Map(self.variables.iter().cloned().collect()),
            "Question" => {
                let question = &self.query.question;
                match rest.first().map(String::as_str) {
                    Some("Name") => return Ok(Value::Text(question.name.to_string())),
                    Some("Qtype") => return Ok(Value::Int(question.kind.0.into())),
                    Some("Qclass") => return Ok(Value::Int(question.class.0.into())),
                    _ => return Err(missing()),
                }
            }
            "Message" => {
                return Ok(match rest.first().map(String::as_str) {
                    Some("Id") => Value::Int(self.query.id.into()),
                    Some("Opcode") => Value::Int(0),
                    Some("RecursionDesired") => Value::Bool(self.query.recursion_desired),
                    Some("AuthenticatedData") => Value::Bool(self.query.authentic),
                    Some("CheckingDisabled") => Value::Bool(self.query.checking_disabled),
                    _ => return Err(missing()),
                });
            }
            _ => return Err(missing()),
        };
        within(value, rest)
    }
}

/// A field of a value.
pub(super) fn within(mut value: Value, path: &[String]) -> Result<Value, String> {
    for field in path {
        value = match value {
            Value::Map(mut map) => map.remove(field).unwrap_or_default(),
            other => return Err(format!("{} has no .{field}", other.kind())),
        };
    }
    Ok(value)
}
