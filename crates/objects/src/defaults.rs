//! Defaults of the built-in kinds.

use crate::{Kind, Object};

pub(crate) fn fill(kind: &Kind, object: &mut Object) {
    kind.schema.fill(object);
}
