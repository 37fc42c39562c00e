//! OpenAPI v3: an index, and a document for each group and version made when first asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use objects::{Kind, Status};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::context::Ctx;
use crate::output::{self, Answer};
use crate::registry::Registry;
use crate::request::Query;
use crate::verbs::Reply;

/// Documents kept: those of the paths asked for last, by path and hash.
#[derive(Default)]
pub struct Documents(Mutex<Option<(String, Bytes)>>);

/// Kinds by the path of their document.
fn groups(registry: &Registry) -> BTreeMap<String, Vec<Arc<Kind>>> {
    let mut groups: BTreeMap<String, Vec<Arc<Kind>>> = BTreeMap::new();
    for kind in registry.iter() {
        let path = if kind.group.is_empty() {
            format!("api/{}", kind.version)
        } else {
            format!("apis/{}/{}", kind.group, kind.version)
        };
        groups.entry(path).or_default().push(kind.clone());
    }
    groups
}

/// A name for what a document says, without making it: kinds are fixed for a version of this
/// program, and those of CRDs have a new schema after each change.
fn hash(kinds: &[Arc<Kind>]) -> String {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    for kind in kinds {
        hash.update(&kind.kind);
        if kind.custom.is_some() {
            hash.update(format!("{:?}", kind.schema));
        }
    }
    hash.finalize().iter().map(|b| format!("{b:02X}")).collect()
}

/// Answers `/openapi/v2`, which kubectl asks for kinds nobody serves: a document that says so.
pub fn version_two() -> Answer {
    const MEDIA: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    output::typed(200, MEDIA, objects::openapi::empty_version_two())
}

/// Answers `/openapi/v3` and what is below.
pub fn answer(ctx: &Ctx, path: &str, query: &Query) -> Reply {
    let groups = groups(&ctx.registry.load());
    let wanted = path.trim_start_matches("/openapi/v3").trim_matches('/');
    if wanted.is_empty() {
        let paths: serde_json::Map<String, objects::Object> = groups
            .iter()
            .map(|(path, kinds)| {
                let url = format!("/openapi/v3/{path}?hash={}", hash(kinds));
                (path.clone(), json!({"serverRelativeURL": url}))
            })
            .collect();
        return Ok(output::value(200, &json!({"paths": paths}), false));
    }
    let kinds = groups.get(wanted).ok_or_else(Status::no_such_path)?;
    let hash = hash(kinds);
    let name = format!("{wanted}?{hash}");
    let _ = query;
    let mut kept = ctx
        .documents
        .0
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((of, document)) = kept.as_ref()
        && *of == name
    {
        return Ok(output::json_bytes(200, document.clone()));
    }
    let document = Bytes::from(objects::openapi::document(kinds));
    // One is enough: clients keep what they read by its hash.
    *kept = Some((name, document.clone()));
    Ok(output::json_bytes(200, document))
}
