//! The JSON paths of printer columns: `.a.b`, `.a[0]`, `.a[*]`, `.a['b']`, `.a[?(@.b=="c")].d`.

use serde_json::Value;

enum Step {
    Name(String),
    Index(i64),
    All,
    /// `@.path == value`
    Filter(String, String, Value),
}

/// Splits at the `]` that closes the bracket the text starts in.
fn bracket(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut quoted) = (1, None);
    for (i, c) in text.char_indices() {
        match (quoted, c) {
            (Some(q), c) if c == q => quoted = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quoted = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some((&text[..i], &text[i + 1..]));
                }
            }
            _ => {}
        }
    }
    None
}

fn literal(text: &str) -> Value {
    let text = text.trim();
    match text.chars().next() {
        Some(quote @ ('"' | '\'')) => text.trim_matches(quote).into(),
        _ => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    }
}

fn filter(text: &str) -> Option<Step> {
    let inner = text.strip_prefix("?(")?.strip_suffix(')')?;
    for operator in ["==", "!=", ">=", "<=", ">", "<"] {
        if let Some((path, value)) = inner.split_once(operator) {
            let path = path.trim().strip_prefix('@')?.to_owned();
            return Some(Step::Filter(path, operator.to_owned(), literal(value)));
        }
    }
    None
}

/// None for a path this does not understand.
fn parse(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}');
    rest = rest.strip_prefix('$').unwrap_or(rest);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (inner, after) = bracket(after)?;
            steps.push(match inner {
                "*" => Step::All,
                _ if inner.starts_with('?') => filter(inner)?,
                _ if inner.starts_with(['"', '\'']) => {
                    Step::Name(inner.trim_matches(['"', '\'']).to_owned())
                }
                _ => Step::Index(inner.parse().ok()?),
            });
            rest = after;
            continue;
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let mut name = String::new();
        let mut chars = rest.char_indices().peekable();
        let mut end = rest.len();
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => {
                    // An escaped dot belongs to the name.
                    if let Some((_, escaped)) = chars.next() {
                        name.push(escaped);
                    }
                }
                '.' | '[' => {
                    end = i;
                    break;
                }
                c => name.push(c),
            }
        }
        rest = &rest[end..];
        if name == "*" {
            steps.push(Step::All);
        } else if !name.is_empty() {
            steps.push(Step::Name(name));
        } else if end == 0 && !rest.starts_with('[') {
            return None;
        }
    }
    Some(steps)
}

fn holds(item: &Value, path: &str, operator: &str, wanted: &Value) -> bool {
    let found = find(item, path);
    let Some(found) = found.first() else {
        return false;
    };
    let order = || found.as_f64().partial_cmp(&wanted.as_f64());
    match operator {
        "==" => *found == wanted,
        "!=" => *found != wanted,
        ">" => order().is_some_and(std::cmp::Ordering::is_gt),
        "<" => order().is_some_and(std::cmp::Ordering::is_lt),
        ">=" => order().is_some_and(std::cmp::Ordering::is_ge),
        _ => order().is_some_and(std::cmp::Ordering::is_le),
    }
}

/// Every value the path names, in order.
pub fn find<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let Some(steps) = parse(path) else {
        return Vec::new();
    };
    let mut found = vec![object];
    for step in steps {
        found = found
            .into_iter()
            .flat_map(|value| -> Vec<&'a Value> {
                match &step {
                    Step::Name(name) => value.get(name.as_str()).into_iter().collect(),
                    Step::Index(index) => {
                        let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
                        let at = if *index < 0 {
                            usize::try_from(list.len() as i64 + index).ok()
                        } else {
                            usize::try_from(*index).ok()
                        };
                        at.and_then(|i| list.get(i)).into_iter().collect()
                    }
                    Step::All => match value {
                        Value::Array(list) => list.iter().collect(),
                        Value::Object(map) => map.values().collect(),
                        _ => Vec::new(),
                    },
                    Step::Filter(path, operator, wanted) => {
                        let list = value.as_array().into_iter().flatten();
                        list.filter(|item| holds(item, path, operator, wanted))
                            .collect()
                    }
                }
            })
            .collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns() {
        let object = json!({"status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}], "a.b": 1, "list": [1, 2]}});
        let first = |path: &str| find(&object, path).first().map(|v| (*v).clone());
        assert_eq!(
            first(".status.conditions[?(@.type==\"Ready\")].status"),
            Some(json!("True"))
        );
        assert_eq!(
            first(".status.conditions[?(@.type=='A')].status"),
            Some(json!("False"))
        );
        assert_eq!(first(".status.list[1]"), Some(json!(2)));
        assert_eq!(first(".status.list[-1]"), Some(json!(2)));
        assert_eq!(first(".status.a\\.b"), Some(json!(1)));
        assert_eq!(first(".status['a.b']"), Some(json!(1)));
        assert_eq!(find(&object, ".status.list[*]").len(), 2);
        assert_eq!(first(".nothing.here"), None);
    }

    proptest! {
        #[test]
        fn never_panics(path in "[.a\\[\\]*?(@='\"0-9\\\\)é]{0,20}") {
            let _ = find(&json!({"a": [1, {"a": 2}]}), &path);
        }
    }
}
