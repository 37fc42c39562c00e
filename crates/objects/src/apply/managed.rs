//! `metadata.managedFields`: who owns what, read and written.

use serde_json::{Value, json};

use super::set::FieldSet;
use crate::Object;

/// One entry: a manager and the fields it owns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Owner {
    pub manager: String,
    /// `Apply`, otherwise `Update`.
    pub applies: bool,
    pub api_version: String,
    pub subresource: String,
    pub time: Option<String>,
    pub fields: FieldSet,
}

/// Most managers that update; older ones beyond it are put together.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

impl Owner {
    /// True where two entries stand for one manager. Appliers are one across versions.
    pub fn is_same(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.applies == other.applies
            && self.subresource == other.subresource
            && (self.applies || self.api_version == other.api_version)
    }

    /// The manager as a conflict names it.
    pub fn shown(&self) -> String {
        let mut text = crate::validation::field::quote(&self.manager);
        if !self.subresource.is_empty() {
            let subresource = crate::validation::field::quote(&self.subresource);
            text.push_str(&format!(" with subresource {subresource}"));
        }
        if !self.applies {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager,
            "operation": if self.applies { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_value(),
        });
        if let Some(time) = &self.time {
            entry["time"] = time.clone().into();
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.clone().into();
        }
        entry
    }
}

/// The owners an object's managedFields name. Entries that make no sense are left out.
pub(super) fn read(object: &Object) -> Vec<Owner> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array();
    let owner = |entry: &Value| {
        let applies = match entry["operation"].as_str()? {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        Some(Owner {
            manager: text(&entry["manager"]),
            applies,
            api_version: text(&entry["apiVersion"]),
            subresource: text(&entry["subresource"]),
            time: entry["time"].as_str().map(str::to_owned),
            fields: FieldSet::from_value(&entry["fieldsV1"]),
        })
    };
    entries.into_iter().flatten().filter_map(owner).collect()
}

/// True where a client asks to forget all owners: `[]` or `[{}]`.
pub(super) fn is_reset(object: &Object) -> bool {
    match object["metadata"]["managedFields"].as_array() {
        None => false,
        Some(entries) => match entries.as_slice() {
            [] => true,
            [entry] => entry.as_object().is_some_and(serde_json::Map::is_empty),
            _ => false,
        },
    }
}

/// Puts the oldest updaters together where there are too many.
pub(super) fn cap(owners: &mut Vec<Owner>) {
    let updaters = owners.iter().filter(|o| !o.applies).count();
    if updaters <= MAX_UPDATERS {
        return;
    }
    sort(owners);
    let mut surplus = updaters - MAX_UPDATERS + 1;
    let mut ancient: Vec<Owner> = Vec::new();
    let mut kept = Vec::new();
    for mut owner in owners.drain(..) {
        if owner.applies || surplus == 0 {
            kept.push(owner);
            continue;
        }
        surplus -= 1;
        owner.manager = ANCIENT.to_owned();
        owner.subresource.clear();
        match ancient
            .iter_mut()
            .find(|a| a.api_version == owner.api_version)
        {
            Some(place) => {
                place.fields = place.fields.union(&owner.fields);
                place.time = owner.time;
            }
            None => ancient.push(owner),
        }
    }
    kept.extend(ancient);
    *owners = kept;
}

fn sort(owners: &mut [Owner]) {
    owners.sort_by(|a, b| {
        b.applies
            .cmp(&a.applies)
            .then_with(|| a.time.cmp(&b.time))
            .then_with(|| a.manager.cmp(&b.manager))
            .then_with(|| a.api_version.cmp(&b.api_version))
            .then_with(|| a.subresource.cmp(&b.subresource))
    });
}

/// Takes managedFields off an object: they own nothing themselves.
pub(super) fn strip(object: &mut Object) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Writes the owners into the object, in upstream's order.
pub(super) fn write(object: &mut Object, mut owners: Vec<Owner>) {
    owners.retain(|o| !o.fields.is_empty());
    sort(&mut owners);
    strip(object);
    if !owners.is_empty() && object.is_object() {
        let entries: Vec<Value> = owners.iter().map(Owner::to_value).collect();
        object["metadata"]["managedFields"] = entries.into();
    }
}
