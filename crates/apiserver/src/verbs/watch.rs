//! watch: a stream of changes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use objects::{Kind, Object, Status};
use serde_json::json;
use tokio::time::{Instant, Interval};

use super::read::{Selection, gone};
use super::{Call, Reply, meta};
use crate::accept::Form;
use crate::admission::crds;
use crate::context::Ctx;
use crate::output::{self, Include};
use crate::registry;
use crate::store::{Entry, Event, Store};

/// Time between bookmarks.
const BOOKMARK: Duration = Duration::from_secs(60);
/// Bytes joined into one chunk.
const CHUNK: usize = 64 << 10;

/// How a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    /// Send what is there as ADDED first.
    state: bool,
    /// Mark the end of that with a bookmark.
    mark: bool,
    /// Otherwise: changes after this resourceVersion.
    after: u64,
}

fn start(call: &Call) -> Result<Start, Status> {
    let query = &call.query;
    let asked = query.get("resourceVersion");
    let rev: u64 = if asked.is_empty() {
        0
    } else {
        asked
            .parse()
            .map_err(|_| Status::bad_request(format!("invalid resource version {asked:?}")))?
    };
    let matching = query.get("resourceVersionMatch");
    if query.has("sendInitialEvents") {
        if matching != "NotOlderThan" {
            return Err(Status::bad_request(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        let state = query.flag("sendInitialEvents");
        return Ok(Start {
            state,
            mark: state && query.flag("allowWatchBookmarks"),
            after: rev,
        });
    }
    if !matching.is_empty() {
        return Err(Status::bad_request(
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ));
    }
    Ok(Start {
        state: rev == 0,
        mark: false,
        after: rev,
    })
}

/// The CustomResourceDefinition that a custom kind stands on: a watch ends with it.
struct Definition {
    key: String,
    uid: String,
    changed: tokio::sync::watch::Receiver<u64>,
}

impl Definition {
    fn of(kind: &Kind, store: &Store) -> Option<Self> {
        kind.custom.as_ref()?;
        let topic = crds::PREFIX.trim_end_matches('/');
        // Subscribed first: no change between the two goes unseen.
        let changed = store.subscribe(topic);
        let key = format!("{}/{}.{}", crds::PREFIX, kind.plural, kind.group);
        let uid = uid_of(store, &key);
        Some(Self { key, uid, changed })
    }

    /// True where it is gone, or another one of its name is there.
    fn is_gone(&mut self, store: &Store) -> bool {
        self.changed.mark_unchanged();
        self.uid.is_empty() || uid_of(store, &self.key) != self.uid
    }
}

fn uid_of(store: &Store, key: &str) -> String {
    let entry = store.get(key);
    entry.map_or_else(String::new, |e| meta::get(e.slim(), "uid").to_owned())
}

struct Watcher {
    ctx: Ctx,
    definition: Option<Definition>,
    kind: Arc<Kind>,
    selection: Selection,
    form: Form,
    include: Include,
    columns_sent: bool,
    bookmarks: Option<Interval>,
    prefix: String,
    cursor: u64,
    changed: tokio::sync::watch::Receiver<u64>,
    deadline: Instant,
    /// Entries to send as ADDED before anything else, last first.
    initial: Vec<Arc<Entry>>,
    mark: bool,
    ended: bool,
}

/// Answers a watch.
pub fn watch(call: &Call) -> Reply {
    let begin = start(call)?;
    let store = &call.ctx.store;
    let prefix = registry::prefix(&call.kind, &call.info.namespace);
    let changed = store.subscribe(&registry::topic(&call.kind));
    if begin.after > store.rev() {
        return Err(Status::too_large_resource_version(begin.after, store.rev()).into());
    }
    let seconds = match call.query.get("timeoutSeconds") {
        "" | "0" => 1800 + rand::random_range(0..1800),
        text => text.parse::<u64>().map_err(|_| {
            Status::bad_request(format!(
                "invalid timeoutSeconds {text:?}: a whole number is expected"
            ))
        })?,
    };
    let selection = Selection::parse(&call.query, &call.kind, &call.info.name)?;
    let (cursor, initial) = if begin.state {
        let page = store.list(&prefix);
        let mut items: Vec<_> = page.items.into_iter().map(|(_, entry)| entry).collect();
        items.reverse();
        (page.rev, items)
    } else if begin.after == 0 {
        (store.rev(), Vec::new())
    } else {
        (begin.after, Vec::new())
    };
    let mut ticks = tokio::time::interval_at(Instant::now() + BOOKMARK, BOOKMARK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let watcher = Watcher {
        ctx: call.ctx.clone(),
        definition: Definition::of(&call.kind, store),
        kind: call.kind.clone(),
        selection,
        form: call.form,
        include: call.include,
        columns_sent: false,
        bookmarks: call.query.flag("allowWatchBookmarks").then_some(ticks),
        prefix,
        cursor,
        changed,
        deadline: Instant::now() + Duration::from_secs(seconds.min(86_400)),
        initial,
        mark: begin.mark,
        ended: false,
    };
    let stream = futures::stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(chunk)), watcher))
    });
    let mut answer = output::json_bytes(200, Bytes::new());
    *answer.body_mut() = StreamBody::new(Box::pin(stream)).boxed_unsync();
    Ok(answer)
}

impl Watcher {
    /// The next bytes, or None at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = Vec::new();
        self.first(&mut out);
        while out.is_empty() {
            self.changed.mark_unchanged();
            let definition = self.definition.as_mut();
            let gone = definition.is_some_and(|d| d.is_gone(&self.ctx.store));
            // Its objects went before it: their ends are told first.
            self.drain(&mut out);
            if gone {
                self.ended = true;
                return (!out.is_empty()).then(|| out.into());
            }
            if !out.is_empty() {
                break;
            }
            let tick = async {
                match &mut self.bookmarks {
                    Some(ticks) => ticks.tick().await,
                    None => std::future::pending().await,
                }
            };
            let redefined = async {
                match &mut self.definition {
                    Some(definition) => definition.changed.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = redefined => if changed.is_err() { return None },
                changed = self.changed.changed() => if changed.is_err() { return None },
                _ = tick => {
                    // Other resources have moved on: the bookmark says so.
                    self.drain(&mut out);
                    self.bookmark(&mut out, false);
                }
                () = tokio::time::sleep_until(self.deadline) => {
                    if self.bookmarks.is_some() {
                        self.bookmark(&mut out, false);
                    }
                    self.ended = true;
                    return (!out.is_empty()).then(|| out.into());
                }
            }
        }
        Some(out.into())
    }

    /// What was there at the start.
    fn first(&mut self, out: &mut Vec<u8>) {
        while let Some(entry) = self.initial.pop() {
            if self.selection.matches(&entry) {
                self.write(out, "ADDED", &entry, None);
            }
            if out.len() > CHUNK {
                return;
            }
        }
        if self.mark {
            self.mark = false;
            self.bookmark(out, true);
        }
    }

    /// What changed since.
    fn drain(&mut self, out: &mut Vec<u8>) {
        match self.ctx.store.events(&self.prefix, self.cursor) {
            Ok((rev, events)) => {
                for event in events {
                    self.event(out, &event);
                }
                self.cursor = self.cursor.max(rev);
            }
            Err(expired) => {
                let status = gone(expired).to_value();
                out.extend_from_slice(&output::text(
                    &json!({"type": "ERROR", "object": status}),
                    false,
                ));
                self.ended = true;
            }
        }
    }

    fn event(&mut self, out: &mut Vec<u8>, event: &Event) {
        let before = event
            .prev
            .as_ref()
            .is_some_and(|e| self.selection.matches(e));
        let after = !event.deleted && self.selection.matches(&event.entry);
        match (before, after) {
            (false, true) => self.write(out, "ADDED", &event.entry, None),
            (true, true) => self.write(out, "MODIFIED", &event.entry, None),
            (true, false) if event.deleted => self.write(out, "DELETED", &event.entry, None),
            (true, false) => {
                // It left the selection: the last state that matched, at the new version.
                if let Some(prev) = &event.prev {
                    self.write(out, "DELETED", prev, Some(event.rev));
                }
            }
            (false, false) => {}
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, kind: &str, entry: &Entry, rev: Option<u64>) {
        if self.form == Form::Json && rev.is_none() {
            out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
            out.extend_from_slice(&output::versioned(&self.kind, entry));
            out.extend_from_slice(b"}\n");
            return;
        }
        let mut object = output::object(&self.kind, entry);
        if let Some(rev) = rev {
            object["metadata"]["resourceVersion"] = rev.to_string().into();
        }
        let shown = self.shown(object);
        out.extend_from_slice(&output::text(
            &json!({"type": kind, "object": shown}),
            false,
        ));
    }

    fn shown(&mut self, object: Object) -> Object {
        match self.form {
            Form::Table => {
                let rv = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                output::table(&self.kind, rv, &[object], self.include, columns)
            }
            Form::Partial => output::partial(&object),
            Form::Json | Form::Discovery => object,
        }
    }

    fn bookmark(&mut self, out: &mut Vec<u8>, initial: bool) {
        let mut metadata =
            json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.form {
            Form::Table => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": self.cursor.to_string()},
                "columnDefinitions": [], "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata}}]}),
            Form::Partial => json!({"kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1", "metadata": metadata}),
            Form::Json | Form::Discovery => json!({"kind": self.kind.kind,
                "apiVersion": self.kind.api_version(), "metadata": metadata}),
        };
        out.extend_from_slice(&output::text(
            &json!({"type": "BOOKMARK", "object": object}),
            false,
        ));
    }
}
