//! Failures of this server, on their way to a `metav1.Status`.

use objects::validation::field::{ErrorKind, FieldError};
use objects::{Kind, Status};
use serde_json::json;

use crate::store::WriteError;

/// A Status that `?` makes from other errors.
#[derive(Debug)]
pub struct Failure(pub Status);

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self(match error {
            WriteError::Conflict(_) => status(409, "Conflict", objects::status::OPTIMISTIC_LOCK),
            WriteError::Full(path) => status(
                507,
                "InsufficientStorage",
                format!(
                    "no space left on the disk that holds {path}: nothing was stored; \
                     free some space and try again"
                ),
            ),
            WriteError::Storage(cause) => Status::internal(cause),
        })
    }
}

/// A Status without details.
pub fn status(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
    Status {
        code,
        reason,
        message: message.into(),
        details: json!({}),
    }
}

/// 422 for one field.
pub fn invalid(kind: &Kind, name: &str, error: ErrorKind, field: &str, message: String) -> Status {
    let error = FieldError {
        kind: error,
        field: field.to_owned(),
        message,
    };
    Status::invalid(&kind.group, &kind.kind, name, &[error])
}
