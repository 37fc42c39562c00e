//! The loop: Services and pools in, statuses and Events out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::events::{Recorder, reference};
use api::watch::ConfigUpdate;
use api::{Backoff, Error};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, ObjectReference, Service};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, Client, ResourceExt};
use model::{Config, Judged, Key, Pool};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::ask::{Ask, ask, is_ours};
use super::feed::{Fed, feed, key};
use super::plan::{Balancer, Outcome};
use super::status::{self, Shown};

/// Changes within this time are taken in together.
const GATHER: Duration = Duration::from_millis(5);
/// A pool's counts are written no more often than this.
const POOLS: Duration = Duration::from_millis(200);
/// Writes under way at once.
const WRITES: usize = 16;

/// A Service as last seen or written.
struct Seen {
    on: ObjectReference,
    shown: Shown,
    since: Option<Timestamp>,
    /// The resourceVersion: what the watch tells may be older than what we wrote.
    version: u64,
}

/// A pool as last seen.
struct SeenPool {
    /// The last that could be read.
    pool: Option<Arc<Pool>>,
    problem: Option<String>,
    generation: Option<i64>,
    status: Value,
}

/// The daemon's part that gives Services their addresses.
pub(crate) struct Services {
    client: Client,
    recorder: Recorder,
    balancer: Balancer,
    config: Option<Config>,
    nodes: BTreeMap<String, model::Node>,
    pools: BTreeMap<String, SeenPool>,
    /// Pools must be judged again.
    judge: bool,
    seen: BTreeMap<Key, Seen>,
    /// Services to which somebody else gave addresses.
    foreign: BTreeMap<Key, Ask>,
    desired: BTreeMap<Key, Shown>,
    /// Statuses that may differ from what is desired.
    unwritten: BTreeSet<Key>,
    /// What still has to be listed: nodes, pools, namespaces, Services.
    unsynced: BTreeSet<&'static str>,
    undefined: bool,
}

async fn until(due: Option<Instant>) {
    match due {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Services {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            recorder: Recorder::new(client.clone(), "flatnet-controller", None),
            client,
            balancer: Balancer::default(),
            config: None,
            nodes: BTreeMap::new(),
            pools: BTreeMap::new(),
            judge: true,
            seen: BTreeMap::new(),
            foreign: BTreeMap::new(),
            desired: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            unsynced: BTreeSet::from(["Node", api::pool::KIND, "Namespace", "Service"]),
            undefined: false,
        }
    }

    pub(crate) async fn run(mut self) -> std::convert::Infallible {
        let mut configs = api::watch::config(&self.client);
        let mut nodes = feed(Api::<Node>::all(self.client.clone()));
        let mut pools = feed(api::pool::all(&self.client));
        let mut namespaces = feed(Api::<Namespace>::all(self.client.clone()));
        let mut services = feed(Api::<Service>::all(self.client.clone()));
        let mut backoff = Backoff::reconnect();
        let (mut settle, mut count) = (None, None);
        loop {
            // Whose a Service's address is can be told only once the pools are known.
            let others_known = self.unsynced.iter().all(|kind| *kind == "Service");
            let changed = tokio::select! {
                Some(update) = configs.next() => self.configure(update),
                Some(fed) = nodes.next() => self.node(fed),
                Some(fed) = pools.next() => self.pool(fed),
                Some(fed) = namespaces.next() => self.namespace(fed),
                Some(fed) = services.next(), if others_known => self.service(fed),
                () = until(settle) => {
                    settle = None;
                    if self.unsynced.is_empty() {
                        self.settle();
                        settle = self.write().await.then(|| Instant::now() + backoff.wait());
                        if settle.is_none() {
                            backoff.reset();
                        }
                        count.get_or_insert(Instant::now() + POOLS);
                    }
                    false
                }
                () = until(count) => {
                    count = self.write_pools().await.then(|| Instant::now() + backoff.wait());
                    false
                }
            };
            if changed {
                settle.get_or_insert(Instant::now() + GATHER);
            }
        }
    }

    fn failed(&mut self, kind: &str, error: kube::runtime::watcher::Error) -> bool {
        if kind == api::pool::KIND && api::pool::is_undefined(&error) {
            if !std::mem::replace(&mut self.undefined, true) {
                tracing::warn!(
                    "the cluster does not know LoadBalancerPools: Services of type LoadBalancer stay pending until their CustomResourceDefinition is applied"
                );
            }
        } else {
            tracing::warn!("{}", api::watch::watch_error(kind, error));
        }
        false
    }

    fn configure(&mut self, update: ConfigUpdate) -> bool {
        match update {
            ConfigUpdate::Config(config) => {
                self.config = Some(*config);
                self.judge = true;
                true
            }
            // The loop that gives nodes their ranges says so.
            ConfigUpdate::Missing | ConfigUpdate::Bad { .. } | ConfigUpdate::Problem(_) => false,
        }
    }

    fn node(&mut self, fed: Fed<Node>) -> bool {
        let changed = match fed {
            Fed::Put(node) => match api::convert::node(&node) {
                Ok(node) => {
                    let old = self.nodes.insert(node.name.clone(), node.clone());
                    old.is_none_or(|old| {
                        (old.addresses, old.pod_cidrs) != (node.addresses, node.pod_cidrs)
                    })
                }
                // Its agent says so.
                Err(_) => false,
            },
            Fed::Gone((_, name)) => self.nodes.remove(&name).is_some(),
            Fed::Synced => self.unsynced.remove("Node"),
            Fed::Failed(error) => self.failed("Node", error),
        };
        self.judge |= changed;
        changed
    }

    fn pool(&mut self, fed: Fed<DynamicObject>) -> bool {
        let changed = match fed {
            Fed::Put(object) => {
                let (pool, problem) = match api::pool::pool(&object) {
                    Ok(pool) => (Some(Arc::new(pool)), None),
                    Err(error) => (None, Some(error.to_string())),
                };
                let old = self.pools.remove(&object.name_any());
                let same = old
                    .as_ref()
                    .is_some_and(|old| old.pool == pool && old.problem == problem);
                let new = SeenPool {
                    // The last good one stays in force.
                    pool: pool.or_else(|| old.and_then(|old| old.pool)),
                    problem,
                    generation: object.metadata.generation,
                    status: object.data["status"].clone(),
                };
                self.pools.insert(object.name_any(), new);
                !same
            }
            Fed::Gone((_, name)) => self.pools.remove(&name).is_some(),
            Fed::Synced => {
                self.undefined = false;
                self.unsynced.remove(api::pool::KIND)
            }
            Fed::Failed(error) => self.failed(api::pool::KIND, error),
        };
        self.judge |= changed;
        changed
    }

    fn namespace(&mut self, fed: Fed<Namespace>) -> bool {
        match fed {
            Fed::Put(namespace) => {
                let labels = namespace.labels().clone();
                self.balancer
                    .set_namespace(&namespace.name_any(), Some(labels));
            }
            Fed::Gone((_, name)) => self.balancer.set_namespace(&name, None),
            Fed::Synced => return self.unsynced.remove("Namespace"),
            Fed::Failed(error) => return self.failed("Namespace", error),
        }
        !self.balancer.is_settled()
    }

    fn service(&mut self, fed: Fed<Service>) -> bool {
        match fed {
            Fed::Put(service) => self.put(&service),
            Fed::Gone(key) => {
                self.balancer.remove(&key);
                self.foreign.remove(&key);
                self.seen.remove(&key);
                self.unwritten.remove(&key);
                // Nothing may be left to give, and yet a pool has more than its status says.
                if self.desired.remove(&key).is_some() {
                    return true;
                }
            }
            Fed::Synced => return self.unsynced.remove("Service"),
            Fed::Failed(error) => return self.failed("Service", error),
        }
        !self.unwritten.is_empty() || !self.balancer.is_settled()
    }

    fn put(&mut self, service: &Service) {
        let key = key(service);
        let version = version(service);
        if self.seen.get(&key).is_some_and(|old| old.version > version) {
            return;
        }
        let (shown, since) = Shown::of(service);
        let marked = shown.condition.is_some();
        if is_ours(service) {
            self.judge_pools();
            let ask = ask(service);
            if marked || self.desired.contains_key(&key) || !self.is_foreign(service, &ask) {
                self.foreign.remove(&key);
                self.balancer.put(ask);
            } else {
                self.foreign.insert(key.clone(), ask);
            }
        } else {
            self.balancer.remove(&key);
            self.foreign.remove(&key);
            // What was ours goes; what somebody else wrote stays.
            if self.desired.remove(&key).is_some() || marked {
                self.desired.insert(key.clone(), Shown::default());
            }
        }
        if self.desired.get(&key).is_some_and(|want| *want != shown) {
            self.unwritten.insert(key.clone());
        }
        let seen = Seen {
            on: reference(service),
            shown,
            since,
            version,
        };
        self.seen.insert(key, seen);
    }

    /// Whether another balancer serves it: it has an address, and none of ours.
    fn is_foreign(&self, service: &Service, ask: &Ask) -> bool {
        let status = service.status.as_ref();
        let balancer = status.and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
        let class = service
            .spec
            .as_ref()
            .and_then(|s| s.load_balancer_class.as_ref());
        let mut pools = self.balancer.counts();
        class.is_none()
            && ingress.is_some_and(|ingress| !ingress.is_empty())
            && !pools.any(|(pool, _)| ask.had.iter().any(|ip| pool.has(*ip)))
    }

    /// Judges the pools beside each other where that has to be done anew.
    fn judge_pools(&mut self) {
        if !std::mem::take(&mut self.judge) {
            return;
        }
        let pools = self.pools.values().filter_map(|seen| seen.pool.clone());
        let judged = model::pool::judge(pools, self.config.as_ref(), self.nodes.values());
        let unread = self.pools.values().any(|seen| seen.problem.is_some());
        let ours = |ask: &Ask, judged: &[Judged]| {
            let mut ips = ask.had.iter();
            ips.any(|ip| judged.iter().any(|pool| pool.has(*ip)))
        };
        let (now_ours, foreign): (BTreeMap<Key, Ask>, _) = std::mem::take(&mut self.foreign)
            .into_iter()
            .partition(|(_, ask)| ours(ask, &judged));
        self.foreign = foreign;
        self.balancer.set_pools(judged, unread);
        for ask in now_ours.into_values() {
            self.balancer.put(ask);
        }
    }

    /// Decides, and tells.
    fn settle(&mut self) {
        self.judge_pools();
        for outcome in self.balancer.settle() {
            let key = outcome.key.clone();
            let after = Shown::after(&outcome);
            let Some(seen) = self.seen.get(&key) else {
                continue;
            };
            if seen.shown != after {
                self.tell(seen, &outcome, &after);
                self.unwritten.insert(key.clone());
            }
            self.desired.insert(key, after);
        }
    }

    fn tell(&self, seen: &Seen, outcome: &Outcome, after: &Shown) {
        let on = || seen.on.clone();
        for (ip, why) in &outcome.lost {
            if seen.shown.ips.contains(ip) {
                let message = format!("{ip} is taken back: {why}");
                self.recorder.warning(on(), "AddressWithdrawn", message);
            }
        }
        for (ip, pool) in &outcome.gained {
            if !seen.shown.ips.contains(ip) {
                let message = format!("assigned {ip} of LoadBalancerPool {pool}");
                tracing::info!(service = ?outcome.key, %ip, pool, "address assigned");
                self.recorder.normal(on(), "AddressAssigned", message);
            }
        }
        if let Some(problem) = &outcome.problem
            && seen.shown.condition != after.condition
        {
            self.recorder.warning(on(), "FailedAllocation", problem);
        }
    }

    /// Writes statuses; true where some could not be.
    async fn write(&mut self) -> bool {
        let mut writes = Vec::new();
        for key in std::mem::take(&mut self.unwritten) {
            let (Some(seen), Some(want)) = (self.seen.get(&key), self.desired.get(&key)) else {
                continue;
            };
            if seen.shown != *want {
                let uid = seen.on.uid.as_deref();
                let patch = want.patch(&seen.shown, seen.since, uid, Timestamp::now());
                writes.push((key, want.clone(), patch));
            }
        }
        let client = self.client.clone();
        let mut written = futures::stream::iter(writes)
            .map(|(key, want, patch)| {
                let api: Api<Service> = Api::namespaced(client.clone(), &key.0);
                async move {
                    let patch = Patch::Strategic(patch);
                    let result = api
                        .patch_status(&key.1, &PatchParams::default(), &patch)
                        .await;
                    (key, want, result)
                }
            })
            .buffer_unordered(WRITES);
        let mut failed = false;
        while let Some((key, want, result)) = written.next().await {
            match result {
                Ok(service) => {
                    let (shown, since) = Shown::of(&service);
                    if let Some(seen) = self.seen.get_mut(&key) {
                        seen.version = version(&service);
                        (seen.shown, seen.since) = (shown, since);
                    }
                    if want == Shown::default() {
                        self.desired.remove(&key);
                    }
                }
                // Gone, another of that name, or no longer of this type: the watch will tell.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {
                    tracing::debug!(service = ?key, "status refused: {}", status.message);
                }
                Err(error) => {
                    let what = format!("write the status of Service {}/{}", key.0, key.1);
                    tracing::warn!("{}; trying again", Error::request(what)(error));
                    self.unwritten.insert(key);
                    failed = true;
                }
            }
        }
        failed
    }

    /// Writes the pools' statuses; true where some could not be.
    async fn write_pools(&mut self) -> bool {
        let counts: BTreeMap<String, _> = self
            .balancer
            .counts()
            .map(|(judged, count)| (judged.pool.name.clone(), (judged, count)))
            .collect();
        let api = api::pool::all(&self.client);
        let mut failed = false;
        for (name, seen) in &mut self.pools {
            let judged = counts.get(name).cloned();
            let problem = seen.problem.as_deref();
            let now = Timestamp::now();
            let status = status::of_pool(judged, problem, seen.generation, &seen.status, now);
            let Some(status) = status else { continue };
            let patch = Patch::Merge(json!({"status": status}));
            match api
                .patch_status(name, &PatchParams::default(), &patch)
                .await
            {
                Ok(written) => seen.status = written.data["status"].clone(),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    let what = format!("write the status of LoadBalancerPool {name}");
                    tracing::warn!("{}; trying again", Error::request(what)(error));
                    failed = true;
                }
            }
        }
        failed
    }
}

fn version(service: &Service) -> u64 {
    let version = service.metadata.resource_version.as_deref();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}
