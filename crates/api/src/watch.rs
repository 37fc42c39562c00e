//! Watches, as streams of what changed.
//!
//! Objects are turned into small values at once and dropped. A stream remembers what it has
//! reported, so that what vanished while the connection was down is
//! reported gone. Streams never end: failures are reported as [`Update::Problem`] and tried again.

use std::fmt::Debug;

use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use model::{Change, EndpointSlice, Service};
use serde::de::DeserializeOwned;

use crate::{Backoff, Error, convert};

mod known;

use convert::Slim;
use known::{AllPods, Convert, Known, Nodes, Part, Slims};

/// A watch is renewed after this many seconds, so that a dead connection is noticed.
pub const RENEW: u32 = 60;

/// How many objects a list brings at once: bounds the memory a first list takes.
const PAGE: u32 = 100;

/// The same for objects of which little is kept: they are small, and there are many.
const SLIM_PAGE: u32 = 500;

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
    /// All Services and their endpoint slices.
    pub services: bool,
}

impl What {
    /// What an agent needs for the fabric: every node, and the pods of its own.
    pub const FABRIC: Self = Self {
        nodes: true,
        pods: Pods::OfNode,
        services: false,
    };
    /// What an agent needs for Services.
    pub const SERVICES: Self = Self {
        nodes: false,
        pods: Pods::None,
        services: true,
    };
}

/// One thing to know.
#[derive(Debug)]
pub enum Update {
    /// Something changed.
    Change(Change),
    /// Everything that was there at the start has been reported. Comes once.
    Synced,
    /// An object cannot be understood, all of it or in part. Comes once, until that changes.
    Bad {
        /// Kind and name, for example `Service default/web`.
        object: String,
        /// `metadata.uid`.
        uid: String,
        /// Object, field and cause in one sentence.
        problem: String,
    },
    /// An object that was bad no longer is: it is understood, or gone.
    Good {
        /// As it was named then.
        object: String,
    },
    /// The connection failed; what was known stays.
    Problem(Error),
}

/// One thing to know of the configuration.
#[derive(Debug)]
pub enum ConfigUpdate {
    /// The configuration, first or changed.
    Config(Box<model::Config>),
    /// There is no configuration; the last one stays in force.
    Missing,
    /// It cannot be understood; the last good one stays in force.
    Bad {
        /// The ConfigMap's `metadata.uid`.
        uid: String,
        /// Where, and why.
        error: Error,
    },
    /// The connection failed; what was known stays.
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

/// Changes of what is asked for as seen from `node`.
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
    if what.services {
        let slim = || settings().page_size(SLIM_PAGE);
        let services = Api::<Slim<Service>>::all(client.clone());
        parts.push(part(services, slim(), Slims::default()));
        let slices = Api::<Slim<EndpointSlice>>::all(client.clone());
        parts.push(part(slices, slim(), Slims::default()));
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
                        Err(error) => {
                            // Whoever puts the last one back must hear that it is good again.
                            last = None;
                            let uid = map.metadata.uid.unwrap_or_default();
                            Some(ConfigUpdate::Bad { uid, error })
                        }
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

fn part<K, C>(api: Api<K>, settings: watcher::Config, convert: C) -> BoxStream<'static, Part>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    C: Convert<K>,
{
    let mut known = Known::new(convert);
    raw(api, settings)
        .flat_map(move |event| stream::iter(known.take(event)))
        .boxed()
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
