//! `node`: power, cables, and nodes that come and go.

use ipnet::IpNet;
use lab::cluster::plan::plan;
use lab::cluster::{cgroup, process, state, underlay};
use lab::paths::ClusterPaths;
use serde::Serialize;

use super::{Failure, Outcome, on_site};
use crate::cli::{Node, Output};
use crate::output::{self, Tone, toned};

/// Does what is asked to a node.
pub fn node(paths: ClusterPaths, action: Node, output: Output) -> Outcome {
    let done = match action {
        Node::List => return list(&paths, output),
        Node::Stop(one) => on_site(paths, async |site| {
            site.stop_node(&one.node)?;
            Ok(format!("{} is off", one.node))
        }),
        Node::Start(one) => on_site(paths, async |site| {
            site.start_node(&one.node).await?;
            Ok(format!("{} is ready", one.node))
        }),
        Node::Cut { node, heal } => cable(paths, node, heal),
        Node::Join(one) => cable(paths, one.node, true),
        Node::Add { node } => on_site(paths, async |site| {
            let name = site.add_node(node.as_deref()).await?;
            Ok(format!("{name} joined"))
        }),
        Node::Remove(one) => on_site(paths, async |site| {
            site.remove_node(&one.node).await?;
            Ok(format!("{} left", one.node))
        }),
    }?;
    if output == Output::Json {
        output::json(&serde_json::json!({ "done": done }))?;
    } else {
        output::print(&format!("{done}\n"));
    }
    Ok(())
}

fn cable(paths: ClusterPaths, node: String, up: bool) -> Result<String, Failure> {
    on_site(paths, async |site| {
        site.cable(&node, up)?;
        let state = if up { "plugged in" } else { "cut off" };
        Ok(format!("{node} is {state}"))
    })
}

/// A node as the machine sees it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    addresses: Vec<IpNet>,
    agent: bool,
    kubelet: bool,
    cable: bool,
    netns: String,
}

fn list(paths: &ClusterPaths, output: Output) -> Outcome {
    let spec = state::existing(paths)?;
    let plan = plan(&spec, paths);
    let mount = cgroup::mount()?;
    let runs = |node: &lab::cluster::plan::NodePlan, part: &str| {
        let name = format!("{}/{part}", node.name);
        node.processes
            .iter()
            .any(|process| process.name == name && process::runs(&mount, process))
    };
    let rows: Vec<Row> = plan
        .nodes
        .iter()
        .map(|node| Row {
            name: node.name.clone(),
            addresses: node.cable.addresses.clone(),
            agent: runs(node, "agent"),
            kubelet: runs(node, "kubelet"),
            cable: underlay::cable_is_up(&plan, node),
            netns: node.namespace.name.clone(),
        })
        .collect();
    if output == Output::Json {
        return Ok(output::json(&rows)?);
    }
    let is = |good: bool, yes: &str, no: &str| {
        if good {
            toned(yes, Tone::Good)
        } else {
            toned(no, Tone::Bad)
        }
    };
    let rows = rows.iter().map(|row| {
        let addresses: Vec<String> = row
            .addresses
            .iter()
            .map(|net| net.addr().to_string())
            .collect();
        vec![
            row.name.clone(),
            addresses.join(","),
            is(row.agent, "running", "stopped"),
            is(row.kubelet, "running", "stopped"),
            is(row.cable, "plugged", "cut"),
            row.netns.clone(),
        ]
    });
    output::table(
        &["NODE", "ADDRESS", "AGENT", "KUBELET", "CABLE", "NETNS"],
        rows.collect(),
    );
    Ok(())
}
