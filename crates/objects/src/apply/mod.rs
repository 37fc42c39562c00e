//! Server-side apply and field management (`metadata.managedFields`), after
//! sigs.k8s.io/structured-merge-diff.

use crate::{Cause, Object, Schema, Status};

mod managed;
mod set;
mod walk;

pub use set::FieldSet;

use managed::Owner;
use walk::{compare, drop_empty, fields_of, merge, problems, remove, with_named_fields};

/// Who writes, for field management.
#[derive(Clone, Debug)]
pub struct Manager<'a> {
    /// `fieldManager` of the request.
    pub name: &'a str,
    /// apiVersion of the object as sent.
    pub api_version: &'a str,
    /// `status`, `scale` or empty.
    pub subresource: &'a str,
    /// RFC 3339 time of the request.
    pub now: &'a str,
}

impl Manager<'_> {
    fn owner(&self, applies: bool, fields: FieldSet) -> Owner {
        Owner {
            manager: self.name.to_owned(),
            applies,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: Some(self.now.to_owned()),
            fields,
        }
    }
}

/// Fields no manager owns.
fn identity_fields() -> FieldSet {
    FieldSet::of(&[
        &["f:apiVersion"],
        &["f:kind"],
        &["f:metadata"],
        &["f:metadata", "f:name"],
        &["f:metadata", "f:namespace"],
        &["f:metadata", "f:creationTimestamp"],
        &["f:metadata", "f:selfLink"],
        &["f:metadata", "f:uid"],
        &["f:metadata", "f:clusterName"],
        &["f:metadata", "f:generation"],
        &["f:metadata", "f:managedFields"],
        &["f:metadata", "f:resourceVersion"],
    ])
}

/// Fields a write through this subresource does not touch, so it cannot own them.
fn ignored_fields(schema: &Schema, subresource: &str) -> FieldSet {
    match subresource {
        "status" => FieldSet::of(&[
            &["f:spec"],
            &["f:metadata", "f:deletionTimestamp"],
            &["f:metadata", "f:labels"],
            &["f:metadata", "f:ownerReferences"],
        ]),
        "" if schema.has_status_subresource() => FieldSet::of(&[&["f:status"]]),
        _ => FieldSet::default(),
    }
}

fn empty_like(object: &Object) -> Object {
    let mut empty = serde_json::json!({});
    for key in ["apiVersion", "kind"] {
        if let Some(value) = object.get(key) {
            empty[key] = value.clone();
        }
    }
    empty
}

/// Takes from every other owner what was changed or removed.
fn take_from_others(owners: &mut [Owner], lost: &[&FieldSet], except: impl Fn(&Owner) -> bool) {
    for owner in owners.iter_mut().filter(|o| !except(o)) {
        for set in lost {
            owner.fields = owner.fields.difference(set);
        }
    }
}

fn conflict(conflicts: &[(String, Vec<String>)]) -> Status {
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for (manager, paths) in conflicts {
        lines.push(format!("conflicts with {manager}:"));
        for path in paths {
            lines.push(format!("- {path}"));
            causes.push(Cause {
                reason: "FieldManagerConflict".to_owned(),
                field: path.clone(),
                message: format!("conflict with {manager}"),
            });
        }
    }
    let message = match (count, conflicts) {
        (1, [(manager, paths)]) => {
            let path = paths.join("");
            format!("Apply failed with 1 conflict: conflict with {manager}: {path}")
        }
        _ => format!("Apply failed with {count} conflicts: {}", lines.join("\n")),
    };
    Status::apply_conflict(message, &causes)
}

fn check(config: &Object, schema: &Schema) -> Result<(), Status> {
    if config["metadata"]
        .get("managedFields")
        .is_some_and(|m| !m.is_null())
    {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let mut found = Vec::new();
    problems(Some(schema.root()), config, "", &mut found);
    if found.is_empty() {
        return Ok(());
    }
    let errors = match found.as_slice() {
        [one] => one.clone(),
        _ => format!("errors:\n  {}", found.join("\n  ")),
    };
    let text = |key: &str| config[key].as_str().unwrap_or_default();
    let meta = |key: &str| config["metadata"][key].as_str().unwrap_or_default();
    Err(Status::unknown(format!(
        "failed to create typed patch object ({}/{}; {}, Kind={}): {errors}",
        meta("namespace"),
        meta("name"),
        text("apiVersion"),
        text("kind"),
    )))
}

/// Applies `config` to `live` (None creates): the merged object with its new managedFields,
/// or a 409 naming the managers in conflict. `force` takes their fields.
pub fn apply(
    live: Option<&Object>,
    config: &Object,
    schema: &Schema,
    manager: &Manager<'_>,
    force: bool,
) -> Result<Object, Status> {
    check(config, schema)?;
    let root = Some(schema.root());
    let mut config = config.clone();
    // Quantities and times in their canonical form differ only where they do.
    schema.decode(&mut config);
    let mut owners = live.map(managed::read).unwrap_or_default();
    let mut before = live.cloned().unwrap_or_else(|| empty_like(&config));
    managed::strip(&mut before);
    managed::strip(&mut config);
    if live.is_some() && owners.is_empty() {
        let fields = fields_of(root, &before).difference(&identity_fields());
        let mut owner = manager.owner(false, fields);
        owner.manager = "before-first-apply".to_owned();
        owner.subresource.clear();
        owners.push(owner);
    }

    let ignored = ignored_fields(schema, manager.subresource);
    let fields = fields_of(root, &config).without_trees(&ignored);
    let mine = manager.owner(true, fields);
    let last = owners
        .iter()
        .position(|o| o.is_same(&mine))
        .map(|i| owners.remove(i));
    let merged = merge(root, &before, &config);
    let mut after = match &last {
        Some(last) if !last.fields.is_empty() => prune(schema, &merged, &owners, &mine, last),
        _ => merged,
    };

    let difference = compare(root, &before, &after).without(&ignored);
    if !schema.is_custom() {
        drop_empty(root, &mut after);
    }
    let changed = difference.added.union(&difference.modified);
    let mut conflicts: Vec<(String, Vec<String>)> = Vec::new();
    for owner in &owners {
        let contested = owner.fields.intersection(&changed);
        if !contested.is_empty() {
            conflicts.push((owner.shown(), contested.paths()));
        }
    }
    if !force && !conflicts.is_empty() {
        conflicts.sort();
        return Err(conflict(&conflicts));
    }
    take_from_others(&mut owners, &[&changed, &difference.removed], |_| false);
    Ok(settle(live, before, after, owners, mine, last))
}

/// Writes the owners; the applier's time moves only if the object or its set did.
fn settle(
    live: Option<&Object>,
    before: Object,
    mut after: Object,
    mut owners: Vec<Owner>,
    mut mine: Owner,
    last: Option<Owner>,
) -> Object {
    mine.fields = mine.fields.difference(&identity_fields());
    if let Some(last) = last
        && live.is_some()
        && before == after
        && last.fields == mine.fields
    {
        mine.time = last.time;
    }
    owners.push(mine);
    managed::cap(&mut owners);
    managed::write(&mut after, owners);
    after
}

/// Removes what the applier applied last time and no longer does, unless someone else owns it.
fn prune(schema: &Schema, merged: &Object, others: &[Owner], mine: &Owner, last: &Owner) -> Object {
    let root = Some(schema.root());
    let named = |set: &FieldSet| with_named_fields(root, set);
    let without = |set: &FieldSet| remove(root, merged, set);
    let last = named(&last.fields);
    let all = named(&fields_of(root, merged));
    let owned = others
        .iter()
        .fold(mine.fields.clone(), |all, o| all.union(&o.fields));

    let pruned = without(&last);
    // What someone owns comes back, and what this applier never had.
    let kept = named(&fields_of(root, &pruned)).union(&named(&owned));
    let pruned = without(&all.difference(&kept));
    let kept = named(&fields_of(root, &pruned));
    without(&all.difference(&kept).intersection(&last))
}

/// Records that `manager` changed `old` into `new` by an update or patch: writes `new`'s managedFields.
pub fn track_update(
    old: Option<&Object>,
    new: &mut Object,
    schema: &Schema,
    manager: &Manager<'_>,
) {
    let root = Some(schema.root());
    let stored = || old.map(managed::read).unwrap_or_default();
    // Subresources cannot set managedFields, and a client that drops them means no harm.
    let mut owners = if !manager.subresource.is_empty() {
        stored()
    } else if managed::is_reset(new) {
        Vec::new()
    } else {
        match managed::read(new) {
            sent if sent.is_empty() => stored(),
            sent => sent,
        }
    };
    let mut before = match old {
        Some(old) => old.clone(),
        None if schema.is_custom() => empty_like(new),
        None => walk::zero(schema.root()),
    };
    managed::strip(&mut before);
    managed::strip(new);

    let ignored = ignored_fields(schema, manager.subresource);
    let difference = compare(root, &before, new).without(&ignored);
    let changed = difference.added.union(&difference.modified);
    take_from_others(&mut owners, &[&changed, &difference.removed], |_| false);
    let taken = changed.difference(&identity_fields());
    if !taken.is_empty() {
        let mut mine = manager.owner(false, taken);
        if let Some(i) = owners.iter().position(|o| o.is_same(&mine)) {
            let previous = owners.remove(i);
            mine.fields = mine.fields.union(&previous.fields);
        }
        owners.push(mine);
    }
    managed::cap(&mut owners);
    managed::write(new, owners);
}

#[cfg(test)]
mod tests;
