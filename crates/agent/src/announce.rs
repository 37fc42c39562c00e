//! Announcing addresses of Services of type LoadBalancer on the node's links.
//!
//! ```text
//! loop ─(Cluster, what changed)─▶ services::announce ─▶ elect (Leases) ─▶ links (ARP, NDP)
//! ```
//!
//! The node's part works on its own task, and its links' on theirs: an answer waits for nothing.

mod conflict;
mod elect;
mod leases;
mod links;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::events::{Recorder, reference};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use linux::Netlink;
use model::Pool;
use services::announce::{Announcements, Moved, Slot};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use conflict::Conflict;
use elect::{Act, BEAT, Election};
use leases::{Leases, Said, said};
use links::{Claim, Links, lans};

pub(crate) use told::Handle;
use told::View;

/// How often the node's links are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Without a beat that was heard for this long, the API is out of reach.
const DEAF: Duration = Duration::from_millis(1000);
/// Then the link is asked this often whether somebody else answers.
const DOUBT: Duration = Duration::from_millis(500);
/// Events of one takeover; with more, a Service's own Event says nothing new.
const MOST_EVENTS: usize = 64;
const CLAIMS: usize = 256;

enum Done {
    Beat(Result<(), api::Error>),
    Took(Slot, Result<Vec<Said>, api::Error>),
    Released(String, Result<Vec<Said>, api::Error>),
    Read(Result<Vec<Said>, api::Error>),
}

/// The node's part in announcing.
struct Announcer {
    node: String,
    handle: Handle,
    leases: Leases,
    recorder: Recorder,
    netlink: Netlink,
    view: View,
    pools: BTreeMap<String, Arc<Pool>>,
    pools_known: bool,
    plan: Announcements,
    addresses: BTreeMap<Slot, BTreeSet<IpAddr>>,
    election: Election,
    /// Slots that are announced now.
    announced: BTreeSet<Slot>,
    links: Links,
    operations: FuturesUnordered<BoxFuture<'static, Done>>,
    beating: bool,
    reading: bool,
    /// The API is back, but who holds what has not been read since.
    unread: bool,
    next_beat: Instant,
    /// The last time that a beat was heard, while this node must beat.
    heard: Option<Instant>,
    next_doubt: Instant,
    /// Claims that the Leases are asked about.
    suspects: BTreeMap<IpAddr, Claim>,
    conflicts: BTreeMap<IpAddr, Conflict>,
}

/// Announces until dropped. What it holds it does not give back: an agent that is back within the
/// time of a Lease breaks no connection, and after that another node takes over.
pub(crate) async fn run(client: Client, node: String, handle: Handle) -> Result<(), String> {
    let (claims, mut claimed) = mpsc::channel(CLAIMS);
    let mut announcer = Announcer::new(&client, &node, handle.clone(), Links::new(claims))?;
    let mut pools = api::watch::raw(api::pool::all(&client), api::watch::settings()).boxed();
    let settings = api::watch::settings().labels(Leases::selector());
    let mut leases = api::watch::raw(announcer.leases.api(), settings).boxed();
    let mut undefined = false;
    let mut listing = BTreeSet::new();
    let (mut step, mut look) = (None, Instant::now());
    loop {
        let beat = announcer.beat_due();
        tokio::select! {
            () = handle.notified() => announcer.listen(),
            Some(event) = pools.next() => announcer.pool(event, &mut undefined, &mut listing),
            // Without an address to announce nobody's Leases matter.
            Some(event) = leases.next(), if announcer.has_wishes() => announcer.lease(event),
            Some(claim) = claimed.recv() => announcer.claim(claim),
            Some(done) = announcer.operations.next() => announcer.done(done),
            () = until(beat) => announcer.beat(),
            () = until(step) => {}
            () = sleep_until(look) => {
                look = Instant::now() + LOOK;
                announcer.look();
            }
        }
        step = announcer.step();
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Announcer {
    fn new(client: &Client, node: &str, handle: Handle, links: Links) -> Result<Self, String> {
        Ok(Self {
            node: node.to_owned(),
            handle,
            leases: Leases::new(client, node),
            recorder: Recorder::new(client.clone(), "flatnet-agent", Some(node)),
            netlink: Netlink::open().map_err(|error| error.to_string())?,
            view: View::default(),
            pools: BTreeMap::new(),
            pools_known: false,
            plan: Announcements::new(node),
            addresses: BTreeMap::new(),
            election: Election::new(node),
            announced: BTreeSet::new(),
            links,
            operations: FuturesUnordered::new(),
            beating: false,
            reading: false,
            unread: false,
            next_beat: Instant::now(),
            heard: None,
            next_doubt: Instant::now(),
            suspects: BTreeMap::new(),
            conflicts: BTreeMap::new(),
        })
    }

    fn has_wishes(&self) -> bool {
        !self.addresses.is_empty() || self.election.mine().next().is_some()
    }

    /// Takes in what the loop told.
    fn listen(&mut self) {
        let (view, news) = self.handle.look();
        self.view = view;
        if news.nodes {
            self.replan();
        } else if self.knows_all() {
            let moved = self.plan.update(&self.view.cluster, &news.touched);
            self.moved(moved);
        }
    }

    /// A half known cluster would give back what the last run of this agent held.
    fn knows_all(&self) -> bool {
        self.view.synced && self.pools_known && self.view.config.is_some()
    }

    fn replan(&mut self) {
        if !self.knows_all() {
            return;
        }
        if self.links.lans().is_empty() && !self.pools.is_empty() {
            match lans(&mut self.netlink) {
                Ok(lans) => self.links.set_lans(lans),
                Err(error) => warn!("{error}"),
            }
        }
        let pools = self.pools.values().cloned();
        let judged = model::pool::judge(
            pools,
            self.view.config.as_deref(),
            self.view.cluster.nodes.values(),
        );
        let lan = self.links.lans().iter().map(|lan| lan.net).collect();
        let moved = self.plan.replan(&self.view.cluster, judged, lan);
        self.moved(moved);
        self.election.ready();
    }

    fn moved(&mut self, moved: Vec<Moved>) {
        for Moved { ip, was, is } in moved {
            if let Some(slot) = was
                && let Some(ips) = self.addresses.get_mut(&slot)
            {
                ips.remove(&ip);
                if self.announced.contains(&slot) {
                    self.links.drop([ip]);
                }
                if ips.is_empty() {
                    self.addresses.remove(&slot);
                    self.election.unwant(&slot);
                    self.announced.remove(&slot);
                }
            }
            if let Some(slot) = is {
                self.election.want(slot.clone());
                if self.announced.contains(&slot) {
                    self.links.hold([ip]);
                    self.tell_of([ip]);
                }
                self.addresses.entry(slot).or_default().insert(ip);
            }
        }
    }

    fn pool(
        &mut self,
        event: watcher::Result<Event<DynamicObject>>,
        undefined: &mut bool,
        listing: &mut BTreeSet<String>,
    ) {
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(object)) => {
                listing.insert(object.name_any());
                self.put_pool(&object);
            }
            Ok(Event::InitDone) => {
                self.pools.retain(|name, _| listing.contains(name));
                self.pools_known = true;
                self.replan();
            }
            Ok(Event::Apply(object)) => {
                if self.put_pool(&object) {
                    self.replan();
                }
            }
            Ok(Event::Delete(object)) => {
                self.pools.remove(&object.name_any());
                self.replan();
            }
            Err(error) if api::pool::is_undefined(&error) => {
                if !std::mem::replace(undefined, true) {
                    info!("the cluster does not know LoadBalancerPools: nothing to announce");
                }
            }
            Err(error) => warn!("{}", api::watch::watch_error(api::pool::KIND, error)),
        }
    }

    /// True where it changed anything. One that cannot be read leaves the last one in force; the
    /// controller says so on the pool.
    fn put_pool(&mut self, object: &DynamicObject) -> bool {
        let Ok(pool) = api::pool::pool(object) else {
            return false;
        };
        let pool = Arc::new(pool);
        let old = self.pools.insert(pool.name.clone(), pool.clone());
        old != Some(pool)
    }

    fn lease(&mut self, event: watcher::Result<Event<Lease>>) {
        match event {
            Ok(Event::Apply(lease) | Event::InitApply(lease)) => {
                self.heard_of(said(&lease).into_iter().collect());
            }
            Ok(Event::Delete(lease)) => self.election.lease_gone(&lease.name_any()),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => {
                self.election.blind(now());
                warn!("{}", api::watch::watch_error("Lease", error));
            }
        }
    }

    fn heard_of(&mut self, all: Vec<Said>) {
        for one in all {
            match one {
                Said::Holder(lease, holder) => self.election.saw_holder(&lease, &holder, now()),
                Said::Beat(node, version) => self.election.saw_beat(&node, &version, now()),
            }
        }
    }

    /// Does what is due; when to look again.
    fn step(&mut self) -> Option<Instant> {
        self.announce_what_is_held();
        if !self.election.must_beat() {
            self.heard = None;
        }
        let (acts, mut next) = self.election.step(now());
        for act in acts {
            match act {
                Act::Take { slot, from } => {
                    let leases = self.leases.clone();
                    let lease = slot.lease();
                    self.operations.push(Box::pin(async move {
                        let result = leases.take(&lease, from).await;
                        Done::Took(slot, result)
                    }));
                }
                Act::Release(lease) => {
                    let leases = self.leases.clone();
                    self.operations.push(Box::pin(async move {
                        let result = leases.release(&lease).await;
                        Done::Released(lease, result)
                    }));
                }
                Act::Probe(slot) => self.probe(&slot),
            }
        }
        if self.is_deaf() && Instant::now() >= self.next_doubt {
            self.next_doubt = Instant::now() + DOUBT;
            for slot in self.announced.clone() {
                self.probe(&slot);
            }
        }
        if self.is_deaf() {
            let doubt = self.next_doubt.into_std();
            next = Some(next.map_or(doubt, |next| next.min(doubt)));
        }
        next.map(Instant::from_std)
    }

    fn probe(&mut self, slot: &Slot) {
        let ips = self.addresses.get(slot);
        if let Some(ip) = ips.and_then(BTreeSet::first).copied() {
            self.links.probe(ip);
        }
    }

    /// Makes the links answer for what is held, and for nothing else.
    fn announce_what_is_held(&mut self) {
        let lost: Vec<Slot> = self
            .announced
            .iter()
            .filter(|slot| !self.election.holds(slot))
            .cloned()
            .collect();
        for slot in lost {
            info!("no longer announcing {slot}");
            self.announced.remove(&slot);
            let ips = self.addresses.get(&slot).cloned().unwrap_or_default();
            self.links.drop(ips);
        }
        let gained: Vec<Slot> = self
            .addresses
            .keys()
            .filter(|slot| !self.announced.contains(*slot) && self.election.holds(slot))
            .cloned()
            .collect();
        for slot in gained {
            info!("announcing {slot}");
            let ips = self.addresses.get(&slot).cloned().unwrap_or_default();
            self.announced.insert(slot);
            self.links.hold(ips.iter().copied());
            self.tell_of(ips);
        }
    }

    /// Events on the Services of these addresses.
    fn tell_of(&self, ips: impl IntoIterator<Item = IpAddr>) {
        for ip in ips.into_iter().take(MOST_EVENTS) {
            if let Some(on) = self.service_of(ip) {
                let message = format!("node {} answers for {ip}", self.node);
                self.recorder.normal(on, "AddressAnnounced", message);
            }
        }
    }

    fn service_of(&self, ip: IpAddr) -> Option<ObjectReference> {
        let service = self.view.cluster.services.get(self.plan.service(ip)?)?;
        let mut object = Service::default();
        object.metadata.namespace = Some(service.namespace.clone());
        object.metadata.name = Some(service.name.clone());
        object.metadata.uid = Some(service.uid.clone());
        Some(reference(&object))
    }

    /// When this node's heart is to beat.
    fn beat_due(&self) -> Option<Instant> {
        (!self.beating && self.election.must_beat()).then_some(self.next_beat)
    }

    fn beat(&mut self) {
        self.beating = true;
        self.heard.get_or_insert(Instant::now());
        self.next_beat = Instant::now() + BEAT;
        let leases = self.leases.clone();
        self.operations
            .push(Box::pin(async move { Done::Beat(leases.beat().await) }));
    }

    /// Whether others cannot see this node's heart beat, as far as it knows.
    fn is_deaf(&self) -> bool {
        self.election.must_beat() && self.heard.is_some_and(|heard| heard.elapsed() > DEAF)
    }

    fn done(&mut self, done: Done) {
        let said = match done {
            Done::Beat(Ok(())) => {
                self.beating = false;
                if self.is_deaf() || self.unread {
                    self.unread = true;
                    self.read_anew();
                }
                self.heard = Some(Instant::now());
                return;
            }
            Done::Beat(Err(error)) => {
                self.beating = false;
                tracing::debug!("{error}");
                self.election.blind(now());
                return;
            }
            Done::Took(slot, result) => {
                self.election.tried(&slot, now());
                result
            }
            Done::Released(lease, result) => {
                self.election.released(&lease);
                result
            }
            Done::Read(result) => {
                self.reading = false;
                match result {
                    Ok(said) => self.read(said),
                    Err(error) => {
                        tracing::debug!("{error}");
                        self.election.blind(now());
                    }
                }
                return;
            }
        };
        match said {
            Ok(said) => self.heard_of(said),
            Err(error) => {
                tracing::debug!("{error}");
                self.election.blind(now());
            }
        }
    }

    /// The Leases as they are now.
    fn read(&mut self, all: Vec<Said>) {
        self.heard_of(all);
        self.unread = false;
        self.election.reconnected();
        for claim in std::mem::take(&mut self.suspects).into_values() {
            let slot = self.plan.slots().get(&claim.ip);
            if slot.is_some_and(|slot| self.election.holds(slot)) {
                self.defend(claim);
            }
        }
    }

    /// After a time without the API: who holds what by now?
    fn read_anew(&mut self) {
        if !std::mem::replace(&mut self.reading, true) {
            let leases = self.leases.clone();
            self.operations
                .push(Box::pin(async move { Done::Read(leases.read().await) }));
        }
    }

    /// Looks at the node's links.
    fn look(&mut self) {
        if self.pools.is_empty() {
            return;
        }
        match lans(&mut self.netlink) {
            Ok(lans) if lans != self.links.lans() => {
                self.links.set_lans(lans);
                // All is told anew, on the links as they are now.
                self.announced.clear();
                self.replan();
            }
            Ok(_) => {}
            Err(error) => warn!("{error}"),
        }
    }
}
