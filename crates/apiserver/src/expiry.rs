//! Events do not last: an hour after they were last seen they go, and the oldest go sooner
//! where there are too many.

use std::time::Duration;

use serde::Deserialize;

use crate::context::Ctx;
use crate::store::Change;

/// Seconds an Event lasts, as in Kubernetes.
const LIFE: i64 = 3600;
/// Events kept at most.
const MOST: usize = 10_000;
/// Time between looks.
const EVERY: Duration = Duration::from_secs(60);
/// Events deleted in one transaction.
const TOGETHER: usize = 100;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Seen {
    metadata: Created,
    last_timestamp: Option<jiff::Timestamp>,
    event_time: Option<jiff::Timestamp>,
    series: Option<Series>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Created {
    creation_timestamp: Option<jiff::Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Series {
    last_observed_time: Option<jiff::Timestamp>,
}

/// When an Event was last seen, in seconds since the epoch.
fn last_seen(data: &[u8]) -> i64 {
    let seen: Seen = serde_json::from_slice(data).unwrap_or_default();
    let times = [
        seen.metadata.creation_timestamp,
        seen.last_timestamp,
        seen.event_time,
        seen.series.and_then(|s| s.last_observed_time),
    ];
    times
        .into_iter()
        .flatten()
        .max()
        .map_or(0, |t| t.as_second())
}

/// Which Events go: those past their time, then the oldest beyond `most`.
fn plan<T>(mut events: Vec<(i64, T)>, now: i64, most: usize) -> Vec<T> {
    events.sort_by_key(|(seen, _)| std::cmp::Reverse(*seen));
    let fresh = events
        .iter()
        .take_while(|(seen, _)| now - seen <= LIFE)
        .count();
    events
        .split_off(fresh.min(most))
        .into_iter()
        .map(|(_, event)| event)
        .collect()
}

/// Looks from time to time until the server ends.
pub async fn run(ctx: Ctx) {
    loop {
        tokio::time::sleep(EVERY).await;
        let now = jiff::Timestamp::now().as_second();
        let events: Vec<_> = ctx
            .store
            .list("/events/")
            .items
            .into_iter()
            .map(|(key, entry)| (last_seen(&entry.data), (key, entry)))
            .collect();
        for group in plan(events, now, MOST).chunks(TOGETHER) {
            let changes = group
                .iter()
                .map(|(key, entry)| Change::delete(key, entry.rev, &mut entry.object()));
            // One that changed meanwhile saves its group until the next look.
            if let Err(error) = ctx.store.commit(changes.collect()).await {
                tracing::debug!(%error, "deleting old Events");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_last_seen_long_ago_goes_and_then_the_oldest() {
        assert_eq!(plan(vec![(100, "a"), (5000, "b")], 5000, 10), ["a"]);
        assert_eq!(
            plan(vec![(4999, "a"), (5000, "b"), (4998, "c")], 5000, 1),
            ["a", "c"]
        );
    }

    #[test]
    fn a_repeated_event_counts_from_its_last_time() {
        let event = br#"{"metadata": {"creationTimestamp": "1970-01-01T00:00:01Z"}, "lastTimestamp": "1970-01-01T00:01:00Z",
            "series": {"count": 2, "lastObservedTime": "1970-01-01T00:02:00.000000Z"}}"#;
        assert_eq!(last_seen(event), 120);
        assert_eq!(last_seen(b"{}"), 0);
    }
}
