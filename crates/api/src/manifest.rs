//! Manifests: YAML or JSON files of one or more objects, read and applied.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::{Backoff, Error};

/// How long a kind may take to appear after its CustomResourceDefinition was applied.
const KIND_APPEARS: Duration = Duration::from_secs(5);

/// An object as applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Kind.
    pub kind: String,
    /// Namespace, for kinds that live in one.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// Reads the objects of `text`, which came from `file`. Empty documents are skipped and
/// `List`s unfolded.
pub fn parse(file: &str, text: &str) -> Result<Vec<DynamicObject>, Error> {
    let mut objects = Vec::new();
    for (index, document) in documents(text).iter().enumerate() {
        let bad = |cause: String| Error::Manifest {
            file: file.to_owned(),
            document: index + 1,
            cause,
        };
        let value: Value =
            serde_saphyr::from_str(document).map_err(|error| bad(error.to_string()))?;
        take(value, &bad, &mut objects)?;
    }
    Ok(objects)
}

/// The documents of a file that hold anything, as separate texts: an error in one then
/// names it.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        let separator = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']));
        match separator {
            Some(rest) => documents.push(rest.trim_start().to_owned() + "\n"),
            None => {
                if let Some(last) = documents.last_mut() {
                    last.push_str(line);
                    last.push('\n');
                }
            }
        }
    }
    let holds_anything = |document: &String| {
        document
            .lines()
            .map(str::trim)
            .any(|line| !line.is_empty() && !line.starts_with('#') && line != "...")
    };
    documents.retain(holds_anything);
    documents
}

fn take(
    value: Value,
    bad: &impl Fn(String) -> Error,
    objects: &mut Vec<DynamicObject>,
) -> Result<(), Error> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("");
    for (key, example) in [("apiVersion", "v1"), ("kind", "Pod")] {
        if text(key).is_empty() {
            return Err(bad(format!(
                "{key} is missing; write for example `{key}: {example}`"
            )));
        }
    }
    if text("kind").ends_with("List") && value.get("items").is_some_and(Value::is_array) {
        if let Value::Object(mut list) = value
            && let Some(Value::Array(items)) = list.remove("items")
        {
            for item in items {
                take(item, bad, objects)?;
            }
        }
        return Ok(());
    }
    let kind = text("kind").to_owned();
    let object: DynamicObject =
        serde_json::from_value(value).map_err(|error| bad(format!("{kind}: {error}")))?;
    if object.metadata.name.as_deref().unwrap_or("").is_empty() {
        return Err(bad(format!("{kind}: metadata.name is missing")));
    }
    objects.push(object);
    Ok(())
}

/// Applies `objects` in their order by server-side apply as field manager `manager`;
/// `report` hears of each as it is done. Stops at the first that is refused.
pub async fn apply(
    client: &Client,
    manager: &str,
    objects: &[DynamicObject],
    mut report: impl FnMut(&Applied),
) -> Result<(), Error> {
    let mut kinds = BTreeMap::new();
    let params = PatchParams::apply(manager).force().validation_strict();
    for object in objects {
        let (resource, capabilities) = kind_of(client, object, &mut kinds).await?;
        let name = object.name_any();
        let (api, namespace): (Api<DynamicObject>, _) = match capabilities.scope {
            Scope::Cluster => (Api::all_with(client.clone(), &resource), None),
            Scope::Namespaced => {
                let namespace = object
                    .namespace()
                    .unwrap_or_else(|| client.default_namespace().to_owned());
                let api = Api::namespaced_with(client.clone(), &namespace, &resource);
                (api, Some(namespace))
            }
        };
        api.patch(&name, &params, &Patch::Apply(object))
            .await
            .map_err(Error::request(format!("apply {}", label(object))))?;
        report(&Applied {
            kind: resource.kind.clone(),
            namespace,
            name,
        });
    }
    Ok(())
}

pub(crate) fn label(object: &DynamicObject) -> String {
    let kind = object
        .types
        .as_ref()
        .map_or("", |types| types.kind.as_str());
    match object.namespace() {
        Some(namespace) => format!("{kind} {namespace}/{}", object.name_any()),
        None => format!("{kind} {}", object.name_any()),
    }
}

type Kinds = BTreeMap<(String, String), (ApiResource, ApiCapabilities)>;

/// How the cluster serves the object's kind. A kind whose definition was applied just
/// before takes a moment to be served.
async fn kind_of(
    client: &Client,
    object: &DynamicObject,
    kinds: &mut Kinds,
) -> Result<(ApiResource, ApiCapabilities), Error> {
    let types = object.types.clone().unwrap_or_default();
    let key = (types.api_version.clone(), types.kind.clone());
    if let Some(known) = kinds.get(&key) {
        return Ok(known.clone());
    }
    let missing = || Error::NoKind {
        object: label(object),
        api_version: types.api_version.clone(),
        kind: types.kind.clone(),
    };
    let gvk = GroupVersionKind::try_from(&types).map_err(|_| missing())?;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
    let until = tokio::time::Instant::now() + KIND_APPEARS;
    loop {
        match kube::discovery::pinned_kind(client, &gvk).await {
            Ok(found) => {
                kinds.insert(key, found.clone());
                return Ok(found);
            }
            Err(kube::Error::Api(status)) if status.code != 404 => {
                let error = kube::Error::Api(status);
                return Err(Error::request(format!("discover {}", types.kind))(error));
            }
            Err(kube::Error::Api(_) | kube::Error::Discovery(_)) => {}
            Err(error) => return Err(Error::request(format!("discover {}", types.kind))(error)),
        }
        if tokio::time::Instant::now() >= until {
            return Err(missing());
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_lists_unfolded_and_empty_ones_skipped() {
        let text = "# a comment\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n---\n\n--- # next\n\
            apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: b, namespace: x}}\n\
            - apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: c}\n  data:\n    k: |\n      ----\n      --- not a separator\n";
        let objects = parse("f.yaml", text).unwrap();
        let labels: Vec<String> = objects.iter().map(label).collect();
        assert_eq!(labels, ["Pod a", "Service x/b", "ConfigMap c"]);
        assert!(
            objects[2].data["data"]["k"]
                .as_str()
                .unwrap()
                .contains("not a separator")
        );
    }

    #[test]
    fn errors_name_file_document_and_cause() {
        let case = |text: &str| parse("f.yaml", text).unwrap_err().to_string();
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n";
        assert_eq!(
            case(&format!("{pod}---\nkind: Pod\n")),
            "f.yaml: document 2: apiVersion is missing; write for example `apiVersion: v1`"
        );
        assert_eq!(
            case("apiVersion: v1\nkind: Pod\n"),
            "f.yaml: document 1: Pod: metadata.name is missing"
        );
        assert!(case("a: [1\n").starts_with("f.yaml: document 1: "));
    }
}
