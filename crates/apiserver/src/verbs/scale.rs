//! The scale subresource.

use objects::{Object, Status, scale};

use super::patch::{self, Patch};
use super::{Call, Reply, decode, meta, write};
use crate::accept::Form;
use crate::failure::Failure;
use crate::output;
use crate::registry;

/// get, update and patch of `scale`.
pub async fn scale(call: &Call) -> Reply {
    if call.form == Form::Table {
        return Err(Status::not_acceptable(&["application/json"]).into());
    }
    let object = match call.info.verb.as_str() {
        "get" => {
            let key = registry::key(&call.kind, &call.info.namespace, &call.info.name);
            let entry = call.ctx.store.get(&key).ok_or_else(|| call.not_found())?;
            output::object(&call.kind, &entry)
        }
        "update" => {
            let wanted = decode::any(call)?;
            change(call, |_| Ok(wanted.clone())).await?
        }
        "patch" => {
            let patch = patch::parse(call)?;
            change(call, |old| {
                let mut new = scale::of(&call.kind, old);
                let found = new["metadata"]["resourceVersion"].take();
                match &patch {
                    // A Scale has no lists: a strategic merge is a merge, and so is an apply.
                    Patch::Strategic(p) | Patch::Apply(p) => objects::patch::merge(&mut new, p)?,
                    other => other.change(&mut new, &call.kind.schema)?,
                }
                if new["metadata"]["resourceVersion"].is_null() {
                    new["metadata"]["resourceVersion"] = found;
                }
                Ok(new)
            })
            .await?
        }
        _ => return Err(Status::method_not_on_path().into()),
    };
    Ok(output::value(
        200,
        &scale::of(&call.kind, &object),
        call.pretty,
    ))
}

async fn change(
    call: &Call,
    mut wanted: impl FnMut(&Object) -> Result<Object, Failure>,
) -> Result<Object, Failure> {
    let written = write::replace(
        &call.ctx,
        &call.kind,
        &call.info.namespace,
        &call.info.name,
        &call.options()?,
        |old| {
            let old = old.ok_or_else(|| call.not_found())?;
            let scale = wanted(old)?;
            if scale["spec"]["replicas"].as_i64().is_some_and(|n| n < 0) {
                return Err(Status::bad_request(
                    "spec.replicas: Invalid value: must be greater than or equal to 0",
                )
                .into());
            }
            let mut new = old.clone();
            scale::set(&call.kind, &mut new, &scale);
            meta::set(
                &mut new,
                "resourceVersion",
                scale["metadata"]["resourceVersion"].clone(),
            );
            Ok(new)
        },
    )
    .await?;
    Ok(written.object)
}
