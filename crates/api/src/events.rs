//! Events on objects, written as client-go writes them: the same Event again only counts
//! up, many similar ones become one, and one object cannot flood the cluster.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

/// Events waiting to be written; more are dropped.
const QUEUE: usize = 1000;
/// Objects remembered; the longest unused are forgotten.
const REMEMBERED: usize = 4096;
/// Similar Events (all but the message the same) in [`SIMILAR_WINDOW`] before they are combined.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: i64 = 600;
/// Events one object may have at once, and the seconds after which it may have one more.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
/// Longest message, as the API allows.
const MESSAGE_MAX: usize = 1024;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Severity {
    fn text(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What happened to what.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The object.
    pub on: ObjectReference,
    /// How bad.
    pub severity: Severity,
    /// CamelCase reason.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// Every node's agent says the same: it is one Event, of whoever writes it first.
    pub shared: bool,
}

/// The reference to put into an Event on `object`.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let mut reference = object.object_ref(&());
    reference.resource_version = object.meta().resource_version.clone();
    reference
}

/// Takes Events and writes them in the background. Never blocks its caller.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Report>,
}

impl Recorder {
    /// A recorder for `component` (for example `kubelet`), on `host` where it is a node's.
    /// Must be called inside a tokio runtime; the writer ends with the last clone.
    pub fn new(client: Client, component: &str, host: Option<&str>) -> Self {
        let (queue, mut reports) = mpsc::channel(QUEUE);
        let source = EventSource {
            component: Some(component.to_owned()),
            host: host.map(str::to_owned),
        };
        tokio::spawn(async move {
            let mut correlator = Correlator::default();
            while let Some(report) = reports.recv().await {
                if let Some(write) = correlator.take(report, Timestamp::now()) {
                    send(&client, &source, write, &mut correlator).await;
                }
            }
        });
        Self { queue }
    }

    /// Something normal happened to `on`.
    pub fn normal(&self, on: ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(on, Severity::Normal, reason, message.into());
    }

    /// Something happened to `on` that somebody should look at.
    pub fn warning(&self, on: ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(on, Severity::Warning, reason, message.into());
    }

    /// What the recorders of all nodes see, and one Event is enough for: a thousand nodes must
    /// not fill an object's list of Events.
    pub fn shared_warning(&self, on: ObjectReference, reason: &str, message: impl Into<String>) {
        self.send(Report {
            on,
            severity: Severity::Warning,
            reason: reason.to_owned(),
            message: message.into(),
            shared: true,
        });
    }

    /// Something happened to `on`.
    pub fn record(&self, on: ObjectReference, severity: Severity, reason: &str, message: String) {
        self.send(Report {
            on,
            severity,
            reason: reason.to_owned(),
            message,
            shared: false,
        });
    }

    fn send(&self, report: Report) {
        let reason = report.reason.clone();
        if let Err(error) = self.queue.try_send(report) {
            tracing::debug!(reason, "event dropped: {error}");
        }
    }
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Name of the Event.
    pub name: String,
    /// What it says.
    pub report: Report,
    /// How often it happened.
    pub count: i32,
    /// When first.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
    key: SameKey,
}

type ObjectKey = (String, String, String, String);
type SimilarKey = (ObjectKey, Severity, String);
type SameKey = (SimilarKey, String);

#[derive(Debug)]
struct Similar {
    messages: Vec<String>,
    last: i64,
}

#[derive(Debug)]
struct Seen {
    name: String,
    count: i32,
    first: Timestamp,
    last: Timestamp,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: i64,
}

/// Decides what becomes of an Event. Pure: the clock is an argument.
#[derive(Debug, Default)]
pub struct Correlator {
    similar: BTreeMap<SimilarKey, Similar>,
    seen: BTreeMap<SameKey, Seen>,
    buckets: BTreeMap<ObjectKey, Bucket>,
}

impl Correlator {
    /// What to write for `report`; None where the object has had too many.
    pub fn take(&mut self, mut report: Report, now: Timestamp) -> Option<Write> {
        truncate(&mut report.message);
        let on = &report.on;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let object = (
            text(&on.kind),
            text(&on.namespace),
            text(&on.name),
            text(&on.uid),
        );
        if !self.may(&object, now) {
            return None;
        }
        let similar = (object, report.severity, report.reason.clone());
        let key = if self.is_one_of_many(&similar, &report.message, now) {
            report.message = format!("(combined from similar events): {}", report.message);
            truncate(&mut report.message);
            (similar, String::new())
        } else {
            // The same sentence about another container is another Event.
            let part = report.on.field_path.clone().unwrap_or_default();
            (similar, format!("{part}\0{}", report.message))
        };
        Some(self.count(key, report, now))
    }

    /// Forgets that this Event was written: it is gone from the API server.
    pub fn forget(&mut self, write: &Write) {
        self.seen.remove(&write.key);
    }

    fn may(&mut self, object: &ObjectKey, now: Timestamp) -> bool {
        let now = now.as_second();
        if self.buckets.len() >= REMEMBERED && !self.buckets.contains_key(object) {
            forget_oldest(&mut self.buckets, |bucket| bucket.filled);
        }
        let bucket = self.buckets.entry(object.clone()).or_insert(Bucket {
            tokens: BURST,
            filled: now,
        });
        #[expect(clippy::cast_precision_loss, reason = "seconds between two events")]
        let refill = (now - bucket.filled).max(0) as f64 / REFILL_SECONDS;
        bucket.tokens = (bucket.tokens + refill).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    fn is_one_of_many(&mut self, key: &SimilarKey, message: &str, now: Timestamp) -> bool {
        let now = now.as_second();
        if self.similar.len() >= REMEMBERED && !self.similar.contains_key(key) {
            forget_oldest(&mut self.similar, |similar| similar.last);
        }
        let similar = self.similar.entry(key.clone()).or_insert(Similar {
            messages: Vec::new(),
            last: now,
        });
        if now - similar.last > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.iter().any(|known| known == message) {
            return similar.messages.len() >= SIMILAR_MAX;
        }
        if similar.messages.len() < SIMILAR_MAX {
            similar.messages.push(message.to_owned());
        }
        similar.messages.len() >= SIMILAR_MAX
    }

    fn count(&mut self, key: SameKey, report: Report, now: Timestamp) -> Write {
        if self.seen.len() >= REMEMBERED && !self.seen.contains_key(&key) {
            forget_oldest(&mut self.seen, |seen| seen.last.as_second());
        }
        let unique = if report.shared {
            u128::from(hash(&report))
        } else {
            now.as_nanosecond().unsigned_abs()
        };
        let name = format!(
            "{}.{unique:x}",
            report.on.name.as_deref().unwrap_or_default()
        );
        let seen = self.seen.entry(key.clone()).or_insert(Seen {
            name,
            count: 0,
            first: now,
            last: now,
        });
        seen.count = seen.count.saturating_add(1);
        seen.last = now;
        Write {
            name: seen.name.clone(),
            report,
            count: seen.count,
            first: seen.first,
            last: seen.last,
            key,
        }
    }
}

/// The same on every node, for the same words about the same object.
fn hash(report: &Report) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&report.on.uid, &report.reason, &report.message).hash(&mut hasher);
    hasher.finish()
}

fn forget_oldest<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, age: impl Fn(&V) -> i64) {
    let oldest = map.iter().min_by_key(|(_, value)| age(value));
    if let Some(key) = oldest.map(|(key, _)| key.clone()) {
        map.remove(&key);
    }
}

fn truncate(message: &mut String) {
    if message.len() > MESSAGE_MAX {
        let mut end = MESSAGE_MAX - "...".len();
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str("...");
    }
}

/// Namespace an Event on `on` lives in: cluster-scoped objects' are in `default`.
fn namespace(on: &ObjectReference) -> &str {
    match on.namespace.as_deref() {
        Some(namespace) if !namespace.is_empty() => namespace,
        _ => "default",
    }
}

async fn send(client: &Client, source: &EventSource, write: Write, correlator: &mut Correlator) {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace(&write.report.on));
    for attempt in 0..3 {
        let result = if write.count > 1 && attempt == 0 {
            let patch = json!({
                "count": write.count,
                "lastTimestamp": Time(write.last),
                "message": write.report.message,
            });
            api.patch(&write.name, &PatchParams::default(), &Patch::Merge(patch))
                .await
        } else {
            api.create(&PostParams::default(), &event(source, &write))
                .await
        };
        match result {
            Ok(_) => return,
            // The Event has expired: write it anew.
            Err(kube::Error::Api(status)) if status.code == 404 && write.count > 1 => {}
            // Another node was first.
            Err(kube::Error::Api(status)) if status.code == 409 && write.report.shared => return,
            // The API server answered: more tries give the same answer.
            Err(kube::Error::Api(status)) => {
                tracing::debug!(
                    reason = write.report.reason,
                    "event refused: {}",
                    status.message
                );
                correlator.forget(&write);
                return;
            }
            Err(error) => {
                tracing::debug!("event not written: {}", crate::error::cause(&error));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
    correlator.forget(&write);
}

fn event(source: &EventSource, write: &Write) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(write.name.clone()),
            namespace: Some(namespace(&write.report.on).to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: write.report.on.clone(),
        reason: Some(write.report.reason.clone()),
        message: Some(write.report.message.clone()),
        type_: Some(write.report.severity.text().to_owned()),
        count: Some(write.count),
        first_timestamp: Some(Time(write.first)),
        last_timestamp: Some(Time(write.last)),
        source: Some(source.clone()),
        reporting_component: source.component.clone(),
        reporting_instance: Some(source.host.clone().unwrap_or_default()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(message: &str) -> Report {
        Report {
            on: ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: Some("default".to_owned()),
                name: Some("web".to_owned()),
                ..ObjectReference::default()
            },
            severity: Severity::Warning,
            reason: "BackOff".to_owned(),
            message: message.to_owned(),
            shared: false,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_same_event_again_counts_up_under_its_first_name() {
        let mut correlator = Correlator::default();
        let first = correlator.take(report("x"), at(1)).unwrap();
        let again = correlator.take(report("x"), at(2)).unwrap();
        assert_eq!((first.count, again.count), (1, 2));
        assert_eq!(first.name, again.name);
        assert_eq!((again.first, again.last), (at(1), at(2)));
    }

    #[test]
    fn what_all_nodes_say_has_one_name() {
        let name = |message: &str, uid: &str, second| {
            let mut shared = Report {
                shared: true,
                ..report(message)
            };
            shared.on.uid = Some(uid.to_owned());
            let write = Correlator::default().take(shared, at(second));
            write.unwrap().name
        };
        assert_eq!(name("x", "1", 1), name("x", "1", 2));
        assert_ne!(name("x", "1", 1), name("y", "1", 1));
        // The object of that name before this one is another.
        assert_ne!(name("x", "1", 1), name("x", "2", 1));
        let (a, b) = (report("x"), report("x"));
        let of = |report, second| Correlator::default().take(report, at(second)).unwrap().name;
        assert_ne!(of(a, 1), of(b, 2));
    }

    #[test]
    fn the_tenth_similar_event_is_combined() {
        let mut correlator = Correlator::default();
        for i in 0..9 {
            let write = correlator.take(report(&format!("m{i}")), at(1)).unwrap();
            assert_eq!(write.report.message, format!("m{i}"));
        }
        let tenth = correlator.take(report("m9"), at(1)).unwrap();
        assert_eq!(tenth.report.message, "(combined from similar events): m9");
        let next = correlator.take(report("m10"), at(2)).unwrap();
        assert_eq!((next.name, next.count), (tenth.name, 2));
        let later = correlator.take(report("m11"), at(2000)).unwrap();
        assert_eq!(later.report.message, "m11");
    }

    #[test]
    fn one_object_has_twenty_five_at_once_and_one_more_every_five_minutes() {
        let mut correlator = Correlator::default();
        let written = (0..40).filter(|_| correlator.take(report("x"), at(1)).is_some());
        assert_eq!(written.count(), 25);
        assert!(correlator.take(report("x"), at(200)).is_none());
        assert!(correlator.take(report("x"), at(302)).is_some());
        assert!(correlator.take(report("x"), at(303)).is_none());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut correlator = Correlator::default();
        let write = correlator.take(report(&"ä".repeat(2000)), at(1)).unwrap();
        assert!(write.report.message.len() <= MESSAGE_MAX);
        assert!(write.report.message.ends_with("..."));
    }
}
