//! Many nodes' events as one list: the past in the order of time, then what happens.

use std::collections::BTreeSet;

use flows::{Drop, End, Event, Line};
use jiff::Timestamp;
use serde_json::json;

/// Which connections are wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    namespace: Option<String>,
    pod: Option<String>,
}

impl Wanted {
    /// From a namespace, and a pod as `NAME` or `NAMESPACE/NAME`.
    pub(super) fn new(namespace: Option<&str>, pod: Option<&str>) -> Result<Self, String> {
        let (of, pod) = match pod.map(|pod| pod.strip_prefix("pod/").unwrap_or(pod)) {
            Some(pod) => match pod.split_once('/') {
                Some((of, pod)) => (Some(of), Some(pod)),
                None => (None, Some(pod)),
            },
            None => (None, None),
        };
        if let (Some(one), Some(other)) = (namespace, of)
            && one != other
        {
            return Err(format!(
                "--pod is of namespace {other}, but --namespace is {one}"
            ));
        }
        Ok(Self {
            namespace: namespace.or(of).map(str::to_owned),
            pod: pod.map(str::to_owned),
        })
    }

    fn is(&self, drop: &Drop) -> bool {
        let same = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
        let end = |end: &End| same(&self.namespace, &end.namespace) && same(&self.pod, &end.pod);
        end(&drop.from) || end(&drop.to)
    }
}

/// Something to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// It happened.
    Event(Event),
    /// So many events of a node are not known.
    Missed(String, u64),
}

impl Shown {
    /// One JSON document.
    pub(super) fn json(&self) -> String {
        match self {
            Self::Event(event) => serde_json::to_string(event).unwrap_or_default(),
            Self::Missed(node, events) => {
                json!({"kind": "missed", "node": node, "events": events}).to_string()
            }
        }
    }
}

/// Gathers the past of all nodes, then passes on.
#[derive(Debug)]
pub(super) struct Merge {
    wanted: Wanted,
    since: Option<Timestamp>,
    tail: Option<usize>,
    /// The nodes whose past is not complete.
    waiting: BTreeSet<String>,
    past: Vec<Event>,
}

impl Merge {
    /// Of these nodes' past the last `tail` events since a time.
    pub(super) fn new(
        nodes: impl IntoIterator<Item = String>,
        wanted: Wanted,
        since: Option<Timestamp>,
        tail: Option<usize>,
    ) -> Self {
        Self {
            wanted,
            since,
            tail,
            waiting: nodes.into_iter().collect(),
            past: Vec::new(),
        }
    }

    /// Whether some past is not complete.
    pub(super) fn gathers(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes a line of a node's agent; gives what is to be printed now.
    pub(super) fn take(&mut self, node: &str, line: Line) -> Vec<Shown> {
        match line {
            Line::Event { event, .. } => {
                if let Event::Drop(drop) = &event
                    && !self.wanted.is(drop)
                {
                    return Vec::new();
                }
                if self.gathers() {
                    self.past.push(event);
                    return Vec::new();
                }
                vec![Shown::Event(event)]
            }
            Line::Missed(events) => vec![Shown::Missed(node.to_owned(), events)],
            Line::Live => self.away(node),
        }
    }

    /// A node's past is complete, or will not come.
    pub(super) fn away(&mut self, node: &str) -> Vec<Shown> {
        match self.waiting.remove(node) && self.waiting.is_empty() {
            true => self.flush(),
            false => Vec::new(),
        }
    }

    /// Gives the past as far as it is known, once.
    pub(super) fn flush(&mut self) -> Vec<Shown> {
        self.waiting.clear();
        let mut past = std::mem::take(&mut self.past);
        past.retain(|event| self.since.is_none_or(|since| event.time() >= since));
        past.sort_by_key(Event::time);
        let skip = past.len() - self.tail.unwrap_or(past.len()).min(past.len());
        past.into_iter().skip(skip).map(Shown::Event).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use flows::{By, Policy};
    use model::Direction;

    use super::*;

    pub(in super::super) fn drop_at(second: i64, from: &str, to: &str) -> Drop {
        let end = |pod: &str| {
            let (namespace, pod) = pod.split_once('/').unwrap();
            End {
                ip: "10.244.1.5".parse().unwrap(),
                namespace: Some(namespace.into()),
                pod: Some(pod.into()),
                node: Some("node1".into()),
            }
        };
        Drop {
            time: Timestamp::from_second(second).unwrap(),
            node: "node1".into(),
            direction: Direction::Ingress,
            from: end(from),
            to: end(to),
            protocol: "TCP".into(),
            source_port: Some(40_000),
            port: Some(5432),
            icmp: None,
            service: None,
            interface: None,
            by: By {
                words: "NetworkPolicy shop/closed isolates pod shop/db-0".into(),
                policies: vec![Policy {
                    kind: "NetworkPolicy".into(),
                    namespace: Some("shop".into()),
                    name: "closed".into(),
                    rule: None,
                }],
                allowed_now: false,
            },
            packets: 1,
            again: false,
        }
    }

    fn line(second: i64, from: &str) -> Line {
        let drop = drop_at(second, from, "shop/db-0");
        Line::Event {
            number: 0,
            event: Event::Drop(Arc::new(drop)),
        }
    }

    fn seconds(shown: &[Shown]) -> Vec<i64> {
        let second = |shown: &Shown| match shown {
            Shown::Event(event) => event.time().as_second(),
            Shown::Missed(..) => -1,
        };
        shown.iter().map(second).collect()
    }

    fn merge(since: Option<i64>, tail: Option<usize>) -> Merge {
        let nodes = ["node1", "node2"].map(str::to_owned);
        let since = since.map(|since| Timestamp::from_second(since).unwrap());
        Merge::new(nodes, Wanted::default(), since, tail)
    }

    #[test]
    fn the_past_of_all_nodes_comes_in_its_order() {
        for (since, tail, expected) in [
            (None, Some(3), vec![20, 25, 30]),
            (None, Some(0), vec![]),
            (Some(15), None, vec![20, 25, 30]),
            (None, None, vec![5, 10, 20, 25, 30]),
        ] {
            let mut merge = merge(since, tail);
            for second in [10, 20, 30] {
                assert_eq!(merge.take("node1", line(second, "shop/a")), []);
            }
            assert_eq!(merge.take("node1", Line::Live), []);
            for second in [5, 25] {
                assert_eq!(merge.take("node2", line(second, "shop/a")), []);
            }
            assert!(merge.gathers());
            assert_eq!(seconds(&merge.take("node2", Line::Live)), expected);
            assert!(!merge.gathers());
            assert_eq!(seconds(&merge.take("node1", line(40, "shop/a"))), [40]);
            // Another restart says nothing new.
            assert_eq!(merge.take("node1", Line::Live), []);
        }
    }

    #[test]
    fn a_node_that_is_away_holds_up_nobody() {
        let mut merge = merge(None, None);
        merge.take("node1", line(10, "shop/a"));
        merge.take("node1", Line::Live);
        assert_eq!(seconds(&merge.away("node2")), [10]);
        assert_eq!(
            merge.take("node2", Line::Missed(7)),
            [Shown::Missed("node2".into(), 7)]
        );
    }

    #[test]
    fn only_what_is_wanted() {
        let is = |namespace, pod, from: &str| {
            let wanted = Wanted::new(namespace, pod).unwrap();
            wanted.is(&drop_at(0, from, "shop/db-0"))
        };
        assert!(is(None, None, "a/b"));
        assert!(is(Some("shop"), None, "a/b") && is(Some("a"), None, "a/b"));
        assert!(!is(Some("b"), None, "a/b"));
        assert!(is(None, Some("db-0"), "a/b") && is(None, Some("a/b"), "a/b"));
        assert!(is(None, Some("pod/shop/db-0"), "a/b"));
        // Both of one end.
        assert!(!is(Some("a"), Some("db-0"), "a/b"));
        assert!(Wanted::new(Some("a"), Some("b/c")).is_err());
    }
}
