//! The kinds served: names, scope, subresources.

use std::sync::Arc;

use crate::{Object, Schema, Status};

/// One served kind at one version.
#[derive(Clone)]
pub struct Kind {
    /// API group, empty for core.
    pub group: String,
    /// API version, for example `v1`.
    pub version: String,
    /// Kind, for example `Pod`.
    pub kind: String,
    /// Resource name in paths, for example `pods`.
    pub plural: String,
    /// Singular name, for example `pod`.
    pub singular: String,
    /// Short names, for example `po`.
    pub short_names: Vec<String>,
    /// Categories, for example `all`.
    pub categories: Vec<String>,
    /// True where objects live in a namespace.
    pub namespaced: bool,
    /// Names of the subresources served, for example `status`, `scale`, `log`.
    pub subresources: Vec<String>,
    /// The structural schema, with defaults, list types and merge keys.
    pub schema: Arc<Schema>,
    /// The CustomResourceDefinition version this came from, for kinds not built in.
    pub custom: Option<Arc<crate::crd::CustomVersion>>,
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// Every built-in kind. Built once; schemas are shared.
pub fn builtin() -> Vec<Arc<Kind>> {
    Vec::new()
}

/// Fills defaults, as the API server does between decoding and admission.
pub fn default_object(_kind: &Kind, _object: &mut Object) {}

/// Checks a new object; an error is the 422 Status with its causes.
pub fn validate_create(_kind: &Kind, _object: &Object) -> Result<(), Status> {
    Ok(())
}

/// Checks a replacement against what is stored (immutable fields included).
pub fn validate_update(_kind: &Kind, _new: &Object, _old: &Object) -> Result<(), Status> {
    Ok(())
}
