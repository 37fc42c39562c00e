//! Selectors against a plain reading of the same labels.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;

use crate::server::Server;

#[derive(Clone, Debug)]
enum Want {
    Is(String, String),
    IsNot(String, String),
    In(String, Vec<String>),
    Has(String),
    HasNot(String),
}

impl Want {
    fn text(&self) -> String {
        match self {
            Self::Is(k, v) => format!("{k}={v}"),
            Self::IsNot(k, v) => format!("{k}!={v}"),
            Self::In(k, vs) => format!("{k} in ({})", vs.join(",")),
            Self::Has(k) => k.clone(),
            Self::HasNot(k) => format!("!{k}"),
        }
    }

    fn holds(&self, labels: &[(String, String)]) -> bool {
        let get = |key: &String| labels.iter().find(|(k, _)| k == key).map(|(_, v)| v);
        match self {
            Self::Is(k, v) => get(k) == Some(v),
            Self::IsNot(k, v) => get(k) != Some(v),
            Self::In(k, vs) => get(k).is_some_and(|v| vs.contains(v)),
            Self::Has(k) => get(k).is_some(),
            Self::HasNot(k) => get(k).is_none(),
        }
    }
}

fn key() -> impl Strategy<Value = String> {
    "[ab]"
}

fn value() -> impl Strategy<Value = String> {
    "[xyz]"
}

fn want() -> impl Strategy<Value = Want> {
    prop_oneof![
        (key(), value()).prop_map(|(k, v)| Want::Is(k, v)),
        (key(), value()).prop_map(|(k, v)| Want::IsNot(k, v)),
        (key(), proptest::collection::vec(value(), 1..3)).prop_map(|(k, v)| Want::In(k, v)),
        key().prop_map(Want::Has),
        key().prop_map(Want::HasNot),
    ]
}

#[tokio::test]
async fn a_list_holds_exactly_what_its_selector_says() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/kube-node-lease/configmaps";
    let mut all: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for a in ["", "x", "y", "z"] {
        for b in ["", "x", "y"] {
            let labels: Vec<(String, String)> = [("a", a), ("b", b), ("mine", "yes")]
                .into_iter()
                .filter(|(_, v)| !v.is_empty())
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect();
            let name = format!("m-{}", all.len());
            let map: std::collections::BTreeMap<_, _> = labels.iter().cloned().collect();
            let (code, _) = server
                .post(path, &json!({"metadata": {"name": name, "labels": map}}))
                .await;
            assert_eq!(code, 201);
            all.push((name, labels));
        }
    }
    let mut runner = TestRunner::deterministic();
    for _ in 0..200 {
        let wants = proptest::collection::vec(want(), 1..4)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let text: Vec<String> = wants.iter().map(Want::text).collect();
        let selector = format!("mine,{}", text.join(","))
            .replace(' ', "%20")
            .replace('=', "%3D");
        let (code, list) = server
            .get(&format!("{path}?labelSelector={selector}"))
            .await;
        assert_eq!(code, 200, "{list}");
        let mut found: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["metadata"]["name"].as_str().unwrap())
            .collect();
        let mut expected: Vec<&str> = all
            .iter()
            .filter(|(_, labels)| wants.iter().all(|w| w.holds(labels)))
            .map(|(name, _)| name.as_str())
            .collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{selector}");
    }
}
