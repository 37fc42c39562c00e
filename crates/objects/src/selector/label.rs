//! `labelSelector`: the set-based grammar, and `metav1.LabelSelector` objects.

use std::fmt;

use serde_json::Value;

use super::parse;
use crate::validation::field::{Errors, Path, aggregate};
use crate::validation::names;
use crate::{Object, Status};

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`
    NotIn,
    /// `key=a`
    Equals,
    /// `key!=a`
    NotEquals,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>1`
    GreaterThan,
    /// `key<1`
    LessThan,
}

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Values, sorted and unique.
    pub values: Vec<String>,
}

/// A parsed `labelSelector`: every requirement must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// A selector that selects nothing (a null `metav1.LabelSelector`).
    nothing: bool,
}

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (f,g),!h`.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let mut requirements = parse::requirements(text).map_err(Status::bad_request)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self {
            requirements,
            nothing: false,
        })
    }

    /// From a `metav1.LabelSelector`: null selects nothing, `{}` everything.
    /// The error is the sentence without a field.
    pub fn from_object(selector: &Value) -> Result<Self, String> {
        let Some(map) = selector.as_object() else {
            return Ok(Self {
                requirements: Vec::new(),
                nothing: true,
            });
        };
        let mut requirements = Vec::new();
        for (key, value) in map
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let values = vec![value.as_str().unwrap_or_default().to_owned()];
            requirements.push(requirement(key, Operator::Equals, values)?);
        }
        let expressions = map.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            let word = expression["operator"].as_str().unwrap_or_default();
            let operator = match word {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return Err(format!("\"{word}\" is not a valid label selector operator")),
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            let key = expression["key"].as_str().unwrap_or_default();
            requirements.push(requirement(key, operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self {
            requirements,
            nothing: false,
        })
    }

    /// The terms.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True where every object matches.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// True where the object's labels match.
    pub fn matches(&self, object: &Object) -> bool {
        self.matches_labels(&object["metadata"]["labels"])
    }

    /// True where these labels (an object or null) match.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|r| r.holds(labels.get(&r.key).and_then(Value::as_str)))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|w| w == v);
        match self.operator {
            Operator::In | Operator::Equals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let bound = self.values.first().and_then(|v| v.parse::<i64>().ok());
                let (Some(value), Some(bound)) = (value.and_then(|v| v.parse::<i64>().ok()), bound)
                else {
                    return false;
                };
                if self.operator == Operator::GreaterThan {
                    value > bound
                } else {
                    value < bound
                }
            }
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values = self.values.join(",");
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

pub(super) fn requirement(
    key: &str,
    operator: Operator,
    mut values: Vec<String>,
) -> Result<Requirement, String> {
    values.sort();
    values.dedup();
    let mut errors = Errors::new();
    let none = Path::root("");
    let wrong = names::qualified_name(key);
    if !wrong.is_empty() {
        errors.invalid_text(&none.child("key"), key, &wrong.join("; "));
    }
    let path = none.child("values");
    let list = || Value::from(values.clone());
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            let why = "for 'in', 'notin' operators, values set can't be empty";
            errors.invalid(&path, &list(), why);
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            let why = "values set must be empty for exists and does not exist";
            errors.invalid(&path, &list(), why);
        }
        Operator::GreaterThan | Operator::LessThan => {
            for (i, value) in values.iter().enumerate() {
                if value.parse::<i64>().is_err() {
                    let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                    errors.invalid_text(&path.index(i), value, why);
                }
            }
        }
        _ => {}
    }
    for (i, value) in values.iter().enumerate() {
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            errors.invalid_text(&path.index(i).key(key), value, &wrong.join("; "));
        }
    }
    if !errors.is_empty() {
        return Err(aggregate(&errors.into_vec()));
    }
    Ok(Requirement {
        key: key.to_owned(),
        operator,
        values,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn selects(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector)
            .unwrap()
            .matches_labels(&labels)
    }

    #[test]
    fn grammar() {
        let labels = json!({"app": "web", "tier": "", "n": "5"});
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "other!=x",
            "app in (web,db)",
            "app",
            "!other",
            "other notin (x)",
            "tier=",
            "tier in (,x)",
            "n>4",
            "n<6",
            " app = web , tier ",
            "app notin ()",
            "in!=x",
            "x notin (in)",
        ] {
            assert!(selects(yes, labels.clone()), "{yes}");
        }
        for no in [
            "app=db",
            "other=x",
            "!app",
            "app notin (web)",
            "n>5",
            "other>1",
            "tier in (x)",
        ] {
            assert!(!selects(no, labels.clone()), "{no}");
        }
    }

    #[test]
    fn errors_are_upstreams() {
        let error = |s: &str| LabelSelector::parse(s).unwrap_err().message;
        assert_eq!(error("a,"), "found '', expected: identifier after ','");
        assert_eq!(
            error("a b"),
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
        );
        assert_eq!(
            error("a in b"),
            "unable to parse requirement: found 'b' expected: '('"
        );
        assert_eq!(
            error("=a"),
            "found '=', expected: !, identifier, or 'end of string'"
        );
        assert!(error("a=b c").starts_with("found 'c', expected: ',' or 'end of string'"));
        assert!(
            error("-a=b").starts_with(
                "unable to parse requirement: <nil>: Invalid value: \"-a\": name part"
            )
        );
        assert!(error("a=-b").starts_with(
            "unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label"
        ));
    }

    #[test]
    fn objects() {
        let selector = json!({"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]});
        let selector = LabelSelector::from_object(&selector).unwrap();
        assert_eq!(selector.to_string(), "a in (x,y),b=1");
        assert!(
            !LabelSelector::from_object(&Value::Null)
                .unwrap()
                .matches_labels(&Value::Null)
        );
        assert!(
            LabelSelector::from_object(&json!({}))
                .unwrap()
                .matches_labels(&Value::Null)
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z =!(),<>é-]{0,24}") {
            let _ = LabelSelector::parse(&text);
        }

        #[test]
        fn text_round_trips(key in "[a-z]{1,5}", values in prop::collection::vec("[a-z0-9]{1,4}", 1..4), op in 0..3) {
            let text = match op {
                0 => format!("{key} in ({})", values.join(",")),
                1 => format!("{key} notin ({})", values.join(",")),
                _ => format!("{key}={}", values[0]),
            };
            let parsed = LabelSelector::parse(&text).unwrap();
            prop_assert_eq!(LabelSelector::parse(&parsed.to_string()).unwrap(), parsed);
        }
    }
}
