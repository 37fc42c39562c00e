//! The one loop: watches in, plans out.
//!
//! It owns the [`World`] and the controllers. A change marks keys of controllers dirty; a
//! dirty key is planned (pure, at once) and its actions executed in a task; the answers
//! come back into the world before the key is planned again. One key is never in two
//! tasks. A key that failed waits, longer each time.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use api::events::Recorder;
use api::{Backoff, Error};
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::mpsc;

use super::action::Plan;
use super::execute::{Executor, Learned};
use super::store::Key;
use super::world::{Arrived, Changed, World, watches};

/// Watch events taken in before planning goes on.
const INTAKE: usize = 256;

/// Decides for one kind of object.
pub trait Controller: Send {
    /// The name its Events carry, for example `replicaset-controller`.
    fn name(&self) -> &'static str;

    /// How many keys are worked on at once.
    fn width(&self) -> usize {
        4
    }

    /// Tells `mark` which keys a change concerns.
    fn affected(&mut self, world: &World, changed: &Changed, mark: &mut dyn FnMut(Key));

    /// What to do about `key`.
    fn plan(&mut self, world: &World, key: &Key, now: Timestamp) -> Plan;

    /// The actions of the last plan for `key` are done, or failed.
    fn finished(&mut self, _key: &Key, _failure: Option<&Error>) {}
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Key>,
    dirty: HashSet<Key>,
    working: HashSet<Key>,
    backoff: HashMap<Key, Backoff>,
}

impl Queue {
    fn mark(&mut self, key: Key) {
        if !self.dirty.contains(&key) {
            self.dirty.insert(key.clone());
            self.ready.push_back(key);
        }
    }

    /// The next dirty key nobody works on.
    fn next(&mut self) -> Option<Key> {
        for _ in 0..self.ready.len() {
            let key = self.ready.pop_front()?;
            if self.working.contains(&key) {
                self.ready.push_back(key);
                continue;
            }
            self.dirty.remove(&key);
            return Some(key);
        }
        None
    }
}

enum Report {
    Learned(Learned),
    Done(usize, Key, Result<(), Error>),
}

/// The loop's state.
pub struct Driver {
    world: World,
    controllers: Vec<Box<dyn Controller>>,
    queues: Vec<Queue>,
    executors: Vec<Executor>,
    timers: BTreeSet<(Timestamp, usize, Key)>,
    watches: SelectAll<BoxStream<'static, Arrived>>,
    learned: mpsc::UnboundedReceiver<Learned>,
    done: mpsc::UnboundedReceiver<(usize, Key, Result<(), Error>)>,
    report_done: mpsc::UnboundedSender<(usize, Key, Result<(), Error>)>,
}

impl Driver {
    /// A driver for `controllers`. Must be called inside a tokio runtime.
    pub fn new(client: &Client, controllers: Vec<Box<dyn Controller>>) -> Self {
        // Neither can grow beyond what is being executed: at most `width` plans a controller.
        let (tell, learned) = mpsc::unbounded_channel();
        let (report_done, done) = mpsc::unbounded_channel();
        let executors = controllers
            .iter()
            .map(|controller| Executor {
                client: client.clone(),
                recorder: Recorder::new(client.clone(), controller.name(), None),
                learned: tell.clone(),
            })
            .collect();
        Self {
            world: World::default(),
            queues: controllers.iter().map(|_| Queue::default()).collect(),
            controllers,
            executors,
            timers: BTreeSet::new(),
            watches: watches(client),
            learned,
            done,
            report_done,
        }
    }

    /// Runs until its future is dropped.
    pub async fn run(mut self) -> std::convert::Infallible {
        loop {
            let report = self.wait().await;
            self.take(report);
            for _ in 0..INTAKE {
                let Some(report) = self.waiting() else { break };
                self.take(Some(report));
            }
            self.ring();
            if self.world.synced() {
                self.work();
            }
        }
    }

    /// The next thing that happens; None where a timer is due.
    async fn wait(&mut self) -> Option<Happened> {
        let next = self.timers.first().map(|(when, _, _)| *when);
        let sleep = next.map_or(Duration::from_secs(3600), |when| {
            until(when, Timestamp::now())
        });
        tokio::select! {
            biased;
            Some(learned) = self.learned.recv() => Some(Happened::Report(Report::Learned(learned))),
            Some((index, key, result)) = self.done.recv() => {
                Some(Happened::Report(Report::Done(index, key, result)))
            }
            Some(arrived) = self.watches.next() => Some(Happened::Arrived(Box::new(arrived))),
            () = tokio::time::sleep(sleep) => None,
        }
    }

    /// What has happened already, without waiting. What was learned comes before the
    /// word that a plan is done: it was sent before.
    fn waiting(&mut self) -> Option<Happened> {
        if let Ok(learned) = self.learned.try_recv() {
            return Some(Happened::Report(Report::Learned(learned)));
        }
        if let Ok((index, key, result)) = self.done.try_recv() {
            return Some(Happened::Report(Report::Done(index, key, result)));
        }
        let arrived = futures::FutureExt::now_or_never(self.watches.next())??;
        Some(Happened::Arrived(Box::new(arrived)))
    }

    fn take(&mut self, happened: Option<Happened>) {
        match happened {
            None => {}
            Some(Happened::Arrived(arrived)) => {
                if let Arrived::Failed(error) = arrived.as_ref() {
                    tracing::warn!("{error}; trying again");
                }
                for changed in self.world.take(*arrived) {
                    self.mark(&changed);
                }
            }
            Some(Happened::Report(Report::Learned(learned))) => self.learn(learned),
            Some(Happened::Report(Report::Done(index, key, result))) => {
                // What it learned is in the channel already: take it in first.
                while let Ok(learned) = self.learned.try_recv() {
                    self.learn(learned);
                }
                self.finish(index, key, result);
            }
        }
    }

    fn learn(&mut self, learned: Learned) {
        let changed = match learned {
            Learned::Ended(kind, key, uid) => self.world.ended(kind, &key, &uid),
            Learned::Written(kind, object) => match self.world.written(kind, object) {
                Ok(changed) => changed,
                Err(error) => {
                    tracing::warn!("answer about a {}: {error}", kind.name());
                    None
                }
            },
        };
        if let Some(changed) = changed {
            self.mark(&changed);
        }
    }

    fn mark(&mut self, changed: &Changed) {
        let queues = self.controllers.iter_mut().zip(&mut self.queues);
        for (controller, queue) in queues {
            controller.affected(&self.world, changed, &mut |key| queue.mark(key));
        }
    }

    fn finish(&mut self, index: usize, key: Key, result: Result<(), Error>) {
        let queue = &mut self.queues[index];
        queue.working.remove(&key);
        self.controllers[index].finished(&key, result.as_ref().err());
        match result {
            Ok(()) => {
                queue.backoff.remove(&key);
            }
            Err(error) => {
                let name = self.controllers[index].name();
                // Losing a race against another writer is how optimistic writing works.
                if error.is_conflict() {
                    tracing::debug!(controller = name, "{error}");
                } else {
                    tracing::warn!(controller = name, "{error}");
                }
                let backoff = queue.backoff.entry(key.clone()).or_insert_with(|| {
                    Backoff::new(Duration::from_millis(20), Duration::from_secs(30))
                });
                let wait = backoff.wait();
                let when = Timestamp::now().checked_add(wait).unwrap_or(Timestamp::MAX);
                self.timers.insert((when, index, key));
            }
        }
    }

    /// Marks what timers ask for.
    fn ring(&mut self) {
        let now = Timestamp::now();
        while let Some((when, _, _)) = self.timers.first()
            && *when <= now
        {
            if let Some((_, index, key)) = self.timers.pop_first() {
                self.queues[index].mark(key);
            }
        }
    }

    fn work(&mut self) {
        let now = Timestamp::now();
        for index in 0..self.controllers.len() {
            while self.queues[index].working.len() < self.controllers[index].width() {
                let Some(key) = self.queues[index].next() else {
                    break;
                };
                let plan = self.controllers[index].plan(&self.world, &key, now);
                self.start(index, key, plan);
            }
        }
    }

    fn start(&mut self, index: usize, key: Key, plan: Plan) {
        if let Some(when) = plan.again {
            self.timers.insert((when, index, key.clone()));
        }
        if plan.steps.is_empty() {
            self.queues[index].backoff.remove(&key);
            return;
        }
        self.queues[index].working.insert(key.clone());
        let executor = self.executors[index].clone();
        let report = self.report_done.clone();
        tokio::spawn(async move {
            let result = executor.run(plan).await;
            let _ = report.send((index, key, result));
        });
    }
}

enum Happened {
    Arrived(Box<Arrived>),
    Report(Report),
}

fn until(when: Timestamp, now: Timestamp) -> Duration {
    let millis = when.as_millisecond() - now.as_millisecond();
    // At least a moment: the timer's clock and the wall's do not agree to the millisecond.
    Duration::from_millis(u64::try_from(millis).unwrap_or(0).max(1))
}
