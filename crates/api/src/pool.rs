//! LoadBalancerPools: their definition, and objects as [`model`] values.

use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;

use crate::Error;
use crate::error::cause;

/// The CustomResourceDefinition, as a manifest.
pub const DEFINITION: &str = include_str!("../manifests/loadbalancerpool.yaml");

/// Kind of the objects.
pub const KIND: &str = "LoadBalancerPool";

/// How the API server serves them.
pub fn resource() -> ApiResource {
    let gvk = GroupVersionKind::gvk("flatnet.io", "v1alpha1", KIND);
    ApiResource::from_gvk_with_plural(&gvk, "loadbalancerpools")
}

/// All of them.
pub fn all(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    addresses: Vec<String>,
    #[serde(default, rename = "avoidBuggyIPs")]
    avoid_buggy_ips: bool,
    #[serde(default = "yes")]
    auto_assign: bool,
    service_selector: Option<model::LabelSelector>,
    namespace_selector: Option<model::LabelSelector>,
    node_selector: Option<model::LabelSelector>,
}

fn yes() -> bool {
    true
}

/// A pool as the network needs to know it.
pub fn pool(object: &DynamicObject) -> Result<model::Pool, Error> {
    let name = object.name_any();
    let bad = |field: String, cause: String| Error::Field {
        object: format!("{KIND} {name}"),
        field,
        cause,
    };
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let spec: Spec =
        serde_json::from_value(spec).map_err(|error| bad("spec".to_owned(), error.to_string()))?;
    let mut addresses = Vec::with_capacity(spec.addresses.len());
    for (index, text) in spec.addresses.iter().enumerate() {
        let range = text
            .parse()
            .map_err(|cause| bad(format!("spec.addresses[{index}]"), cause))?;
        addresses.push(range);
    }
    Ok(model::Pool {
        created: object
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
        addresses,
        avoid_buggy: spec.avoid_buggy_ips,
        service_selector: spec.service_selector,
        namespace_selector: spec.namespace_selector,
        node_selector: spec.node_selector,
        auto_assign: spec.auto_assign,
        name,
    })
}

/// Makes the cluster know the kind, as this program knows it; true where it did not before.
pub async fn define(client: &Client, manager: &str) -> Result<bool, Error> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let objects = crate::manifest::parse("loadbalancerpool.yaml", DEFINITION)?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut fresh = false;
    for object in &objects {
        let name = object.name_any();
        let what = format!("CustomResourceDefinition {name}");
        let there = definitions.get_opt(&name).await;
        fresh |= there
            .map_err(Error::request(format!("get {what}")))?
            .is_none();
        let params = PatchParams::apply(manager).force();
        definitions
            .patch(&name, &params, &Patch::Apply(object))
            .await
            .map_err(Error::request(format!("apply {what}")))?;
    }
    Ok(fresh)
}

/// Makes a pool where there is none of that name. The kind may take a moment to be served.
pub async fn create(client: &Client, name: &str, addresses: &[String]) -> Result<(), Error> {
    let mut object = DynamicObject::new(name, &resource());
    object.data = serde_json::json!({"spec": {"addresses": addresses}});
    let mut backoff = crate::Backoff::new(
        std::time::Duration::from_millis(5),
        std::time::Duration::from_millis(500),
    );
    for _ in 0..20 {
        match all(client).create(&PostParams::default(), &object).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                tracing::debug!("{KIND} {name}: {}", status.message);
                tokio::time::sleep(backoff.wait()).await;
            }
            Err(error) => return Err(Error::request(format!("create {KIND} {name}"))(error)),
        }
    }
    Err(Error::NoKind {
        object: format!("{KIND} {name}"),
        api_version: "flatnet.io/v1alpha1".to_owned(),
        kind: KIND.to_owned(),
    })
}

/// Whether the failure is that the cluster does not serve the kind.
pub fn is_undefined(error: &kube::runtime::watcher::Error) -> bool {
    use kube::runtime::watcher::Error as Watch;
    match error {
        Watch::InitialListFailed(error) | Watch::WatchStartFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 404)
                || cause(error).starts_with("404")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(spec: serde_json::Value) -> Result<model::Pool, Error> {
        let mut object = DynamicObject::new("lan", &resource());
        object.data = json!({"spec": spec});
        pool(&object)
    }

    #[test]
    fn a_pool_is_read_with_its_defaults() {
        let pool = read(json!({"addresses": ["10.0.1.200-10.0.1.250", "fd00::/120"],
            "nodeSelector": {"matchExpressions": [{"key": "edge", "operator": "Exists"}]}}))
        .unwrap();
        assert!(pool.auto_assign && !pool.avoid_buggy);
        assert_eq!(pool.addresses.len(), 2);
        assert!(pool.node_selector.is_some() && pool.service_selector.is_none());
    }

    #[test]
    fn a_wrong_entry_is_named() {
        let error = read(json!({"addresses": ["10.0.1.0/24", "10.0.2.1/24"]})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "LoadBalancerPool lan: spec.addresses[1]: 10.0.2.1/24 has host bits set; did you mean 10.0.2.0/24?"
        );
    }

    #[test]
    fn the_definition_is_one_object() {
        let objects = crate::manifest::parse("x", DEFINITION).unwrap();
        assert_eq!(objects[0].name_any(), "loadbalancerpools.flatnet.io");
        let schema = &objects[0].data["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let selector = &schema["properties"]["spec"]["properties"]["nodeSelector"];
        assert!(selector["properties"]["matchExpressions"].is_object());
    }
}
