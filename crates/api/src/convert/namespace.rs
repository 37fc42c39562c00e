//! Namespaces as [`model`] values.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::Namespace;
use serde::Deserialize;

use super::slim::{AllLabels, Converted, Kind, Meta, Value};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
#[doc(hidden)]
pub struct RawNamespace<'a> {
    metadata: Meta<'a, AllLabels>,
}

impl Kind for Namespace {
    const KIND: &'static str = "Namespace";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "namespaces";
    type Raw<'de> = RawNamespace<'de>;

    fn convert(raw: RawNamespace<'_>) -> (ObjectMeta, Converted<Self>) {
        let place = raw.metadata.place();
        let value = Namespace {
            name: raw.metadata.name.owned(),
            labels: raw.metadata.labels.unwrap_or_default().0,
        };
        let converted = Converted {
            value: Value::Is(Arc::new(value)),
            problems: Vec::new(),
        };
        (place, converted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Slim;

    #[test]
    fn a_namespace_brings_all_its_labels() {
        let text = r#"{"metadata": {"name": "shop", "labels":
            {"team": "a\u0062", "kubernetes.io/metadata.name": "shop"}}, "spec": {}}"#;
        let slim: Slim<Namespace> = serde_json::from_str(text).unwrap();
        assert_eq!(slim.key(), (String::new(), "shop".to_owned()));
        let Value::Is(namespace) = slim.converted.value else {
            panic!("no Namespace");
        };
        assert_eq!(namespace.labels.get("team"), Some("ab"));
        assert_eq!(
            namespace.labels.get("kubernetes.io/metadata.name"),
            Some("shop")
        );
    }
}
