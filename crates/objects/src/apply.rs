//! Server-side apply and field management (`metadata.managedFields`).

use crate::{Object, Schema, Status};

/// Who writes, for field management.
#[derive(Clone, Debug)]
pub struct Manager<'a> {
    /// `fieldManager` of the request.
    pub name: &'a str,
    /// apiVersion of the object as sent.
    pub api_version: &'a str,
    /// `status`, `scale` or empty.
    pub subresource: &'a str,
    /// RFC 3339 time of the request.
    pub now: &'a str,
}

/// Applies `config` to `live` (None creates): the merged object with its new managedFields,
/// or a 409 naming the managers in conflict. `force` takes their fields.
pub fn apply(
    live: Option<&Object>,
    config: &Object,
    schema: &Schema,
    manager: &Manager<'_>,
    force: bool,
) -> Result<Object, Status> {
    let _ = (live, schema, manager, force);
    Ok(config.clone())
}

/// Records that `manager` changed `old` into `new` by an update or patch: writes `new`'s managedFields.
pub fn track_update(
    old: Option<&Object>,
    new: &mut Object,
    schema: &Schema,
    manager: &Manager<'_>,
) {
    let _ = (old, new, schema, manager);
}
