//! ConfigMaps and Secrets as pods use them: fetched when a container starts, and shared
//! for a few seconds among the pods whose mounted files are brought up to date.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// How old an object may be where that does not matter at once.
const SHARED: Duration = Duration::from_secs(4);
/// Objects nobody asked for since then are forgotten.
const FORGET: Duration = Duration::from_secs(30);
/// In every namespace, and it never changes while a cluster lives: always shared.
const ROOT_CA: &str = "kube-root-ca.crt";

type Entries<K> = Mutex<HashMap<(String, String), (Instant, Option<Arc<K>>)>>;

/// Reads ConfigMaps and Secrets.
pub struct Objects {
    client: Client,
    maps: Entries<ConfigMap>,
    secrets: Entries<Secret>,
}

impl Objects {
    /// Nothing read yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            maps: Entries::default(),
            secrets: Entries::default(),
        }
    }

    /// A ConfigMap; with `fresh` as it is now.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        fresh: bool,
    ) -> Result<Option<Arc<ConfigMap>>, String> {
        let fresh = fresh && name != ROOT_CA;
        get(&self.client, &self.maps, namespace, name, fresh).await
    }

    /// A Secret; with `fresh` as it is now.
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
        fresh: bool,
    ) -> Result<Option<Arc<Secret>>, String> {
        get(&self.client, &self.secrets, namespace, name, fresh).await
    }
}

async fn get<K>(
    client: &Client,
    entries: &Entries<K>,
    namespace: &str,
    name: &str,
    fresh: bool,
) -> Result<Option<Arc<K>>, String>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let key = (namespace.to_owned(), name.to_owned());
    let now = Instant::now();
    if !fresh {
        let known = entries.lock().unwrap_or_else(PoisonError::into_inner);
        // An object that was missing is looked for again.
        if let Some((at, Some(object))) = known.get(&key)
            && now.duration_since(*at) < SHARED
        {
            return Ok(Some(object.clone()));
        }
    }
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await;
    let found = found
        .map_err(|error| api::error::cause(&error))?
        .map(Arc::new);
    let mut known = entries.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|_, (at, _)| now.duration_since(*at) < FORGET);
    known.insert(key, (now, found.clone()));
    Ok(found)
}
