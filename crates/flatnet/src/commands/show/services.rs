//! `show services`: where each node serves what, to whom it leads, and whether its kernel has it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lab::cluster::plan::{NodePlan, Plan as Lab};
use lab::paths::ClusterPaths;
use linux::{Host, NetNs, run_in};
use model::{Cluster, Config, TrafficPolicy};
use serde::Serialize;
use services::{Inspection, Plan, PortPlan, Problem, State, inspect};

use super::{nodes, runtime, trace};
use crate::cli::Output;
use crate::commands::{Failure, Outcome};
use crate::output::{self, Tone, toned};

/// How many endpoints of a Service a line has room for.
const LISTED: usize = 12;

/// One endpoint as a node sees it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    address: SocketAddr,
    /// On the node.
    local: bool,
    /// Connections to this frontend may go there.
    used: bool,
    /// Its state, and why it is not used.
    why: &'static str,
}

/// One frontend on one node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    node: String,
    service: String,
    port: String,
    frontend: String,
    policy: TrafficPolicy,
    affinity: Option<u32>,
    endpoints: Vec<Endpoint>,
    /// What awaits clients, where it is not an endpoint.
    trouble: Option<&'static str>,
    state: State,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    mode: String,
    frontends: Vec<Row>,
    /// By node: what deviates beside the frontends.
    others: BTreeMap<String, Vec<String>>,
    /// What is wrong with objects, by object and field.
    problems: Vec<String>,
}

/// Prints plan and kernel; exit 1 where they differ.
pub fn show(
    paths: &ClusterPaths,
    lab: &Lab,
    name: Option<&str>,
    node: Option<&str>,
    output: Output,
) -> Outcome {
    let wanted = nodes(paths, lab, node)?;
    let name = name.map(service);
    let (cluster, config) = runtime()?.block_on(trace::known(paths))?;
    let plans = trace::services(lab, &cluster, &config);
    if let Some((namespace, service)) = &name
        && !cluster
            .services
            .contains_key(&(namespace.clone(), service.clone()))
    {
        return Err(Failure::Failed(format!(
            "service {namespace}/{service}: there is no such service; see: kubectl get services -A"
        )));
    }
    let mut shown = Shown {
        mode: lab::cluster::spec::shown(&config.services.mode),
        ..Shown::default()
    };
    for node in wanted {
        let Some(plan) = plans.get(&node.name) else {
            continue;
        };
        let found = look(node, plan, &config)?;
        let is_wanted = |port: &&PortPlan| {
            let this = (port.name.namespace.clone(), port.name.name.clone());
            name.as_ref().is_none_or(|name| *name == this)
        };
        for port in plan.ports().values().map(AsRef::as_ref).filter(is_wanted) {
            shown
                .frontends
                .extend(rows(node, &cluster, plan, port, &found));
        }
        if name.is_none() && !found.others.is_empty() {
            shown.others.insert(node.name.clone(), found.others);
        }
        let problems: Vec<&Problem> = match &name {
            Some(name) => plan.problems_of(name).iter().collect(),
            None => plan.problems().collect(),
        };
        shown
            .problems
            .extend(problems.into_iter().map(ToString::to_string));
    }
    shown.problems.sort();
    shown.problems.dedup();
    let good = shown.others.is_empty() && shown.frontends.iter().all(|row| row.state == State::Ok);
    if output == Output::Json {
        output::json(&shown)?;
    } else {
        print(&shown, name.is_some());
    }
    if good { Ok(()) } else { Err(Failure::Said) }
}

/// `web`, `shop/web` or `svc/web`.
fn service(words: &str) -> (String, String) {
    let words = words.strip_prefix("svc/").unwrap_or(words);
    let (namespace, name) = words.split_once('/').unwrap_or(("default", words));
    (namespace.to_owned(), name.to_owned())
}

/// Whether the node's kernel has all of a namespace's Services as planned.
pub fn follows(node: &NodePlan, plan: &Plan, config: &Config, namespace: &str) -> bool {
    look(node, plan, config).is_ok_and(|found| {
        let mut own = (found.ports.iter()).filter(|((name, _), _)| name.namespace == namespace);
        own.all(|(_, state)| *state == State::Ok)
    })
}

/// What the node's kernel has beside its plan.
fn look(node: &NodePlan, plan: &Plan, config: &Config) -> Result<Inspection, Failure> {
    let failed = |error: linux::Error| Failure::Failed(format!("node {}: {error}", node.name));
    let netns = NetNs::named(&node.namespace.name).map_err(failed)?;
    let mode = config.services.mode;
    let looked = run_in(&netns, || inspect(&mut Host::open()?, plan, mode));
    looked.and_then(|found| found).map_err(failed)
}

fn rows<'a>(
    node: &'a NodePlan,
    cluster: &'a Cluster,
    plan: &'a Plan,
    port: &'a PortPlan,
    found: &'a Inspection,
) -> impl Iterator<Item = Row> + 'a {
    let state = found.ports.get(&port.id()).copied();
    let considered = plan.considered(cluster, port);
    port.frontends.iter().map(move |frontend| {
        let local = frontend.policy == TrafficPolicy::Local;
        let endpoints = considered.iter().map(|each| Endpoint {
            address: SocketAddr::new(each.backend.ip, each.backend.port),
            local: each.backend.local,
            used: if local { each.local } else { each.cluster },
            why: if local && each.cluster && !each.backend.local {
                "on another node"
            } else {
                each.why
            },
        });
        Row {
            node: node.name.clone(),
            service: format!("{}/{}", port.name.namespace, port.name.name),
            port: port.name.port.clone(),
            frontend: ::trace::service::Shown(&port.name, frontend).to_string(),
            policy: frontend.policy,
            affinity: port.affinity,
            endpoints: endpoints.collect(),
            trouble: services::explain::trouble(port, frontend),
            state: state.unwrap_or(State::Missing),
        }
    })
}

/// Each endpoint, those that are not used with the reason; of many only the first, and those that
/// are not used before the others.
fn listed(endpoints: &[Endpoint]) -> String {
    if endpoints.is_empty() {
        return "none".to_owned();
    }
    let mut all: Vec<&Endpoint> = endpoints.iter().collect();
    if all.len() > LISTED {
        all.sort_by_key(|each| each.used);
    }
    let each = all.iter().take(LISTED).map(|each| {
        let state = if each.used { "" } else { each.why };
        format!("{} {state}", each.address).trim_end().to_owned()
    });
    let mut text = each.collect::<Vec<_>>().join(", ");
    if all.len() > LISTED {
        let more = all.len() - LISTED;
        text.push_str(&format!(" and {more} more (-o json has all)"));
    }
    text
}

fn print(shown: &Shown, whole: bool) {
    let lines = shown.frontends.iter().map(|row| {
        let used = row.endpoints.iter().filter(|each| each.used);
        let local = used.clone().filter(|each| each.local).count();
        let mut endpoints = format!("{} ({local} local)", used.count());
        if whole {
            endpoints = listed(&row.endpoints);
        }
        let affinity = row.affinity.map(|seconds| format!(", sticky {seconds} s"));
        let state = match row.state {
            State::Ok => toned("ok", Tone::Good),
            State::Different => toned("different", Tone::Bad),
            State::Missing => toned("missing", Tone::Bad),
        };
        let trouble = row.trouble.map(|why| format!("; {why}"));
        vec![
            row.node.clone(),
            format!(
                "{}{}{}",
                row.service,
                if row.port.is_empty() { "" } else { ":" },
                row.port
            ),
            row.frontend.clone(),
            format!("{:?}{}", row.policy, affinity.unwrap_or_default()),
            endpoints,
            format!("{state}{}", trouble.unwrap_or_default()),
        ]
    });
    output::table(
        &[
            "NODE",
            "SERVICE",
            "FRONTEND",
            "POLICY",
            "ENDPOINTS",
            "KERNEL",
        ],
        lines.collect(),
    );
    let mut text = String::new();
    for (node, others) in &shown.others {
        for other in others {
            text.push_str(&format!(
                "\n{}",
                toned(&format!("{node}: {other}"), Tone::Bad)
            ));
        }
    }
    for problem in &shown.problems {
        text.push_str(&format!("\n{}", toned(problem, Tone::Bad)));
    }
    if !text.is_empty() {
        output::print(&format!("{text}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_endpoints_that_are_not_used_and_not_a_thousand() {
        let endpoint = |n: u16| Endpoint {
            address: SocketAddr::from(([10, 50, 0, 1], n)),
            local: false,
            used: n != 1000,
            why: if n == 1000 { "not ready" } else { "ready" },
        };
        assert_eq!(listed(&[]), "none");
        let few = listed(&[endpoint(1000), endpoint(1)]);
        assert_eq!(few, "10.50.0.1:1000 not ready, 10.50.0.1:1");
        let many: Vec<Endpoint> = (1..=1000).map(endpoint).collect();
        let line = listed(&many);
        assert!(line.starts_with("10.50.0.1:1000 not ready, 10.50.0.1:1, "));
        assert!(line.ends_with(" and 988 more (-o json has all)"), "{line}");
    }
}
