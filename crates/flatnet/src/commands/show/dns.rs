//! `show dns`: the nodes' own DNS servers, as their agents have them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use lab::cluster::plan::Plan as Lab;
use lab::paths::ClusterPaths;
use pods::wire::{self, Answer, Request};
use serde::{Deserialize, Serialize};

use super::{nodes, trace};
use crate::cli::Output;
use crate::commands::{Failure, Outcome};
use crate::output::{self, Tone, toned};

/// What an agent says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Server {
    /// Whether questions are led to it.
    serving: bool,
    /// Where.
    addresses: Vec<IpAddr>,
    /// Where it should be.
    wanted: Vec<IpAddr>,
    since: Option<Timestamp>,
    corefile_since: Option<Timestamp>,
    problems: Vec<String>,
    /// Sums of its metrics.
    counts: BTreeMap<String, f64>,
}

/// Prints each node's server; exit 1 where one is wanted that is not there, or has problems.
pub fn show(paths: &ClusterPaths, lab: &Lab, node: Option<&str>, output: Output) -> Outcome {
    let mut servers = BTreeMap::new();
    for node in nodes(paths, lab, node)? {
        let failed = |why: &dyn std::fmt::Display| {
            Failure::Failed(format!("node {}: its agent: {why}", node.name))
        };
        let socket = paths.node(&node.name).agent_socket();
        let said = match wire::ask(&socket, &Request::Dns, trace::PATIENCE) {
            Ok(Answer::Ok(said)) => said,
            Ok(Answer::Error(error)) => return Err(failed(&error)),
            Err(error) => return Err(failed(&error)),
        };
        let server: Server = serde_json::from_value(said).map_err(|error| failed(&error))?;
        servers.insert(node.name.clone(), server);
    }
    let good = servers.values().all(Server::is_good);
    if output == Output::Json {
        output::json(&servers)?;
    } else {
        print(&servers);
    }
    if good { Ok(()) } else { Err(Failure::Said) }
}

impl Server {
    fn is_good(&self) -> bool {
        self.problems.is_empty() && (self.serving || self.wanted.is_empty())
    }

    /// A metric's sum; `-` where it is not counted.
    fn count(&self, name: &str) -> String {
        let count = self.counts.get(name);
        count.map_or_else(|| "-".into(), |count| format!("{count:.0}"))
    }
}

fn print(servers: &BTreeMap<String, Server>) {
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".into(), |at| at.to_string());
    let rows = servers.iter().map(|(node, server)| {
        let state = match (server.serving, server.wanted.is_empty()) {
            (true, _) => toned("answers", Tone::Good),
            (false, true) => "is not asked".to_owned(),
            (false, false) => toned("does not answer", Tone::Bad),
        };
        let addresses: Vec<String> = server.addresses.iter().map(ToString::to_string).collect();
        vec![
            node.clone(),
            state,
            addresses.join(","),
            time(server.since),
            time(server.corefile_since),
            server.count("coredns_dns_requests_total"),
            server.count("coredns_cache_entries"),
            server.count("coredns_cache_hits_total"),
        ]
    });
    let head = [
        "NODE",
        "STATE",
        "AT",
        "SINCE",
        "COREFILE OF",
        "QUESTIONS",
        "CACHED",
        "HITS",
    ];
    output::table(&head, rows.collect());
    for (node, server) in servers {
        for problem in &server.problems {
            output::print(&toned(&format!("\n{node}: {problem}"), Tone::Bad));
        }
        if !server.problems.is_empty() {
            output::print("\n");
        }
    }
}
