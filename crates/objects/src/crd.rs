//! CustomResourceDefinitions: from the applied object to served kinds.

use std::sync::Arc;

use crate::{Kind, Object, Status};

/// What a served version of a CRD adds to its kind: printer columns, subresources, conversion.
#[derive(Clone, Debug, Default)]
pub struct CustomVersion {}

/// The kinds a CRD serves (one a served version).
pub fn kinds(definition: &Object) -> Result<Vec<Arc<Kind>>, Status> {
    let _ = definition;
    Ok(Vec::new())
}
