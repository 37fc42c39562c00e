//! Label selectors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::labels::Labels;

/// Kubernetes' label selector: all of its parts must match, and an empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must be there with these values.
    pub match_labels: Labels,
    /// Further requirements.
    pub match_expressions: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What is required.
    pub operator: Operator,
    /// Values, for `In` and `NotIn`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// Its value is one of these.
    In,
    /// It is not there, or its value is none of these.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// What a selector is asked about.
pub trait Labelled {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labelled for Labels {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

impl Labelled for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &impl Labelled) -> bool {
        let mut equal = self.match_labels.iter();
        equal.all(|(key, value)| labels.label(key) == Some(value))
            && self.match_expressions.iter().all(|one| one.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &impl Labelled) -> bool {
        let value = labels.label(&self.key);
        let listed = value.is_some_and(|value| self.values.iter().any(|one| one == value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_hold_as_kubernetes_says() {
        let labels = Labels::from([("app", "web")]);
        let holds = |key: &str, operator, values: &[&str]| {
            let requirement = Requirement {
                key: key.into(),
                operator,
                values: values.iter().map(|v| (*v).to_owned()).collect(),
            };
            let selector = LabelSelector {
                match_expressions: vec![requirement],
                ..LabelSelector::default()
            };
            selector.matches(&labels)
        };
        assert!(LabelSelector::default().matches(&labels));
        assert!(holds("app", Operator::In, &["api", "web"]));
        assert!(!holds("tier", Operator::In, &["web"]));
        assert!(!holds("app", Operator::NotIn, &["web"]));
        assert!(holds("tier", Operator::NotIn, &["web"]));
        assert!(holds("app", Operator::Exists, &[]));
        assert!(holds("tier", Operator::DoesNotExist, &[]));
        let exact = LabelSelector {
            match_labels: Labels::from([("app", "api")]),
            ..LabelSelector::default()
        };
        assert!(!exact.matches(&labels));
    }
}
