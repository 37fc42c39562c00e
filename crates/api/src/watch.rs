//! Watches, as streams of what changed.
//!
//! Objects are turned into small values at once and dropped. A stream remembers what it has
//! reported, so that what vanished while the connection was down is
//! reported gone. Streams never end: failures are reported as [`Update::Problem`] and tried again.

use std::fmt::Debug;

use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use model::{Change, ClusterPolicy, EndpointSlice, Namespace, NetworkPolicy, Pod, Service};
use serde::de::DeserializeOwned;

use crate::{Backoff, Error, convert};

mod known;
mod optional;

use convert::Slim;
use known::{Convert, Known, Nodes, Part, SlimChange, Slims};

/// A watch is renewed after this many seconds, so that a dead connection is noticed.
pub const RENEW: u32 = 60;

/// How many objects a list brings at once: bounds the memory a first list takes.
const PAGE: u32 = 100;

/// The same for objects of which little is kept: they are small, and there are many.
const SLIM_PAGE: u32 = 500;

/// What to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct What {
    /// All nodes.
    pub nodes: bool,
    /// All Services and their endpoint slices.
    pub services: bool,
    /// All namespaces.
    pub namespaces: bool,
    /// All pods.
    pub pods: bool,
    /// All NetworkPolicies and ClusterNetworkPolicies.
    pub policies: bool,
}

impl What {
    const NOTHING: Self = Self {
        nodes: false,
        services: false,
        namespaces: false,
        pods: false,
        policies: false,
    };
    /// What an agent needs for the fabric: every node.
    pub const FABRIC: Self = Self {
        nodes: true,
        ..Self::NOTHING
    };
    /// What an agent needs for Services.
    pub const SERVICES: Self = Self {
        services: true,
        ..Self::NOTHING
    };
    /// What an agent needs for policies: these, and the pods and namespaces they are about.
    pub const POLICIES: Self = Self {
        namespaces: true,
        pods: true,
        policies: true,
        ..Self::NOTHING
    };
    /// What a DNS server needs. Pods it needs where its configuration asks for them.
    pub const NAMES: Self = Self {
        services: true,
        namespaces: true,
        ..Self::NOTHING
    };
    /// All that agents know.
    pub const ALL: Self = Self {
        nodes: true,
        services: true,
        namespaces: true,
        pods: true,
        policies: true,
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

/// One thing to know of the cluster's Corefile.
#[derive(Debug)]
pub enum CorefileUpdate {
    /// The Corefile, first, changed, or once more.
    Corefile {
        /// The ConfigMap's `metadata.uid`.
        uid: String,
        /// What is written.
        text: String,
    },
    /// There is none.
    Missing,
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

/// Changes of what is asked for.
pub fn changes(client: &Client, what: What) -> BoxStream<'static, Update> {
    let mut parts: SelectAll<BoxStream<'static, Part>> = SelectAll::new();
    if what.nodes {
        parts.push(part(Api::<Node>::all(client.clone()), settings(), Nodes));
    }
    if what.services {
        parts.push(slim::<Service>(client));
        parts.push(slim::<EndpointSlice>(client));
    }
    if what.namespaces {
        parts.push(slim::<Namespace>(client));
    }
    if what.pods {
        parts.push(slim::<Pod>(client));
    }
    if what.policies {
        parts.push(slim::<NetworkPolicy>(client));
        // Its definition may not be installed, or only later.
        parts.push(optional::part::<ClusterPolicy>(client));
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

/// The Corefile of the cluster's DNS, whenever it changes; see [`convert::COREFILE_NAME`].
pub fn corefile(client: &Client) -> BoxStream<'static, CorefileUpdate> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), convert::COREFILE_NAMESPACE);
    let field = format!("metadata.name={}", convert::COREFILE_NAME);
    let mut listed = false;
    raw(api, settings().fields(&field))
        .filter_map(move |event| {
            let update =
                match event {
                    Ok(Event::Init) => {
                        listed = false;
                        None
                    }
                    Ok(Event::Apply(map) | Event::InitApply(map)) => {
                        listed = true;
                        let uid = map.metadata.uid.unwrap_or_default();
                        let mut data = map.data.unwrap_or_default();
                        let text = data.remove(convert::COREFILE_KEY);
                        Some(text.map_or(CorefileUpdate::Missing, |text| {
                            CorefileUpdate::Corefile { uid, text }
                        }))
                    }
                    Ok(Event::Delete(_)) => Some(CorefileUpdate::Missing),
                    Ok(Event::InitDone) => (!listed).then_some(CorefileUpdate::Missing),
                    Err(error) => Some(CorefileUpdate::Problem(watch_error("ConfigMap", error))),
                };
            std::future::ready(update)
        })
        .boxed()
}

/// All objects of a kind that is read slim.
fn slim<T: SlimChange>(client: &Client) -> BoxStream<'static, Part> {
    let api = Api::<Slim<T>>::all(client.clone());
    part(api, slim_settings(), Slims::default())
}

fn slim_settings() -> watcher::Config {
    settings().page_size(SLIM_PAGE)
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

#[cfg(test)]
mod tests;
