//! A server block's plugins in `CoreDNS`'s order.
//!
//! A query goes down through the stages of [`stages`] and its answer comes back up through them:
//! one asynchronous function that calls the next, so that what is not configured costs a branch.
//! What is configured but rare, and keeps much across a wait, has its future in a box of its own:
//! the usual way stays small. A stage that has to know what another name is (the target of a
//! CNAME) asks the server again, at the top, through [`Way::ask`].

mod chores;
mod resources;
mod router;
mod sources;
mod stages;
mod zones;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

pub use resources::Resources;
pub use router::{Router, Site};

use crate::cache::Cache;
use crate::corefile::plugins::{self as options, LoadBalancePolicy, SearchPath};
use crate::corefile::{Error, ErrorKind, Position, ServerBlock};
use crate::expression::{Environment, Expression};
use crate::plugins::acl::Acl;
use crate::plugins::autopath;
use crate::plugins::erratic::Erratic;
use crate::plugins::errors::Errors;
use crate::plugins::hosts::{Hosts, Table};
use crate::plugins::k8s_external::External;
use crate::plugins::kubernetes::Kubernetes;
use crate::plugins::loadbalance::Weights;
use crate::plugins::log::Log;
use crate::plugins::looping::Loop;
use crate::plugins::template::Templates;
use crate::plugins::transfer::Transfer;
use crate::query::{Answer, Failure, Outcome, Query};
use crate::upstream::{self, Forwards};
use crate::wire::{Name, Rcode, Type};

#[cfg(test)]
mod tests;

/// What comes back from the stages below.
pub type Reply = Result<Outcome, Failure>;

/// A server asks itself again at most so often for one query.
const DEEPEST: u8 = 8;

/// A server block, ready to answer.
#[derive(Debug)]
pub struct Chain {
    resources: Resources,
    cancel: Option<Duration>,
    nsid: Option<String>,
    bufsize: Option<u16>,
    errors: Option<Errors>,
    log: Log,
    local: Option<bool>,
    dns64: Option<options::Dns64>,
    any: bool,
    chaos: Option<options::Chaos>,
    loadbalance: Option<Balance>,
    rewrite: Vec<options::Rewrite>,
    autopath: Option<Autopath>,
    acl: Option<Acl>,
    cache: Option<Arc<Cache>>,
    header: Option<options::Header>,
    minimal: bool,
    templates: Option<Templates>,
    transfer: Option<Transfer>,
    hosts: Option<HostsFile>,
    kubernetes: Option<Kubernetes>,
    external: Option<External>,
    files: Option<zones::Files>,
    looping: Option<Loop>,
    forward: Option<Upstreams>,
    erratic: Option<Erratic>,
    whoami: bool,
    view: Option<View>,
    /// The plugin that is asked last, which is the one to say that there is no other.
    last: &'static str,
}

/// `loadbalance`, and the weights as they were last read.
#[derive(Debug)]
struct Balance {
    options: options::LoadBalance,
    weights: ArcSwap<Weights>,
    seen: chores::Seen,
}

/// `autopath`, and a search path that is the same for all.
#[derive(Debug)]
struct Autopath {
    zones: Vec<Name>,
    path: Option<Vec<Name>>,
}

/// `view`: its name, and what holds of its queries.
#[derive(Debug)]
struct View {
    name: String,
    conditions: Vec<Expression>,
}

/// `hosts`, and the file as it was last read.
#[derive(Debug)]
struct HostsFile {
    options: options::Hosts,
    hosts: Hosts,
    file: ArcSwap<Table>,
    seen: chores::Seen,
}

/// `forward`, and the files with upstreams as they were last read.
#[derive(Debug)]
struct Upstreams {
    forwards: Forwards,
    seen: Vec<(String, chores::Seen)>,
}

/// Where a query is on its way.
#[derive(Clone, Copy, Debug)]
struct Way<'a> {
    router: &'a Arc<Router>,
    chain: &'a Arc<Chain>,
    /// How often the server has asked itself.
    depth: u8,
}

impl Way<'_> {
    /// What the server itself says about another name: SERVFAIL where it has asked itself too
    /// often already.
    async fn ask(self, query: &Query, name: Name, kind: Type) -> Option<Answer> {
        if self.depth >= DEEPEST {
            return Some(coded(Rcode::SERVFAIL));
        }
        let mut query = query.clone();
        query.question.name = name;
        query.question.kind = kind;
        let entered = Box::pin(self.router.enter(&query, self.depth + 1));
        match entered.await {
            Ok(Outcome::Answer(answer)) => Some(answer),
            Ok(Outcome::Messages(_) | Outcome::Drop) => None,
            Err(failure) => Some(coded(failure.rcode)),
        }
    }
}

/// An answer that is nothing but a code.
fn coded(rcode: Rcode) -> Answer {
    Answer {
        rcode,
        ..Answer::default()
    }
}

impl Chain {
    /// Makes a server block ready, with files read for the first time.
    ///
    /// # Errors
    /// A plugin's option means nothing that can be done, or a file without which nothing can.
    pub fn new(block: &ServerBlock, resources: &Resources) -> Result<Self, Error> {
        let plugins = &block.plugins;
        let balance = plugins.loadbalance.as_ref();
        let kubernetes = plugins.kubernetes.as_ref().map(|options| {
            let made = Kubernetes::new(options, &resources.local);
            made.map_err(|error| wrong(&block.at, "kubernetes", error))
        });
        let external = plugins.k8s_external.as_ref().map(|options| {
            let made = External::new(options);
            made.map_err(|error| wrong(&block.at, "k8s_external", error))
        });
        let templates = (!plugins.template.is_empty()).then(|| {
            let made = Templates::new(&plugins.template);
            made.map_err(|error| wrong(&block.at, "template", error))
        });
        let autopath = plugins.autopath.as_ref().map(|options| {
            let made = Autopath::new(options, plugins.kubernetes.is_some());
            made.map_err(|error| wrong(&block.at, "autopath", error))
        });
        let view = plugins.view.as_ref().map(|options| {
            let made = View::new(options);
            made.map_err(|error| wrong(&block.at, "view", error))
        });
        let chain = Self {
            cancel: plugins.cancel,
            nsid: plugins.nsid.as_ref().map(|id| match id.as_str() {
                "" => resources.host.clone(),
                id => id.to_owned(),
            }),
            bufsize: plugins.bufsize,
            errors: plugins
                .errors
                .as_ref()
                .map(|options| Errors::new(options, resources.started)),
            log: Log::new(&plugins.log),
            local: plugins.local,
            dns64: plugins.dns64.clone(),
            any: plugins.any,
            chaos: plugins.chaos.clone(),
            loadbalance: balance.map(|options| Balance {
                options: options.clone(),
                weights: ArcSwap::default(),
                seen: chores::Seen::default(),
            }),
            rewrite: plugins.rewrite.clone(),
            autopath: autopath.transpose()?,
            acl: (!plugins.acl.is_empty()).then(|| Acl::new(&plugins.acl)),
            cache: plugins
                .cache
                .clone()
                .map(|cache| Arc::new(Cache::new(cache, live(plugins)))),
            header: plugins.header.clone(),
            minimal: plugins.minimal,
            hosts: plugins.hosts.as_ref().map(|options| HostsFile {
                options: options.clone(),
                hosts: Hosts::new(options),
                file: ArcSwap::default(),
                seen: chores::Seen::default(),
            }),
            transfer: (!plugins.transfer.is_empty()).then(|| Transfer::new(&plugins.transfer)),
            kubernetes: kubernetes.transpose()?,
            external: external.transpose()?,
            templates: templates.transpose()?,
            files: plugins.file.as_ref().map(zones::Files::new),
            looping: plugins
                .loop_zone
                .clone()
                .map(|zone| Loop::new(zone, resources.looping.clone())),
            forward: upstreams(plugins, resources)
                .map_err(|error| wrong(&block.at, "forward", error))?,
            erratic: plugins.erratic.clone().map(Erratic::new),
            whoami: plugins.whoami,
            view: view.transpose()?,
            last: last(plugins),
            resources: resources.clone(),
        };
        chain.read_files(&block.at)?;
        Ok(chain)
    }

    /// Its cache, for what it counts.
    pub fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// How much of the client's buffer is used: `bufsize` bounds it.
    fn bound(&self, query: &mut Query) {
        if let Some(most) = self.bufsize
            && let Some(edns) = &mut query.edns
        {
            edns.udp_size = edns.udp_size.min(most);
        }
    }

    /// Whether the block is for such a query.
    fn views(&self, query: &Query) -> bool {
        self.view.as_ref().is_none_or(|view| view.has(query))
    }

    /// The view's name, for metrics.
    pub fn view_name(&self) -> &str {
        self.view.as_ref().map_or("", |view| &view.name)
    }

    /// Whether questions of class CH are taken.
    fn takes_chaos(&self) -> bool {
        self.chaos.is_some()
    }
}

impl View {
    fn new(options: &options::View) -> Result<Self, String> {
        let each = options.expressions.iter();
        let conditions = each.map(|text| Expression::new(text, &[], false));
        Ok(Self {
            name: options.name.clone(),
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }

    /// What cannot be worked out does not hold.
    fn has(&self, query: &Query) -> bool {
        let environment = Environment {
            query,
            groups: &BTreeMap::new(),
            variables: &[],
        };
        let mut each = self.conditions.iter();
        each.all(|condition| condition.holds(&environment).unwrap_or(false))
    }
}

impl Autopath {
    fn new(options: &options::AutoPath, kubernetes: bool) -> Result<Self, String> {
        let path = match &options.search {
            SearchPath::Plugin(plugin) if plugin == "kubernetes" && kubernetes => None,
            SearchPath::Plugin(plugin) => {
                return Err(format!(
                    "plugin {plugin:?} is not there to tell search paths"
                ));
            }
            SearchPath::File(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| format!("failed to parse {path:?}: {error}"))?;
                let mut path = autopath::searched(&text);
                path.push(Name::root());
                Some(path)
            }
        };
        let zones = options.zones.clone();
        Ok(Self { zones, path })
    }
}

/// What is wrong with a plugin's options.
fn wrong(at: &Position, plugin: &'static str, message: impl Into<String>) -> Error {
    Error {
        at: at.clone(),
        kind: ErrorKind::Plugin(plugin),
        message: message.into(),
    }
}

/// `forward`, with its files read for the first time.
fn upstreams(
    plugins: &options::Plugins,
    resources: &Resources,
) -> Result<Option<Upstreams>, String> {
    if plugins.forward.is_empty() {
        return Ok(None);
    }
    let resources = upstream::Resources {
        metrics: Arc::clone(&resources.metrics.upstream),
        ..resources.upstream.clone()
    };
    let read = |path: &str| std::fs::read_to_string(path);
    let forwards = Forwards::new(&plugins.forward, &resources, &read)?;
    let unseen = |path: &str| (path.to_owned(), chores::Seen::default());
    let seen = forwards.files().map(unseen).collect();
    Ok(Some(Upstreams { forwards, seen }))
}

/// Zones whose every answer comes from the watched state, so that no cache need be asked.
fn live(plugins: &options::Plugins) -> Vec<Name> {
    let Some(kubernetes) = &plugins.kubernetes else {
        return Vec::new();
    };
    let passes_on = |zone: &Name| {
        let fallthrough = &kubernetes.fallthrough;
        let overlaps = |other: &Name| zone.is_within(other) || other.is_within(zone);
        fallthrough.iter().any(overlaps)
    };
    let zones = kubernetes.zones.iter();
    zones.filter(|zone| !passes_on(zone)).cloned().collect()
}

/// The configured plugin that is asked last.
fn last(plugins: &options::Plugins) -> &'static str {
    let configured = [
        (plugins.whoami, "whoami"),
        (plugins.erratic.is_some(), "erratic"),
        (!plugins.forward.is_empty(), "forward"),
        (plugins.loop_zone.is_some(), "loop"),
        (plugins.file.is_some(), "file"),
        (plugins.kubernetes.is_some(), "kubernetes"),
        (plugins.k8s_external.is_some(), "k8s_external"),
        (plugins.hosts.is_some(), "hosts"),
        (!plugins.transfer.is_empty(), "transfer"),
        (!plugins.template.is_empty(), "template"),
        (plugins.minimal, "minimal"),
        (plugins.header.is_some(), "header"),
        (plugins.cache.is_some(), "cache"),
        (!plugins.acl.is_empty(), "acl"),
        (plugins.autopath.is_some(), "autopath"),
        (!plugins.rewrite.is_empty(), "rewrite"),
        (plugins.loadbalance.is_some(), "loadbalance"),
        (plugins.chaos.is_some(), "chaos"),
        (plugins.any, "any"),
        (plugins.dns64.is_some(), "dns64"),
        (plugins.local.is_some(), "local"),
        (!plugins.log.is_empty(), "log"),
        (plugins.errors.is_some(), "errors"),
    ];
    let found = configured.iter().find(|(is, _)| *is);
    found.map_or("", |(_, name)| name)
}
