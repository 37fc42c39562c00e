//! What a watch has reported: only differences go on.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use model::{Change, ClusterPolicy, EndpointSlice, Namespace, NetworkPolicy, Pod, Service};

use super::{Update, watch_error};
use crate::convert::{self, Kind, Slim, Value};
use crate::{Error, convert::Converted};

/// What comes of one event.
#[derive(Debug)]
pub(super) enum Part {
    Update(Update),
    Listed,
}

/// What an object says.
pub(super) enum Said<V> {
    Is(V),
    /// It counts as gone.
    Gone,
    /// What was known of it stays.
    Unknown,
}

/// How one kind becomes changes.
pub(super) trait Convert<K>: Send + 'static {
    type Key: Ord + Clone + Send + 'static;
    type Value: Clone + Send + 'static;
    fn key(&self, object: &K) -> Self::Key;
    /// Kind and name.
    fn object(&self, key: &Self::Key) -> String;
    fn value(&self, object: &K) -> (Said<Self::Value>, Option<Error>);
    /// Whether two values mean the same, so that a heartbeat is no change.
    fn same(&self, old: &Self::Value, new: &Self::Value) -> bool;
    fn change(&self, value: Self::Value) -> Change;
    fn gone(&self, key: Self::Key) -> Change;
}

fn told<V>(converted: Result<V, Error>) -> (Said<V>, Option<Error>) {
    match converted {
        Ok(value) => (Said::Is(value), None),
        Err(error) => (Said::Unknown, Some(error)),
    }
}

pub(super) struct Nodes;

impl Convert<Node> for Nodes {
    type Key = String;
    type Value = model::Node;

    fn key(&self, node: &Node) -> String {
        node.name_any()
    }
    fn object(&self, name: &String) -> String {
        format!("Node {name}")
    }
    fn value(&self, node: &Node) -> (Said<model::Node>, Option<Error>) {
        told(convert::node(node))
    }
    fn same(&self, old: &model::Node, new: &model::Node) -> bool {
        old == new
    }
    fn change(&self, node: model::Node) -> Change {
        Change::Node(node)
    }
    fn gone(&self, name: String) -> Change {
        Change::NodeGone(name)
    }
}

/// Kinds that are read slim: the reported value is shared with the cluster, not copied.
pub(super) struct Slims<T>(PhantomData<T>);

impl<T> Default for Slims<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// How a slim kind becomes a change.
pub(super) trait SlimChange: Kind {
    fn same(&self, other: &Self) -> bool;
    fn change(value: Arc<Self>) -> Change;
    fn gone(key: model::Key) -> Change;
}

/// Kinds of which every difference counts.
macro_rules! slim_change {
    ($kind:ty, $change:expr, |$namespace:pat_param, $name:ident| $gone:expr) => {
        impl SlimChange for $kind {
            fn same(&self, other: &Self) -> bool {
                self == other
            }
            fn change(value: Arc<Self>) -> Change {
                $change(value)
            }
            fn gone(($namespace, $name): model::Key) -> Change {
                $gone
            }
        }
    };
}

slim_change!(Pod, Change::Pod, |namespace, name| Change::PodGone(
    namespace, name
));
slim_change!(Namespace, Change::Namespace, |_, name| {
    Change::NamespaceGone(name)
});
slim_change!(NetworkPolicy, Change::Policy, |namespace, name| {
    Change::PolicyGone(namespace, name)
});
slim_change!(ClusterPolicy, Change::ClusterPolicy, |_, name| {
    Change::ClusterPolicyGone(name)
});
slim_change!(Service, Change::Service, |namespace, name| {
    Change::ServiceGone(namespace, name)
});

impl SlimChange for EndpointSlice {
    fn same(&self, other: &Self) -> bool {
        EndpointSlice::same(self, other)
    }
    fn change(value: Arc<Self>) -> Change {
        Change::Slice(value)
    }
    fn gone((namespace, name): model::Key) -> Change {
        Change::SliceGone(namespace, name)
    }
}

impl<T: SlimChange> Convert<Slim<T>> for Slims<T> {
    type Key = model::Key;
    type Value = Arc<T>;

    fn key(&self, object: &Slim<T>) -> model::Key {
        object.key()
    }
    fn object(&self, key: &model::Key) -> String {
        convert::named(T::KIND, key)
    }
    fn value(&self, object: &Slim<T>) -> (Said<Arc<T>>, Option<Error>) {
        let Converted { value, .. } = &object.converted;
        let said = match value {
            Value::Is(value) => Said::Is(value.clone()),
            Value::Nothing => Said::Gone,
            Value::Unknown => Said::Unknown,
        };
        (said, object.problem())
    }
    fn same(&self, old: &Arc<T>, new: &Arc<T>) -> bool {
        SlimChange::same(&**old, &**new)
    }
    fn change(&self, value: Arc<T>) -> Change {
        T::change(value)
    }
    fn gone(&self, key: model::Key) -> Change {
        T::gone(key)
    }
}

/// The objects reported so far, and what was last said of each, so that a renewal or an
/// unrelated write (a heartbeat) is not a change.
pub(super) struct Known<K, C: Convert<K>> {
    convert: C,
    /// Each with the number of the list that brought it last.
    reported: BTreeMap<C::Key, (u32, C::Value)>,
    /// What is wrong with those that cannot be understood.
    wrong: BTreeMap<C::Key, (u32, String)>,
    /// How many lists there were. What an older one brought, and the last one did not, is gone.
    list: u32,
    listed: bool,
}

impl<K, C> Known<K, C>
where
    K: Resource<DynamicType = ()>,
    C: Convert<K>,
{
    pub(super) fn new(convert: C) -> Self {
        Self {
            convert,
            reported: BTreeMap::new(),
            wrong: BTreeMap::new(),
            list: 0,
            listed: false,
        }
    }

    pub(super) fn take(&mut self, event: watcher::Result<Event<K>>) -> Vec<Part> {
        match event {
            Ok(Event::Init) => {
                self.list = self.list.wrapping_add(1);
                Vec::new()
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) => self.apply(&object),
            Ok(Event::Delete(object)) => self.forget(self.convert.key(&object)),
            Ok(Event::InitDone) => self.finish_list(),
            Err(error) => vec![Part::Update(Update::Problem(watch_error(
                &K::kind(&()),
                error,
            )))],
        }
    }

    fn apply(&mut self, object: &K) -> Vec<Part> {
        let key = self.convert.key(object);
        let (said, problem) = self.convert.value(object);
        let mut parts = match said {
            Said::Gone => return self.forget(key),
            Said::Unknown => {
                // What was known stays, and the object is there.
                if let Some((list, _)) = self.reported.get_mut(&key) {
                    *list = self.list;
                }
                Vec::new()
            }
            Said::Is(value) => self.report(&key, value),
        };
        match problem {
            Some(error) => parts.extend(self.bad(key, object, &error)),
            None => parts.extend(self.good(&key)),
        }
        parts
    }

    fn report(&mut self, key: &C::Key, value: C::Value) -> Vec<Part> {
        match self.reported.get_mut(key) {
            Some((list, old)) => {
                *list = self.list;
                if self.convert.same(old, &value) {
                    return Vec::new();
                }
                *old = value.clone();
            }
            None => {
                self.reported
                    .insert(key.clone(), (self.list, value.clone()));
            }
        }
        vec![Part::Update(Update::Change(self.convert.change(value)))]
    }

    fn bad(&mut self, key: C::Key, object: &K, error: &Error) -> Option<Part> {
        let problem = error.to_string();
        if let Some((list, known)) = self.wrong.get_mut(&key)
            && *known == problem
        {
            *list = self.list;
            return None;
        }
        let update = Update::Bad {
            object: self.convert.object(&key),
            uid: object.meta().uid.clone().unwrap_or_default(),
            problem: problem.clone(),
        };
        self.wrong.insert(key, (self.list, problem));
        Some(Part::Update(update))
    }

    fn good(&mut self, key: &C::Key) -> Option<Part> {
        self.wrong.remove(key)?;
        Some(Part::Update(Update::Good {
            object: self.convert.object(key),
        }))
    }

    fn forget(&mut self, key: C::Key) -> Vec<Part> {
        let mut parts: Vec<Part> = self.good(&key).into_iter().collect();
        if self.reported.remove(&key).is_some() {
            parts.push(Part::Update(Update::Change(self.convert.gone(key))));
        }
        parts
    }

    fn finish_list(&mut self) -> Vec<Part> {
        let reported = self.reported.iter().map(|(key, (list, _))| (key, list));
        let wrong = self.wrong.iter().map(|(key, (list, _))| (key, list));
        let gone: BTreeSet<C::Key> = reported
            .chain(wrong)
            .filter(|(_, list)| **list != self.list)
            .map(|(key, _)| key.clone())
            .collect();
        let mut parts: Vec<Part> = gone.into_iter().flat_map(|key| self.forget(key)).collect();
        if !std::mem::replace(&mut self.listed, true) {
            parts.push(Part::Listed);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, ip: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}]}}))
        .unwrap()
    }

    fn text(parts: &[Part]) -> Vec<String> {
        parts
            .iter()
            .map(|part| match part {
                Part::Listed => "listed".to_owned(),
                Part::Update(Update::Change(Change::Node(node))) => {
                    format!("+{} {}", node.name, node.addresses[0])
                }
                Part::Update(Update::Change(Change::NodeGone(name))) => format!("-{name}"),
                Part::Update(other) => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_renewed_list_reports_only_differences_and_what_is_gone() {
        let mut known = Known::new(Nodes);
        let mut take = |event| text(&known.take(Ok(event)));
        assert!(take(Event::Init).is_empty());
        assert_eq!(
            take(Event::InitApply(node("a", "10.0.1.10"))),
            ["+a 10.0.1.10"]
        );
        assert_eq!(
            take(Event::InitApply(node("b", "10.0.1.20"))),
            ["+b 10.0.1.20"]
        );
        assert_eq!(take(Event::InitDone), ["listed"]);
        assert!(take(Event::Apply(node("a", "10.0.1.10"))).is_empty());
        assert!(take(Event::Init).is_empty());
        assert_eq!(
            take(Event::InitApply(node("b", "10.0.1.21"))),
            ["+b 10.0.1.21"]
        );
        assert_eq!(take(Event::InitDone), ["-a"]);
        assert_eq!(take(Event::Delete(node("b", "10.0.1.21"))), ["-b"]);
    }

    #[test]
    fn a_finished_pod_is_gone() {
        let pod = |phase: &str| -> Slim<Pod> {
            let text = json!({"metadata": {"namespace": "d", "name": "p"},
                "spec": {"containers": []}, "status": {"phase": phase}});
            serde_json::from_str(&text.to_string()).unwrap()
        };
        let mut known = Known::new(Slims::<Pod>::default());
        let first = known.take(Ok(Event::Apply(pod("Running"))));
        assert!(matches!(
            &first[..],
            [Part::Update(Update::Change(Change::Pod(_)))]
        ));
        let then = known.take(Ok(Event::Apply(pod("Succeeded"))));
        assert!(matches!(
            &then[..],
            [Part::Update(Update::Change(Change::PodGone(..)))]
        ));
    }

    fn slice(triggered: &str, ip: &str) -> Slim<EndpointSlice> {
        let text = json!({"metadata": {"namespace": "d", "name": "web-1", "uid": "u",
            "labels": {"kubernetes.io/service-name": "web"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": triggered}},
            "addressType": "IPv4", "endpoints": [{"addresses": [ip]}], "ports": null});
        serde_json::from_str(&text.to_string()).unwrap()
    }

    #[test]
    fn a_slices_heartbeat_is_no_change() {
        let mut known = Known::new(Slims::<EndpointSlice>::default());
        let mut take = |event| known.take(Ok(event)).len();
        assert_eq!(
            take(Event::Apply(slice("2026-01-01T00:00:00Z", "10.0.0.1"))),
            1
        );
        assert_eq!(
            take(Event::Apply(slice("2026-01-01T00:00:09Z", "10.0.0.1"))),
            0
        );
        assert_eq!(
            take(Event::Apply(slice("2026-01-01T00:00:10Z", "10.0.0.2"))),
            1
        );
    }

    #[test]
    fn what_is_wrong_is_told_once_and_its_end_too() {
        let mut known = Known::new(Slims::<EndpointSlice>::default());
        let mut take = |event| {
            let parts = known.take(Ok(event));
            let words = parts.iter().map(|part| match part {
                Part::Update(Update::Change(Change::Slice(slice))) => {
                    format!("{} endpoints", slice.endpoints.len())
                }
                Part::Update(Update::Change(Change::SliceGone(..))) => "gone".to_owned(),
                Part::Update(Update::Bad { object, uid, .. }) => format!("bad {object} {uid}"),
                Part::Update(Update::Good { object }) => format!("good {object}"),
                Part::Listed => "listed".to_owned(),
                Part::Update(other) => format!("{other:?}"),
            });
            words.collect::<Vec<_>>()
        };
        let bad = "bad EndpointSlice d/web-1 u";
        let good = "good EndpointSlice d/web-1";
        let time = "2026-01-01T00:00:00Z";
        assert_eq!(take(Event::Apply(slice(time, "x"))), ["0 endpoints", bad]);
        assert!(take(Event::Apply(slice(time, "x"))).is_empty());
        assert_eq!(
            take(Event::Apply(slice(time, "10.0.0.1"))),
            ["1 endpoints", good]
        );
        assert_eq!(take(Event::Apply(slice(time, "y"))), ["0 endpoints", bad]);
        assert!(take(Event::Init).is_empty());
        assert_eq!(take(Event::InitDone), [good, "gone", "listed"]);
    }
}
