//! `metav1.Status`: how the API says what went wrong, in apimachinery's words.

use serde_json::{Map, Value, json};

use crate::Object;
use crate::validation::field::{self, FieldError};

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

impl Cause {
    fn to_value(&self) -> Value {
        let mut cause = Map::new();
        for (key, text) in [
            ("reason", &self.reason),
            ("message", &self.message),
            ("field", &self.field),
        ] {
            if !text.is_empty() {
                cause.insert(key.into(), Value::String(text.clone()));
            }
        }
        Value::Object(cause)
    }
}

/// A failure as the API answers it.
#[derive(Clone, Debug, PartialEq)]
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

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

/// `pods` or `deployments.apps`: how messages name a resource or kind of a group.
pub fn qualified(group: &str, name: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}

/// The sentence a failed optimistic lock answers with (after `Operation cannot be fulfilled on ...`).
pub const OPTIMISTIC_LOCK: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

fn details(group: &str, kind: &str, name: &str) -> Map<String, Value> {
    let mut map = Map::new();
    for (key, text) in [("name", name), ("group", group), ("kind", kind)] {
        if !text.is_empty() {
            map.insert(key.into(), text.into());
        }
    }
    map
}

impl Status {
    fn new(code: u16, reason: &'static str, message: String, details: Value) -> Self {
        Self {
            code,
            reason,
            message,
            details,
        }
    }

    /// 404: no object of that name.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!(
            "{} {} not found",
            qualified(group, resource),
            field::quote(name)
        );
        Self::new(
            404,
            "NotFound",
            message,
            details(group, resource, name).into(),
        )
    }

    /// 404 for a path nothing is served at.
    pub fn no_such_path() -> Self {
        let message = "the server could not find the requested resource".to_owned();
        Self::new(404, "NotFound", message, Value::Object(Map::new()))
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!(
            "{} {} already exists",
            qualified(group, resource),
            field::quote(name)
        );
        Self::new(
            409,
            "AlreadyExists",
            message,
            details(group, resource, name).into(),
        )
    }

    /// 409 where no free name was found for a `generateName`.
    pub fn generate_name_conflict(group: &str, resource: &str, name: &str) -> Self {
        let mut status = Self::already_exists(group, resource, name);
        status
            .message
            .push_str(", the server was not able to generate a unique name for the object");
        status.with_retry_after(1)
    }

    /// 409 with the reason given (`Operation cannot be fulfilled on ...: cause`).
    pub fn conflict(group: &str, resource: &str, name: &str, cause: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {}: {cause}",
            qualified(group, resource),
            field::quote(name)
        );
        Self::new(
            409,
            "Conflict",
            message,
            details(group, resource, name).into(),
        )
    }

    /// 409: the resourceVersion sent is not the one stored.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(group, resource, name, OPTIMISTIC_LOCK)
    }

    /// 409: the uid of a precondition or an update is not the stored one.
    pub fn uid_mismatch(
        group: &str,
        resource: &str,
        name: &str,
        wanted: &str,
        stored: &str,
    ) -> Self {
        let cause = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {stored}"
        );
        Self::conflict(group, resource, name, &cause)
    }

    /// 409 of server-side apply; the causes name the managers and fields.
    pub fn apply_conflict(message: String, causes: &[Cause]) -> Self {
        let causes: Vec<Value> = causes.iter().map(Cause::to_value).collect();
        Self::new(409, "Conflict", message, json!({ "causes": causes }))
    }

    /// 422 with a cause for each field error.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut message = format!(
            "{} {} is invalid",
            qualified(group, kind),
            field::quote(name)
        );
        if !errors.is_empty() {
            message.push_str(": ");
            message.push_str(&field::aggregate(errors));
        }
        let mut map = details(group, kind, name);
        let causes: Vec<Value> = errors.iter().map(|e| e.cause().to_value()).collect();
        if !causes.is_empty() {
            map.insert("causes".into(), causes.into());
        }
        Self::new(422, "Invalid", message, map.into())
    }

    /// 422 without a field, as a patch that cannot be applied is answered.
    pub fn unprocessable() -> Self {
        let message = "the server rejected our request due to an error in our request".to_owned();
        Self::new(422, "Invalid", message, Value::Object(Map::new()))
    }

    /// 400 with the sentence as given.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into(), Value::Null)
    }

    /// 401; an empty reason becomes `Unauthorized`, as the authentication filter answers.
    pub fn unauthorized(reason: &str) -> Self {
        let message = if reason.is_empty() {
            "Unauthorized"
        } else {
            reason
        };
        Self::new(401, "Unauthorized", message.to_owned(), Value::Null)
    }

    /// 403 with the cause after `... is forbidden: `.
    pub fn forbidden(group: &str, resource: &str, name: &str, cause: &str) -> Self {
        let message = if resource.is_empty() {
            format!("forbidden: {cause}")
        } else if name.is_empty() {
            format!("{} is forbidden: {cause}", qualified(group, resource))
        } else {
            format!(
                "{} {} is forbidden: {cause}",
                qualified(group, resource),
                field::quote(name)
            )
        };
        Self::new(
            403,
            "Forbidden",
            message,
            details(group, resource, name).into(),
        )
    }

    /// 410 `Expired`: the resourceVersion asked for is compacted away.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message.into(), Value::Null)
    }

    /// 410 for a watch from a resourceVersion that is gone.
    pub fn too_old(requested: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// 410 for a continue token whose snapshot is gone.
    pub fn continue_expired() -> Self {
        Self::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
        )
    }

    /// 504 for a resourceVersion the server has not reached yet.
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let mut status = Self::timeout(
            &format!("Too large resource version: {requested}, current: {current}"),
            1,
        );
        if let Value::Object(map) = &mut status.details {
            let cause = Cause {
                reason: "ResourceVersionTooLarge".into(),
                field: String::new(),
                message: "Too large resource version".into(),
            };
            map.insert("causes".into(), json!([cause.to_value()]));
        }
        status
    }

    /// 405: the resource has no such verb.
    pub fn method_not_allowed(group: &str, resource: &str, action: &str) -> Self {
        let message = format!(
            "{action} is not supported on resources of kind {}",
            field::quote(&qualified(group, resource))
        );
        Self::new(
            405,
            "MethodNotAllowed",
            message,
            details(group, resource, "").into(),
        )
    }

    /// 405 where the path takes no such method at all.
    pub fn method_not_on_path() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::new(405, "MethodNotAllowed", message, Value::Object(Map::new()))
    }

    /// 406: none of the accepted media types can be served.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!(
            "only the following media types are accepted: {}",
            accepted.join(", ")
        );
        Self::new(406, "NotAcceptable", message, Value::Null)
    }

    /// 415: the body's media type is unknown.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message, Value::Null)
    }

    /// 413: the body is longer than the limit.
    pub fn too_large(message: &str) -> Self {
        let message = format!("Request entity too large: {message}");
        Self::new(413, "RequestEntityTooLarge", message, Value::Null)
    }

    /// 429 with the seconds to wait.
    pub fn too_many_requests(message: &str, retry_after: u32) -> Self {
        Self::new(
            429,
            "TooManyRequests",
            message.to_owned(),
            json!({ "retryAfterSeconds": retry_after }),
        )
    }

    /// 429 of an eviction that would break a budget.
    pub fn disruption_budget(budget: &str, needs: i64, healthy: i64) -> Self {
        let mut status = Self::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            0,
        );
        let message = format!(
            "The disruption budget {budget} needs {needs} healthy pods and has {healthy} currently"
        );
        status.details =
            json!({ "causes": [{ "reason": "DisruptionBudget", "message": message }] });
        status
    }

    /// 503: something the server needs is away.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message.into(), Value::Null)
    }

    /// 504 `Timeout: ...` with the seconds to wait.
    pub fn timeout(message: &str, retry_after: u32) -> Self {
        Self::new(
            504,
            "Timeout",
            format!("Timeout: {message}"),
            json!({ "retryAfterSeconds": retry_after }),
        )
    }

    /// 500 with the error named.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        let message = format!("Internal error occurred: {error}");
        Self::new(
            500,
            "InternalError",
            message,
            json!({ "causes": [{ "message": error.to_string() }] }),
        )
    }

    /// 500 for an error upstream has no reason for.
    pub fn unknown(message: String) -> Self {
        Self::new(500, "", message, Value::Null)
    }

    /// The same status, asking the client to come back after `seconds`.
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        if let Value::Object(map) = &mut self.details {
            map.insert("retryAfterSeconds".into(), seconds.into());
        } else {
            self.details = json!({ "retryAfterSeconds": seconds });
        }
        self
    }

    /// `details.retryAfterSeconds`, for the Retry-After header.
    pub fn retry_after(&self) -> Option<u64> {
        self.details.get("retryAfterSeconds")?.as_u64()
    }

    /// The object on the wire.
    pub fn to_value(&self) -> Object {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }

    /// The `Success` answer to a delete that removed the object at once.
    pub fn deleted(group: &str, resource: &str, name: &str, uid: &str) -> Object {
        let mut map = details(group, resource, name);
        if !uid.is_empty() {
            map.insert("uid".into(), uid.into());
        }
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": map,
        })
    }

    /// The `Success` answer without details (binding, eviction, deletecollection).
    pub fn success(code: u16) -> Object {
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::field::{Errors, Path};

    #[test]
    fn words_of_apimachinery() {
        assert_eq!(
            Status::not_found("apps", "deployments", "web").to_value(),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "deployments.apps \"web\" not found", "reason": "NotFound",
                "details": {"name": "web", "group": "apps", "kind": "deployments"}, "code": 404,
            })
        );
        assert_eq!(
            Status::modified("", "pods", "a").message,
            "Operation cannot be fulfilled on pods \"a\": the object has been modified; please apply your changes to the latest version and try again"
        );
        assert_eq!(
            Status::method_not_allowed("", "pods", "patch").message,
            "patch is not supported on resources of kind \"pods\""
        );
    }

    #[test]
    fn invalid_lists_each_cause_once_in_the_message() {
        let mut errors = Errors::new();
        let spec = Path::root("spec");
        errors.required(&spec.child("containers"), "");
        errors.invalid(&spec.child("dnsPolicy"), &json!(3), "no");
        errors.required(&spec.child("containers"), "");
        let status = Status::invalid("", "Pod", "a", &errors.into_vec());
        assert_eq!(
            status.message,
            "Pod \"a\" is invalid: [spec.containers: Required value, spec.dnsPolicy: Invalid value: 3: no]"
        );
        assert_eq!(
            status.details["causes"][0],
            json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers"})
        );
        assert_eq!(status.code, 422);
    }
}
