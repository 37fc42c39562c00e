//! Rows of custom resources, from the CRD's printer columns.

use serde_json::{Value, json};

use super::{age, human, text};
use crate::crd::CustomVersion;
use crate::jsonpath;

pub(super) fn columns(custom: &CustomVersion) -> Vec<Value> {
    if custom.columns.is_empty() {
        return vec![super::column("Age", "date", 0)];
    }
    let column = |c: &Value| {
        json!({
            "name": text(&c["name"]),
            "type": text(&c["type"]),
            "format": text(&c["format"]),
            "description": text(&c["description"]),
            "priority": c["priority"].as_i64().unwrap_or_default(),
        })
    };
    custom.columns.iter().map(column).collect()
}

pub(super) fn cells(custom: &CustomVersion, object: &Value, now: i64, row: &mut Vec<Value>) {
    if custom.columns.is_empty() {
        row.push(age(object, now));
        return;
    }
    for column in &custom.columns {
        let found = jsonpath::find(object, text(&column["jsonPath"]));
        let value = found.first().copied().filter(|v| !v.is_null());
        row.push(value.map_or(Value::Null, |v| cell(text(&column["type"]), v, now)));
    }
}

fn cell(kind: &str, value: &Value, now: i64) -> Value {
    match kind {
        "integer" => match value.as_i64().or(value.as_f64().map(|f| f as i64)) {
            Some(number) => number.into(),
            None => Value::Null,
        },
        "number" if value.is_number() => value.clone(),
        "boolean" if value.is_boolean() => value.clone(),
        "string" => match value {
            Value::String(_) => value.clone(),
            other => other.to_string().into(),
        },
        "date" => match text(value).parse::<jiff::Timestamp>() {
            Ok(time) => human(now - time.as_second()).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}
