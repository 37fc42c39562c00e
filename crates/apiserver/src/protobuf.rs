//! Bodies in Kubernetes' protobuf form.

use objects::{Object, Status};

/// An object from `application/vnd.kubernetes.protobuf`.
pub fn to_json(body: &[u8]) -> Result<Object, Status> {
    let _ = body;
    Err(Status::unsupported_media_type(&[
        "application/json",
        "application/yaml",
    ]))
}
