//! `meta.k8s.io/v1 Table`: what `kubectl get` prints.

use crate::{Kind, Object};

/// The columns (`columnDefinitions`) of a kind.
pub fn columns(kind: &Kind) -> Object {
    let _ = kind;
    Object::Array(Vec::new())
}

/// The cells of one row. `now` is seconds since the epoch, for ages.
pub fn cells(kind: &Kind, object: &Object, now: i64) -> Vec<Object> {
    let _ = (kind, object, now);
    Vec::new()
}
