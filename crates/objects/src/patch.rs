//! JSON patch, merge patch and strategic merge patch.

use crate::{Object, Schema, Status};

/// RFC 6902.
pub fn json(object: &mut Object, patch: &Object) -> Result<(), Status> {
    let _ = (object, patch);
    Ok(())
}

/// RFC 7396.
pub fn merge(object: &mut Object, patch: &Object) {
    let _ = (object, patch);
}

/// Kubernetes' strategic merge, with `$patch`, `$setElementOrder`, `$retainKeys`
/// and `$deleteFromPrimitiveList`.
pub fn strategic(object: &mut Object, patch: &Object, schema: &Schema) -> Result<(), Status> {
    let _ = (object, patch, schema);
    Ok(())
}
