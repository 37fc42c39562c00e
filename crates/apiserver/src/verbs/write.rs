//! create and update, for every way in which an object is written.

use std::sync::Arc;

use objects::apply::{self, Manager};
use objects::validation::field::ErrorKind;
use objects::{Kind, Object, Status};

use super::{Call, Reply, meta};
use crate::admission;
use crate::auth::User;
use crate::context::{self, Ctx};
use crate::failure::{self, Failure};
use crate::output;
use crate::registry;
use crate::store::{Change, Expect, WriteError};

/// Who writes and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Nothing is stored.
    pub dry_run: bool,
    /// Field manager.
    pub manager: String,
    /// True where the object carries managedFields made by an apply.
    pub applied: bool,
    /// Subresource, or empty.
    pub subresource: String,
    /// Who writes; None is the server itself.
    pub user: Option<User>,
}

/// What a write did.
pub struct Written {
    /// The object as stored.
    pub object: Object,
    /// True where it did not exist before.
    pub created: bool,
}

/// Attempts of a write that lost a race it may repeat.
const ATTEMPTS: usize = 10;
/// Longest base of a generated name.
const BASE: usize = 58;

impl Call {
    /// The options of a write.
    pub fn options(&self) -> Result<Options, Status> {
        Ok(Options {
            dry_run: self.dry_run()?,
            manager: self.manager(),
            applied: false,
            subresource: self.info.subresource.clone(),
            user: Some(self.user.clone()),
        })
    }
}

/// Checks that a body is of the kind and place its path says, and fills the namespace in.
pub fn fit(call: &Call, object: &mut Object) -> Result<(), Status> {
    if !object.is_object() {
        return Err(Status::bad_request(
            "the body of the request is not a JSON object",
        ));
    }
    let kind = &call.kind;
    let (api_version, name) = (kind.api_version(), &kind.kind);
    let sent = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let sent_kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if sent.is_empty() && sent_kind.is_empty() {
        object["apiVersion"] = api_version.clone().into();
        object["kind"] = name.clone().into();
    } else if sent != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({sent}) does not match the expected API version ({api_version})"
        )));
    } else if &sent_kind != name {
        return Err(Status::bad_request(format!(
            "{sent_kind} in version \"{}\" cannot be handled as a {name}: no kind \"{sent_kind}\" is registered there",
            kind.version
        )));
    }
    place(kind, &call.info.namespace, object)
}

/// Puts the namespace of the path into the object, or refuses another one.
fn place(kind: &Kind, namespace: &str, object: &mut Object) -> Result<(), Status> {
    let given = meta::get(object, "namespace").to_owned();
    if kind.namespaced && given.is_empty() {
        meta::set(object, "namespace", namespace.into());
    } else if kind.namespaced && given != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    } else if !kind.namespaced {
        meta::set(object, "namespace", Object::Null);
    }
    Ok(())
}

/// create.
pub async fn create(call: &Call) -> Reply {
    let (mut object, warnings) = super::decode::body(call)?;
    fit(call, &mut object)?;
    if !call.info.name.is_empty() {
        return Err(Status::method_not_on_path().into());
    }
    let written = create_object(&call.ctx, &call.kind, object, &call.options()?).await?;
    super::decode::warn(call.answer(201, &written)?, &warnings)
}

/// update.
pub async fn update(call: &Call) -> Reply {
    let (mut object, warnings) = super::decode::body(call)?;
    fit(call, &mut object)?;
    let name = meta::get(&object, "name").to_owned();
    if name.is_empty() {
        meta::set(&mut object, "name", call.info.name.clone().into());
    } else if name != call.info.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.info.name
        ))
        .into());
    }
    let written = replace(
        &call.ctx,
        &call.kind,
        &call.info.namespace,
        &call.info.name,
        &call.options()?,
        |old| match old {
            None if !creates_on_update(&call.kind) => Err(call.not_found().into()),
            _ => Ok(object.clone()),
        },
    )
    .await?;
    super::decode::warn(
        call.answer(if written.created { 201 } else { 200 }, &written.object)?,
        &warnings,
    )
}

/// Kinds that an update of a missing object creates, as in Kubernetes.
fn creates_on_update(kind: &Kind) -> bool {
    match kind.group.as_str() {
        "" => matches!(
            kind.plural.as_str(),
            "endpoints" | "events" | "services" | "limitranges"
        ),
        "rbac.authorization.k8s.io" | "coordination.k8s.io" => true,
        _ => false,
    }
}

/// Stores a new object: defaults, admission, validation, bookkeeping.
pub async fn create_object(
    ctx: &Ctx,
    kind: &Arc<Kind>,
    object: Object,
    options: &Options,
) -> Result<Object, Failure> {
    let generated = meta::get(&object, "name").is_empty();
    let guard = admission::guard(ctx, kind).await;
    for _ in 0..ATTEMPTS {
        let mut object = object.clone();
        let (mut changes, name) = prepare_create(ctx, kind, &mut object, options)?;
        if options.dry_run {
            return Ok(object);
        }
        let key = registry::key(kind, meta::get(&object, "namespace"), &name);
        kind.to_storage(&mut object);
        changes.push(Change::put(&key, Expect::Absent, &mut object));
        match ctx.store.commit(changes).await {
            Ok(entries) => {
                drop(guard);
                admission::after(ctx, kind);
                return Ok(entries
                    .last()
                    .map_or(Object::Null, |e| output::object(kind, e)));
            }
            Err(WriteError::Conflict(_)) if !generated && ctx.store.get(&key).is_some() => {
                return Err(Status::already_exists(&kind.group, &kind.plural, &name).into());
            }
            // A generated name or an allocated address was taken meanwhile: choose again.
            Err(WriteError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Status::internal("no free name was found").into())
}

fn prepare_create(
    ctx: &Ctx,
    kind: &Arc<Kind>,
    object: &mut Object,
    options: &Options,
) -> Result<(Vec<Change>, String), Failure> {
    let rv = meta::get(object, "resourceVersion");
    if !rv.is_empty() && rv != "0" {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        )
        .into());
    }
    name_object(kind, object)?;
    let name = meta::get(object, "name").to_owned();
    let namespace = meta::get(object, "namespace").to_owned();
    if ctx
        .store
        .get(&registry::key(kind, &namespace, &name))
        .is_some()
    {
        return Err(Status::already_exists(&kind.group, &kind.plural, &name).into());
    }
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
    ] {
        meta::set(object, field, Object::Null);
    }
    meta::set(object, "uid", context::uid().into());
    meta::set(object, "creationTimestamp", context::now_text().into());
    let generation = meta::counts_generation(kind);
    meta::set(
        object,
        "generation",
        if generation { 1.into() } else { Object::Null },
    );
    admission::reset_status(kind, object);
    objects::kind::default_object(kind, object);
    // What admission adds is nobody's: no later apply by this manager may take it away.
    if !options.applied {
        track(kind, None, object, options);
    }
    let changes = admission::create(ctx, kind, object, options)?;
    objects::kind::validate_create(kind, object)?;
    Ok((changes, name))
}

fn name_object(kind: &Kind, object: &mut Object) -> Result<(), Status> {
    if !meta::get(object, "name").is_empty() {
        return Ok(());
    }
    let base = meta::get(object, "generateName");
    if base.is_empty() {
        return Err(failure::invalid(
            kind,
            "",
            ErrorKind::Required,
            "metadata.name",
            "Required value: name or generateName is required".into(),
        ));
    }
    let base: String = base.chars().take(BASE).collect();
    meta::set(
        object,
        "name",
        format!("{base}{}", context::suffix(5)).into(),
    );
    Ok(())
}

/// Notes which fields the manager changed.
fn track(kind: &Kind, old: Option<&Object>, new: &mut Object, options: &Options) {
    let now = context::now_text();
    let manager = Manager {
        name: &options.manager,
        api_version: &kind.api_version(),
        subresource: &options.subresource,
        now: &now,
    };
    apply::track_update(old, new, &kind.schema, &manager);
}

/// Replaces an object by what `make` makes of it; a lost race is repeated where `make` gives
/// no resourceVersion of its own.
pub async fn replace(
    ctx: &Ctx,
    kind: &Arc<Kind>,
    namespace: &str,
    name: &str,
    options: &Options,
    mut make: impl FnMut(Option<&Object>) -> Result<Object, Failure>,
) -> Result<Written, Failure> {
    let key = registry::key(kind, namespace, name);
    let guard = admission::guard(ctx, kind).await;
    for _ in 0..ATTEMPTS {
        let entry = ctx.store.get(&key);
        let old = entry.as_ref().map(|e| output::object(kind, e));
        let mut new = make(old.as_ref())?;
        let (Some(entry), Some(old)) = (entry, old) else {
            drop(guard);
            let object = create_object(ctx, kind, new, options).await?;
            return Ok(Written {
                object,
                created: true,
            });
        };
        let wanted = meta::get(&new, "resourceVersion").to_owned();
        if !wanted.is_empty() && wanted != "0" && wanted != entry.rev.to_string() {
            return Err(Status::modified(&kind.group, &kind.plural, name).into());
        }
        let mut changes = prepare_update(ctx, kind, &old, &mut new, options)?;
        if changes.is_empty() && meta::same(&old, &new) {
            return Ok(Written {
                object: old,
                created: false,
            });
        }
        if options.dry_run {
            return Ok(Written {
                object: new,
                created: false,
            });
        }
        kind.to_storage(&mut new);
        let finished = meta::deleting(&new) && finished(kind, &new);
        changes.push(if finished {
            Change::delete(&key, entry.rev, &mut new)
        } else {
            Change::put(&key, Expect::Rev(entry.rev), &mut new)
        });
        if finished {
            changes.extend(admission::delete(ctx, kind, &new));
        }
        let count = changes.iter().position(|c| c.is_for(&key)).unwrap_or(0);
        match ctx.store.commit(changes).await {
            Ok(entries) => {
                admission::after(ctx, kind);
                let object = entries
                    .get(count)
                    .map_or(Object::Null, |e| output::object(kind, e));
                return Ok(Written {
                    object,
                    created: false,
                });
            }
            Err(WriteError::Conflict(_)) => {
                // With the client's own resourceVersion the next round answers 409.
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Status::modified(&kind.group, &kind.plural, name).into())
}

/// True where nothing holds a deleted object any more.
fn finished(kind: &Kind, object: &Object) -> bool {
    let namespace = kind.group.is_empty() && kind.plural == "namespaces";
    meta::finalizers(object).is_empty()
        && object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            == 0
        && !(namespace
            && object["spec"]["finalizers"]
                .as_array()
                .is_some_and(|f| !f.is_empty()))
}

fn prepare_update(
    ctx: &Ctx,
    kind: &Arc<Kind>,
    old: &Object,
    new: &mut Object,
    options: &Options,
) -> Result<Vec<Change>, Failure> {
    let name = meta::get(old, "name").to_owned();
    let uid = meta::get(new, "uid");
    if !uid.is_empty() && uid != meta::get(old, "uid") {
        return Err(Status::uid_mismatch(
            &kind.group,
            &kind.plural,
            &name,
            uid,
            meta::get(old, "uid"),
        )
        .into());
    }
    let custom_without_version =
        kind.custom.is_some() && meta::get(new, "resourceVersion").is_empty();
    if custom_without_version && options.subresource.is_empty() && !options.applied {
        return Err(failure::invalid(
            kind,
            &name,
            ErrorKind::Invalid,
            "metadata.resourceVersion",
            "Invalid value: 0: must be specified for an update".into(),
        )
        .into());
    }
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "selfLink",
        "name",
        "namespace",
    ] {
        meta::set(new, field, old["metadata"][field].clone());
    }
    new["apiVersion"] = kind.api_version().into();
    new["kind"] = kind.kind.clone().into();
    admission::keep(kind, &options.subresource, old, new);
    objects::kind::default_object(kind, new);
    if meta::deleting(old) {
        no_new_finalizers(kind, &name, old, new)?;
    }
    let changes = admission::update(ctx, kind, old, new, options)?;
    if options.subresource.is_empty() || options.subresource == "scale" {
        if meta::counts_generation(kind) && meta::wants_differ(old, new) {
            let next = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            meta::set(new, "generation", next.into());
        }
        objects::kind::validate_update(kind, new, old)?;
    }
    meta::set(
        new,
        "resourceVersion",
        old["metadata"]["resourceVersion"].clone(),
    );
    if !options.applied {
        if new["metadata"]["managedFields"].is_null() {
            meta::set(
                new,
                "managedFields",
                old["metadata"]["managedFields"].clone(),
            );
        }
        track(kind, Some(old), new, options);
    }
    Ok(changes)
}

fn no_new_finalizers(kind: &Kind, name: &str, old: &Object, new: &Object) -> Result<(), Status> {
    let had = meta::finalizers(old);
    let added: Vec<&str> = meta::finalizers(new)
        .into_iter()
        .filter(|f| !had.contains(f))
        .collect();
    if added.is_empty() {
        return Ok(());
    }
    let list = added
        .iter()
        .map(|f| format!("{f:?}"))
        .collect::<Vec<_>>()
        .join(", ");
    let message = format!(
        "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
    );
    Err(failure::invalid(
        kind,
        name,
        ErrorKind::Forbidden,
        "metadata.finalizers",
        message,
    ))
}
