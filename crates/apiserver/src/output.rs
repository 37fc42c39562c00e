//! From stored objects to the bytes of an answer.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use objects::{Kind, Object, Status, table};
use serde_json::json;

use crate::accept::Form;
use crate::request::Query;
use crate::store::Entry;

/// A body: whole or streamed.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;
/// An answer.
pub type Answer = Response<Body>;

/// A body that is there already.
pub fn full(data: impl Into<Bytes>) -> Body {
    Full::new(data.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// JSON bytes as an answer.
pub fn json_bytes(code: u16, data: impl Into<Bytes>) -> Answer {
    typed(code, "application/json", data)
}

/// Bytes of some media type as an answer.
pub fn typed(code: u16, media: &'static str, data: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(full(data));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// A JSON value as an answer.
pub fn value(code: u16, value: &Object, pretty: bool) -> Answer {
    json_bytes(code, text(value, pretty))
}

/// A JSON value as text.
pub fn text(value: &Object, pretty: bool) -> Vec<u8> {
    let done = if pretty {
        serde_json::to_vec_pretty(value)
    } else {
        serde_json::to_vec(value)
    };
    // A Value always serialises.
    let mut bytes = done.unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// A failure as an answer.
pub fn failed(status: &Status) -> Answer {
    let mut answer = value(status.code, &status.to_value(), false);
    if let Some(seconds) = status.retry_after() {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// True where the reader wants line breaks.
pub fn pretty(query: &Query, user_agent: &str) -> bool {
    if query.has("pretty") {
        return query.flag("pretty");
    }
    user_agent.starts_with("curl/") || user_agent.starts_with("Wget/")
}

/// How much of each object a Table row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// `PartialObjectMetadata`.
    Metadata,
    /// All of it.
    Object,
}

/// Reads `includeObject`.
pub fn include(query: &Query) -> Result<Include, Status> {
    match query.get("includeObject") {
        "" | "Metadata" => Ok(Include::Metadata),
        "None" => Ok(Include::None),
        "Object" => Ok(Include::Object),
        other => Err(Status::bad_request(format!(
            "unsupported includeObject value: {other:?} (None, Metadata and Object are known)"
        ))),
    }
}

/// True for kinds that are served exactly as they are stored.
pub fn as_stored(kind: &Kind) -> bool {
    kind.custom.is_none() && kind.group != "events.k8s.io"
}

/// The stored bytes at the version that was asked for.
pub fn versioned<'a>(kind: &Kind, entry: &'a Entry) -> Cow<'a, [u8]> {
    if as_stored(kind) {
        return Cow::Borrowed(&entry.data);
    }
    // Without a line's end: each event of a watch is one line.
    Cow::Owned(serde_json::to_vec(&object(kind, entry)).unwrap_or_default())
}

/// The stored object at the version that was asked for.
pub fn object(kind: &Kind, entry: &Entry) -> Object {
    let mut object = entry.object();
    kind.from_storage(&mut object);
    if kind.custom.is_some() {
        // A default that the CRD gained later shows on older objects too.
        objects::kind::default_object(kind, &mut object);
    }
    object
}

/// `PartialObjectMetadata` of an object.
pub fn partial(object: &Object) -> Object {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// A Table of `rows`; columns are left out where a watch has sent them already.
pub fn table(
    kind: &Kind,
    metadata: Object,
    rows: &[Object],
    include: Include,
    columns: bool,
) -> Object {
    let now = jiff::Timestamp::now().as_second();
    let lines: Vec<Object> = rows
        .iter()
        .map(|object| {
            let mut row = json!({"cells": table::cells(kind, object, now)});
            match include {
                Include::None => row["object"] = Object::Null,
                Include::Metadata => row["object"] = partial(object),
                Include::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    let columns = if columns {
        table::columns(kind)
    } else {
        Object::Null
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": lines,
    })
}

/// One object in the form asked for.
pub fn one(kind: &Kind, object: &Object, form: Form, include: Include) -> Result<Object, Status> {
    match form {
        Form::Json => Ok(object.clone()),
        Form::Partial => Ok(partial(object)),
        Form::Table => {
            let rv = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            Ok(table(kind, rv, std::slice::from_ref(object), include, true))
        }
        Form::Discovery => Err(Status::not_acceptable(&["application/json"])),
    }
}
