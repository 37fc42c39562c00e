//! Watches, as streams of what changed.
//!
//! Objects are turned into small values at once and dropped. A stream remembers only the
//! keys it has reported, so that what vanished while the connection was down is reported
//! gone. Streams never end: failures are reported as [`Update::Problem`] and tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use model::Change;
use serde::de::DeserializeOwned;

use crate::{Backoff, Error, convert};

/// A watch is renewed after this many seconds, so that a dead connection is noticed.
pub const RENEW: u32 = 60;

/// How many objects a list brings at once: bounds the memory a first list takes.
const PAGE: u32 = 100;

/// Which pods to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pods {
    /// None.
    None,
    /// Those bound to the node.
    OfNode,
    /// All of the cluster.
    All,
}

/// What to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct What {
    /// All nodes.
    pub nodes: bool,
    /// Pods.
    pub pods: Pods,
}

impl What {
    /// What an agent needs for the fabric: every node, and the pods of its own.
    pub const FABRIC: Self = Self {
        nodes: true,
        pods: Pods::OfNode,
    };
}

/// One thing to know.
#[derive(Debug)]
pub enum Update {
    /// Something changed.
    Change(Change),
    /// Everything that was there at the start has been reported. Comes once.
    Synced,
    /// The connection failed or an object cannot be understood; what was known stays.
    Problem(Error),
}

/// One thing to know of the configuration.
#[derive(Debug)]
pub enum ConfigUpdate {
    /// The configuration, first or changed.
    Config(Box<model::Config>),
    /// There is no configuration; the last one stays in force.
    Missing,
    /// It cannot be read; the last good one stays in force.
    Problem(Error),
}

/// Watcher settings all flatnet's watches share.
pub fn settings() -> watcher::Config {
    watcher::Config::default().timeout(RENEW).page_size(PAGE)
}

/// A watch of one kind with back-off, raw.
pub fn raw<K>(
    api: Api<K>,
    settings: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher::watcher(api, settings).backoff(Backoff::reconnect())
}

/// Changes of nodes and pods as seen from `node`.
pub fn changes(client: &Client, node: &str, what: What) -> BoxStream<'static, Update> {
    let mut parts: SelectAll<BoxStream<'static, Part>> = SelectAll::new();
    if what.nodes {
        parts.push(part(Api::<Node>::all(client.clone()), settings(), Nodes));
    }
    let of_node = format!("spec.nodeName={node}");
    match what.pods {
        Pods::None => {}
        Pods::OfNode => parts.push(part(
            Api::<Pod>::all(client.clone()),
            settings().fields(&of_node),
            AllPods,
        )),
        Pods::All => parts.push(part(Api::<Pod>::all(client.clone()), settings(), AllPods)),
    }
    let mut waiting = parts.len();
    let nothing = (waiting == 0).then_some(Update::Synced);
    stream::iter(nothing)
        .chain(parts.filter_map(move |part| {
            let update = match part {
                Part::Update(update) => Some(update),
                Part::Listed => {
                    waiting -= 1;
                    (waiting == 0).then_some(Update::Synced)
                }
            };
            std::future::ready(update)
        }))
        .boxed()
}

/// The network configuration, whenever it changes.
pub fn config(client: &Client) -> BoxStream<'static, ConfigUpdate> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), convert::CONFIG_NAMESPACE);
    let field = format!("metadata.name={}", convert::CONFIG_NAME);
    let mut last: Option<model::Config> = None;
    let mut listed = false;
    raw(api, settings().fields(&field))
        .filter_map(move |event| {
            let update = match event {
                Ok(Event::Init) => {
                    listed = false;
                    None
                }
                Ok(Event::Apply(map) | Event::InitApply(map)) => {
                    listed = true;
                    match convert::config(&map) {
                        Ok(config) if last.as_ref() == Some(&config) => None,
                        Ok(config) => {
                            last = Some(config.clone());
                            Some(ConfigUpdate::Config(Box::new(config)))
                        }
                        Err(error) => Some(ConfigUpdate::Problem(error)),
                    }
                }
                Ok(Event::Delete(_)) => Some(ConfigUpdate::Missing),
                Ok(Event::InitDone) => (!listed).then_some(ConfigUpdate::Missing),
                Err(error) => Some(ConfigUpdate::Problem(watch_error("ConfigMap", error))),
            };
            std::future::ready(update)
        })
        .boxed()
}

enum Part {
    Update(Update),
    Listed,
}

/// How one kind becomes changes.
trait Convert<K>: Send + 'static {
    type Key: Ord + Clone + Send + 'static;
    fn key(&self, object: &K) -> Self::Key;
    /// None where the object counts as gone.
    fn change(&self, object: &K) -> Result<Option<Change>, Error>;
    fn gone(&self, key: Self::Key) -> Change;
}

struct Nodes;

impl Convert<Node> for Nodes {
    type Key = String;

    fn key(&self, node: &Node) -> String {
        node.name_any()
    }

    fn change(&self, node: &Node) -> Result<Option<Change>, Error> {
        convert::node(node).map(|node| Some(Change::Node(node)))
    }

    fn gone(&self, name: String) -> Change {
        Change::NodeGone(name)
    }
}

struct AllPods;

impl Convert<Pod> for AllPods {
    type Key = (String, String);

    fn key(&self, pod: &Pod) -> (String, String) {
        (pod.namespace().unwrap_or_default(), pod.name_any())
    }

    fn change(&self, pod: &Pod) -> Result<Option<Change>, Error> {
        if convert::is_finished(pod) {
            return Ok(None);
        }
        convert::pod(pod).map(|pod| Some(Change::Pod(pod)))
    }

    fn gone(&self, (namespace, name): (String, String)) -> Change {
        Change::PodGone(namespace, name)
    }
}

fn part<K, C>(api: Api<K>, settings: watcher::Config, convert: C) -> BoxStream<'static, Part>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    C: Convert<K>,
{
    let mut known = Known::default();
    raw(api, settings)
        .flat_map(move |event| stream::iter(known.take(&convert, event)))
        .boxed()
}

/// The keys reported so far, and what was last said of each, so that a renewal or an
/// unrelated write (a heartbeat) is not a change.
struct Known<Key> {
    reported: BTreeMap<Key, Change>,
    listing: BTreeSet<Key>,
    listed: bool,
}

impl<Key> Default for Known<Key> {
    fn default() -> Self {
        Self {
            reported: BTreeMap::new(),
            listing: BTreeSet::new(),
            listed: false,
        }
    }
}

impl<Key: Ord + Clone> Known<Key> {
    fn take<K, C>(&mut self, convert: &C, event: watcher::Result<Event<K>>) -> Vec<Part>
    where
        K: Resource<DynamicType = ()>,
        C: Convert<K, Key = Key>,
    {
        match event {
            Ok(Event::Init) => {
                self.listing.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                self.listing.insert(convert.key(&object));
                self.apply(convert, &object)
            }
            Ok(Event::Apply(object)) => self.apply(convert, &object),
            Ok(Event::Delete(object)) => self.forget(convert, convert.key(&object)),
            Ok(Event::InitDone) => self.finish_list(convert),
            Err(error) => vec![Part::Update(Update::Problem(watch_error(
                &K::kind(&()),
                error,
            )))],
        }
    }

    fn apply<K, C: Convert<K, Key = Key>>(&mut self, convert: &C, object: &K) -> Vec<Part> {
        let key = convert.key(object);
        match convert.change(object) {
            Ok(Some(change)) if self.reported.get(&key) == Some(&change) => Vec::new(),
            Ok(Some(change)) => {
                self.reported.insert(key, change.clone());
                vec![Part::Update(Update::Change(change))]
            }
            Ok(None) => self.forget(convert, key),
            Err(error) => vec![Part::Update(Update::Problem(error))],
        }
    }

    fn forget<K, C: Convert<K, Key = Key>>(&mut self, convert: &C, key: Key) -> Vec<Part> {
        match self.reported.remove(&key) {
            Some(_) => vec![Part::Update(Update::Change(convert.gone(key)))],
            None => Vec::new(),
        }
    }

    fn finish_list<K, C: Convert<K, Key = Key>>(&mut self, convert: &C) -> Vec<Part> {
        let listing = std::mem::take(&mut self.listing);
        let gone: Vec<Key> = self
            .reported
            .keys()
            .filter(|key| !listing.contains(key))
            .cloned()
            .collect();
        let mut parts: Vec<Part> = gone
            .into_iter()
            .flat_map(|key| self.forget(convert, key))
            .collect();
        if !std::mem::replace(&mut self.listed, true) {
            parts.push(Part::Listed);
        }
        parts
    }
}

/// A watch's failure in our words.
pub fn watch_error(kind: &str, error: watcher::Error) -> Error {
    let what = format!("watch {kind}");
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Error::request(what)(error),
        watcher::Error::WatchError(status) => Error::request(what)(kube::Error::Api(status)),
        watcher::Error::NoResourceVersion => Error::Field {
            object: what,
            field: "metadata.resourceVersion".to_owned(),
            cause: "missing in the answer; this kind cannot be watched".to_owned(),
        },
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
        let mut known = Known::default();
        let mut take = |event| text(&known.take(&Nodes, Ok(event)));
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
        let pod = |phase: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"namespace": "d", "name": "p"},
                "spec": {"containers": []}, "status": {"phase": phase}}))
            .unwrap()
        };
        let mut known = Known::default();
        let first = known.take(&AllPods, Ok(Event::Apply(pod("Running"))));
        assert!(matches!(
            &first[..],
            [Part::Update(Update::Change(Change::Pod(_)))]
        ));
        let then = known.take(&AllPods, Ok(Event::Apply(pod("Succeeded"))));
        assert!(matches!(
            &then[..],
            [Part::Update(Update::Change(Change::PodGone(..)))]
        ));
    }
}
