//! Label selectors, as they are written in policies.

use model::selector::{Operator, Requirement};
use model::{LabelSelector, Labels};
use serde_json::Value;

use super::field::{Path, Problems, Told, list, object, text, word};

const OPERATORS: &[(&str, Operator)] = &[
    ("In", Operator::In),
    ("NotIn", Operator::NotIn),
    ("Exists", Operator::Exists),
    ("DoesNotExist", Operator::DoesNotExist),
];

/// A selector; one that is not written selects everything.
pub(super) fn selector(
    value: &Value,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Result<LabelSelector, Told> {
    let selector = object(value, at, problems)?;
    selector.only(at, &["matchLabels", "matchExpressions"], problems)?;
    Ok(LabelSelector {
        match_labels: labels(
            selector.get("matchLabels"),
            &at.field("matchLabels"),
            problems,
        )?,
        match_expressions: requirements(
            selector.get("matchExpressions"),
            &at.field("matchExpressions"),
            problems,
        )?,
    })
}

fn labels(value: &Value, at: &Path<'_>, problems: &mut Problems) -> Result<Labels, Told> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for (key, value) in object(value, at, problems)?.iter() {
        let at = at.key(key);
        check_key(key, &at, problems)?;
        found.push((key, label_value(value, &at, problems)?));
    }
    Ok(found.into_iter().collect())
}

fn requirements(
    value: &Value,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Result<Vec<Requirement>, Told> {
    let items = list(value, at, problems)?.iter().enumerate();
    items
        .map(|(index, value)| requirement(value, &at.index(index), problems))
        .collect()
}

fn requirement(value: &Value, at: &Path<'_>, problems: &mut Problems) -> Result<Requirement, Told> {
    let written = object(value, at, problems)?;
    written.only(at, &["key", "operator", "values"], problems)?;
    let key = text(written.get("key"), &at.field("key"), problems)?;
    check_key(key, &at.field("key"), problems)?;
    let at_operator = at.field("operator");
    let operator = word(written.get("operator"), &at_operator, OPERATORS, problems)?;
    let at_values = at.field("values");
    let mut values = Vec::new();
    let items = list(written.get("values"), &at_values, problems)?;
    for (index, value) in items.iter().enumerate() {
        values.push(label_value(value, &at_values.index(index), problems)?.to_owned());
    }
    let wants = matches!(operator, Operator::In | Operator::NotIn);
    match (wants, values.is_empty()) {
        (true, true) => problems.tell(&at_values, "is empty; In and NotIn need values"),
        (false, false) => problems.tell(
            &at_values,
            "is not empty; Exists and DoesNotExist go without values",
        ),
        _ => Ok(Requirement {
            key: key.to_owned(),
            operator,
            values,
        }),
    }
}

fn label_value<'v>(
    value: &'v Value,
    at: &Path<'_>,
    problems: &mut Problems,
) -> Result<&'v str, Told> {
    let value = text(value, at, problems)?;
    if value.is_empty() || is_name(value) {
        return Ok(value);
    }
    let cause = format!("{value:?} cannot be the value of a label: write {NAME}, or nothing");
    problems.tell(at, cause)
}

const NAME: &str = "up to 63 letters, digits, '-', '_' and '.', a letter or digit first and last";

fn check_key(key: &str, at: &Path<'_>, problems: &mut Problems) -> Result<(), Told> {
    let valid = match key.split_once('/') {
        None => is_name(key),
        Some((domain, name)) => is_domain(domain) && is_name(name),
    };
    if valid {
        return Ok(());
    }
    let cause =
        format!("{key:?} cannot be a label's key: write {NAME}, after a domain and '/' or without");
    problems.tell(at, cause)
}

/// A name as labels have it.
fn is_name(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

/// A DNS subdomain.
fn is_domain(text: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 253
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.first().is_some_and(inner)
                && bytes.last().is_some_and(inner)
                && bytes.iter().all(|byte| inner(byte) || *byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(value: &Value) -> String {
        let mut problems = Problems::default();
        let told = selector(value, &Path::SPEC.field("podSelector"), &mut problems);
        assert!(told.is_err() && problems.0.len() == 1, "{value}");
        let wrong = problems.0.remove(0);
        format!("{}: {}", wrong.field, wrong.cause)
    }

    #[test]
    fn a_selector_is_read_with_all_operators() {
        let value = json!({"matchLabels": {"app": "web", "example.com/tier": ""},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]},
                {"key": "b", "operator": "NotIn", "values": ["z"]},
                {"key": "c", "operator": "Exists"},
                {"key": "d", "operator": "DoesNotExist", "values": []}]});
        let mut problems = Problems::default();
        let selector = selector(&value, &Path::SPEC, &mut problems).unwrap();
        assert!(problems.0.is_empty());
        assert_eq!(
            serde_json::to_value(&selector).unwrap()["matchLabels"],
            value["matchLabels"]
        );
        let found = selector.match_expressions;
        assert_eq!(found.len(), 4);
        assert_eq!(found[0].values, ["x", "y"]);
        assert_eq!(found[3].operator, Operator::DoesNotExist);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_path() {
        let expression = |one: Value| json!({"matchExpressions": [one]});
        let cases = [
            (json!([]), "spec.podSelector: is not an object"),
            (
                json!({"matchFields": {"a": "b"}}),
                "spec.podSelector.matchFields: is not known here; choose matchLabels or matchExpressions",
            ),
            (
                json!({"matchLabels": {"a b": "c"}}),
                "spec.podSelector.matchLabels[a b]: \"a b\" cannot be a label's key: write up to 63 letters",
            ),
            (
                json!({"matchLabels": {"Example.com/a": "c"}}),
                "spec.podSelector.matchLabels[Example.com/a]: \"Example.com/a\" cannot be a label's key",
            ),
            (
                json!({"matchLabels": {"a": "-c"}}),
                "spec.podSelector.matchLabels[a]: \"-c\" cannot be the value of a label",
            ),
            (
                json!({"matchLabels": {"a": 5}}),
                "spec.podSelector.matchLabels[a]: is not text",
            ),
            (
                expression(json!({"key": "a", "operator": "in", "values": ["b"]})),
                "spec.podSelector.matchExpressions[0].operator: \"in\" is not known; choose In, NotIn, Exists or DoesNotExist",
            ),
            (
                expression(json!({"key": "a", "operator": "In"})),
                "spec.podSelector.matchExpressions[0].values: is empty; In and NotIn need values",
            ),
            (
                expression(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
                "spec.podSelector.matchExpressions[0].values: is not empty",
            ),
            (
                expression(json!({"key": "", "operator": "Exists"})),
                "spec.podSelector.matchExpressions[0].key: \"\" cannot be a label's key",
            ),
            (
                expression(json!({"key": "a", "operator": "In", "values": ["b", "c d"]})),
                "spec.podSelector.matchExpressions[0].values[1]: \"c d\" cannot be the value",
            ),
        ];
        for (value, start) in cases {
            let said = wrong(&value);
            assert!(said.starts_with(start), "{said}");
        }
    }
}
