//! Failures as Kubernetes words them.

use objects::{Cause, Object, Status};
use serde_json::json;

/// A Status with neither details nor surprise.
pub fn status(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
    Status {
        code,
        reason,
        message: message.into(),
        details: Object::Null,
    }
}

/// 400.
pub fn bad_request(message: impl Into<String>) -> Status {
    status(400, "BadRequest", message)
}

/// `pods` or `deployments.apps`.
pub fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

fn details(group: &str, resource: &str, name: &str) -> Object {
    let mut details = json!({"kind": resource});
    if !name.is_empty() {
        details["name"] = name.into();
    }
    if !group.is_empty() {
        details["group"] = group.into();
    }
    details
}

/// 404 for an object.
pub fn not_found(group: &str, resource: &str, name: &str) -> Status {
    Status {
        code: 404,
        reason: "NotFound",
        message: format!("{} \"{name}\" not found", qualified(group, resource)),
        details: details(group, resource, name),
    }
}

/// 404 for a path.
pub fn no_such_path() -> Status {
    Status {
        code: 404,
        reason: "NotFound",
        message: "the server could not find the requested resource".into(),
        details: json!({}),
    }
}

/// 409 for a name in use.
pub fn already_exists(group: &str, resource: &str, name: &str) -> Status {
    Status {
        code: 409,
        reason: "AlreadyExists",
        message: format!("{} \"{name}\" already exists", qualified(group, resource)),
        details: details(group, resource, name),
    }
}

/// 409 for a lost race.
pub fn conflict(group: &str, resource: &str, name: &str, cause: &str) -> Status {
    Status {
        code: 409,
        reason: "Conflict",
        message: format!(
            "Operation cannot be fulfilled on {} \"{name}\": {cause}",
            qualified(group, resource)
        ),
        details: details(group, resource, name),
    }
}

/// The words of a conflict over resourceVersion.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// 403 for a name.
pub fn forbidden(group: &str, resource: &str, name: &str, cause: &str) -> Status {
    let object = if name.is_empty() {
        qualified(group, resource)
    } else {
        format!("{} \"{name}\"", qualified(group, resource))
    };
    Status {
        code: 403,
        reason: "Forbidden",
        message: format!("{object} is forbidden: {cause}"),
        details: details(group, resource, name),
    }
}

/// 405.
pub fn method_not_allowed() -> Status {
    Status {
        code: 405,
        reason: "MethodNotAllowed",
        message: "the server does not allow this method on the requested resource".into(),
        details: json!({}),
    }
}

/// 401.
pub fn unauthorized() -> Status {
    status(401, "Unauthorized", "Unauthorized")
}

/// 410, for a watch or a page of the past.
pub fn expired(message: impl Into<String>) -> Status {
    status(410, "Expired", message)
}

/// 500.
pub fn internal(message: impl std::fmt::Display) -> Status {
    let message = message.to_string();
    Status {
        code: 500,
        reason: "InternalError",
        details: json!({"causes": [{"message": message}]}),
        message: format!("Internal error occurred: {message}"),
    }
}

/// 422 of a kind (`Pod`, `Deployment.apps`).
pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Status {
    let sentences: Vec<String> = causes
        .iter()
        .map(|c| format!("{}: {}", c.field, c.message))
        .collect();
    let all = match sentences.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let list: Vec<Object> = causes
        .iter()
        .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
        .collect();
    let mut details = details(group, kind, name);
    details["causes"] = list.into();
    Status {
        code: 422,
        reason: "Invalid",
        message: format!("{} \"{name}\" is invalid: {all}", qualified(group, kind)),
        details,
    }
}

/// A cause of a 422.
pub fn cause(reason: &str, field: &str, message: impl Into<String>) -> Cause {
    Cause {
        reason: reason.into(),
        field: field.into(),
        message: message.into(),
    }
}

/// The `metav1.Status` that travels.
pub fn body(failure: &Status) -> Object {
    let mut body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": failure.message, "reason": failure.reason, "code": failure.code,
    });
    if !failure.details.is_null() {
        body["details"] = failure.details.clone();
    }
    body
}

impl From<crate::store::WriteError> for Failure {
    fn from(error: crate::store::WriteError) -> Self {
        use crate::store::WriteError;
        Self(match error {
            WriteError::Conflict(_) => status(409, "Conflict", MODIFIED),
            WriteError::Full(path) => Status {
                code: 507,
                reason: "InsufficientStorage",
                message: format!(
                    "no space left on the disk that holds {path}: nothing was stored; \
                     free some space and try again"
                ),
                details: json!({}),
            },
            WriteError::Storage(cause) => internal(cause),
        })
    }
}

/// A Status that `?` makes from other errors.
#[derive(Debug)]
pub struct Failure(pub Status);

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self(status)
    }
}
