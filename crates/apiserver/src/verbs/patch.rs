//! patch: JSON, merge, strategic merge and server-side apply.

use objects::apply::{self, Manager};
use objects::{Object, Status};

use super::decode;
use super::write::{self, Options};
use super::{Call, Reply, meta};
use crate::context;
use crate::failure::Failure;

/// The media types of patches.
const KNOWN: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// A parsed patch.
pub enum Patch {
    /// RFC 6902.
    Json(Object),
    /// RFC 7396.
    Merge(Object),
    /// Kubernetes' own.
    Strategic(Object),
    /// Server-side apply.
    Apply(Object),
}

/// Reads the body by its media type.
pub fn parse(call: &Call) -> Result<Patch, Status> {
    let json = || {
        serde_json::from_slice(&call.body)
            .map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))
    };
    match call.content_type.as_str() {
        "application/json-patch+json" => Ok(Patch::Json(json()?)),
        "application/merge-patch+json" => Ok(Patch::Merge(json()?)),
        "application/strategic-merge-patch+json" if call.kind.custom.is_none() => {
            Ok(Patch::Strategic(json()?))
        }
        "application/apply-patch+yaml" | "application/apply-patch" => {
            Ok(Patch::Apply(decode::yaml(&call.body)?))
        }
        _ => Err(Status::unsupported_media_type(KNOWN)),
    }
}

impl Patch {
    /// Applies a patch that is no server-side apply to `object`.
    pub fn change(&self, object: &mut Object, schema: &objects::Schema) -> Result<(), Status> {
        match self {
            Self::Json(patch) => objects::patch::json(object, patch),
            Self::Merge(patch) => objects::patch::merge(object, patch),
            Self::Strategic(patch) => objects::patch::strategic(object, patch, schema),
            Self::Apply(_) => Err(Status::internal("an apply is no change")),
        }
    }
}

/// patch.
pub async fn patch(call: &Call) -> Reply {
    let patch = parse(call)?;
    let mut options = call.options()?;
    let mut warnings = Vec::new();
    let written = if let Patch::Apply(config) = &patch {
        let config = applied(call, config, &mut options, &mut warnings)?;
        let force = call.query.flag("force");
        write::replace(
            &call.ctx,
            &call.kind,
            &call.info.namespace,
            &call.info.name,
            &options,
            |old| {
                if old.is_none() && !options.subresource.is_empty() {
                    return Err(call.not_found().into());
                }
                merged(call, old, &config, &options, force)
            },
        )
        .await?
    } else {
        if call.query.has("force") {
            return Err(Status::bad_request("PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch").into());
        }
        write::replace(
            &call.ctx,
            &call.kind,
            &call.info.namespace,
            &call.info.name,
            &options,
            |old| {
                let old = old.ok_or_else(|| call.not_found())?;
                let mut new = old.clone();
                // A patch that names a resourceVersion is held to it; others follow the object.
                patch.change(&mut new, &call.kind.schema)?;
                warnings = decode::check_patched(call, &mut new)?;
                same_name(call, &new)?;
                Ok(new)
            },
        )
        .await?
    };
    let code = if written.created { 201 } else { 200 };
    decode::warn(call.answer(code, &written.object)?, &warnings)
}

fn same_name(call: &Call, new: &Object) -> Result<(), Status> {
    if !new.is_object() {
        return Err(Status::bad_request("the patch leaves no object"));
    }
    let name = meta::get(new, "name");
    if name == call.info.name {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "the name of the object ({name}) does not match the name on the URL ({})",
        call.info.name
    )))
}

/// Checks an applied configuration before it is merged.
fn applied(
    call: &Call,
    config: &Object,
    options: &mut Options,
    warnings: &mut Vec<String>,
) -> Result<Object, Failure> {
    let mut config = config.clone();
    if call.query.get("fieldManager").is_empty() {
        return Err(Status::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        )
        .into());
    }
    write::fit(call, &mut config)?;
    if !config["metadata"]["managedFields"].is_null() {
        return Err(Status::bad_request("metadata.managedFields must be nil").into());
    }
    if meta::get(&config, "name").is_empty() {
        meta::set(&mut config, "name", call.info.name.clone().into());
    }
    same_name(call, &config)?;
    *warnings = decode::check(call, &mut config)?;
    options.applied = true;
    Ok(config)
}

fn merged(
    call: &Call,
    old: Option<&Object>,
    config: &Object,
    options: &Options,
    force: bool,
) -> Result<Object, Failure> {
    let now = context::now_text();
    let manager = Manager {
        name: &options.manager,
        api_version: &call.kind.api_version(),
        subresource: &options.subresource,
        now: &now,
    };
    let mut new = apply::apply(old, config, &call.kind.schema, &manager, force)?;
    let asked = config["metadata"]["resourceVersion"].clone();
    meta::set(&mut new, "resourceVersion", asked);
    Ok(new)
}
