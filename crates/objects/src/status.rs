//! `metav1.Status`: how the API says what went wrong.

use crate::Object;

/// One cause in `details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Machine reason, for example `FieldValueInvalid`.
    pub reason: String,
    /// Field path, for example `spec.containers[0].name`.
    pub field: String,
    /// The sentence, as Kubernetes words it.
    pub message: String,
}

/// A failure as the API answers it.
#[derive(Clone, Debug)]
pub struct Status {
    /// HTTP code.
    pub code: u16,
    /// `NotFound`, `Conflict`, `Invalid`, ...
    pub reason: &'static str,
    /// The sentence people read.
    pub message: String,
    /// `details`, or null.
    pub details: Object,
}
