//! `show policies`: which pods policies are about, and whether their nodes' kernels judge them so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lab::cluster::plan::{NodePlan, Plan as Lab};
use lab::paths::ClusterPaths;
use linux::{Host, NetNs, run_in};
use model::{Changed, Direction};
use pods::Attachment;
use pods::wire::{self, Answer, Request};
use policy::plan::{DIRECTIONS, Plan, Target};
use policy::{Local, Locals, NodeDns, inspect};
use serde::Serialize;

use super::{nodes, runtime, trace};
use crate::cli::Output;
use crate::commands::{Failure, Outcome};
use crate::output::{self, Tone, toned};

/// One address of a pod that some policy is about.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    node: String,
    pod: String,
    address: IpAddr,
    egress: String,
    ingress: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    pods: Vec<Row>,
    /// By node: how many pods no policy is about.
    open: BTreeMap<String, usize>,
    /// By node: what its kernel has otherwise.
    others: BTreeMap<String, Vec<String>>,
    /// What is wrong with policies.
    problems: Vec<String>,
}

/// Prints plan and kernel; exit 1 where they differ.
pub fn show(
    paths: &ClusterPaths,
    lab: &Lab,
    pod: Option<&str>,
    node: Option<&str>,
    output: Output,
) -> Outcome {
    let wanted = nodes(paths, lab, node)?;
    let pod = pod.map(named);
    let (cluster, problems, config) = runtime()?.block_on(async {
        let client = api::client(Some(&paths.kubeconfig()), "flatnet").await?;
        let config = trace::config(&client).await?;
        let (cluster, problems) = trace::view(&client).await?;
        Ok::<_, Failure>((cluster, problems, config))
    })?;
    if let Some((namespace, name)) = &pod
        && !(cluster.pods).contains_key(&(namespace.clone(), name.clone()))
    {
        return Err(Failure::Failed(format!(
            "pod {namespace}/{name}: there is no such pod; see: kubectl get pods -A"
        )));
    }
    let about_policies = |problem: &String| {
        problem.starts_with("NetworkPolicy ") || problem.starts_with("ClusterNetworkPolicy ")
    };
    let mut shown = Shown {
        problems: problems.into_iter().filter(about_policies).collect(),
        ..Shown::default()
    };
    for node in wanted {
        let locals = locals(paths, node)?;
        let mut plan = Plan::new(&node.name);
        plan.set_resolver(NodeDns::of(&config));
        plan.update(&cluster, &Changed::default(), &locals);
        let found = look(node, &plan)?;
        let is_wanted = |local: &&Local| pod.as_ref().is_none_or(|pod| *pod == local.pod);
        let mut open = 0;
        for local in locals.values().filter(is_wanted) {
            let rows: Vec<Row> = rows(node, local, &plan).collect();
            open += usize::from(rows.is_empty());
            shown.pods.extend(rows);
        }
        shown.open.insert(node.name.clone(), open);
        if !found.is_empty() {
            shown.others.insert(node.name.clone(), found);
        }
    }
    let good = shown.others.is_empty();
    if output == Output::Json {
        output::json(&shown)?;
    } else {
        print(&shown);
    }
    if good { Ok(()) } else { Err(Failure::Said) }
}

/// `web`, `shop/web` or `pod/web`.
fn named(words: &str) -> (String, String) {
    let words = words.strip_prefix("pod/").unwrap_or(words);
    let (namespace, name) = words.split_once('/').unwrap_or(("default", words));
    (namespace.to_owned(), name.to_owned())
}

/// The pods that the node's agent has attached.
fn locals(paths: &ClusterPaths, node: &NodePlan) -> Result<Locals, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::Failed(format!("node {}: its agent: {why}", node.name))
    };
    let socket = paths.node(&node.name).agent_socket();
    let status = match wire::ask(&socket, &Request::Status, trace::PATIENCE) {
        Ok(Answer::Ok(status)) => status,
        Ok(Answer::Error(error)) => return Err(failed(&error)),
        Err(error) => return Err(failed(&error)),
    };
    let held = status.get("attachments").cloned().unwrap_or_default();
    let held: Vec<Attachment> = serde_json::from_value(held).map_err(|error| failed(&error))?;
    let named = held.into_iter().filter(|one| !one.pod.name.is_empty());
    let locals = named.map(|one| {
        let local = Local {
            ips: one.ips().collect(),
            pod: (one.pod.namespace, one.pod.name),
            uid: one.pod.uid,
        };
        ((one.key.container, one.key.ifname), local)
    });
    Ok(locals.collect())
}

/// What the node's kernel has otherwise than planned.
fn look(node: &NodePlan, plan: &Plan) -> Result<Vec<String>, Failure> {
    let failed = |error: linux::Error| Failure::Failed(format!("node {}: {error}", node.name));
    let netns = NetNs::named(&node.namespace.name).map_err(failed)?;
    let looked = run_in(&netns, || inspect(&mut Host::open()?, plan));
    looked.and_then(|found| found).map_err(failed)
}

fn rows<'a>(
    node: &'a NodePlan,
    local: &'a Local,
    plan: &'a Plan,
) -> impl Iterator<Item = Row> + 'a {
    local.ips.iter().filter_map(move |ip| {
        let targets = plan.subjects().get(ip)?;
        let of = |direction: Direction| {
            let mut both = DIRECTIONS.into_iter().zip(targets);
            let found = both.find(|(other, _)| *other == direction);
            found.map(|(_, target)| words(target)).unwrap_or_default()
        };
        Some(Row {
            node: node.name.clone(),
            pod: format!("{}/{}", local.pod.0, local.pod.1),
            address: *ip,
            egress: of(Direction::Egress),
            ingress: of(Direction::Ingress),
        })
    })
}

/// What becomes of connections, in a word or two.
fn words(target: &Target) -> String {
    match target {
        Target::Allowed => "open".into(),
        Target::Denied => "closed".into(),
        Target::List(list) => match list.rules.len() {
            1 => "1 rule".into(),
            rules => format!("{rules} rules"),
        },
    }
}

fn print(shown: &Shown) {
    let lines = shown.pods.iter().map(|row| {
        let kernel = match shown.others.contains_key(&row.node) {
            false => toned("ok", Tone::Good),
            true => toned("deviates", Tone::Bad),
        };
        vec![
            row.node.clone(),
            row.pod.clone(),
            row.address.to_string(),
            row.egress.clone(),
            row.ingress.clone(),
            kernel,
        ]
    });
    output::table(
        &["NODE", "POD", "ADDRESS", "EGRESS", "INGRESS", "KERNEL"],
        lines.collect(),
    );
    let mut text = String::new();
    for (node, open) in shown.open.iter().filter(|(_, open)| **open > 0) {
        text.push_str(&format!("\n{node}: no policy is about {open} other pods"));
    }
    for (node, others) in &shown.others {
        for other in others {
            let line = toned(&format!("{node}: {other}"), Tone::Bad);
            text.push_str(&format!("\n{line}"));
        }
    }
    for problem in &shown.problems {
        text.push_str(&format!("\n{}", toned(problem, Tone::Bad)));
    }
    if !text.is_empty() {
        output::print(&format!("{text}\n"));
    }
}
