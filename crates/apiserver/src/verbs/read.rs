//! get and list.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use objects::selector::{FieldSelector, LabelSelector};
use objects::{Kind, Object, Status};
use serde_json::json;

use super::{Call, Reply};
use crate::accept::Form;
use crate::output;
use crate::registry;
use crate::request::Query;
use crate::store::{Entry, Expired, Page};

/// Which objects are wanted.
#[derive(Clone, Default)]
pub struct Selection {
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
    name: String,
    deep: bool,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`; `name` limits to one object.
    pub fn parse(query: &Query, kind: &Kind, name: &str) -> Result<Self, Status> {
        let labels = query.get("labelSelector");
        let fields = query.get("fieldSelector");
        Ok(Self {
            labels: (!labels.is_empty())
                .then(|| LabelSelector::parse(labels))
                .transpose()?,
            fields: (!fields.is_empty())
                .then(|| FieldSelector::parse(fields, kind))
                .transpose()?,
            name: name.to_owned(),
            deep: kind
                .custom
                .as_ref()
                .is_some_and(|c| !c.selectable_fields.is_empty()),
        })
    }

    /// True where everything is wanted.
    pub fn all(&self) -> bool {
        self.labels.is_none() && self.fields.is_none() && self.name.is_empty()
    }

    /// True where the object is wanted.
    pub fn matches(&self, entry: &Entry) -> bool {
        if self.all() {
            return true;
        }
        let slim = entry.slim();
        (self.name.is_empty() || slim["metadata"]["name"] == self.name.as_str())
            && self.labels.as_ref().is_none_or(|s| s.matches(slim))
            && self.fields.as_ref().is_none_or(|s| {
                // The author of a CRD may select by fields at any depth.
                if self.deep {
                    s.matches(&entry.object())
                } else {
                    s.matches(slim)
                }
            })
    }
}

/// get.
pub fn get(call: &Call) -> Reply {
    let entry = call
        .ctx
        .store
        .get(&registry::key(
            &call.kind,
            &call.info.namespace,
            &call.info.name,
        ))
        .ok_or_else(|| call.not_found())?;
    if call.form == Form::Json && !call.pretty && output::as_stored(&call.kind) {
        return Ok(output::json_bytes(200, entry.data.clone()));
    }
    call.answer(200, &output::object(&call.kind, &entry))
}

/// 410 for a page or a watch of the past.
pub fn gone(expired: Expired) -> Status {
    Status::too_old(expired.asked, expired.oldest)
}

/// Where a page continues: the resourceVersion of the first page and the last key given.
struct Continue {
    rev: u64,
    after: String,
}

impl Continue {
    fn encode(&self) -> String {
        URL_SAFE_NO_PAD
            .encode(json!({"v": "meta.k8s.io/v1", "rv": self.rev, "start": self.after}).to_string())
    }

    fn decode(token: &str) -> Result<Self, Status> {
        let wrong = || Status::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
        let value: Object = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        match (value["rv"].as_u64(), value["start"].as_str()) {
            (Some(rev), Some(after)) => Ok(Self {
                rev,
                after: after.to_owned(),
            }),
            _ => Err(wrong()),
        }
    }
}

/// The part of a listing that is answered.
struct Chosen {
    rev: u64,
    items: Vec<Arc<Entry>>,
    next: Option<String>,
    remaining: Option<usize>,
}

fn number(query: &Query, name: &str) -> Result<usize, Status> {
    match query.get(name) {
        "" => Ok(0),
        text => text.parse().map_err(|_| {
            Status::bad_request(format!(
                "invalid {name} {text:?}: a whole number is expected"
            ))
        }),
    }
}

fn page(call: &Call, prefix: &str) -> Result<Page, Status> {
    let store = &call.ctx.store;
    let asked = call.query.get("resourceVersion");
    let matching = call.query.get("resourceVersionMatch");
    if asked.is_empty() && !matching.is_empty() {
        return Err(Status::bad_request(
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    if asked.is_empty() || asked == "0" {
        return Ok(store.list(prefix));
    }
    let rev: u64 = asked
        .parse()
        .map_err(|_| Status::bad_request(format!("invalid resource version {asked:?}")))?;
    if rev > store.rev() {
        return Err(Status::too_large_resource_version(rev, store.rev()));
    }
    match matching {
        "Exact" => store.list_at(prefix, rev).map_err(gone),
        "" | "NotOlderThan" => Ok(store.list(prefix)),
        other => Err(Status::bad_request(format!(
            "unknown resourceVersionMatch {other:?}"
        ))),
    }
}

fn choose(call: &Call, selection: &Selection) -> Result<Chosen, Status> {
    let prefix = registry::prefix(&call.kind, &call.info.namespace);
    let limit = number(&call.query, "limit")?;
    let token = call.query.get("continue");
    let (page, after) = if token.is_empty() {
        (page(call, &prefix)?, None)
    } else {
        let from = Continue::decode(token)?;
        let page = call
            .ctx
            .store
            .list_at(&prefix, from.rev)
            .map_err(|_| Status::continue_expired())?;
        (page, Some(from.after))
    };
    let mut items = Vec::new();
    let mut next = None;
    let mut remaining = None;
    let mut left = page
        .items
        .iter()
        .filter(|(key, _)| after.as_deref().is_none_or(|a| key.as_ref() > a))
        .filter(|(_, entry)| selection.matches(entry));
    let mut last = "";
    while let Some((key, entry)) = left.next() {
        if limit > 0 && items.len() == limit {
            next = Some(
                Continue {
                    rev: page.rev,
                    after: last.to_owned(),
                }
                .encode(),
            );
            remaining = selection.all().then(|| left.count() + 1);
            break;
        }
        items.push(entry.clone());
        last = key;
    }
    Ok(Chosen {
        rev: page.rev,
        items,
        next,
        remaining,
    })
}

/// list.
pub fn list(call: &Call) -> Reply {
    let selection = Selection::parse(&call.query, &call.kind, &call.info.name)?;
    let chosen = choose(call, &selection)?;
    let mut metadata = json!({"resourceVersion": chosen.rev.to_string()});
    if let Some(next) = chosen.next {
        metadata["continue"] = next.into();
    }
    if let Some(remaining) = chosen.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    let kind = &call.kind;
    let objects = || {
        chosen
            .items
            .iter()
            .map(|e| output::object(kind, e))
            .collect::<Vec<_>>()
    };
    match call.form {
        Form::Table => {
            let table = output::table(kind, metadata, &objects(), call.include, true);
            Ok(output::value(200, &table, call.pretty))
        }
        Form::Partial => {
            let items: Vec<Object> = objects().iter().map(output::partial).collect();
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items});
            Ok(output::value(200, &list, call.pretty))
        }
        Form::Discovery => Err(Status::no_such_path().into()),
        Form::Json if call.pretty => {
            let list = json!({"kind": kind.list_kind(), "apiVersion": kind.api_version(),
                "metadata": metadata, "items": objects()});
            Ok(output::value(200, &list, true))
        }
        Form::Json => Ok(output::json_bytes(
            200,
            joined(kind, &metadata, &chosen.items),
        )),
    }
}

/// A list whose items are copied as they are stored.
fn joined(kind: &Kind, metadata: &Object, items: &[Arc<Entry>]) -> Vec<u8> {
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
        Object::from(kind.list_kind()),
        Object::from(kind.api_version()),
    );
    let size: usize = items.iter().map(|e| e.data.len() + 1).sum();
    let mut out = Vec::with_capacity(head.len() + size + 4);
    out.extend_from_slice(head.as_bytes());
    for (index, entry) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&output::versioned(kind, entry));
    }
    out.extend_from_slice(b"]}\n");
    out
}
