//! Defaults of the built-in kinds.

use crate::{Kind, Object};

pub(crate) fn fill(_kind: &Kind, _object: &mut Object) {}
