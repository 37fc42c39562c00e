//! Waiting for the cluster: the API server answers, the nodes are ready. Where they do not,
//! the error carries the ends of the logs that tell why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt as _};
use pods::wire::{self, Answer, Request};

use super::error::{Error, Result};
use super::plan::Process;
use super::process;

const TAIL: usize = 8;
/// How often the processes are looked at while waiting.
const LOOK: Duration = Duration::from_millis(100);
/// How often an agent is asked.
const ASK: Duration = Duration::from_millis(4);

fn logs(processes: &[&Process]) -> Vec<(PathBuf, Vec<String>)> {
    let tail = |process: &&Process| (process.log.clone(), process::tail(&process.log, TAIL));
    processes.iter().map(tail).collect()
}

/// Waits until the API server says it is ready.
pub async fn apiserver(mount: &Path, kubeconfig: &Path, server: &Process) -> Result<Client> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let client = api::client(Some(kubeconfig), "flatnet").await;
    let client = client.map_err(|error| Error::api("client", error))?;
    loop {
        let request = http::Request::get("/readyz").body(Vec::new());
        let request = request.map_err(|error| Error::api("GET /readyz", error))?;
        let answer = client.request_text(request).await;
        let why = match answer {
            Ok(_) => return Ok(client),
            Err(error) => api::error::cause(&error),
        };
        let ended = !process::runs(mount, server);
        if ended || Instant::now() > deadline {
            let state = if ended {
                "ended".into()
            } else {
                format!("is not ready after 20 s: {why}")
            };
            return Err(Error::NotReady {
                what: format!("the API server {state}"),
                logs: logs(&[server]),
            });
        }
        // There is no event for "listens now" that works across processes and restarts.
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

/// A node to wait for.
pub struct Awaited<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its agent and kubelet.
    pub processes: &'a [Process],
    /// Seconds since the epoch before which a heartbeat is of an earlier life.
    pub since: i64,
    /// The socket of its agent, where that was started just now: a node may be called ready for
    /// what the agent's earlier life did.
    pub agent: Option<PathBuf>,
}

/// Waits until every node is ready; `report` hears how many are.
pub async fn nodes(
    mount: &Path,
    client: &Client,
    awaited: &[Awaited<'_>],
    report: impl Fn(usize),
) -> Result<()> {
    let patience = Duration::from_secs(20 + awaited.len() as u64);
    let deadline = Instant::now() + patience;
    let mut waiting: BTreeMap<&str, &Awaited<'_>> = awaited.iter().map(|a| (a.name, a)).collect();
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    let mut events = Box::pin(api::watch::raw(
        Api::<Node>::all(client.clone()),
        api::watch::settings(),
    ));
    while !waiting.is_empty() {
        let event = tokio::time::timeout(LOOK, events.next()).await;
        if let Ok(Some(Ok(Event::Apply(node) | Event::InitApply(node)))) = event {
            let name = node.name_any();
            let Some(one) = waiting.get(name.as_str()) else {
                continue;
            };
            match readiness(&node, one.since) {
                Ok(()) => {
                    waiting.remove(name.as_str());
                    report(awaited.len() - waiting.len());
                }
                Err(why) => {
                    said.insert(name, why);
                }
            }
            continue;
        }
        all_run(mount, waiting.values().copied())?;
        if Instant::now() > deadline {
            return Err(late(&waiting, &said, patience));
        }
    }
    agents(mount, awaited, deadline, patience).await
}

/// Waits until the agents that were started have taken in all there is.
async fn agents(
    mount: &Path,
    awaited: &[Awaited<'_>],
    deadline: Instant,
    patience: Duration,
) -> Result<()> {
    for node in awaited {
        let Some(socket) = &node.agent else {
            continue;
        };
        while !is_complete(socket.clone()).await {
            all_run(mount, [node])?;
            if Instant::now() > deadline {
                let why = "its agent has not taken in the cluster".to_owned();
                let said = BTreeMap::from([(node.name.to_owned(), why)]);
                return Err(late(&[(node.name, node)].into(), &said, patience));
            }
            tokio::time::sleep(ASK).await;
        }
    }
    Ok(())
}

/// Whether the agent that listens here knows all it needs.
async fn is_complete(socket: PathBuf) -> bool {
    let ask = move || wire::ask(&socket, &Request::Status, Duration::from_secs(1));
    let asked = tokio::task::spawn_blocking(ask).await;
    matches!(asked, Ok(Ok(Answer::Ok(status))) if status["complete"] == true)
}

/// No process of these nodes has ended.
fn all_run<'a>(mount: &Path, nodes: impl IntoIterator<Item = &'a Awaited<'a>>) -> Result<()> {
    let processes = nodes.into_iter().flat_map(|node| node.processes);
    let ended: Vec<&Process> = processes
        .filter(|process| !process::runs(mount, process))
        .collect();
    if ended.is_empty() {
        return Ok(());
    }
    let names: BTreeSet<&str> = ended.iter().map(|process| process.name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    Err(Error::NotReady {
        what: format!("{} ended", names.join(", ")),
        logs: logs(&ended),
    })
}

fn late(
    waiting: &BTreeMap<&str, &Awaited<'_>>,
    said: &BTreeMap<String, String>,
    patience: Duration,
) -> Error {
    let each: Vec<String> = waiting
        .keys()
        .map(|name| {
            format!(
                "{name} ({})",
                said.get(*name).map_or("not registered", String::as_str)
            )
        })
        .collect();
    // The first node's logs stand for the others: they wait for the same.
    let first = waiting
        .values()
        .next()
        .map(|node| node.processes)
        .unwrap_or_default();
    Error::NotReady {
        what: format!(
            "not ready after {} s: {}",
            patience.as_secs(),
            each.join(", ")
        ),
        logs: logs(&first.iter().collect::<Vec<_>>()),
    }
}

/// Ready, or the condition's own words.
fn readiness(node: &Node, since: i64) -> std::result::Result<(), String> {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    let Some(ready) = ready else {
        return Err("no Ready condition yet".into());
    };
    let heard = ready
        .last_heartbeat_time
        .as_ref()
        .map(|time| time.0.as_second());
    if heard.is_some_and(|heard| heard < since) {
        return Err("not heard of since it was started".into());
    }
    if ready.status == "True" {
        return Ok(());
    }
    Err(ready
        .message
        .clone()
        .unwrap_or_else(|| format!("Ready is {}", ready.status)))
}
