//! What manifests would make of a cluster, without making it: the API server is asked for each
//! object as if it were written (`dryRun`), and says what would become of it, or why not.

use std::collections::BTreeSet;

use kube::api::{DeleteParams, PostParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::Scope;
use kube::{Api, Client, ResourceExt};
use model::{Change, ClusterPolicy, Namespace, NetworkPolicy, Pod};
use serde_json::Value;

use crate::Error;
use crate::convert::{Kind, Slim, Value as Converted};

/// The annotation in which `kubectl apply` keeps what it wrote last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What would become of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drafted {
    /// Its kind.
    pub kind: String,
    /// Its namespace (empty where it has none) and name.
    pub key: model::Key,
    /// `created`, `configured`, `unchanged`, `deleted` or `absent`; `ignored` where policies have
    /// nothing to do with its kind.
    pub becomes: &'static str,
    /// The change, where there is one.
    pub change: Option<Change>,
}

/// What to do with the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// As `kubectl apply -f` would.
    Apply,
    /// The same, whether or not the namespaces of the objects are there.
    Judge,
    /// As `kubectl delete -f` would.
    Delete,
}

/// What would become of each object: NetworkPolicies, ClusterNetworkPolicies, Namespaces and Pods.
/// Ends at the first that the API server refuses, with its words.
pub async fn draft(
    client: &Client,
    objects: &[DynamicObject],
    doing: Doing,
) -> Result<Vec<Drafted>, Error> {
    let mut all = Vec::new();
    let is_namespace = |object: &&DynamicObject| kind(object) == "Namespace";
    let new: BTreeSet<String> = objects
        .iter()
        .filter(is_namespace)
        .map(|o| o.name_any())
        .collect();
    for object in objects {
        let drafted = match kind(object) {
            "NetworkPolicy" => one::<NetworkPolicy>(client, object, doing, &new).await?,
            "ClusterNetworkPolicy" => one::<ClusterPolicy>(client, object, doing, &new).await?,
            "Namespace" => one::<Namespace>(client, object, doing, &new).await?,
            "Pod" => one::<Pod>(client, object, doing, &new).await?,
            other => Drafted {
                kind: other.to_owned(),
                key: (object.namespace().unwrap_or_default(), object.name_any()),
                becomes: "ignored",
                change: None,
            },
        };
        all.push(drafted);
    }
    Ok(all)
}

fn kind(object: &DynamicObject) -> &str {
    object
        .types
        .as_ref()
        .map_or("", |types| types.kind.as_str())
}

/// A kind that policies have to do with.
trait Part: Kind {
    fn there(value: std::sync::Arc<Self>) -> Change;
    fn gone(key: &model::Key) -> Change;
}

impl Part for NetworkPolicy {
    fn there(value: std::sync::Arc<Self>) -> Change {
        Change::Policy(value)
    }
    fn gone(key: &model::Key) -> Change {
        Change::PolicyGone(key.0.clone(), key.1.clone())
    }
}

impl Part for ClusterPolicy {
    fn there(value: std::sync::Arc<Self>) -> Change {
        Change::ClusterPolicy(value)
    }
    fn gone(key: &model::Key) -> Change {
        Change::ClusterPolicyGone(key.1.clone())
    }
}

impl Part for Namespace {
    fn there(value: std::sync::Arc<Self>) -> Change {
        Change::Namespace(value)
    }
    fn gone(key: &model::Key) -> Change {
        Change::NamespaceGone(key.1.clone())
    }
}

impl Part for Pod {
    fn there(value: std::sync::Arc<Self>) -> Change {
        Change::Pod(value)
    }
    fn gone(key: &model::Key) -> Change {
        Change::PodGone(key.0.clone(), key.1.clone())
    }
}

async fn one<T: Part>(
    client: &Client,
    object: &DynamicObject,
    doing: Doing,
    new: &BTreeSet<String>,
) -> Result<Drafted, Error> {
    let (api, elsewhere, namespace) = api(client, object, |namespace| {
        doing == Doing::Judge || new.contains(namespace)
    })
    .await?;
    let name = object.name_any();
    let key = (namespace.unwrap_or_default(), name.clone());
    let label = crate::manifest::label(object);
    let failed = |what: &str| Error::request(format!("{what} {label}"));
    let live = api.get_opt(&name).await.map_err(failed("get"))?;
    let drafted = |becomes, change| Drafted {
        kind: T::KIND.to_owned(),
        key: key.clone(),
        becomes,
        change,
    };
    if doing == Doing::Delete {
        if live.is_none() {
            return Ok(drafted("absent", None));
        }
        let dry = DeleteParams::default().dry_run();
        api.delete(&name, &dry).await.map_err(failed("delete"))?;
        return Ok(drafted("deleted", Some(T::gone(&key))));
    }
    let dry = PostParams {
        dry_run: true,
        field_manager: Some("flatnet".into()),
    };
    let (mut made, becomes) = match &live {
        Some(live) => {
            let mut wanted = merged(live, object);
            if T::KIND == "Pod" {
                // What a pod runs cannot be changed, and is not what this is about.
                wanted.data = live.data.clone();
            }
            let made = api
                .replace(&name, &dry, &wanted)
                .await
                .map_err(failed("apply"))?;
            let same = made.data == live.data && made.labels() == live.labels();
            (made, if same { "unchanged" } else { "configured" })
        }
        None => {
            // A namespace that the same manifests make is not there to be asked.
            let mut wanted = object.clone();
            if elsewhere.is_some() {
                wanted.metadata.namespace = None;
            }
            let asked = elsewhere.as_ref().unwrap_or(&api);
            (
                asked.create(&dry, &wanted).await.map_err(failed("apply"))?,
                "created",
            )
        }
    };
    if !key.0.is_empty() {
        made.metadata.namespace = Some(key.0.clone());
    }
    let change = converted::<T>(&made, &label)?.map(T::there);
    Ok(drafted(becomes, change))
}

/// Where an object is; and where to ask about it instead, because its namespace is yet to be made.
async fn api(
    client: &Client,
    object: &DynamicObject,
    may_be_missing: impl Fn(&str) -> bool,
) -> Result<
    (
        Api<DynamicObject>,
        Option<Api<DynamicObject>>,
        Option<String>,
    ),
    Error,
> {
    let types = object.types.clone().unwrap_or_default();
    let missing = || Error::NoKind {
        object: crate::manifest::label(object),
        api_version: types.api_version.clone(),
        kind: types.kind.clone(),
    };
    let gvk = GroupVersionKind::try_from(&types).map_err(|_| missing())?;
    let found = kube::discovery::pinned_kind(client, &gvk).await;
    let (resource, capabilities) = match found {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.code != 404 => {
            let error = kube::Error::Api(status);
            return Err(Error::request(format!("discover {}", types.kind))(error));
        }
        Err(kube::Error::Api(_) | kube::Error::Discovery(_)) => return Err(missing()),
        Err(error) => return Err(Error::request(format!("discover {}", types.kind))(error)),
    };
    if capabilities.scope == Scope::Cluster {
        return Ok((Api::all_with(client.clone(), &resource), None, None));
    }
    let namespace = object.namespace();
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let at = |namespace: &str| Api::namespaced_with(client.clone(), namespace, &resource);
    let mut elsewhere = None;
    if may_be_missing(&namespace) {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        let known = namespaces.get_opt(&namespace).await;
        if known
            .map_err(Error::request(format!("get Namespace {namespace}")))?
            .is_none()
        {
            elsewhere = Some(at(client.default_namespace()));
        }
    }
    Ok((at(&namespace), elsewhere, Some(namespace)))
}

/// A live object with what a manifest says: its labels put over, without those that were applied
/// before and no longer are; all but `metadata` as it is written.
fn merged(live: &DynamicObject, wanted: &DynamicObject) -> DynamicObject {
    let mut made = live.clone();
    let mut labels = live.metadata.labels.clone().unwrap_or_default();
    let last = live.annotations().get(LAST_APPLIED);
    let last: Value = last
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    if let Some(last) = last["metadata"]["labels"].as_object() {
        labels.retain(|key, _| !last.contains_key(key));
    }
    labels.extend(wanted.metadata.labels.clone().unwrap_or_default());
    made.metadata.labels = Some(labels);
    if let (Some(made), Some(wanted)) = (made.data.as_object_mut(), wanted.data.as_object()) {
        for (key, value) in wanted {
            made.insert(key.clone(), value.clone());
        }
    }
    made
}

/// The object as policies see it; nothing where it is nothing to them.
fn converted<T: Part>(
    made: &DynamicObject,
    label: &str,
) -> Result<Option<std::sync::Arc<T>>, Error> {
    let bad = |cause: serde_json::Error| Error::Field {
        object: label.to_owned(),
        field: "object".into(),
        cause: cause.to_string(),
    };
    let text = serde_json::to_string(made).map_err(bad)?;
    let slim: Slim<T> = serde_json::from_str(&text).map_err(bad)?;
    if let Some(problem) = slim.problem() {
        return Err(problem);
    }
    Ok(match slim.converted.value {
        Converted::Is(value) => Some(value),
        Converted::Nothing | Converted::Unknown => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: Value) -> DynamicObject {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn labels_go_when_the_manifest_that_brought_them_has_them_no_more() {
        let last = r#"{"metadata":{"labels":{"team":"a","old":"x"}}}"#;
        let live = object(serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": "data",
                "labels": {"team": "a", "old": "x", "kubernetes.io/metadata.name": "data"},
                "annotations": {LAST_APPLIED: last},
            },
        }));
        let wanted = object(serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "data", "labels": {"team": "b"}},
        }));
        let labels = merged(&live, &wanted).metadata.labels.unwrap();
        let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(labels, ["kubernetes.io/metadata.name=data", "team=b"]);
    }

    #[test]
    fn a_policys_spec_is_the_manifests_own() {
        let with = |spec: Value| {
            object(serde_json::json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
            }))
        };
        let live = with(serde_json::json!({"podSelector": {}, "egress": [{}]}));
        let wanted = with(serde_json::json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
        let made = merged(&live, &wanted);
        assert_eq!(made.data["spec"], wanted.data["spec"]);
        let change = converted::<NetworkPolicy>(&made, "NetworkPolicy shop/p").unwrap();
        let policy = change.unwrap();
        assert_eq!(
            (policy.ingress.as_deref(), policy.egress.as_deref()),
            (Some(&[][..]), None)
        );
    }
}
