//! Validation of the built-in kinds, with Kubernetes' field paths and sentences.

pub mod field;
pub mod names;

use crate::{Kind, Object, Status};
use field::Errors;

pub(crate) fn create(kind: &Kind, object: &Object) -> Result<(), Status> {
    let mut errors = Errors::new();
    kind.schema.check(object, &mut errors);
    finish(kind, object, errors)
}

pub(crate) fn update(kind: &Kind, new: &Object, _old: &Object) -> Result<(), Status> {
    let mut errors = Errors::new();
    kind.schema.check(new, &mut errors);
    finish(kind, new, errors)
}

fn finish(kind: &Kind, object: &Object, errors: Errors) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Err(Status::invalid(
        &kind.group,
        &kind.kind,
        name,
        &errors.into_vec(),
    ))
}
