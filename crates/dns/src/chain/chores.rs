//! What is done beside answering: files that are read again, errors counted that are told.
//!
//! This is the edge of the plugins with files; they themselves take text.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;

use super::{Chain, LoadBalancePolicy, wrong};
use crate::corefile::{Error, Position};
use crate::plugins::hosts::Table;
use crate::plugins::loadbalance::Weights;
use crate::plugins::looping;
use crate::plugins::metrics::OfHostsFile;
use crate::wire::Name;

/// A file's time of change and length, when it was read.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Option<(SystemTime, u64)>>);

impl Seen {
    /// The file's text, if it is not as it was.
    pub(super) fn changed(&self, path: &Path) -> std::io::Result<Option<(String, SystemTime)>> {
        let about = std::fs::metadata(path)?;
        let now = (about.modified()?, about.len());
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == Some(now) {
            return Ok(None);
        }
        let bytes = std::fs::read(path)?;
        *seen = Some(now);
        Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), now.0)))
    }
}

/// How often files with upstreams are looked at.
const UPSTREAMS: Duration = Duration::from_secs(5);

/// Something to be done again and again.
#[derive(Clone, Copy, Debug)]
enum Chore {
    Hosts,
    Weights,
    Upstreams,
    /// The zone of this number.
    Zone(usize),
    Errors,
}

impl Chain {
    /// Reads files for the first time.
    pub(super) fn read_files(&self, at: &Position) -> Result<(), Error> {
        self.read_hosts();
        self.read_zones()
            .map_err(|error| wrong(at, "file", error))?;
        self.read_weights()
            .map_err(|error| wrong(at, "loadbalance", error))
    }

    /// Does what is to be done beside answering, until it is dropped.
    pub async fn tend(self: Arc<Self>) {
        self.notify_all().await;
        let looking = self.look_for_loop();
        let chores = self.chores().into_iter().map(|(every, chore)| {
            let chain = Arc::clone(&self);
            async move {
                loop {
                    tokio::time::sleep(every).await;
                    let chain = Arc::clone(&chain);
                    let tackled = Arc::clone(&chain);
                    let done = tokio::task::spawn_blocking(move || tackled.tackle(chore)).await;
                    // A panic in there ends this chore alone; it is told by the panic's own words.
                    let Ok(changed) = done else { return };
                    if let Some(zone) = changed {
                        chain.notify(&zone).await;
                    }
                }
            }
        });
        futures::join!(join_all(chores), looking);
    }

    /// Tells what has been counted and not told.
    pub fn close(&self) {
        self.tell_counted(true);
    }

    fn chores(&self) -> Vec<(Duration, Chore)> {
        let mut chores = Vec::new();
        if let Some(hosts) = &self.hosts {
            chores.push((hosts.options.reload, Chore::Hosts));
        }
        if let Some(balance) = &self.loadbalance
            && let LoadBalancePolicy::Weighted { reload, .. } = balance.options.policy
        {
            chores.push((reload, Chore::Weights));
        }
        let files = self
            .forward
            .as_ref()
            .map_or(0, |forward| forward.seen.len());
        if files > 0 {
            chores.push((UPSTREAMS, Chore::Upstreams));
        }
        for (number, every) in self.zone_reloads() {
            chores.push((every, Chore::Zone(number)));
        }
        if let Some(period) = self.errors.as_ref().and_then(|errors| errors.shortest()) {
            chores.push((period, Chore::Errors));
        }
        chores.retain(|(every, _)| !every.is_zero());
        chores
    }

    /// Does one; the zone that it changed, if it did, is told.
    fn tackle(&self, chore: Chore) -> Option<Name> {
        match chore {
            Chore::Zone(number) => return self.read_zone_again(number),
            Chore::Hosts => self.read_hosts(),
            Chore::Upstreams => self.read_upstreams(),
            Chore::Weights => {
                if let Err(error) = self.read_weights() {
                    self.resources
                        .output
                        .line(&format!("[ERROR] plugin/loadbalance: {error}"));
                }
            }
            Chore::Errors => self.tell_counted(false),
        }
        None
    }

    fn tell_counted(&self, end: bool) {
        let Some(errors) = &self.errors else { return };
        for line in errors.due(Instant::now(), end) {
            self.resources.output.line(&line);
        }
    }

    /// Sends out what must not come back, until it gets through.
    async fn look_for_loop(&self) {
        let (Some(looping), Some(forward)) = (&self.looping, &self.forward) else {
            return;
        };
        let end = tokio::time::Instant::now() + looping::MOST;
        while tokio::time::Instant::now() < end {
            let question = looping.question(Instant::now());
            if let Ok(answer) = forward.forwards.answer(&question).await {
                // An upstream in the loop may have given up before this server did.
                drop(answer);
                tokio::time::sleep(looping::LATE).await;
                break;
            }
            tokio::time::sleep(looping::PAUSE).await;
        }
        looping.stop();
    }

    /// The files with upstreams, where one of them has changed.
    fn read_upstreams(&self) {
        let Some(forward) = &self.forward else { return };
        let mut changed = false;
        for (path, seen) in &forward.seen {
            changed |= seen
                .changed(Path::new(path))
                .is_ok_and(|text| text.is_some());
        }
        if !changed {
            return;
        }
        let read = |path: &str| std::fs::read_to_string(path);
        if let Err(error) = forward.forwards.reread(&read) {
            let line = format!("[WARNING] plugin/forward: {error}; upstreams stay as they were");
            self.resources.output.line(&line);
        }
    }

    /// A file that is not there is like an empty one, and one that goes keeps its names.
    fn read_hosts(&self) {
        let Some(source) = &self.hosts else { return };
        let path = Path::new(&source.options.file);
        let Ok(Some((text, changed))) = source.seen.changed(path) else {
            return;
        };
        let table = Table::parse(&text, source.hosts.zones(), source.options.reverse);
        let metrics = &self.resources.metrics;
        let hostsfile = source.options.file.clone();
        let entries = i64::try_from(table.len() + source.hosts.entries()).unwrap_or(i64::MAX);
        metrics
            .hosts_entries
            .get_or_create(&OfHostsFile { hostsfile })
            .set(entries);
        let since = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics.hosts_reloaded.set(since.as_secs_f64());
        source.file.store(Arc::new(table));
    }

    fn read_weights(&self) -> Result<(), String> {
        let Some(balance) = &self.loadbalance else {
            return Ok(());
        };
        let LoadBalancePolicy::Weighted { file, reload } = &balance.options.policy else {
            return Ok(());
        };
        match balance.seen.changed(Path::new(file)) {
            Ok(None) => Ok(()),
            Ok(Some((text, _))) => {
                balance
                    .weights
                    .store(Arc::new(Weights::parse(&text, file)?));
                Ok(())
            }
            Err(error) if reload.is_zero() => Err(format!("weight file {file}: {error}")),
            Err(error) => {
                let line = format!(
                    "[WARNING] plugin/loadbalance: Failed to open weight file {file}: {error}. \
                     Will try again in {reload:?}"
                );
                self.resources.output.line(&line);
                Ok(())
            }
        }
    }
}
