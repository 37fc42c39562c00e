//! Bodies of requests.

use http::HeaderValue;
use objects::{Object, Status};

use super::{Call, Reply};
use crate::failure::Failure;
use crate::output::Answer;

/// What to do with fields a kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Drop them.
    Ignore,
    /// Drop them and say so.
    Warn,
    /// Refuse them.
    Strict,
}

/// Reads `fieldValidation`.
pub fn strictness(call: &Call) -> Result<Strictness, Status> {
    match call.query.get("fieldValidation") {
        "" | "Warn" => Ok(Strictness::Warn),
        "Ignore" => Ok(Strictness::Ignore),
        "Strict" => Ok(Strictness::Strict),
        other => Err(Status::bad_request(format!(
            "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
        ))),
    }
}

/// Any JSON (or YAML) body.
pub fn any(call: &Call) -> Result<Object, Status> {
    match call.content_type.as_str() {
        "" | "application/json" => serde_json::from_slice(&call.body).map_err(|e| {
            Status::bad_request(format!("couldn't get version/kind; json parse error: {e}"))
        }),
        "application/yaml" => yaml(&call.body),
        media => {
            tracing::debug!(media, "unsupported");
            Err(Status::unsupported_media_type(&[
                "application/json",
                "application/yaml",
            ]))
        }
    }
}

/// A YAML document as JSON.
pub fn yaml(body: &[u8]) -> Result<Object, Status> {
    // Most of what is sent as YAML is JSON.
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let text = std::str::from_utf8(body)
        .map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
    serde_saphyr::from_str(text)
        .map_err(|e| Status::bad_request(format!("error converting YAML to JSON: yaml: {e}")))
}

/// The object of a create or update, and the warnings about it.
pub fn body(call: &Call) -> Result<(Object, Vec<String>), Failure> {
    let mut object = any(call)?;
    let warnings = check(call, &mut object)?;
    Ok((object, warnings))
}

/// Drops, names or refuses fields the kind does not have.
pub fn check(call: &Call, object: &mut Object) -> Result<Vec<String>, Failure> {
    let strictness = strictness(call)?;
    let decoded = call.kind.schema.decode(object);
    decoded.check(&call.kind, strictness == Strictness::Strict)?;
    Ok(warnings(call, object, strictness, &decoded))
}

/// The same for what a patch made; the patch is named instead of the object.
pub fn check_patched(call: &Call, object: &mut Object) -> Result<Vec<String>, Failure> {
    let strictness = strictness(call)?;
    let decoded = call.kind.schema.decode(object);
    let patch = String::from_utf8_lossy(&call.body);
    decoded.check_patch(&patch, strictness == Strictness::Strict)?;
    Ok(warnings(call, object, strictness, &decoded))
}

fn warnings(
    call: &Call,
    object: &Object,
    strictness: Strictness,
    decoded: &objects::schema::Decoded,
) -> Vec<String> {
    let mut warnings = match strictness {
        Strictness::Warn => decoded.warnings(),
        _ => Vec::new(),
    };
    warnings.extend(objects::validation::warnings(&call.kind, object));
    warnings
}

/// Adds the warnings as headers.
pub fn warn(mut answer: Answer, warnings: &[String]) -> Reply {
    for warning in warnings {
        let plain: String = warning
            .chars()
            .flat_map(|c| {
                if matches!(c, '"' | '\\') {
                    vec!['\\', c]
                } else {
                    vec![c]
                }
            })
            .filter(|c| !c.is_control())
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{plain}\"")) {
            answer.headers_mut().append(http::header::WARNING, value);
        }
    }
    Ok(answer)
}
