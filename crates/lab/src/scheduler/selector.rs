//! Label selectors and node selectors, as Kubernetes reads them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;

/// True where the labels are what the selector means. An empty selector means everything.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let all_equal = equal
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    let mut expressions = selector.match_expressions.iter().flatten();
    all_equal && expressions.all(|e| holds(&e.operator, e.values.as_deref(), labels.get(&e.key)))
}

/// True where the labels have all of `wanted`.
pub fn contains(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

fn holds(operator: &str, values: Option<&[String]>, value: Option<&String>) -> bool {
    let values = values.unwrap_or_default();
    match operator {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" | "Lt" => {
            let number = |text: &String| text.parse::<i64>().ok();
            let (Some(have), Some(bound)) =
                (value.and_then(number), values.first().and_then(number))
            else {
                return false;
            };
            if operator == "Gt" {
                have > bound
            } else {
                have < bound
            }
        }
        _ => false,
    }
}

/// True where one of the terms means the node.
pub fn selects_node(selector: &NodeSelector, node: &Node) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| term_selects_node(term, node))
}

/// True where the term means the node. An empty term means none.
pub fn term_selects_node(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let requirement = |r: &NodeSelectorRequirement, value: Option<&String>| {
        holds(&r.operator, r.values.as_deref(), value)
    };
    expressions
        .iter()
        .all(|r| requirement(r, node.labels().get(&r.key)))
        && fields
            .iter()
            .all(|r| r.key == "metadata.name" && requirement(r, node.metadata.name.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_mean_what_kubernetes_says() {
        let labels: BTreeMap<String, String> =
            [("app".into(), "web".into()), ("n".into(), "5".into())].into();
        let cases = [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "web"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["a"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "x", "operator": "Exists"}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}),
                true,
            ),
        ];
        for (selector, answer) in cases {
            let parsed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(matches(&parsed, &labels), answer, "{selector}");
        }
    }

    #[test]
    fn node_terms_look_at_labels_and_at_the_name() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"cores": "8"}}}))
                .unwrap();
        let cases = [
            (json!({}), false),
            (
                json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}),
                true,
            ),
            (
                json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "cores", "operator": "Lt", "values": ["4"]}]}),
                false,
            ),
        ];
        for (term, answer) in cases {
            let parsed: NodeSelectorTerm = serde_json::from_value(term.clone()).unwrap();
            assert_eq!(term_selects_node(&parsed, &node), answer, "{term}");
        }
    }
}
