//! Connections that policies denied.
//!
//! ```text
//! kernel ──NFLOG group 11──▶ task ──▶ ring ◀── readers on the socket, at their own pace
//!        ──counters────────▶      ──▶ metrics
//! ```
//!
//! Nothing here touches the loop: the task reads the published view, and where nobody can listen
//! the agent goes on without.

mod count;
mod name;
mod serve;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flows::{Connection, Event, Repeats, Ring, Scene, Unseen, describe};
use jiff::{SignedDuration, Timestamp};
use linux::conntrack::Tuple;
use linux::nflog::{Heard, Layer4, Listener, Logged};
use linux::{Conntrack, Flow, Nftables};
use model::Direction;
use policy::render::nftables::LOG_GROUP;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::Published;
use crate::metrics::drops::DropMetrics;
use count::Counts;

/// Events that are kept.
const ROOM: usize = 4096;
/// Connections that are known as told, and for how long.
const REPEATS: usize = 4096;
const WINDOW: SignedDuration = SignedDuration::from_secs(10);
/// How often counters are read while packets are denied.
const TICK: Duration = Duration::from_secs(1);
/// How long until listening is tried again: an agent that is ending still has the group.
const AGAIN: Duration = Duration::from_secs(2);
/// Readers at once.
const READERS: usize = 32;

/// What was denied lately, for readers.
#[derive(Debug)]
pub(crate) struct Drops {
    node: String,
    /// Tells one run of the agent from another: numbers of events begin anew.
    run: u64,
    ring: Mutex<Ring>,
    /// The number of the next event.
    next: watch::Sender<u64>,
    /// Why nobody listens.
    problem: Mutex<Option<String>>,
    readers: Semaphore,
}

impl Drops {
    pub(crate) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            run: u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default(),
            ring: Mutex::new(Ring::new(ROOM)),
            next: watch::channel(0).0,
            problem: Mutex::new(None),
            readers: Semaphore::new(READERS),
        }
    }

    fn push(&self, event: Event) {
        let next = lock(&self.ring).push(event);
        self.next.send_replace(next);
    }

    /// Sets why nobody listens; a new reason is logged.
    fn set_problem(&self, problem: Option<String>) {
        let mut known = lock(&self.problem);
        if *known != problem {
            if let Some(problem) = &problem {
                tracing::warn!("what policies deny is not told: {problem}");
            }
            *known = problem;
        }
    }
}

/// A panic elsewhere leaves a whole value behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens until dropped.
pub(crate) async fn run(
    drops: Arc<Drops>,
    published: Published,
    metrics: Arc<DropMetrics>,
) -> Result<(), String> {
    loop {
        let ended = match Ear::open(&drops, &published, &metrics) {
            Ok(ear) => {
                drops.set_problem(None);
                ear.run().await
            }
            Err(error) => Err(error),
        };
        drops.set_problem(ended.err().map(|error| error.to_string()));
        sleep(AGAIN).await;
    }
}

/// What listens.
struct Ear<'a> {
    drops: &'a Drops,
    published: &'a Published,
    metrics: &'a DropMetrics,
    listener: AsyncFd<Listener>,
    nftables: Nftables,
    conntrack: Conntrack,
    counts: Counts,
    repeats: Repeats,
    /// When counters are read and repeats told.
    tick: Option<Instant>,
}

impl<'a> Ear<'a> {
    fn open(
        drops: &'a Drops,
        published: &'a Published,
        metrics: &'a DropMetrics,
    ) -> linux::Result<Self> {
        // Counters first: what comes between is counted, and known not to be told.
        let mut nftables = Nftables::open()?;
        let mut counts = Counts::default();
        metrics.denied(&counts.begin(&count::read(&mut nftables)?));
        let listener = Listener::open(LOG_GROUP)?;
        // SAFETY: the listener owns its descriptor, keeps it as long as it lives, and is neither
        // replaced nor taken out of the AsyncFd.
        let listener = unsafe { AsyncFd::register(listener) }
            .map_err(|error| linux::Error::other("packet log", "wait", error.to_string()))?;
        Ok(Self {
            drops,
            published,
            metrics,
            listener,
            nftables,
            conntrack: Conntrack::open()?,
            counts,
            repeats: Repeats::new(WINDOW, REPEATS),
            tick: None,
        })
    }

    async fn run(mut self) -> linux::Result<()> {
        loop {
            let tick = self.tick;
            tokio::select! {
                heard = hear(&mut self.listener) => self.take(heard?),
                () = async {
                    match tick {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                } => self.tick()?,
            }
        }
    }

    fn take(&mut self, heard: Heard) {
        self.counts.lost(heard.lost);
        self.tick.get_or_insert_with(|| Instant::now() + TICK);
        for mut logged in heard.packets {
            let Some(direction) = name::direction(&logged.prefix) else {
                // Another program's rule.
                continue;
            };
            self.counts.told(direction);
            if logged.connection.is_none() {
                logged.connection = self.flow(&logged);
            }
            // Without addresses there is nobody to name: it stays a number.
            if let Some(connection) = Connection::of(direction, &logged) {
                let view = self.published.load();
                let connection = name::seen(&view.cluster, view.config.as_deref(), connection);
                self.tell(&connection, &logged);
            }
        }
    }

    /// Where the kernel does not say to which connection a packet belongs: that of one which was
    /// let through before. A packet of no connection is the first of its own, from the client.
    fn flow(&mut self, logged: &Logged) -> Option<Flow> {
        let packet = logged.packet?;
        let Layer4::Ports { src, dst } = packet.layer4 else {
            return None;
        };
        let tuple = Tuple {
            src: packet.src,
            dst: packet.dst,
            sport: src,
            dport: dst,
        };
        // An error is as good as no answer: the packet is told all the same.
        self.conntrack.find(packet.protocol, &tuple).ok().flatten()
    }

    fn tell(&mut self, connection: &Connection, logged: &Logged) {
        let now = Timestamp::now();
        if self.repeats.is_known(connection, now) {
            return;
        }
        let view = self.published.load();
        let (from, to, by) = name::judged(&view.cluster, connection);
        let link = match connection.direction {
            Direction::Egress => logged.in_dev,
            Direction::Ingress => logged.out_dev,
        };
        let link = link.and_then(name::link);
        let scene = Scene {
            cluster: &view.cluster,
            node: &self.drops.node,
            time: logged.time.and_then(name::timestamp).unwrap_or(now),
            interface: link.as_deref(),
        };
        let drop = Arc::new(describe(&scene, connection, from, to, by));
        self.metrics.told(&drop);
        let oldest = self.repeats.remember(*connection, Arc::clone(&drop), now);
        self.drops.push(Event::Drop(drop));
        self.again(oldest);
    }

    fn again(&self, again: impl IntoIterator<Item = flows::Again>) {
        for again in again {
            self.drops.push(Event::Drop(Arc::new(again.event())));
        }
    }

    /// Tells what is not told one by one.
    fn tick(&mut self) -> linux::Result<()> {
        let counted = count::read(&mut self.nftables)?;
        // Each packet that was counted is in the socket's queue, if it is told at all.
        loop {
            let heard = self.listener.get_mut().read()?;
            if heard == Heard::default() {
                break;
            }
            self.take(heard);
        }
        let now = Timestamp::now();
        let expired = self.repeats.expire(now);
        self.again(expired);
        let news = self.counts.take(&counted);
        self.metrics.denied(&news.denied);
        for (direction, packets) in news.unseen {
            self.metrics.lost(packets);
            self.drops.push(Event::Unseen(Unseen {
                time: now,
                node: self.drops.node.clone(),
                direction,
                packets,
            }));
        }
        let quiet =
            news.denied.iter().all(|packets| *packets == 0) && self.repeats.next().is_none();
        self.tick = (!quiet).then(|| Instant::now() + TICK);
        Ok(())
    }
}

async fn hear(listener: &mut AsyncFd<Listener>) -> linux::Result<Heard> {
    loop {
        let ready = listener.readable_mut().await;
        let mut ready = ready.map_err(|error| linux::Error::io("packet log", "wait", &error))?;
        let heard = ready.get_inner_mut().read()?;
        if heard == Heard::default() {
            ready.clear_ready();
        } else {
            return Ok(heard);
        }
    }
}
