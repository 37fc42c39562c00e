//! `monitor`: what happens to connections, on all nodes, as it happens.

mod follow;
mod merge;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use ::lab::cluster::{plan, state};
use ::lab::paths::ClusterPaths;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{Failure, Outcome, runtime};
use crate::cli::{Monitor, Output};
use follow::{Told, follow};
use merge::{Merge, Shown, Wanted};
use show::Table;

/// So many lines wait to be printed; more wait in the agents.
const QUEUE: usize = 256;
/// How many events of the past are shown where nothing else is asked for.
const TAIL: usize = 10;
/// How long an agent may take to tell the past.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether there are other nodes.
const LOOK: Duration = Duration::from_secs(5);

/// Prints a line for each event until it is interrupted.
pub fn monitor(paths: &ClusterPaths, words: &Monitor, output: Output) -> Outcome {
    let usage = |problem: String| Failure::Usage(problem);
    let wanted = Wanted::new(words.namespace.as_deref(), words.pod.as_deref()).map_err(usage)?;
    let since = match words.since {
        Some(since) => Some(
            Timestamp::now()
                .checked_sub(since)
                .map_err(|_| usage(format!("--since {since:#}: longer than there is time")))?,
        ),
        None => None,
    };
    let tail = words.tail.or(since.is_none().then_some(TAIL));
    let nodes = nodes(paths)?;
    let merge = Merge::new(nodes.keys().cloned(), wanted, since, tail);
    let printer = Printer::new(output);
    printer.begin(words.drops);
    runtime()?.block_on(run(paths, nodes, merge, printer, !words.no_follow));
    Ok(())
}

/// Each node's agent.
fn nodes(paths: &ClusterPaths) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let spec = state::existing(paths)?;
    let nodes = plan::plan(&spec, paths).nodes.into_iter();
    let socket = |name: &str| paths.node(name).agent_socket();
    Ok(nodes
        .map(|node| (node.name.clone(), socket(&node.name)))
        .collect())
}

async fn run(
    paths: &ClusterPaths,
    nodes: BTreeMap<String, PathBuf>,
    mut merge: Merge,
    mut printer: Printer,
    live: bool,
) {
    let (tell, mut told) = mpsc::channel(QUEUE);
    let mut followers = JoinSet::new();
    let mut known = BTreeSet::new();
    for (name, socket) in nodes {
        known.insert(name.clone());
        followers.spawn(follow(name, socket, tell.clone()));
    }
    let end = Instant::now() + PATIENCE;
    while merge.gathers() {
        // An agent that does not come to an end holds up nobody.
        let Ok(Some((node, what))) = timeout_at(end, told.recv()).await else {
            break;
        };
        if !printer.take(&node, what, &mut merge) {
            return;
        }
    }
    printer.header();
    if !printer.all(merge.flush()) || !live {
        return;
    }
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some((node, what)) = told.recv() => {
                if !printer.take(&node, what, &mut merge) {
                    return;
                }
            }
            _ = look.tick() => {
                for (name, socket) in self::nodes(paths).unwrap_or_default() {
                    if known.insert(name.clone()) {
                        followers.spawn(follow(name, socket, tell.clone()));
                    }
                }
            }
        }
    }
}

/// Where lines go.
struct Printer {
    output: Output,
    table: Table,
    begun: bool,
}

impl Printer {
    fn new(output: Output) -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            output,
            table: Table::new(colours),
            begun: false,
        }
    }

    fn begin(&self, drops: bool) {
        if !drops && std::io::stderr().is_terminal() {
            note("so far only drops are seen: this is the same as flatnet monitor --drops");
        }
    }

    /// Prints the columns' names, once.
    fn header(&mut self) {
        if self.output == Output::Table && !std::mem::replace(&mut self.begun, true) {
            put(&self.table.header());
        }
    }

    /// Takes what one node's agent tells; false where nobody reads any more.
    fn take(&mut self, node: &str, told: Told, merge: &mut Merge) -> bool {
        match told {
            Told::Line(line) => {
                let shown = merge.take(node, line);
                self.all(shown)
            }
            Told::Here(problem) => {
                if let Some(problem) = problem {
                    note(&format!("{node}: drops are not seen: {problem}"));
                }
                true
            }
            Told::Away(why) => {
                note(&format!(
                    "{node}: {why}; what it drops meanwhile is not shown"
                ));
                let shown = merge.away(node);
                self.all(shown)
            }
            Told::Back => {
                note(&format!("{node}: the agent is back"));
                true
            }
        }
    }

    fn all(&mut self, shown: Vec<Shown>) -> bool {
        self.table.fit(&shown);
        if !shown.is_empty() {
            self.header();
        }
        shown.iter().all(|one| match self.output {
            Output::Table => put(&self.table.line(one)),
            Output::Json => put(&format!("{}\n", one.json())),
        })
    }
}

/// Prints; false where nobody reads.
fn put(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}

fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
