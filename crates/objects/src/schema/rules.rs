//! Value validation of a CRD's schema, in kube-openapi's words.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

use super::formats;
use crate::validation::field::{Errors, FieldError, Path, quote};

#[derive(Debug)]
struct Pattern {
    text: Box<str>,
    /// Compiled when first needed: most patterns of a large CRD never are.
    regex: OnceLock<Option<Regex>>,
}

/// What a schema node demands of a value.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    types: &'static [&'static str],
    nullable: bool,
    format: Option<Box<str>>,
    pattern: Option<Pattern>,
    one_value_of: Box<[Value]>,
    minimum: Option<(f64, bool)>,
    maximum: Option<(f64, bool)>,
    multiple_of: Option<f64>,
    length: (Option<u64>, Option<u64>),
    items_count: (Option<u64>, Option<u64>),
    properties_count: (Option<u64>, Option<u64>),
    unique_items: bool,
    required: Box<[Box<str>]>,
    properties: Box<[(Box<str>, Rules)]>,
    additional: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
    all_of: Box<[Rules]>,
    any_of: Box<[Rules]>,
    one_of: Box<[Rules]>,
    not: Option<Box<Rules>>,
}

fn list(schema: &Value, key: &str) -> Box<[Rules]> {
    let schemas = schema[key].as_array().into_iter().flatten();
    schemas.map(Rules::compile).collect()
}

fn one(schema: &Value, key: &str) -> Option<Box<Rules>> {
    schema
        .get(key)
        .filter(|s| s.is_object())
        .map(|s| Box::new(Rules::compile(s)))
}

fn range(schema: &Value, least: &str, most: &str) -> (Option<u64>, Option<u64>) {
    (schema[least].as_u64(), schema[most].as_u64())
}

impl Rules {
    pub fn compile(schema: &Value) -> Self {
        let int_or_string = schema["x-kubernetes-int-or-string"] == true;
        let types: &[&str] = match schema["type"].as_str() {
            _ if int_or_string => &["integer", "string"],
            Some("string") => &["string"],
            Some("integer") => &["integer"],
            Some("number") => &["number"],
            Some("boolean") => &["boolean"],
            Some("array") => &["array"],
            Some("object") => &["object"],
            _ => &[],
        };
        let bound = |key: &str, exclusive: &str| {
            let limit = schema[key].as_f64()?;
            Some((limit, schema[exclusive] == true))
        };
        let texts = schema["required"].as_array().into_iter().flatten();
        let properties = schema["properties"].as_object().into_iter().flatten();
        Self {
            types,
            nullable: schema["nullable"] == true,
            format: schema["format"].as_str().map(Into::into),
            pattern: schema["pattern"].as_str().map(|text| Pattern {
                text: text.into(),
                regex: OnceLock::new(),
            }),
            one_value_of: schema["enum"]
                .as_array()
                .cloned()
                .unwrap_or_default()
                .into(),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: schema["multipleOf"].as_f64(),
            length: range(schema, "minLength", "maxLength"),
            items_count: range(schema, "minItems", "maxItems"),
            properties_count: range(schema, "minProperties", "maxProperties"),
            unique_items: schema["uniqueItems"] == true,
            required: texts.filter_map(Value::as_str).map(Into::into).collect(),
            properties: properties
                .map(|(name, schema)| (name.as_str().into(), Self::compile(schema)))
                .collect(),
            additional: one(schema, "additionalProperties"),
            items: one(schema, "items"),
            all_of: list(schema, "allOf"),
            any_of: list(schema, "anyOf"),
            one_of: list(schema, "oneOf"),
            not: one(schema, "not"),
        }
    }

    /// Adds what is wrong with the value.
    pub fn check(&self, value: &Value, path: &Path<'_>, errors: &mut Errors) {
        if value.is_null() && self.nullable {
            return;
        }
        let fits = self.types.is_empty() || self.types.iter().any(|t| is_type(t, value));
        if !fits {
            // An integer with a fraction is named by Go's types where its format is one.
            let size = self
                .format
                .as_deref()
                .filter(|_| self.wants_fraction_gone(value));
            let (got, wanted) = match size {
                Some(size) => ("float64", size.to_owned()),
                None => (type_of(value), self.types.join(",")),
            };
            let detail = format!("{path} in body must be of type {wanted}: {}", quote(got));
            errors.type_invalid(path, &got.into(), &detail);
        }
        if !self.one_value_of.is_empty() && !self.one_value_of.contains(value) {
            let known: Vec<String> = self
                .one_value_of
                .iter()
                .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
                .collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            errors.not_supported(path, value, &known);
        }
        if !fits && !self.wants_fraction_gone(value) {
            return;
        }
        match value {
            Value::String(text) => self.check_text(text, value, path, errors),
            Value::Number(number) => {
                if let Some(number) = number.as_f64() {
                    self.check_number(number, value, path, errors);
                }
            }
            Value::Array(values) => self.check_list(values, path, errors),
            Value::Object(map) => self.check_object(map, path, errors),
            _ => {}
        }
        self.check_junctors(value, path, errors);
    }

    /// Whether an integer of a certain size is wanted, and the value is a number between two.
    fn wants_fraction_gone(&self, value: &Value) -> bool {
        self.types == ["integer"]
            && self.format.as_deref() == Some("int32")
            && value.as_f64().is_some_and(|number| number.fract() != 0.0)
    }

    fn check_text(&self, text: &str, value: &Value, path: &Path<'_>, errors: &mut Errors) {
        let count = text.chars().count() as u64;
        if let Some(most) = self.length.1.filter(|most| count > *most) {
            errors.too_long(path, usize::try_from(most).unwrap_or(usize::MAX));
        }
        if let Some(least) = self.length.0.filter(|least| count < *least) {
            let detail = format!("{path} in body should be at least {least} chars long");
            errors.invalid(path, value, &detail);
        }
        if let Some(pattern) = &self.pattern {
            let regex = pattern.regex.get_or_init(|| Regex::new(&pattern.text).ok());
            if regex.as_ref().is_some_and(|r| !r.is_match(text)) {
                let detail = format!("{path} in body should match '{}'", pattern.text);
                errors.invalid(path, value, &detail);
            }
        }
        if let Some(format) = &self.format
            && !formats::matches(format, text)
        {
            let detail = format!("{path} in body must be of type {format}: {}", quote(text));
            errors.type_invalid(path, value, &detail);
        }
    }

    fn check_number(&self, number: f64, value: &Value, path: &Path<'_>, errors: &mut Errors) {
        let mut say = |words: &str, limit: f64| {
            errors.invalid(
                path,
                value,
                &format!("{path} in body should be {words} {limit}"),
            );
        };
        match self.minimum {
            Some((least, true)) if number <= least => say("greater than", least),
            Some((least, false)) if number < least => say("greater than or equal to", least),
            _ => {}
        }
        match self.maximum {
            Some((most, true)) if number >= most => say("less than", most),
            Some((most, false)) if number > most => say("less than or equal to", most),
            _ => {}
        }
        if let Some(factor) = self.multiple_of.filter(|f| *f > 0.0) {
            let ratio = number / factor;
            if (ratio - ratio.round()).abs() > 1e-9 {
                say("a multiple of", factor);
            }
        }
        // kube-openapi holds integers to their format, and words this without a field.
        if self.types == ["integer"]
            && self.format.as_deref() == Some("int32")
            && (number.fract() != 0.0
                || !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number))
        {
            let detail =
                format!("Checked value must be of type integer with format int32 in {path}");
            errors.invalid_text(&Path::root("<nil>"), "", &detail);
        }
    }

    fn check_list(&self, values: &[Value], path: &Path<'_>, errors: &mut Errors) {
        let count = values.len() as u64;
        if let Some(most) = self.items_count.1.filter(|most| count > *most) {
            errors.too_many(
                path,
                values.len(),
                usize::try_from(most).unwrap_or(usize::MAX),
            );
        }
        if let Some(least) = self.items_count.0.filter(|least| count < *least) {
            let detail = format!("{path} in body should have at least {least} items");
            errors.invalid(path, &count.into(), &detail);
        }
        if self.unique_items && (1..values.len()).any(|i| values[..i].contains(&values[i])) {
            let detail = format!("{path} in body shouldn't contain duplicates");
            errors.invalid_text(path, "", &detail);
        }
        if let Some(rules) = &self.items {
            for (index, value) in values.iter().enumerate() {
                rules.check(value, &path.index(index), errors);
            }
        }
    }

    fn check_object(
        &self,
        map: &serde_json::Map<String, Value>,
        path: &Path<'_>,
        errors: &mut Errors,
    ) {
        let count = map.len() as u64;
        if let Some(most) = self.properties_count.1.filter(|most| count > *most) {
            errors.too_many(path, map.len(), usize::try_from(most).unwrap_or(usize::MAX));
        }
        if let Some(least) = self.properties_count.0.filter(|least| count < *least) {
            let detail = format!("{path} in body should have at least {least} properties");
            errors.invalid(path, &count.into(), &detail);
        }
        for name in &self.required {
            if !map.contains_key(&**name) {
                errors.required(&path.child(name), "");
            }
        }
        for (name, value) in map {
            let known = self.properties.iter().find(|(known, _)| **known == **name);
            let rules = known.map(|(_, rules)| rules).or(self.additional.as_deref());
            if let Some(rules) = rules {
                rules.check(value, &path.child(name), errors);
            }
        }
    }

    fn check_junctors(&self, value: &Value, path: &Path<'_>, errors: &mut Errors) {
        // Upstream words these without a field: its root path is nil.
        let nowhere = Path::root("<nil>");
        let here = quote(&path.to_string());
        let tries = |rules: &[Rules]| -> Vec<Vec<FieldError>> {
            let attempt = |rules: &Rules| {
                let mut found = Errors::new();
                rules.check(value, path, &mut found);
                found.into_vec()
            };
            rules.iter().map(attempt).collect()
        };
        if !self.any_of.is_empty() {
            let results = tries(&self.any_of);
            if !results.iter().any(Vec::is_empty) {
                let detail = format!("{here} must validate at least one schema (anyOf)");
                errors.invalid_text(&nowhere, "", &detail);
                errors.extend(results.into_iter().min_by_key(Vec::len).unwrap_or_default());
            }
        }
        if !self.one_of.is_empty() {
            let results = tries(&self.one_of);
            let good = results.iter().filter(|r| r.is_empty()).count();
            if good != 1 {
                let found = if good == 0 {
                    "Found none valid".to_owned()
                } else {
                    format!("Found {good} valid alternatives")
                };
                let detail =
                    format!("{here} must validate one and only one schema (oneOf). {found}");
                errors.invalid_text(&nowhere, "", &detail);
                if good == 0 {
                    errors.extend(results.into_iter().min_by_key(Vec::len).unwrap_or_default());
                }
            }
        }
        if !self.all_of.is_empty() {
            let results = tries(&self.all_of);
            let good = results.iter().filter(|r| r.is_empty()).count();
            if good != results.len() {
                let more = if good == 0 { ". None validated" } else { "" };
                errors.extend(results.into_iter().flatten().collect());
                let detail = format!("{here} must validate all the schemas (allOf){more}");
                errors.invalid_text(&nowhere, "", &detail);
            }
        }
        if let Some(rules) = &self.not {
            let mut found = Errors::new();
            rules.check(value, path, &mut found);
            if found.is_empty() {
                let detail = format!("{here} must not validate the schema (not)");
                errors.invalid_text(&nowhere, "", &detail);
            }
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_type(wanted: &str, value: &Value) -> bool {
    match wanted {
        "number" => value.is_number(),
        "integer" => match value {
            Value::Number(n) => !n.is_f64() || n.as_f64().is_some_and(|f| f.fract() == 0.0),
            _ => false,
        },
        other => type_of(value) == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, value: Value) -> Vec<String> {
        let mut errors = Errors::new();
        Rules::compile(&schema).check(&value, &Path::root(""), &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn kube_openapis_words() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1},
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3, "minLength": 2},
            "mode": {"type": "string", "enum": ["a", "b"]},
            "list": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
            "any": {"x-kubernetes-int-or-string": true},
        }}}});
        let spec = |spec: Value| check(schema.clone(), json!({ "spec": spec }));
        assert!(spec(json!({"size": 1, "name": "ab", "any": "x"})).is_empty());
        assert_eq!(spec(json!({})), ["spec.size: Required value"]);
        assert_eq!(
            spec(json!({"size": "x"})),
            [
                "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\""
            ]
        );
        assert_eq!(
            spec(json!({"size": 0})),
            ["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"]
        );
        assert_eq!(
            spec(json!({"size": 1, "name": "ABCD"})),
            [
                "spec.name: Too long: may not be more than 3 bytes",
                "spec.name: Invalid value: \"ABCD\": spec.name in body should match '^[a-z]+$'"
            ]
        );
        assert_eq!(
            spec(json!({"size": 1, "mode": "c"})),
            ["spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\""]
        );
        assert_eq!(
            spec(json!({"size": 1, "mode": null})),
            [
                "spec.mode: Invalid value: \"null\": spec.mode in body must be of type string: \"null\"",
                "spec.mode: Unsupported value: null: supported values: \"a\", \"b\""
            ]
        );
        assert_eq!(
            spec(json!({"size": 1, "list": ["a", "b"]})),
            ["spec.list: Too many: 2: must have at most 1 item"]
        );
    }

    #[test]
    fn junctors() {
        let schema = json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
        assert!(check(schema.clone(), json!({"a": 1})).is_empty());
        assert_eq!(
            check(schema.clone(), json!({"a": 1, "b": 1})),
            [
                "<nil>: Invalid value: \"\": \"\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
            ]
        );
        assert_eq!(check(schema, json!({})).len(), 2);
        assert_eq!(
            check(json!({"not": {"type": "string"}}), json!("a")).len(),
            1
        );
    }
}
