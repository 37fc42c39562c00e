//! Label selectors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Kubernetes' label selector: all of its parts must match, and an empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must be there with these values.
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    pub match_expressions: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl LabelSelector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut equal = self.match_labels.iter();
        equal.all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|one| one.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
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
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
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
            match_labels: BTreeMap::from([("app".into(), "api".into())]),
            ..LabelSelector::default()
        };
        assert!(!exact.matches(&labels));
    }
}
