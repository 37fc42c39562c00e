//! Names, asked for as somebody in the cluster asks: with the `resolv.conf` of the pod or node,
//! from inside its network, one step of the search path after the other.

pub mod query;
pub mod stub;
mod text;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::trace::ends::{self, Place};
use dns::explain::search::Search;
use dns::wire::{EdnsOption, Message, Name, Rcode, Type};
use lab::kubelet::Resolv;
use lab::paths::ClusterPaths;
use linux::{NetNs, run_in};
use model::Cluster;
use serde::Serialize;

use super::Failure;

/// Port of DNS.
const PORT: u16 = 53;
/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who asks.
pub struct Asker {
    /// What to call it.
    pub name: String,
    netns: NetNs,
    resolv: Resolv,
}

/// How a name is resolved.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolution {
    /// Who asked.
    pub from: String,
    /// The servers of its `resolv.conf`.
    pub servers: Vec<String>,
    /// Its search path.
    pub search: Vec<String>,
    /// `options ndots:N`.
    pub ndots: usize,
    /// What was asked for.
    pub name: String,
    /// Each question, in order; the last is the one that counts.
    pub steps: Vec<Step>,
    /// There is an answer.
    pub found: bool,
    /// The addresses in it.
    pub addresses: Vec<IpAddr>,
}

/// One question and what came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The name asked for.
    pub name: String,
    /// Which records.
    #[serde(rename = "type")]
    pub kind: String,
    /// The server.
    pub server: String,
    /// The response code, `NODATA` where the name has no such records; why there is no
    /// response, where there is none.
    pub status: String,
    /// The records of the answer.
    pub answers: Vec<Answer>,
    /// The plugin that answered, and the server's own name, where it says so.
    pub by: Option<String>,
    /// How long it took.
    pub milliseconds: f64,
}

/// One record of an answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Whose.
    pub name: String,
    /// Seconds.
    pub ttl: u32,
    /// Type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Content.
    pub data: String,
}

impl Asker {
    /// The pod or node that `place` names.
    pub fn find(paths: &ClusterPaths, place: &Place, cluster: &Cluster) -> Result<Self, Failure> {
        let failed = |error: String| Failure::Failed(error);
        if !nix::unistd::geteuid().is_root() {
            return Err(failed(
                "names are asked for from inside the pod, and entering it needs root; run it with sudo".into(),
            ));
        }
        let (name, netns, file) = match place {
            Place::Pod { namespace, name } => {
                ends::find(place, cluster, &[]).map_err(|error| failed(error.to_string()))?;
                let key = (namespace.clone(), name.clone());
                let Some(pod) = cluster.pods.get(&key) else {
                    return Err(failed(format!(
                        "pod {namespace}/{name}: there is no such pod"
                    )));
                };
                let netns = super::check::pod_netns(paths, &pod.node, &pod.uid);
                let netns =
                    netns.map_err(|error| failed(format!("pod {namespace}/{name}: {error}")))?;
                let folder = paths.node(&pod.node).pods().join(&pod.uid);
                (
                    format!("pod {namespace}/{name}"),
                    netns,
                    folder.join(lab::kubelet::RESOLV_FILE),
                )
            }
            Place::Node(node) => {
                ends::find(place, cluster, &[]).map_err(|error| failed(error.to_string()))?;
                let netns =
                    NetNs::named(&paths.netns(node)).map_err(|error| failed(error.to_string()))?;
                (format!("node {node}"), netns, paths.resolv_conf())
            }
            Place::Service { .. } | Place::Client | Place::Address(_) => {
                return Err(Failure::Usage(
                    "names are asked for from a pod or a node: write pod/NAME, pod/NAMESPACE/NAME or node/NAME".into(),
                ));
            }
        };
        Ok(Self {
            name,
            netns,
            resolv: read(file)?,
        })
    }

    /// Asks for a name step by step, as the C library does, until one step has an answer.
    pub fn resolve(&self, name: &str, kind: Type) -> Result<Resolution, Failure> {
        let search = Search::new(&self.resolv.searches, &self.resolv.options);
        let names = search
            .names(name)
            .map_err(|error| Failure::Usage(format!("{name:?} is not a name: {error}")))?;
        let servers = self.servers()?;
        let asked = run_in(&self.netns, || walk(&names, kind, &servers));
        let (steps, last) = asked.map_err(|error| Failure::Failed(error.to_string()))?;
        let answers = last.map(|message| message.answers).unwrap_or_default();
        Ok(Resolution {
            from: self.name.clone(),
            servers: self.resolv.nameservers.clone(),
            search: search.domains,
            ndots: search.ndots,
            name: name.to_owned(),
            found: !answers.is_empty(),
            addresses: answers
                .iter()
                .filter_map(|record| record.data.ip())
                .collect(),
            steps,
        })
    }

    fn servers(&self) -> Result<Vec<SocketAddr>, Failure> {
        let parsed = self
            .resolv
            .nameservers
            .iter()
            .filter_map(|text| text.parse().ok());
        let servers: Vec<SocketAddr> = parsed.map(|ip: IpAddr| SocketAddr::new(ip, PORT)).collect();
        if servers.is_empty() {
            return Err(Failure::Failed(format!(
                "{}: its resolv.conf names no server, so it resolves nothing",
                self.name
            )));
        }
        Ok(servers)
    }
}

fn read(file: PathBuf) -> Result<Resolv, Failure> {
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
    Ok(Resolv::parse(&text))
}

/// The steps, and the answer that ended them.
fn walk(names: &[Name], kind: Type, servers: &[SocketAddr]) -> (Vec<Step>, Option<Message>) {
    let mut steps = Vec::new();
    for name in names {
        for server in servers {
            let start = Instant::now();
            let answer = stub::ask(*server, name, kind, PATIENCE);
            steps.push(step(name, kind, *server, &answer, start.elapsed()));
            let Ok(answer) = answer else { continue };
            // A server that cannot tell leaves it to the next.
            if [Rcode::SERVFAIL, Rcode::NOTIMP, Rcode::REFUSED].contains(&answer.header.rcode) {
                continue;
            }
            if answer.header.rcode == Rcode::NOERROR && !answer.answers.is_empty() {
                return (steps, Some(answer));
            }
            break;
        }
    }
    (steps, None)
}

fn step(
    name: &Name,
    kind: Type,
    server: SocketAddr,
    answer: &io::Result<Message>,
    took: Duration,
) -> Step {
    let status = match answer {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            format!("no answer within {} s", PATIENCE.as_secs())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => "may not be sent".into(),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "nobody listens there".into()
        }
        Err(error) => error.to_string(),
        Ok(answer) if answer.header.rcode == Rcode::NOERROR && answer.answers.is_empty() => {
            "NODATA".into()
        }
        Ok(answer) => answer.header.rcode.to_string(),
    };
    let answers = answer.as_ref().map(|answer| answer.answers.as_slice());
    let answers = answers.unwrap_or_default().iter().map(|record| Answer {
        name: record.name.to_string(),
        ttl: record.ttl,
        kind: record.kind().to_string(),
        data: text::data(&record.data),
    });
    Step {
        name: name.to_string(),
        kind: kind.to_string(),
        server: server.ip().to_string(),
        status,
        answers: answers.collect(),
        by: answer.as_ref().ok().and_then(by),
        milliseconds: (took.as_secs_f64() * 1e5).round() / 100.0,
    }
}

/// Who says to have answered.
fn by(answer: &Message) -> Option<String> {
    let edns = answer.edns.as_ref()?;
    let said = [EdnsOption::ANSWERED_BY, EdnsOption::NSID]
        .into_iter()
        .filter_map(|code| edns.option(code))
        .filter(|data| !data.is_empty())
        .map(|data| String::from_utf8_lossy(data).into_owned());
    let said: Vec<String> = said.collect();
    (!said.is_empty()).then(|| said.join(", "))
}
